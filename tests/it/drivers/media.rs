//! Driver media for tests: the judges' synthetic virtio-win trees, made once and kept below the target folder.

use crate::support;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// The synthetic virtio-win tree of a release (`0.1.285`); `None` after saying that it was skipped.
pub fn tree(release: &str) -> Option<PathBuf> {
    made(&format!("virtio-win-{release}"), |out| {
        support::corpus("inf")?;
        support::run(Command::new(support::judge("make-virtio-win.py")?).arg(out).args(["--release", release]));
        Some(())
    })
}

/// The same with real signatures and catalogues by an authority of the tests: what `--signature-policy require` accepts.
pub fn signed_tree(release: &str) -> Option<PathBuf> {
    let plain = tree(release)?;
    made(&format!("virtio-win-{release}-signed"), |out| {
        support::program("osslsigncode")?;
        support::run(Command::new("cp").arg("-r").arg(&plain).arg(out));
        sign(out, "sha256");
        Some(())
    })
}

/// Signs a tree of stand-in drivers in place. The caller has made sure of Python.
pub fn sign(tree: &Path, digest: &str) {
    let script = support::root().join("test-images/make/sign_media.py");
    support::run(Command::new("python3").arg("-B").arg(script).arg(tree).args(["--hash", digest]));
}

/// A folder of the target's test folder that `make` fills once, ever.
pub fn made(name: &str, make: impl FnOnce(&Path) -> Option<()>) -> Option<PathBuf> {
    static LOCK: OnceLock<Mutex<()>> = OnceLock::new();
    let _guard = LOCK.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("driver-media");
    let (out, done) = (base.join(name), base.join(format!("{name}.done")));
    if !done.exists() {
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir_all(&base).unwrap();
        make(&out)?;
        std::fs::write(&done, "").unwrap();
    }
    Some(out)
}

/// Copies some folders of a tree, so that a test can spoil them.
pub fn copy_some(tree: &Path, folders: &[&str], to: &Path) {
    for folder in folders {
        let target = to.join(folder);
        std::fs::create_dir_all(&target).unwrap();
        for entry in std::fs::read_dir(tree.join(folder)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
        }
    }
}
