//! The commands that are tried, and their files, made from the sample disk of the package.

use std::path::{Path, PathBuf};
use std::process::Command;

use winject::internals::clock::FileTime;
use winject::internals::hive::Hive;

use crate::scene::{Change, DATA, IMAGE, Scene, words};
use crate::support::encrypted::encrypt;
use crate::support::gpt::split_sample;
use crate::support::unclean::{copy_piece, open_log};
use crate::support::{find_program, root, run};

/// A scene, or why it cannot be made here and whether that is excused.
pub type Made = Result<Scene, (&'static str, String, bool)>;

const RAW: &str = "disk.raw";
const QCOW2: &str = "disk.qcow2";
/// The sample disk as it is in the package: compressed, so it is only read.
const BASE: &str = "base.qcow2";
/// Another disk of the same machine.
const OTHER: &str = "boot.raw";
const PLAN: &str = "plan.json";
const OUTPUT: &str = "out.qcow2";
/// Lets a qcow2 have its data file written.
const ALLOW_DATA: [&str; 2] = ["--allow-path", DATA];

/// Makes the files of all scenes below `folder`.
pub fn all(folder: &Path, winject: &Path) -> Vec<Made> {
    let maker = Maker { folder: folder.to_owned(), winject: winject.to_owned() };
    let drivers = drivers();
    let (overlay, conversion) = (["inject", "-q", BASE, "--drivers", &drivers], ["convert", "-q", BASE, "--inject"]);
    vec![
        Ok(inject(maker.image("raw", RAW), &[])),
        maker.device("block device (loop)").map(|scene| inject(scene, &[])),
        maker.qcow2("qcow2").map(|scene| inject(scene, &[])),
        maker.data_file("qcow2, data file").map(|scene| inject(scene, &ALLOW_DATA)),
        Ok(maker.apply(maker.image("apply, raw", RAW))),
        maker.qcow2("apply, qcow2").map(|scene| maker.apply(scene)),
        Ok(undo(maker.image("undo, raw", RAW), &[])),
        maker.device("undo, block device (loop)").map(|scene| undo(scene, &[])),
        maker.qcow2("undo, qcow2").map(|scene| undo(scene, &[])),
        maker.data_file("undo, qcow2, data file").map(|scene| undo(scene, &ALLOW_DATA)),
        Ok(maker.remove(maker.image("remove, raw", RAW))),
        maker.qcow2("remove, qcow2").map(|scene| maker.remove(scene)),
        maker.unclean("open NTFS log, raw").map(|scene| inject(scene, &[])),
        maker
            .unclean("replay alone, raw")
            .map(|scene| with(scene, &words(&["ntfs-log", "replay", "-q", IMAGE, "--in-place"]))),
        maker.encrypted("BitLocker, raw").map(|scene| inject(scene, &[])),
        Ok(maker.several_disks("several disks")),
        Ok(maker.apply_to_several_disks("apply, several disks")),
        Ok(maker.hive()),
        Ok(write(maker.output("overlay"), &[&overlay[..], &["--overlay"]].concat())),
        Ok(write(maker.output("conversion"), &[&conversion[..], &[&drivers, "--threads", "2"]].concat())),
        Ok(maker.apply_to(maker.output("apply, overlay"), &["--overlay"])),
        Ok(maker.apply_to(maker.output("apply, conversion"), &["--threads", "2", "--output"])),
        Ok(maker.plan("plan", &[])),
        Ok(maker.plan("plan with its bundle", &["--bundle"])),
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

    /// The sample disk as a raw image.
    fn image(&self, name: &'static str, image: &'static str) -> Scene {
        let scene = self.scene(name, Change::InPlace, image);
        self.convert(&scene.store.join(image));
        scene
    }

    fn convert(&self, to: &Path) {
        run(Command::new(&self.winject).args(["convert", "-q"]).args([&sample(), to]));
    }

    fn device(&self, name: &'static str) -> Made {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            return Err((name, "it takes root and loop devices".to_owned(), true));
        }
        find("losetup", name)?;
        let scene = self.scene(name, Change::Device, RAW);
        self.convert(&scene.store.join(RAW));
        Ok(scene)
    }

    fn qcow2(&self, name: &'static str) -> Made {
        find("qemu-img", name)?;
        let scene = self.scene(name, Change::InPlace, QCOW2);
        qemu_img(&scene.store, &[]);
        Ok(scene)
    }

    fn data_file(&self, name: &'static str) -> Made {
        find("qemu-img", name)?;
        let mut scene = self.scene(name, Change::InPlace, QCOW2);
        qemu_img(&scene.store, &["-o", &format!("data_file={DATA}")]);
        scene.recovery.extend(words(&ALLOW_DATA));
        Ok(scene)
    }

    /// Saves the plan for disks of the scene.
    fn save_plan(&self, scene: &Scene, disks: &[&str]) {
        let mut command = Command::new(&self.winject);
        command.current_dir(&scene.store).args(["plan", "-q"]).args(disks);
        run(command.args(["--drivers", &drivers(), "--bundle", "-o", PLAN]));
    }

    /// The plan was made before.
    fn apply(&self, mut scene: Scene) -> Scene {
        self.save_plan(&scene, &[scene.image]);
        scene.is_once = true;
        with(scene, &words(&["apply", "-q", PLAN, "--image", IMAGE, "--in-place"]))
    }

    fn apply_to(&self, scene: Scene, options: &[&str]) -> Scene {
        self.save_plan(&scene, &[BASE]);
        write(scene, &[&["apply", "-q", PLAN], options].concat())
    }

    /// The boot files lie on another disk, which is read only.
    fn several_disks(&self, name: &'static str) -> Scene {
        let scene = self.image(name, RAW);
        self.convert(&scene.store.join(OTHER));
        split_sample(&scene.store.join(RAW), &scene.store.join(OTHER));
        inject(scene, &[OTHER])
    }

    fn apply_to_several_disks(&self, name: &'static str) -> Scene {
        let mut scene = self.several_disks(name);
        self.save_plan(&scene, &[RAW, OTHER]);
        scene.is_once = true;
        with(scene, &words(&["apply", "-q", PLAN, "--in-place"]))
    }

    /// The guest crashed: its NTFS log is replayed by the command.
    fn unclean(&self, name: &'static str) -> Made {
        find("python3", name)?;
        let scene = self.image(name, RAW);
        let folder = tempfile::tempdir_in(&self.folder).unwrap();
        let opened = open_log(&scene.store.join(RAW), folder.path(), "--seed 1 --version 2.0 --end lose");
        opened.map(|_| scene).ok_or_else(|| (name, "the generator of logs cannot run".to_owned(), false))
    }

    /// BitLocker encrypts the guest, and its protection is suspended: the key lies on the volume. What the command makes of it
    /// is what it makes of a plain twin.
    fn encrypted(&self, name: &'static str) -> Made {
        if !rustix::process::geteuid().is_root() {
            return Err((name, "the maker of encrypted volumes needs root".to_owned(), true));
        }
        ["python3", "ntfs-3g", "dd"].into_iter().try_for_each(|program| find(program, name))?;
        let scene = self.image(name, RAW);
        let folder = tempfile::tempdir_in(&self.folder).unwrap();
        let at = |name: &str| folder.path().join(name);
        let (plain, locked) = (at("plain.raw"), scene.store.join(RAW));
        std::fs::rename(&locked, &plain).unwrap();
        let made =
            encrypt(&plain, &locked).ok_or((name, "the maker of encrypted volumes cannot run".to_owned(), false))?;
        // The scene itself is judged by its bytes; that they are the right ones is seen here.
        let edited = at("locked.raw");
        copy_piece(&locked, (0, locked.metadata().unwrap().len()), &edited, 0);
        let before = at("plain-before.raw");
        copy_piece(&plain, (0, plain.metadata().unwrap().len()), &before, 0);
        for image in [&plain, &edited] {
            let mut command = Command::new(&self.winject);
            command.arg("inject").arg("-q").arg(image).args(["--drivers", &drivers(), "--in-place", "--no-undo"]);
            run(command.env("SOURCE_DATE_EPOCH", "1700000000"));
        }
        let blocks = made.count_edited([&locked, &edited], [&before, &plain]);
        assert!(blocks > 50, "{name}: only {blocks} blocks changed");
        Ok(scene)
    }

    /// The drivers were injected before.
    fn remove(&self, scene: Scene) -> Scene {
        let mut command = Command::new(&self.winject);
        command.current_dir(&scene.store).args(["inject", "-q", scene.image, "--drivers", &drivers()]);
        run(command.args(["--registration", "full", "--in-place", "--no-undo"]));
        with(scene, &words(&["remove", "-q", IMAGE, "--in-place"]))
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

    /// For a command whose output replaces an earlier one.
    fn output(&self, name: &'static str) -> Scene {
        let scene = self.scene(name, Change::Replace, OUTPUT);
        std::fs::copy(sample(), scene.store.join(BASE)).unwrap();
        std::fs::write(scene.store.join(OUTPUT), "the output of an earlier run").unwrap();
        scene
    }

    /// The plan replaces an earlier one, whose bundle is not there.
    fn plan(&self, name: &'static str, options: &[&str]) -> Scene {
        let scene = self.scene(name, Change::Replace, PLAN);
        std::fs::copy(sample(), scene.store.join(BASE)).unwrap();
        std::fs::write(scene.store.join(PLAN), "an earlier plan").unwrap();
        let arguments = ["plan", "-q", BASE, "--drivers", &drivers(), "-o", PLAN, "--overwrite"];
        with(scene, &words(&[&arguments, options].concat()))
    }
}

fn with(mut scene: Scene, arguments: &[String]) -> Scene {
    scene.arguments = arguments.to_vec();
    scene
}

fn in_place(more: &[&str]) -> Vec<String> {
    [words(&["inject", "-q", IMAGE, "--drivers", &drivers(), "--in-place"]), words(more)].concat()
}

fn inject(scene: Scene, more: &[&str]) -> Scene {
    with(scene, &in_place(more))
}

/// The edit is made first, in the same place: its record names the image's inode.
fn undo(mut scene: Scene, more: &[&str]) -> Scene {
    (scene.before, scene.is_once) = (Some(in_place(more)), true);
    with(scene, &words(&[&["undo", "-q", IMAGE], more].concat()))
}

/// A command that ends with the name of its output.
fn write(scene: Scene, arguments: &[&str]) -> Scene {
    with(scene, &words(&[arguments, &[OUTPUT, "--overwrite"]].concat()))
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
fn qemu_img(folder: &Path, options: &[&str]) {
    let mut command = Command::new("qemu-img");
    command.current_dir(folder).args(["convert", "-O", "qcow2"]).args(options);
    run(command.arg(sample()).arg(QCOW2));
}
