//! The guest under test, as far as it is the same for every bus.

use std::borrow::Cow;

use super::boot_chain::BootChain;
use super::code::Code;
use crate::error::{Kind, Result};
use crate::hive::check::{self, Severity};
use crate::plan::GuestHive;
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;
use crate::windows::inspect::installation::{Inspected, inspect_files};

/// The facts that are read once for all buses.
pub(super) struct BootSubject<'a> {
    pub guest: Cow<'a, Guest>,
    pub system: Cow<'a, [u8]>,
    /// The first fault of the SYSTEM hive's structure, anywhere in it.
    pub fault: Option<String>,
    /// What was found from the firmware to the loader.
    pub chain: BootChain,
}

/// Why the check ends before the first gate: code, description of the guest, text.
pub(super) type EarlyVerdict = (Code, Option<String>, String);

/// Reads the guest; the inner error is the verdict on one that cannot boot at all.
pub(super) fn read_subject(files: &dyn GuestFiles) -> Result<std::result::Result<BootSubject<'static>, EarlyVerdict>> {
    let Inspected { guest, mut hives } = match inspect_files(files) {
        Ok(Some(inspected)) => inspected,
        Ok(None) => return Ok(Err((Code::NoWindows, None, "there is no Windows on this volume".to_owned()))),
        Err(error) if matches!(error.kind(), Kind::Damaged | Kind::NotWindows) => {
            return Ok(Err((Code::HiveDamaged, None, format!("the registry cannot be read: {error}"))));
        }
        // dirty hives without logs, several installations: the user has to decide
        Err(error) => return Err(error),
    };
    // as Windows will see it, with its logs applied
    let system = match hives.remove(&GuestHive::System).map_or(Ok(Vec::new()), |hive| hive.finish(&[])) {
        Ok(bytes) => bytes,
        Err(error) => {
            let text = format!("the SYSTEM hive cannot be read: {error}");
            return Ok(Err((Code::HiveDamaged, Some(guest.to_string()), text)));
        }
    };
    drop(hives);
    // the loader refuses or repairs a hive that is broken anywhere, not only where the driver's keys are
    let faults = check::check(&system);
    let fault = faults.iter().find(|fault| fault.severity() == Severity::Error).map(ToString::to_string);
    Ok(Ok(BootSubject { guest: Cow::Owned(guest), system: Cow::Owned(system), fault, chain: BootChain::default() }))
}
