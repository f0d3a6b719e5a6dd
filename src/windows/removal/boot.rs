//! The boot volume: flags of the boot configuration become what they were; the fallback loader stays.

use super::ledger::Ledger;
use super::manifest::Listed;
use crate::error::Result;
use crate::windows::boot_check::element_key;
use crate::windows::boot_volume::BootVolume;
use crate::windows::earlier_boot::EarlierElement;
use crate::windows::plan_builder::PlanBuilder;

/// Puts back what the listed edits of the boot volume replaced. `boot` is that of the disk, if it has one.
///
/// # Errors
/// When the boot configuration is damaged.
pub(super) fn restore_boot_volume(
    builder: &mut PlanBuilder<'_>,
    boot: Option<&BootVolume>,
    listed: &Listed,
    ledger: &mut Ledger,
) -> Result<()> {
    for file in &listed.boot.files {
        let is_there = boot.and_then(|boot| boot.fallback.as_ref()).is_none_or(|fallback| fallback.exists);
        if is_there {
            let reason =
                "a copy of the guest's own boot manager: a machine with empty NVRAM starts Windows by it alone";
            ledger.leave(format!("fallback loader {}", file.path), reason);
        }
    }
    let editable = match boot {
        None => Err("the disk has no boot volume".to_owned()),
        Some(BootVolume { loader: Err(reason), .. } | BootVolume { space: Err(reason), .. }) => Err(reason.clone()),
        Some(boot) => Ok(boot),
    };
    for EarlierElement { object, element, data, before } in &listed.boot.elements {
        let what = format!("element {element} of {object} in the boot configuration");
        let boot = match &editable {
            Ok(boot) => boot,
            Err(reason) => {
                ledger.leave(what, format!("it cannot be changed: {reason}"));
                continue;
            }
        };
        let key = element_key(object, element);
        let found = builder.boot_element(&key)?;
        if found == *before {
            continue;
        }
        if found != *data || !builder.has_boot_object(object)? {
            ledger.leave(what, "it is not as winject left it");
            continue;
        }
        builder.set_boot_place(&boot.place);
        builder.set_reason("flags of the boot configuration become what they were");
        builder.set_boot_element(&key, before.as_deref())?;
        ledger.remove(format!("the change of {what}"));
    }
    Ok(())
}
