//! The command `winject`. Everything it does is in the library.

use std::panic::AssertUnwindSafe;

fn main() -> std::process::ExitCode {
    // Nothing outlives the closure but the exit code, so no broken invariant can be seen after a panic.
    let run = AssertUnwindSafe(|| winject::internals::cli::main(std::env::args_os()));
    std::panic::catch_unwind(run).unwrap_or_else(|_| winject::internals::cli::report_panic()).into()
}
