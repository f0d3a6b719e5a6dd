//! `winject recover`: a run that was killed is completed or rolled back without drivers, and every message about it names
//! the command that does so.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::answer;
use crate::inject::{
    copy, disk_sha256, fixture, fixture_drivers, folder, names, sha256, stderr, stdout, succeed, winject,
};
use crate::support;
use winject::internals::block::{Format, commit};

/// An image that is edited in place, with its files.
pub(super) struct Case {
    folder: tempfile::TempDir,
    /// The image first.
    files: Vec<&'static str>,
    /// Options that the edit needs.
    allow: Vec<&'static str>,
    pristine: tempfile::TempDir,
    /// Hashes of the files before and after the edit.
    pub(super) old: Vec<String>,
    pub(super) new: Vec<String>,
    /// Hash of the guest's disk after the edit.
    new_disk: String,
}

impl Case {
    /// `make` makes the files in a folder.
    fn new(files: &[&'static str], allow: &[&'static str], make: impl FnOnce(&Path)) -> Self {
        let (folder, pristine) = (folder(), folder());
        make(pristine.path());
        let (files, allow) = (files.to_vec(), allow.to_vec());
        let mut case =
            Self { folder, files, allow, pristine, old: Vec::new(), new: Vec::new(), new_disk: String::new() };
        case.reset();
        case.old = case.hashes();
        succeed(&mut case.edit());
        case.new = case.hashes();
        case.new_disk = case.disk();
        assert_ne!(case.old, case.new);
        case
    }

    pub(super) fn raw(name: &'static str) -> Self {
        Self::new(&[name], &[], |folder| {
            let made = crate::inject::writable_fixture(folder, Format::Raw);
            std::fs::rename(made, folder.join(name)).unwrap();
        })
    }

    pub(super) fn qcow2() -> Self {
        Self::new(&["win10.qcow2"], &[], |folder| drop(crate::inject::writable_fixture(folder, Format::Qcow2)))
    }

    /// A qcow2 with an external data file; `None` without `qemu-img`.
    fn data_file() -> Option<Self> {
        let qemu_img = support::program("qemu-img")?;
        Some(Self::new(&["i.qcow2", "data.bin"], &["--allow-path", "data.bin"], |folder| {
            let convert = ["convert", "-O", "qcow2", "-o", "data_file=data.bin"];
            support::run(Command::new(qemu_img).current_dir(folder).args(convert).arg(fixture()).arg("i.qcow2"));
        }))
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes the files what they were.
    pub(super) fn reset(&self) {
        for name in names(self.path()) {
            std::fs::remove_file(self.path().join(name)).unwrap();
        }
        for file in &self.files {
            copy(&self.pristine.path().join(file), &self.path().join(file));
        }
    }

    /// The names in the folder, but for undo records.
    pub(super) fn left(&self) -> Vec<String> {
        left(self.path())
    }

    pub(super) fn hashes(&self) -> Vec<String> {
        self.files.iter().map(|file| sha256(&self.path().join(file))).collect()
    }

    /// Hash of the guest's disk.
    fn disk(&self) -> String {
        disk_sha256(&self.path().join(self.files[0]))
    }

    /// The image as an argument that is not taken for an option.
    pub(super) fn image(&self) -> String {
        format!("./{}", self.files[0])
    }

    pub(super) fn winject(&self, arguments: &[&str]) -> Output {
        answer(self.path(), arguments)
    }

    /// The edit in place: quick, and with all phases of a long one.
    pub(super) fn edit(&self) -> Command {
        let mut command = winject();
        let image = self.image();
        let set = ["reg", "set", &image, r"HKLM\SOFTWARE\winject", "--value", "a", "--data", "b", "--in-place"];
        command.current_dir(self.path()).args(set).arg("--skip-volume-check").args(&self.allow);
        command
    }

    /// Runs a command on the case under strace with these options; a shell in the background may have signals ignored.
    pub(super) fn traced(&self, traced: &Command, strace: &Path, options: &[&str]) -> Output {
        let mut command = Command::new("env");
        command.arg("--default-signal").arg(strace).args(["-f", "-qq"]).args(options);
        command.arg(traced.get_program()).args(traced.get_args()).current_dir(self.path());
        command.env("SOURCE_DATE_EPOCH", "1700000000").env_remove("WINJECT_LOG").output().unwrap()
    }

    /// Runs a command on the case with this signal at the `n`-th call of a system call.
    pub(super) fn signalled(&self, command: &Command, strace: &Path, signal: &str, call: &str, n: usize) -> Output {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal={signal}:when={n}"));
        self.traced(command, strace, &["-o", "/dev/null", "-e", &trace, "-e", &inject])
    }

    /// Runs the edit and kills it at its `n`-th write; whether there was one.
    fn kill(&self, strace: &Path, n: usize) -> bool {
        !self.signalled(&self.edit(), strace, "KILL", "pwrite64", n).status.success()
    }

    pub(super) fn journal(&self) -> PathBuf {
        commit::journal_path(&self.path().join(self.files[0]))
    }

    /// Kills the edit at its first write to the image; `None` without `strace`.
    pub(super) fn interrupt(&self) -> Option<()> {
        let strace = support::program("strace")?;
        for n in 1..40 {
            self.reset();
            assert!(self.kill(&strace, n), "the run was over before it wrote to the image");
            if self.journal().exists() && self.hashes() != self.old {
                return Some(());
            }
        }
        panic!("never interrupted while writing to the image");
    }
}

/// The names in a folder, but for undo records.
fn left(folder: &Path) -> Vec<String> {
    names(folder).into_iter().filter(|name| !name.ends_with(".winject-undo")).collect()
}

/// Kills the edit at each of its writes, and judges what `recover` makes and says of it.
fn killed_at_every_write(case: &Case) {
    let Some(strace) = support::program("strace") else { return };
    let recover = ["recover", &case.image()];
    let recover: Vec<&str> = recover.into_iter().chain(case.allow.iter().copied()).collect();
    let mut seen = std::collections::BTreeSet::new();
    for n in 1.. {
        case.reset();
        if !case.kill(&strace, n) {
            assert!(n > 4, "only {n} writes");
            break;
        }
        let is_pending = case.journal().exists();
        let before = case.hashes();
        let text = stdout(&succeed(winject().current_dir(case.path()).args(&recover)));
        let after = case.hashes();
        match text.split([':', ';']).next().unwrap() {
            "Nothing to recover" => {
                assert!(before == case.old && after == case.old, "write {n}: {text}");
            }
            "Recovered" if text.contains("holds its changes") => {
                // Clusters that the edit freed may hold what they held.
                assert!(is_pending && case.disk() == case.new_disk, "write {n}: {text}");
            }
            "Recovered" => assert!(is_pending && after == case.old, "write {n}: {text}"),
            _ => panic!("{text}"),
        }
        seen.insert(text.split(':').next().unwrap().to_owned());
        // A marker that comes before its journal does not count, and the next edit removes it.
        let mut left = case.left();
        left.retain(|name| before != case.old || name != "data.bin.winject-journal");
        assert_eq!(left.len(), case.files.len(), "write {n}: {left:?}");
        let last = case.files.last().unwrap();
        assert_eq!(case.winject(&["image", "info", last, "--format", "raw"]).status.code(), Some(0));
        assert!(stdout(&case.winject(&recover)).starts_with("Nothing to recover"));
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
}

fn raw_at_every_write() {
    killed_at_every_write(&Case::raw("win10.raw"));
}

fn qcow2_at_every_write() {
    killed_at_every_write(&Case::qcow2());
}

fn data_file_at_every_write() {
    if let Some(case) = Case::data_file() {
        killed_at_every_write(&case);
    }
}

/// The hint, from the command on.
fn hinted(output: &Output) -> String {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(9), "{text}");
    let (_, hint) = text.split_once("winject recover ").unwrap_or_else(|| panic!("no command: {text}"));
    format!("winject recover {}", hint.lines().next().unwrap())
}

/// What a user does with a hint.
pub(super) fn paste(folder: &Path, line: &str) -> Output {
    pasted(folder, line).output().unwrap()
}

/// The same, to be run.
fn pasted(folder: &Path, line: &str) -> Command {
    let program = assert_cmd::cargo::cargo_bin!("winject");
    let search = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.current_dir(folder).args(["-c", line]).env("PATH", search);
    command
}

fn every_other_command_ends_with_9_and_touches_nothing() {
    let case = Case::raw("win10.raw");
    if case.interrupt().is_none() {
        return;
    }
    let (image, drivers, source) = (case.image(), fixture_drivers(), fixture());
    let (drivers, source) = (drivers.to_str().unwrap(), source.to_str().unwrap());
    let (before, files) = (case.hashes(), names(case.path()));
    let journal = std::fs::read(case.journal()).unwrap();
    let set = ["reg", "set", &image, r"HKLM\SOFTWARE\x", "--value", "a", "--data", "b", "--overlay", "o.qcow2"];
    let commands: &[&[&str]] = &[
        &["inspect", &image],
        &["check", &image],
        &["fsck", &image],
        &["drivers", "list", drivers, "--for", &image],
        &["convert", &image, "o.qcow2"],
        &["convert", "--inject", drivers, &image, "o.qcow2"],
        &["image", "info", &image],
        &["image", "map", &image],
        &["reg", "query", &image, r"HKLM\SYSTEM\Select"],
        &["reg", "export", &image, r"HKLM\SYSTEM\Select"],
        &["reg", "check", &image],
        &set,
        &["inject", &image, "--drivers", drivers, "--dry-run"],
        &["inject", &image, "--drivers", drivers, "--overlay", "o.qcow2"],
        &["convert", "--overwrite", source, &image],
    ];
    for command in commands {
        let output = case.winject(command);
        assert_eq!(hinted(&output), format!("winject recover {image}"), "{command:?}");
        assert_eq!(case.hashes(), before, "{command:?}");
        assert_eq!(names(case.path()), files, "{command:?}");
        assert!(std::fs::read(case.journal()).unwrap() == journal, "{command:?}");
    }
    // What is asked to edit in place recovers by itself.
    succeed(&mut case.edit());
    assert_eq!(case.hashes(), case.new);
}

fn a_hint_works_when_it_is_pasted() {
    for name in ["-it's a $HOME `disk`.raw", "plain.raw"] {
        let case = Case::raw(name);
        if case.interrupt().is_none() {
            return;
        }
        let line = hinted(&case.winject(&["inspect", "--", name]));
        let output = paste(case.path(), &line);
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        assert_eq!(case.hashes(), case.old);
        assert_eq!(case.left(), [name]);
    }
}

fn an_image_behind_a_link_is_recovered_under_both_names() {
    let case = Case::raw("win10.raw");
    let link = folder();
    std::os::unix::fs::symlink(case.path().join("win10.raw"), link.path().join("current.img")).unwrap();
    for recovered_by_link in [true, false] {
        if case.interrupt().is_none() {
            return;
        }
        let output = winject().current_dir(link.path()).args(["inspect", "current.img"]).output().unwrap();
        let line = hinted(&output);
        assert_eq!(line, "winject recover current.img");
        let done = if recovered_by_link { paste(link.path(), &line) } else { case.winject(&["recover", "win10.raw"]) };
        assert!(stdout(&done).starts_with("Recovered"), "{}", stderr(&done));
        assert_eq!(case.hashes(), case.old);
        assert_eq!((case.left().len(), names(link.path()).len()), (1, 1));
    }
}

/// The data file is written only if it is named. The refusal names the command that does so, also after a move.
fn a_data_file_is_recovered_when_it_is_named() {
    let Some(case) = Case::data_file() else { return };
    if case.interrupt().is_none() {
        return;
    }
    let half = case.hashes();
    let refused = case.winject(&["recover", "i.qcow2"]);
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    assert_eq!(case.hashes(), half);
    // Whoever has the data file in front of him is led to the image.
    let line = hinted(&case.winject(&["inspect", "data.bin"]));
    assert!(line.contains("i.qcow2 --allow-path data.bin"), "{line}");
    assert_eq!(case.winject(&["recover", "data.bin"]).status.code(), Some(9));
    // The folder is seen at another path.
    let elsewhere = folder();
    let moved = elsewhere.path().join("moved");
    std::fs::rename(case.path(), &moved).unwrap();
    let refused = winject().current_dir(&moved).args(["recover", "i.qcow2"]).output().unwrap();
    let text = stderr(&refused);
    let (_, line) = text.split_once("own, allow it by name: ").unwrap_or_else(|| panic!("{text}"));
    let output = paste(&moved, line.lines().next().unwrap());
    assert!(stdout(&output).starts_with("Recovered"), "{}", stderr(&output));
    assert_eq!(case.files.iter().map(|file| sha256(&moved.join(file))).collect::<Vec<_>>(), case.old);
    assert_eq!(left(&moved), ["data.bin", "i.qcow2"]);
    std::fs::create_dir(case.path()).unwrap();
}

/// A journal that does not count is not obeyed, and no message says to.
fn a_journal_of_others_is_not_offered_for_recovery() {
    let case = Case::raw("win10.raw");
    if case.interrupt().is_none() {
        return;
    }
    let half = case.hashes();
    let image = case.image();
    std::fs::set_permissions(case.journal(), std::fs::Permissions::from_mode(0o666)).unwrap();
    for command in [&["inspect", &image][..], &["recover", &image]] {
        let output = case.winject(command);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(9), "{text}");
        assert!(text.contains("find out who made that file") && !text.contains("winject recover"), "{text}");
    }
    std::fs::set_permissions(case.journal(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut damaged = std::fs::read(case.journal()).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(case.journal(), &damaged).unwrap();
    let output = case.winject(&["recover", &image]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(9), "{text}");
    assert!(text.contains("find out who made") && !text.contains("winject recover"), "{text}");
    // The file to be removed is named as it is typed; layer and path are said once.
    assert!(text.contains("win10.raw.winject-journal; if"), "{text}");
    assert_eq!((text.matches("block: ").count(), text.matches("win10.raw: ").count()), (1, 1), "{text}");
    assert_eq!(case.hashes(), half);
    assert!(std::fs::read(case.journal()).unwrap() == damaged);
}

/// Where the image of a data file was moved away, the message says so, and its command works when the image is back.
fn a_marker_whose_image_is_gone_says_which() {
    let Some(case) = Case::data_file() else { return };
    if case.interrupt().is_none() {
        return;
    }
    let (image, away) = (case.path().join("i.qcow2"), case.path().join("away.qcow2"));
    std::fs::rename(&image, &away).unwrap();
    let output = case.winject(&["inspect", "data.bin"]);
    let text = stderr(&output);
    let line = hinted(&output);
    assert!(text.contains("i.qcow2, which is not there") && text.contains("rm "), "{text}");
    std::fs::rename(&away, &image).unwrap();
    let line = line.split_once(';').unwrap().0;
    let output = paste(case.path(), line);
    assert!(stdout(&output).starts_with("Recovered"), "{line}: {}", stderr(&output));
    assert_eq!(case.hashes(), case.old);
}

/// The other way out: the file is known to be good, and only its mark is removed.
fn a_mark_without_an_image_is_removed_by_hand() {
    let Some(case) = Case::data_file() else { return };
    if case.interrupt().is_none() {
        return;
    }
    std::fs::remove_file(case.path().join("i.qcow2")).unwrap();
    let text = stderr(&case.winject(&["inspect", "data.bin"]));
    let (_, line) = text.split_once("remove the mark: ").unwrap_or_else(|| panic!("{text}"));
    assert!(paste(case.path(), line.lines().next().unwrap()).status.success(), "{line}");
    let output = case.winject(&["image", "info", "data.bin", "--format", "raw"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

fn what_is_not_there_has_nothing_to_recover() {
    let folder = folder();
    std::fs::write(folder.path().join("disk.raw"), vec![0; 4096]).unwrap();
    std::fs::write(folder.path().join("other.raw.winject-journal"), vec![0; 4096]).unwrap();
    for (name, code, text) in [
        ("disk.raw", 0, "Nothing to recover"),
        ("other.raw.winject-journal", 2, "other.raw"),
        ("missing.raw", 7, "check the path"),
        (".", 4, "not a regular file"),
    ] {
        let output = winject().current_dir(folder.path()).args(["recover", name]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {}", stderr(&output));
        assert!(format!("{}{}", stdout(&output), stderr(&output)).contains(text), "{name}: {}", stderr(&output));
    }
    assert_eq!(names(folder.path()), ["disk.raw", "other.raw.winject-journal"]);
}

tests![
    raw_at_every_write,
    qcow2_at_every_write,
    data_file_at_every_write,
    every_other_command_ends_with_9_and_touches_nothing,
    a_hint_works_when_it_is_pasted,
    an_image_behind_a_link_is_recovered_under_both_names,
    a_data_file_is_recovered_when_it_is_named,
    a_journal_of_others_is_not_offered_for_recovery,
    a_marker_whose_image_is_gone_says_which,
    a_mark_without_an_image_is_removed_by_hand,
    what_is_not_there_has_nothing_to_recover,
];
