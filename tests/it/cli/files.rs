//! Files of the user: what must not be written to, what must not be waited for.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::inject::{fixture, fixture_drivers, folder, stderr, winject};
use winject::internals::clock::FileTime;
use winject::internals::hive::{Hive, RegistryData};

const DRIVERS: &str = "drivers";

/// A folder with an image, a copy of the drivers, a hive and a `.reg` file.
fn setting() -> tempfile::TempDir {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(fixture(), at("i.qcow2")).unwrap();
    crate::support::run(Command::new("cp").arg("-r").arg(fixture_drivers()).arg(at(DRIVERS)));
    let now = FileTime::from_unix_seconds(1_700_000_000).unwrap();
    let mut hive = Hive::create("SYSTEM", now);
    let select = hive.create_key(hive.root(), "Select", now).unwrap();
    let one = RegistryData::dword(1);
    hive.set_value(select, "Current", &one, now).unwrap();
    std::fs::write(at("h"), hive.finish(&[]).unwrap()).unwrap();
    std::fs::write(at("h.reg"), "Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\SYSTEM\\x]\r\n")
        .unwrap();
    std::fs::write(at("defs.yaml"), "{}\n").unwrap();
    folder
}

/// Runs the program in the folder, for ten seconds at most; the exit code and the error output.
fn run(folder: &Path, arguments: &str) -> (i32, String) {
    let mut command = winject();
    command.args(arguments.split_whitespace()).current_dir(folder).stdin(Stdio::null());
    let errors = std::fs::File::create(folder.join(".errors")).unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(errors).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{arguments}: waits");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (status.code().unwrap(), std::fs::read_to_string(folder.join(".errors")).unwrap())
}

fn mkfifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// Whatever it is called, and with --overwrite too.
fn an_input_never_becomes_an_output() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    for name in ["i.qcow2", "h", "h.reg", "defs.yaml"] {
        symlink(name, at(&format!("link-{name}"))).unwrap();
        std::fs::hard_link(at(name), at(&format!("hard-{name}"))).unwrap();
    }
    std::fs::write(at("doc.qcow2"), "vmdk: i.qcow2\nvirtio_drivers_dir: drivers\nto_output: doc.qcow2\n").unwrap();
    std::fs::write(at("i.json.yaml"), "vmdk: i.qcow2\nvirtio_drivers_dir: drivers\ndry_run: true\nreport: i.json\n")
        .unwrap();
    std::fs::copy(at("i.qcow2"), at("i.json")).unwrap();
    let inject = "inject i.qcow2 --drivers drivers --overwrite --overlay";
    for arguments in [
        "reg export i.qcow2 HKLM\\SYSTEM\\Select --overwrite -o ./i.qcow2",
        "reg export i.qcow2 HKLM\\SYSTEM\\Select --overwrite -o link-i.qcow2",
        "reg query i.qcow2 HKLM\\SYSTEM\\Select --overwrite -o hard-i.qcow2",
        "reg export h Select --overwrite -o hard-h",
        "reg query link-h Select --overwrite -o h",
        "reg diff h hard-h --overwrite -o link-h",
        "reg import i.qcow2 h.reg --overwrite --overlay hard-h.reg",
        "reg set i.qcow2 HKLM\\SYSTEM\\x --overwrite --overlay hard-i.qcow2",
        "convert i.qcow2 hard-i.qcow2 --overwrite",
        "convert i.qcow2 link-i.qcow2 --overwrite",
        "convert i.qcow2 hard-defs.yaml -O raw --overwrite --inject drivers --definitions defs.yaml",
        "convert i.qcow2 drivers/../link-i.qcow2 --overwrite --inject drivers",
        &format!("{inject} ./i.qcow2"),
        &format!("{inject} hard-i.qcow2"),
        &format!("{inject} hard-defs.yaml --definitions defs.yaml"),
        &format!("{inject} drivers/viostor/w10/amd64/viostor.sys"),
        &format!("{inject} hard-h --trust-publisher h"),
        "inject i.json --drivers drivers --in-place --report i.json",
        "inject i.json --drivers drivers --in-place --report i.md",
        "inject i.qcow2 --drivers drivers --overlay o.json --report o.md",
        "inject i.qcow2 --drivers drivers --dry-run --report r.md --report r.json",
        "inject i.qcow2 --drivers drivers --dry-run --report r.md --report ./r.markdown",
        "--config doc.qcow2",
        "--config i.json.yaml",
    ] {
        let before = content(folder.path());
        let complaint = refused_untouched(folder.path(), arguments, &before);
        assert!(complaint.contains("Hint: "), "{arguments}: {complaint}");
    }
}

/// A backing file is an input, too.
fn a_file_that_the_image_names_never_becomes_an_output() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    assert_eq!(run(folder.path(), "inject i.qcow2 --drivers drivers --overlay top.qcow2").0, 0);
    std::fs::hard_link(at("i.qcow2"), at("hard.qcow2")).unwrap();
    std::fs::copy(fixture(), at("other.qcow2")).unwrap();
    let before = content(folder.path());
    for arguments in [
        "convert top.qcow2 hard.qcow2 --overwrite",
        "inject top.qcow2 --drivers drivers --force --overwrite --overlay i.qcow2",
        "convert top.qcow2 hard.qcow2 --overwrite --inject drivers",
        "reg export top.qcow2 HKLM\\SYSTEM\\Select --overwrite -o hard.qcow2",
        "reg set top.qcow2 HKLM\\SYSTEM\\x --overwrite --overlay hard.qcow2",
        // Texts are outputs, too, also those of a dry run; and every disk of the machine needs its files.
        "check top.qcow2 --machine qemu --machine-output i.qcow2 --overwrite",
        "check other.qcow2 top.qcow2 --machine qemu --machine-output i.qcow2 --overwrite",
        "inject top.qcow2 --drivers drivers --dry-run --machine qemu --machine-output i.qcow2 --overwrite",
        "inject top.qcow2 --drivers drivers --in-place --machine qemu --machine-output i.qcow2",
        "plan top.qcow2 --drivers drivers -o hard.qcow2 --overwrite",
        "inject other.qcow2 top.qcow2 --drivers drivers --overwrite -o i.qcow2",
        "inject other.qcow2 top.qcow2 --drivers drivers --overwrite -o i.qcow2 -n",
    ] {
        refused_untouched(folder.path(), arguments, &before);
    }
}

/// Runs the program and demands that it refuses (2), and that all files are as they were.
fn refused_untouched(folder: &Path, arguments: &str, before: &[(String, Vec<u8>)]) -> String {
    let (code, complaint) = run(folder, arguments);
    assert_eq!(code, 2, "{arguments}: {complaint}");
    assert!(content(folder) == before, "{arguments}: something was written");
    complaint
}

/// A lost key is a lost volume.
fn a_key_file_never_becomes_an_output() {
    let folder = setting();
    std::fs::write(folder.path().join("key"), "the only copy\n").unwrap();
    let before = content(folder.path());
    for arguments in [
        "check i.qcow2 --machine qemu --machine-output key --overwrite",
        "inject i.qcow2 --drivers drivers -O raw -o key --overwrite",
        "reg export i.qcow2 HKLM\\SYSTEM\\Select -o key --overwrite",
        "reg query i.qcow2 HKLM\\SYSTEM\\Select -o key --overwrite",
        "reg set i.qcow2 HKLM\\SYSTEM\\x -O raw -o key --overwrite",
        "reg delete i.qcow2 HKLM\\SYSTEM\\Select --overlay key --overwrite",
        "reg import i.qcow2 h.reg -O raw -o key --overwrite",
        "ntfs-log replay i.qcow2 -O raw -o key --overwrite",
        "cp --overwrite i.qcow2 /Windows/System32/config/SYSTEM key",
    ] {
        for option in ["--bitlocker-volume-key", "--bitlocker-password"] {
            refused_untouched(folder.path(), &format!("{arguments} {option} key"), &before);
        }
    }
}

/// The signal of a file that may not grow would end the process without a word.
fn standard_output_at_the_limit_of_file_sizes_is_an_error() {
    let folder = setting();
    let program = env!("CARGO_BIN_EXE_winject");
    for arguments in ["explain --list", "inject i.qcow2 --drivers drivers -n -v"] {
        let line = format!("ulimit -f 1; '{program}' {arguments} > answer");
        let output = Command::new("bash").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{arguments}: {}", stderr(&output));
    }
}

/// Names and bytes of the files in a folder and one of its driver files.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !path.ends_with(".errors"))
        .chain([folder.join("drivers/viostor/w10/amd64/viostor.sys")])
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap_or_default()))
        .collect();
    files.sort();
    files
}

fn an_existing_file_is_replaced_on_request_only() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    for arguments in [
        "reg query h Select -o notes",
        "reg export h Select -o notes",
        "reg diff h h -o notes",
        "reg set i.qcow2 HKLM\\SYSTEM\\x --overlay notes",
        "convert i.qcow2 notes -O qcow2",
        "convert i.qcow2 notes -O raw --drivers drivers",
        "inject i.qcow2 --drivers drivers --overlay notes",
        "inject i.qcow2 --drivers drivers -O qcow2 --output notes",
        "remove i.qcow2 -O qcow2 -o notes",
        "ntfs-log replay i.qcow2 -O qcow2 -o notes",
        "reg set i.qcow2 HKLM\\SYSTEM\\x -O qcow2 -o notes",
    ] {
        std::fs::write(at("notes"), "my notes").unwrap();
        let (code, complaint) = run(folder.path(), arguments);
        assert_eq!(code, 2, "{arguments}: {complaint}");
        assert!(complaint.contains("--overwrite"), "{arguments}: {complaint}");
        assert_eq!(std::fs::read(at("notes")).unwrap(), b"my notes", "{arguments}");
        let (code, complaint) = run(folder.path(), &format!("{arguments} --overwrite"));
        assert_eq!(code, 0, "{arguments}: {complaint}");
        assert_ne!(std::fs::read(at("notes")).unwrap(), b"my notes", "{arguments}");
    }
    for (arguments, words) in [
        ("reg export h Select -o -", "standard output"),
        ("convert i.qcow2 -", "standard output"),
        ("inject i.qcow2 --drivers drivers --overlay -", "standard output"),
        ("inject i.qcow2 --drivers drivers -o -", "standard output"),
        ("inject i.qcow2 --drivers drivers -n -o -", "standard output"),
        ("reg set i.qcow2 HKLM\\SYSTEM\\x -o -", "standard output"),
        ("ntfs-log replay i.qcow2 -o -", "standard output"),
        ("remove i.qcow2 -o -", "standard output"),
        ("reg export h Select --overwrite -o drivers", "a folder"),
        ("convert -O raw i.qcow2 /dev/null --overwrite", "not a regular file"),
        ("reg export h Select -o i.qcow2.winject-journal", "journals"),
    ] {
        let (code, complaint) = run(folder.path(), arguments);
        assert_eq!(code, 2, "{arguments}: {complaint}");
        assert!(complaint.contains(words), "{arguments}: {complaint}");
    }
    assert!(!at("-").exists());
}

fn a_report_replaces_reports_only() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    let dry = "inject i.qcow2 --drivers drivers --dry-run --report r.md";
    for name in ["r.md", "r.json"] {
        for foreign in ["", "{\"schema\": \"mine\"}", "# Driver injection report\n\nof another program\n"] {
            std::fs::write(at(name), foreign).unwrap();
            assert_eq!(run(folder.path(), dry).0, 2, "{name} {foreign:?}");
            assert_eq!(std::fs::read_to_string(at(name)).unwrap(), foreign);
            std::fs::remove_file(at(name)).unwrap();
        }
    }
    for _ in 0..2 {
        assert_eq!(run(folder.path(), dry).0, 0);
    }
    // A failure is reported over it; a usage error is not.
    let [md, json] = ["r.md", "r.json"].map(|name| std::fs::read(at(name)).unwrap());
    std::fs::write(at("bad.yaml"), "drivers: [").unwrap();
    for more in ["--definitions bad.yaml", "--definitions drivers", "--report x.doc", "--report missing/r.md"] {
        assert_eq!(run(folder.path(), &format!("{dry} {more}")).0, 2, "{more}");
        assert!([&md, &json] == [&std::fs::read(at("r.md")).unwrap(), &std::fs::read(at("r.json")).unwrap()], "{more}");
    }
    assert_eq!(run(folder.path(), "inject i.qcow2 --drivers /nowhere --dry-run --report r.md").0, 6);
    assert!(md != std::fs::read(at("r.md")).unwrap());
}

fn links_are_followed_if_they_are_ones_own() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("else")).unwrap();
    for (number, arguments) in
        ["convert -O raw i.qcow2", "inject i.qcow2 --drivers drivers --overlay", "reg export h Select -o"]
            .into_iter()
            .enumerate()
    {
        let (link, target) = (format!("link{number}"), at(&format!("else/file{number}")));
        symlink(&target, at(&link)).unwrap();
        for overwrite in ["", "--overwrite"] {
            let (code, complaint) = run(folder.path(), &format!("{arguments} {link} {overwrite}"));
            assert_eq!(code, 0, "{arguments}: {complaint}");
            assert!(at(&link).is_symlink() && target.is_file(), "{arguments}");
        }
        // The link of another user must not choose which file is replaced.
        if std::os::unix::fs::lchown(at(&link), Some(4321), None).is_ok() {
            let before = std::fs::read(&target).unwrap();
            let (code, complaint) = run(folder.path(), &format!("{arguments} {link} --overwrite"));
            assert_eq!(code, 2, "{arguments}: {complaint}");
            assert!(std::fs::read(&target).unwrap() == before);
        }
    }
    // The overlay names its backing file from where it is, not from where the link is.
    assert_eq!(run(folder.path(), "inspect else/file1 --allow-path .").0, 0);
}

fn what_is_made_of_a_private_file_is_private() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    let mode = |name: &str| at(name).metadata().unwrap().permissions().mode() & 0o777;
    let chmod = |name: &str, mode: u32| std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
    assert_eq!(run(folder.path(), "inject i.qcow2 --drivers drivers --overlay top.qcow2").0, 0);
    chmod("top.qcow2", 0o644);
    chmod("h", 0o600);
    // The backing file of an image counts, too.
    chmod("i.qcow2", 0o600);
    assert_eq!(run(folder.path(), "inject top.qcow2 --drivers drivers --dry-run --report r.md").0, 0);
    assert_eq!(run(folder.path(), "reg export top.qcow2 HKLM\\SYSTEM\\Select -o e.reg").0, 0);
    assert_eq!(run(folder.path(), "reg export h Select -o h2.reg").0, 0);
    assert_eq!(run(folder.path(), "convert top.qcow2 c.qcow2").0, 0);
    for name in ["r.md", "r.json", "e.reg", "h2.reg", "c.qcow2"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    // The group of another file says nothing about ours.
    chmod("i.qcow2", 0o640);
    if std::os::unix::fs::chown(at("i.qcow2"), None, Some(4321)).is_ok() {
        assert_eq!(run(folder.path(), "convert i.qcow2 g.qcow2").0, 0);
        assert_eq!(mode("g.qcow2"), 0o600);
    }
    // Whatever is written obeys the umask, too; a hive that is changed keeps its permissions.
    chmod("i.qcow2", 0o644);
    chmod("h", 0o644);
    let winject = env!("CARGO_BIN_EXE_winject");
    let script = [
        "umask 077",
        &format!("{winject} inject i.qcow2 --drivers drivers --overlay u.qcow2 --report u.md"),
        &format!("{winject} convert i.qcow2 u2.qcow2 --inject drivers"),
        &format!("{winject} convert i.qcow2 u3.raw"),
        &format!("{winject} reg export h Select -o u.reg"),
        &format!("{winject} reg set h new"),
    ];
    let script = script.join(" && ");
    crate::support::run(Command::new("sh").args(["-c", &script]).current_dir(folder.path()));
    for name in ["u.md", "u.json", "u.qcow2", "u2.qcow2", "u3.raw", "u.reg"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode("h"), 0o644);
}

fn nothing_is_waited_for_or_read_without_end() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    mkfifo(&at("p"));
    mkfifo(&at("p.json"));
    symlink("p", at("link")).unwrap();
    symlink("/dev/zero", at("zero")).unwrap();
    std::fs::create_dir(at("media")).unwrap();
    mkfifo(&at("media/viostor.inf"));
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::fs::File::create(at("big")).unwrap().set_len(20 << 30).unwrap();
    std::fs::copy(at("h"), at("h3")).unwrap();
    mkfifo(&at("h3.LOG1"));
    for name in ["p", "link", "zero", "socket", "drivers"] {
        for (code, arguments) in [
            (4, "inspect X"),
            (4, "fsck X"),
            (4, "check X"),
            (4, "convert X out.qcow2"),
            (4, "image info X"),
            (4, "image check X"),
            (4, "image map X"),
            (4, "reg query X Select"),
            (4, "reg set X Select"),
            (4, "reg check X"),
            (4, "inject X --drivers drivers --in-place"),
            (2, "inject i.qcow2 --drivers drivers --dry-run --definitions X"),
            (2, "inject i.qcow2 --drivers drivers --dry-run --trust-publisher X"),
            (2, "drivers list drivers --definitions X"),
            (2, "--config X"),
            (2, "reg import h X"),
            (2, "reg import i.qcow2 X --in-place"),
        ] {
            let (found, complaint) = run(folder.path(), &arguments.replace('X', name));
            assert_eq!(found, code, "{arguments} {name}: {complaint}");
        }
    }
    for (code, arguments) in [
        (6, "drivers list p"),
        (6, "drivers list zero"),
        (6, "inject i.qcow2 --drivers socket --dry-run"),
        (6, "inject i.qcow2 --drivers media --dry-run"),
        (2, "inject i.qcow2 --drivers drivers --dry-run --report p.json"),
        (7, "reg export h Select -o p"),
        (4, "reg query h3 Select"),
        (2, "--config big"),
        (2, "inject i.qcow2 --drivers drivers --dry-run --definitions big"),
        (2, "inject i.qcow2 --drivers drivers --dry-run --trust-publisher big"),
        (2, "reg import h big"),
    ] {
        let (found, complaint) = run(folder.path(), arguments);
        assert_eq!(found, code, "{arguments}: {complaint}");
        assert!(!arguments.ends_with(" big") || complaint.contains("iB"), "the limit is named: {complaint}");
    }
}

/// A script goes by the exit code.
fn an_answer_that_cannot_be_printed_is_an_error() {
    let folder = setting();
    for arguments in [
        "inspect i.qcow2",
        "inspect i.qcow2 --json",
        "check i.qcow2",
        "fsck i.qcow2",
        "image info i.qcow2",
        "image check i.qcow2 --json",
        "image map i.qcow2",
        "drivers list drivers",
        "reg query h Select",
        "reg export h Select",
        "reg check h",
        "reg set h new",
        "convert i.qcow2 out.qcow2 --checksum",
        "inject i.qcow2 --drivers drivers --dry-run",
        "--help",
        "inject --help",
        "--version",
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = winject().args(arguments.split(' ')).current_dir(folder.path()).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{arguments}: {}", stderr(&output));
        assert!(stderr(&output).contains("standard output"), "{arguments}: {}", stderr(&output));
        // A reader that goes away is not an error.
        let mut child = winject()
            .args(arguments.replace("out.qcow2", "two.qcow2").split(' '))
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 1)), "{arguments}: {code:?}");
    }
}

/// Without standard output (`>&-`) the first file that is opened must not take its place and get the answer.
fn a_closed_standard_output_is_no_output_file() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    let close = |arguments: &str| {
        let mut command = Command::new("sh");
        command.current_dir(folder.path()).args(["-c", &format!("exec \"$0\" {arguments} >&-")]);
        let code = command.arg(env!("CARGO_BIN_EXE_winject")).output().unwrap().status.code();
        assert_eq!(code, Some(0), "{arguments}");
    };
    let (code, complaint) = run(folder.path(), "reg export h Select -o open.reg");
    assert_eq!(code, 0, "{complaint}");
    close("reg export h Select -o closed.reg");
    assert_eq!(std::fs::read(at("open.reg")).unwrap(), std::fs::read(at("closed.reg")).unwrap());
    close("convert i.qcow2 closed.qcow2 --checksum");
    assert!(std::fs::read(at("closed.qcow2")).unwrap().starts_with(b"QFI\xfb"));
    let image = std::fs::read(at("i.qcow2")).unwrap();
    close("inject i.qcow2 --drivers drivers --dry-run --report closed.json");
    assert_eq!(image, std::fs::read(at("i.qcow2")).unwrap());
    serde_json::from_slice::<serde_json::Value>(&std::fs::read(at("closed.json")).unwrap()).unwrap();
}

fn the_name_of_an_output_decides_its_format() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    let document = |output: &str| format!("vmdk: i.qcow2\nvirtio_drivers_dir: drivers\nto_output: {output}\n");
    std::fs::write(at("raw.yaml"), document("d.raw")).unwrap();
    std::fs::write(at("option.yaml"), document("e.img") + "out_format: qcow2\n").unwrap();
    for (arguments, out, is_qcow2) in [
        ("convert i.qcow2 a.raw", "a.raw", false),
        ("convert i.qcow2 a.IMG", "a.IMG", false),
        ("convert a.raw a.qcow2", "a.qcow2", true),
        ("convert -O qcow2 i.qcow2 a.other", "a.other", true),
        ("convert i.qcow2 b.raw -O qcow2", "b.raw", true),
        ("convert i.qcow2 b.qcow2 -O raw", "b.qcow2", false),
        ("convert i.qcow2 c.raw --inject drivers", "c.raw", false),
        ("inject i.qcow2 --drivers drivers --output g.img", "g.img", false),
        ("reg set i.qcow2 HKLM\\SYSTEM\\x -o h.img", "h.img", false),
        ("ntfs-log replay i.qcow2 -o l.qcow2", "l.qcow2", true),
        ("--config raw.yaml", "d.raw", false),
        ("--config option.yaml", "e.img", true),
    ] {
        let (code, complaint) = run(folder.path(), arguments);
        assert_eq!(code, 0, "{arguments}: {complaint}");
        assert_eq!(std::fs::read(at(out)).unwrap().starts_with(b"QFI\xfb"), is_qcow2, "{arguments}");
    }
    for arguments in [
        "inject i.qcow2 --drivers drivers --overlay f.raw",
        "inject i.qcow2 --drivers drivers --overlay f.IMG",
        "reg set i.qcow2 HKLM\\SYSTEM\\x --overlay f.raw",
        "convert i.qcow2 f.raw --compress",
        "convert i.qcow2 f.raw -c",
        "convert i.qcow2 f",
        "inject i.qcow2 --drivers drivers -o f",
        "inject i.qcow2 --drivers drivers -o f.vmdk",
        "inject i.qcow2 --drivers drivers --overlay f.vhdx",
        "ntfs-log replay i.qcow2 --overlay f.vdi",
        "reg set i.qcow2 HKLM\\SYSTEM\\x -o f",
    ] {
        let (code, complaint) = run(folder.path(), arguments);
        assert_eq!(code, 2, "{arguments}: {complaint}");
        assert!(
            ["f", "f.raw", "f.IMG", "f.vmdk", "f.vhdx", "f.vdi"].iter().all(|name| !at(name).exists()),
            "{arguments}"
        );
    }
}

fn no_change_of_parallel_runs_is_lost() {
    let folder = setting();
    let count = 12;
    symlink("h", folder.path().join("link")).unwrap();
    let children: Vec<_> = (0..count)
        .map(|i| {
            let mut command = winject();
            let name = if i % 2 == 0 { "h" } else { "link" };
            command.args(["reg", "set", "-q", name, &format!("K{i}")]).current_dir(folder.path());
            command.stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let codes: Vec<_> = children.into_iter().map(|mut child| child.wait().unwrap().code()).collect();
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 3))), "{codes:?}");
    let output = winject().args(["reg", "query", "h", ""]).current_dir(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for (i, code) in codes.iter().enumerate() {
        assert_eq!(
            text.lines().any(|line| line == format!("\\K{i}") || line == format!("K{i}")),
            *code == Some(0),
            "K{i}"
        );
    }
}

tests![
    an_input_never_becomes_an_output,
    a_file_that_the_image_names_never_becomes_an_output,
    a_key_file_never_becomes_an_output,
    standard_output_at_the_limit_of_file_sizes_is_an_error,
    an_existing_file_is_replaced_on_request_only,
    a_report_replaces_reports_only,
    links_are_followed_if_they_are_ones_own,
    what_is_made_of_a_private_file_is_private,
    nothing_is_waited_for_or_read_without_end,
    an_answer_that_cannot_be_printed_is_an_error,
    a_closed_standard_output_is_no_output_file,
    the_name_of_an_output_decides_its_format,
    no_change_of_parallel_runs_is_lost,
];
