use std::collections::BTreeSet;

use super::*;
use crate::windows::first_boot::description::PackageStep;
use crate::windows::first_boot::description::{NetworkStep, ReleaseStep, RunStep};
use crate::windows::first_boot::setup;

fn package(path: &str, required: bool) -> Step {
    Step::Package(PackageStep { required, seconds: 300, path: path.to_owned() })
}

fn steps() -> Vec<Step> {
    vec![
        Step::WaitForDevices { seconds: 180 },
        package("viostor\\viostor.inf", true),
        package("balloon\\a b%1.inf", false),
        Step::Refused { path: "odd & old\\x.inf".to_owned() },
        Step::OtherPackages { seconds: 300 },
        Step::Scan,
        Step::Network(NetworkStep {
            mac: "52:54:00:12:34:56".to_owned(),
            seconds: 60,
            name: "Ethernet".to_owned(),
            commands: vec!["interface ipv4 set address {index} dhcp".to_owned()],
        }),
        Step::Run(RunStep::optional("agent", 600, "msiexec.exe /i \"a & b.msi\" /qn")),
        Step::Release(ReleaseStep {
            inf: "h2k-viostor.inf".to_owned(),
            package: "h2k-viostor.inf_amd64_0000000000000000".to_owned(),
            service: "viostor".to_owned(),
        }),
    ]
}

fn jobs() -> Vec<JobDescription> {
    let forms = [None, Some(Pnputil::Legacy), Some(Pnputil::AddDriver)];
    let reboots = [Reboot::Never, Reboot::IfNeeded];
    let steps = [steps(), Vec::new()];
    let mut out = Vec::new();
    for form in forms {
        for reboot in reboots {
            out.extend(steps.iter().map(|steps| JobDescription::new(form, steps.clone(), reboot)));
        }
    }
    out
}

fn text(job: &JobDescription) -> String {
    String::from_utf8(print(job).unwrap()).unwrap()
}

#[test]
fn scripts_are_ascii_with_cr_lf() {
    for job in jobs() {
        for script in [setup::print(&job), print(&job).unwrap()] {
            assert!(script.is_ascii());
            let text = String::from_utf8(script).unwrap();
            assert!(text.ends_with("\r\n"));
            assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
            assert!(text.lines().all(|l| l.len() < 1000), "cmd.exe limits the line");
            assert!(text.starts_with("@echo off\r\n") && text.matches('@').count() == 1, "a placeholder is left");
        }
    }
}

#[test]
fn every_label_exists_once() {
    for job in jobs() {
        let text = text(&job);
        let labels: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix(':')).map(str::trim).collect();
        let set: BTreeSet<&str> = labels.iter().copied().collect();
        assert_eq!(labels.len(), set.len(), "a label twice: {labels:?}");
        for word in ["goto ", "call :"] {
            for (at, _) in text.match_indices(word) {
                let target: String = text[at + word.len()..]
                    .trim_start_matches(':')
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || "_%".contains(*c))
                    .collect();
                let is_child = target == "do_%STEP%" || target == "do_end" && !set.contains("do_install");
                assert!(target == "eof" || is_child || set.contains(target.as_str()), "no label {target}");
            }
        }
    }
}

#[test]
fn the_same_steps_are_in_both_forms() {
    for job in jobs() {
        let file = String::from_utf8(crate::windows::first_boot::job_file::print(&job).unwrap()).unwrap();
        let script = text(&job);
        for step in job.steps.iter().filter(|step| step.has_result()) {
            assert!(file.contains(step.name()), "{}", step.name());
            let name = step.name().replace('\\', "\\\\").replace('%', "%%");
            assert!(script.contains(&format!("\"kind\":\"{}\",\"name\":\"{name}\"", step.kind())), "{name}");
        }
    }
}

#[test]
fn pnputil_speaks_the_dialect_of_its_windows() {
    let of = |form| {
        let job = JobDescription::new(form, steps(), Reboot::Never);
        (String::from_utf8(setup::print(&job)).unwrap(), text(&job))
    };
    let (setup, job) = of(Some(Pnputil::AddDriver));
    assert!(setup.contains(
        "pnputil.exe\" /add-driver \"%SystemDrive%\\hyper2kvm\\drivers\\virtio\\viostor\\viostor.inf\" /install\r\n"
    ));
    assert!(job.contains("/add-driver \"%ITEM%\" /install"));
    let (setup, job) = of(Some(Pnputil::Legacy));
    assert!(
        setup.contains("pnputil.exe\" -i -a \"%SystemDrive%\\hyper2kvm\\drivers\\virtio\\viostor\\viostor.inf\"\r\n")
    );
    assert!(job.contains("pnputil.exe\" -i -a \"%ITEM%\" >"));
    let (setup, job) = of(None);
    assert!(!setup.contains("pnputil.exe") && !job.contains("pnputil.exe\" "));
}

#[test]
fn the_job_keeps_the_contract() {
    let text = text(&JobDescription::new(Some(Pnputil::AddDriver), steps(), Reboot::IfNeeded));
    assert!(text.contains("dir /b /s \"%STAGE%\\*.inf\""));
    assert!(text.contains("%SystemRoot%\\Temp\\hyper2kvm-firstboot.log"));
    assert!(text.contains("sc.exe\" delete hyper2kvm-firstboot"));
    let storage = text.find("viostor\\viostor.inf").unwrap();
    assert!(storage < text.find("balloon\\a b%%1.inf").unwrap());
    // the marker is written at one place only, after the required steps were counted
    assert_eq!(text.matches(">\"%BASE%\\firstboot.done\"").count(), 1);
    assert!(text.find("\"%RF%\"==\"0\" goto done").unwrap() < text.find(">\"%BASE%\\firstboot.done\"").unwrap());
    assert!(
        text.find("if exist \"%BASE%\\firstboot.failed\" goto remove").unwrap() < text.find("call :child").unwrap()
    );
    for code in ["0", "259", "3010", "1641"] {
        assert!(text.contains(&format!("if \"%CODE%\"==\"{code}\" set")), "{code}");
    }
}

#[test]
fn what_a_batch_file_cannot_hold_is_refused() {
    for step in [
        package("\u{e4}.inf", true),
        Step::Refused { path: "\u{e4}.inf".to_owned() },
        Step::Run(RunStep::optional("x", 1, "\u{e4}.exe")),
        Step::Run(RunStep::optional("a\"b", 1, "x.exe")),
    ] {
        let job = JobDescription::new(Some(Pnputil::AddDriver), vec![step], Reboot::Never);
        assert!(print(&job).unwrap_err().contains("batch file"));
        crate::windows::first_boot::job_file::print(&job).unwrap();
    }
}
