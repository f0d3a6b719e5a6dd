//! Whether Windows is installing devices.

use core::mem::transmute;

use super::ffi;
use super::handle::OwnedHandle;
use super::stop::{Deadline, StopEvent, Stopped};
use super::wide::to_wide;

/// `LOAD_LIBRARY_SEARCH_SYSTEM32` is not known to a Windows 7 without updates; the name has no path, and the program's
/// own folder, which is searched first, is writable for administrators only.
const LOAD_FLAGS: u32 = 0;
/// `WAIT_OBJECT_0`: no installation is pending.
const IDLE: u32 = 0;
/// The answer when this Windows does not tell.
const UNKNOWN: u32 = u32::MAX;
/// `INFINITE`
const FOREVER: u32 = u32::MAX;

type WaitNoPendingInstallEvents = unsafe extern "system" fn(u32) -> u32;

/// Waits until no device installation is pending. Returns whether that came within the limit; `None` when this Windows
/// does not tell. A thread of its own asks: the question may take longer than its time limit, or for ever.
///
/// # Errors
/// When the program has to stop.
pub fn wait_until_idle(seconds: u32, stop: &StopEvent) -> Result<Option<bool>, Stopped> {
    let null = core::ptr::null_mut();
    let thread = unsafe { ffi::CreateThread(null, 0, ask, null, 0, core::ptr::null_mut()) };
    let Some(thread) = OwnedHandle::new(thread) else { return Ok(None) };
    let (handles, limit) = ([thread.raw(), stop.raw()], Deadline::after(seconds).remaining());
    match unsafe { ffi::WaitForMultipleObjects(2, handles.as_ptr(), 0, limit) } {
        0 => {}
        1 => return Err(Stopped),
        _ => return Ok(Some(false)),
    }
    let mut answer = UNKNOWN;
    unsafe { ffi::GetExitCodeThread(thread.raw(), &raw mut answer) };
    Ok((answer != UNKNOWN).then_some(answer == IDLE))
}

unsafe extern "system" fn ask(_: ffi::Handle) -> u32 {
    find_function().map_or(UNKNOWN, |wait| unsafe { wait(FOREVER) })
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
