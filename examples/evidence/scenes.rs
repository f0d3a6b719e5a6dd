//! The commands that are tried, and their files, made from the sample disk of the package.

use std::path::{Path, PathBuf};
use std::process::Command;

use winject::internals::clock::FileTime;
use winject::internals::hive::Hive;

use crate::scene::{Change, IMAGE, Scene};
use crate::support::{find_program, root};

/// A scene, or why it cannot be made here and whether that is excused.
pub type Made = Result<Scene, (&'static str, String, bool)>;

/// Makes the files of all scenes below `folder`.
pub fn all(folder: &Path, winject: &Path) -> Vec<Made> {
    let maker = Maker { folder: folder.to_owned(), winject: winject.to_owned() };
    let raw = maker.scene("raw", Change::InPlace, "disk.raw");
    maker.convert(&raw.store.join("disk.raw"));
    let mut device = maker.scene("block device (loop)", Change::Device, "disk.raw");
    maker.convert(&device.store.join("disk.raw"));
    device.recovery = words(&["recover", "-q", IMAGE]);
    vec![
        Ok(with(raw, &in_place(&[]))),
        if rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists() {
            find("losetup", device.name).map(|()| with(device, &in_place(&[])))
        } else {
            Err((device.name, "it takes root and loop devices".to_owned(), true))
        },
        find("qemu-img", "qcow2").map(|()| maker.qcow2("qcow2", "")),
        find("qemu-img", "qcow2, data file").map(|()| maker.data_file()),
        Ok(maker.undo("undo, raw", "disk.raw")),
        find("qemu-img", "undo, qcow2").map(|()| maker.undo("undo, qcow2", "disk.qcow2")),
        Ok(maker.hive()),
        Ok(maker.output("overlay", &["inject", "-q", "base.qcow2", "--drivers", &drivers(), "--output"])),
        Ok(maker.output("conversion", &["convert", "-q", "base.qcow2", "--inject", &drivers(), "--threads", "2"])),
    ]
}

struct Maker {
    folder: PathBuf,
    winject: PathBuf,
}

impl Maker {
    fn scene(&self, name: &'static str, change: Change, image: &'static str) -> Scene {
        Scene::new(name, change, image, &self.folder, &self.winject)
    }

    /// The sample disk as an image that can be edited in place.
    fn convert(&self, to: &Path) {
        let status = Command::new(&self.winject).args(["convert", "-q"]).args([&sample(), to]).status().unwrap();
        assert!(status.success(), "winject convert: {status}");
    }

    fn qcow2(&self, name: &'static str, options: &str) -> Scene {
        let scene = self.scene(name, Change::InPlace, "disk.qcow2");
        qemu_img(&scene.store, options, "disk.qcow2");
        with(scene, &in_place(&[]))
    }

    fn data_file(&self) -> Scene {
        let mut scene = self.scene("qcow2, data file", Change::InPlace, "disk.qcow2");
        qemu_img(&scene.store, "-o data_file=data.bin", "disk.qcow2");
        scene.recovery.extend(words(&["--allow-path", "data.bin"]));
        with(scene, &in_place(&["--allow-path", "data.bin"]))
    }

    /// The edit is made first, in the same place: its record names the image's inode.
    fn undo(&self, name: &'static str, image: &'static str) -> Scene {
        let mut scene = self.scene(name, Change::InPlace, image);
        match image.ends_with(".qcow2") {
            true => qemu_img(&scene.store, "", image),
            false => self.convert(&scene.store.join(image)),
        }
        scene.before = Some(in_place(&[]));
        with(scene, &words(&["undo", "-q", IMAGE]))
    }

    fn hive(&self) -> Scene {
        let scene = self.scene("hive file", Change::Replace, "SYSTEM");
        let now = FileTime::from_unix_seconds(1_700_000_000).unwrap();
        let mut hive = Hive::create("SYSTEM", now);
        hive.create_key(hive.root(), r"ControlSet001\Services\disk", now).unwrap();
        std::fs::write(scene.store.join("SYSTEM"), hive.finish(&[]).unwrap()).unwrap();
        let key = r"ControlSet001\Services\viostor";
        with(scene, &words(&["reg", "set", "-q", "SYSTEM", key, "--value", "Group", "--data", "SCSI miniport"]))
    }

    /// A command whose output replaces an earlier one.
    fn output(&self, name: &'static str, arguments: &[&str]) -> Scene {
        let scene = self.scene(name, Change::Replace, "out.qcow2");
        std::fs::copy(sample(), scene.store.join("base.qcow2")).unwrap();
        std::fs::write(scene.store.join("out.qcow2"), "the output of an earlier run").unwrap();
        with(scene, &[words(arguments), words(&["out.qcow2", "--overwrite"])].concat())
    }
}

fn with(mut scene: Scene, arguments: &[String]) -> Scene {
    scene.arguments = arguments.to_vec();
    scene
}

fn in_place(more: &[&str]) -> Vec<String> {
    [words(&["inject", "-q", IMAGE, "--drivers", &drivers(), "--in-place"]), words(more)].concat()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn sample() -> PathBuf {
    root().join("test-images/win10.qcow2")
}

fn drivers() -> String {
    root().join("test-images/drivers").to_str().unwrap().to_owned()
}

fn find(program: &str, name: &'static str) -> Result<(), (&'static str, String, bool)> {
    find_program(program).map(drop).ok_or_else(|| (name, format!("{program} is not installed"), false))
}

/// The sample disk, as a qcow2 that qemu-img makes in `folder`.
fn qemu_img(folder: &Path, options: &str, to: &str) {
    let mut command = Command::new("qemu-img");
    command.current_dir(folder).args(["convert", "-O", "qcow2"]).args(options.split_whitespace());
    let status = command.arg(sample()).arg(to).status().unwrap();
    assert!(status.success(), "qemu-img convert: {status}");
}
