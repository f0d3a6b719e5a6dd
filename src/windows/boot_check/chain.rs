//! From the firmware to the boot loader: partition, boot code, boot manager, BCD, loader.

use std::fmt;

use super::bcd::{self, DefaultEntry, Device, Entry};
use super::report::{Code, Finding, Gate, Level};
use crate::drivers::{Arch, PeFacts};
use crate::error::{Kind, Result};
use crate::fat::FatVolume;
use crate::guid::Guid;
use crate::hive::Hive;
use crate::hive::reader::Reader;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{Content, Disk, Partition, PartitionKind, PartitionTable, PartitionView, Scheme};
use crate::units::ImageOffset;
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// The largest boot manager or loader that is read; real ones have 1 to 3 MB.
const PROGRAM_BYTES_MAX: u64 = 64 << 20;
/// The largest BCD that is read; real ones have 24 to 100 KB.
const BCD_BYTES_MAX: u64 = 32 << 20;
/// How many EFI system partitions are looked at.
const SYSTEM_PARTITIONS_MAX: usize = 8;
/// Length of the boot code of an MBR, before the disk's signature.
const BOOT_CODE_LENGTH: usize = 440;
const BOOT_MANAGER: &str = "/EFI/Microsoft/Boot/bootmgfw.efi";

/// The disk around the Windows volume.
#[derive(Clone, Copy)]
pub struct BootDisk<'a> {
    /// The disk.
    pub disk: &'a dyn Disk,
    /// Its partitions.
    pub table: &'a PartitionTable,
    /// The partition of Windows.
    pub partition: &'a Partition,
}

impl fmt::Debug for BootDisk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootDisk").field("table", self.table).field("partition", self.partition).finish_non_exhaustive()
    }
}

/// What was seen at the links.
#[derive(Debug, Default)]
struct Links(Vec<Finding>);

impl Links {
    fn add(&mut self, gate: Gate, level: Level, code: Code, text: impl Into<String>) {
        self.0.push(Finding { gate, level, code, text: format!("{}: {}", gate.name(), text.into()) });
    }
    fn good(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        self.add(gate, Level::Good, code, text);
    }
    fn warn(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        self.add(gate, Level::Warning, code, text);
    }
    fn fail(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        self.add(gate, Level::Failure, code, text);
    }
    fn not_judged(&mut self, gate: Gate, text: impl Into<String>) {
        let text = format!("not judged: {}", text.into());
        self.0.push(Finding { gate, level: Level::NotJudged, code: Code::NotJudged, text });
    }
    fn has_failure(&self) -> bool {
        self.0.iter().any(|finding| finding.level == Level::Failure)
    }
}

/// How firmware starts the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Firmware {
    Uefi,
    Bios,
}

/// What the boot configuration calls the partition of Windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnId {
    Gpt { disk: Guid, partition: Guid },
    Mbr { disk: u32, start: u64 },
}

/// Walks from the firmware to the loader's file on the Windows volume.
///
/// # Errors
/// When the image cannot be read. What is missing or wrong in the guest is a finding.
pub(super) fn walk(on: &BootDisk<'_>, files: &dyn GuestFiles, guest: &Guest) -> Result<Vec<Finding>> {
    let mut links = Links::default();
    match on.table.scheme {
        Scheme::Bare => links.not_judged(
            Gate::Firmware,
            "the image is a volume without a partition table; boot manager and BCD lie on the disk that it belongs to",
        ),
        Scheme::Gpt => uefi(on, files, guest, &mut links)?,
        Scheme::Mbr => bios(on, files, guest, &mut links)?,
    }
    Ok(links.0)
}

/// The firmware takes the boot manager from an EFI system partition.
fn uefi(on: &BootDisk<'_>, files: &dyn GuestFiles, guest: &Guest, links: &mut Links) -> Result<()> {
    links.good(Gate::Firmware, Code::Firmware, format!("UEFI ({} disk)", on.table.scheme));
    let system = on.table.partitions.iter().filter(|partition| partition.kind == PartitionKind::EfiSystem);
    let mut first: Option<Links> = None;
    for esp in system.take(SYSTEM_PARTITIONS_MAX) {
        let mut seen = Links::default();
        system_partition(on, esp, files, guest, &mut seen)?;
        if !seen.has_failure() {
            first = Some(seen);
            break;
        }
        first.get_or_insert(seen);
    }
    match first {
        Some(seen) => links.0.extend(seen.0),
        None => links.fail(
            Gate::Partition,
            Code::NoSystemPartition,
            "the disk has no EFI system partition (ESP): UEFI firmware finds no boot manager; if it lies on another \
             disk of the guest, Windows does not start from this one alone",
        ),
    }
    Ok(())
}

fn system_partition(
    on: &BootDisk<'_>,
    esp: &Partition,
    files: &dyn GuestFiles,
    guest: &Guest,
    links: &mut Links,
) -> Result<()> {
    let label = esp.label();
    let opened = PartitionView::new(on.disk, esp).and_then(FatVolume::open);
    let Some(fat) = readable(opened, links, Gate::Partition, &format!("the EFI system partition, {label}"))? else {
        return Ok(());
    };
    links.good(Gate::Partition, Code::SystemPartition, format!("EFI system partition, {label}, FAT"));
    let fallback = match guest.arch {
        Arch::X86 => "/EFI/Boot/bootia32.efi",
        Arch::Arm64 => "/EFI/Boot/bootaa64.efi",
        Arch::Amd64 => "/EFI/Boot/bootx64.efi",
    };
    let look = |path: &str| -> Result<std::result::Result<(), String>> {
        program(fat.read(path, PROGRAM_BYTES_MAX), guest.arch, &format!("{path} on {label}"))
    };
    match (look(BOOT_MANAGER)?, look(fallback)?) {
        (Ok(()), Ok(())) => {
            links.good(Gate::BootManager, Code::BootManager, format!("{BOOT_MANAGER} and {fallback}, {}", guest.arch));
        }
        (Ok(()), Err(problem)) => {
            links.good(Gate::BootManager, Code::BootManager, format!("{BOOT_MANAGER}, {}", guest.arch));
            let text = format!("{problem}: a new machine with empty NVRAM does not find Windows by itself");
            links.warn(Gate::BootManager, Code::NoFallbackLoader, text);
        }
        (Err(problem), Ok(())) => {
            links.good(Gate::BootManager, Code::BootManager, format!("{fallback}, {}", guest.arch));
            links.warn(Gate::BootManager, Code::NoBootManager, problem);
        }
        (Err(problem), Err(other)) => {
            links.fail(
                Gate::BootManager,
                Code::NoBootManager,
                format!("no boot manager (bootmgfw): {problem}; {other}"),
            );
        }
    }
    let read = |path: &str| fat.read(path, BCD_BYTES_MAX);
    let place = Place { firmware: Firmware::Uefi, own: own_id(on)?, is_boot_partition: false };
    store(&read, "/EFI/Microsoft/Boot/BCD", &label, &place, files, guest, links)
}

/// The MBR's code starts the active partition, whose boot sector starts `bootmgr`.
fn bios(on: &BootDisk<'_>, files: &dyn GuestFiles, guest: &Guest, links: &mut Links) -> Result<()> {
    let mut sector = [0u8; 512];
    on.disk.read_at(ImageOffset(0), &mut sector)?;
    let flag = |entry: usize| sector.get(446 + 16 * entry).copied().unwrap_or(0);
    let active: Vec<usize> = (0..4).filter(|&entry| flag(entry) == 0x80).collect();
    let number = match active.as_slice() {
        [] if on.table.partitions.iter().any(|partition| partition.kind == PartitionKind::EfiSystem) => {
            return uefi(on, files, guest, links);
        }
        [] => {
            links.good(Gate::Firmware, Code::Firmware, "BIOS (MBR disk)");
            links.fail(
                Gate::Partition,
                Code::NoActivePartition,
                "no partition of the MBR is active: the BIOS finds nothing to start; if the boot manager lies on another \
                 disk of the guest, Windows does not start from this one alone",
            );
            return Ok(());
        }
        &[only] => u32::try_from(only).unwrap_or(0) + 1,
        _ => {
            links.fail(Gate::Partition, Code::NoActivePartition, "several partitions of the MBR are active");
            return Ok(());
        }
    };
    links.good(Gate::Firmware, Code::Firmware, "BIOS (MBR disk)");
    let Some(system) = on.table.partitions.iter().find(|partition| partition.number == number) else {
        let text = format!("entry {number} of the MBR is active and describes no partition");
        links.fail(Gate::Partition, Code::NoActivePartition, text);
        return Ok(());
    };
    let label = system.label();
    links.good(Gate::Partition, Code::SystemPartition, format!("{label} is active, {}", system.content));
    if sector.iter().take(BOOT_CODE_LENGTH).all(|byte| *byte == 0) {
        links.not_judged(Gate::BootCode, "the MBR has no boot code; a BIOS that has none of its own stops there");
    } else {
        links.good(Gate::BootCode, Code::BootCode, "the MBR has boot code");
        links.not_judged(Gate::BootCode, format!("what the boot code of the MBR and of {label} does"));
    }
    let own = own_id(on)?;
    let place = Place { firmware: Firmware::Bios, own, is_boot_partition: number == on.partition.number };
    let view = || PartitionView::new(on.disk, system);
    let what = format!("the active partition, {label}");
    match system.content {
        Content::Ntfs => {
            let opened = view().and_then(|view| Volume::open(view, &OpenOptions::read_only()));
            if let Some(volume) = readable(opened, links, Gate::Partition, &what)? {
                let read = |path: &str| GuestFiles::read(&volume, path, BCD_BYTES_MAX);
                boot_manager(&read, &label, links)?;
                store(&read, "/Boot/BCD", &label, &place, files, guest, links)?;
            }
        }
        Content::Fat => {
            if let Some(fat) = readable(view().and_then(FatVolume::open), links, Gate::Partition, &what)? {
                let read = |path: &str| fat.read(path, BCD_BYTES_MAX);
                boot_manager(&read, &label, links)?;
                store(&read, "/Boot/BCD", &label, &place, files, guest, links)?;
            }
        }
        Content::BitLocker => links.not_judged(Gate::BootManager, format!("{what}, is encrypted with BitLocker")),
        other => {
            let text = format!("{what}, holds neither NTFS nor FAT but {other}: its boot sector starts no Windows");
            links.fail(Gate::Partition, Code::NoSystemPartition, text);
        }
    }
    Ok(())
}

type Read<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>>;

/// `bootmgr` is a boot sector program with a PE behind it: only whether it is there can be told.
fn boot_manager(read: Read<'_>, label: &str, links: &mut Links) -> Result<()> {
    let found = read("/bootmgr");
    match readable(found, links, Gate::BootManager, &format!("/bootmgr on {label}"))? {
        Some(Some(bytes)) if bytes.iter().any(|byte| *byte != 0) => {
            links.good(Gate::BootManager, Code::BootManager, format!("/bootmgr on {label}"));
        }
        Some(Some(_)) => {
            links.fail(
                Gate::BootManager,
                Code::NoBootManager,
                format!("no boot manager: /bootmgr on {label} is empty"),
            );
        }
        Some(None) => {
            let text = format!("no boot manager: /bootmgr on {label}, the active partition, is missing");
            links.fail(Gate::BootManager, Code::NoBootManager, text);
        }
        None => {}
    }
    Ok(())
}

/// What a link gives; damage of it is a failure of that link, an unsupported or refused form of it is not judged.
fn readable<T>(found: Result<T>, links: &mut Links, gate: Gate, what: &str) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == Kind::Damaged => {
            links.fail(gate, Code::LinkDamaged, format!("{what} cannot be read: {error}"));
            Ok(None)
        }
        Err(error) if matches!(error.kind(), Kind::Unsupported) && gate == Gate::Partition => {
            links.fail(gate, Code::NoSystemPartition, format!("{what} cannot be read: {error}"));
            Ok(None)
        }
        Err(error) if matches!(error.kind(), Kind::Unsupported | Kind::Refused) => {
            links.not_judged(gate, format!("{what}: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether a file is a program for that CPU; or what is wrong with it.
fn program(found: Result<Option<Vec<u8>>>, arch: Arch, what: &str) -> Result<std::result::Result<(), String>> {
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

/// What the boot configuration is compared with.
struct Place {
    firmware: Firmware,
    own: Option<OwnId>,
    /// Whether Windows is on the partition that the boot manager is on.
    is_boot_partition: bool,
}

/// Follows the boot configuration to the loader.
fn store(
    read: Read<'_>,
    path: &str,
    label: &str,
    place: &Place,
    files: &dyn GuestFiles,
    guest: &Guest,
    links: &mut Links,
) -> Result<()> {
    let what = format!("{path} on {label}");
    let Some(found) = readable(read(path), links, Gate::Bcd, &what)? else { return Ok(()) };
    let Some(bytes) = found else {
        links.fail(Gate::Bcd, Code::NoBcd, format!("no boot configuration: {what} is missing"));
        return Ok(());
    };
    let log = |ending: &str| read(&format!("{path}.{ending}")).ok().flatten();
    let replayed = Hive::open_with_logs(bytes, log("LOG1").as_deref(), log("LOG2").as_deref())
        .and_then(|(hive, _)| hive.finish(&[]));
    let Some(bytes) = readable(replayed, links, Gate::Bcd, &what)? else { return Ok(()) };
    let entry = Reader::open(&bytes).and_then(|store| bcd::default_entry(&store));
    match readable(entry, links, Gate::Bcd, &what)? {
        Some(DefaultEntry::Found(entry)) => loader(&entry, &what, place, files, guest, links),
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

fn loader(
    entry: &Entry,
    what: &str,
    place: &Place,
    files: &dyn GuestFiles,
    guest: &Guest,
    links: &mut Links,
) -> Result<()> {
    let id = &entry.id;
    let before = links.0.len();
    for (name, device) in [("device", &entry.device), ("osdevice", &entry.os_device)] {
        device_is_here(device, &format!("{what}: the {name} of the default entry {id}"), place, links);
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
        let text = format!("{what}: the default entry {id} names this disk and partition");
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
    match program(files.read(&path, PROGRAM_BYTES_MAX), guest.arch, &path)? {
        Ok(()) => links.good(Gate::OsLoader, Code::OsLoader, format!("{path}, {}", guest.arch)),
        Err(problem) => links.fail(Gate::OsLoader, Code::NoOsLoader, problem),
    }
    Ok(())
}

fn device_is_here(device: &Device, what: &str, place: &Place, links: &mut Links) {
    let named = match device {
        Device::Gpt { disk, partition } => OwnId::Gpt { disk: *disk, partition: *partition },
        Device::Mbr { disk, start } => OwnId::Mbr { disk: *disk, start: *start },
        Device::Boot if place.is_boot_partition => return,
        Device::Locate => {
            links.not_judged(Gate::Bcd, format!("{what} is looked for at every start (locate)"));
            return;
        }
        Device::Unknown(kind) => {
            links.not_judged(Gate::Bcd, format!("{what} is of a kind that is not known ({kind:#x})"));
            return;
        }
        Device::Boot => {
            let text = format!("{what} is the partition of the boot manager, not that of Windows");
            links.fail(Gate::Bcd, Code::BcdDevice, text);
            return;
        }
        Device::File => {
            let text = format!("{what} is a RAM disk or a disk in a file, not the partition of Windows");
            links.fail(Gate::Bcd, Code::BcdDevice, text);
            return;
        }
        Device::Missing => {
            links.fail(Gate::Bcd, Code::BcdDevice, format!("{what} is missing"));
            return;
        }
    };
    let Some(own) = place.own else {
        links.not_judged(Gate::Bcd, format!("{what}: the ids of this disk's partitions are not readable"));
        return;
    };
    if own != named {
        let other = match (own, named) {
            (OwnId::Gpt { disk, .. }, OwnId::Gpt { disk: named, .. }) if disk == named => "another partition",
            (OwnId::Mbr { disk, .. }, OwnId::Mbr { disk: named, .. }) if disk == named => "another partition",
            _ => "another disk",
        };
        let text = format!("{what} is {other}: {named}, while Windows is {own}");
        links.fail(Gate::Bcd, Code::BcdDevice, text);
    }
}

impl fmt::Display for OwnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt { disk, partition } => write!(f, "GPT partition {partition} of disk {disk}"),
            Self::Mbr { disk, start } => write!(f, "MBR partition at {start:#x} of disk {disk:#010x}"),
        }
    }
}

/// The ids of the partition of Windows; `None` when the table that was read has none that can be found again.
fn own_id(on: &BootDisk<'_>) -> Result<Option<OwnId>> {
    match on.table.scheme {
        Scheme::Mbr => {
            let mut signature = [0u8; 4];
            on.disk.read_at(ImageOffset(440), &mut signature)?;
            Ok(Some(OwnId::Mbr { disk: u32::from_le_bytes(signature), start: on.partition.start.0 }))
        }
        Scheme::Gpt => {
            let sector = u64::from(on.table.sector);
            let last = (on.disk.len() / sector.max(1)).saturating_sub(1);
            for header in [1, last] {
                if let Some(found) = gpt_ids(on, sector, header)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
        Scheme::Bare => Ok(None),
    }
}

fn gpt_ids(on: &BootDisk<'_>, sector: u64, header: u64) -> Result<Option<OwnId>> {
    let read = |at: Option<u64>, buf: &mut [u8]| -> Result<bool> {
        let inside = at.filter(|at| at.checked_add(buf.len() as u64).is_some_and(|end| end <= on.disk.len()));
        let Some(at) = inside else { return Ok(false) };
        on.disk.read_at(ImageOffset(at), buf)?;
        Ok(true)
    };
    let mut head = [0u8; 92];
    if !read(header.checked_mul(sector), &mut head)? || !head.starts_with(b"EFI PART") {
        return Ok(None);
    }
    let field = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let guid = |bytes: &[u8], at: usize| bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map(Guid);
    let step = u64::from(u32::try_from(field(80) >> 32).unwrap_or(0));
    let index = u64::from(on.partition.number).saturating_sub(1);
    let at = field(72).checked_mul(sector).and_then(|start| start.checked_add(index.checked_mul(step)?));
    let mut entry = [0u8; 48];
    if !read(at, &mut entry)? {
        return Ok(None);
    }
    let first = entry.get(32..40).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    if first.checked_mul(sector) != Some(on.partition.start.0) {
        return Ok(None);
    }
    Ok(guid(&head, 56).zip(guid(&entry, 16)).map(|(disk, partition)| OwnId::Gpt { disk, partition }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{self, Image};
    use crate::partition;
    use crate::units::ImageOffset;

    /// The sample disk with other bytes in its first 4 MiB, where all files of its EFI system partition lie.
    struct Patched {
        image: Box<dyn Image>,
        head: Vec<u8>,
    }

    impl Disk for Patched {
        fn len(&self) -> u64 {
            Image::len(&*self.image)
        }
        fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
            Image::read_at(&*self.image, offset, buf)?;
            let start = usize::try_from(offset.0).unwrap().min(self.head.len());
            let length = buf.len().min(self.head.len() - start);
            buf[..length].copy_from_slice(&self.head[start..start + length]);
            Ok(())
        }
    }

    /// Where the EFI system partition begins.
    const ESP: usize = 1 << 20;

    fn sample() -> Patched {
        let path = std::path::Path::new("test-images/win10.qcow2");
        let image = block::open(path, &block::OpenOptions::default()).unwrap();
        let mut head = vec![0; 4 << 20];
        Image::read_at(&*image, ImageOffset(0), &mut head).unwrap();
        Patched { image, head }
    }

    impl Patched {
        /// Replaces bytes everywhere in the EFI system partition; how often.
        fn replace(&mut self, old: &[u8], new: &[u8]) -> usize {
            assert_eq!(old.len(), new.len());
            let places: Vec<usize> = (ESP..self.head.len() - old.len())
                .filter(|&at| self.head[at] == old[0] && self.head[at..].starts_with(old))
                .collect();
            for &at in &places {
                self.head[at..at + new.len()].copy_from_slice(new);
            }
            places.len()
        }
    }

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    fn seen(disk: &Patched, change: impl FnOnce(&mut PartitionTable)) -> Vec<Finding> {
        let mut table = partition::read(disk).unwrap();
        let windows = table.partition(3).unwrap().clone();
        change(&mut table);
        let volume = Volume::open(PartitionView::new(disk, &windows).unwrap(), &OpenOptions::read_only()).unwrap();
        let guest = crate::windows::inspect(&volume).unwrap().unwrap().guest;
        walk(&BootDisk { disk, table: &table, partition: &windows }, &volume, &guest).unwrap()
    }

    fn failures(found: &[Finding]) -> Vec<(Code, &str)> {
        let failed = found.iter().filter(|finding| finding.level == Level::Failure);
        failed.map(|finding| (finding.code, finding.text.as_str())).collect()
    }

    #[test]
    fn a_whole_disk_has_every_link() {
        let found = seen(&sample(), |_| {});
        assert!(found.iter().all(|finding| finding.level == Level::Good), "{found:?}");
        let gates: Vec<Gate> = found.iter().map(|finding| finding.gate).collect();
        assert_eq!(gates, [Gate::Firmware, Gate::Partition, Gate::BootManager, Gate::Bcd, Gate::OsLoader]);
    }

    #[test]
    fn every_broken_link_of_a_uefi_disk_is_named() {
        type Break = fn(&mut Patched) -> usize;
        let partition = |number: u8| {
            let mut bytes = [0u8; 16];
            bytes[..8].copy_from_slice(&[0x6A, 0x6E, 0x69, 0x77, 0, 0, 0, 0x40]);
            bytes[8] = 0x80;
            bytes[15] = number;
            bytes
        };
        assert_eq!(sample().replace(&partition(3), &partition(3)), 4, "the fixture is not what this test takes it for");
        let ways: [(&str, Code, &str, Break); 9] = [
            ("partition", Code::BcdDevice, "another partition", |d| {
                d.replace(
                    b"\x6A\x6E\x69\x77\0\0\0\x40\x80\0\0\0\0\0\0\x03",
                    b"\x6A\x6E\x69\x77\0\0\0\x40\x80\0\0\0\0\0\0\x09",
                )
            }),
            ("disk", Code::BcdDevice, "another disk", |d| {
                d.replace(
                    b"\x6A\x6E\x69\x77\0\0\0\x40\x80\0\0\0\0\0\0\0",
                    b"\x6B\x6E\x69\x77\0\0\0\x40\x80\0\0\0\0\0\0\0",
                )
            }),
            ("programs", Code::NoBootManager, "bootmgfw", |d| d.replace(b"MZ\0\0", b"\0\0\0\0")),
            ("CPU", Code::NoBootManager, "CPU 0xaa64", |d| d.replace(b"PE\0\0\x64\x86", b"PE\0\0\x64\xAA")),
            ("no BCD", Code::NoBcd, "BCD", |d| d.replace(b"BCD        ", b"BCX        ")),
            ("BCD of zeros", Code::LinkDamaged, "BCD", |d| d.replace(b"regf", b"\0\0\0\0")),
            ("default entry", Code::BcdEntry, "not there", |d| {
                d.replace(
                    &utf16("{77696e6a-0000-11eb-8000-000000000001}"),
                    &utf16("{77696e6a-0000-11eb-8000-00000000000f}"),
                )
            }),
            ("loader of a BIOS", Code::BcdEntry, "winload.exe", |d| {
                d.replace(&utf16("winload.efi"), &utf16("winload.exe"))
            }),
            ("systemroot", Code::BcdEntry, "\\Windowz", |d| d.replace(&utf16("\\Windows\0"), &utf16("\\Windowz\0"))),
        ];
        for (name, code, word, break_it) in ways {
            let mut disk = sample();
            assert!(break_it(&mut disk) > 0, "{name}: nothing was changed");
            let found = seen(&disk, |_| {});
            assert!(failures(&found).iter().any(|(c, text)| *c == code && text.contains(word)), "{name}: {found:?}");
        }
    }

    #[test]
    fn no_system_partition_and_one_that_is_not_fat() {
        let found = seen(&sample(), |table| table.partitions.retain(|one| one.kind != PartitionKind::EfiSystem));
        assert_eq!(failures(&found)[0].0, Code::NoSystemPartition);
        let mut empty = sample();
        empty.head[ESP..].fill(0);
        assert_eq!(failures(&seen(&empty, |_| {}))[0].0, Code::NoSystemPartition);
    }

    #[test]
    fn active_partitions_of_an_mbr() {
        let mbr = |flags: [u8; 4]| {
            let mut disk = sample();
            for (entry, flag) in flags.into_iter().enumerate() {
                disk.head[446 + 16 * entry] = flag;
            }
            seen(&disk, |table| {
                table.scheme = Scheme::Mbr;
                table.partitions.retain(|one| one.kind != PartitionKind::EfiSystem);
            })
        };
        assert_eq!(failures(&mbr([0; 4]))[0].0, Code::NoActivePartition);
        assert_eq!(failures(&mbr([0x80, 0, 0x80, 0]))[0].0, Code::NoActivePartition);
        assert_eq!(failures(&mbr([0, 0, 0, 0x80]))[0].0, Code::NoActivePartition, "entry 4 is empty");
        let found = mbr([0, 0, 0x80, 0]);
        assert_eq!(failures(&found)[0].0, Code::NoBootManager, "{found:?}");
        assert!(found.iter().any(|one| one.level == Level::NotJudged && one.gate == Gate::BootCode), "{found:?}");
    }

    #[test]
    fn a_volume_without_a_table_is_not_judged() {
        let found = seen(&sample(), |table| table.scheme = Scheme::Bare);
        assert!(failures(&found).is_empty() && found[0].level == Level::NotJudged, "{found:?}");
    }
}
