//! Arguments, exit codes, streams.

use crate::inject::{fixture, fixture_drivers, folder, stderr, stdout, succeed, winject};
use std::process::Stdio;

fn help_shows_only_what_works() {
    let text = stdout(&succeed(winject().arg("--help")));
    assert!(text.contains("inject") && text.contains("inspect") && text.contains("Exit codes"), "{text}");
    let output = winject().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = stdout(&succeed(winject().args(["inject", "--help"])));
    for option in
        ["--drivers", "--in-place", "--overlay", "--output", "--dry-run", "--report", "--partition", "--definitions"]
    {
        assert!(text.contains(option), "{option}");
    }
}

fn version_is_the_packages() {
    assert_eq!(stdout(&succeed(winject().arg("--version"))), format!("winject {}\n", env!("CARGO_PKG_VERSION")));
}

fn wrong_arguments_end_with_2() {
    for arguments in [
        &["inject"][..],
        &["inject", "a.qcow2"],
        &["inject", "a.qcow2", "--drivers", "d", "--overlay", "b.qcow2", "-o", "c.qcow2"],
        &["inject", "a.qcow2", "--drivers", "d", "--in-place", "--overlay", "b.qcow2"],
        &["inject", "a.qcow2", "--drivers", "d", "--dry-run", "--format", "floppy"],
        &["frobnicate"],
        &["--config", "run.yaml", "inspect", "a.qcow2"],
        &["inject", "a.qcow2", "--drivers", "d", "--dry-run", "--report", "report.doc"],
        &["inject", "a.qcow2", "--drivers", "d", "--dry-run", "--report", "/nowhere/report.md"],
    ] {
        let output = winject().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

fn a_bad_clock_is_a_usage_error() {
    let mut command = winject();
    command.env("SOURCE_DATE_EPOCH", "yesterday").arg("inject").arg(fixture()).arg("--drivers");
    let output = command.arg(fixture_drivers()).arg("--dry-run").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("SOURCE_DATE_EPOCH"));
}

fn inspect_names_the_windows() {
    let folder = folder();
    std::fs::copy(fixture(), folder.path().join("win10.qcow2")).unwrap();
    let text = stdout(&succeed(winject().current_dir(folder.path()).args(["inspect", "win10.qcow2"])));
    let expected = "\
Image:     win10.qcow2 (qcow2, 1073741824 bytes)
Disk:      GPT, sectors of 512 bytes
";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("Windows:   Windows 10 Professional 22H2 (build 19045"), "{text}");
    assert!(text.ends_with("State:     clean, can be edited\n"), "{text}");
    let json = succeed(winject().arg("inspect").arg(fixture()).arg("--json"));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["disks"][0]["windows"][0]["build"], 19045);
    assert_eq!(json["disks"][0]["disk"]["scheme"], "gpt");
}

fn inspect_without_windows_ends_with_4() {
    let folder = folder();
    let image = folder.path().join("letter.txt");
    std::fs::write(&image, "Dear Sir or Madam").unwrap();
    let output = winject().arg("inspect").arg(&image).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).starts_with("Error: "), "{}", stderr(&output));
    assert!(stderr(&output).contains("Hint: "));
}

/// A reader that goes away is not an error: the exit code is the job's.
fn a_closed_pipe_is_a_clean_end() {
    let mut child = winject().arg("inspect").arg(fixture()).arg("--json").stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn quiet_says_nothing_and_colours_need_a_terminal() {
    let folder = folder();
    let out = folder.path().join("out.qcow2");
    let mut command = winject();
    command.arg("-q").arg("inject").arg(fixture()).arg("--drivers").arg(fixture_drivers()).arg("--overlay").arg(&out);
    let output = succeed(&mut command);
    assert_eq!((stdout(&output), stderr(&output)), (String::new(), String::new()));
    let mut command = winject();
    command.arg("-v").arg("inject").arg(fixture()).arg("--drivers").arg(fixture_drivers()).arg("--dry-run");
    let output = succeed(&mut command);
    assert!(!stdout(&output).contains('\u{1b}') && !stderr(&output).contains('\u{1b}'));
    assert!(stderr(&output).contains("Looking for Windows"), "{}", stderr(&output));
}

/// A script may pass on strings of others.
fn typed_strings_cannot_steer_the_terminal() {
    for arguments in [
        &["frob\u{1b}[31m\nError: FORGED"][..],
        &["inspect", "a", "--frob\u{1b}[31m\nFORGED"],
        &["inspect", "a", "--format", "\u{1b}[31m\nFORGED"],
        &["inject", "a", "--drivers", "d", "--threads", "\u{9b}31m\nFORGED"],
        &["check", "a", "--bus", "x\u{202e}\nFORGED"],
        &["inspect", "\u{1b}[31m\nFORGED"],
    ] {
        let output = winject().args(arguments).output().unwrap();
        let text = stderr(&output);
        assert!(text.contains("FORGED"), "{text}");
        assert!(!text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("FORGED") || line.starts_with("Error: FORGED")), "{text}");
    }
}

fn a_usage_error_needs_no_layer() {
    for arguments in [
        &["--config", "run.yaml", "inspect", "a.qcow2"][..],
        &["inject", "a.qcow2", "--drivers", "d", "--dry-run", "--report", "report.doc"],
        &["inject", "a.qcow2", "--drivers", "d"],
    ] {
        let text = stderr(&winject().args(arguments).output().unwrap());
        assert!(!["job: ", "command line: ", "host: "].iter().any(|layer| text.contains(layer)), "{text}");
    }
}

/// Keys of the registry in a hive file, as `reg.exe` exports them.
fn a_full_path_needs_a_prefix() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let now = winject::internals::clock::FileTime::from_unix_seconds(1_700_000_000).unwrap();
    let hive = winject::internals::hive::Hive::create("SYSTEM", now);
    std::fs::write(at("h"), hive.finish(&[]).unwrap()).unwrap();
    let before = std::fs::read(at("h")).unwrap();
    let text = "Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\SYSTEM\\x]\r\n";
    std::fs::write(at("x.reg"), text).unwrap();
    let output = winject().current_dir(folder.path()).args(["reg", "import", "h", "x.reg"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(r"--prefix 'HKEY_LOCAL_MACHINE\SYSTEM'"), "{}", stderr(&output));
    assert!(std::fs::read(at("h")).unwrap() == before);
    let prefix = ["reg", "import", "h", "x.reg", "--prefix", r"HKEY_LOCAL_MACHINE\SYSTEM"];
    succeed(winject().current_dir(folder.path()).args(prefix));
    let shown = stdout(&succeed(winject().current_dir(folder.path()).args(["reg", "query", "h", "\\"])));
    assert!(shown.lines().any(|line| line == "\\x" || line == "x"), "{shown}");
}

tests![
    help_shows_only_what_works,
    version_is_the_packages,
    wrong_arguments_end_with_2,
    a_bad_clock_is_a_usage_error,
    inspect_names_the_windows,
    inspect_without_windows_ends_with_4,
    a_closed_pipe_is_a_clean_end,
    quiet_says_nothing_and_colours_need_a_terminal,
    typed_strings_cannot_steer_the_terminal,
    a_usage_error_needs_no_layer,
    a_full_path_needs_a_prefix,
];
