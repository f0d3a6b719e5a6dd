//! Broken and hostile driver media, through the whole program: one clear error each (where, why, what to do), and not a
//! byte of the image changed.

use super::media;
use crate::inject::bad_input::refuse;
use crate::inject::{fixture_drivers, folder, succeed, winject, writable_fixture};
use crate::support;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use winject::Kind;
use winject::internals::block::{self, Format, Stage, StageOptions};
use winject::internals::clock::FileTime;
use winject::internals::drivers::{Arch, Definitions, GuestTarget, Policy, Sources, select};
use winject::internals::ntfs::{OpenOptions, Volume};
use winject::internals::partition::{PartitionView, read};
use winject::internals::plan::{Access, Applied, Change, Content, Plan, Step, apply, verify};
use winject::internals::windows::Hives;

const VIOSTOR: &str = "viostor/w10/amd64";

/// A folder with an image, and a copy of our drivers that a test spoils.
struct Setting {
    _folder: tempfile::TempDir,
    media: tempfile::TempDir,
    image: PathBuf,
}

impl Setting {
    fn new() -> Self {
        let folder = folder();
        let image = writable_fixture(folder.path(), Format::Raw);
        let media = tempfile::tempdir().unwrap();
        media::copy_some(&fixture_drivers(), &[VIOSTOR, "vioscsi/w10/amd64"], media.path());
        Self { _folder: folder, media, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.media.path().join(name)
    }

    fn refused(&self, code: i32, words: &[&str]) {
        refuse(&self.image, self.media.path(), code, words);
    }

    /// An image of the folder with Rock Ridge, or nothing without the program that makes it.
    fn iso(&self, options: &[&str]) -> Option<PathBuf> {
        let program = support::program("genisoimage")?;
        let out = self.image.with_file_name("media.iso");
        let mut command = Command::new(program);
        command.args(["-quiet", "-input-charset", "iso8859-1"]).args(options);
        support::run(command.arg("-o").arg(&out).arg(self.media.path()));
        Some(out)
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} is not in {}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

fn strings_that_contain_each_other() {
    let setting = Setting::new();
    let inf = setting.path(VIOSTOR).join("viostor.inf");
    let text = fs::read_to_string(&inf).unwrap();
    let line = text.trim_end().lines().count() + 2;
    fs::write(&inf, format!("{}\n[Strings]\nA=\"%B%\"\nB=\"%A%\"\n", text.trim_end())).unwrap();
    setting.refused(6, &[&format!("viostor.inf:{line}"), "contains itself"]);
}

fn an_inf_of_ten_megabytes() {
    let setting = Setting::new();
    let inf = setting.path(VIOSTOR).join("viostor.inf");
    let mut data = fs::read(&inf).unwrap();
    data.resize(10 << 20, b';');
    fs::write(&inf, data).unwrap();
    setting.refused(6, &["viostor.inf", "10485760 bytes"]);
}

fn an_inf_without_models() {
    let setting = Setting::new();
    fs::remove_dir_all(setting.path("vioscsi")).unwrap();
    edit(&setting.path(VIOSTOR).join("viostor.inf"), "[Manufacturer]", "[Nobody]");
    setting.refused(6, &["viostor", "no models section"]);
}

fn the_catalogue_of_another_package() {
    let setting = Setting::new();
    fs::copy(setting.path("vioscsi/w10/amd64/vioscsi.cat"), setting.path(VIOSTOR).join("viostor.cat")).unwrap();
    setting.refused(6, &["viostor.cat", "of another package"]);
    // asked for, the same is a warning
    let out = setting.image.with_file_name("warned.qcow2");
    let mut command = winject();
    command.arg("inject").arg(&setting.image).arg("--drivers").arg(setting.media.path()).arg("--overlay").arg(out);
    let output = succeed(command.args(["--signature-policy", "warn"]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("of another package"));
}

fn an_iso_cut_in_the_middle() {
    let setting = Setting::new();
    let Some(iso) = setting.iso(&["-r", "-no-pad"]) else { return };
    let data = fs::read(&iso).unwrap();
    for length in [data.len() - 4096, data.len() * 3 / 4, data.len() / 2, 40 * 1024] {
        fs::write(&iso, &data[..length]).unwrap();
        refuse(&setting.image, &iso, 5, &["media.iso", "cut short"]);
    }
}

fn directories_of_an_iso_in_a_loop() {
    let setting = Setting::new();
    let Some(iso) = setting.iso(&["-r"]) else { return };
    let mut data = fs::read(&iso).unwrap();
    let root: [u8; 4] = data[16 * 2048 + 156 + 2..][..4].try_into().unwrap();
    // directory records are 33 bytes, then the name; the path table has the name too
    let is_record = |at: usize| data[at - 33] >= 38 && data[at - 33 + 25] & 2 != 0 && data[at - 1] == 5;
    let places: Vec<usize> =
        (33..data.len() - 5).filter(|&at| &data[at..at + 5] == b"AMD64" && is_record(at)).collect();
    assert_eq!(places.len(), 2);
    for at in places {
        data[at - 31..at - 27].copy_from_slice(&root);
    }
    fs::write(&iso, data).unwrap();
    refuse(&setting.image, &iso, 5, &["media.iso", "loop"]);
}

fn directories_too_deep() {
    let setting = Setting::new();
    let deep = |levels: usize| vec!["d"; levels].join("/");
    let Some(plain) = setting.iso(&["-r"]) else { return };
    fs::create_dir_all(setting.path(&deep(70))).unwrap();
    fs::write(setting.path(&deep(70)).join("x.txt"), "x").unwrap();
    let iso = setting.iso(&["-r", "-D"]).unwrap();
    assert_eq!(plain, iso);
    refuse(&setting.image, &iso, 5, &["media.iso", "more than 64 deep"]);
    // a folder of the host: what lies too deep is left out, and said
    let other = tempfile::tempdir().unwrap();
    media::copy_some(&fixture_drivers(), &[VIOSTOR], &other.path().join(deep(17)));
    refuse(&setting.image, other.path(), 6, &["no driver package", "more than 16 folders deep"]);
}

fn links_in_a_loop_are_followed_once() {
    let setting = Setting::new();
    std::os::unix::fs::symlink(setting.media.path(), setting.path(VIOSTOR).join("again")).unwrap();
    let sources = Sources::open(&[setting.media.path()]).unwrap();
    assert_eq!(sources.iter().next().unwrap().files().len(), 6);
}

/// What a link leads to is copied into the guest, so that it must lie in the folder of the drivers.
fn links_out_of_the_folder_are_left_out() {
    use std::os::unix::fs::symlink;
    let setting = Setting::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    fs::create_dir(outside.path().join("folder")).unwrap();
    fs::write(outside.path().join("folder/secret.sys"), "secret").unwrap();
    let at = setting.path(VIOSTOR);
    symlink(outside.path().join("secret.txt"), at.join("absolute.dll")).unwrap();
    symlink("absolute.dll", at.join("chain.dll")).unwrap();
    symlink("again.dll", at.join("again.dll")).unwrap();
    symlink(outside.path().join("folder"), at.join("folder")).unwrap();
    symlink("viostor.sys", at.join("inside.sys")).unwrap();
    // the folder itself may be given by a link
    let link = outside.path().join("drivers");
    symlink(setting.media.path(), &link).unwrap();
    symlink(&link, at.join("around.dll")).unwrap();
    for root in [setting.media.path(), &link] {
        let sources = Sources::open(&[root]).unwrap();
        let source = sources.iter().next().unwrap();
        let names: Vec<&str> = source.files().iter().map(|file| file.name()).collect();
        assert!(names.contains(&"inside.sys") && names.len() == 7, "{names:?}");
        assert_eq!(source.read("viostor/w10/amd64/inside.sys").unwrap(), fs::read(at.join("viostor.sys")).unwrap());
        let warnings = source.warnings().join("\n");
        for name in ["absolute.dll", "chain.dll", "folder"] {
            assert!(warnings.contains(&format!("{name}: left out, a link that leads out")), "{name}: {warnings}");
        }
        assert!(warnings.contains("again.dll: left out, a link to nothing"), "{warnings}");
    }
}

fn a_folder_with_far_too_many_files() {
    let temp = tempfile::tempdir().unwrap();
    for number in 0..100_001 {
        fs::File::create(temp.path().join(format!("{number}.txt"))).unwrap();
    }
    let error = Sources::open(&[temp.path()]).unwrap_err();
    assert_eq!(error.kind(), Kind::Drivers);
    assert!(error.to_string().contains("more than 100000 files") && error.hint_text().is_some(), "{error}");
}

/// Names that are one file here and would be a path there.
fn names_that_lead_elsewhere() {
    let setting = Setting::new();
    for name in ["..\\..\\..\\Windows\\System32\\evil.dll", "C:evil.dll", "con|x", "dot."] {
        fs::write(setting.path(VIOSTOR).join(name), "evil").unwrap();
    }
    edit(&setting.path(VIOSTOR).join("viostor.inf"), "[SourceDisksFiles]", "[SourceDisksFiles]\n..\\..\\outside.sys=1");
    fs::write(setting.path("outside.sys"), "outside").unwrap();
    let guest = GuestTarget::of_build(Arch::Amd64, 19045, false);
    let sources = Sources::open(&[setting.media.path()]).unwrap();
    let policy = Policy { signature: winject::internals::drivers::SignatureLevel::Warn };
    let selection = select(&sources, &guest, &Definitions::builtin(), &policy).unwrap();
    for package in &selection.packages {
        assert_eq!(package.files.len(), 3, "{:?}", package.files);
    }
    let warnings = selection.warnings.join("\n");
    for part in ["evil.dll: left out, Windows cannot have such a name", "dot.: left out", "outside.sys, which is not"] {
        assert!(warnings.contains(part), "{part} is not in {warnings}");
    }
}

/// What is staged is what was checked, whatever happens to the media meanwhile: small files are kept, a change of a large
/// one is noticed.
/// Devices (`con.inf`, `aux.dll`) and names that differ in case only: Windows cannot hold such files side by side.
fn names_that_windows_cannot_hold_are_left_out() {
    let setting = Setting::new();
    let package = setting.path(VIOSTOR);
    for (from, to) in [("viostor.inf", "con.inf"), ("viostor.cat", "aux.dll"), ("viostor.sys", "VIOSTOR.SYS")] {
        fs::copy(package.join(from), package.join(to)).unwrap();
    }
    let mut command = winject();
    command.arg("inject").arg(&setting.image).arg("--drivers").arg(setting.media.path()).arg("--dry-run");
    let output = succeed(&mut command);
    let plan = String::from_utf8(output.stdout).unwrap();
    assert!(plan.contains("create file /hyper2kvm/drivers/virtio/viostor/viostor.sys"), "{plan}");
    let warnings = String::from_utf8(output.stderr).unwrap();
    for name in ["con.inf", "aux.dll", "VIOSTOR.SYS"] {
        assert!(warnings.contains(&format!("{VIOSTOR}/{name}: left out")), "{name}: {warnings}");
        let written = format!("/{name} (");
        assert!(!plan.lines().any(|line| line.contains("create file") && line.contains(&written)), "{name}: {plan}");
    }
}

fn media_that_change_after_the_choice() {
    let setting = Setting::new();
    let (small, large) = (setting.path(VIOSTOR).join("viostor.sys"), setting.path(VIOSTOR).join("large.bin"));
    fs::write(&large, vec![7; 2 << 20]).unwrap();
    let guest = GuestTarget::of_build(Arch::Amd64, 19045, false);
    let sources = Sources::open(&[setting.media.path()]).unwrap();
    let selection = select(&sources, &guest, &Definitions::builtin(), &Policy::default()).unwrap();
    let file = |name: &str| selection.packages.iter().flat_map(|p| &p.files).find(|f| f.name == name).unwrap();
    let before = fs::read(&small).unwrap();
    assert_eq!(*file("viostor.sys").read().unwrap(), *before);
    assert!(file("large.bin").read().is_ok());
    for path in [&small, &large] {
        let mut data = fs::read(path).unwrap();
        data[0x500] ^= 1;
        fs::write(path, &data).unwrap();
    }
    assert_eq!(*file("viostor.sys").read().unwrap(), *before, "the driver that was checked");
    assert!(file("vioscsi.sys").read().is_ok());
    let error = file("large.bin").read().unwrap_err();
    assert_eq!(error.kind(), Kind::Drivers);
    let text = error.to_string();
    assert!(text.contains("has changed since it was chosen") && text.contains("large.bin"), "{text}");
    assert!(error.hint_text().is_some());
    fs::write(&large, vec![7; (2 << 20) - 1]).unwrap();
    assert!(file("large.bin").read().is_err());
    fs::remove_file(&small).unwrap();
    assert_eq!(*file("viostor.sys").read().unwrap(), *before, "it is gone");
}

/// A large file is read again when it is written: then it must be what was chosen, and so must what is read back.
fn a_large_file_is_copied_as_it_was_chosen_or_not_at_all() {
    let setting = Setting::new();
    let large = setting.path(VIOSTOR).join("large.bin");
    // not a multiple of a cluster, nor of the parts in which it is copied
    let data: Vec<u8> = (0..5_000_001u32).map(|i| (i >> 8) as u8 ^ i as u8).collect();
    fs::write(&large, &data).unwrap();
    let guest = GuestTarget::of_build(Arch::Amd64, 19045, false);
    let sources = Sources::open(&[setting.media.path()]).unwrap();
    let selection = select(&sources, &guest, &Definitions::builtin(), &Policy::default()).unwrap();
    let file = selection.packages.iter().flat_map(|p| &p.files).find(|f| f.name == "large.bin").unwrap();
    let mut plan = Plan::new("/Windows/System32/config");
    let content = Content::of_package(file);
    let change = Change::WriteFile {
        path: "/large.bin".to_owned(),
        content,
        replaces: false,
        access: Access::Like("/Windows".to_owned()),
    };
    plan.steps.push(Step { change, reason: "test".to_owned() });
    let clock = FileTime::from_unix_seconds(1_600_000_000).unwrap();
    let run = |device: &mut Stage, plan: &Plan| -> winject::Result<Vec<u8>> {
        let partition = read(&*device)?.partition(3).unwrap().clone();
        let mut volume = Volume::open(PartitionView::new(device, &partition)?, &OpenOptions::new(clock))?;
        apply(plan, &mut volume, Hives::new(), clock)?;
        verify(volume.device(), plan, &Applied::default(), false)?;
        let file = volume.find("/large.bin")?.unwrap();
        volume.read(file, u64::MAX)
    };
    let stage =
        || Stage::new(block::open(&setting.image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    assert!(run(&mut stage(), &plan).unwrap() == data);
    // the same over an older file of this name
    let mut twice = stage();
    run(&mut twice, &plan).unwrap();
    assert!(run(&mut twice, &plan).unwrap() == data);
    let mut other = data.clone();
    *other.last_mut().unwrap() ^= 1;
    for other in [other, data[..data.len() - 1].to_vec()] {
        fs::write(&large, other).unwrap();
        let error = run(&mut stage(), &plan).unwrap_err();
        assert!([Kind::Drivers, Kind::Io].contains(&error.kind()), "{error}");
        assert!(error.to_string().contains("large.bin"), "{error}");
    }
}

tests![
    strings_that_contain_each_other,
    an_inf_of_ten_megabytes,
    an_inf_without_models,
    the_catalogue_of_another_package,
    an_iso_cut_in_the_middle,
    directories_of_an_iso_in_a_loop,
    directories_too_deep,
    links_in_a_loop_are_followed_once,
    links_out_of_the_folder_are_left_out,
    a_folder_with_far_too_many_files,
    names_that_lead_elsewhere,
    names_that_windows_cannot_hold_are_left_out,
    media_that_change_after_the_choice,
    a_large_file_is_copied_as_it_was_chosen_or_not_at_all,
];
