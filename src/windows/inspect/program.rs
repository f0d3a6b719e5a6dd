//! The CPU that a program of the guest is for.

use crate::error::Result;
use crate::windows::guest_files::GuestFiles;

/// The largest kernel that is read whole (when it is stored compressed).
const KERNEL_BYTES_MAX: u64 = 64 << 20;

/// `IMAGE_FILE_HEADER.Machine` of a program: `None` if the file does not exist, `Some(None)` if it is not a program.
pub(crate) fn pe_machine(files: &dyn GuestFiles, path: &str) -> Result<Option<Option<u16>>> {
    let Some(mut head) = files.head(path, 4096)? else { return Ok(None) };
    if !head.starts_with(b"MZ") {
        // stored compressed (CompactOS): the plain stream is empty
        head = files.read(path, KERNEL_BYTES_MAX)?.unwrap_or_default();
    }
    Ok(Some(machine_of(&head)))
}

/// The machine number of a PE image's first bytes.
fn machine_of(image: &[u8]) -> Option<u16> {
    let bytes = |at: usize, n: usize| image.get(at..at.checked_add(n)?);
    if bytes(0, 2)? != b"MZ" {
        return None;
    }
    let at = usize::try_from(u32::from_le_bytes(bytes(0x3c, 4)?.try_into().ok()?)).ok()?;
    if bytes(at, 4)? != b"PE\0\0" {
        return None;
    }
    Some(u16::from_le_bytes(bytes(at.checked_add(4)?, 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_of_broken_programs() {
        assert_eq!(machine_of(b"MZ"), None);
        let mut image = vec![0; 0x100];
        image[..2].copy_from_slice(b"MZ");
        image[0x3c] = 0x80;
        image[0x80..0x84].copy_from_slice(b"PE\0\0");
        image[0x84..0x86].copy_from_slice(&0x8664u16.to_le_bytes());
        assert_eq!(machine_of(&image), Some(0x8664));
        image[0x3c..0x40].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(machine_of(&image), None);
    }
}
