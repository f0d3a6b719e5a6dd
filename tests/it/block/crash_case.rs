//! Images of all kinds with a change that is committed to them on a host in memory, and what is left of it when the
//! machine stops.

use std::path::{Path, PathBuf};
use std::process::Command;

use winject::internals::block::commit::{CommitOptions, on, undo_path};
use winject::internals::block::{Format, OpenOptions, Stage, StageOptions, open_storage};
use winject::internals::units::ImageOffset;

use super::interruption;
use super::made::{Random, mixed, qemu_img, scribble, write_file};
use super::virtual_host::{Fault, Files, Op, VirtualHost, apply};

/// A case: its files, the image's format, what it holds, and what it is to hold.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub format: Format,
    pub files: Files,
    pub old: Vec<u8>,
    pub new: Vec<u8>,
    pub seed: u64,
    /// Whether the commit keeps its undo record.
    pub keep_undo: bool,
}

pub const IMAGE: &str = "image";
pub const CASE_SIZE: usize = 640 << 10;

pub fn cases() -> Vec<Case> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut cases = Vec::new();
    let make = |name: &'static str, arguments: &str, format, after: &[&str]| {
        let seed = cases_seed(name);
        let old = mixed(CASE_SIZE, seed);
        write_file(path, "source.raw", &old);
        qemu_img(path, &format!("convert -f raw -O {arguments} source.raw {IMAGE}"));
        for command in after {
            if let Some(write) = command.strip_prefix("qemu-io ") {
                // May be killed on purpose.
                Command::new("qemu-io")
                    .current_dir(path)
                    .args(["-c", write, "-c", "flush", "-c", "abort", IMAGE])
                    .output()
                    .unwrap();
            } else {
                qemu_img(path, command);
            }
        }
        let mut files = Files::new();
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "source.raw" {
                files.insert(entry.file_name().into(), std::fs::read(entry.path()).unwrap());
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        let host = VirtualHost::new(files.clone(), Fault::Never);
        let old = content(&host, format).unwrap();
        Case { name, format, files, old, new: Vec::new(), seed, keep_undo: false }.with_change(seed)
    };
    cases.push(make("raw", "raw", Format::Raw, &[]));
    cases.push(make("qcow2", "qcow2", Format::Qcow2, &[]));
    cases.push(make("small clusters", "qcow2 -o cluster_size=512,refcount_bits=64", Format::Qcow2, &[]));
    cases.push(make("snapshot", "qcow2 -o cluster_size=4k,refcount_bits=2", Format::Qcow2, &["snapshot -c s image"]));
    cases.push(make("compressed", "qcow2 -c -o cluster_size=8k", Format::Qcow2, &[]));
    cases.push(make("subclusters", "qcow2 -o extended_l2=on,cluster_size=16k", Format::Qcow2, &[]));
    cases.push(make("bitmap", "qcow2", Format::Qcow2, &["bitmap --add -g 4k image b"]));
    cases.push(make(
        "dirty",
        "qcow2 -o lazy_refcounts=on,cluster_size=4k",
        Format::Qcow2,
        &["snapshot -c s image", "qemu-io write 100k 50k"],
    ));
    cases
}

/// The undo record of the image.
pub fn undo_record() -> PathBuf {
    undo_path(Path::new(IMAGE))
}

fn cases_seed(name: &str) -> u64 {
    name.bytes().fold(5, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte))
}

pub fn content(host: &VirtualHost, format: Format) -> winject::Result<Vec<u8>> {
    let options = OpenOptions::default();
    let path = Path::new(IMAGE);
    let image = open_storage(host.storage(path), path, Some(format), &options)?;
    let mut disk = vec![0; image.len() as usize];
    image.read_at(ImageOffset(0), &mut disk)?;
    Ok(disk)
}

impl Case {
    /// The same image with another change.
    pub fn with_change(mut self, seed: u64) -> Self {
        let mut stage = self.stage(&VirtualHost::new(self.files.clone(), Fault::Never));
        self.seed = seed;
        self.new = self.old.clone();
        scribble(&mut stage, &mut self.new, &mut Random::new(seed), 5);
        self
    }

    pub fn stage(&self, host: &VirtualHost) -> Stage {
        let options = OpenOptions::default();
        let path = Path::new(IMAGE);
        let image = open_storage(host.storage(path), path, Some(self.format), &options).unwrap();
        Stage::new(image, StageOptions::default())
    }

    /// The stage that turns old into new.
    pub fn changed_stage(&self, host: &VirtualHost) -> Stage {
        let mut stage = self.stage(host);
        let mut model = self.old.clone();
        scribble(&mut stage, &mut model, &mut Random::new(self.seed), 5);
        assert!(model == self.new);
        stage
    }

    pub fn commit(&self, host: &VirtualHost) -> winject::Result<()> {
        let mut stage = self.changed_stage(host);
        let options = CommitOptions { keep_undo: self.keep_undo, ..CommitOptions::default() };
        on::in_place(host, &mut stage, Path::new(IMAGE), &options).map(|_| ())
    }

    /// The same image after this change, with its undo record; what is to be made of it is what it was.
    pub fn committed(&self) -> Self {
        let case = Self { keep_undo: true, ..self.clone() };
        let host = VirtualHost::new(case.files.clone(), Fault::Never);
        case.commit(&host).unwrap_or_else(|error| panic!("{}: a run without a fault: {error}", case.name));
        let files = host.files();
        assert_eq!(files.keys().collect::<Vec<_>>(), [Path::new(IMAGE), &undo_record()], "{}", case.name);
        Self { files, old: case.new, new: case.old, ..case }
    }

    /// The same image after this change, with its undo record, and another change of it.
    pub fn next(&self) -> Self {
        self.committed().with_change(self.seed ^ 0x55)
    }
}

/// The files when everything up to `end` has happened, in order; the last write perhaps in part.
pub fn prefix(case: &Case, log: &[Op], end: usize, is_torn: bool) -> Files {
    let mut files = case.files.clone();
    interruption::stopped(log, end, is_torn).iter().for_each(|op| apply(&mut files, op));
    files
}

/// The files when power was cut after `end` operations; see [`interruption::survivors`].
pub fn power_cut(case: &Case, log: &[Op], end: usize, random: &mut Random, chance: u64) -> Files {
    let mut files = case.files.clone();
    interruption::survivors(log, end, random, chance).iter().for_each(|op| apply(&mut files, op));
    files
}
