//! Overlays whose backing file is an export, judged by what QEMU reads through them.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Server;
use super::editing::{Bench, ok};
use super::liar::{SIZE, Scripted, status};
use super::mistaken::half_written;
use crate::formats::{qemu_img, read_all};
use crate::inject::{disk_sha256, expected_fixture, fixture_drivers, stderr, stdout};
use crate::support;
use winject::Kind;
use winject::internals::block::{OpenOptions, PathPolicy, open};

/// An overlay over a backing file that need not be there.
fn overlay(bench: &Bench, name: &str, backing: &str, format: &str, size: &str) -> String {
    let path = bench.at(name).to_str().unwrap().to_owned();
    qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, &path, size]);
    path
}

/// A fresh copy of the disk, its size in bytes, and a server of it that would take writes.
fn serve(bench: &Bench) -> (String, String, Server) {
    let path = bench.fresh("served.raw");
    let size = std::fs::metadata(&path).unwrap().len().to_string();
    let server = Server::nbdkit(&["file", &path]);
    (path, size, server)
}

/// The hash of the disk, as QEMU reads it.
fn sha256_in_qemu(bench: &Bench, overlay: &str) -> String {
    let raw = bench.at("as-qemu-reads-it.raw");
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", overlay, raw.to_str().unwrap()]);
    disk_sha256(&raw)
}

fn run_in_shell(bench: &Bench, line: &str) -> Output {
    let line = line.replacen("winject", &format!("'{}'", env!("CARGO_BIN_EXE_winject")), 1);
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env("WINJECT_JOURNALS", bench.at("journals")).current_dir(bench.at(""));
    command.output().unwrap()
}

fn is_refused(output: &Output, code: &str) -> bool {
    output.status.code() == Some(3) && stdout(output).contains(&format!("\"{code}\""))
}

/// In all forms in which QEMU writes such a name, over a raw disk and over a container, and larger than its backing file.
fn an_overlay_reads_as_in_qemu() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let container = bench.at("served.qcow2").to_str().unwrap().to_owned();
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", &path, &container]);
    let size = (std::fs::metadata(&path).unwrap().len() + (1 << 20)).to_string();
    let raw = Server::qemu_nbd(&["-r", "-x", "a b", "-f", "raw", &path]);
    let socket = raw.socket().display();
    let uri = raw.export("a%20b");
    let inside = Server::nbdkit(&["-r", "file", &container]);
    for (format, backing, allowed) in [
        ("raw", uri.clone(), uri.clone()),
        ("raw", format!("nbd:unix:{socket}:exportname=a b"), uri.clone()),
        (
            "raw",
            format!(
                r#"json:{{"driver":"raw","file":{{"driver":"nbd","server":{{"type":"unix","path":"{socket}"}},"export":"a b"}}}}"#
            ),
            uri,
        ),
        ("qcow2", inside.uri(), inside.uri()),
    ] {
        let top = overlay(&bench, "top.qcow2", &backing, format, &size);
        support::run(Command::new("qemu-io").args(["-c", "write -P 7 100k 70k", "-c", "write -z 1M 64k", &top]));
        let out = bench.at("out.raw");
        let _ = std::fs::remove_file(&out);
        ok(&bench.run(&["convert", &top, "out.raw", "--allow-path", &allowed]), &backing);
        assert_eq!(disk_sha256(&out), sha256_in_qemu(&bench, &top), "{backing}");
        let maps = bench.run(&["image", "map", "--json", &top, "--allow-path", &allowed]);
        ok(&maps, "map");
        assert!(maps.stdout.windows(12).any(|text| text == b"\"data\": true" || text == b"\"data\":true,"));
    }
}

/// Nothing is connected to unless this very export is allowed, whatever the command; the sandbox is not what prevents it.
fn an_image_does_not_choose_whom_winject_connects_to() {
    let Some(bench) = Bench::new() else { return };
    let server = Scripted::new(|_, request| Some(status(request, &[(SIZE as u32, 0)])));
    let (uri, socket) = (server.uri(), server.uri().split_once('=').unwrap().1.to_owned());
    let top = overlay(&bench, "top.qcow2", &uri, "raw", "1M");
    let drivers = fixture_drivers();
    let drivers = drivers.to_str().unwrap();
    let folder = Path::new(&socket).parent().unwrap().to_str().unwrap();
    let others = [
        format!("nbd+unix:///other?socket={socket}"),
        format!("nbd+unix:///e?socket={socket}2"),
        "nbd://localhost/e".to_owned(),
        folder.to_owned(),
        socket.clone(),
    ];
    for arguments in [
        &["inspect", &top][..],
        &["check", &top],
        &["fsck", &top],
        &["ls", &top, "/"],
        &["image", "map", &top],
        &["reg", "query", &top, "SYSTEM"],
        &["diff", &top, &top],
        &["convert", &top, "new.qcow2"],
        &["inject", &top, "--drivers", drivers, "--in-place"],
        &["inject", &top, "--drivers", drivers, "--overlay", "new.qcow2"],
    ] {
        for options in [&["--json"][..], &["--json", "--no-sandbox"]] {
            let refused = bench.run(&[arguments, options].concat());
            assert!(
                is_refused(&refused, "outside-reference"),
                "{arguments:?}: {}{}",
                stdout(&refused),
                stderr(&refused)
            );
        }
    }
    for other in &others {
        let refused = bench.run(&["inspect", &top, "--json", "--no-sandbox", "--allow-path", other]);
        assert!(is_refused(&refused, "outside-reference"), "{other}: {}", stderr(&refused));
    }
    assert!(!bench.run(&["batch", "inspect", &top, "--no-sandbox"]).status.success());
    // What a name of a file means is not a matter of the export.
    for name in ["json:{\"driver\":\"nbd\",\"path\":\"/s\",\"x-dirty-bitmap\":\"b\"}", "nbds://h/e"] {
        let odd = overlay(&bench, "odd.qcow2", name, "raw", "1M");
        assert!(is_refused(&bench.run(&["inspect", &odd, "--json"]), "outside-reference"), "{name}");
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 0);
    assert!(!bench.at("new.qcow2").exists());
    let allowed = bench.run(&["image", "map", &top, "--allow-path", &uri]);
    ok(&allowed, "allowed");
    assert!(server.connections.load(Ordering::Relaxed) > 0);
}

/// The command of the refusal, and that of the finished run, work as they are printed.
fn commands_in_messages_work() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let server = Server::nbdkit(&["-r", "file", &path]);
    let drivers = fixture_drivers();
    let made = bench.run(&["inject", &server.uri(), "--drivers", drivers.to_str().unwrap(), "--overlay", "it's.qcow2"]);
    ok(&made, "overlay");
    let command_in = |output: &Output| {
        let text = stderr(output);
        let (_, command) = text.split_once("winject check ").unwrap_or_else(|| panic!("{text}"));
        format!("winject check {}", command.lines().next().unwrap())
    };
    let next = command_in(&made);
    assert!(next.contains("--allow-path 'nbd+unix:///?socket="), "{next}");
    ok(&run_in_shell(&bench, &next), &next);
    let refused = bench.run(&["check", "it's.qcow2", "--bus", "virtio-scsi"]);
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    let again = command_in(&refused);
    assert!(again.contains("--bus virtio-scsi"), "{again}");
    ok(&run_in_shell(&bench, &again), &again);
    // The next layer needs the same.
    let allow = server.uri();
    let more = ["reg", "set", "it's.qcow2", r"HKLM\SYSTEM\Made", "--overlay", "more.qcow2", "--allow-path", &allow];
    let more = bench.run(&more);
    ok(&more, "second overlay");
    ok(&run_in_shell(&bench, &command_in(&more)), "check of the second overlay");
}

/// The overlay's file is written and the export is not; what comes out is what an edit of a plain disk makes. The kernel's
/// restrictions are on. The edit can be taken back.
fn an_edit_in_place_writes_the_overlay_alone() {
    let Some(bench) = Bench::new() else { return };
    let (path, size, server) = serve(&bench);
    let uri = server.uri();
    let top = overlay(&bench, "top.qcow2", &uri, "raw", &size);
    let drivers = fixture_drivers();
    let inject = ["inject", &top, "--in-place", "--drivers", drivers.to_str().unwrap(), "--allow-path", &uri];
    let done = bench.run(&inject);
    ok(&done, "in place");
    assert!(bench.journals().is_empty(), "{:?}", bench.journals());
    qemu_img(&["check", "-q", "-f", "qcow2", &top]);
    assert_eq!(sha256_in_qemu(&bench, &top), expected_fixture());
    assert_eq!(disk_sha256(Path::new(&path)), bench.old);
    ok(&bench.run(&["check", &top, "--allow-path", &uri]), "check");
    // Nothing is left to do.
    ok(&bench.run(&inject), "again");
    ok(&bench.run(&["undo", &top]), "undo");
    assert_eq!(sha256_in_qemu(&bench, &top), bench.old);
    assert_eq!(disk_sha256(Path::new(&path)), bench.old);
}

/// The whole disk must not be written over the export that it is read from.
fn an_output_is_not_the_backing_export() {
    let Some(bench) = Bench::new() else { return };
    let (path, size, server) = serve(&bench);
    let (uri, other) = (server.export("e"), server.export("%65"));
    let top = overlay(&bench, "top.qcow2", &uri, "raw", &size);
    let drivers = fixture_drivers();
    let drivers = drivers.to_str().unwrap();
    for arguments in [
        &["convert", &top, &other, "--overwrite"][..],
        &["convert", &top, &other, "--overwrite", "--dry-run"],
        &["inject", &top, "-o", &other, "--overwrite", "--drivers", drivers],
    ] {
        let refused = bench.run(&[arguments, &["--json", "--allow-path", &uri]].concat());
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", stderr(&refused));
        assert!(stdout(&refused).contains("\"output-is-input\""), "{arguments:?}: {}", stdout(&refused));
    }
    // Nor is the export another disk of the machine.
    let twice = bench.run(&["check", &top, &other, "--allow-path", &uri]);
    assert!(stderr(&twice).contains("one is a file of the other"), "{}", stderr(&twice));
    assert_eq!(disk_sha256(Path::new(&path)), bench.old);
}

/// A batch passes the permission on, leaves the export out that an overlay of it needs, and finds an overlay of an earlier run done.
fn a_batch_works_on_overlays() {
    let Some(bench) = Bench::new() else { return };
    let (path, size, server) = serve(&bench);
    let uri = server.uri();
    let top = overlay(&bench, "top.qcow2", &uri, "raw", &size);
    let drivers = fixture_drivers();
    let drivers = drivers.to_str().unwrap();
    let options = ["--drivers", drivers, "--allow-path", &uri];
    let done = bench.run(&[&["batch", "inject", &top, &uri, "--in-place", "--json"], &options[..]].concat());
    ok(&done, "batch");
    assert!(stdout(&done).contains("an export that"), "{}", stdout(&done));
    assert_eq!(sha256_in_qemu(&bench, &top), expected_fixture());
    assert_eq!(disk_sha256(Path::new(&path)), bench.old);
    ok(&bench.run(&["batch", "check", &top, "--allow-path", &uri]), "check");
    let over = ["batch", "inject", &uri, "--overlay", "new.qcow2", "--drivers", drivers, "--json"];
    ok(&bench.run(&over), "overlay");
    let again = bench.run(&over);
    ok(&again, "overlay again");
    assert!(stdout(&again).contains("\"already-done\""), "{}", stdout(&again));
    drop(server);
    let away = bench.run(&["batch", "inspect", &top, "--allow-path", &uri]);
    assert_eq!(away.status.code(), Some(75), "{}", stdout(&away));
}

/// Of a host with a name and a port: the name is looked up before the process gives up its rights, and is another one than
/// its address.
fn a_host_is_reached_from_the_sandbox() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.fresh("served.raw");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new("nbdkit");
    server.args(["-f", "-r", "-i", "127.0.0.1", "-p", &port.to_string(), "file", &path]);
    let mut server = server.spawn().unwrap();
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    let size = std::fs::metadata(&path).unwrap().len().to_string();
    let top = overlay(&bench, "top.qcow2", &format!("nbd://LOCALHOST:{port}"), "raw", &size);
    let drivers = fixture_drivers();
    let drivers = drivers.display();
    let inspect = |allowed: &str| bench.run(&["inspect", &top, "--allow-path", allowed]);
    let done = inspect(&format!("nbd://localhost:{port}/"));
    let refused = inspect(&format!("nbd://127.0.0.1:{port}"));
    std::fs::write(
        bench.at("run.yaml"),
        format!(
            "vmdk: {top}\nvirtio_drivers_dir: {drivers}\nto_output: new.qcow2\nallow_path: nbd://localhost:{port}\n"
        ),
    )
    .unwrap();
    let document = bench.run(&["--config", "run.yaml"]);
    server.kill().unwrap();
    server.wait().unwrap();
    ok(&done, "inspect");
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    ok(&document, "document");
    assert_eq!(disk_sha256(&bench.at("new.qcow2")), expected_fixture());
}

/// The connection ends in the middle, and the server is there again.
fn a_lost_connection_is_made_again_below_an_overlay() {
    let Some(bench) = Bench::new() else { return };
    let (socket, served) = (bench.at("socket"), bench.at("small.raw"));
    let bytes: Vec<u8> = (0..4 << 20_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(&served, &bytes).unwrap();
    let arguments = ["file", served.to_str().unwrap()];
    let server = Server::nbdkit_at(&socket, &arguments);
    let top = overlay(&bench, "top.qcow2", &server.uri(), "raw", "4M");
    let path_policy = PathPolicy::default().allow(server.uri());
    let image = open(Path::new(&top), &OpenOptions { path_policy, ..OpenOptions::default() }).unwrap();
    assert_eq!(image.files(), [Path::new(&top), Path::new(&server.uri())]);
    drop(server);
    let server = Server::nbdkit_at(&socket, &arguments);
    assert!(read_all(&*image) == bytes);
    drop(server);
    // To trust all files is not to trust servers.
    let path_policy = PathPolicy::anything();
    let refused = open(Path::new(&top), &OpenOptions { path_policy, ..OpenOptions::default() }).map(drop).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
}

/// An export that holds an overlay over itself.
fn a_loop_through_an_export_ends() {
    let Some(bench) = Bench::new() else { return };
    let socket = bench.at("socket");
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let inside = overlay(&bench, "inside.qcow2", &uri, "qcow2", "1M");
    let server = Server::nbdkit_at(&socket, &["-r", "file", &inside]);
    let top = overlay(&bench, "top.qcow2", &uri, "qcow2", "1M");
    for image in [&top, &uri] {
        let refused = bench.run(&["image", "map", image, "--allow-path", &uri]);
        assert!(stderr(&refused).contains("refers back to itself"), "{}", stderr(&refused));
    }
    drop(server);
}

/// An export that an interrupted edit left half written is refused as a backing file, too.
fn a_half_written_export_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let socket = bench.at("socket");
    let path = half_written(&bench, &socket);
    let server = Server::nbdkit_at(&socket, &["file", &path]);
    let uri = server.uri();
    let top = overlay(&bench, "top.qcow2", &uri, "raw", "1M");
    let refused = bench.run(&["inspect", &top, "--allow-path", &uri]);
    assert_eq!(refused.status.code(), Some(9), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("winject recover"), "{}", stderr(&refused));
    ok(&bench.run(&["recover", &uri]), "recover");
    assert_eq!(disk_sha256(Path::new(&path)), bench.old);
}

tests![
    an_overlay_reads_as_in_qemu,
    an_image_does_not_choose_whom_winject_connects_to,
    commands_in_messages_work,
    an_edit_in_place_writes_the_overlay_alone,
    an_output_is_not_the_backing_export,
    a_batch_works_on_overlays,
    a_host_is_reached_from_the_sandbox,
    a_lost_connection_is_made_again_below_an_overlay,
    a_loop_through_an_export_ends,
    a_half_written_export_is_refused,
];
