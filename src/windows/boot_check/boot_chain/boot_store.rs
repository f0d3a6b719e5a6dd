//! From the boot configuration (BCD) to the loader on the Windows volume.

use super::bcd::{self, DefaultEntry, Device, Entry, NO_GRAPHICS, TEST_SIGNING};
use super::disk::BootDisks;
use super::links::{ChainFindings, readable};
use super::program::{PROGRAM_BYTES_MAX, check_program};
use crate::error::{Kind, Result};
use crate::hive::HiveFile;
use crate::hive::reader::Reader;
use crate::partition::PartitionId;
use crate::windows::boot_check::code::Code;
use crate::windows::boot_check::report::{Firmware, Gate};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// The facts that the boot configuration is compared with.
pub(super) struct BootContext<'a> {
    pub firmware: Firmware,
    pub on: &'a BootDisks<'a>,
    /// The partition of Windows.
    pub own: Option<PartitionId>,
    /// Whether Windows is on the partition that the boot manager is on.
    pub is_boot_partition: bool,
}

pub(super) type Read<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>>;

/// The largest BCD that is read; real ones have 24 to 100 KB.
pub(crate) const BCD_BYTES_MAX: u64 = 32 << 20;

/// Follows the boot configuration to the loader.
pub(super) fn check_boot_store(
    read: Read<'_>,
    path: &str,
    label: &str,
    place: &BootContext<'_>,
    files: &dyn GuestFiles,
    guest: &Guest,
    links: &mut ChainFindings,
) -> Result<()> {
    let what = format!("{path} on {label}");
    let Some(found) = readable(read(path), links, Gate::Bcd, &what)? else { return Ok(()) };
    let Some(bytes) = found else {
        links.fail(Gate::Bcd, Code::NoBcd, format!("no boot configuration: {what} is missing"));
        return Ok(());
    };
    // a log that cannot be read is as good as none
    let file = HiveFile::open(bytes, |log| Ok(read(&format!("{path}{log}")).ok().flatten()));
    let replayed = match file.and_then(|file| file.hive.finish(&[])) {
        Err(error) if error.kind() == Kind::Refused => {
            links.not_judged_for(Gate::Bcd, Code::BcdDirty, format!("{what}: {error}"));
            return Ok(());
        }
        replayed => replayed,
    };
    let Some(bytes) = readable(replayed, links, Gate::Bcd, &what)? else { return Ok(()) };
    let entry = Reader::open(&bytes).and_then(|store| bcd::default_entry(&store));
    match readable(entry, links, Gate::Bcd, &what)? {
        Some(DefaultEntry::Found(entry)) => {
            check_flags(&bytes, &entry.id, &what, place.firmware, links)?;
            check_loader(&entry, &what, place, files, guest, links)
        }
        Some(DefaultEntry::Broken(problem)) => {
            links.fail(Gate::Bcd, Code::BcdEntry, format!("{what}: {problem}"));
            Ok(())
        }
        Some(DefaultEntry::EmptyStore) => {
            links
                .not_judged(Gate::Bcd, format!("{what} is an empty store; if the guest stops there, bcdboot fills it"));
            Ok(())
        }
        None => Ok(()),
    }
}

/// What the flags of the default entry mean for a virtual machine.
fn check_flags(store: &[u8], id: &str, what: &str, firmware: Firmware, links: &mut ChainFindings) -> Result<()> {
    let flags = Reader::open(store)
        .and_then(|store| Ok((bcd::has_flag(&store, id, NO_GRAPHICS)?, bcd::has_flag(&store, id, TEST_SIGNING)?)));
    let Some((no_graphics, test_signing)) = readable(flags, links, Gate::Bcd, what)? else { return Ok(()) };
    if no_graphics && firmware == Firmware::Uefi {
        let text = format!(
            "{what}: the default entry {id} has graphicsmodedisabled ({NO_GRAPHICS}): the screen of a virtual machine with \
             UEFI may stay black"
        );
        links.warn(Gate::Bcd, Code::NoGraphics, text);
    }
    if test_signing {
        let text = format!(
            "{what}: the default entry {id} has testsigning ({TEST_SIGNING}): Windows accepts drivers with any test signature, \
             unless Secure Boot is on"
        );
        links.warn(Gate::Bcd, Code::TestSigning, text);
    }
    Ok(())
}

fn check_loader(
    entry: &Entry,
    what: &str,
    place: &BootContext<'_>,
    files: &dyn GuestFiles,
    guest: &Guest,
    links: &mut ChainFindings,
) -> Result<()> {
    let id = &entry.id;
    let before = links.0.len();
    for (name, device) in [("device", &entry.device), ("osdevice", &entry.os_device)] {
        check_device(device, &format!("{what}: the {name} of the default entry {id}"), place, links)?;
    }
    let own_root = guest.windows_dir.replace('/', "\\");
    match entry.system_root.as_deref().map(|root| root.trim_end_matches('\\')) {
        Some(root) if root.eq_ignore_ascii_case(&own_root) => {}
        Some(root) => {
            let text = format!("{what}: the default entry {id} starts {root}, not {own_root}");
            links.fail(Gate::Bcd, Code::BcdEntry, text);
        }
        None => links.fail(Gate::Bcd, Code::BcdEntry, format!("{what}: the default entry {id} names no systemroot")),
    }
    if links.0.len() == before {
        let on = place.on;
        let windows = match on.others {
            [] => "this disk and partition".to_owned(),
            _ => on.label(&on.windows, on.partition),
        };
        let text = format!("{what}: the default entry {id} names {windows}");
        links.good(Gate::Bcd, Code::Bcd, text);
    }
    let ending = match place.firmware {
        Firmware::Uefi => ".efi",
        Firmware::Bios => ".exe",
    };
    let Some(path) = entry.path.as_deref().filter(|path| path.starts_with('\\')) else {
        links.fail(Gate::OsLoader, Code::BcdEntry, format!("{what}: the default entry {id} names no loader"));
        return Ok(());
    };
    if !path.to_ascii_lowercase().ends_with(ending) {
        let text = format!("{what}: the default entry {id} names {path}; this firmware starts a winload{ending}");
        links.fail(Gate::OsLoader, Code::BcdEntry, text);
        return Ok(());
    }
    let path = path.replace('\\', "/");
    match check_program(files.read(&path, PROGRAM_BYTES_MAX), guest.arch, &path)? {
        Ok(()) => links.good(Gate::OsLoader, Code::OsLoader, format!("{path}, {}", guest.arch)),
        Err(problem) => links.fail(Gate::OsLoader, Code::NoOsLoader, problem),
    }
    Ok(())
}

fn check_device(device: &Device, what: &str, place: &BootContext<'_>, links: &mut ChainFindings) -> Result<()> {
    let named = match device {
        Device::Partition(named) => *named,
        Device::Boot if place.is_boot_partition => return Ok(()),
        Device::Locate => {
            links.not_judged(Gate::Bcd, format!("{what} is looked for at every start (locate)"));
            return Ok(());
        }
        Device::Unknown(kind) => {
            links.not_judged(Gate::Bcd, format!("{what} is of a kind that is not known ({kind:#x})"));
            return Ok(());
        }
        Device::Boot => {
            let text = format!("{what} is the partition of the boot manager, not that of Windows");
            links.fail(Gate::Bcd, Code::BcdDevice, text);
            return Ok(());
        }
        Device::File => {
            let text = format!("{what} is a RAM disk or a disk in a file, not the partition of Windows");
            links.fail(Gate::Bcd, Code::BcdDevice, text);
            return Ok(());
        }
        Device::Missing => {
            links.fail(Gate::Bcd, Code::BcdDevice, format!("{what} is missing"));
            return Ok(());
        }
    };
    let Some(own) = place.own else {
        match place.on.find_on_others(named)? {
            Some(label) => links.fail(Gate::Bcd, Code::BcdDevice, format!("{what} is {label}, which is not Windows")),
            None => links.not_judged(Gate::Bcd, format!("{what}: the ids of this disk's partitions are not readable")),
        }
        return Ok(());
    };
    if own != named {
        let other = match (own, named) {
            (PartitionId::Gpt { disk, .. }, PartitionId::Gpt { disk: named, .. }) if disk == named => {
                "another partition"
            }
            (PartitionId::Mbr { disk, .. }, PartitionId::Mbr { disk: named, .. }) if disk == named => {
                "another partition"
            }
            _ => "another disk",
        };
        let other = match place.on.find_on_others(named)? {
            Some(label) => format!("{other}, {label}"),
            None => other.to_owned(),
        };
        let text = format!("{what} is {other}: {named}, while Windows is {own}");
        links.fail(Gate::Bcd, Code::BcdDevice, text);
    }
    Ok(())
}
