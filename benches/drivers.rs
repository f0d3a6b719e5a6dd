//! Driver media: an image against its folder, and listing against 7-Zip's extraction. Prints ratios of the same run.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use winject::internals::drivers::list::list;
use winject::internals::drivers::{Arch, Definitions, GuestTarget, Policy, SignatureLevel, Sources, select};

const ROUNDS: usize = 5;
const LENIENT: Policy = Policy { signature: SignatureLevel::Present };

/// The fastest of several runs.
fn best(mut run: impl FnMut()) -> Duration {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .min()
        .unwrap()
}

fn ratio(what: &str, ours: Duration, theirs: Duration, limit: f64) {
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!("{what}: {ours:.1?} against {theirs:.1?}, ratio {ratio:.2} (at most {limit} is the aim)");
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A full virtio-win tree and its image, kept between runs.
fn media() -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = std::env::var_os("WINJECT_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    let maker = shared.join("judges/make-virtio-win.py");
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-media");
    let (tree, image) = (base.join("tree"), base.join("virtio-win.iso"));
    if !image.exists() {
        if !maker.exists() {
            println!("SKIPPED: the maker of synthetic driver media is not here");
            return None;
        }
        let _ = std::fs::remove_dir_all(&base);
        std::fs::create_dir_all(&base).unwrap();
        run(Command::new("python3").arg(maker).arg(&tree).arg("--iso").arg(&image));
    }
    Some((tree, image))
}

/// Chooses and reads every package, as an injection does.
fn take(source: &Path, guest: &GuestTarget) -> u64 {
    let selection = select(&Sources::open(&[source]).unwrap(), guest, &Definitions::builtin(), &LENIENT).unwrap();
    selection.packages.iter().flat_map(|p| &p.files).map(|f| f.read().unwrap().len() as u64).sum()
}

fn inject(source: &Path, folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = folder.join("out.qcow2");
    let _ = std::fs::remove_file(&out);
    let mut command = Command::new(env!("CARGO_BIN_EXE_winject"));
    command.arg("inject").arg(root.join("test-images/win10.qcow2")).arg("--drivers").arg(source);
    run(command.args(["--signature-policy", "warn", "--quiet", "--overlay"]).arg(&out));
}

fn main() {
    let Some((tree, image)) = media() else { return };
    let guest = GuestTarget::of_build(Arch::Amd64, 19045, false);
    println!("{} bytes are taken for {guest}", take(&tree, &guest));
    let (from_image, from_folder) = (
        best(|| {
            take(&image, &guest);
        }),
        best(|| {
            take(&tree, &guest);
        }),
    );
    ratio("choose and read, image against folder", from_image, from_folder, 1.3);

    let temp = tempfile::tempdir().unwrap();
    let (from_image, from_folder) = (best(|| inject(&image, temp.path())), best(|| inject(&tree, temp.path())));
    ratio("inject, image against folder", from_image, from_folder, 1.3);

    let Some(seven) = ["7zz", "7z"].into_iter().find(|p| Command::new(p).output().is_ok()) else {
        println!("SKIPPED: 7-Zip is not installed");
        return;
    };
    let listing = best(|| {
        let listing = list(&Sources::open(&[&image]).unwrap(), None, &Definitions::builtin(), &LENIENT).unwrap();
        assert!(listing.packages.len() > 100);
    });
    let extracting = best(|| {
        let out = tempfile::tempdir().unwrap();
        run(Command::new(seven).args(["x", "-y"]).arg(format!("-o{}", out.path().display())).arg(&image));
    });
    ratio("list against 7-Zip's extraction", listing, extracting, 0.25);
}
