//! `CriticalDeviceDatabase`, where Windows up to 7 finds the service of a controller before the system volume is
//! mounted.

use super::device_ids::BootId;
use crate::drivers::BootDriver;
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{Action, CriticalDeviceRecord, Record};

pub(super) fn register_critical_devices(
    builder: &mut PlanBuilder<'_>,
    boot: &BootDriver,
    ids: &[BootId],
    set: &str,
    record: &mut Record,
) -> Result<()> {
    builder.set_reason(format!("{}: CriticalDeviceDatabase, where Windows up to 7 looks", boot.service));
    for id in ids {
        let name = id.critical_name();
        let key = format!("{set}\\Control\\CriticalDeviceDatabase\\{name}");
        let class = RegistryData::sz(&boot.class_guid.braced());
        let actions = [
            builder.set_value(GuestHive::System, &key, "Service", RegistryData::sz(&boot.service))?,
            builder.set_value(GuestHive::System, &key, "ClassGUID", class)?,
        ];
        record.registry_changes.cdd.push(CriticalDeviceRecord {
            pci_id: name,
            service: boot.service.clone(),
            control_set: set.to_owned(),
            action: Action::overall(&actions),
        });
    }
    Ok(())
}
