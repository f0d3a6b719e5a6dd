//! Unclean guests, and the commands that are tried on them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::inject::writable_fixture;
pub use crate::inject::{disk_sha256, fixture_drivers, folder, sha256, stderr, stdout, succeed, winject};
use crate::support::unclean::{Volume, copy_piece, open_log};
use crate::support::{self, judge};
use winject::internals::block::Format;

/// An image whose Windows volume has an open log.
pub struct Unclean {
    pub folder: tempfile::TempDir,
    pub image: PathBuf,
    pub volume: Volume,
}

/// The fixture with an open log; `None` after saying that the generator cannot run.
pub fn unclean(options: &str) -> Option<Unclean> {
    unclean_of(options, |_| ())
}

/// The same, of a fixture that `prepare` has changed.
pub fn unclean_of(options: &str, prepare: impl FnOnce(&Path)) -> Option<Unclean> {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    prepare(&image);
    let volume = open_log(&image, folder.path(), options)?;
    Some(Unclean { image, volume, folder })
}

impl Unclean {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The Windows volume of a raw image, as a file of its own.
    pub fn volume_in(&self, image: &Path) -> PathBuf {
        let out = self.path("volume.raw");
        let _ = std::fs::remove_file(&out);
        copy_piece(image, (self.volume.start, self.volume.length), &out, 0);
        out
    }

    /// Has the volume in a raw image [judged](judge_volume).
    pub fn judge(&self, image: &Path) {
        judge_volume(&self.volume_in(image));
    }
}

/// Demands of judges that share no code with winject that a volume is sound, and its log closed.
pub fn judge_volume(volume: &Path) {
    for script in ["ntfscheck.py", "logfile/logdump.py"] {
        support::run(Command::new("python3").arg(judge(script).unwrap()).arg(volume));
    }
}

/// `inject` into the image, with these options more.
pub fn inject(image: &Path, more: &[&str]) -> Command {
    let mut command = winject();
    command.arg("inject").arg(image).arg("--drivers").arg(fixture_drivers()).args(more);
    command
}

/// Runs a command that has to end with this code, and returns both of its outputs.
pub fn ends(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let text = stdout(&output) + &stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
    text
}
