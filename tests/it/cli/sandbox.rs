//! The sandbox: what a process can still do after it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::CommandFactory;
use winject::internals::cli::{Cli, sandbox};

use crate::inject::{fixture, folder, stderr, stdout, succeed, winject};
use crate::support::program;

/// Makes this program the process in the sandbox, instead of running tests: its value is the folder with the files.
const CHILD: &str = "WINJECT_TEST_SANDBOXED";

/// What the process prints of an attempt: its name, and whether it succeeded.
fn tell<T, E: std::fmt::Debug>(name: &str, result: &Result<T, E>) {
    match result {
        Ok(_) => println!("{name}: done"),
        Err(error) => println!("{name}: {error:?}"),
    }
}

/// Enters the sandbox of `winject convert own/in.raw own/out/new.qcow2`, if this process was started for that, and tries
/// what it must be able to do and what it must not.
pub fn child() -> Option<ExitCode> {
    let folder = std::env::var_os(CHILD)?;
    let at = |name: &str| Path::new(&folder).join(name);
    let mut command = Cli::command();
    let arguments: [OsString; 4] =
        ["winject".into(), "convert".into(), at("own/in.raw").into(), at("out/new.qcow2").into()];
    let matches = command.try_get_matches_from_mut(arguments).unwrap();
    let opened = File::open(at("other/opened")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    sandbox::enter(&command, &matches);

    tell("read the image", &fs::read(at("own/in.raw")));
    tell("read its backing file", &fs::read(at("own/base.raw")));
    tell("read what is open", &std::io::read_to_string(&opened));
    tell("write the output", &fs::write(at("out/.new"), b"x"));
    tell("rename the output", &fs::rename(at("out/.new"), at("out/new.qcow2")));
    tell("spill", &tempfile::tempfile().and_then(|mut file| file.write_all(b"x")));
    tell("start a thread", &std::thread::Builder::new().spawn(|| ()).map(std::thread::JoinHandle::join));
    tell("see a process", &fs::read("/proc/1/stat"));

    tell("NOT read another file", &fs::read(at("other/file")));
    tell(
        "NOT read it in a thread",
        &std::thread::spawn({
            let file = at("other/file");
            move || fs::read(file)
        })
        .join()
        .unwrap(),
    );
    tell("NOT read it by a link", &fs::read(at("own/link")));
    tell("NOT list another folder", &fs::read_dir(at("other")));
    tell("NOT write the image", &File::options().write(true).open(at("own/in.raw")));
    tell("NOT write next to the image", &fs::write(at("own/new"), b"x"));
    tell("NOT remove the image", &fs::remove_file(at("own/in.raw")));
    tell("NOT remove another file", &fs::remove_file(at("other/file")));
    tell("NOT move a file out", &fs::rename(at("out/new.qcow2"), at("other/new")));
    tell("NOT make a link", &std::os::unix::fs::symlink("/etc/passwd", at("out/link")));
    tell("NOT read a password file", &fs::read("/etc/passwd"));
    tell("NOT read the environment of others", &fs::read("/proc/1/environ"));
    tell("NOT start a program", &Command::new("/bin/true").status());
    tell("NOT connect", &TcpStream::connect(address));
    tell("NOT send", &UdpSocket::bind("127.0.0.1:0"));
    tell("NOT listen", &std::os::unix::net::UnixListener::bind(at("out/socket")));
    Some(ExitCode::SUCCESS)
}

fn a_process_that_has_its_files_can_open_no_other() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for made in ["own", "out", "other", "tmp"] {
        fs::create_dir(at(made)).unwrap();
    }
    for made in ["own/in.raw", "own/base.raw", "other/opened", "other/file"] {
        fs::write(at(made), b"content").unwrap();
    }
    std::os::unix::fs::symlink("../other/file", at("own/link")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.env(CHILD, folder.path()).env("TMPDIR", at("tmp")).output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    for line in text.lines() {
        let is_done = line.ends_with(": done");
        assert_eq!(is_done, !line.starts_with("NOT "), "{text}");
    }
    assert_eq!(text.lines().count(), 24, "{text}");
    assert_eq!(fs::read(at("other/file")).unwrap(), b"content");
    assert_eq!(File::open(at("other/new")).unwrap_err().kind(), ErrorKind::NotFound);
}

/// The calls of a run that matter here, in their order.
fn calls(arguments: &[&str], strace: &Path) -> Vec<String> {
    let folder = folder();
    fs::copy(fixture(), folder.path().join("win10.qcow2")).unwrap();
    let mut command = Command::new(strace);
    command.current_dir(folder.path()).args(["-f", "-o", "calls", "-e"]);
    command.arg("trace=landlock_restrict_self,seccomp,openat,clone,clone3,execve").arg(winject().get_program());
    succeed(command.args(arguments));
    let text = fs::read_to_string(folder.path().join("calls")).unwrap();
    text.lines().skip(1).map(str::to_owned).collect()
}

fn a_run_gives_its_rights_up_before_it_opens_an_image_or_starts_a_thread() {
    let Some(strace) = program("strace") else { return };
    let calls = calls(&["inspect", "win10.qcow2"], &strace);
    let first = |what: &str| calls.iter().position(|line| line.contains(what)).unwrap_or(usize::MAX);
    let (files, seccomp) = (first("landlock_restrict_self("), first("seccomp(SECCOMP_SET_MODE_FILTER"));
    // The rules for its folder are made from open folders.
    let is_opened = |line: &&String| line.contains("win10.qcow2\"") && !line.contains("O_PATH");
    let opened = calls.iter().position(|line| is_opened(&line)).unwrap();
    assert!(files < opened && seccomp < opened, "{calls:#?}");
    assert!(files < first("clone") && seccomp < first("clone"), "{calls:#?}");
    for set in [files, seccomp] {
        assert!(calls[set].ends_with("= 0"), "{}", calls[set]);
    }
}

fn no_sandbox_switches_it_off() {
    let Some(strace) = program("strace") else { return };
    let calls = calls(&["inspect", "win10.qcow2", "--no-sandbox"], &strace);
    let is_restricted = |line: &String| line.contains("landlock") || line.contains("seccomp");
    assert!(!calls.iter().any(is_restricted), "{calls:#?}");
}

fn the_log_says_what_is_restricted() {
    let text = stderr(&succeed(winject().args(["inspect", "-v"]).arg(fixture())));
    assert!(text.contains("sandbox: only the command's own files can be opened"), "{text}");
    assert!(text.contains("sandbox: only the system calls"), "{text}");
    let text = stderr(&succeed(winject().args(["inspect", "-v", "--no-sandbox"]).arg(fixture())));
    assert!(!text.contains("sandbox"), "{text}");
}

tests![
    a_process_that_has_its_files_can_open_no_other,
    a_run_gives_its_rights_up_before_it_opens_an_image_or_starts_a_thread,
    no_sandbox_switches_it_off,
    the_log_says_what_is_restricted,
];
