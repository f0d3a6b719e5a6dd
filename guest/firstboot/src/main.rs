//! The service program: everything is in the library.
#![cfg_attr(windows, no_std, no_main)]

/// The entry point, which Windows calls first.
#[cfg(windows)]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "system" fn start() -> ! {
    use winject_firstboot::{session, windows};
    windows::system::exit(windows::service::run(session::SERVICE, session::run))
}

#[cfg(not(windows))]
fn main() {}
