//! One grammar: the same options, the same refusals and the same exit codes in every command.

use std::path::Path;
use std::process::Command;

use super::answer;
use crate::inject::{fixture, fixture_drivers, folder, names, stderr, stdout, winject};

/// A folder with an image, drivers, a plan of both, and a `.reg` file.
pub(super) fn setting() -> tempfile::TempDir {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(fixture(), at("i.qcow2")).unwrap();
    std::os::unix::fs::symlink(fixture_drivers(), at("drivers")).unwrap();
    std::fs::write(at("h.reg"), "Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\SYSTEM\\x]\r\n")
        .unwrap();
    let plan = ["plan", "i.qcow2", "--drivers", "drivers", "-o", "p.json", "-q"];
    assert!(answer(folder.path(), &plan).status.success());
    folder
}

/// Copies the hive SYSTEM of the image to the folder.
pub(super) fn copy_system(folder: &Path) {
    assert!(answer(folder, &["cp", "i.qcow2", "/Windows/System32/config/SYSTEM", "SYSTEM"]).status.success());
}

/// The commands that change a disk, without a destination.
const CHANGES: [&str; 7] = [
    "inject X --drivers drivers",
    "apply p.json --image X --drivers drivers",
    "remove X",
    "ntfs-log replay X",
    r"reg set X HKLM\SYSTEM\winject --value a --data b",
    r"reg delete X HKLM\SYSTEM\Select",
    "reg import X h.reg",
];

/// The commands that look into a disk.
const QUESTIONS: [&str; 15] = [
    "inspect X",
    "check X",
    "fsck X",
    "ls X /",
    "cat X /Windows/System32/config/SYSTEM",
    "cp X /Windows/System32/config/SYSTEM copied",
    "diff X X",
    "ntfs-log show X",
    "image info X",
    "image map X",
    "plan X --drivers drivers",
    r"reg query X HKLM\SYSTEM\Select",
    r"reg export X HKLM\SYSTEM\Select -o exported.reg",
    "drivers list drivers --for X",
    "convert X converted.qcow2",
];

/// The arguments of a command line on this image.
pub(super) fn on<'a>(line: &'a str, image: &'a str) -> Vec<&'a str> {
    line.split_whitespace().map(|word| if word == "X" { image } else { word }).collect()
}

/// Runs it, demands this exit code and that nothing in the folder changed, and returns the error.
fn refused(folder: &Path, arguments: &[&str], code: i32) -> String {
    let before = (names(folder), std::fs::read(folder.join("i.qcow2")).unwrap());
    let output = answer(folder, arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(before == (names(folder), std::fs::read(folder.join("i.qcow2")).unwrap()), "{arguments:?}");
    text
}

fn the_same_fault_has_the_same_exit_code_in_every_command() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("letter.txt"), "Dear Sir or Madam").unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    let zeros = std::fs::File::create(at("zeros.raw")).unwrap();
    zeros.set_len(4 << 20).unwrap();
    let changes = CHANGES.iter().map(|line| format!("{line} --in-place"));
    let lines: Vec<String> = QUESTIONS.iter().map(|line| (*line).to_owned()).chain(changes).collect();
    let own = ["undo X", "undo X --dry-run", "undo X --forget", "recover X", "recover X --dry-run", "image check X"];
    for line in lines.iter().map(String::as_str).chain(own) {
        let missing = refused(folder.path(), &on(line, "missing.qcow2"), 7);
        assert!(missing.contains("missing.qcow2: cannot ") && missing.contains("No such file"), "{line}: {missing}");
        refused(folder.path(), &on(line, "folder"), 4);
    }
    // A raw image of zeros is one; it only has no volume.
    let is_about_the_container = |line: &&String| !line.starts_with("image") && !line.starts_with("convert");
    for line in &lines {
        refused(folder.path(), &on(line, "letter.txt"), 4);
    }
    for line in lines.iter().filter(is_about_the_container) {
        refused(folder.path(), &on(line, "zeros.raw"), 4);
    }
    for line in CHANGES {
        let text = refused(folder.path(), &on(line, "i.qcow2"), 2);
        assert!(text.contains("no destination given") && text.contains("-o NEW.qcow2"), "{line}: {text}");
    }
    std::fs::write(at("run.yaml"), "vmdk: i.qcow2\ndrivers: drivers\n").unwrap();
    let text = refused(folder.path(), &["--config", "run.yaml"], 2);
    assert!(text.contains("no destination given") && text.contains("to_output: NEW.qcow2"), "{text}");
    for line in ["inject X -n --drivers none", "plan X --drivers none", "convert X c.qcow2 --drivers none"] {
        refused(folder.path(), &on(line, "i.qcow2"), 6);
    }
    refused(folder.path(), &["drivers", "list", "none"], 6);
}

/// Files that are not disk images and not driver media.
fn an_input_that_is_missing_is_an_io_error() {
    let folder = setting();
    for line in [
        "--config none",
        "apply none --in-place",
        "plan --show none",
        "diff X --plan none",
        "reg import X none --in-place",
        "inject X -n --drivers drivers --definitions none",
        "inject X -n --drivers drivers --trust-publisher none",
        "inject X -n --drivers drivers --firstboot none.cmd",
        "inject X -n --drivers drivers --firstboot none.exe",
        r"inject X -n --drivers drivers --upload none=C:\T\none",
        "inject X -n --drivers drivers --bitlocker-password none",
        "inspect X --bitlocker-startup-key none",
    ] {
        let text = refused(folder.path(), &on(line, "i.qcow2"), 7);
        assert!(text.contains("No such file") || text.contains("no such file"), "{line}: {text}");
        assert!(text.contains("Hint: ") && !text.contains("os error"), "{line}: {text}");
    }
}

fn an_output_that_cannot_be_is_a_usage_error() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    for name in ["there.qcow2", "there.json", "there.html", "there.reg"] {
        std::fs::write(at(name), "mine").unwrap();
    }
    copy_system(folder.path());
    let mut lines = vec![
        ("convert X there.qcow2".to_owned(), "--overwrite"),
        ("convert X -n there.qcow2".to_owned(), "--overwrite"),
        ("plan X --drivers drivers -o there.json".to_owned(), "--overwrite"),
        ("plan X --drivers drivers --review there.html".to_owned(), "--overwrite"),
        (r"reg export X HKLM\SYSTEM\Select -o there.reg".to_owned(), "--overwrite"),
        ("cp X /Windows/System32/config/SYSTEM there.reg".to_owned(), "--overwrite"),
        ("convert X none/new.qcow2".to_owned(), "folder"),
        ("convert X -".to_owned(), "standard output"),
        ("plan X --drivers drivers -o none/p.json".to_owned(), "folder"),
    ];
    // A folder that does not exist, or that is a file, is the same fault in every command.
    for line in [
        "convert X F/new.qcow2",
        "convert X -n F/new.qcow2",
        "cp X /Windows/System32/config/SYSTEM F/copied",
        "cp -r X /Windows F/copied",
        r"reg query X HKLM\SYSTEM\Select -o F/r.txt",
        r"reg export X HKLM\SYSTEM\Select -o F/r.reg",
        r"reg diff X X HKLM\SYSTEM\Select -o F/r.reg",
        "reg export SYSTEM Select -o F/r.reg",
        "reg set SYSTEM Select -o F/new",
        "reg set SYSTEM Select -n -o F/new",
        "manual --output-dir F/pages",
        "plan X --drivers drivers -o F/p.json",
        "plan X --drivers drivers --review F/p.html",
        "inject X -n --drivers drivers --report F/r.md",
        "inject X -n --drivers drivers --machine qemu --machine-output F/m.sh",
        "check X --junit F/j.xml",
    ] {
        lines.extend(["none", "h.reg"].map(|place| (line.replace('F', place), "folder")));
    }
    for line in CHANGES {
        for (destination, word) in [
            ("--overlay there.qcow2", "--overwrite"),
            ("-o there.qcow2", "--overwrite"),
            ("-n --output there.qcow2", "--overwrite"),
            ("--overlay none/new.qcow2", "folder"),
            ("-o none/new.qcow2", "folder"),
            ("-n -o none/new.qcow2", "folder"),
            ("--overlay -", "standard output"),
            ("-o -", "standard output"),
            ("-o new.vmdk", "-O qcow2 or -O raw"),
            ("-o new", "-O qcow2 or -O raw"),
            ("-n -o new", "-O qcow2 or -O raw"),
            ("--overlay new.img", "overlay is a qcow2 file"),
            ("--overlay i.qcow2 --overwrite", "same file as the input image"),
            ("-o i.qcow2 --overwrite", "same file as the input image"),
        ] {
            lines.push((format!("{line} {destination}"), word));
        }
    }
    for (line, word) in lines {
        let text = refused(folder.path(), &on(&line, "i.qcow2"), 2);
        assert!(text.contains(word) && text.contains("Hint: "), "{line}: {text}");
    }
    for name in ["there.qcow2", "there.json", "there.html", "there.reg"] {
        assert_eq!(std::fs::read(at(name)).unwrap(), b"mine");
    }
}

/// An option that is ignored may be one that its user relies on.
fn an_option_without_effect_is_refused() {
    let folder = setting();
    copy_system(folder.path());
    let requests = "vmdk: i.qcow2\ndrivers: drivers\ndry_run: true\nnbd_requests: 3\n";
    std::fs::write(folder.path().join("requests.yaml"), requests).unwrap();
    std::fs::File::create(folder.path().join("other.raw")).unwrap().set_len(1 << 20).unwrap();
    let mut lines: Vec<String> = Vec::new();
    for line in CHANGES {
        for options in [
            "--in-place --overlay new.qcow2",
            "--in-place -o new.qcow2",
            "--overlay new.qcow2 -o other.qcow2",
            "--overlay new.qcow2 --no-undo",
            "-o new.qcow2 --no-undo",
            "-n --no-undo",
            "--in-place --overwrite",
            "-n --overwrite",
            "--in-place -O qcow2",
            "--in-place --compress",
            "--in-place -c",
            "--in-place --checksum",
            "--overlay new.qcow2 -O qcow2",
            "--overlay new.qcow2 --compress zstd",
            "--overlay new.qcow2 --checksum",
            "-n --compress",
            "-o new.raw --compress",
            "-o new.raw -c",
            "-O raw -o new.qcow2 --compress",
            "-o new.qcow2 --compress-level 3",
            "-o new.qcow2 --compress zlib --compress-level 1",
            "-o new.qcow2 --compress zstd --compress-level 5",
            "-o new.qcow2 -c --compress zstd",
        ] {
            lines.push(format!("{line} {options}"));
        }
    }
    lines.extend(
        [
            "convert X new.qcow2 --force",
            "convert X new.qcow2 --packages-only",
            "convert X new.qcow2 --bitlocker-password h.reg",
            "convert X new.qcow2 --partition 2",
            "convert X new.qcow2 --report r.md",
            "convert X new.qcow2 --allow-dirty",
            "convert X new.qcow2 --guest-agent",
            "convert X new.qcow2 --other-disk b.raw",
            "convert X new.raw --compress",
            "convert X new.qcow2 --compress-level 3",
            "inject X -n --drivers drivers --firstboot-timeout 5",
            "inject X -n --drivers drivers --mac LAN=525400123456",
            "inject X -n --drivers drivers --rearm --no-firstboot",
            "inject X -n --drivers drivers --packages-only --registration full",
            "plan X --drivers drivers --bundle",
            "plan X --drivers drivers --overwrite",
            "plan --show p.json --force",
            "plan --show p.json --threads 2",
            "plan --show p.json --format raw",
            "plan --show p.json --check",
            "undo X --forget --dry-run",
            "undo X --forget --copied",
            "undo X --forget --allow-path h.reg",
            "recover X --dry-run --allow-path h.reg",
            "diff X X --reg --quick",
            "diff X X --utf8",
            "diff X X --drivers drivers",
            "diff X X --skip-volume-check",
            r"reg export X HKLM\SYSTEM\Select --overwrite",
            "drivers list drivers --partition 3",
            "drivers list drivers --format raw",
            "drivers list drivers --allow-path h.reg",
            "drivers list drivers --disk a.vmdk",
            "drivers list drivers --no-replay",
            "drivers list drivers --bitlocker-password h.reg",
            "reg query SYSTEM Select --partition 2",
            "reg export SYSTEM Select --format raw",
            "reg set SYSTEM Select --bitlocker-password h.reg",
            "reg delete SYSTEM Select --disk a.vmdk",
            "reg import SYSTEM h.reg --no-replay",
            "reg diff SYSTEM SYSTEM --allow-path h.reg",
            "reg check SYSTEM --partition 2",
            r"reg query X HKLM\SYSTEM\Select --prefix HKLM\SYSTEM",
            r"reg set X HKLM\SYSTEM\Select --prefix HKLM\SYSTEM --in-place",
            r"reg import X h.reg --prefix HKLM\SYSTEM --in-place",
            "inject X -n --drivers drivers --no-firstboot --guest-agent",
            "inject X -n --drivers drivers --firstboot-method none --firstboot h.reg",
            "inject X -n --drivers drivers --disk a.vmdk",
            "inject X other.raw -n --drivers drivers --disk a.vmdk",
            "inspect X --disk a.vmdk",
            "check X --disk a.vmdk",
            "fsck X --disk a.vmdk",
            "ls X / --disk a.vmdk",
            "diff X X --disk a.vmdk",
            "image info X --disk a.vmdk",
            "image check X --disk a.vmdk",
            "image map X --disk a.vmdk",
            "image info X --allow-path h.reg",
            "convert X new.qcow2 --disk a.vmdk",
            "drivers list drivers --for X --disk a.vmdk",
            "ntfs-log show X --disk a.vmdk",
            r"reg query X HKLM\SYSTEM\Select --disk a.vmdk",
            r"reg query X HKLM\SYSTEM\Select -r --value Current",
            r"reg query X HKLM\SYSTEM\Select -r --default",
            "inspect X --nbd-requests 3",
            "convert X new.qcow2 --nbd-requests 3",
            "apply p.json -n --drivers drivers --nbd-requests 3",
            "drivers list drivers --nbd-requests 3",
            "reg query SYSTEM Select --nbd-requests 3",
            "--config requests.yaml",
        ]
        .map(str::to_owned),
    );
    for line in lines {
        refused(folder.path(), &on(&line, "i.qcow2"), 2);
    }
}

/// Texts of the standard library ("number too large to fit in target type", "invalid digit") tell no user what to type.
fn a_wrong_number_is_answered_with_what_is_allowed() {
    let folder = setting();
    let numbers = ["x", "-1", "99999999999999999999999999"];
    for (line, more, allowed) in [
        ("inject X -n --drivers drivers --threads", "0", "from 1 to 1024"),
        ("convert X new.qcow2 --threads", "1025", "from 1 to 1024"),
        ("remove X -n --threads", "0", "from 1 to 1024"),
        ("apply p.json -n --threads", "0", "from 1 to 1024"),
        ("plan X --drivers drivers --threads", "0", "from 1 to 1024"),
        ("convert X new.qcow2 --compress zlib --compress-level", "10", "from 1 to 9"),
        ("inject X -n --drivers drivers --partition", "4294967296", "winject inspect"),
        ("fsck X --partition", "4294967296", "winject inspect"),
        ("diff X X --partition", "4294967296", "winject inspect"),
        ("ls --partition 1.5 X /", "", "winject inspect"),
        ("ntfs-log show X --partition", "4294967296", "winject inspect"),
        (r"reg query X HKLM\SYSTEM --partition", "4294967296", "winject inspect"),
        ("fsck X --max", "1e3", "0 or more"),
        ("inject X -n --drivers drivers --firstboot a.cmd --firstboot-timeout", "0", "from 1 to 86400"),
    ] {
        for number in numbers.into_iter().filter(|_| !more.is_empty()).chain([more]) {
            let mut arguments = on(line, "i.qcow2");
            let last = arguments.pop().unwrap();
            // `--option=-1`: a number with a sign is not an option.
            let last = if more.is_empty() { last.to_owned() } else { format!("{last}={number}") };
            arguments.push(&last);
            let text = refused(folder.path(), &arguments, 2);
            assert!(text.contains(allowed), "{line} {number}: {text}");
            assert!(!["digit", "target type", "invalid float"].iter().any(|leak| text.contains(leak)), "{text}");
        }
    }
}

fn a_dry_run_exists_where_something_is_written_and_writes_nothing() {
    let folder = setting();
    let edited = folder.path().join("edited.qcow2");
    std::fs::copy(fixture(), &edited).unwrap();
    let set = ["reg", "set", "edited.qcow2", r"HKLM\SYSTEM\winject", "--in-place", "-q"];
    assert!(answer(folder.path(), &set).status.success());
    let contents = || -> Vec<_> {
        names(folder.path()).into_iter().map(|name| (std::fs::read(folder.path().join(&name)).ok(), name)).collect()
    };
    let before = contents();
    let mut lines: Vec<String> = [
        "convert X new.qcow2 -n",
        "convert X new.img --dry-run --drivers drivers",
        "recover X -n",
        "undo edited.qcow2 -n",
    ]
    .map(str::to_owned)
    .to_vec();
    for line in CHANGES {
        for destination in ["", "--in-place", "--overlay new.qcow2", "-o new.qcow2", "-o new -O raw --checksum"] {
            lines.push(format!("{line} {destination} --dry-run"));
        }
    }
    for line in lines {
        let output = answer(folder.path(), &on(&line, "i.qcow2"));
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        assert!(!stdout(&output).is_empty(), "{line}: a dry run says something");
        assert!(contents() == before, "{line}");
    }
}

/// `inject -o` and `convert --drivers` are one request with two names, as `--drivers` and `--inject` are one option.
fn a_new_image_is_the_same_from_either_command() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    for (number, line) in [
        "inject X --drivers drivers --threads 1 -O raw -o N",
        "inject -f qcow2 X --inject drivers --threads 1 --output-format raw --output N",
        "convert -f qcow2 -O raw X N --inject drivers --threads 1",
        "convert X N -O RAW --drivers drivers --threads 1",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("new{number}");
        let line = line.replace('N', &name);
        let output = answer(folder.path(), &on(&line, "i.qcow2"));
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        if number > 0 {
            let is_same = Command::new("cmp").arg(at("new0")).arg(at(&name)).status().unwrap().success();
            assert!(is_same, "{line}");
            std::fs::remove_file(at(&name)).unwrap();
        }
    }
}

/// An output that cannot be completed ends with 7, and nothing has its name.
fn an_output_that_the_disk_cannot_hold_leaves_nothing() {
    let folder = setting();
    let program = env!("CARGO_BIN_EXE_winject");
    let reg = |key: &str| format!("reg export X {key} -o new.reg");
    let mut lines = vec![
        "convert X new.qcow2".to_owned(),
        "convert X new.raw".to_owned(),
        "plan X --drivers drivers -o new.json".to_owned(),
        "plan X --drivers drivers --review new.html".to_owned(),
        "cp X /Windows/System32/config/SYSTEM new".to_owned(),
        reg(r"HKLM\SYSTEM"),
    ];
    for line in CHANGES {
        lines.push(format!("{line} -o new.qcow2"));
        // The others find nothing to change, and write no overlay.
        if !line.starts_with("remove") && !line.starts_with("ntfs-log") {
            lines.push(format!("{line} --overlay new.qcow2"));
        }
    }
    let before = names(folder.path());
    for line in lines {
        // In blocks of 512 bytes or of 1 KiB; less than the smallest of the outputs.
        let script = format!("ulimit -f 2; exec {program} {}", on(&line, "i.qcow2").join(" ").replace('\\', "\\\\"));
        let output = Command::new("sh").current_dir(folder.path()).args(["-c", &script]).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{line}: {}{}", stdout(&output), stderr(&output));
        assert_eq!(names(folder.path()), before, "{line}: {}", stderr(&output));
    }
    // A device that is full from the beginning.
    for line in [
        "plan X --drivers drivers -o /dev/full --overwrite",
        r"reg export X HKLM\SYSTEM\Select -o /dev/full --overwrite",
    ] {
        let output = answer(folder.path(), &on(line, "i.qcow2"));
        assert_eq!(output.status.code(), Some(7), "{line}: {}", stderr(&output));
    }
    // Standard output is an output, too.
    for line in [
        "inspect X",
        "check X",
        "ls X /",
        "plan X --drivers drivers",
        r"reg query X HKLM\SYSTEM\Select",
        "image info X",
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = winject().current_dir(folder.path()).args(on(line, "i.qcow2")).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{line}: {}", stderr(&output));
    }
}

tests![
    the_same_fault_has_the_same_exit_code_in_every_command,
    an_input_that_is_missing_is_an_io_error,
    an_output_that_cannot_be_is_a_usage_error,
    an_option_without_effect_is_refused,
    a_wrong_number_is_answered_with_what_is_allowed,
    a_dry_run_exists_where_something_is_written_and_writes_nothing,
    a_new_image_is_the_same_from_either_command,
    an_output_that_the_disk_cannot_hold_leaves_nothing,
];
