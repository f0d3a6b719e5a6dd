//! Whatever becomes of a run: the disk with Windows is old or new, and the others are what they were.

use super::{MACHINES, Machine, command, fail, uefi};
use crate::inject::{copy, disk_sha256, folder, names, sha256, stdout, succeed, winject};
use crate::support;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use winject::internals::block::commit;

/// The guest's disk after an injection, by the firmware of its machine.
fn injected(machine: &Machine) -> String {
    let out = machine.system.with_file_name("expected.qcow2");
    succeed(&mut command("inject", &machine.in_order(true), &format!("--overlay {}", out.display())));
    let sum = disk_sha256(&out);
    std::fs::remove_file(out).unwrap();
    sum
}

/// Neither the order of the disks nor their containers nor the destination make a difference to what the guest gets.
fn any_order_container_and_destination_give_the_same_bytes() {
    let Some(qemu_img) = support::program("qemu-img") else { return };
    for (firmware, make) in MACHINES {
        let folder = folder();
        let machine = make(folder.path());
        let expected = injected(&machine);
        let boot = sha256(&machine.boot);
        let made = |from: &Path, format: &str| -> PathBuf {
            let to = from.with_extension(format);
            support::run(Command::new(&qemu_img).args(["convert", "-O", format]).arg(from).arg(&to));
            to
        };
        let others = [machine.boot.clone(), made(&machine.boot, "qcow2"), made(&machine.boot, "vmdk")];
        for (index, boot) in others.iter().enumerate() {
            for is_windows_first in [true, false] {
                let system = folder.path().join("copy.img");
                copy(&machine.system, &system);
                let pair = Machine { system, boot: boot.clone() };
                let disks = pair.in_order(is_windows_first);
                let what = format!("{firmware} {} {is_windows_first}", boot.display());
                let before = sha256(boot);
                match index {
                    0 => drop(succeed(&mut command("inject", &disks, "--in-place"))),
                    1 => {
                        let out = folder.path().join("overlay.qcow2");
                        let options = format!("--overwrite --overlay {}", out.display());
                        let old = sha256(&pair.system);
                        succeed(&mut command("inject", &disks, &options));
                        assert_eq!((disk_sha256(&out), sha256(&pair.system)), (expected.clone(), old), "{what}");
                        succeed(&mut command("inject", &disks, "--in-place"));
                    }
                    _ => {
                        let config = folder.path().join("run.yaml");
                        let [one, other] = disks.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
                        let drivers = crate::inject::fixture_drivers();
                        let text = format!(
                            "vmdk: [{one}, {other}]\ndrivers: {}\nto_output: new.raw\noverwrite: true\n",
                            drivers.display()
                        );
                        std::fs::write(&config, text).unwrap();
                        succeed(winject().arg("--config").arg(&config));
                        assert_eq!(disk_sha256(&folder.path().join("new.raw")), expected, "{what}");
                        succeed(&mut command("inject", &disks, "--in-place"));
                    }
                }
                assert_eq!(disk_sha256(&pair.system), expected, "{what}");
                let again = stdout(&succeed(&mut command("inject", &disks, "--in-place")));
                assert!(again.contains("Unchanged: "), "{what}: {again}");
                assert_eq!(sha256(boot), before, "{what}");
                succeed(winject().arg("undo").arg(&pair.system));
                assert_eq!(sha256(&pair.system), sha256(&machine.system), "{what}");
            }
        }
        assert_eq!(sha256(&machine.boot), boot, "{firmware}");
    }
}

/// A file-size limit breaks the commit at some write; the run fails, and all disks are what they were.
fn a_full_disk_leaves_all_as_they_were() {
    let folder = folder();
    let machine = uefi(folder.path());
    let disks = machine.in_order(false);
    let arguments = command("inject", &disks, "--in-place");
    for blocks in [0, 1, 8, 64] {
        // The shell counts the limit of a file's size in units of 512 or 1024 bytes.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let mut limited = Command::new("sh");
        limited.args(["-c", &script, "sh"]).arg(arguments.get_program()).args(arguments.get_args());
        let before = [sha256(&machine.system), sha256(&machine.boot)];
        let output = limited.output().unwrap();
        assert!(!output.status.success(), "{blocks}");
        assert_eq!([sha256(&machine.system), sha256(&machine.boot)], before, "{blocks}");
        assert_eq!(names(folder.path()), ["boot.raw", "system.raw"], "{blocks}");
    }
}

/// Kills and signals at random moments: the next run refuses or goes on, names the command, and the outcome is old or new.
fn a_killed_run_is_recovered_by_the_command_that_it_names() {
    let folder = folder();
    let machine = uefi(folder.path());
    let (old, new) = (disk_sha256(&machine.system), injected(&machine));
    let boot = sha256(&machine.boot);
    let pristine = folder.path().join("pristine");
    copy(&machine.system, &pristine);
    let mut pending = 0;
    for round in 0..support::rounds(12, 40) {
        let is_windows_first = round % 2 == 0;
        let disks = machine.in_order(is_windows_first);
        let mut run = command("inject", &disks, "--in-place --no-undo");
        let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let journal = commit::journal_path(&machine.system);
        // Not before it has begun to write, or it has ended.
        while !journal.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(300 * round));
        let signal = ["KILL", "TERM", "INT", "KILL"][round as usize % 4];
        let sent = format!("kill -{signal} {} 2>/dev/null", child.id());
        let _ = Command::new("sh").args(["-c", &sent]).status().unwrap();
        child.wait().unwrap();
        assert!(signal == "KILL" || !journal.exists(), "SIG{signal} leaves no journal");
        if commit::journal_path(&machine.system).exists() {
            let output = command("inject", &disks, "--in-place").output().unwrap();
            if output.status.code() == Some(9) {
                pending += 1;
                let text = crate::inject::stderr(&output);
                let path = machine.system.display().to_string();
                assert!(text.contains("winject recover ") && text.contains(&path), "{text}");
                succeed(winject().arg("recover").arg(&machine.system));
            }
        }
        let now = disk_sha256(&machine.system);
        assert!(now == old || now == new, "neither old nor new in round {round}");
        assert_eq!(sha256(&machine.boot), boot);
        copy(&pristine, &machine.system);
        let _ = std::fs::remove_file(commit::undo_path(&machine.system));
        let _ = std::fs::remove_file(journal);
    }
    if pending == 0 {
        support::skip("no run could be killed while it wrote");
    }
}

/// Reads of the other disk that fail, one after the other: the run fails, or reads again and does what it has to.
fn an_error_of_the_other_disk_changes_nothing() {
    let Some(strace) = support::program("strace") else { return };
    let folder = folder();
    let machine = uefi(folder.path());
    let (old, new, boot) = (sha256(&machine.system), injected(&machine), sha256(&machine.boot));
    let disks = machine.in_order(true);
    let arguments = command("inject", &disks, "--in-place --no-undo --threads 1");
    let pristine = folder.path().join("pristine");
    copy(&machine.system, &pristine);
    let (mut failed, mut reads) = (0, 1);
    let step = usize::try_from(support::rounds(5, 2)).unwrap().clamp(1, 5);
    loop {
        let log = folder.path().join("log");
        let inject = format!("inject=pread64:error=EIO:when={reads}");
        let mut traced = Command::new(&strace);
        traced
            .args(["-f", "-qq", "-o"])
            .arg(&log)
            .args(["-e", "trace=pread64", "-e", &inject, "-P"])
            .arg(&machine.boot);
        traced.arg(arguments.get_program()).args(arguments.get_args()).env("SOURCE_DATE_EPOCH", "1700000000");
        let output = traced.output().unwrap();
        let was_injected = std::fs::read_to_string(&log).unwrap_or_default().contains("INJECTED");
        std::fs::remove_file(&log).unwrap();
        assert_eq!(sha256(&machine.boot), boot, "read {reads}");
        assert_eq!(names(folder.path()), ["boot.raw", "pristine", "system.raw"], "read {reads}");
        if output.status.success() {
            assert_eq!(disk_sha256(&machine.system), new, "read {reads}");
            copy(&pristine, &machine.system);
        } else {
            failed += 1;
            assert_eq!(output.status.code(), Some(7), "read {reads}: {}", crate::inject::stderr(&output));
            assert_eq!(sha256(&machine.system), old, "read {reads}");
        }
        if !was_injected {
            break;
        }
        reads += step;
    }
    assert!(failed > 5, "{failed} reads failed");
}

/// An interrupted run of any of the disks comes first; nothing is touched.
fn a_pending_journal_next_to_any_disk_ends_with_9() {
    let folder = folder();
    let machine = uefi(folder.path());
    for path in [&machine.boot, &machine.system] {
        let journal = commit::journal_path(path);
        std::fs::write(&journal, [0xA5; 8192]).unwrap();
        for options in ["--in-place", "--dry-run", "--overlay new.qcow2"] {
            let disks = machine.in_order(true);
            let mut command = command("inject", &disks, options);
            let text = fail(command.current_dir(folder.path()), 9, &disks);
            let path = path.display().to_string();
            assert!(text.contains("winject recover ") && text.contains(&path), "{options}: {text}");
        }
        assert_eq!(std::fs::read(&journal).unwrap(), [0xA5; 8192]);
        std::fs::remove_file(&journal).unwrap();
    }
    assert_eq!(names(folder.path()), ["boot.raw", "system.raw"]);
}

/// A journal that was never completed does not stop a run: it is removed where the run writes, and left where it reads.
fn an_unused_journal_is_no_obstacle() {
    let folder = folder();
    let machine = uefi(folder.path());
    for path in [&machine.boot, &machine.system] {
        std::fs::write(commit::journal_path(path), [0; 8192]).unwrap();
    }
    succeed(&mut command("inject", &machine.in_order(false), "--in-place --no-undo"));
    assert_eq!(names(folder.path()), ["boot.raw", "boot.raw.winject-journal", "system.raw"]);
}

/// Locks and marks of other programs count on every disk.
fn a_disk_that_another_process_writes_is_refused() {
    use winject::internals::block::{HostFiles, Locking, RealHost};
    let folder = folder();
    let machine = uefi(folder.path());
    for path in [&machine.boot, &machine.system] {
        let held = RealHost.lock(path, Locking::Refuse).unwrap();
        for options in ["--in-place", "--dry-run"] {
            let disks = machine.in_order(false);
            let output = command("inject", &disks, options).output().unwrap();
            let text = crate::inject::stderr(&output);
            assert_eq!(output.status.code(), Some(3), "{options}: {text}");
            assert!(text.contains("another process"), "{options}: {text}");
        }
        drop(held);
    }
    if let Some(qemu_io) = support::program("qemu-io") {
        let mut qemu = Command::new(qemu_io);
        qemu.args(["-f", "raw"]).arg(&machine.boot).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut qemu = qemu.spawn().unwrap();
        let mut stdin = qemu.stdin.take().unwrap();
        stdin.write_all(b"read 0 512\n").unwrap();
        // It answers when it holds its locks.
        qemu.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
        let refused = command("inject", &machine.in_order(true), "--dry-run").output().unwrap();
        drop(stdin);
        qemu.wait().unwrap();
        assert_eq!(refused.status.code(), Some(3), "{}", crate::inject::stderr(&refused));
    }
    std::fs::create_dir(machine.boot.with_file_name("boot.raw.lck")).unwrap();
    std::fs::write(folder.path().join("boot.raw.lck/M1.lck"), b"x").unwrap();
    let disks = machine.in_order(true);
    let text = fail(&mut command("inject", &disks, "--in-place"), 3, &disks);
    assert!(text.contains("VMware"), "{text}");
}

tests![
    any_order_container_and_destination_give_the_same_bytes,
    a_full_disk_leaves_all_as_they_were,
    a_killed_run_is_recovered_by_the_command_that_it_names,
    an_error_of_the_other_disk_changes_nothing,
    a_pending_journal_next_to_any_disk_ends_with_9,
    an_unused_journal_is_no_obstacle,
    a_disk_that_another_process_writes_is_refused,
];
