//! Machines with several disks: Windows on one of them, boot files on another one.

mod boot;
mod firmware;
mod one_outcome;
mod saved;
mod sets;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::inject::{copy, fixture_drivers, sha256, stderr, winject, writable_fixture};
use crate::partition::mbr_sector;
use crate::support;
use crate::support::gpt::{ESP, edit_gpt, remove_windows, split_sample};
use crate::windows::guests::{self, NOW};
use winject::internals::block::{self, Format};
use winject::internals::fat::FatVolume;
use winject::internals::hive::{Hive, RegistryData};
use winject::internals::ntfs::CreateOptions;
use winject::internals::partition::{Partition, PartitionView, read};

const SECTOR: u64 = 512;

/// Two disks of a machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The disk with Windows.
    pub system: PathBuf,
    /// The disk with the boot manager.
    pub boot: PathBuf,
}

impl Machine {
    /// Both disks, with Windows first or last.
    fn in_order(&self, is_windows_first: bool) -> [&Path; 2] {
        if is_windows_first { [&self.system, &self.boot] } else { [&self.boot, &self.system] }
    }
}

/// The sample guest, with its EFI system partition on a disk of its own; both raw.
pub fn uefi(folder: &Path) -> Machine {
    let whole = writable_fixture(folder, Format::Raw);
    let machine = Machine { system: folder.join("system.raw"), boot: folder.join("boot.raw") };
    copy(&whole, &machine.boot);
    std::fs::rename(&whole, &machine.system).unwrap();
    split_sample(&machine.system, &machine.boot);
    machine
}

const SIGNATURE: u32 = 0x7769_6E6A;
/// Where the BIOS machine's boot partition begins, in sectors.
const BOOT_START: u32 = 2048;

fn with_signature(mut sector: [u8; 512], signature: u32) -> [u8; 512] {
    sector[440..444].copy_from_slice(&signature.to_le_bytes());
    sector[..4].copy_from_slice(&[0xFA, 0x33, 0xC0, 0x8E]);
    sector
}

/// The boot configuration of the sample disk as it is, and for another machine: with Windows on the partition of an MBR
/// disk that begins at `start`, if one is given, and with another loader.
fn boot_stores(raw: &Path, start: Option<u64>, loader: &str) -> [Vec<u8>; 2] {
    let image = block::open(raw, &block::OpenOptions::default()).unwrap();
    let disk: &dyn block::Image = &*image;
    let esp = read(disk).unwrap().partition(1).unwrap().clone();
    let fat = FatVolume::open(PartitionView::new(&disk, &esp).unwrap()).unwrap();
    let store = fat.read("/EFI/Microsoft/Boot/BCD", 1 << 20).unwrap().unwrap();
    let mut hive = Hive::open(store.clone()).unwrap();
    let elements = "Objects\\{77696e6a-0000-11eb-8000-000000000001}\\Elements";
    let mut set = |number: &str, change: &dyn Fn(RegistryData) -> RegistryData| {
        let key = hive.find(hive.root(), &format!("{elements}\\{number}")).unwrap().unwrap();
        let data = change(hive.value(key, "Element").unwrap().unwrap());
        hive.set_value(key, "Element", &data, NOW).unwrap();
    };
    for device in ["11000001", "21000001"] {
        set(device, &|data| {
            let mut bytes = data.bytes;
            if let Some(start) = start {
                bytes[0x20..0x48].fill(0);
                bytes[0x20..0x28].copy_from_slice(&start.to_le_bytes());
                bytes[0x34] = 1;
                bytes[0x38..0x3C].copy_from_slice(&SIGNATURE.to_le_bytes());
            }
            RegistryData::binary(bytes)
        });
    }
    set("12000002", &|data| RegistryData::sz(&data.as_text().unwrap().replace("winload.efi", loader)));
    [store, hive.finish(&[]).unwrap()]
}

fn windows_partition(raw: &Path) -> Partition {
    let image = block::open(raw, &block::OpenOptions::default()).unwrap();
    read(&*image).unwrap().partition(3).unwrap().clone()
}

fn sectors(bytes: u64) -> u32 {
    u32::try_from(bytes / SECTOR).unwrap()
}

/// Replaces the GPT of a disk by an MBR with its Windows alone.
fn make_mbr_disk(path: &Path, windows: &Partition) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    file.write_all_at(&[0; 33 * 512], SECTOR).unwrap();
    file.write_all_at(&[0; 33 * 512], size - 33 * SECTOR).unwrap();
    let table = mbr_sector(&[(7, sectors(windows.start.0), sectors(windows.length))]);
    file.write_all_at(&with_signature(table, SIGNATURE), 0).unwrap();
}

/// A disk with one active partition, which is an NTFS volume with a boot manager and this boot configuration.
fn bios_boot_disk(folder: &Path, store: &[u8]) -> PathBuf {
    let volume = support::volumes::small_volume();
    let boot = folder.join("boot.raw");
    let offset = u64::from(BOOT_START) * SECTOR;
    let file = File::create(&boot).unwrap();
    file.set_len(offset + volume.len() as u64 + (1 << 20)).unwrap();
    let mut table = mbr_sector(&[(7, BOOT_START, sectors(volume.len() as u64))]);
    table[446] = 0x80;
    file.write_all_at(&with_signature(table, 0xB007_B007), 0).unwrap();
    file.write_all_at(&volume, offset).unwrap();
    put_boot_files(guests::Disk { path: boot.clone(), offset, length: volume.len() as u64 }, store);
    boot
}

/// Puts a boot manager and a boot configuration on an NTFS volume.
fn put_boot_files(disk: guests::Disk, store: &[u8]) {
    let mut volume = disk.volume();
    let options = CreateOptions::default();
    volume.create_dir_all("/Boot", &options).unwrap();
    volume.replace_file("/Boot/BCD", store, &options).unwrap();
    volume.replace_file("/bootmgr", &[0xEB; 4096], &options).unwrap();
    volume.flush().unwrap();
}

fn sample(folder: &Path) -> PathBuf {
    let system = folder.join("system.raw");
    std::fs::rename(writable_fixture(folder, Format::Raw), &system).unwrap();
    system
}

/// The sample guest on an MBR disk, with its boot manager on another one; both raw.
pub fn bios(folder: &Path) -> Machine {
    let system = sample(folder);
    let windows = windows_partition(&system);
    let [_, store] = boot_stores(&system, Some(windows.start.0), "winload.exe");
    make_mbr_disk(&system, &windows);
    Machine { system, boot: bios_boot_disk(folder, &store) }
}

/// The sample guest on an MBR disk, with an EFI system partition on a GPT disk; both raw.
pub fn uefi_on_mbr(folder: &Path) -> Machine {
    let machine = Machine { system: sample(folder), boot: folder.join("boot.raw") };
    let windows = windows_partition(&machine.system);
    copy(&machine.system, &machine.boot);
    let [old, new] = boot_stores(&machine.system, Some(windows.start.0), "winload.efi");
    assert_eq!(old.len(), new.len());
    make_mbr_disk(&machine.system, &windows);
    remove_windows(&machine.boot);
    // All of the EFI system partition lies there, the file in one piece.
    let mut head = vec![0; 4 << 20];
    let file = File::options().read(true).write(true).open(&machine.boot).unwrap();
    file.read_exact_at(&mut head, 0).unwrap();
    let at = head.windows(old.len()).position(|bytes| bytes == old).unwrap();
    file.write_all_at(&new, at as u64).unwrap();
    machine
}

/// The sample guest on a GPT disk, with the boot manager of a BIOS on an MBR disk; both raw.
pub fn bios_on_gpt(folder: &Path) -> Machine {
    let system = sample(folder);
    let [_, store] = boot_stores(&system, None, "winload.exe");
    edit_gpt(&system, &[ESP], None);
    Machine { boot: bios_boot_disk(folder, &store), system }
}

/// The sample guest on one MBR disk, whose boot manager and boot configuration are on the Windows volume; raw.
pub fn bios_on_one_disk(folder: &Path) -> PathBuf {
    let system = sample(folder);
    let windows = windows_partition(&system);
    let [_, store] = boot_stores(&system, Some(windows.start.0), "winload.exe");
    make_mbr_disk(&system, &windows);
    File::options().write(true).open(&system).unwrap().write_all_at(&[0x80], 446).unwrap();
    put_boot_files(guests::Disk { path: system.clone(), offset: windows.start.0, length: windows.length }, &store);
    system
}

/// The sample guest on one MBR disk, with boot manager and boot configuration on an active NTFS volume of their own, which
/// is partition 1; raw.
pub fn bios_with_system_reserved(folder: &Path) -> PathBuf {
    let system = sample(folder);
    let windows = windows_partition(&system);
    let [_, store] = boot_stores(&system, Some(windows.start.0), "winload.exe");
    make_mbr_disk(&system, &windows);
    let volume = support::volumes::small_volume();
    let (offset, length) = (u64::from(BOOT_START) * SECTOR, volume.len() as u64);
    assert!(offset + length <= windows.start.0);
    let volumes = [(7, BOOT_START, sectors(length)), (7, sectors(windows.start.0), sectors(windows.length))];
    let mut table = mbr_sector(&volumes);
    table[446] = 0x80;
    let file = File::options().write(true).open(&system).unwrap();
    file.write_all_at(&with_signature(table, SIGNATURE), 0).unwrap();
    file.write_all_at(&volume, offset).unwrap();
    put_boot_files(guests::Disk { path: system.clone(), offset, length }, &store);
    system
}

type Make = fn(&Path) -> Machine;
/// A machine of each firmware.
const MACHINES: [(&str, Make); 2] = [("UEFI", uefi), ("BIOS", bios)];

/// `winject VERB DISKS --drivers …`.
fn command(verb: &str, disks: &[&Path], options: &str) -> Command {
    let mut command = winject();
    command.arg(verb).args(disks).arg("--drivers").arg(fixture_drivers()).args(options.split_whitespace());
    command
}

/// Runs a command that must fail with this code and touch none of these files; what it says.
fn fail(command: &mut Command, code: i32, files: &[&Path]) -> String {
    let before: Vec<String> = files.iter().map(|path| sha256(path)).collect();
    let output: Output = command.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
    let after: Vec<String> = files.iter().map(|path| sha256(path)).collect();
    assert_eq!(before, after, "{command:?}");
    text
}

tests![in boot, firmware, one_outcome, saved, sets;];
