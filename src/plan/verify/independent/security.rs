//! Security descriptors: from `$Secure`, or of a file's own.

use super::bytes::{damaged, slice, u32_at, u64_at};
use super::file::{File, Files};
use super::index::{self, key};
use super::record::{DATA, SECURITY_DESCRIPTOR, STANDARD_INFORMATION};
use crate::error::Result;

const SECURE: u64 = 9;
/// Largest descriptor, in bytes.
const DESCRIPTOR_MAX: u64 = 128 << 10;
/// Bytes before a descriptor in `$SDS`.
const HEADER: usize = 20;

/// The security descriptor of a file; `None` when it has none.
pub(super) fn descriptor(files: &Files<'_>, file: &File) -> Result<Option<Vec<u8>>> {
    if let Some(own) = files.stream(file, SECURITY_DESCRIPTOR, &[])? {
        return files.read_all(&own, DESCRIPTOR_MAX).map(Some);
    }
    let Some(standard) = files.stream(file, STANDARD_INFORMATION, &[])? else { return Ok(None) };
    let standard = files.read_all(&standard, 1 << 10)?;
    let id = if standard.len() < 0x48 { 0 } else { u32_at(&standard, 0x34)? };
    if id == 0 {
        return Ok(None);
    }
    let secure = files.file(SECURE)?;
    let name: Vec<u16> = "$SII".encode_utf16().collect();
    let entry = index::find(files, &secure, &name, &|key| Ok(id.cmp(&u32_at(key, 0)?)))?;
    let entry = entry.ok_or_else(|| damaged("a security id has no descriptor"))?;
    // Hash, id, offset and length, as they stand before the descriptor.
    let located = slice(&entry, 0x10 + key(&entry)?.len(), HEADER)?;
    let length = u64::from(u32_at(located, 16)?);
    if length < HEADER as u64 || length > DESCRIPTOR_MAX {
        return Err(damaged("a security descriptor has an impossible length"));
    }
    let name: Vec<u16> = "$SDS".encode_utf16().collect();
    let store = files.stream(&secure, DATA, &name)?.ok_or_else(|| damaged("$Secure has no descriptors"))?;
    let mut bytes = vec![0; super::bytes::size(length)?];
    files.read(&store, u64_at(located, 8)?, &mut bytes)?;
    if slice(&bytes, 0, HEADER)? != located {
        return Err(damaged("$SII and $SDS disagree"));
    }
    let descriptor = bytes.split_off(HEADER);
    if hash(&descriptor) != u32_at(located, 0)? {
        return Err(damaged("a security descriptor has another hash"));
    }
    Ok(Some(descriptor))
}

fn hash(descriptor: &[u8]) -> u32 {
    let words = descriptor.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
    words.fold(0u32, |hash, word| hash.rotate_left(3).wrapping_add(word))
}
