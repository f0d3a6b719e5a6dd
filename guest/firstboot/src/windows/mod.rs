//! Safe functions over the calls of Windows that the program needs. All `unsafe` code is here.

pub mod adapters;
pub mod console;
pub mod ffi;
pub mod file;
pub mod handle;
pub mod pnp;
pub mod process;
pub mod registry;
mod runtime;
pub mod security;
pub mod serial;
pub mod service;
pub mod stop;
pub mod system;
pub mod wide;

/// Exit code of the process after a fault of the program.
pub const EXIT_PANIC: u32 = 99;

/// The number of the last error of the calling thread.
#[must_use]
pub fn last_error() -> u32 {
    unsafe { ffi::GetLastError() }
}
