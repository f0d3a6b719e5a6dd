//! The network step as a part of the script.

use std::fmt::Write as _;

use crate::windows::first_boot::description::NetworkStep;

/// Adds the step with this number, which sets `R`, `C` and `S` of it.
pub(super) fn add(out: &mut String, at: usize, step: &NetworkStep) -> Result<(), String> {
    let _ = writeln!(out, "call :log \"the script does not change the network of {}\"\nset \"S{at}=1\"", step.mac);
    Ok(())
}
