//! Whole runs that edit the boot volume of the sample guest.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use winject::internals::block::Format;
use winject::internals::hive::{Hive, RegistryData};

use super::dos::{Dos, partition_of, put_partition};
use crate::disks::bios_on_one_disk;
use crate::inject::{fixture_drivers, folder, sha256, stderr, stdout, succeed, winject, writable_fixture};
use crate::support;
use crate::support::gpt::ESP;
use crate::windows::guests::{Disk, NOW};
use winject::internals::ntfs::CreateOptions;

const LOADER: &str = "{77696e6a-0000-11eb-8000-000000000001}";
const STORE: &str = "/EFI/Microsoft/Boot/BCD";

fn esp(image: &Path) -> Option<Dos> {
    partition_of(image, u32::try_from(ESP).unwrap(), &image.with_extension("esp"))
}

/// The sample guest as a raw image, with a changed system partition.
fn guest(folder: &Path, change: impl FnOnce(&Dos)) -> Option<PathBuf> {
    let image = writable_fixture(folder, Format::Raw);
    let dos = esp(&image)?;
    dos.assert_clean();
    change(&dos);
    put_partition(&image, u32::try_from(ESP).unwrap(), &dos);
    Some(image)
}

fn without_fallback(dos: &Dos) {
    dos.delete("/EFI/Boot/bootx64.efi");
}

fn inject(image: &Path, options: &str) -> Command {
    let mut command = winject();
    command.arg("inject").arg(image).arg("--drivers").arg(fixture_drivers()).args(options.split_whitespace());
    command
}

/// `winject apply PLAN` to this image, in place.
fn apply(plan: &Path, image: &Path) -> Command {
    let mut command = winject();
    command.arg("apply").arg(plan).arg("--image").arg(image).arg("--drivers").arg(fixture_drivers()).arg("--in-place");
    command
}

/// Runs a command that fails with this code and leaves the image as it is; what it says.
fn fail(command: &mut Command, code: i32, image: &Path) -> String {
    let before = sha256(image);
    let output = command.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
    assert_eq!(sha256(image), before, "{command:?}");
    text
}

/// The boot configuration as text of hivexregedit.
fn store_text(dos: &Dos, store: &str) -> Option<String> {
    let file = dos.path.with_extension("bcd");
    support::run(
        Command::new(support::program("mcopy")?)
            .args(["-n", "-o", "-i"])
            .arg(&dos.path)
            .arg(format!("::{store}"))
            .arg(&file),
    );
    registry_text(&file)
}

fn registry_text(file: &Path) -> Option<String> {
    let tool = support::program("hivexregedit")?;
    let output = support::run(Command::new(tool).args(["--export", "--prefix", "BCD"]).arg(file).arg("\\"));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The store with one flag of the default loader.
fn with_flag(dos: &Dos, element: &str, data: &[u8]) {
    let store = stored(dos);
    let mut hive = Hive::open(store).unwrap();
    let key = hive.create_key(hive.root(), &format!("Objects\\{LOADER}\\Elements\\{element}"), NOW).unwrap();
    hive.set_value(key, "Element", &RegistryData::binary(data), NOW).unwrap();
    dos.put(STORE, &hive.finish(&[]).unwrap());
}

fn stored(dos: &Dos) -> Vec<u8> {
    use winject::internals::{fat::FatVolume, io::MemoryVolume};
    let fat = FatVolume::open(MemoryVolume(std::fs::read(&dos.path).unwrap())).unwrap();
    fat.read(STORE, 1 << 24).unwrap().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// By default a missing fallback loader is put in place; nothing else of the system partition changes; undo takes it back, and
/// a plan does the same.
fn a_missing_fallback_loader_is_put_in_place() {
    for has_folder in [true, false] {
        let folder = folder();
        let change = |dos: &Dos| {
            without_fallback(dos);
            if !has_folder {
                support::run(
                    Command::new(support::program("mdeltree").unwrap()).arg("-i").arg(&dos.path).arg("::/EFI/Boot"),
                );
            }
        };
        let Some(image) = guest(folder.path(), change) else { return };
        let original = sha256(&image);
        let before = esp(&image).unwrap().files();
        let check = winject().arg("check").arg(&image).output().unwrap();
        assert!(stdout(&check).contains("empty NVRAM does not find Windows"), "{}", stdout(&check));

        let plan = folder.path().join("plan.json");
        let mut command = winject();
        command.arg("plan").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("-o").arg(&plan);
        let review = stdout(&succeed(&mut command));
        assert!(review.contains("/EFI/Boot/bootx64.efi") && review.contains("a copy of its"), "{review}");
        assert_eq!(sha256(&image), original, "a plan writes nothing");
        let planned = folder.path().join("planned.raw");
        crate::inject::copy(&image, &planned);

        let report = folder.path().join("report.json");
        succeed(&mut inject(&image, &format!("--in-place --report {}", report.display())));
        let dos = esp(&image).unwrap();
        dos.assert_clean();
        let mut after = dos.files();
        let new = after.keys().find(|name| name.eq_ignore_ascii_case("EFI/Boot/bootx64.efi")).unwrap().clone();
        let manager =
            before.iter().find(|(name, _)| name.eq_ignore_ascii_case("EFI/Microsoft/Boot/bootmgfw.efi")).unwrap().1;
        assert_eq!(after.remove(&new).as_ref(), Some(manager));
        assert_eq!(after, before);
        let json = json(&report);
        let files = &json["virtio"]["bcd_changes"]["files"];
        assert_eq!(files[0]["path"], "/EFI/Boot/bootx64.efi");
        assert_eq!(files[0]["action"], "created");
        let text = stdout(&succeed(winject().arg("check").args(["--signature-policy", "warn"]).arg(&image)));
        assert!(text.contains("empty NVRAM finds Windows by itself"), "{text}");

        // A second run has nothing to do.
        let first = sha256(&image);
        succeed(&mut inject(&image, &format!("--in-place --report {}", report.display())));
        assert_eq!(sha256(&image), first);

        // The plan does what inject does.
        succeed(&mut apply(&plan, &planned));
        assert_eq!(sha256(&planned), first);
        let text = fail(&mut apply(&plan, &planned), 9, &planned);
        assert!(text.contains("applied already"), "{text}");

        succeed(winject().arg("undo").arg(&planned));
        assert_eq!(sha256(&planned), original);
        // What removal leaves, it names.
        let removed = stdout(&succeed(winject().arg("remove").arg(&image).arg("--in-place")));
        assert!(removed.contains("fallback loader /EFI/Boot/bootx64.efi"), "{removed}");
        assert!(esp(&image).unwrap().files().contains_key(&new));
    }
}

/// Not wanted, or not possible: the system partition is as it was, and the run says why, or ends.
fn a_fallback_loader_that_cannot_be_written_is_said() {
    type Make = fn(&Dos);
    let cases: [(&str, Make, &str); 4] = [
        (
            "a file in the place of the folder",
            |dos| {
                dos.delete_folder("/EFI/Boot");
                dos.put("/EFI/Boot", b"in the way");
            },
            "a file has the name of the folder",
        ),
        (
            "dirty",
            |dos| {
                without_fallback(dos);
                let mut bytes = std::fs::read(&dos.path).unwrap();
                let at = if bytes[22] == 0 && bytes[23] == 0 { 0x41 } else { 0x25 };
                bytes[at] |= 1;
                std::fs::write(&dos.path, bytes).unwrap();
            },
            "marked dirty",
        ),
        (
            "full",
            |dos| {
                use winject::internals::{fat::survey_fat, io::MemoryVolume};
                without_fallback(dos);
                let space = survey_fat(&MemoryVolume(std::fs::read(&dos.path).unwrap()), false).unwrap();
                let filler = u64::from(space.free_clusters) * space.cluster_bytes;
                dos.put("/filler", &vec![0; usize::try_from(filler).unwrap()]);
            },
            "bytes free",
        ),
        (
            "no boot manager",
            |dos| {
                // Of the two, one is enough to start; none is damage of its own.
                dos.put("/EFI/Microsoft/Boot/bootmgfw.efi", b"not a program");
            },
            "",
        ),
    ];
    for (name, make, word) in cases {
        let folder = folder();
        let Some(image) = guest(folder.path(), make) else { return };
        let before = std::fs::read(&esp(&image).unwrap().path).unwrap();
        if !word.is_empty() {
            let text = fail(&mut inject(&image, "--in-place --fallback-loader on"), 3, &image);
            assert!(text.contains(word) && text.contains("cannot put the fallback loader in place"), "{name}: {text}");
        }
        let output = succeed(&mut inject(&image, "--in-place"));
        let text = stderr(&output) + &stdout(&output);
        assert!(word.is_empty() || (text.contains(word) && text.contains("is not put in place")), "{name}: {text}");
        assert!(std::fs::read(&esp(&image).unwrap().path).unwrap() == before, "{name}");
    }
    let folder = folder();
    let Some(image) = guest(folder.path(), without_fallback) else { return };
    let before = std::fs::read(&esp(&image).unwrap().path).unwrap();
    let text = stderr(&succeed(&mut inject(&image, "--in-place --fallback-loader off")));
    assert!(text.contains("does not find Windows by itself"), "{text}");
    assert!(std::fs::read(&esp(&image).unwrap().path).unwrap() == before);
}

/// The sections of hivexregedit that differ, each with its key.
fn difference(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
    let only = |one: &str, other: &str| -> Vec<String> {
        let other: std::collections::BTreeSet<&str> = other.split("\n\n").map(str::trim).collect();
        one.split("\n\n").map(str::trim).filter(|part| !other.contains(part)).map(str::to_owned).collect()
    };
    (only(before, after), only(after, before))
}

/// Test signing is one element of the default loader, which remove takes back; a second run has nothing to do.
fn test_signing_is_one_element() {
    let folder = folder();
    let Some(image) = guest(folder.path(), |_| {}) else { return };
    let dos = esp(&image).unwrap();
    let (files, Some(before)) = (dos.files(), store_text(&dos, STORE)) else { return };
    let output = succeed(&mut inject(&image, "--in-place --test-signing on"));
    let text = stderr(&output) + &stdout(&output);
    assert!(text.contains("test signing is on") && text.contains("Secure Boot"), "{text}");
    let dos = esp(&image).unwrap();
    dos.assert_clean();
    let after = store_text(&dos, STORE).unwrap();
    let (gone, new) = difference(&before, &after);
    assert!(gone.is_empty(), "{gone:?}");
    assert!(new.iter().any(|line| line.to_lowercase().contains(&format!("{LOADER}\\elements\\16000049"))), "{new:?}");
    assert!(new.len() == 1 && new[0].to_lowercase().ends_with("\"element\"=hex(3):01"), "{new:?}");
    let mut now = dos.files();
    now.insert("EFI/Microsoft/Boot/BCD".to_owned(), files["EFI/Microsoft/Boot/BCD"].clone());
    assert_eq!(now, files);
    let check = stdout(&succeed(winject().arg("check").args(["--signature-policy", "warn"]).arg(&image)));
    assert!(check.contains("testsigning"), "{check}");

    let first = sha256(&image);
    succeed(&mut inject(&image, "--in-place --test-signing on"));
    assert_eq!(sha256(&image), first, "nothing to do");
    succeed(&mut inject(&image, "--in-place"));
    assert_eq!(sha256(&image), first, "not asked for again: it stays as it is");
    succeed(winject().arg("remove").arg(&image).arg("--in-place"));
    assert_eq!(store_text(&esp(&image).unwrap(), STORE).unwrap(), before);
    succeed(&mut inject(&image, "--in-place --test-signing on"));
    succeed(&mut inject(&image, "--in-place --test-signing off"));
    assert_eq!(store_text(&esp(&image).unwrap(), STORE).unwrap(), before);
}

/// A guest with UEFI gets its graphics mode back, unless it is to be kept; remove restores the element.
fn graphics_mode_is_allowed_for_uefi() {
    let folder = folder();
    let Some(image) = guest(folder.path(), |dos| with_flag(dos, "16000046", &[1])) else { return };
    let Some(before) = store_text(&esp(&image).unwrap(), STORE) else { return };
    let kept = folder.path().join("kept.raw");
    crate::inject::copy(&image, &kept);
    let check = stdout(&winject().arg("check").args(["--signature-policy", "warn"]).arg(&image).output().unwrap());
    assert!(check.contains("graphicsmodedisabled"), "{check}");
    succeed(&mut inject(&kept, "--in-place --boot-graphics keep"));
    assert_eq!(store_text(&esp(&kept).unwrap(), STORE).unwrap(), before);

    let plan = folder.path().join("plan.json");
    let planned = folder.path().join("planned.raw");
    crate::inject::copy(&image, &planned);
    let mut command = winject();
    command.arg("plan").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("-o").arg(&plan);
    let review = stdout(&succeed(&mut command));
    assert!(review.contains("BCD00000000") && review.contains("16000046"), "{review}");
    succeed(&mut inject(&image, "--in-place"));
    succeed(&mut apply(&plan, &planned));
    assert_eq!(sha256(&planned), sha256(&image));
    let after = store_text(&esp(&image).unwrap(), STORE).unwrap();
    let (gone, new) = difference(&before, &after);
    assert!(new.is_empty() && gone.iter().any(|line| line.contains("16000046")), "{gone:?} {new:?}");
    let first = sha256(&image);
    succeed(&mut inject(&image, "--in-place"));
    assert_eq!(sha256(&image), first);
    succeed(winject().arg("remove").arg(&image).arg("--in-place"));
    assert_eq!(store_text(&esp(&image).unwrap(), STORE).unwrap(), before);
}

/// A boot configuration whose last changes are only in its log is not edited.
fn a_dirty_store_is_refused_by_name() {
    let folder = folder();
    let dirty = |dos: &Dos| {
        let mut store = stored(dos);
        store[4] = store[4].wrapping_add(1);
        let sum = store[..508].chunks_exact(4).fold(0, |sum, four| sum ^ u32::from_le_bytes(four.try_into().unwrap()));
        store[508..512].copy_from_slice(&sum.to_le_bytes());
        dos.put(STORE, &store);
    };
    let Some(image) = guest(folder.path(), dirty) else { return };
    let text = fail(&mut inject(&image, "--in-place --test-signing on"), 3, &image);
    assert!(text.contains("cannot change test signing") && text.contains("dirty"), "{text}");
    // What check says of it, a run says, too.
    let check = stdout(&winject().arg("check").arg(&image).output().unwrap());
    let finding = check.lines().find_map(|line| line.split_once("not judged: ")).expect(&check).1;
    assert!(finding.contains(STORE) && finding.contains("dirty"), "{check}");
    let text = stderr(&succeed(&mut inject(&image, "--in-place")));
    assert!(text.contains(finding), "{text}");
}

/// A fallback loader that firmware cannot start is as good as none: a run says so as check does.
fn a_useless_fallback_loader_is_said() {
    let folder = folder();
    let useless = |dos: &Dos| dos.put("/EFI/Boot/bootx64.efi", b"not a program");
    let Some(image) = guest(folder.path(), useless) else { return };
    let wanted = "a new machine with empty NVRAM does not find Windows by itself";
    let check = stdout(&winject().arg("check").arg(&image).output().unwrap());
    let text = stderr(&succeed(&mut inject(&image, "--in-place")));
    assert!(check.contains(wanted) && text.contains(wanted), "{check}\n{text}");
}

/// A guest with a BIOS: the boot configuration is a file of the Windows volume itself.
fn a_bios_guest_has_its_store_on_the_windows_volume() {
    let folder = folder();
    let image = bios_on_one_disk(folder.path());
    let read = |image: &Path| {
        use winject::internals::ntfs::{OpenOptions, Volume};
        use winject::internals::partition::{PartitionView, read};
        let image = winject::internals::block::open(image, &Default::default()).unwrap();
        let disk: &dyn winject::internals::block::Image = &*image;
        let partition = read(disk).unwrap().partition(1).unwrap().clone();
        let volume = Volume::open(PartitionView::new(&disk, &partition).unwrap(), &OpenOptions::read_only()).unwrap();
        let id = volume.find("/Boot/BCD").unwrap().unwrap();
        let path = folder.path().join("store");
        std::fs::write(&path, volume.read(id, 1 << 24).unwrap()).unwrap();
        registry_text(&path)
    };
    let Some(before) = read(&image) else { return };
    succeed(&mut inject(&image, "--in-place --test-signing on"));
    let after = read(&image).unwrap();
    let (gone, new) = difference(&before, &after);
    assert!(gone.is_empty() && new.iter().any(|line| line.contains("16000049")), "{gone:?} {new:?}");
    let text = fail(&mut inject(&image, "--in-place --fallback-loader on"), 3, &image);
    assert!(text.contains("no EFI system partition"), "{text}");
    succeed(winject().arg("remove").arg(&image).arg("--in-place"));
    assert_eq!(read(&image).unwrap(), before);
}

/// Its own override marks the Windows volume, which holds the boot configuration, too.
fn a_volume_that_was_hibernated_or_is_dirty_takes_both_edits() {
    let folder = folder();
    let image = bios_on_one_disk(folder.path());
    let disk = {
        use winject::internals::partition::read;
        let file = winject::internals::block::open(&image, &Default::default()).unwrap();
        let partition = read(&*file).unwrap().partition(1).unwrap().clone();
        Disk { path: image.clone(), offset: partition.start.0, length: partition.length }
    };
    let mut session = vec![0; 64 << 10];
    session[..4].copy_from_slice(b"HIBR");
    let mut volume = disk.volume();
    volume.replace_file("/hiberfil.sys", &session, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    drop(volume);
    for options in ["--discard-hibernation --test-signing on", "--allow-dirty --test-signing off"] {
        let output = succeed(&mut inject(&image, &format!("--in-place {options}")));
        assert!(stdout(&output).contains("Done:"), "{options}");
    }
}

tests![
    a_volume_that_was_hibernated_or_is_dirty_takes_both_edits,
    a_missing_fallback_loader_is_put_in_place,
    a_fallback_loader_that_cannot_be_written_is_said,
    test_signing_is_one_element,
    graphics_mode_is_allowed_for_uefi,
    a_dirty_store_is_refused_by_name,
    a_useless_fallback_loader_is_said,
    a_bios_guest_has_its_store_on_the_windows_volume,
];
