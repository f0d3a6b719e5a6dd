//! Edits over NBD whose disk, URI or folder for journals is not the one that it seems to be.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Server;
use super::editing::{Bench, SLOW, ok, wait_for_journal};
use crate::inject::{copy, disk_sha256, expected_fixture, names, stderr, stdout};

/// A disk that a killed edit left half written when it was served at `socket`.
pub fn half_written(bench: &Bench, socket: &Path) -> String {
    for longer in [40, 10, 100, 0, 200, 70, 20, 5] {
        let path = bench.fresh("served.raw");
        let modified = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let before = modified();
        let server = Server::nbdkit_at(socket, &[&SLOW[..], &[&path]].concat());
        let mut child = bench.inject(&server.uri()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while modified() == before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(longer));
        child.kill().unwrap();
        child.wait().unwrap();
        drop(server);
        let now = disk_sha256(Path::new(&path));
        if now != bench.old && now != expected_fixture() {
            return path;
        }
        if bench.at("journals").is_dir() {
            std::fs::remove_dir_all(bench.at("journals")).unwrap();
        }
    }
    panic!("no edit was caught in its writes");
}

/// The disk at this path, served at this socket, is pending and can be recovered.
fn is_recovered(bench: &Bench, socket: &Path, path: &str) {
    let server = Server::nbdkit_at(socket, &["file", path]);
    let refused = bench.run(&["inspect", &server.uri()]);
    assert!(stderr(&refused).contains("winject recover"), "{}{}", stdout(&refused), stderr(&refused));
    let recovered = bench.run(&["recover", &server.uri()]);
    ok(&recovered, "recover");
    assert!(stdout(&recovered).contains("was rolled back"), "{}", stdout(&recovered));
    ok(&bench.run(&["inspect", &server.uri()]), "inspect");
    drop(server);
    assert_eq!(disk_sha256(Path::new(path)), bench.old);
}

/// A clone of the same template has the URI now: it is left as it is, and the disk of the journal can be recovered later.
fn a_clone_does_not_cost_the_disk_its_journal() {
    let Some(bench) = Bench::new() else { return };
    let socket = bench.at("socket");
    let path = half_written(&bench, &socket);
    let clone = bench.fresh("clone.raw");
    let log = bench.at("log");
    let logfile = format!("logfile={}", log.display());
    let server = Server::nbdkit_at(&socket, &["--filter=log", "file", &clone, &logfile]);
    let done = bench.run(&["recover", &server.uri()]);
    ok(&done, "recover with a clone");
    assert!(stdout(&done).contains("holds nothing of the interrupted run"), "{}", stdout(&done));
    assert!(!stdout(&done).contains("was rolled back"), "{}", stdout(&done));
    ok(&bench.run(&["inspect", &server.uri()]), "inspect of the clone");
    drop(server);
    assert!(!std::fs::read_to_string(&log).unwrap().contains(" Write "), "a clone was written to");
    assert_eq!(disk_sha256(Path::new(&clone)), bench.old);
    is_recovered(&bench, &socket, &path);
}

/// A copy that was made of the half-written disk before its recovery is recovered under its own URI: the original, too.
fn a_copy_does_not_cost_the_original_its_journal() {
    let Some(bench) = Bench::new() else { return };
    let (socket, other) = (bench.at("socket"), bench.at("other"));
    let path = half_written(&bench, &socket);
    let copied = bench.at("copied.raw").to_str().unwrap().to_owned();
    copy(Path::new(&path), Path::new(&copied));
    is_recovered(&bench, &other, &copied);
    is_recovered(&bench, &socket, &path);
    assert_eq!(bench.journals(), [""; 0]);
    assert_eq!(bench.kept(), 1);
}

/// Two servers of one file: nothing that both of them could lock. One edit counts, and none is pending.
fn one_disk_under_two_uris_is_edited_once() {
    let Some(bench) = Bench::new() else { return };
    for pause in [0, 20, 100] {
        let path = bench.fresh("served.raw");
        let arguments = [&SLOW[..], &[&path]].concat();
        let servers = [(); 2].map(|()| Server::nbdkit(&arguments));
        let edits = servers.each_ref().map(|server| {
            std::thread::sleep(Duration::from_millis(pause));
            bench.inject(&server.uri()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        let done = edits.map(|edit| edit.wait_with_output().unwrap());
        let said: Vec<String> = done.iter().map(stderr).collect();
        assert!(done.iter().any(|output| output.status.success()), "{said:?}");
        drop(servers);
        assert_eq!(disk_sha256(Path::new(&path)), expected_fixture(), "{said:?}");
        assert_eq!(bench.journals(), [""; 0], "{said:?}");
        assert_eq!(bench.kept(), 0, "{said:?}");
    }
}

/// An edit that was planned while another one was written does not overwrite it: who was told that it is done finds it done.
fn a_plan_of_before_is_not_written() {
    let Some(bench) = Bench::new() else { return };
    for pause in [0, 30, 80] {
        let path = bench.fresh("served.raw");
        let server = Server::nbdkit(&[&SLOW[..], &[&path]].concat());
        let uri = server.uri();
        let keys = [r"HKLM\SYSTEM\First", r"HKLM\SYSTEM\Second"];
        let edits = keys.map(|key| {
            let edit = ["reg", "set", &uri, key, "--value", "Value", "--type", "dword", "--data", "7", "--in-place"];
            let child = bench.command(&edit).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(pause));
            child
        });
        let done: Vec<Output> = edits.into_iter().map(|edit| edit.wait_with_output().unwrap()).collect();
        assert!(done.iter().any(|output| output.status.success()));
        assert_eq!(bench.journals(), [""; 0]);
        for (key, output) in keys.iter().zip(&done) {
            let is_there = stdout(&bench.run(&["reg", "query", &uri, key])).contains("Value");
            assert_eq!(is_there, output.status.success(), "{key}: {}", stderr(output));
        }
        ok(&bench.run(&["fsck", &uri]), "fsck");
    }
}

/// The command of a message works in another shell, where the folder for journals is another one; without it the answer says
/// where it looked. A named pipe in place of the lock is not waited for.
fn a_printed_command_names_the_folder() {
    let Some(bench) = Bench::new() else { return };
    let socket = bench.at("socket");
    let path = half_written(&bench, &socket);
    let server = Server::nbdkit_at(&socket, &["file", &path]);
    let uri = server.uri();
    let elsewhere = bench.command(&["recover", &uri]).env("WINJECT_JOURNALS", bench.at("empty")).output().unwrap();
    ok(&elsewhere, "recover elsewhere");
    let folder = bench.at("empty").display().to_string();
    assert!(stdout(&elsewhere).contains(&folder) && stdout(&elsewhere).contains("elsewhere"), "{}", stdout(&elsewhere));
    let lock = bench.journals().iter().find_map(|name| name.strip_suffix(".winject-journal").map(str::to_owned));
    let lock = bench.at("journals").join(lock.unwrap() + ".winject-lock");
    let _ = std::fs::remove_file(&lock);
    nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let begun = Instant::now();
    let piped = bench.run(&["recover", &uri]);
    assert!(!piped.status.success() && begun.elapsed() < Duration::from_secs(60), "{}", stderr(&piped));
    std::fs::remove_file(&lock).unwrap();
    let refused = stderr(&bench.run(&["inspect", &uri]));
    let (_, command) = refused.split_once("roll it back: ").unwrap_or_else(|| panic!("{refused}"));
    let command = command.lines().next().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_winject")).parent().unwrap().display().to_string();
    let path_variable = format!("{program}:{}", std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env_remove("WINJECT_JOURNALS").env("HOME", bench.at("home")).env("PATH", path_variable);
    ok(&shell.output().unwrap(), command);
    drop(server);
    assert_eq!(disk_sha256(Path::new(&path)), bench.old);
}

/// A link to the socket leads to a server that was started anew at another path.
fn a_link_to_the_socket_may_lead_elsewhere_later() {
    let Some(bench) = Bench::new() else { return };
    let (first, second, link) = (bench.at("a.sock"), bench.at("b.sock"), bench.at("current.sock"));
    let path = bench.fresh("served.raw");
    let server = Server::nbdkit_at(&first, &[&SLOW[..], &[&path]].concat());
    std::os::unix::fs::symlink(&first, &link).unwrap();
    let uri = format!("nbd+unix:///?socket={}", link.display());
    let mut child = bench.inject(&uri).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_journal(&bench, &mut child, Duration::from_millis(200));
    drop(server);
    child.wait().unwrap();
    let is_pending = bench.is_pending();
    let _server = Server::nbdkit_at(&second, &["file", &path]);
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&second, &link).unwrap();
    let recovered = bench.run(&["recover", &uri]);
    ok(&recovered, "recover");
    assert_eq!(stdout(&recovered).contains("Nothing to recover"), !is_pending, "{}", stdout(&recovered));
    let now = disk_sha256(Path::new(&path));
    assert!(now == bench.old || now == expected_fixture(), "neither old nor new");
}

/// A server that does not answer any more: the first signal waits for it, the second one does not.
fn a_second_signal_leaves_the_edit_to_a_recovery() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let server = Server::nbdkit(&[&SLOW[..], &[&path]].concat());
    let uri = server.uri();
    let mut child = bench.inject(&uri).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(wait_for_journal(&bench, &mut child, Duration::from_millis(150)), "done before the signal");
    kill_process(server.pid(), Signal::STOP).unwrap();
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let is_waiting = child.try_wait().unwrap().is_none();
    let begun = Instant::now();
    if is_waiting {
        kill_process(pid, Signal::TERM).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    kill_process(server.pid(), Signal::CONT).unwrap();
    if is_waiting {
        assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
        assert!(stderr(&output).contains(&format!("winject recover '{uri}'")), "{}", stderr(&output));
    }
    ok(&bench.run(&["recover", &uri]), "recover");
    drop(server);
    let now = disk_sha256(Path::new(&path));
    assert!(now == bench.old || now == expected_fixture(), "neither old nor new");
    let locks = names(&bench.at("journals")).into_iter().filter(|name| name.ends_with(".winject-lock"));
    assert!(locks.count() <= 1, "locks of killed runs are used again");
}

/// Another disk at the URI: the advice does not lead to the loss of the journal.
fn advice_about_another_disk_keeps_the_journal() {
    let Some(bench) = Bench::new() else { return };
    let socket = bench.at("socket");
    let path = half_written(&bench, &socket);
    let empty = bench.at("empty.raw").to_str().unwrap().to_owned();
    let size = std::fs::metadata(&path).unwrap().len();
    std::fs::File::create(&empty).unwrap().set_len(size).unwrap();
    let server = Server::nbdkit_at(&socket, &["file", &empty]);
    let refused = bench.run(&["recover", &server.uri()]);
    drop(server);
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(9), "{said}");
    assert!(said.contains("the disk that was edited") && !said.contains("good as it is"), "{said}");
    is_recovered(&bench, &socket, &path);
}

tests![
    a_clone_does_not_cost_the_disk_its_journal,
    a_copy_does_not_cost_the_original_its_journal,
    one_disk_under_two_uris_is_edited_once,
    a_plan_of_before_is_not_written,
    a_printed_command_names_the_folder,
    a_link_to_the_socket_may_lead_elsewhere_later,
    a_second_signal_leaves_the_edit_to_a_recovery,
    advice_about_another_disk_keeps_the_journal,
];
