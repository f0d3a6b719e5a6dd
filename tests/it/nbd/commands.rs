//! Commands over NBD, against the same commands on the file.

use std::path::Path;

use winject::internals::block::{Image, OpenOptions, open};

use super::Server;
use crate::formats::{Random, qemu_img, read_all};
use crate::inject::{folder, stderr, winject};
use crate::support;

fn has_servers() -> bool {
    ["nbdkit", "qemu-nbd", "qemu-img"].iter().all(|name| support::program(name).is_some())
}

/// A disk of data and holes, whose last sector is not whole.
fn disk(folder: &Path) -> (String, Vec<u8>) {
    let mut random = Random(7);
    let mut bytes = vec![0; (9 << 20) + 4096 + 100];
    for range in [0..70_000, (2 << 20) + 5..(5 << 20) + 77, (9 << 20)..(9 << 20) + 4196] {
        bytes[range].iter_mut().for_each(|byte| *byte = random.next() as u8);
    }
    let path = folder.join("disk.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (number, block) in bytes.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0)) {
        std::os::unix::fs::FileExt::write_all_at(&file, block, number as u64 * 4096).unwrap();
    }
    (path.to_str().unwrap().to_owned(), bytes)
}

fn open_uri(uri: &str) -> Box<dyn Image> {
    open(Path::new(uri), &OpenOptions::default()).unwrap_or_else(|error| panic!("{uri}: {error}"))
}

fn run(folder: &Path, arguments: &[&str]) -> std::process::Output {
    winject().args(arguments).current_dir(folder).output().unwrap()
}

/// Whatever the server offers or leaves out.
fn content_is_that_of_the_file() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let (path, mut bytes) = disk(folder.path());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    for options in [
        &["file"][..],
        &["-r", "file"],
        &["--no-sr", "file"],
        &["--mask-handshake=0", "file"],
        &["--filter=noextents", "file"],
        &["--filter=cow", "file"],
        &["--filter=delay", "file", "delay-read=2ms"],
        &[
            "--filter=blocksize-policy",
            "file",
            "blocksize-maximum=64k",
            "blocksize-minimum=1",
            "blocksize-preferred=4k",
            "blocksize-error-policy=error",
        ],
    ] {
        let mut arguments = options.to_vec();
        arguments.push(&path);
        let server = Server::nbdkit(&arguments);
        assert!(read_all(&*open_uri(&server.uri())) == bytes, "{options:?}");
        // Large reads go another way than small ones.
        let image = open_uri(&server.uri());
        let mut whole = vec![1; bytes.len()];
        image.read_at(winject::internals::units::ImageOffset(0), &mut whole).unwrap();
        assert!(whole == bytes, "{options:?}: large reads");
    }
}

/// A server that refuses requests which are not multiples of its unit.
fn requests_keep_to_the_unit_of_the_server() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let (path, mut bytes) = disk(folder.path());
    bytes.resize(bytes.len().next_multiple_of(65536), 0);
    std::fs::write(&path, &bytes).unwrap();
    for unit in ["4096", "65536"] {
        let server = Server::nbdkit(&[
            "--filter=blocksize-policy",
            "file",
            &path,
            &format!("blocksize-minimum={unit}"),
            "blocksize-preferred=65536",
            "blocksize-maximum=1M",
            "blocksize-error-policy=error",
        ]);
        assert!(read_all(&*open_uri(&server.uri())) == bytes, "{unit}");
    }
}

/// A container that the server opens, and one that it serves as it is.
fn containers_are_read_on_either_side() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let (path, mut bytes) = disk(folder.path());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    for (format, name) in [("qcow2", "q.qcow2"), ("vmdk", "v.vmdk"), ("vdi", "d.vdi"), ("vhdx", "x.vhdx")] {
        let image = folder.path().join(name).to_str().unwrap().to_owned();
        qemu_img(&["convert", "-f", "raw", "-O", format, &path, &image]);
        let size = open_uri(&image).len() as usize;
        bytes.resize(bytes.len().max(size), 0);
        let expected = &bytes[..size];
        let outside = Server::qemu_nbd(&["-r", "-f", format, &image]);
        assert!(read_all(&*open_uri(&outside.uri())) == expected, "{format}: opened by the server");
        let inside = Server::nbdkit(&["-r", "file", &image]);
        let opened = open_uri(&inside.uri());
        assert_eq!(opened.format().name(), format);
        assert!(read_all(&*opened) == expected, "{format}: served as it is");
    }
}

/// `convert` and `image` say the same as for the file; holes stay holes.
fn conversion_is_that_of_the_file() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let (path, _) = disk(folder.path());
    let server = Server::nbdkit(&["-r", "file", &path]);
    for (source, output) in [(path.as_str(), "file.qcow2"), (&server.uri(), "nbd.qcow2")] {
        let done = run(folder.path(), &["convert", source, output]);
        assert!(done.status.success(), "{}", stderr(&done));
    }
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(read("file.qcow2") == read("nbd.qcow2"));
    let map = |source: &str| {
        let output = run(folder.path(), &["image", "map", source]);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(map(&path), map(&server.uri()));
    let info = run(folder.path(), &["image", "info", "--json", &server.uri()]);
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["format"], "raw");
    assert_eq!(info.get("actual-size"), None);
    use std::os::unix::fs::MetadataExt;
    let mode = std::fs::metadata(folder.path().join("nbd.qcow2")).unwrap().mode();
    assert_eq!(mode & 0o077, 0, "nothing is known of who may read the export");
}

/// `convert` reads all data once, in few requests.
fn conversion_reads_each_byte_once() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let log = folder.path().join("log");
    let size = 64_u64 << 20;
    let server = Server::nbdkit(&["--filter=log", "pattern", "64M", &format!("logfile={}", log.display())]);
    let done = run(folder.path(), &["convert", &server.uri(), "new.qcow2"]);
    assert!(done.status.success(), "{}", stderr(&done));
    drop(server);
    let log = std::fs::read_to_string(&log).unwrap();
    let counts = log.lines().filter(|line| line.contains(" Read ") && line.contains("count=0x"));
    let counts: Vec<u64> = counts
        .map(|line| {
            let count = line.split("count=0x").nth(1).unwrap();
            u64::from_str_radix(count.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap(), 16).unwrap()
        })
        .collect();
    let total: u64 = counts.iter().sum();
    // On top of the disk: the probing of the format.
    assert!(total >= size && total <= size + (1 << 20), "{total} bytes");
    assert!(counts.len() < 32 + 16, "{} requests", counts.len());
}

/// An error of the server is told; no output is left.
fn an_error_of_the_server_ends_the_command() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let (path, _) = disk(folder.path());
    let errors = ["--filter=error", "file", &path, "error-pread=EIO", "error-pread-rate=100%"];
    let server = Server::nbdkit(&errors);
    let failed = run(folder.path(), &["convert", "--format", "raw", &server.uri(), "new.qcow2"]);
    assert!(!failed.status.success());
    let text = stderr(&failed);
    assert!(text.contains("cannot read the export: the NBD server reports: input/output error"), "{text}");
    assert!(text.contains(&server.uri()) && !text.contains("the file"), "{text}");
    assert!(!folder.path().join("new.qcow2").exists());
}

/// What would replace an export unasked, and every URI that is not understood.
fn refusals_have_names() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let (path, before) = disk(folder.path());
    std::fs::create_dir(folder.path().join("drivers")).unwrap();
    let server = Server::nbdkit(&["file", &path]);
    let uri = server.uri();
    for (arguments, code) in [
        (&["convert", "disk.raw", "nbd://localhost/x", "-O", "raw"][..], "output-exists"),
        (&["convert", "disk.raw", "nbd://localhost/x"], "output-exists"),
        (&["inject", "disk.raw", "--drivers", "drivers", "-O", "raw", "-o", "nbd://localhost/x"], "output-exists"),
        (&["undo", &uri], "nbd-file-needed"),
        (&["inspect", "nbds://localhost/x"], "nbd-tls"),
        (&["inspect", "nbd:unix:/s"], "nbd-uri"),
        (&["inspect", "nbd://localhost/?foo=1"], "nbd-uri"),
        (&["inspect", "nbd+unix:///?socket=/not/there"], "nbd-unreachable"),
    ] {
        let output = run(folder.path(), &[&["--json"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        assert!(!output.status.success() && text.contains(&format!("\"{code}\"")), "{arguments:?}: {text}");
    }
    assert!(std::fs::read(&path).unwrap() == before);
    let qemu = Server::qemu_nbd(&["-r", "-x", "one", "-f", "raw", &path]);
    let unknown = run(folder.path(), &["inspect", &qemu.export("two")]);
    assert!(stderr(&unknown).contains("it has no export \"two\""), "{}", stderr(&unknown));
}

/// An image inside an export refers to no files.
fn references_out_of_an_export_are_refused() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let (path, _) = disk(folder.path());
    let top = folder.path().join("top.qcow2").to_str().unwrap().to_owned();
    qemu_img(&["create", "-f", "qcow2", "-b", &path, "-F", "raw", &top]);
    let inside = Server::nbdkit(&["-r", "file", &top]);
    let refused = run(folder.path(), &["image", "map", &inside.uri()]);
    assert!(stderr(&refused).contains("an NBD export has no folder"), "{}", stderr(&refused));
    let outside = Server::qemu_nbd(&["-r", "-f", "qcow2", &top]);
    assert!(run(folder.path(), &["image", "map", &outside.uri()]).status.success());
}

/// The hint for a disk in several files names a way that exists for an export.
fn a_disk_in_several_files_gets_a_hint_that_works() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let (path, _) = disk(folder.path());
    let disk = folder.path().join("flat.vmdk").to_str().unwrap().to_owned();
    qemu_img(&["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", &path, &disk]);
    let server = Server::nbdkit(&["-r", "file", &disk]);
    let refused = run(folder.path(), &["image", "map", &server.uri()]);
    let text = stderr(&refused);
    assert!(text.contains("let the server open the chain of images: qemu-nbd -r -t"), "{text}");
    assert!(!text.contains("--allow-path"), "{text}");
    let outside = Server::qemu_nbd(&["-r", "-f", "vmdk", &disk]);
    assert!(run(folder.path(), &["image", "map", &outside.uri()]).status.success());
}

/// A batch tries again what a server that does not run left undone, and not what it refuses.
fn a_batch_tries_again_without_a_server() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let (path, _) = disk(folder.path());
    let batch = |uri: &str| run(folder.path(), &["batch", "inspect", uri]).status.code();
    assert_eq!(batch("nbd+unix:///?socket=/not/there"), Some(75));
    let server = Server::qemu_nbd(&["-r", "-x", "one", "-f", "raw", &path]);
    assert_eq!(batch(&server.export("two")), Some(1));
}

/// What passes a network in the clear is told by every command that reads it.
fn clear_text_is_told() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    // No server has to be there for a name that is not of this host; this one is not reached.
    let uri = "nbd://192.0.2.1:1/e";
    for arguments in [&["image", "info", uri][..], &["image", "map", uri]] {
        let mut command = winject();
        let child = command.args(arguments).current_dir(folder.path()).stderr(std::process::Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stderr.take().unwrap()), &mut line).unwrap();
        assert!(line.contains("is read without encryption"), "{arguments:?}: {line}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The connection ends in the middle, and the server is there again.
fn a_lost_connection_is_made_again() {
    if !has_servers() {
        return;
    }
    let folder = folder();
    let (path, mut bytes) = disk(folder.path());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let server = Server::qemu_nbd(&["-r", "-f", "raw", &path]);
    let (socket, uri) = (server.socket().to_owned(), server.uri());
    let image = open_uri(&uri);
    drop(server);
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let mut again = std::process::Command::new("qemu-nbd");
    again.args(["-t", "-e", "4", "-r", "-f", "raw", "-k"]).arg(&socket).arg(&path);
    let mut again = again.spawn().unwrap();
    assert!(read_all(&*image) == bytes);
    again.kill().unwrap();
    again.wait().unwrap();
    std::fs::remove_dir_all(socket.parent().unwrap()).unwrap();
}

tests![
    content_is_that_of_the_file,
    requests_keep_to_the_unit_of_the_server,
    containers_are_read_on_either_side,
    conversion_is_that_of_the_file,
    conversion_reads_each_byte_once,
    an_error_of_the_server_ends_the_command,
    refusals_have_names,
    references_out_of_an_export_are_refused,
    a_disk_in_several_files_gets_a_hint_that_works,
    a_batch_tries_again_without_a_server,
    clear_text_is_told,
    a_lost_connection_is_made_again,
];
