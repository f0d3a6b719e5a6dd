//! Windows releases × partition tables × containers, judged by programs that share no code with winject.

use super::made::{Guest, PRODUCTS, media};
use super::{folder, sha256, stdout, winject};
use crate::support;
use std::path::Path;
use std::process::Command;

/// One cell of the matrix: inject in place, judge everything, and once more without any change.
fn inject_and_judge(guest: &Guest, format: &str, with_kernel: bool) -> Option<()> {
    let label = format!("{} {} {format}, clusters of {}", guest.product, guest.geometry, guest.cluster);
    let folder = folder();
    let image = guest.copy(folder.path(), format)?;
    let hives_before = hives(guest.offset, &guest.raw, &folder.path().join("before"))?;
    let run = || {
        let mut command = winject();
        command.arg("inject").arg(&image).arg("--in-place").args(["--signature-policy", "warn", "--drivers"]);
        command.arg(media()?);
        Some(stdout(&support::run(&mut command)))
    };
    let text = run()?;
    assert!(text.contains("Done:"), "{label}: {text}");
    let raw = as_raw(&image, format, folder.path())?;
    judge_volume(guest, &raw, &label)?;
    let hives_after = hives(guest.offset, &raw, &folder.path().join("after"))?;
    judge_hives(&hives_before, &hives_after, &label)?;
    let before = sha256(&image);
    let text = run()?;
    assert!(text.contains("Unchanged:"), "{label}: {text}");
    assert_eq!(before, sha256(&image), "{label}: a second run changed something");
    if with_kernel {
        let volume = volume_of(guest.offset, &raw, folder.path());
        linux_writes(&["rw".as_ref(), volume.as_os_str()])?;
        let failed = judged_after_linux(&volume, folder.path())?;
        if !failed.is_empty() {
            // Some judges cannot read what Linux writes, whoever made the volume: they are not believed here.
            let untouched = volume_of(guest.offset, &guest.raw, folder.path());
            let control = judged_after_linux(&untouched, folder.path())?;
            let ours: Vec<_> = failed.iter().filter(|judge| !control.contains(judge)).collect();
            assert!(ours.is_empty(), "{label}: {ours:?} refuse the volume after Linux wrote to it, not so before");
        }
    }
    Some(())
}

/// The judges that refuse the volume after Linux has written to it.
fn judged_after_linux(volume: &Path, folder: &Path) -> Option<Vec<String>> {
    let kept = folder.join("kept.raw");
    linux_writes(&["keep".as_ref(), volume.as_os_str(), kept.as_os_str()])?;
    let output = Command::new(support::judge("ntfs-judge.sh")?).arg("-K").arg(&kept).output().unwrap();
    std::fs::remove_file(kept).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let verdicts = |wanted: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let judge = words.next()?;
            (words.next() == Some(wanted)).then(|| judge.to_owned())
        });
        lines.collect()
    };
    let failed = verdicts("FAIL");
    assert!(verdicts("PASS").len() > failed.len(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.success(), failed.is_empty(), "{text}");
    Some(failed)
}

/// Lets Linux's own driver mount the volume, write to it and check it. On a busy host the emulated machine itself may
/// stop at its clock before it comes to the volume; then it is started again.
fn linux_writes(arguments: &[&std::ffi::OsStr]) -> Option<()> {
    let judge = support::judge("kernel-ntfs3.sh")?;
    for attempt in 1.. {
        let output = Command::new(&judge).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            break;
        }
        assert!(text.contains("Kernel panic") && attempt < 4, "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Some(())
}

/// What the judges read is raw; a qcow2 is checked as such first.
fn as_raw(image: &Path, format: &str, folder: &Path) -> Option<std::path::PathBuf> {
    if format == "raw" {
        return Some(image.to_owned());
    }
    let qemu_img = support::program("qemu-img")?;
    support::run(Command::new(&qemu_img).arg("check").arg(image));
    let raw = folder.join("flat.raw");
    support::run(Command::new(&qemu_img).args(["convert", "-f", format, "-O", "raw"]).arg(image).arg(&raw));
    Some(raw)
}

fn judge_volume(guest: &Guest, raw: &Path, label: &str) -> Option<()> {
    let judge = support::judge("ntfs-judge.sh")?;
    support::judge_python()?;
    // the kernel driver has its own step; the other judges are all asked
    let mut command = Command::new(judge);
    command.arg("-K");
    // what the others cannot read: see their list of limits (the mirror of large clusters, clusters over 64 KiB, and
    // index allocations over 64 KiB)
    if guest.cluster > 4 << 10 {
        let common = "ntfscheck,checkdisk,checkdisk-sec,ntfsresize,ntfsfix,ntfs3g-read";
        let also = if guest.cluster > 64 << 10 { "" } else { ",phantom,sleuthkit,fsntfsinfo,grub,7z,dissect" };
        command.args(["-o", &format!("{common}{also}")]);
    }
    let output = command.arg(raw).arg(guest.offset.to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{label}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

fn volume_of(offset: u64, raw: &Path, folder: &Path) -> std::path::PathBuf {
    let volume = folder.join("volume.raw");
    let (skip, out) = (format!("skip={offset}"), format!("of={}", volume.display()));
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", raw.display())).arg(out).arg(skip);
    support::run(dd.args(["iflag=skip_bytes", "bs=1M", "conv=sparse", "status=none"]));
    volume
}

/// The hives of the Windows volume that begins at `offset`, read out of it by ntfs-3g's own reader.
pub fn hives(offset: u64, raw: &Path, folder: &Path) -> Option<Vec<std::path::PathBuf>> {
    let ntfscat = support::program("ntfscat")?;
    std::fs::create_dir_all(folder).unwrap();
    let volume = volume_of(offset, raw, folder);
    let hives = ["SYSTEM", "SOFTWARE"].map(|name| {
        let out = folder.join(name);
        let mut cat = Command::new(&ntfscat);
        let output = support::run(cat.arg("-f").arg(&volume).arg(format!("Windows/System32/config/{name}")));
        std::fs::write(&out, output.stdout).unwrap();
        out
    });
    std::fs::remove_file(volume).unwrap();
    Some(hives.to_vec())
}

/// Asks the strict foreign checker for faults that were not there before.
pub fn judge_hives(before: &[std::path::PathBuf], after: &[std::path::PathBuf], label: &str) -> Option<()> {
    let check = support::judge("hivecheck.py")?;
    let python = support::judge_python()?;
    for (old, new) in before.iter().zip(after) {
        let mut judge = Command::new(&python);
        let output = judge.arg(&check).args(["--strict", "--baseline"]).arg(old).arg(new).output().unwrap();
        assert!(
            output.status.success(),
            "{label}: {}\n{}{}",
            new.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Some(())
}

/// Every commit: three guests that differ in everything.
fn short() {
    let _ = short_matrix();
}

fn short_matrix() -> Option<()> {
    inject_and_judge(&Guest::make("w10", "gpt")?, "qcow2", true)?;
    inject_and_judge(&Guest::make("w7", "mbr")?, "raw", false)?;
    inject_and_judge(&Guest::with_clusters("w11", "gpt", 64 << 10)?, "raw", false)
}

/// All of it, when asked for with `WINJECT_CAMPAIGN`.
fn whole() {
    if std::env::var_os("WINJECT_CAMPAIGN").is_none() {
        return;
    }
    for cluster in [512, 1 << 10, 2 << 10, 8 << 10, 64 << 10, 256 << 10, 2 << 20] {
        let Some(guest) = Guest::with_clusters("w10", "gpt", cluster) else { return };
        if inject_and_judge(&guest, "qcow2", true).is_none() {
            return;
        }
        eprintln!("clusters of {cluster}: sound");
    }
    for product in PRODUCTS {
        for geometry in ["gpt", "mbr"] {
            for format in ["raw", "qcow2"] {
                let Some(guest) = Guest::make(product, geometry) else { return };
                if inject_and_judge(&guest, format, true).is_none() {
                    return;
                }
                eprintln!("{product} {geometry} {format}: sound");
            }
        }
    }
}

tests![short, whole,];
