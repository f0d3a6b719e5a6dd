//! Big-endian fields at fixed places. What lies beyond the end of the buffer reads as zero, so a short header is the
//! same as one with zeros at its end.

fn field<const N: usize>(buf: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(source) = at.checked_add(N).and_then(|end| buf.get(at..end)) {
        out.copy_from_slice(source);
    }
    out
}

pub(super) fn be16(buf: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(field(buf, at))
}

pub(super) fn be32(buf: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(field(buf, at))
}

pub(super) fn be64(buf: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(field(buf, at))
}

/// Stores a field; a place beyond the end of the buffer is left out.
pub(super) fn put<const N: usize>(buf: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(target) = at.checked_add(N).and_then(|end| buf.get_mut(at..end)) {
        target.copy_from_slice(&value);
    }
}

/// A table of big-endian 64-bit entries as numbers.
pub(super) fn be64_table(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|entry| be64(entry, 0)).collect()
}

/// The opposite of [`be64_table`].
pub(super) fn table_bytes(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}
