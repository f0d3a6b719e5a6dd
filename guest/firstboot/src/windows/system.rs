//! Facts about the running Windows, its environment, and its restart.

use alloc::string::String;
use alloc::vec;
use core::ptr::null_mut;

use super::file::NONE;
use super::handle::OwnedHandle;
use super::wide::{from_wide, to_wide};
use super::{ffi, last_error};
use crate::text::{decimal, join, padded};

/// Longest expanded text, in UTF-16 units: the longest command line of Windows.
const EXPANDED_MAX: u32 = 32_767;

/// Text with `%VARIABLES%` replaced; `None` when it would be too long for Windows.
#[must_use]
pub fn expand(text: &str) -> Option<String> {
    let text = to_wide(text);
    let needed = unsafe { ffi::ExpandEnvironmentStringsW(text.as_ptr(), null_mut(), 0) };
    if needed == 0 || needed > EXPANDED_MAX {
        return None;
    }
    let mut buffer = vec![0u16; usize::try_from(needed).ok()?];
    let written = unsafe { ffi::ExpandEnvironmentStringsW(text.as_ptr(), buffer.as_mut_ptr(), needed) };
    (written != 0 && written <= needed).then(|| from_wide(&buffer))
}

/// The local date and time: `2026-11-29 18:00:00`.
#[must_use]
pub fn timestamp() -> String {
    let mut now = ffi::SystemTime::default();
    unsafe { ffi::GetLocalTime(&raw mut now) };
    let two = |value: u16| padded(value.into(), 2);
    join(&[
        &padded(now.year.into(), 4),
        "-",
        &two(now.month),
        "-",
        &two(now.day),
        " ",
        &two(now.hour),
        ":",
        &two(now.minute),
        ":",
        &two(now.second),
    ])
}

/// The version of Windows: `10.0.19045`.
#[must_use]
pub fn version() -> String {
    let size = u32::try_from(size_of::<ffi::VersionInfo>()).unwrap_or(0);
    let mut info = ffi::VersionInfo { size, major: 0, minor: 0, build: 0, platform: 0, service_pack: [0; 128] };
    unsafe { ffi::RtlGetVersion(&raw mut info) };
    join(&[&decimal(info.major), ".", &decimal(info.minor), ".", &decimal(info.build)])
}

/// Asks for a restart of Windows in some seconds, which people who are logged on see and can cancel (`shutdown /a`).
///
/// # Errors
/// With the number of the error.
pub fn restart(seconds: u32, message: &str) -> Result<(), u32> {
    /// `SHTDN_REASON_MAJOR_HARDWARE`, `_MINOR_HARDWARE_DRIVER` and `_FLAG_PLANNED`
    const REASON: u32 = 0x1_0000 | 0xd | 0x8000_0000;
    enable_shutdown_privilege()?;
    let message = to_wide(message);
    if unsafe { ffi::InitiateSystemShutdownExW(NONE, message.as_ptr(), seconds, 1, 1, REASON) } == 0 {
        return Err(last_error());
    }
    Ok(())
}

fn enable_shutdown_privilege() -> Result<(), u32> {
    /// `TOKEN_ADJUST_PRIVILEGES` and `TOKEN_QUERY`
    const ACCESS: u32 = 0x20 | 8;
    /// `SE_PRIVILEGE_ENABLED`
    const ENABLED: u32 = 2;
    let mut token = null_mut();
    if unsafe { ffi::OpenProcessToken(ffi::GetCurrentProcess(), ACCESS, &raw mut token) } == 0 {
        return Err(last_error());
    }
    let token = OwnedHandle::new(token).ok_or_else(last_error)?;
    let name = to_wide("SeShutdownPrivilege");
    let mut luid = [0; 2];
    if unsafe { ffi::LookupPrivilegeValueW(NONE, name.as_ptr(), &raw mut luid) } == 0 {
        return Err(last_error());
    }
    let privilege = ffi::TokenPrivilege { count: 1, luid, attributes: ENABLED };
    let ok = unsafe { ffi::AdjustTokenPrivileges(token.raw(), 0, &raw const privilege, 0, null_mut(), null_mut()) };
    if ok == 0 { Err(last_error()) } else { Ok(()) }
}

/// Ends the process.
pub fn exit(code: u32) -> ! {
    unsafe { ffi::ExitProcess(code) }
}
