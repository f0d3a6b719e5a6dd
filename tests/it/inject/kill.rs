//! The process is killed while it writes in place: the image is what it was, or completely changed, after the next run
//! has looked at it; never between.

use super::{
    copy, disk_sha256, expected_fixture, fixture_drivers, folder, names, stdout, succeed, winject, writable_fixture,
};
use crate::support;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use winject::internals::block::{Format, PathPolicy, commit};

/// How long a whole run takes here.
fn duration_of_a_run(folder: &Path, pristine: &Path) -> Duration {
    let image = folder.join("timing");
    copy(pristine, &image);
    let begin = Instant::now();
    succeed(winject().arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--in-place"));
    let duration = begin.elapsed();
    std::fs::remove_file(&image).unwrap();
    std::fs::remove_file(commit::undo_path(&image)).unwrap();
    duration
}

fn kill_at_random_moments(format: Format) {
    let (folder, store) = (folder(), folder());
    let pristine = writable_fixture(store.path(), format);
    let old = disk_sha256(&pristine);
    let whole = duration_of_a_run(folder.path(), &pristine);
    let mut seen = [0u32; 3];
    let rounds = support::rounds(8, 24);
    for round in 0..rounds {
        let image = folder.path().join("win10.img");
        copy(&pristine, &image);
        let keeps = round % 3 != 2;
        let undo: &[&str] = if keeps { &[] } else { &["--no-undo"] };
        let mut child = winject()
            .arg("inject")
            .arg(&image)
            .arg("--drivers")
            .arg(fixture_drivers())
            .arg("--in-place")
            .args(undo)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Writing is at the end of a run: most moments are taken from there.
        let share = 0.4 + 0.65 * (round as f64 + 0.5) / rounds as f64;
        std::thread::sleep(whole.mul_f64(share));
        child.kill().unwrap();
        child.wait().unwrap();
        let interrupted = commit::journal_path(&image).exists();
        if round % 2 == 0 {
            // what recovery alone makes of it
            commit::recover(&image, &PathPolicy::default()).unwrap();
            let now = disk_sha256(&image);
            assert!(now == old || now == expected_fixture(), "neither old nor new after {share:.2} of a run");
            seen[usize::from(interrupted) + usize::from(interrupted && now == old)] += 1;
        }
        let text = stdout(&succeed(
            winject().arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--in-place").args(undo),
        ));
        assert!(text.contains("Done:") || text.contains("Unchanged:"), "{text}");
        assert_eq!(disk_sha256(&image), expected_fixture());
        let left: &[&str] = if keeps { &["win10.img", "win10.img.winject-undo"] } else { &["win10.img"] };
        assert_eq!(names(folder.path()), left, "no file is left over");
        if let (Format::Qcow2, Some(qemu_img)) = (format, support::program("qemu-img")) {
            support::run(std::process::Command::new(qemu_img).arg("check").arg(&image));
        }
        if keeps {
            succeed(winject().arg("undo").arg(&image));
            assert_eq!(disk_sha256(&image), old);
        }
        std::fs::remove_file(&image).unwrap();
    }
    eprintln!(
        "{format}: {rounds} kills; without journal {}, with journal {} (rolled back {})",
        seen[0],
        seen[1] + seen[2],
        seen[2]
    );
}

fn raw() {
    kill_at_random_moments(Format::Raw);
}

fn qcow2() {
    kill_at_random_moments(Format::Qcow2);
}

/// The kernel would store a part of a sector, which no journal knows, and kill the process.
fn a_limit_on_the_size_of_files_tears_no_sector() {
    let Some(prlimit) = support::program("prlimit") else { return };
    let (folder, store) = (folder(), folder());
    let pristine = writable_fixture(store.path(), Format::Raw);
    let old = disk_sha256(&pristine);
    let length = std::fs::metadata(&pristine).unwrap().len();
    // Inside what the run writes, at bytes that are no multiples of a sector.
    for limit in [length / 12 + 1, length / 6 + 4097, length / 5 + 77] {
        let image = folder.path().join("win10.img");
        copy(&pristine, &image);
        let run = winject();
        let mut limited = std::process::Command::new(&prlimit);
        limited.arg(format!("--fsize={limit}")).arg(run.get_program()).arg("inject").arg(&image);
        let output = limited.arg("--drivers").arg(fixture_drivers()).arg("--in-place").output().unwrap();
        assert!(matches!(output.status.code(), Some(7 | 9)), "{limit}: {output:?}");
        commit::recover(&image, &PathPolicy::default()).unwrap();
        assert_eq!(disk_sha256(&image), old, "{limit}");
        assert_eq!(names(folder.path()), ["win10.img"]);
        std::fs::remove_file(&image).unwrap();
    }
}

tests![raw, qcow2, a_limit_on_the_size_of_files_tears_no_sector,];
