//! UTF-16 with a zero at the end, as Windows takes and gives it.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::ffi;

/// `text` for a call; ends at a NUL in it.
#[must_use]
pub fn to_wide(text: &str) -> Vec<u16> {
    let mut wide: Vec<u16> = text.encode_utf16().take_while(|&unit| unit != 0).collect();
    wide.push(0);
    wide
}

/// The text of a buffer, up to its first zero.
#[must_use]
pub fn from_wide(units: &[u16]) -> String {
    let length = units.iter().position(|&unit| unit == 0).unwrap_or(units.len());
    String::from_utf16_lossy(units.get(..length).unwrap_or_default())
}

/// Copies a text that a structure points to, at most 1,024 units of it.
///
/// # Safety
/// `text` is null or leads to units that end with a zero.
pub(super) unsafe fn copy_wide(text: *const u16) -> String {
    let mut units = Vec::new();
    if !text.is_null() {
        for at in 0..1024 {
            match unsafe { text.add(at).read() } {
                0 => break,
                unit => units.push(unit),
            }
        }
    }
    String::from_utf16_lossy(&units)
}

/// Whether two names are the same to Windows, which ignores the case.
#[must_use]
pub fn is_same_name(a: &str, b: &str) -> bool {
    /// `CSTR_EQUAL`
    const EQUAL: i32 = 2;
    let (a, b) = (to_wide(a), to_wide(b));
    unsafe { ffi::CompareStringOrdinal(a.as_ptr(), -1, b.as_ptr(), -1, 1) == EQUAL }
}

/// What a program printed, as text: UTF-8 if it is that, otherwise in the code page of the console.
#[must_use]
pub fn decode_output(bytes: &[u8]) -> String {
    /// `CP_OEMCP`
    const OEM: u32 = 1;
    if let Ok(text) = core::str::from_utf8(bytes) {
        return text.into();
    }
    let Ok(length) = i32::try_from(bytes.len()) else { return String::new() };
    let needed = unsafe { ffi::MultiByteToWideChar(OEM, 0, bytes.as_ptr(), length, core::ptr::null_mut(), 0) };
    let mut units = vec![0u16; usize::try_from(needed).unwrap_or(0)];
    let written = unsafe { ffi::MultiByteToWideChar(OEM, 0, bytes.as_ptr(), length, units.as_mut_ptr(), needed) };
    String::from_utf16_lossy(units.get(..usize::try_from(written).unwrap_or(0)).unwrap_or_default())
}
