//! Edits in place over NBD, judged by what the server's file holds afterwards.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::Server;
use super::mistaken::half_written;
use crate::formats::qemu_img;
use crate::inject::{
    copy, disk_sha256, expected_fixture, fixture_drivers, folder, names, stderr, stdout, winject, writable_fixture,
};
use crate::support;
use winject::internals::block::Format;

/// A folder with a disk to serve, and what the disk holds.
pub struct Bench {
    folder: tempfile::TempDir,
    disk: PathBuf,
    pub old: String,
}

impl Bench {
    /// `None` where a server is missing.
    pub fn new() -> Option<Self> {
        ["nbdkit", "qemu-nbd", "qemu-img"].iter().all(|name| support::program(name).is_some()).then(|| {
            let folder = folder();
            let disk = writable_fixture(folder.path(), Format::Raw);
            let old = disk_sha256(&disk);
            Self { folder, disk, old }
        })
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A fresh copy of the disk.
    pub fn fresh(&self, name: &str) -> String {
        let path = self.at(name);
        let _ = std::fs::remove_file(&path);
        copy(&self.disk, &path);
        path.to_str().unwrap().to_owned()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = winject();
        command.args(arguments).env("WINJECT_JOURNALS", self.at("journals")).current_dir(self.folder.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn inject(&self, uri: &str) -> Command {
        let mut command = self.command(&["inject", uri, "--in-place", "--drivers"]);
        command.arg(fixture_drivers());
        command
    }

    /// The files in the folder for journals, but for the journals that a recovery is done with.
    pub fn journals(&self) -> Vec<String> {
        let mut journals = if self.at("journals").is_dir() { names(&self.at("journals")) } else { Vec::new() };
        journals.retain(|name| !name.contains("-recovered-"));
        journals
    }

    /// How many journals of recovered edits are kept.
    pub fn kept(&self) -> usize {
        let is_kept = |name: &String| name.contains("-recovered-") && name.ends_with(".winject-journal");
        names(&self.at("journals")).iter().filter(|name| is_kept(name)).count()
    }

    pub fn is_pending(&self) -> bool {
        self.journals().iter().any(|name| name.ends_with(".winject-journal"))
    }
}

pub fn ok(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}: {}{}", stdout(output), stderr(output));
}

/// Whatever the server, its unit and its format: afterwards the disk is what an edit of the file makes of it.
fn an_edit_is_that_of_the_file() {
    let Some(bench) = Bench::new() else { return };
    for options in [
        &["file"][..],
        &["--no-sr", "--filter=nozero", "file"],
        &[
            "--filter=blocksize-policy",
            "file",
            "blocksize-minimum=4096",
            "blocksize-preferred=65536",
            "blocksize-maximum=64k",
            "blocksize-error-policy=error",
        ],
    ] {
        let path = bench.fresh("served.raw");
        let server = Server::nbdkit(&[options, &[&path]].concat());
        let done = bench.inject(&server.uri()).output().unwrap();
        ok(&done, &format!("{options:?}"));
        assert!(stderr(&done).contains("up to the server"), "{}", stderr(&done));
        drop(server);
        assert_eq!(disk_sha256(Path::new(&path)), expected_fixture(), "{options:?}");
        assert_eq!(bench.journals(), [""; 0], "{options:?}");
    }
}

/// Formats that winject does not write itself are written by qemu-nbd.
fn a_server_writes_the_formats_that_it_knows() {
    let Some(bench) = Bench::new() else { return };
    for format in ["raw", "qcow2", "vmdk"] {
        let image = bench.at(&format!("served.{format}")).to_str().unwrap().to_owned();
        qemu_img(&["convert", "-f", "raw", "-O", format, bench.disk.to_str().unwrap(), &image]);
        // One client at a time, as qemu-nbd has it by default.
        let server = Server::qemu_nbd_for_one(&["-f", format, &image]);
        ok(&bench.inject(&server.uri()).output().unwrap(), format);
        drop(server);
        assert_eq!(disk_sha256(Path::new(&image)), expected_fixture(), "{format}");
        assert_eq!(bench.journals(), [""; 0], "{format}");
        if format == "qcow2" {
            qemu_img(&["check", "-q", "-f", format, &image]);
        }
    }
}

/// The commands that edit in place, one after the other; the end is the beginning again where that is what they do.
fn every_command_that_edits_does_so_over_nbd() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let server = Server::nbdkit(&["file", &path]);
    let uri = server.uri();
    let key = r"HKLM\SOFTWARE\WinjectTest";
    ok(
        &bench.run(&["reg", "set", &uri, key, "--value", "Value", "--type", "dword", "--data", "7", "--in-place"]),
        "reg set",
    );
    let query = bench.run(&["reg", "query", &uri, key]);
    assert!(stdout(&query).contains("Value"), "{}{}", stdout(&query), stderr(&query));
    ok(&bench.inject(&uri).output().unwrap(), "inject");
    ok(&bench.run(&["remove", &uri, "--in-place"]), "remove");
    let drivers = fixture_drivers();
    ok(&bench.run(&["plan", &uri, "--drivers", drivers.to_str().unwrap(), "-o", "plan.json"]), "plan");
    let again = bench.inject(&uri).output().unwrap();
    ok(&again, "inject again");
    let unchanged = bench.inject(&uri).output().unwrap();
    assert!(stdout(&unchanged).contains("Unchanged:"), "{}", stdout(&unchanged));
    let check = bench.run(&["fsck", &uri]);
    ok(&check, "fsck");
    assert_eq!(bench.journals(), [""; 0]);
}

/// What must not be written to is refused by name, and is as it was.
fn refusals_say_what_is_missing() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let refused = |server: &Server, code: &str| {
        let output = bench.inject(&server.uri()).arg("--json").output().unwrap();
        let text = stdout(&output) + &stderr(&output);
        assert!(!output.status.success() && text.contains(&format!("\"{code}\"")), "{code}: {text}");
        assert_eq!(bench.journals(), [""; 0], "{code}");
        assert_eq!(disk_sha256(Path::new(&path)), bench.old, "{code}");
    };
    refused(&Server::nbdkit(&["-r", "file", &path]), "nbd-read-only");
    refused(&Server::nbdkit_without_flush(&path), "nbd-no-flush");
    // A container that has no room in its export.
    let qcow2 = writable_fixture(bench.folder.path(), Format::Qcow2);
    let before = disk_sha256(&qcow2);
    refused(&Server::nbdkit(&["file", qcow2.to_str().unwrap()]), "not-editable-in-place");
    assert_eq!(disk_sha256(&qcow2), before);
    let server = Server::nbdkit(&["file", &path]);
    let no_place = bench.inject(&server.uri()).env("WINJECT_JOURNALS", "/dev/null/x").arg("--json").output().unwrap();
    assert!((stdout(&no_place) + &stderr(&no_place)).contains("\"nbd-journal\""), "{}", stderr(&no_place));
    assert_eq!(disk_sha256(Path::new(&path)), bench.old);
}

/// A qcow2 file in an export with room behind it is edited like a file.
fn a_container_with_room_is_edited_inside_its_export() {
    let Some(bench) = Bench::new() else { return };
    let qcow2 = writable_fixture(bench.folder.path(), Format::Qcow2);
    let room = std::fs::metadata(&qcow2).unwrap().len() + (64 << 20);
    std::fs::File::options().write(true).open(&qcow2).unwrap().set_len(room).unwrap();
    let server = Server::nbdkit(&["file", qcow2.to_str().unwrap()]);
    ok(&bench.inject(&server.uri()).output().unwrap(), "qcow2 in an export");
    drop(server);
    assert_eq!(disk_sha256(&qcow2), expected_fixture());
    qemu_img(&["check", "-q", "-f", "qcow2", qcow2.to_str().unwrap()]);
    assert_eq!(bench.journals(), [""; 0]);
}

/// The server sees a flush after the last write, and the places are read back after that.
fn what_was_written_is_flushed_and_read_back() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let log = bench.at("log");
    let server = Server::nbdkit(&["--filter=log", "file", &path, &format!("logfile={}", log.display())]);
    ok(&bench.inject(&server.uri()).output().unwrap(), "inject");
    drop(server);
    let log = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.ends_with(" ...")).collect();
    let last =
        |what: &str| lines.iter().rposition(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}:\n{log}"));
    assert!(last(" Write ") < last(" Flush ") && last(" Flush ") < last(" Read "), "{log}");
    let places = |lines: &[&str], what: &str| -> Vec<String> {
        let place =
            |line: &str| line.split("offset=").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned);
        lines.iter().filter(|line| line.contains(what)).filter_map(|line| place(line)).collect()
    };
    let (written, read) = (places(&lines, " Write "), places(&lines[last(" Flush ")..], " Read "));
    assert!(!written.is_empty() && written.iter().all(|place| read.contains(place)), "{written:?} {read:?}");
}

/// A server that confirms writes and forgets them is found out.
fn a_server_that_forgets_what_it_confirmed_is_found_out() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let size = std::fs::metadata(&path).unwrap().len();
    let liar = [
        "eval".to_owned(),
        format!("get_size=echo {size}"),
        format!("pread=dd if={path} iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none"),
        "pwrite=cat >/dev/null".to_owned(),
        "can_flush=exit 0".to_owned(),
        "flush=exit 0".to_owned(),
    ];
    let server = Server::nbdkit(&liar.iter().map(String::as_str).collect::<Vec<_>>());
    let output = bench.inject(&server.uri()).output().unwrap();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("does not hold what was written"), "{}", stderr(&output));
    // Nothing was written, so that the roll-back finds the old content.
    assert_eq!(bench.journals(), [""; 0]);
    assert_eq!(disk_sha256(Path::new(&path)), bench.old);
}

/// A write that the server refuses: what was written before it is taken back, at once or by a recovery.
fn a_refused_write_is_rolled_back() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let socket = bench.at("socket");
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    for rate in ["100%", "40%"] {
        let errors = format!("error-pwrite-rate={rate}");
        let server = Server::nbdkit_at(&socket, &["--filter=error", "file", &path, "error-pwrite=EIO", &errors]);
        let output = bench.inject(&uri).output().unwrap();
        assert!(!output.status.success(), "{rate}");
        assert!(stderr(&output).contains("the NBD server reports: input/output error"), "{}", stderr(&output));
        if bench.is_pending() {
            assert!(stderr(&output).contains(&format!("winject recover '{uri}'")), "{}", stderr(&output));
        }
        drop(server);
        let server = Server::nbdkit_at(&socket, &["file", &path]);
        ok(&bench.run(&["recover", &uri]), "recover");
        drop(server);
        assert_eq!(disk_sha256(Path::new(&path)), bench.old, "{rate}");
        assert_eq!(bench.journals(), [""; 0]);
    }
}

/// Waits until an edit has a journal, and a moment longer; `false` if it ended before.
pub fn wait_for_journal(bench: &Bench, child: &mut std::process::Child, longer: Duration) -> bool {
    let begun = Instant::now();
    while !bench.is_pending() {
        assert!(begun.elapsed() < Duration::from_secs(300), "no journal");
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(longer);
    true
}

/// Slow enough that most moments of a run are among its writes.
pub const SLOW: [&str; 3] = ["--filter=delay", "file", "delay-write=15ms"];

/// The client is killed: pending until it is recovered, then old or new as a whole.
fn a_killed_edit_is_recovered() {
    let Some(bench) = Bench::new() else { return };
    // Old, new and half written before the recovery; old and new after it.
    let (mut before, mut after) = ([0; 3], [0; 2]);
    let rounds = support::rounds(6, 20);
    for round in 0..rounds {
        let path = bench.fresh("served.raw");
        let server = Server::nbdkit(&[&SLOW[..], &[&path]].concat());
        let uri = server.uri();
        let mut child = bench.inject(&uri).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_journal(&bench, &mut child, Duration::from_millis(round * 600 / rounds));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = disk_sha256(Path::new(&path));
        before[if found == bench.old { 0 } else { 1 + usize::from(found != expected_fixture()) }] += 1;
        if bench.is_pending() {
            let dry = bench.run(&["recover", "--dry-run", &uri]);
            let is_whole = stdout(&dry).contains("Can be recovered");
            for arguments in
                [&["inspect", &uri][..], &["reg", "query", &uri, r"HKLM\SYSTEM\Select"], &["ls", &uri, "/"]]
            {
                let refused = bench.run(arguments);
                let is_told = stderr(&refused).contains(&format!("winject recover '{uri}'"));
                assert_eq!(is_told, is_whole, "{arguments:?}: {}", stderr(&refused));
            }
        }
        let recovered = bench.run(&["recover", &uri]);
        ok(&recovered, "recover");
        drop(server);
        let now = disk_sha256(Path::new(&path));
        assert!(now == bench.old || now == expected_fixture(), "round {round}: neither old nor new");
        after[usize::from(now != bench.old)] += 1;
        assert!(!bench.is_pending());
    }
    eprintln!("{rounds} kills; old, new, half written: {before:?}; after the recovery old, new: {after:?}");
}

/// The server is killed: nothing is sent again, the message has the command, and with the server back it works.
fn an_edit_whose_server_died_is_recovered() {
    let Some(bench) = Bench::new() else { return };
    let socket = bench.at("socket");
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    for round in 0..support::rounds(3, 10) {
        let path = bench.fresh("served.raw");
        let server = Server::nbdkit_at(&socket, &[&SLOW[..], &[&path]].concat());
        let mut child = bench.inject(&uri).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let is_writing = wait_for_journal(&bench, &mut child, Duration::from_millis(20 + round * 60));
        drop(server);
        let output = child.wait_with_output().unwrap();
        if is_writing && !output.status.success() && bench.is_pending() {
            let text = stderr(&output);
            assert!(text.contains(&format!("winject recover '{uri}'")), "{text}");
            assert!(text.contains("connection to the NBD server lost"), "{text}");
        }
        let gone = bench.run(&["recover", &uri]);
        assert!(!gone.status.success(), "a server that is not there");
        let server = Server::nbdkit_at(&socket, &["file", &path]);
        ok(&bench.run(&["recover", &uri]), "recover");
        drop(server);
        let now = disk_sha256(Path::new(&path));
        assert!(now == bench.old || now == expected_fixture(), "round {round}: neither old nor new");
        assert!(!bench.is_pending());
    }
}

/// The signal of a terminal: rolled back or completed, no journal stays.
fn a_terminated_edit_takes_itself_back() {
    let Some(bench) = Bench::new() else { return };
    for round in 0..support::rounds(2, 8) {
        let path = bench.fresh("served.raw");
        let server = Server::nbdkit(&[&SLOW[..], &[&path]].concat());
        let mut child = bench.inject(&server.uri()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_journal(&bench, &mut child, Duration::from_millis(10 + round * 40));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
        drop(server);
        assert_eq!(bench.journals(), [""; 0]);
        let now = disk_sha256(Path::new(&path));
        assert!(now == bench.old || now == expected_fixture(), "round {round}: neither old nor new");
    }
}

/// The journal of one disk is not applied to another one that has its URI now.
fn a_journal_is_not_applied_to_another_disk() {
    let Some(bench) = Bench::new() else { return };
    let socket = bench.at("socket");
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let path = half_written(&bench, &socket);
    let other = bench.fresh("other.raw");
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::File::options().write(true).open(&other).unwrap(),
        b"another disk signature",
        440,
    )
    .unwrap();
    let before = disk_sha256(Path::new(&other));
    let server = Server::nbdkit_at(&socket, &["file", &other]);
    let refused = bench.run(&["recover", &uri]);
    drop(server);
    assert!(!refused.status.success() && stderr(&refused).contains("made for another"), "{}", stderr(&refused));
    assert_eq!(disk_sha256(Path::new(&other)), before);
    assert!(bench.is_pending());
    let server = Server::nbdkit_at(&socket, &["file", &path]);
    ok(&bench.run(&["recover", &uri]), "recover");
    drop(server);
    assert_eq!(disk_sha256(Path::new(&path)), bench.old);
}

/// A server that is started anew has another socket: the disk is known by its content, and a copy from before is not meant.
fn an_interrupted_edit_is_found_under_another_name() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let server = Server::nbdkit(&[&SLOW[..], &[&path]].concat());
    let mut child = bench.inject(&server.uri()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_journal(&bench, &mut child, Duration::from_millis(120));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(server);
    let now = disk_sha256(Path::new(&path));
    if now == bench.old || !bench.is_pending() {
        return;
    }
    let twin = bench.fresh("twin.raw");
    let server = Server::nbdkit(&["file", &twin]);
    ok(&bench.run(&["inspect", &server.uri()]), "a copy from before the edit");
    drop(server);
    let server = Server::nbdkit(&["file", &path]);
    let uri = server.uri();
    let refused = bench.run(&["inspect", &uri]);
    assert!(stderr(&refused).contains(&format!("winject recover '{uri}'")), "{}", stderr(&refused));
    assert!(stdout(&bench.run(&["recover", "--dry-run", &uri])).contains("Can be recovered"));
    ok(&bench.run(&["recover", &uri]), "recover");
    drop(server);
    let now = disk_sha256(Path::new(&path));
    assert!(now == bench.old || now == expected_fixture());
    assert_eq!(bench.journals(), [""; 0]);
}

/// A recovery is killed, too: the next one ends it.
fn a_killed_recovery_is_recovered() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let server = Server::nbdkit(&[&SLOW[..], &[&path]].concat());
    let uri = server.uri();
    let mut child = bench.inject(&uri).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_journal(&bench, &mut child, Duration::from_millis(150));
    child.kill().unwrap();
    child.wait().unwrap();
    for round in 0..4 {
        let mut recovery = bench.command(&["recover", &uri]);
        let mut recovery = recovery.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(60 + 40 * round));
        recovery.kill().unwrap();
        recovery.wait().unwrap();
    }
    ok(&bench.run(&["recover", &uri]), "recover");
    drop(server);
    let now = disk_sha256(Path::new(&path));
    assert!(now == bench.old || now == expected_fixture(), "neither old nor new");
    assert_eq!(bench.journals(), [""; 0]);
}

/// Two edits of one export on one machine: one after the other. The second one finds nothing to do, or is refused.
fn two_edits_at_once_do_not_mix() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let server = Server::nbdkit(&[&SLOW[..], &[&path]].concat());
    let uri = server.uri();
    let edits = [(); 2].map(|()| bench.inject(&uri).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let done = edits.map(|edit| edit.wait_with_output().unwrap());
    assert!(done.iter().any(|output| output.status.success()));
    drop(server);
    assert_eq!(disk_sha256(Path::new(&path)), expected_fixture());
    assert_eq!(bench.journals(), [""; 0]);
}

/// An overlay over an export: QEMU finds the edited disk in it, and the export is as it was.
fn an_overlay_over_an_export_is_read_by_qemu() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let base = disk_sha256(Path::new(&path));
    let edited = bench.fresh("edited.raw");
    let server = Server::nbdkit(&["file", &edited]);
    ok(&bench.inject(&server.uri()).output().unwrap(), "in place");
    drop(server);
    let server = Server::qemu_nbd(&["-r", "-x", "a b", "-f", "raw", &path]);
    let drivers = fixture_drivers();
    let uri = server.export("a%20b");
    let done = bench.run(&["inject", &uri, "--overlay", "new.qcow2", "--drivers", drivers.to_str().unwrap()]);
    ok(&done, "overlay");
    let overlay = bench.at("new.qcow2").to_str().unwrap().to_owned();
    qemu_img(&["check", "-q", "-f", "qcow2", &overlay]);
    qemu_img(&["compare", "-q", "-f", "qcow2", "-F", "raw", &overlay, &edited]);
    drop(server);
    assert_eq!(disk_sha256(Path::new(&path)), base);
}

tests![
    an_edit_is_that_of_the_file,
    a_server_writes_the_formats_that_it_knows,
    every_command_that_edits_does_so_over_nbd,
    refusals_say_what_is_missing,
    a_container_with_room_is_edited_inside_its_export,
    what_was_written_is_flushed_and_read_back,
    a_server_that_forgets_what_it_confirmed_is_found_out,
    a_refused_write_is_rolled_back,
    a_killed_edit_is_recovered,
    an_edit_whose_server_died_is_recovered,
    a_terminated_edit_takes_itself_back,
    a_journal_is_not_applied_to_another_disk,
    an_interrupted_edit_is_found_under_another_name,
    a_killed_recovery_is_recovered,
    two_edits_at_once_do_not_mix,
    an_overlay_over_an_export_is_read_by_qemu,
];
