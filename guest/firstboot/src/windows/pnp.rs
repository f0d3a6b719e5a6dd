//! Whether Windows is installing devices.

use core::mem::transmute;

use super::ffi;
use super::stop::{Deadline, StopEvent, Stopped};
use super::wide::to_wide;

/// `LOAD_LIBRARY_SEARCH_SYSTEM32` is not known to a Windows 7 without updates; the name has no path, and the program's
/// own folder, which is searched first, is writable for administrators only.
const LOAD_FLAGS: u32 = 0;
/// `WAIT_OBJECT_0`: no installation is pending.
const IDLE: u32 = 0;
/// Milliseconds of one wait; between two of them a stop request is seen.
const SLICE: u32 = 1000;

type WaitNoPendingInstallEvents = unsafe extern "system" fn(u32) -> u32;

/// Waits until no device installation is pending. Returns whether that came within the limit; `None` when this Windows
/// does not tell.
///
/// # Errors
/// When the program has to stop.
pub fn wait_until_idle(seconds: u32, stop: &StopEvent) -> Result<Option<bool>, Stopped> {
    let Some(wait) = find_function() else { return Ok(None) };
    let deadline = Deadline::after(seconds);
    loop {
        stop.check()?;
        let remaining = deadline.remaining();
        if unsafe { wait(remaining.min(SLICE)) } == IDLE {
            return Ok(Some(true));
        }
        if remaining == 0 {
            return Ok(Some(false));
        }
        // a call that fails at once must not spin
        stop.wait(remaining.min(SLICE / 4))?;
    }
}

/// `CMP_WaitNoPendingInstallEvents`, which lives in another library since Windows 8.
fn find_function() -> Option<WaitNoPendingInstallEvents> {
    for library in ["cfgmgr32.dll", "setupapi.dll"] {
        let name = to_wide(library);
        let library = unsafe { ffi::LoadLibraryExW(name.as_ptr(), core::ptr::null_mut(), LOAD_FLAGS) };
        if library.is_null() {
            continue;
        }
        let function = unsafe { ffi::GetProcAddress(library, c"CMP_WaitNoPendingInstallEvents".as_ptr().cast()) };
        if !function.is_null() {
            // SAFETY: the function has this signature (cfgmgr32.h).
            return Some(unsafe { transmute::<*const core::ffi::c_void, WaitNoPendingInstallEvents>(function) });
        }
    }
    None
}
