//! The exit codes of every command: the one definition of which it can end with, and what they mean there.

use std::fmt::Write as _;

use crate::exit::ExitCode;
use ExitCode::{Bug, Damaged, Done, Drivers, Io, No, Pending, Refused, TryAgain, Unsupported, Usage, Verify};

/// What each code means in every command.
const MEANINGS: [(ExitCode, &str); 12] = [
    (Done, "done, or nothing to do; for questions: yes, clean"),
    (No, "a question answered with no"),
    (Usage, "usage or configuration; an output that exists or cannot be one"),
    (Refused, "refused, for a reason that the message states"),
    (Unsupported, "not a disk image, unsupported, or no Windows in it"),
    (Damaged, "damaged image, or a guest whose boot chain is broken"),
    (Drivers, "drivers: missing, none for this Windows, unsigned"),
    (Io, "input/output: a file that is missing, cannot be read or cannot be written"),
    (Verify, "verification failed, and nothing was written"),
    (Pending, "an interrupted run is pending (winject recover IMAGE), or a plan is stale"),
    (Bug, "a defect of winject"),
    (TryAgain, "some item of a batch can be tried again"),
];

/// The codes of a command. With [`Bug`] every command can end.
struct Outcomes {
    /// Its words after `winject`; those of several commands with the same codes.
    commands: &'static [&'static str],
    /// What 0 says.
    done: &'static str,
    /// What 1 says, if the command answers a question.
    no: Option<&'static str>,
    /// The codes of its errors.
    errors: &'static [ExitCode],
    /// What a code says there in particular.
    there: &'static [(ExitCode, &'static str)],
}

/// Errors of commands that read images.
const READING: &[ExitCode] = &[Usage, Refused, Unsupported, Damaged, Io, Pending];
/// Errors of commands that write a changed image.
const EDITING: &[ExitCode] = &[Usage, Refused, Unsupported, Damaged, Io, Verify, Pending];
/// Errors of commands that read images and driver media.
const PLANNING: &[ExitCode] = &[Usage, Refused, Unsupported, Damaged, Drivers, Io, Verify, Pending];
/// Errors of commands that read no image.
const PRINTING: &[ExitCode] = &[Usage, Io];

/// Every command, in the order of the help.
const COMMANDS: &[Outcomes] = &[
    Outcomes {
        commands: &["--config", "inject"],
        done: "the guest is as asked for, or was already",
        no: None,
        errors: PLANNING,
        there: &[],
    },
    Outcomes {
        commands: &["plan"],
        done: "planned; with --check: nothing is to be changed",
        no: Some("with --check: something is to be changed"),
        errors: PLANNING,
        there: &[(Verify, "the guest would not boot after the plan")],
    },
    Outcomes {
        commands: &["apply"],
        done: "done as the plan says",
        no: None,
        errors: PLANNING,
        there: &[(Drivers, "a file of the plan is on none of the media"), (Pending, "the plan is stale")],
    },
    Outcomes {
        commands: &["undo"],
        done: "undone; with --dry-run: can be undone",
        no: None,
        errors: &[Usage, Refused, Unsupported, Io, Pending],
        there: &[(Refused, "no undo record, or something else has written to the same places since")],
    },
    Outcomes {
        commands: &["remove"],
        done: "nothing of winject's is left that could go",
        no: None,
        errors: EDITING,
        there: &[(Verify, "the guest would boot from no disk any more")],
    },
    Outcomes { commands: &["inspect"], done: "a Windows was found", no: None, errors: READING, there: &[] },
    Outcomes {
        commands: &["check"],
        done: "the guest boots",
        no: Some("the guest does not boot"),
        errors: READING,
        there: &[],
    },
    Outcomes {
        commands: &["batch inspect", "batch check", "batch inject", "batch convert", "batch"],
        done: "all items are done",
        no: Some("an item failed for good, or has findings"),
        errors: &[Usage, Io, TryAgain],
        there: &[(TryAgain, "an item can be tried again as it is, or the batch was stopped")],
    },
    Outcomes {
        commands: &["batch merge"],
        done: "the results are whole",
        no: Some("something is missing or double"),
        errors: PRINTING,
        there: &[],
    },
    Outcomes {
        commands: &["drivers list"],
        done: "listed; with --for: the media have what the guest needs",
        no: None,
        errors: &[Usage, Refused, Unsupported, Damaged, Drivers, Io, Pending],
        there: &[],
    },
    Outcomes {
        commands: &["recover"],
        done: "recovered, or nothing to recover",
        no: None,
        errors: &[Usage, Refused, Unsupported, Io, Pending],
        there: &[(Pending, "the run could not be recovered: the journal is unusable, or the cause is still there")],
    },
    Outcomes { commands: &["convert"], done: "converted", no: None, errors: PLANNING, there: &[] },
    Outcomes { commands: &["image info", "image map"], done: "shown", no: None, errors: READING, there: &[] },
    Outcomes {
        commands: &["image check"],
        done: "the file is sound",
        no: Some("faults were found in the file"),
        errors: READING,
        there: &[(Damaged, "the header cannot be read")],
    },
    Outcomes {
        commands: &["fsck"],
        done: "all volumes are sound",
        no: Some("faults were found, or a volume is not cleanly shut down"),
        errors: READING,
        there: &[(Damaged, "a volume cannot be read at all")],
    },
    Outcomes { commands: &["ls", "cat"], done: "all of it was printed", no: None, errors: READING, there: &[] },
    Outcomes {
        commands: &["cp"],
        done: "all of it was copied",
        no: None,
        errors: READING,
        there: &[(Damaged, "a file cannot be read; the others were copied")],
    },
    Outcomes {
        commands: &["diff"],
        done: "the same",
        no: Some("different"),
        errors: PLANNING,
        there: &[(Pending, "an interrupted run is pending, or the plan of --plan is stale")],
    },
    Outcomes {
        commands: &["ntfs-log show"],
        done: "all logs are closed",
        no: Some("a log is open or cannot be read"),
        errors: READING,
        there: &[],
    },
    Outcomes {
        commands: &["ntfs-log replay"],
        done: "all logs are closed now",
        no: None,
        errors: EDITING,
        there: &[(Refused, "a volume is hibernated, or its log cannot be replayed")],
    },
    Outcomes { commands: &["explain"], done: "explained", no: None, errors: PRINTING, there: &[] },
    Outcomes {
        commands: &["reg query", "reg export"],
        done: "the key or value is there",
        no: None,
        errors: READING,
        there: &[(Usage, "no such key or value")],
    },
    Outcomes {
        commands: &["reg import", "reg set", "reg delete"],
        done: "the hive is as asked for, or was already",
        no: None,
        errors: EDITING,
        there: &[],
    },
    Outcomes {
        commands: &["reg diff"],
        done: "the same",
        no: Some("different"),
        errors: READING,
        there: &[(Usage, "no such key")],
    },
    Outcomes {
        commands: &["reg check"],
        done: "the hives keep every rule",
        no: Some("a rule is broken"),
        errors: READING,
        there: &[],
    },
    Outcomes {
        commands: &["schema", "completions", "manual"],
        done: "printed",
        no: None,
        errors: PRINTING,
        there: &[],
    },
];

/// The codes in one sentence, for the help.
pub(super) fn summary() -> String {
    let texts: Vec<String> = MEANINGS.iter().map(|(code, meaning)| format!("{} {meaning}", *code as u8)).collect();
    format!("Exit codes: {}.", texts.join("; "))
}

/// The codes and the commands in Markdown, for the reference.
pub(super) fn section() -> String {
    let mut out = String::from(
        "\n## Exit codes\n\nThe same fault has the same code in every command.\n\n| code | meaning |\n|---|---|\n",
    );
    // Writing to a String cannot fail.
    for (code, meaning) in MEANINGS {
        let _ = writeln!(out, "| {} | {meaning} |", code as u8);
    }
    out.push_str("\nEvery command can also end with 70, and ends by the signal that stops it.\n\n");
    out.push_str("| command | 0 | 1 | errors | in particular |\n|---|---|---|---|---|\n");
    for outcomes in COMMANDS {
        let errors: Vec<String> = outcomes.errors.iter().map(|code| (*code as u8).to_string()).collect();
        let there: Vec<String> =
            outcomes.there.iter().map(|(code, meaning)| format!("{}: {meaning}", *code as u8)).collect();
        for command in outcomes.commands {
            let (done, no) = (outcomes.done, outcomes.no.unwrap_or_default());
            let _ =
                writeln!(out, "| `winject {command}` | {done} | {no} | {} | {} |", errors.join(" "), there.join("; "));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{Command, CommandFactory};
    use std::collections::BTreeSet;

    /// The commands that can be run, by their words.
    fn leaves(command: &Command, words: &str, found: &mut BTreeSet<String>) {
        let below: Vec<&Command> = command.get_subcommands().filter(|command| command.get_name() != "help").collect();
        if !words.is_empty() && (below.is_empty() || !command.is_subcommand_required_set()) {
            found.insert(words.to_owned());
        }
        for command in below {
            leaves(command, format!("{words} {}", command.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn every_command_has_its_codes() {
        let mut root = Cli::command();
        root.build();
        let mut found = BTreeSet::from(["--config".to_owned()]);
        leaves(&root, "", &mut found);
        let listed: Vec<String> =
            COMMANDS.iter().flat_map(|outcomes| outcomes.commands).map(|command| (*command).to_owned()).collect();
        assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), found);
        assert_eq!(listed.len(), found.len(), "a command stands there twice");
    }

    #[test]
    fn what_is_said_of_a_code_is_said_of_one_that_the_command_has() {
        for outcomes in COMMANDS {
            let is_sorted = outcomes.errors.windows(2).all(|pair| (pair[0] as u8) < (pair[1] as u8));
            assert!(is_sorted, "{:?}", outcomes.commands);
            for (code, _) in outcomes.there {
                assert!(outcomes.errors.contains(code), "{:?} {code:?}", outcomes.commands);
            }
        }
    }
}
