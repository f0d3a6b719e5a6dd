//! Boot managers and loaders as programs for a CPU.

use crate::drivers::{Arch, PeFacts};
use crate::error::{Kind, Result};

/// The largest boot manager or loader that is read; real ones have 1 to 3 MB.
pub(super) const PROGRAM_BYTES_MAX: u64 = 64 << 20;

/// Whether a file is a program for that CPU; or what is wrong with it.
pub(super) fn check_program(
    found: Result<Option<Vec<u8>>>,
    arch: Arch,
    what: &str,
) -> Result<std::result::Result<(), String>> {
    let bytes = match found {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Err(format!("{what} is missing"))),
        Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Unsupported) => {
            return Ok(Err(format!("{what} cannot be read: {error}")));
        }
        Err(error) => return Err(error),
    };
    Ok(match PeFacts::parse(&bytes) {
        Ok(facts) if facts.arch() == Some(arch) => Ok(()),
        Ok(facts) => Err(format!("{what} is for CPU {:#x}, Windows for {arch}", facts.machine)),
        Err(error) => Err(format!("{what}: {error}")),
    })
}
