//! The manual: the reference page, manual pages, completions of shells.

use std::process::Command;

use super::answer;
use crate::inject::{folder, names, stdout, succeed, winject};
use crate::support::{self, program};

fn the_reference_is_that_of_the_program() {
    let page = stdout(&succeed(winject().arg("manual")));
    let file = std::fs::read_to_string(support::root().join("docs/reference.md")).unwrap_or_default();
    let difference = page.lines().zip(file.lines()).find(|(new, old)| new != old);
    assert!(
        page == file,
        "docs/reference.md is not current, write it again: cargo run -- manual > docs/reference.md\n{difference:?}"
    );
    for part in ["## winject inject\n", "### winject reg query\n", "`--drivers <PATH>`", "Exit codes: 0 done"] {
        assert!(page.contains(part), "{part}");
    }
}

fn every_command_has_a_manual_page_that_man_can_read() {
    let folder = folder();
    let text = stdout(&succeed(winject().current_dir(folder.path()).args(["manual", "--output-dir", "man"])));
    let pages = names(&folder.path().join("man"));
    assert!(text.contains(&format!("{} manual pages", pages.len())) && pages.len() > 20, "{text}");
    for page in ["winject.1", "winject-inject.1", "winject-reg-query.1", "winject-image-info.1"] {
        assert!(pages.iter().any(|name| name == page), "{page}: {pages:?}");
    }
    let again = answer(folder.path(), &["manual", "--output-dir", "man"]);
    assert_eq!(again.status.code(), Some(2), "a page that exists is replaced");
    succeed(winject().current_dir(folder.path()).args(["manual", "--output-dir", "man", "--overwrite"]));
    let Some(groff) = program("groff") else { return };
    for page in &pages {
        let page = folder.path().join("man").join(page);
        let output = support::run(Command::new(&groff).args(["-Kutf8", "-man", "-Tutf8", "-ww", "-P-cbou"]).arg(&page));
        assert!(output.stderr.is_empty(), "{}: {}", page.display(), String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("SYNOPSIS"), "{}", page.display());
    }
}

fn bash_completes_commands_and_options() {
    let folder = folder();
    let script = succeed(winject().args(["completions", "bash"]));
    std::fs::write(folder.path().join("winject.bash"), &script.stdout).unwrap();
    let complete = |words: &str, last: usize| {
        let ask = format!(
            "source ./winject.bash; COMP_WORDS=({words}); COMP_CWORD={last}; \
             _winject winject \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{last} - 1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        stdout(&support::run(Command::new("bash").current_dir(folder.path()).args(["-c", &ask])))
    };
    let commands = complete("winject in", 1);
    assert!(commands.contains("inject\n") && commands.contains("inspect\n"), "{commands}");
    let options = complete("winject reg query --rec", 3);
    assert_eq!(options, "--recursive\n");
    for (words, last, expected) in [
        ("winject check --bus virtio-", 3, "virtio-blk\nvirtio-scsi\n"),
        ("winject inspect -f v", 3, "vmdk\nvhd\nvhdx\nvdi\n"),
        ("winject inspect --format q", 3, "qcow2\n"),
        ("winject convert -O ''", 3, "qcow2\nraw\n"),
        ("winject convert --compress z", 3, "zlib\nzstd\n"),
        ("winject check --machine ku", 3, "kubevirt\n"),
        ("winject check --progress pl", 3, "plain\n"),
        ("winject reg check --hive SY", 4, "SYSTEM\n"),
        ("winject reg set --type q", 4, "qword\n"),
        ("winject schema batch-i", 2, "batch-item\n"),
        ("winject explain no-space", 2, "no-space\n"),
        ("winject explain SL-ORD", 2, "SL-ORDER\n"),
        ("winject completions z", 2, "zsh\n"),
    ] {
        assert_eq!(complete(words, last), expected, "{words}");
    }
}

fn every_shell_gets_its_completions() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef winject"), ("fish", "complete -c winject")] {
        let script = stdout(&succeed(winject().args(["completions", shell])));
        assert!(script.contains(word) && script.contains("inspect"), "{shell}");
    }
    assert_eq!(winject().args(["completions", "command.com"]).output().unwrap().status.code(), Some(2));
}

tests![
    the_reference_is_that_of_the_program,
    every_command_has_a_manual_page_that_man_can_read,
    bash_completes_commands_and_options,
    every_shell_gets_its_completions,
];
