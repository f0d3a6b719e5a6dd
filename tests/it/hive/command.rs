//! `winject reg` on hive files, as a user sees it.

use std::path::Path;
use std::process::{Command, Output};

use winject::internals::block::Format;
use winject::internals::hive::check::check;
use winject::internals::hive::{Hive, RegistryData};

use super::support::{NOW, folder};
use crate::inject::writable_fixture;
use crate::support::corpus_bytes;

fn winject(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_winject"))
        .arg("reg")
        .args(arguments)
        .current_dir(folder)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .unwrap()
}

fn ok(folder: &Path, arguments: &[&str]) -> String {
    let output = winject(folder, arguments);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn code(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = winject(folder, arguments);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn system() -> Vec<u8> {
    let mut hive = Hive::create("SYSTEM", NOW);
    let select = hive.create_key(hive.root(), "Select", NOW).unwrap();
    let one = RegistryData::dword(1);
    hive.set_value(select, "Current", &one, NOW).unwrap();
    hive.create_key(hive.root(), r"ControlSet001\Services\disk", NOW).unwrap();
    hive.finish(&[]).unwrap()
}

fn set_query_and_delete() {
    let folder = folder(&[("SYSTEM", &system())]);
    let folder = folder.path();
    let key = r"CurrentControlSet\Services\viostor";
    ok(folder, &["set", "SYSTEM", key, "--value", "Start", "--type", "dword", "--data", "0"]);
    ok(folder, &["set", "SYSTEM", key, "--value", "Group", "--data", "SCSI miniport"]);
    ok(folder, &["set", "SYSTEM", key, "--value", "M", "--type", "multi_sz", "--data", "a", "--data", "b"]);
    ok(folder, &["set", "SYSTEM", &format!("{key}\\Parameters")]);
    let said = ok(folder, &["query", "SYSTEM", r"ControlSet001\Services\viostor"]);
    assert_eq!(
        said,
        "ControlSet001\\Services\\viostor\n    Start    REG_DWORD    0x0\n    Group    REG_SZ    SCSI miniport\n    \
         M    REG_MULTI_SZ    a\\0b\n\nControlSet001\\Services\\viostor\\Parameters\n"
    );
    let said = ok(folder, &["set", "SYSTEM", key, "--value", "start", "--type", "dword", "--data", "0x0"]);
    assert!(said.contains("unchanged"), "{said}");
    ok(folder, &["delete", "SYSTEM", key, "--value", "Group"]);
    // A missing value and a missing key are the same answer.
    let no_value = code(folder, &["query", "SYSTEM", key, "--value", "Group"]);
    ok(folder, &["delete", "SYSTEM", key]);
    let mut answers = vec![no_value];
    answers.push(code(folder, &["query", "SYSTEM", key]));
    answers.push(code(folder, &["export", "SYSTEM", key]));
    answers.push(code(folder, &["diff", "SYSTEM", "SYSTEM", key]));
    for (status, complaint) in answers {
        assert_eq!(status, 2, "{complaint}");
        assert!(
            complaint.contains("Hint:") && complaint.ends_with("More: winject explain no-such-key\n"),
            "{complaint}"
        );
    }
    assert_eq!(check(&std::fs::read(folder.join("SYSTEM")).unwrap()), []);
}

fn export_import_and_diff() {
    let folder = folder(&[("SYSTEM", &system()), ("other", &system())]);
    let folder = folder.path();
    let text = "\u{FEFF}Windows Registry Editor Version 5.00\n\n[HKLM\\SYSTEM\\CurrentControlSet\\Services\\viostor]\n\
        \"Start\"=dword:00000000\n\n[-HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\disk]\n";
    std::fs::write(folder.join("in.reg"), text).unwrap();
    let prefix = ["--prefix", r"HKEY_LOCAL_MACHINE\SYSTEM"];
    let said = ok(folder, &[&["import", "SYSTEM", "in.reg"][..], &prefix].concat());
    assert_eq!(said, "SYSTEM: 1 keys created, 1 deleted; 1 values set, 0 deleted\n");
    let said = ok(folder, &[&["import", "SYSTEM", "in.reg"][..], &prefix].concat());
    assert_eq!(said, "SYSTEM: unchanged\n");
    assert_eq!(code(folder, &[&["diff", "other", "SYSTEM", "-o", "diff.reg"][..], &prefix].concat()).0, 1);
    assert_eq!(code(folder, &["diff", "SYSTEM", "SYSTEM"]).0, 0, "the same");
    ok(folder, &[&["import", "other", "diff.reg"][..], &prefix].concat());
    ok(folder, &[&["export", "SYSTEM", "\\", "-o", "a.reg"][..], &prefix].concat());
    ok(folder, &[&["export", "other", r"HKLM\SYSTEM", "-o", "b.reg"][..], &prefix].concat());
    let (a, b) = (std::fs::read(folder.join("a.reg")).unwrap(), std::fs::read(folder.join("b.reg")).unwrap());
    assert!(a.starts_with(&[0xFF, 0xFE]));
    assert_eq!(a, b);
    // Without the prefix the keys are no paths of this hive.
    let (status, complaint) = code(folder, &["import", "SYSTEM", "in.reg", "--prefix", "HKLM\\SOFTWARE"]);
    assert_eq!(status, 2);
    assert!(complaint.contains("in.reg") && complaint.contains("line 3"), "{complaint}");
}

/// The changes of an import are listed as those of `reg set`: each with what was there before.
fn an_import_lists_its_changes() {
    let folder = folder(&[("SYSTEM", &system())]);
    let folder = folder.path();
    let key = r"HKEY_LOCAL_MACHINE\SYSTEM";
    let text = format!(
        "Windows Registry Editor Version 5.00\n\n[{key}\\Select]\n\"Current\"=dword:00000001\n\"New\"=\"text\"\n\
         \"None\"=-\n\n[{key}\\Made]\n@=hex:01,02\n\n[{key}\\Select]\n\"New\"=-\n\n[-{key}\\ControlSet001\\Services\\disk]\n\
         \n[-{key}\\None]\n"
    );
    std::fs::write(folder.join("in.reg"), text).unwrap();
    let arguments = ["import", "SYSTEM", "in.reg", "--prefix", key];
    let mut answers = Vec::new();
    for more in [&["--json", "-n"][..], &["--json"]] {
        let answer = ok(folder, &[&arguments[..], more].concat());
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["changed"], true);
        answers.push(answer["changes"].clone());
    }
    assert_eq!(answers[0], answers[1], "a dry run lists the same");
    let lines: Vec<&str> = answers[1].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let expected = [
        r"HKEY_LOCAL_MACHINE\SYSTEM\Select",
        "    New: (no value) → REG_SZ text",
        r"HKEY_LOCAL_MACHINE\SYSTEM\Made: created",
        "    (default): (no value) → REG_BINARY 0102",
        r"HKEY_LOCAL_MACHINE\SYSTEM\Select",
        "    New: REG_SZ text → (no value)",
        r"HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\disk: deleted, with everything below it",
    ];
    assert_eq!(lines, expected);
    std::fs::write(
        folder.join("in.reg"),
        format!("Windows Registry Editor Version 5.00\n\n[{key}\\Made]\n@=hex:01,02\n"),
    )
    .unwrap();
    let again = ok(folder, &[&arguments[..], &["--json"]].concat());
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!((&again["changed"], &again["changes"]), (&false.into(), &serde_json::json!([])));
}

/// What Windows NT 4 and Windows 98 wrote: the way to a file that can be read is told.
fn a_file_of_version_4_is_answered_with_the_way_to_convert_it() {
    let folder = folder(&[("SYSTEM", &system())]);
    let folder = folder.path();
    std::fs::write(folder.join("old.reg"), "REGEDIT4\n\n[HKEY_LOCAL_MACHINE\\SYSTEM\\X]\n\"a\"=\"b\"\n").unwrap();
    let arguments = ["import", "SYSTEM", "old.reg", "--prefix", r"HKLM\SYSTEM"];
    let (status, said) = code(folder, &arguments);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("old.reg") && said.contains("REGEDIT4") && said.contains("reg export KEY NEW.reg"), "{said}");
    // The other way of the hint.
    let text = std::fs::read_to_string(folder.join("old.reg")).unwrap();
    let header = "Windows Registry Editor Version 5.00";
    assert!(said.contains(header), "{said}");
    std::fs::write(folder.join("old.reg"), text.replace("REGEDIT4", header)).unwrap();
    ok(folder, &arguments);
}

/// A `.reg` text from a pipe is imported as from a file, and a fault in it is one of standard input.
fn standard_input_is_imported() {
    let folder = folder(&[("SYSTEM", &system()), ("other", &system())]);
    let folder = folder.path();
    let text = "Windows Registry Editor Version 5.00\n\n[HKEY_LOCAL_MACHINE\\SYSTEM\\Piped]\n\"a\"=\"b\"\n";
    let import = |text: &str, target: &str| {
        let mut command = crate::inject::winject();
        command.current_dir(folder).args(["reg", "import", target, "-", "--prefix", r"HKLM\SYSTEM"]);
        let (input, mut pipe) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut pipe, text.as_bytes()).unwrap();
        drop(pipe);
        command.stdin(input).output().unwrap()
    };
    let output = import(text, "SYSTEM");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    std::fs::write(folder.join("in.reg"), text).unwrap();
    ok(folder, &["import", "other", "in.reg", "--prefix", r"HKLM\SYSTEM"]);
    assert_eq!(code(folder, &["diff", "other", "SYSTEM"]).0, 0);
    let before = std::fs::read(folder.join("SYSTEM")).unwrap();
    let output = import("hello\n", "SYSTEM");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("standard input"), "{said}");
    assert_eq!(std::fs::read(folder.join("SYSTEM")).unwrap(), before);
}

fn bad_targets_are_refused_with_their_code_and_left_alone() {
    let mut damaged = system();
    let at = damaged.windows(2).position(|w| w == b"lh").unwrap();
    damaged[at + 8] ^= 1; // a hash
    let mut dirty = system();
    dirty[4] ^= 1;
    super::support::seal(&mut dirty);
    let files: [(&str, &[u8]); 4] =
        [("damaged", &damaged), ("dirty", &dirty), ("text", b"hello"), ("cut", &damaged[..5000])];
    let folder = folder(&files);
    for (name, expected) in [("damaged", 5), ("dirty", 3), ("text", 2), ("cut", 5), ("missing", 7)] {
        let (status, complaint) = code(folder.path(), &["set", name, "A"]);
        assert_eq!(status, expected, "{name}: {complaint}");
        assert!(complaint.starts_with("Error:"), "{complaint}");
    }
    for (name, bytes) in files {
        assert!(std::fs::read(folder.path().join(name)).unwrap() == bytes, "{name} was changed");
    }
    assert_eq!(code(folder.path(), &["set", "damaged", "A", "--data", "x"]).0, 2);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), files.len(), "no temporary file stays");
}

fn check_answers_with_its_exit_code() {
    let mut damaged = system();
    let at = damaged.windows(2).position(|w| w == b"lh").unwrap();
    damaged[at + 8] ^= 1;
    let mut odd = system();
    odd[4096 + 32 + 4 + 52] = 0; // the root's longest subkey name
    let folder = folder(&[("good", &system()), ("bad", &damaged), ("odd", &odd)]);
    let folder = folder.path();
    assert_eq!(ok(folder, &["check", "good"]), "the hive is clean\n");
    let output = winject(folder, &["check", "bad"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("fault SL-HASH"));
    assert!(ok(folder, &["check", "odd"]).contains("oddity NK-MAXNAME"));
    assert_eq!(code(folder, &["check", "odd", "--strict"]).0, 1);
    // Without its signature it is a damaged hive; what is neither a hive nor an image has no faults of a hive.
    let mut headless = system();
    headless[..4].fill(0);
    std::fs::write(folder.join("headless"), headless).unwrap();
    let output = winject(folder, &["check", "headless"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("fault BB-SIGNATURE"));
    for (name, bytes) in [("text", b"hello".to_vec()), ("empty", vec![]), ("zeros", vec![0; 1 << 20])] {
        std::fs::write(folder.join(name), bytes).unwrap();
        for arguments in [&["check", name][..], &["query", name, r"HKLM\SYSTEM"]] {
            let output = winject(folder, arguments);
            assert_eq!(output.status.code(), Some(4), "{arguments:?}: {output:?}");
            assert!(output.stdout.is_empty(), "{output:?}");
        }
    }
    let output = winject(folder, &["check", "bad", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["clean"], false);
    assert_eq!(report["faults"][0]["code"], "SL-HASH");
}

fn the_hives_of_an_image_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let image = image.to_str().unwrap();
    let before = std::fs::read(image).unwrap();
    let said = ok(folder.path(), &["check", image]);
    assert!(said.ends_with(" hives are clean\n"), "{said}");
    assert_eq!(ok(folder.path(), &["check", image, "--hive", "system"]), "the hive is clean\n");
    assert_eq!(code(folder.path(), &["check", image, "--hive", "floppy"]).0, 2);
    assert!(std::fs::read(image).unwrap() == before);

    // A fault is found in the hive that has it, and names it.
    let mut damaged = system();
    let at = damaged.windows(2).position(|w| w == b"lh").unwrap();
    damaged[at + 8] ^= 1;
    super::image::put(Path::new(image), &[("/Windows/System32/config/DRIVERS", &damaged)]);
    let output = winject(folder.path(), &["check", image]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("fault SL-HASH /Windows/System32/config/DRIVERS: "), "{said}");
    assert_eq!(ok(folder.path(), &["check", image, "--hive", "SYSTEM"]), "the hive is clean\n");
    assert_eq!(winject(folder.path(), &["check", image, "--hive", "DRIVERS"]).status.code(), Some(1));

    // In a file there is nothing to choose.
    std::fs::write(folder.path().join("SYSTEM"), system()).unwrap();
    assert_eq!(code(folder.path(), &["check", "SYSTEM", "--hive", "SYSTEM"]).0, 2);
}

/// A key has the same spellings in an image and in the hive file, in any case.
fn a_key_is_found_by_every_spelling() {
    let image = std::fs::read(crate::support::root().join("test-images/win10.qcow2")).unwrap();
    let folder = folder(&[("win.qcow2", &image), ("SYSTEM", &system()), ("system.bak", &system()), ("h", &system())]);
    let folder = folder.path();
    let spellings = [
        r"HKLM\SYSTEM\Select",
        r"HKEY_LOCAL_MACHINE\SYSTEM\Select",
        r"SYSTEM\Select",
        r"hklm\system\SELECT",
        r"\system\select\",
    ];
    for target in ["win.qcow2", "SYSTEM", "system.bak"] {
        for key in spellings {
            let said = ok(folder, &["query", target, key, "--value", "Current"]);
            assert!(said.contains("REG_DWORD    0x1"), "{target} {key}: {said}");
        }
    }
    assert!(ok(folder, &["query", "SYSTEM", "Select"]).contains("REG_DWORD    0x1"));
    // Another hive's key, and a file whose name does not tell where it belongs.
    for (target, key) in [("SYSTEM", r"HKLM\SOFTWARE\Microsoft"), ("SYSTEM", r"HKCU\x"), ("h", r"HKLM\SYSTEM\Select")] {
        let (status, complaint) = code(folder, &["query", target, key]);
        assert_eq!(status, 2, "{complaint}");
        assert!(complaint.ends_with("More: winject explain key-elsewhere\n"), "{complaint}");
    }
    ok(folder, &["query", "h", r"HKLM\SYSTEM\Select", "--prefix", r"HKLM\SYSTEM"]);
    // A key of the hive that is called like the hive comes first.
    ok(folder, &["set", "h", r"SYSTEM\deep"]);
    std::fs::rename(folder.join("h"), folder.join("SYSTEM")).unwrap();
    assert!(ok(folder, &["query", "SYSTEM", "SYSTEM"]).contains("deep"));
}

/// What is set, deleted and imported is shown as before and after; a dry run shows the same and writes nothing; a hive file
/// and an image take the same options.
fn changes_are_shown_and_go_where_they_are_sent() {
    let image = std::fs::read(crate::support::root().join("test-images/win10.qcow2")).unwrap();
    let folder = folder(&[("win.qcow2", &image), ("SYSTEM", &system())]);
    let folder = folder.path();
    let text = "Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\SYSTEM\\winject]\r\n\"b\"=dword:00000005\r\n\"c\"=-\r\n";
    std::fs::write(folder.join("in.reg"), text).unwrap();
    let key = r"HKLM\SYSTEM\winject";
    let steps: [(&[&str], &[&str]); 5] = [
        (
            &["set", "T", key, "--value", "a", "--type", "dword", "--data", "3"],
            &[r"SYSTEM\winject: created", "a: (no value) → REG_DWORD 0x3"],
        ),
        (&["set", "T", key, "--value", "a", "--data", "x"], &["a: REG_DWORD 0x3 → REG_SZ x"]),
        (&["import", "T", "in.reg"], &["0 keys created, 0 deleted; 1 values set, 0 deleted"]),
        (&["delete", "T", key, "--value", "a"], &["a: REG_SZ x → (no value)"]),
        (&["delete", "T", key], &["winject: deleted, with 0 keys below it and 1 values"]),
    ];
    for target in ["win.qcow2", "SYSTEM"] {
        let other = if target == "SYSTEM" { "new" } else { "new.qcow2" };
        for (step, lines) in steps {
            let step: Vec<&str> = step.iter().map(|word| if *word == "T" { target } else { word }).collect();
            let run = |more: &[&str]| ok(folder, &[&step[..], more].concat());
            let before = std::fs::read(folder.join(target)).unwrap();
            let dry = run(&["-n"]);
            assert!(dry.contains("nothing was written"), "{step:?}: {dry}");
            let new = run(&["-o", other]);
            assert_eq!(code(folder, &[&step[..], &["-o", other]].concat()).0, 2, "it exists");
            assert!(std::fs::read(folder.join(target)).unwrap() == before, "{step:?}");
            let done = run(&["--in-place"]);
            for line in lines {
                let line = if target == "SYSTEM" { line.trim_start_matches(r"SYSTEM\") } else { line };
                assert!(
                    [&dry, &new, &done].iter().all(|said| said.contains(line)),
                    "{step:?}: {line}: {dry}{new}{done}"
                );
            }
            if target == "SYSTEM" {
                let export = |name: &str| ok(folder, &["export", name, "\\", "--utf8"]);
                assert_eq!(export(other), export(target), "{step:?}");
                assert_eq!(check(&std::fs::read(folder.join(other)).unwrap()), []);
            }
            std::fs::remove_file(folder.join(other)).unwrap();
            let again = run(&["--in-place"]);
            assert!(again.ends_with(&format!("{target}: unchanged\n")), "{step:?}: {again}");
        }
    }
    for option in [&["--overlay", "o.qcow2"][..], &["--no-undo"], &["--allow-dirty"], &["--checksum"], &["--overwrite"]]
    {
        let (status, complaint) = code(folder, &[&["set", "SYSTEM", "x"][..], option].concat());
        assert!(
            status == 2 && complaint.contains(option[0].trim_start_matches("--checksum")),
            "{option:?}: {complaint}"
        );
    }
    let (status, complaint) = code(folder, &["set", "SYSTEM", "x", "-o", "SYSTEM", "--overwrite"]);
    assert!(status == 2 && complaint.contains("output-is-input"), "{complaint}");
}

/// A dry run is refused for what the run would be refused for, and writes nothing in either case.
fn a_dry_run_on_a_hive_file_rehearses_its_output() {
    let folder = folder(&[("SYSTEM", &system()), ("exists", b"mine"), ("twice", &system())]);
    let folder = folder.path();
    std::fs::hard_link(folder.join("twice"), folder.join("hard")).unwrap();
    let names = || std::fs::read_dir(folder).unwrap().count();
    let count = names();
    for (target, output, expected) in [
        ("SYSTEM", &["-o", "exists"][..], 2),
        ("SYSTEM", &["-o", "-"], 2),
        ("SYSTEM", &["-o", "SYSTEM", "--overwrite"], 2),
        ("SYSTEM", &["-o", "nodir/x"], 2),
        ("SYSTEM", &["-o", "exists/x"], 2),
        ("twice", &[], 3),
        ("twice", &["--in-place"], 3),
    ] {
        let run = [&["set", target, "winject"][..], output].concat();
        let (rehearsed, done) = (code(folder, &[&run[..], &["-n"]].concat()), code(folder, &run));
        assert_eq!(rehearsed, done, "{run:?}");
        assert_eq!(done.0, expected, "{run:?}: {}", done.1);
    }
    ok(folder, &["set", "SYSTEM", "winject", "-n"]);
    ok(folder, &["set", "SYSTEM", "winject", "-n", "-o", "new"]);
    ok(folder, &["set", "SYSTEM", "winject", "-n", "-o", "exists", "--overwrite"]);
    assert_eq!(names(), count);
    assert!(std::fs::read(folder.join("SYSTEM")).unwrap() == system());
    assert_eq!(std::fs::read(folder.join("exists")).unwrap(), b"mine");
}

/// What is left out is not guessed: no data is not empty data.
fn what_is_named_incompletely_is_refused_and_the_error_says_what_to_add() {
    let image = std::fs::read(crate::support::root().join("test-images/win10.qcow2")).unwrap();
    let folder = folder(&[("SYSTEM", &system()), ("win.qcow2", &image)]);
    let folder = folder.path();
    let text = "Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\SYSTEM\\winject]\r\n";
    std::fs::write(folder.join("x.reg"), text).unwrap();
    for (arguments, told) in [
        (&["set", "SYSTEM", "Select", "--value", "Current"][..], &["--data"][..]),
        (&["set", "SYSTEM", "Select", "--default", "--type", "multi_sz"], &["--data"]),
        (&["set", "SYSTEM", "Select", "--type", "dword"], &["--type", "--value NAME"]),
        (&["set", "SYSTEM", "Select", "--data", "1"], &["--data", "--value NAME"]),
        (&["import", "win.qcow2", "x.reg"], &["no destination", "win.qcow2"]),
        (&["diff", "win.qcow2", "win.qcow2"], &[r"winject reg diff win.qcow2 win.qcow2 'HKLM\SYSTEM'"]),
    ] {
        let (status, complaint) = code(folder, arguments);
        assert_eq!(status, 2, "{arguments:?}: {complaint}");
        assert!(told.iter().all(|text| complaint.contains(text)), "{arguments:?}: {complaint}");
        assert!(!complaint.contains("x.reg"), "{complaint}");
    }
    assert!(std::fs::read(folder.join("SYSTEM")).unwrap() == system());
    ok(folder, &["set", "SYSTEM", "Select", "--value", "n", "--type", "none"]);
    ok(folder, &["set", "SYSTEM", "Select", "--value", "e", "--data", ""]);
    let said = ok(folder, &["query", "SYSTEM", "Select"]);
    assert!(said.contains("REG_NONE") && said.contains("REG_SZ") && said.contains("REG_DWORD    0x1"), "{said}");
}

fn logs_beside_a_hive_are_replayed() {
    let names = ["UsrClass.dat", "UsrClass.dat.LOG1", "UsrClass.dat.LOG2"];
    let Some(files) =
        names.map(|n| corpus_bytes(&format!("hives/usrclass-dirty/{n}.xz"))).into_iter().collect::<Option<Vec<_>>>()
    else {
        return;
    };
    // Windows writes the ending in either case.
    let folder =
        folder(&[("UsrClass.dat", &files[0]), ("usrclass.dat.log1", &files[1]), ("UsrClass.dat.LOG2", &files[2])]);
    let folder = folder.path();
    let said = winject(folder, &["query", "UsrClass.dat", "\\"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("14 log entries were replayed"), "{said:?}");
    assert!(std::fs::read(folder.join("UsrClass.dat")).unwrap() == files[0], "a query changes nothing");
    ok(folder, &["set", "UsrClass.dat", "winject", "--default", "--data", "x"]);
    let after = std::fs::read(folder.join("UsrClass.dat")).unwrap();
    assert_eq!(check(&after), []);
    assert!(super::support::word(&after, 4) > 300, "above every log entry");
    assert!(std::fs::read(folder.join("usrclass.dat.log1")).unwrap() == files[1]);
}

fn hives_inside_an_image() {
    let original = std::fs::read(crate::support::root().join("test-images/win10.qcow2")).unwrap();
    let folder = folder(&[("win.qcow2", &original)]);
    let folder = folder.path();
    let services = r"HKLM\SYSTEM\CurrentControlSet\Services";
    let said = ok(folder, &["query", "win.qcow2", r"HKLM\SYSTEM\Select", "--value", "Current"]);
    assert!(said.contains("REG_DWORD    0x1"), "{said}");
    let said = ok(folder, &["query", "win.qcow2", services]);
    assert!(said.starts_with(r"HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services"), "{said}");

    // Never by surprise, and never a key of no hive.
    let key = format!(r"{services}\winject");
    assert_eq!(code(folder, &["set", "win.qcow2", &key]).0, 2);
    assert_eq!(code(folder, &["set", "win.qcow2", r"HKCU\Software", "--in-place"]).0, 2);
    assert_eq!(code(folder, &["query", "win.qcow2", r"Select"]).0, 2);
    assert!(std::fs::read(folder.join("win.qcow2")).unwrap() == original);

    // An overlay, then in place; what is exported is what was set.
    ok(
        folder,
        &["set", "win.qcow2", &key, "--value", "Start", "--type", "dword", "--data", "3", "--overlay", "new.qcow2"],
    );
    assert!(std::fs::read(folder.join("win.qcow2")).unwrap() == original);
    ok(folder, &["export", "new.qcow2", &key, "-o", "out.reg", "--utf8"]);
    let text = std::fs::read_to_string(folder.join("out.reg")).unwrap();
    assert!(
        text.contains("[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\winject]\r\n\"Start\"=dword:00000003"),
        "{text}"
    );
    // The same again: an output that is asked for is there afterwards, and the message names it.
    let same = ["set", "new.qcow2", &key, "--value", "Start", "--type", "dword", "--data", "3"];
    for (option, name) in [("--overlay", "again.qcow2"), ("-o", "whole.qcow2")] {
        let said = ok(folder, &[&same[..], &[option, name]].concat());
        assert_eq!(said, format!("new.qcow2: unchanged; written to {name} as it is\n"));
        ok(folder, &["query", name, &key, "--value", "Start"]);
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    // Two hives in one file, all or nothing.
    let both = format!("{text}[HKEY_LOCAL_MACHINE\\SOFTWARE\\winject]\r\n@=\"x\"\r\n");
    std::fs::write(folder.join("both.reg"), &both).unwrap();
    std::fs::write(folder.join("bad.reg"), format!("{both}[HKEY_USERS\\S-1-5\\winject]\r\n")).unwrap();
    assert_eq!(code(folder, &["import", "win.qcow2", "bad.reg", "--in-place"]).0, 2);
    assert!(std::fs::read(folder.join("win.qcow2")).unwrap() == original);
    ok(folder, &["import", "win.qcow2", "both.reg", "--in-place"]);
    assert!(ok(folder, &["query", "win.qcow2", r"HKLM\SOFTWARE\winject"]).contains("REG_SZ    x"));
    let done = std::fs::read(folder.join("win.qcow2")).unwrap();
    assert!(ok(folder, &["import", "win.qcow2", "both.reg", "--in-place"]).contains("unchanged"));
    assert!(std::fs::read(folder.join("win.qcow2")).unwrap() == done);
    ok(folder, &["delete", "win.qcow2", &key, "--in-place"]);
    assert_eq!(code(folder, &["query", "win.qcow2", &key]).0, 2);
}

fn a_hive_keeps_its_link_its_tail_and_its_rights() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    // A live hive: remains of older bins follow its bins, and a file that is no multiple of anything.
    let mut live = system();
    live.extend((0..50_001).map(|i| i as u8));
    let folder = folder(&[("SYSTEM", &live)]);
    let folder = folder.path();
    let path = folder.join("SYSTEM");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let is_root = chown(&path, Some(1234), Some(2345)).is_ok();
    symlink("SYSTEM", folder.join("link")).unwrap();
    ok(
        folder,
        &["set", "link", r"ControlSet001\new", "--value", "v", "--type", "binary", "--data", &"ab".repeat(6000)],
    );
    assert!(folder.join("link").is_symlink());
    let (after, meta) = (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap());
    assert_eq!(meta.mode() & 0o7777, 0o640);
    if is_root {
        assert_eq!((meta.uid(), meta.gid()), (1234, 2345));
    }
    let end = 4096 + super::support::word(&after, 40) as usize;
    assert!(end > system().len(), "the hive grew into the tail");
    assert_eq!(after.len(), live.len());
    assert!(after[end..] == live[end..], "what follows the bins is as it was");
    assert_eq!(check(&after[..end]), []);
    assert!(ok(folder, &["query", "SYSTEM", r"ControlSet001\new"]).contains("(6000 bytes)"));
}

fn output_goes_where_it_is_sent() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let folder = folder(&[("SYSTEM", &system())]);
    let folder = folder.path();
    let wanted = ok(folder, &["query", "SYSTEM", "Select"]);
    // A pipe, and a link that leads nowhere yet.
    assert_eq!(ok(folder, &["query", "SYSTEM", "Select", "-o", "/dev/fd/1"]), wanted);
    symlink("target", folder.join("link")).unwrap();
    ok(folder, &["query", "SYSTEM", "Select", "-o", "link"]);
    assert!(folder.join("link").is_symlink());
    assert_eq!(std::fs::read_to_string(folder.join("target")).unwrap(), wanted);
    // A secret stays one.
    let script = format!("umask 077; exec {} reg export SYSTEM Select -o secret", env!("CARGO_BIN_EXE_winject"));
    crate::support::run(Command::new("sh").args(["-c", &script]).current_dir(folder));
    assert_eq!(std::fs::metadata(folder.join("secret")).unwrap().mode() & 0o777, 0o600);
}

fn a_missing_key_is_explained() {
    let folder = folder(&[("SYSTEM", &system())]);
    let complaint = |arguments: &[&str]| {
        let (status, complaint) = code(folder.path(), arguments);
        assert_eq!(status, 2, "{complaint}");
        complaint
    };
    let said = complaint(&["query", "SYSTEM", r"ControlSet001\Services\viostor\Parameters"]);
    assert!(said.contains(r"ControlSet001\Services is there, but holds no viostor"), "{said}");
    let said = complaint(&["export", "SYSTEM", r"HKLM\SOFTWARE\Select"]);
    assert!(said.contains(r"begins with HKEY_LOCAL_MACHINE\SYSTEM"), "{said}");
    let said = complaint(&["query", "SYSTEM", "Selct"]);
    assert!(said.contains(r"winject reg query SYSTEM '\'"), "{said}");
    let deleted = winject(folder.path(), &["delete", "SYSTEM", "Selct"]);
    assert!(deleted.status.success());
    assert!(String::from_utf8_lossy(&deleted.stderr).contains("no such key"));
}

tests![
    set_query_and_delete,
    export_import_and_diff,
    an_import_lists_its_changes,
    a_file_of_version_4_is_answered_with_the_way_to_convert_it,
    standard_input_is_imported,
    bad_targets_are_refused_with_their_code_and_left_alone,
    check_answers_with_its_exit_code,
    the_hives_of_an_image_are_checked,
    a_key_is_found_by_every_spelling,
    changes_are_shown_and_go_where_they_are_sent,
    a_dry_run_on_a_hive_file_rehearses_its_output,
    what_is_named_incompletely_is_refused_and_the_error_says_what_to_add,
    logs_beside_a_hive_are_replayed,
    hives_inside_an_image,
    a_hive_keeps_its_link_its_tail_and_its_rights,
    output_goes_where_it_is_sent,
    a_missing_key_is_explained,
];
