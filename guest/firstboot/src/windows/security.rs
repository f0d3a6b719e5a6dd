//! Owners and descriptors of files, and the account that the program runs as.

use alloc::vec;
use alloc::vec::Vec;

use super::ffi;
use super::file::File;
use super::handle::OwnedHandle;

/// `OWNER_SECURITY_INFORMATION`
const OWNER: u32 = 1;
/// `DACL_SECURITY_INFORMATION`
const DACL: u32 = 4;
/// Largest descriptor.
const DESCRIPTOR_MAX: u32 = 0x1_0000;

/// The file's descriptor with owner and access list, self-relative.
#[must_use]
pub fn descriptor(file: &File) -> Option<Vec<u8>> {
    read_descriptor(file, OWNER | DACL)
}

/// The file's descriptor with the owner alone.
#[must_use]
pub fn owner_descriptor(file: &File) -> Option<Vec<u8>> {
    read_descriptor(file, OWNER)
}

fn read_descriptor(file: &File, what: u32) -> Option<Vec<u8>> {
    let mut needed = 0;
    unsafe { ffi::GetKernelObjectSecurity(file.raw(), what, core::ptr::null_mut(), 0, &raw mut needed) };
    if needed == 0 || needed > DESCRIPTOR_MAX {
        return None;
    }
    let mut data = vec![0u8; usize::try_from(needed).ok()?];
    let room = needed;
    let ok = unsafe { ffi::GetKernelObjectSecurity(file.raw(), what, data.as_mut_ptr(), room, &raw mut needed) };
    (ok != 0).then_some(data)
}

/// The SID of the account that the program runs as; empty when Windows does not tell.
#[must_use]
pub fn own_sid() -> Vec<u8> {
    read_own_sid().unwrap_or_default()
}

fn read_own_sid() -> Option<Vec<u8>> {
    /// `TOKEN_QUERY`
    const QUERY: u32 = 8;
    /// `TokenUser`
    const USER: u32 = 1;
    let mut token = core::ptr::null_mut();
    if unsafe { ffi::OpenProcessToken(ffi::GetCurrentProcess(), QUERY, &raw mut token) } == 0 {
        return None;
    }
    let token = OwnedHandle::new(token)?;
    // `TOKEN_USER`: a pointer to the SID, which follows it in the buffer; aligned for the pointer.
    let mut buffer = [0usize; 32];
    let room = u32::try_from(size_of_val(&buffer)).ok()?;
    let mut needed = 0;
    let data = buffer.as_mut_ptr().cast::<u8>();
    if unsafe { ffi::GetTokenInformation(token.raw(), USER, data, room, &raw mut needed) } == 0 {
        return None;
    }
    // SAFETY: the call succeeded, so the pointer leads to a SID inside the buffer, which lives on.
    unsafe {
        let sid = data.cast::<*const u8>().read();
        let length = usize::try_from(ffi::GetLengthSid(sid)).ok()?;
        Some(core::slice::from_raw_parts(sid, length).to_vec())
    }
}
