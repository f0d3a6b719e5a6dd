//! Damage in the volume of Windows: every command ends with the code for damage and names the place in the image.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use winject::internals::block::{self, Format, Stage, StageOptions};
use winject::internals::io::VolumeRead as _;
use winject::internals::ntfs::attribute::header as attribute;
use winject::internals::ntfs::boot::Geometry;
use winject::internals::ntfs::fixup::{self, FILE};
use winject::internals::ntfs::record::Record;
use winject::internals::ntfs::{OpenOptions, Volume};
use winject::internals::partition::{self, Content, PartitionView};
use winject::internals::units::VolumeOffset;

use crate::inject::{fixture_drivers, folder, stderr, stdout, winject, writable_fixture};

/// Gives the second attribute of a file's record an impossible length; returns the attribute's offset in the image.
fn damage_attribute_of(path: &str, image: &Path) -> u64 {
    let stage = Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let table = partition::read(&stage).unwrap();
    let windows = table.partitions.iter().filter(|partition| partition.content == Content::Ntfs);
    for partition in windows {
        let view = PartitionView::new(&stage, partition).unwrap();
        let mut boot = [0; 512];
        view.read_at(VolumeOffset(0), &mut boot).unwrap();
        let geometry = Geometry::parse(&boot).unwrap();
        let volume = Volume::open(view, &OpenOptions::read_only()).unwrap();
        let Some(file) = volume.find(path).unwrap() else { continue };
        let place = geometry.bytes_in(geometry.mft.0) + file.record.0 * u64::from(geometry.record_size);
        let view = PartitionView::new(&stage, partition).unwrap();
        let mut block = vec![0; geometry.record_size as usize];
        view.read_at(VolumeOffset(place), &mut block).unwrap();
        let (offset, _) =
            Record::parse(block.clone()).unwrap().attributes().map(|(at, a)| (at, a.kind())).nth(1).unwrap();
        fixup::unseal(&mut block, FILE).unwrap();
        attribute::LENGTH.set(&mut block[offset..], 7);
        fixup::seal(&mut block).unwrap();
        let start = partition.start.0 + place;
        std::fs::File::options().write(true).open(image).unwrap().write_all_at(&block, start).unwrap();
        return start + offset as u64;
    }
    panic!("no {path}")
}

fn a_damaged_record_is_damage_in_every_command() {
    for path in ["/", "/Windows", "/Windows/System32", "/Windows/System32/config", "/Windows/System32/config/SYSTEM"] {
        let folder = folder();
        let image = writable_fixture(folder.path(), Format::Raw);
        let place = damage_attribute_of(path, &image);
        let new = folder.path().join("new.qcow2");
        let command = |name: &[&str], more: &[&std::ffi::OsStr]| {
            let mut command = winject();
            command.args(name).arg(&image).args(more);
            command
        };
        let drivers = fixture_drivers();
        let mut list = winject();
        list.args(["drivers", "list"]).arg(&drivers).arg("--for").arg(&image);
        let commands: Vec<Command> = vec![
            command(&["inject"], &["--in-place".as_ref(), "--drivers".as_ref(), drivers.as_ref()]),
            command(&["inject"], &["--dry-run".as_ref(), "--drivers".as_ref(), drivers.as_ref()]),
            command(&["convert"], &[new.as_ref(), "--inject".as_ref(), drivers.as_ref()]),
            command(&["inspect"], &[]),
            command(&["reg", "query"], &[r"HKLM\SYSTEM\Select".as_ref()]),
            list,
        ];
        for mut command in commands {
            let output = command.output().unwrap();
            let text = stdout(&output) + &stderr(&output);
            assert_eq!(output.status.code(), Some(5), "{path}: {command:?}: {text}");
            assert!(text.contains(&format!("offset {place:#x}")), "{path}: {command:?}: {place:#x}: {text}");
            assert!(!new.exists(), "{path}: {command:?}");
        }
    }
}

tests![a_damaged_record_is_damage_in_every_command];
