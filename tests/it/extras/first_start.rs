//! What `--firstboot` and `--guest-agent` let the service program run, under Wine's service manager.

use super::{file, succeed};
use crate::first_boot::wine::machine;
use crate::inject::folder;

/// One script says where it runs and who it is, one fails, one hangs, and an MSI is installed: each has its own log and
/// time limit, none stops another, and the job is done.
fn each_script_has_its_log_and_its_limit_and_none_stops_another() {
    let Some(machine) = machine() else { return };
    let folder = folder();
    let here = folder.path();
    crate::inject::copy(&crate::inject::fixture(), &here.join("win10.qcow2"));
    file(here, "set up.cmd", b"@echo off\necho from %~nx0\necho with errors>&2\n");
    file(here, "fails.bat", b"@exit /b 5\n");
    file(here, "hangs.cmd", b"@echo begun\n@ping -n 60 127.0.0.1 >nul\n");
    let msi = [&[0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1][..], &[0; 512]].concat();
    file(here, "agent & tool.msi", &msi);
    let names = ["set up.cmd", "fails.bat", "hangs.cmd", "agent & tool.msi"];
    let scripts = names.iter().flat_map(|name| ["--firstboot", name]);
    let arguments = ["inject", "win10.qcow2", "--dry-run", "--report", "r.json", "--firstboot-timeout", "3"];
    succeed(here, &arguments.into_iter().chain(scripts).collect::<Vec<_>>());
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(here.join("r.json")).unwrap()).unwrap();
    let mut job = String::new();
    for (script, name) in json["virtio"]["firstboot_scripts"].as_array().unwrap().iter().zip(names) {
        let stored = script["name"].as_str().unwrap();
        let at = machine.base(&format!("firstboot.d/{stored}"));
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        let bytes = std::fs::read_to_string(here.join(name)).map(|text| text.replace('\n', "\r\n").into_bytes());
        std::fs::write(at, bytes.unwrap_or_else(|_| msi.clone())).unwrap();
        let command = script["command"].as_str().unwrap();
        job.push_str(&format!("run\toptional\t{stored}\t{}\t0,3010,1641\t1618\t0\t1\t{command}\n", script["seconds"]));
    }
    machine.write_job(&job);
    machine.set_behaviour("");
    machine.start();
    assert_eq!(machine.result()["state"], "done", "{}", machine.log());
    let steps = machine.steps();
    assert_eq!(steps.len(), 4, "{steps:?}");
    for (step, expected) in steps.iter().zip([
        "01-set_up.cmd ok 0",
        "02-fails.bat failed 5",
        "03-hangs.cmd timeout ",
        "04-agent___tool.msi ok 0",
    ]) {
        assert!(step.starts_with(expected), "{step} is not {expected}");
    }
    let log = |name: &str| std::fs::read_to_string(machine.base(&format!("firstboot.d/{name}.log"))).unwrap();
    assert!(log("01-set_up.cmd").contains("from 01-set_up.cmd"), "{}", log("01-set_up.cmd"));
    assert!(log("01-set_up.cmd").contains("with errors"), "{}", log("01-set_up.cmd"));
    assert!(log("03-hangs.cmd").contains("begun"));
    let calls = machine.calls();
    let msiexec = r#"/i "C:\hyper2kvm\firstboot.d\04-agent___tool.msi" /qn /norestart /l*v "C:\hyper2kvm\firstboot.d\04-agent___tool.msi.log""#;
    assert_eq!(calls.iter().filter(|call| call.ends_with(msiexec)).count(), 1, "{calls:?}");
    assert!(!machine.has_service());
}

tests![each_script_has_its_log_and_its_limit_and_none_stops_another];
