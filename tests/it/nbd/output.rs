//! Whole disks that are written to exports, judged by what the server's file holds afterwards.

use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use super::Server;
use crate::formats::qemu_img;
use crate::inject::{
    disk_sha256, expected_fixture, fixture_drivers, folder, names, stderr, stdout, winject, writable_fixture,
};
use crate::support;
use winject::internals::block::Format;
use winject::internals::random::Random;

/// Bytes of the disk that is copied: not a multiple of any server's unit.
const SIZE: usize = (9 << 20) + 512;
/// What an export holds before.
const OLD: u8 = 0xA5;
/// Bytes that are written last.
const FIRST: usize = 64 << 10;

pub(super) struct Bench {
    folder: tempfile::TempDir,
    pub(super) disk: Vec<u8>,
}

impl Bench {
    /// A disk of data and holes; `None` where a server is missing.
    pub(super) fn new() -> Option<Self> {
        ["nbdkit", "qemu-nbd", "qemu-img"].iter().all(|name| support::program(name).is_some()).then(|| {
            let mut random = Random::new(11);
            let mut disk = vec![0; SIZE];
            random.fill(&mut disk[..4 << 10]);
            for (start, end) in
                [(0x20_0000, 0x21_0000), (0x30_1000, 0x30_2000), (0x40_0000, 0x68_3000), (SIZE - 100, SIZE)]
            {
                random.fill(&mut disk[start..end]);
            }
            let folder = folder();
            std::fs::write(folder.path().join("in.raw"), &disk).unwrap();
            Self { folder, disk }
        })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file for a server, full of something else.
    pub(super) fn old(&self, size: usize) -> String {
        std::fs::write(self.at("served"), vec![OLD; size]).unwrap();
        self.at("served").to_str().unwrap().to_owned()
    }

    pub(super) fn held(&self) -> Vec<u8> {
        std::fs::read(self.at("served")).unwrap()
    }

    pub(super) fn command(&self, arguments: &[&str]) -> std::process::Command {
        let winject = winject();
        let mut command = std::process::Command::new("env");
        command.arg("--default-signal").arg(winject.get_program()).args(arguments);
        command.envs(winject.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("WINJECT_JOURNALS", self.at("journals")).current_dir(self.folder.path());
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn convert(&self, uri: &str) -> Output {
        self.run(&["convert", "-f", "raw", "in.raw", uri, "--overwrite"])
    }
}

pub(super) fn ok(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}: {}{}", stdout(output), stderr(output));
}

const UNITS_OF_4096: &[&str] = &[
    "--filter=blocksize-policy",
    "file",
    "blocksize-minimum=4096",
    "blocksize-preferred=65536",
    "blocksize-maximum=64k",
    "blocksize-error-policy=error",
];

/// Whatever the server offers: each byte of the disk is there, and what lies after its end is as it was.
fn an_export_holds_the_disk_and_what_follows_it() {
    let Some(bench) = Bench::new() else { return };
    let room = SIZE.next_multiple_of(4096) + (1 << 20);
    for (number, options) in
        [&["file"][..], &["--no-sr", "--filter=nozero", "file"], &["--filter=nozero", "file"], UNITS_OF_4096]
            .into_iter()
            .enumerate()
    {
        for size in [SIZE, room] {
            if size == SIZE && options == UNITS_OF_4096 {
                // The server would not export the end of such a disk.
                continue;
            }
            let path = bench.old(size);
            let server = Server::nbdkit(&[options, &[&path]].concat());
            let what = format!("{options:?}, {size} bytes");
            let mut arguments = vec!["convert", "-f", "raw", "in.raw"];
            let uri = server.uri();
            arguments.extend([uri.as_str(), "--overwrite", "--checksum"]);
            arguments.extend(if number == 1 { &["--threads", "1"][..] } else { &[] });
            let done = bench.run(&arguments);
            ok(&done, &what);
            drop(server);
            let held = bench.held();
            assert!(held[..SIZE] == bench.disk[..], "{what}: another disk");
            assert!(held.len() == size && held[SIZE..].iter().all(|byte| *byte == OLD), "{what}: what follows");
            assert_eq!(stderr(&done).contains("bytes longer than the disk"), size > SIZE, "{what}: {}", stderr(&done));
            let sum = support::run(std::process::Command::new("sha256sum").arg(bench.at("in.raw")));
            let sum = stdout(&sum).split(' ').next().unwrap().to_owned();
            assert!(stdout(&done).contains(&sum), "{what}: {}", stdout(&done));
            assert!(stdout(&done).contains(&uri), "{}", stdout(&done));
        }
    }
}

/// The injected disk, into a qcow2 that QEMU keeps and into a raw file.
fn an_injection_goes_to_an_export() {
    let Some(bench) = Bench::new() else { return };
    let image = writable_fixture(bench.folder.path(), Format::Qcow2);
    let image = image.to_str().unwrap();
    let size = winject::internals::block::open(Path::new(image), &Default::default()).unwrap().len().to_string();
    for format in ["qcow2", "raw"] {
        let new = bench.at(&format!("new.{format}")).to_str().unwrap().to_owned();
        qemu_img(&["create", "-q", "-f", format, &new, &size]);
        let server = Server::qemu_nbd(&["-f", format, &new]);
        let drivers = fixture_drivers();
        let uri = server.uri();
        let arguments =
            ["inject", image, "--drivers", drivers.to_str().unwrap(), "-o", &uri, "--overwrite", "--report", "r.json"];
        let done = bench.run(&arguments);
        ok(&done, format);
        assert!(stdout(&done).contains(&format!("Output:   {uri}")), "{}", stdout(&done));
        assert!(std::fs::read_to_string(bench.at("r.json")).unwrap().contains(&uri));
        assert!(stderr(&done).contains("up to the server"), "{}", stderr(&done));
        drop(server);
        assert_eq!(disk_sha256(Path::new(&new)), expected_fixture(), "{format}");
        if format == "qcow2" {
            qemu_img(&["check", "-q", "-f", format, &new]);
        }
        std::fs::remove_file(bench.at("r.json")).unwrap();
    }
    let new = bench.at("copy.qcow2").to_str().unwrap().to_owned();
    qemu_img(&["create", "-q", "-f", "qcow2", &new, &size]);
    let server = Server::qemu_nbd_for_one(&["-f", "qcow2", &new]);
    ok(&bench.run(&["convert", image, &server.uri(), "--overwrite", "-O", "raw"]), "convert");
    drop(server);
    qemu_img(&["compare", "-q", image, &new]);
}

/// What must not be overwritten is refused by name, and is as it was.
fn refusals_leave_the_export_as_it_was() {
    let Some(bench) = Bench::new() else { return };
    let refused = |server: &Server, code: &str, arguments: &[&str]| {
        let before = bench.held();
        let uri = server.uri();
        let arguments: Vec<&str> = arguments.iter().map(|text| if *text == "URI" { &uri } else { *text }).collect();
        let output = bench.run(&[&arguments[..], &["--json"]].concat());
        let text = stdout(&output) + &stderr(&output);
        assert!(!output.status.success() && text.contains(&format!("\"{code}\"")), "{code}: {text}");
        assert!(bench.held() == before, "{code}");
    };
    let convert = ["convert", "-f", "raw", "in.raw", "URI", "--overwrite"];
    let path = bench.old(SIZE);
    refused(&Server::nbdkit(&["-r", "file", &path]), "nbd-read-only", &convert);
    refused(&Server::nbdkit_without_flush(&path), "nbd-no-flush", &convert);
    let server = Server::nbdkit(&["file", &path]);
    refused(&server, "output-exists", &convert[..5]);
    refused(&server, "output-name", &[&convert[..], &["-O", "qcow2"]].concat());
    refused(&server, "output-is-input", &["convert", "-f", "raw", "URI", "URI", "--overwrite"]);
    drop(server);
    bench.old(SIZE - 512);
    refused(&Server::nbdkit(&["file", &path]), "nbd-too-small", &convert);
    // Under another name, the export is the input: the file itself, and one that is served twice.
    std::fs::write(bench.at("served"), &bench.disk).unwrap();
    let server = Server::nbdkit(&["file", &path]);
    refused(&server, "output-is-input", &["convert", "-f", "raw", "served", "URI", "--overwrite"]);
    let second = Server::nbdkit(&["file", &path]);
    refused(&server, "output-is-input", &["convert", "-f", "raw", &second.uri(), "URI", "--overwrite"]);
    assert!(bench.held() == bench.disk);
}

/// A server that fails in the middle: the error says what is left, and the next run mends it.
fn a_failure_leaves_no_disk_and_is_mended_by_the_next_run() {
    let Some(bench) = Bench::new() else { return };
    let path = bench.old(SIZE);
    let trigger = bench.at("fail").to_str().unwrap().to_owned();
    for fault in ["error-pwrite-rate=100%", "error-zero-rate=100%", "error-pread-rate=60%"] {
        std::fs::write(bench.at("served"), vec![OLD; SIZE]).unwrap();
        let file = format!("{}-file={trigger}", fault.split("-rate").next().unwrap());
        // Of reads, the first ones are those that find out what the export is.
        std::fs::write(&trigger, b"").unwrap();
        let server =
            Server::nbdkit(&["--filter=error", "--filter=nozero", "file", &path, fault, &file, "zeromode=notrim"]);
        let failed = bench.convert(&server.uri());
        let said = stderr(&failed);
        std::fs::remove_file(&trigger).unwrap();
        assert_eq!(failed.status.code(), Some(7), "{fault}: {said}");
        let is_old = bench.held().iter().all(|byte| *byte == OLD);
        assert_eq!(said.contains("holds an incomplete copy; run the command again"), !is_old, "{fault}: {said}");
        assert!(bench.held()[..FIRST] != bench.disk[..FIRST], "{fault}");
        ok(&bench.convert(&server.uri()), fault);
        drop(server);
        assert!(bench.held() == bench.disk, "{fault}");
    }
}

/// A server that confirms writes and forgets them is found out.
fn a_server_that_forgets_what_it_confirmed_is_found_out() {
    let Some(bench) = Bench::new() else { return };
    let server = Server::nbdkit(&["null", &format!("size={SIZE}")]);
    let failed = bench.convert(&server.uri());
    let said = stderr(&failed);
    assert!(failed.status.code() == Some(7) && said.contains("does not hold what was written"), "{said}");
    assert!(said.contains("holds an incomplete copy; run the command again"), "{said}");
}

/// A command that is interrupted or killed in the middle leaves neither a partition table nor its backup, and what is left is
/// called by its name.
fn an_interruption_leaves_no_disk() {
    let Some(bench) = Bench::new() else { return };
    for (signal, number) in [("TERM", 15), ("KILL", 9)] {
        let path = bench.old(SIZE);
        let server = Server::nbdkit(&["--filter=delay", "file", &path, "delay-write=1500ms", "delay-zero=1500ms"]);
        let uri = server.uri();
        let mut command = bench.command(&["convert", "-f", "raw", "in.raw", &uri, "--overwrite"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        let file = std::fs::File::open(&path).unwrap();
        let mut end = [OLD; 1];
        while end == [OLD] {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing was written");
            std::thread::sleep(Duration::from_millis(20));
            file.read_exact_at(&mut end, SIZE as u64 - 1).unwrap();
        }
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        support::run(std::process::Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]));
        let output = child.wait_with_output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{signal}: {:?}", begun.elapsed());
        assert_eq!(output.status.signal(), Some(number), "{}", stderr(&output));
        let said = stderr(&output);
        assert_eq!(
            said.contains(&format!("{uri} holds an incomplete copy; run the command again")),
            number == 15,
            "{said}"
        );
        drop(server);
        let held = bench.held();
        assert!(held.starts_with(b"winject: an incomplete copy") && held[510..FIRST].iter().all(|byte| *byte == 0));
        assert!(held[SIZE / FIRST * FIRST..].iter().all(|byte| *byte == 0), "{signal}: the end");
        let opened = bench.run(&["inspect", &path]);
        assert!(opened.status.code() == Some(5) && stderr(&opened).contains("nbd-incomplete"), "{}", stderr(&opened));
        let server = Server::nbdkit(&["file", &path]);
        ok(&bench.convert(&server.uri()), signal);
        drop(server);
        assert!(bench.held() == bench.disk, "{signal}");
        let is_journal = |name: &String| name.ends_with("-journal");
        assert!(!bench.at("journals").is_dir() || !names(&bench.at("journals")).iter().any(is_journal));
    }
}

tests![
    an_export_holds_the_disk_and_what_follows_it,
    an_injection_goes_to_an_export,
    refusals_leave_the_export_as_it_was,
    a_failure_leaves_no_disk_and_is_mended_by_the_next_run,
    a_server_that_forgets_what_it_confirmed_is_found_out,
    an_interruption_leaves_no_disk,
];
