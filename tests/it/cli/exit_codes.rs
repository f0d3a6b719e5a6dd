//! The table of exit codes in the reference: no command ends otherwise, the same fault has the same code in every command, and
//! each code in the table is one that a fault shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;

use super::answer;
use super::grammar::{copy_system, on, setting};
use crate::bitlocker_job::made::{Key, Made};
use crate::block::pending::interrupt;
use crate::inject::{stderr, stdout, winject, writable_fixture};
use crate::support;
use winject::internals::block::Format;

/// The codes of each command, as the reference has them; 70 is understood.
fn table() -> BTreeMap<String, BTreeSet<i32>> {
    let page = std::fs::read_to_string(support::root().join("docs/reference.md")).unwrap();
    let (_, section) = page.split_once("\n## Exit codes\n").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `winject "));
    let row = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [command, done, no, errors, _, ""] = cells.as_slice() else { panic!("{row}") };
        assert!(!done.is_empty(), "{row}");
        let errors = errors.split(' ').map(|code| code.parse().unwrap());
        let questions = [0].into_iter().chain((!no.is_empty()).then_some(1));
        (command.trim_end_matches('`').to_owned(), questions.chain(errors).collect())
    };
    rows.map(row).collect()
}

/// Commands that read an image, each with its name in the table; none of them writes.
const LINES: [(&str, &str); 26] = [
    ("inject", "inject X --drivers drivers -n"),
    ("plan", "plan X --drivers drivers -q"),
    ("apply", "apply p.json --image X --drivers drivers -n"),
    ("remove", "remove X -n"),
    ("inspect", "inspect X"),
    ("check", "check X"),
    ("drivers list", "drivers list drivers --for X"),
    ("convert", "convert X new.qcow2 -n"),
    ("image info", "image info X"),
    ("image check", "image check X"),
    ("image map", "image map X"),
    ("fsck", "fsck X"),
    ("ls", "ls X /"),
    ("cat", "cat X /Windows/System32/config/SYSTEM"),
    ("cp", "cp -n X /Windows/System32/config/SYSTEM copied"),
    ("diff", "diff X X"),
    ("ntfs-log show", "ntfs-log show X"),
    ("ntfs-log replay", "ntfs-log replay X -n"),
    ("reg query", r"reg query X HKLM\SYSTEM\Select"),
    ("reg export", r"reg export X HKLM\SYSTEM\Select --utf8"),
    ("reg import", "reg import X h.reg -n"),
    ("reg set", r"reg set X HKLM\SYSTEM\winject --value a --data b -n"),
    ("reg delete", r"reg delete X HKLM\SYSTEM\Select -n"),
    ("reg diff", r"reg diff X X HKLM\SYSTEM\Select"),
    ("reg check", "reg check X"),
    ("--config", "--config X.yaml"),
];

/// Commands that work on what an edit in place left.
const OF_EDITS: [(&str, &str); 2] = [("undo", "undo X -n"), ("recover", "recover X -n")];

/// Commands that only print.
const PRINTING: [(&str, &str); 4] = [
    ("explain", "explain --list"),
    ("schema", "schema report"),
    ("completions", "completions bash"),
    ("manual", "manual"),
];

/// Codes of the table that nothing here shows. 8 takes a defect, or a host that changes files under winject; the others take
/// volumes that are damaged in a certain way, or whose log is open: the tests of those commands show them.
const NOT_SHOWN: [(&str, i32); 4] = [("fsck", 1), ("ntfs-log show", 1), ("image check", 1), ("reg check", 1)];

/// What each command ended with.
struct Seen(BTreeMap<String, BTreeSet<i32>>);

impl Seen {
    /// Runs a command and notes how it ended.
    fn run(&mut self, folder: &Path, command: &str, line: &str, image: &str) -> Output {
        let line = line.replace("X.yaml", &format!("{image}.yaml"));
        std::fs::write(
            folder.join(format!("{image}.yaml")),
            format!("vmdk: {image}\ndrivers: drivers\ndry_run: true\n"),
        )
        .unwrap();
        let output = answer(folder, &on(&line, image));
        self.note(command, output.status.code(), &line);
        output
    }

    fn note(&mut self, command: &str, code: Option<i32>, line: &str) {
        let code = code.unwrap_or_else(|| panic!("{line} was killed"));
        self.0.entry(command.to_owned()).or_default().insert(code);
    }

    /// Runs a command that has to end with this code.
    fn demand(&mut self, folder: &Path, command: &str, line: &str, image: &str, code: i32) {
        let output = self.run(folder, command, line, image);
        assert_eq!(output.status.code(), Some(code), "{line} on {image}: {}{}", stdout(&output), stderr(&output));
    }
}

/// Gives a qcow2 a table of clusters that lies behind the end of the file.
fn damage_header(image: &Path) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().write(true).open(image).unwrap();
    // l1_table_offset
    file.write_all_at(&(1_u64 << 40).to_be_bytes(), 40).unwrap();
}

fn every_command_ends_as_the_table_says() {
    let folder = setting();
    let path = folder.path();
    let at = |name: &str| path.join(name);
    copy_system(path);
    std::fs::write(at("letter.txt"), "Dear Sir or Madam").unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::File::create(at("zeros.raw")).unwrap().set_len(4 << 20).unwrap();
    std::fs::copy(at("i.qcow2"), at("damaged.qcow2")).unwrap();
    damage_header(&at("damaged.qcow2"));
    std::fs::rename(writable_fixture(path, Format::Raw), at("used.raw")).unwrap();
    std::fs::create_dir(at("used.raw.lck")).unwrap();
    std::fs::write(at("used.raw.lck/M01234.lck"), b"x").unwrap();
    std::fs::rename(writable_fixture(path, Format::Qcow2), at("interrupted.qcow2")).unwrap();
    interrupt(&at("interrupted.qcow2"));
    let mut seen = Seen(BTreeMap::new());

    for (command, line) in LINES {
        for (image, code) in [
            ("missing.qcow2", 7),
            ("folder", 4),
            ("letter.txt", 4),
            ("damaged.qcow2", 5),
            ("used.raw", 3),
            ("interrupted.qcow2", 9),
        ] {
            seen.demand(path, command, line, image, code);
        }
        if !matches!(command, "convert" | "image info" | "image check" | "image map") {
            seen.demand(path, command, line, "zeros.raw", 4);
        }
        // The fixture needs drivers: `check` says no.
        let fine = i32::from(command == "check");
        seen.demand(path, command, line, "i.qcow2", fine);
    }
    for (command, line) in OF_EDITS {
        for (image, code) in [("missing.qcow2", 7), ("folder", 4)] {
            seen.demand(path, command, line, image, code);
        }
    }
    if let Some(made) = Made::new("xts-128", Key::Recovery, &["--tpm"]) {
        std::fs::rename(&made.image, at("locked.raw")).unwrap();
        for (command, line) in LINES {
            if !matches!(command, "convert" | "image info" | "image check" | "image map") {
                seen.demand(path, command, line, "locked.raw", 3);
            }
        }
    }
    more_faults(path, &mut seen);
    let mut table = table();
    for (command, codes) in &seen.0 {
        let listed = table.get(command).unwrap_or_else(|| panic!("{command} is not in the table"));
        assert!(codes.is_subset(listed), "{command} ends with {codes:?}, the table has {listed:?}");
    }
    for (command, codes) in &mut table {
        codes.retain(|code| *code != 8 && !NOT_SHOWN.contains(&(command, *code)));
        assert_eq!(seen.0.get(command), Some(&*codes), "{command}: seen, and in the table");
    }
}

/// Faults of some commands, and answers with no.
fn more_faults(path: &Path, seen: &mut Seen) {
    let at = |name: &str| path.join(name);
    for (command, _) in LINES.iter().chain(&OF_EDITS).chain(&PRINTING) {
        let line =
            if *command == "--config" { "--config i.qcow2".to_owned() } else { format!("{command} --frobnicate") };
        seen.demand(path, command, &line, "i.qcow2", 2);
    }
    for (command, line) in PRINTING {
        seen.demand(path, command, line, "i.qcow2", 0);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = winject().current_dir(path).args(on(line, "i.qcow2")).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{line}: {}", stderr(&output));
        seen.note(command, output.status.code(), line);
    }
    for (command, line, code) in [
        ("inject", "inject X -n --drivers none", 6),
        ("--config", "--config none.yaml", 6),
        ("plan", "plan X --drivers none", 6),
        ("convert", "convert X new.qcow2 -n --drivers none", 6),
        ("drivers list", "drivers list none", 6),
        ("apply", "apply p.json --image X -n", 6),
        ("diff", "diff X --plan p.json", 6),
        ("plan", "plan X --drivers drivers --check -q", 1),
        ("undo", "undo X", 3),
        ("recover", "recover X", 0),
        ("recover", "recover interrupted.qcow2", 3),
        ("recover", "recover broken.raw", 9),
        ("undo", "undo interrupted.qcow2 -n", 9),
        ("image check", "image check X", 0),
        ("check", "check edited.qcow2", 0),
        ("undo", "undo edited.qcow2 -n", 0),
        ("diff", "diff X edited.qcow2", 1),
        ("reg diff", r"reg diff X edited.qcow2 HKLM\SYSTEM", 1),
        ("batch inspect", "batch inspect X", 0),
        ("batch inspect", "batch inspect letter.txt", 1),
        ("batch inspect", "batch inspect used.raw", 75),
        ("batch inspect", "batch inspect X --results h.reg/x", 2),
        ("batch check", "batch check edited.qcow2", 0),
        ("batch check", "batch check X", 1),
        ("batch check", "batch check used.raw", 75),
        ("batch check", "batch check", 2),
        ("batch inject", "batch inject X -n --drivers drivers", 0),
        ("batch inject", "batch inject letter.txt -n --drivers drivers", 1),
        ("batch inject", "batch inject used.raw -n --drivers drivers", 75),
        ("batch inject", "batch inject X -n", 2),
        ("batch convert", "batch convert X -n -o {name}.raw", 0),
        ("batch convert", "batch convert letter.txt -n -o {name}.raw", 1),
        ("batch convert", "batch convert used.raw -n -o {name}.img", 75),
        ("batch convert", "batch convert X -n", 2),
        ("batch", "batch fleet.yaml", 0),
        ("batch", "batch faulty.yaml", 1),
        ("batch", "batch busy.yaml", 75),
        ("batch", "batch letter.txt", 2),
        ("batch", "batch missing.yaml", 7),
        ("batch merge", "batch merge whole", 0),
        ("batch merge", "batch merge part", 1),
        ("batch merge", "batch merge --frobnicate", 2),
        ("batch merge", "batch merge missing", 7),
    ] {
        prepare(path, line);
        seen.demand(path, command, line, "i.qcow2", code);
    }
    for job in ["inspect X", "check X", "inject X -n --drivers drivers", "convert X -n -o {name}.raw"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let line = format!("batch {job} --json");
        let output = winject().current_dir(path).args(on(&line, "i.qcow2")).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{line}: {}", stderr(&output));
        seen.note(&format!("batch {}", job.split(' ').next().unwrap()), Some(7), &line);
    }
    assert!(at("edited.qcow2").exists());
}

/// Makes the files that a line needs, if they are not there yet.
fn prepare(path: &Path, line: &str) {
    let at = |name: &str| path.join(name);
    let succeed = |line: &str| {
        let output = answer(path, &on(line, "i.qcow2"));
        assert!(output.status.success(), "{line}: {}", stderr(&output));
    };
    if line.contains("edited.qcow2") && !at("edited.qcow2").exists() {
        std::fs::copy(at("i.qcow2"), at("edited.qcow2")).unwrap();
        succeed("inject edited.qcow2 --drivers drivers --in-place -q");
    }
    if line.contains("broken.raw") {
        std::fs::copy(at("interrupted.qcow2"), at("broken.raw")).unwrap();
        let journal = std::fs::read(at("interrupted.qcow2.winject-journal")).unwrap();
        std::fs::write(at("broken.raw.winject-journal"), &journal[..journal.len() / 2]).unwrap();
    }
    for (name, text) in [
        ("none.yaml", "vmdk: i.qcow2\ndrivers: none\ndry_run: true\n"),
        ("fleet.yaml", "job: inspect\nimages: [i.qcow2]\n"),
        ("faulty.yaml", "job: inspect\nimages: [letter.txt]\n"),
        ("busy.yaml", "job: inspect\nimages: [used.raw]\n"),
    ] {
        std::fs::write(at(name), text).unwrap();
    }
    // Another program uses it, too.
    let lock = at("interrupted.qcow2.lck");
    if line == "recover interrupted.qcow2" {
        std::fs::create_dir(&lock).unwrap();
        std::fs::write(lock.join("M01234.lck"), b"x").unwrap();
    } else {
        let _ = std::fs::remove_dir_all(lock);
    }
    if line.contains("merge whole") {
        succeed("batch inspect X --results whole -q");
    }
    if line.contains("merge part") {
        succeed("batch inspect X --results part --shard 0/2 -q");
    }
}

tests![every_command_ends_as_the_table_says];
