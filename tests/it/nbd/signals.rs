//! A signal while a server stalls: the command ends within a second, by the signal, and nothing is left.

use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use winject::internals::block::Format;

use super::liar::{Offer, Request, Scripted, data, extents, handshake, next};
use crate::formats::qemu_img;
use crate::inject::{fixture_drivers, folder, names, winject, writable_fixture};
use crate::support;

/// How long a command may go on. The program promises a second; a busy machine gets one more.
const LIMIT: Duration = Duration::from_secs(2);

/// Starts the command; signals are as by default, also where the tests ignore some.
fn start(folder: &Path, arguments: &[&str]) -> Child {
    let winject = winject();
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(winject.get_program()).args(arguments).current_dir(folder);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends the signal, and demands that the command ends by it; returns what it said.
fn end(mut child: Child, signal: &str, number: i32, what: &str) -> String {
    let begun = Instant::now();
    support::run(Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(begun.elapsed() < LIMIT, "{what}: {:?}", begun.elapsed());
    assert_eq!(status.signal(), Some(number), "{what}: {status}: {said}");
    said
}

/// Where a server stalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stall {
    /// From this read on, no more replies.
    Read(usize),
    /// No answer to the question for extents.
    Status,
    /// No handshake at all.
    FirstHandshake,
    /// From this read on connections end, and no other handshake is made.
    Handshake(usize),
}

/// A server of the image that stalls, and the news that it does.
fn stalling(image: &Path, stall: Stall) -> (Scripted, Receiver<()>) {
    let file = std::fs::File::open(image).unwrap();
    let size = file.metadata().unwrap().len();
    let (sender, stalled) = channel();
    let sender = Mutex::new(sender);
    let reads = Arc::new(AtomicUsize::new(0));
    let stop = move || sender.lock().unwrap().send(()).unwrap_or(());
    let answer = move |request: Request| -> io::Result<Option<Vec<u8>>> {
        if request.kind == 7 {
            return Ok((stall != Stall::Status).then(|| extents(request, &[(u32::MAX, 0)])));
        }
        let number = reads.fetch_add(1, Ordering::Relaxed);
        let mut bytes = vec![0; request.length as usize];
        file.read_exact_at(&mut bytes, request.offset)?;
        let is_answered = !matches!(stall, Stall::Read(limit) | Stall::Handshake(limit) if number >= limit);
        Ok(is_answered.then(|| data(1, request.cookie, request.offset, &bytes)))
    };
    let is_gone = AtomicUsize::new(usize::from(stall == Stall::FirstHandshake));
    let server = Scripted::listen(move |_, mut stream| {
        if is_gone.load(Ordering::Relaxed) > 0 {
            stop();
            return next(&mut stream).map(drop);
        }
        handshake(&mut stream, &Offer { size, ..Offer::default() })?;
        while let Some(request) = next(&mut stream)? {
            match answer(request)? {
                Some(answer) => stream.write_all(&answer)?,
                None if matches!(stall, Stall::Handshake(_)) => {
                    is_gone.store(1, Ordering::Relaxed);
                    return Ok(());
                }
                None => stop(),
            }
        }
        Ok(())
    });
    (server, stalled)
}

fn a_stalled_server_does_not_hold_a_command() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let drivers = fixture_drivers();
    let drivers = drivers.to_str().unwrap();
    let convert = ["convert", "--format", "raw", "URI", "new.qcow2"];
    let inject = ["inject", "URI", "--drivers", drivers, "-o", "new.qcow2"];
    let inspect = ["inspect", "URI"];
    let plan = ["plan", "URI", "--drivers", drivers, "-o", "plan.json"];
    let cp = ["cp", "-r", "URI", "/Windows", "."];
    let fsck = ["fsck", "URI", "--junit", "fsck.xml"];
    let handshakes = [Stall::FirstHandshake, Stall::Handshake(0), Stall::Handshake(5)];
    let stalls = [Stall::Read(0), Stall::Read(3), Stall::Read(12), Stall::Status].into_iter().chain(handshakes);
    for (number, stall) in stalls.enumerate() {
        for arguments in [&convert[..], &inject, &inspect, &plan, &cp, &fsck] {
            let is_writing = [&convert[..], &inject].contains(&arguments);
            if !is_writing && matches!(stall, Stall::Status | Stall::Read(12)) {
                // They ask for no extents, and for little.
                continue;
            }
            let (signal, value) = [("TERM", 15), ("INT", 2)][number % 2];
            let what = format!("{} {stall:?}", arguments[0]);
            let out = tempfile::tempdir_in(folder.path()).unwrap();
            let (server, stalled) = stalling(&image, stall);
            let uri = server.uri();
            let arguments: Vec<&str> = arguments.iter().map(|text| if *text == "URI" { &uri } else { *text }).collect();
            let child = start(out.path(), &arguments);
            stalled.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{what}: no stall"));
            // All threads come to the place where they wait.
            std::thread::sleep(Duration::from_millis(300));
            let said = end(child, signal, value, &what);
            assert!(said.contains("Interrupted") && !said.contains("error"), "{what}: {said}");
            assert_eq!(names(out.path()), [""; 0], "{what}");
        }
    }
}

/// The same where the server is that of an overlay's backing file.
fn a_stalled_backing_export_does_not_hold_a_command() {
    if support::program("qemu-img").is_none() {
        return support::skip("qemu-img is not installed");
    }
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let size = std::fs::metadata(&image).unwrap().len().to_string();
    for (stall, signal, value) in [
        (Stall::FirstHandshake, "TERM", 15),
        (Stall::Read(0), "INT", 2),
        (Stall::Read(3), "TERM", 15),
        (Stall::Handshake(3), "INT", 2),
    ] {
        let (server, stalled) = stalling(&image, stall);
        let uri = server.uri();
        let out = tempfile::tempdir_in(folder.path()).unwrap();
        let top = folder.path().join("top.qcow2").to_str().unwrap().to_owned();
        qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-b", &uri, "-F", "raw", &top, &size]);
        let child = start(out.path(), &["convert", &top, "new.qcow2", "--allow-path", &uri]);
        stalled.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{stall:?}: no stall"));
        std::thread::sleep(Duration::from_millis(300));
        let said = end(child, signal, value, &format!("{stall:?}"));
        assert!(said.contains("Interrupted") && !said.contains("error"), "{stall:?}: {said}");
        assert_eq!(names(out.path()), [""; 0], "{stall:?}");
    }
}

/// A disk without an end: asking for its holes would never be done.
fn an_endless_walk_can_be_interrupted() {
    let folder = folder();
    let server = Scripted::offering(
        |_| Offer { size: 1 << 62, ..Offer::default() },
        |_, request| match request.kind {
            7 => Some(extents(request, &[(u32::MAX, 3)])),
            _ => Some(data(1, request.cookie, request.offset, &vec![0; request.length as usize])),
        },
    );
    let child = start(folder.path(), &["convert", "--format", "raw", "-O", "raw", &server.uri(), "new.raw"]);
    let begun = Instant::now();
    while names(folder.path()).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(500));
    let said = end(child, "TERM", 15, "walk");
    assert!(said.contains("new.raw was not written"), "{said}");
    assert_eq!(names(folder.path()), [""; 0]);
}

/// A Unix socket with a full backlog: the connection is neither made nor refused.
fn a_full_backlog_is_not_waited_for() {
    if support::program("python3").is_none() {
        return support::skip("python3 is not installed");
    }
    let folder = folder();
    let script = "import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind('s')
s.listen(0)
clients = []
for _ in range(3):
    c = socket.socket(socket.AF_UNIX)
    c.setblocking(False)
    try: c.connect('s')
    except BlockingIOError: pass
    clients.append(c)
print('full', flush=True)
time.sleep(600)";
    let mut server = Command::new("python3");
    let server = server.args(["-c", script]).current_dir(folder.path()).stdout(Stdio::piped());
    let mut server = server.spawn().unwrap();
    server.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    let child = start(folder.path(), &["inspect", "nbd+unix:///?socket=s"]);
    std::thread::sleep(Duration::from_millis(700));
    end(child, "TERM", 15, "connect");
    let begun = Instant::now();
    let given_up = start(folder.path(), &["inspect", "nbd+unix:///?socket=s"]).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&given_up.stderr).into_owned();
    assert!(said.contains("did not accept the connection in 10 s") && said.contains("nbd-unreachable"), "{said}");
    assert!(given_up.status.code() == Some(7) && begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    server.kill().unwrap();
    server.wait().unwrap();
}

tests![
    a_stalled_server_does_not_hold_a_command,
    a_stalled_backing_export_does_not_hold_a_command,
    an_endless_walk_can_be_interrupted,
    a_full_backlog_is_not_waited_for
];
