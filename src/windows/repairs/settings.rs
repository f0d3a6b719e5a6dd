//! Two settings of Windows that matter on a new machine: what follows a stop error, and what becomes of new disks.

use super::options::{DataDisks, RepairOptions};
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{Action, RepairRecord};

/// The policy that brings every disk online (`VDS_SAN_POLICY`: `VDS_SP_ONLINE`).
pub const SAN_POLICY_ONLINE: u32 = 1;

/// Changes the settings that the options name, in every control set.
///
/// # Errors
/// When a hive is damaged.
pub fn change_settings(
    builder: &mut PlanBuilder<'_>,
    options: &RepairOptions,
    record: &mut RepairRecord,
) -> Result<()> {
    if options.no_auto_reboot {
        builder.set_reason("a stop error stays on the screen instead of restarting Windows");
        record.auto_reboot = Some(set_in_every_set(builder, "Control\\CrashControl", "AutoReboot", 0)?);
    }
    if options.data_disks == DataDisks::Online {
        builder.set_reason("Windows brings data disks online that it has not seen before");
        let policy = set_in_every_set(builder, "Services\\partmgr\\Parameters", "SanPolicy", SAN_POLICY_ONLINE)?;
        record.data_disks = Some(policy);
    } else if builder.guest.is_server() && builder.guest.san_policy != Some(SAN_POLICY_ONLINE) {
        builder.add_note(
            "this Windows Server leaves disks offline that it has not seen before; if the machine has data disks, \
             --data-disks online brings them online",
        );
    }
    Ok(())
}

fn set_in_every_set(builder: &mut PlanBuilder<'_>, key: &str, name: &str, number: u32) -> Result<Action> {
    let mut actions = Vec::new();
    for set in builder.guest.control_set_names() {
        let (key, data) = (format!("{set}\\{key}"), Some(RegistryData::dword(number)));
        actions.push(builder.replace_value(GuestHive::System, &key, name, data)?);
    }
    Ok(Action::overall(&actions))
}
