//! Which adapters are ghosts: known to Windows, but not in the machine.
//!
//! Windows marks that in no value that outlives a shutdown. These signs are read:
//!
//! - The device's key below `Enum` is gone.
//! - Windows 8 and later note when a device arrived and when it was removed. At each start all devices that are there
//!   arrive anew, after the root of the machine (`ACPI_HAL\PNP0C08`); one that arrived before it was not there at the last
//!   start. (In a real hive of Windows 10 that holds for the processors of an earlier host and for nothing that was there.)
//! - Windows 7 marks the DNS registration of such an adapter as stale.

use crate::clock::FileTime;
use crate::error::Result;
use crate::guid::Guid;
use crate::hive::Hive;
use crate::windows::registry;

/// The properties of a device that hold times.
const TIMES: &str = "Properties\\{83da6326-97a6-4088-9453-a1923f573b29}";
/// `DEVPKEY_Device_LastArrivalDate`.
const ARRIVAL: &str = "0066";
/// `DEVPKEY_Device_LastRemovalDate`.
const REMOVAL: &str = "0067";
/// The root of the machine's devices.
const ROOT: &str = "ACPI_HAL\\PNP0C08\\0";

/// When the machine started last, by its devices.
pub(super) struct Clock {
    last_start: Option<FileTime>,
}

impl Clock {
    pub(super) fn read(hive: &Hive, set: &str) -> Result<Self> {
        Ok(Self { last_start: time(hive, &format!("{set}\\Enum\\{ROOT}"), ARRIVAL)? })
    }
}

/// Why an adapter is a ghost; `None` if it is there, or nothing says that it is not.
///
/// # Errors
/// When the hive is damaged there.
pub(super) fn ghost_reason(
    hive: &Hive,
    set: &str,
    guid: Guid,
    instance: Option<&str>,
    clock: &Clock,
) -> Result<Option<String>> {
    let Some(instance) = instance else { return Ok(None) };
    let device = format!("{set}\\Enum\\{instance}");
    if registry::find_key(hive, &device)?.is_none() {
        return Ok(Some("Windows does not list its device any more".to_owned()));
    }
    let (arrival, removal) = (time(hive, &device, ARRIVAL)?, time(hive, &device, REMOVAL)?);
    if removal.is_some_and(|removal| arrival.is_none_or(|arrival| arrival < removal)) {
        return Ok(Some("its device was removed".to_owned()));
    }
    // Devices that software makes arrive when it makes them.
    let is_on_a_bus = ["PCI\\", "VMBUS\\", "XENVIF\\", "XEN\\"]
        .iter()
        .any(|bus| instance.get(..bus.len()).is_some_and(|start| start.eq_ignore_ascii_case(bus)));
    if is_on_a_bus && arrival.zip(clock.last_start).is_some_and(|(arrival, start)| arrival < start) {
        return Ok(Some("its device was not there when Windows started last".to_owned()));
    }
    let dns = format!("{set}\\Services\\Tcpip\\Parameters\\DNSRegisteredAdapters\\{}", guid.braced());
    let is_stale = registry::get_u32(hive, &dns, "StaleAdapter")? == Some(1);
    Ok((is_stale && arrival.is_none()).then(|| "its DNS registration is stale".to_owned()))
}

/// A time among the properties of a device.
fn time(hive: &Hive, device: &str, property: &str) -> Result<Option<FileTime>> {
    let data = registry::get_value(hive, &format!("{device}\\{TIMES}\\{property}"), "")?;
    let bytes = data.and_then(|data| <[u8; 8]>::try_from(data.bytes).ok());
    Ok(bytes.map(|bytes| FileTime(u64::from_le_bytes(bytes))).filter(|time| time.0 > 0))
}
