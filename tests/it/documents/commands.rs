//! Runs the commands of the documents. The line before a block of commands says what becomes of it, in a comment that a
//! reader of the page does not see:
//!
//! - `<!-- run: guest.qcow2 virtio-win.iso -->`: run it, in a folder with these files (see [`fixtures`](super::fixtures));
//!   `<!-- run: win.qcow2; exits 1: --check -->`: the command that contains `--check` ends with 1;
//! - `<!-- not run: REASON -->`: it needs what is not here. Its `winject` commands have to be commands all the same;
//! - `<!-- file: NAME -->`: no commands, but a file that those after it find in their folder.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::fixtures;
use super::{Document, guides};

/// What the comment before a block says.
#[derive(Debug, PartialEq)]
enum Marker<'a> {
    Run { files: Vec<&'a str>, exits: Option<(i32, &'a str)> },
    NotRun(&'a str),
    File(&'a str),
}

/// A fenced block of a document.
struct Block<'a> {
    line: usize,
    language: &'a str,
    marker: Option<Marker<'a>>,
    text: String,
}

fn marker(line: &str) -> Option<Marker<'_>> {
    let inner = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    if let Some(reason) = inner.strip_prefix("not run: ") {
        return Some(Marker::NotRun(reason));
    }
    if let Some(name) = inner.strip_prefix("file: ") {
        return Some(Marker::File(name));
    }
    let (files, exits) = match inner.strip_prefix("run: ")?.split_once("; exits ") {
        Some((files, exits)) => (files, Some(exits.split_once(": ")?)),
        None => (inner.strip_prefix("run: ")?, None),
    };
    let exits = match exits {
        Some((code, command)) => Some((code.parse().ok()?, command)),
        None => None,
    };
    Some(Marker::Run { files: files.split(' ').collect(), exits })
}

fn blocks(document: &Document) -> Vec<Block<'_>> {
    let mut out = Vec::new();
    let mut before = "";
    let mut lines = document.text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let text = text.fold(String::new(), |text, line| text + line + "\n");
            out.push(Block { line: number + 1, language, marker: marker(before), text });
        }
        before = line;
    }
    out
}

/// The commands of a block: what follows `$ `, with the lines that a backslash continues.
fn commands(block: &Block) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut is_continued = false;
    for line in block.text.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => out.push(command.to_owned()),
            None if is_continued => {
                let last = out.last_mut().unwrap();
                last.push('\n');
                last.push_str(line);
            }
            None => {}
        }
        is_continued = line.ends_with('\\');
    }
    out
}

/// Runs a line as a shell does that finds this build's winject first, and without a terminal.
fn shell(command: &str, folder: &Path) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_winject")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([program.to_owned()].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", command]).env("PATH", path).current_dir(folder).stdin(Stdio::null());
    bash.output().unwrap()
}

fn fault(document: &Document, block: &Block, command: &str, output: &Output, expected: i32) -> String {
    format!(
        "{}:{}: {command}\n  ended with {}, not with {expected}\n{}{}",
        document.name,
        block.line,
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs the commands of a document that are to be run: how many ran, and which did not end as they should. `None` when
/// a program is missing here.
fn run(document: &Document) -> Option<(usize, Vec<String>)> {
    let mut faults = Vec::new();
    let mut count = 0;
    let mut written: Vec<(&str, &str)> = Vec::new();
    let all = blocks(document);
    for block in &all {
        let (files, exits) = match &block.marker {
            Some(Marker::File(name)) => {
                written.push((name, &block.text));
                continue;
            }
            Some(Marker::Run { files, exits }) => (files, *exits),
            _ => continue,
        };
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in &written {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        for file in files {
            fixtures::provide(folder.path(), file)?;
        }
        for command in commands(block) {
            let expected = exits.filter(|(_, part)| command.contains(part)).map_or(0, |(code, _)| code);
            let output = shell(&command, folder.path());
            count += 1;
            if output.status.code() != Some(expected) {
                faults.push(fault(document, block, &command, &output, expected));
            }
        }
    }
    Some((count, faults))
}

fn the_commands_of_the_documents_run() {
    let (mut count, mut faults) = (0, Vec::new());
    for document in guides() {
        let Some((ran, found)) = run(&document) else { return };
        count += ran;
        faults.extend(found);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 25, "only {count} commands ran");
}

/// What is not run is at least a command: `--help` after it is only answered when all before it can be read.
fn every_block_of_commands_says_whether_it_is_run() {
    let mut faults = Vec::new();
    let mut parsed = 0;
    for document in guides() {
        for block in blocks(&document).iter().filter(|block| block.language == "console") {
            match &block.marker {
                Some(Marker::Run { .. }) => {}
                Some(Marker::NotRun(reason)) if !reason.is_empty() => {
                    for command in commands(block).iter().filter(|command| command.starts_with("winject ")) {
                        let command = command.split(" # ").next().unwrap();
                        let output = shell(&format!("{command} --help"), Path::new("."));
                        parsed += 1;
                        if !output.status.success() {
                            faults.push(fault(&document, block, command, &output, 0));
                        }
                    }
                }
                _ => faults.push(format!("{}:{}: no comment says whether it is run", document.name, block.line)),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(parsed > 3, "only {parsed} commands parsed");
}

/// The two tests above find what they are for.
fn a_command_that_fails_is_found() {
    let text =
        "<!-- run: a/; exits 3: exit -->\n```console\n$ exit 3\n$ test -d \\\n    b # not there\n$ test -d a\n```\n";
    let document = Document { name: "made-up.md".into(), text: text.into() };
    let (count, faults) = run(&document).unwrap();
    assert_eq!(count, 3);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("made-up.md:2: test -d \\\n    b # not there\n  ended with"), "{faults:?}");
    assert_eq!(marker("<!-- not run: no cloud -->"), Some(Marker::NotRun("no cloud")));
    assert_eq!(marker("<!-- run: a; exits x: b -->"), None);
    assert_eq!(marker("Some text."), None);
}

tests![
    the_commands_of_the_documents_run,
    every_block_of_commands_says_whether_it_is_run,
    a_command_that_fails_is_found,
];
