//! What the stand-ins of the tests need beyond the program itself; the linker leaves it out of the program.

use alloc::string::String;
use core::ptr::null_mut;

use super::ffi;
use super::file::{File, NONE};
use super::wide::{copy_wide, to_wide};

/// `STD_OUTPUT_HANDLE`
const OUTPUT: u32 = (-11i32).cast_unsigned();

/// The command line of the process.
#[must_use]
pub fn command_line() -> String {
    unsafe { copy_wide(ffi::GetCommandLineW()) }
}

/// Writes to the standard output.
pub fn print(data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(0);
    let mut written = 0;
    unsafe { ffi::WriteFile(ffi::GetStdHandle(OUTPUT), data.as_ptr(), length, &raw mut written, null_mut()) };
}

/// Appends to a file, which is made when it is not there.
///
/// # Errors
/// With the number of the error.
pub fn append(path: &str, data: &[u8]) -> Result<(), u32> {
    File::append(path)?.write(data)
}

/// Starts a command line and does not wait for it.
pub fn start(line: &str) {
    let mut line = to_wide(line);
    let size = u32::try_from(size_of::<ffi::StartupInfo>()).unwrap_or(0);
    let startup = ffi::StartupInfo {
        size,
        reserved: null_mut(),
        desktop: null_mut(),
        title: null_mut(),
        places: [0; 7],
        flags: 0,
        show: 0,
        extra_size: 0,
        extra: null_mut(),
        input: null_mut(),
        output: null_mut(),
        error: null_mut(),
    };
    let mut child = ffi::ProcessInformation { process: null_mut(), thread: null_mut(), process_id: 0, thread_id: 0 };
    unsafe {
        ffi::CreateProcessW(
            NONE,
            line.as_mut_ptr(),
            null_mut(),
            null_mut(),
            1,
            0,
            null_mut(),
            NONE,
            &raw const startup,
            &raw mut child,
        )
    };
}
