//! A line to a serial port, for a host that listens there.

use super::ffi;
use super::file::File;
use crate::text::join;

/// Milliseconds that writing may take in all: a port that takes nothing must not hold the program.
const LIMIT: u32 = 3000;

/// Writes `line` to a port such as `COM1`.
///
/// # Errors
/// With the number of the error, above all when the machine has no such port.
pub fn write_line(port: &str, line: &str) -> Result<(), u32> {
    let file = File::open_device(&join(&["\\\\.\\", port]))?;
    let timeouts = ffi::CommTimeouts {
        read_interval: 0,
        read_multiplier: 0,
        read_constant: LIMIT,
        write_multiplier: 0,
        write_constant: LIMIT,
    };
    // Without a limit nothing is written. Wine's ports that are files have no limits and never wait.
    if unsafe { ffi::SetCommTimeouts(file.raw(), &raw const timeouts) } == 0 {
        return Err(super::last_error());
    }
    file.write(line.as_bytes())
}
