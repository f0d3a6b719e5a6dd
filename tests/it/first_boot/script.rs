//! The script form of the first-boot job and `setup.cmd`, run by Wine's `cmd.exe`.
//!
//! What is Wine's and not of Windows: an exit code of 259 reads as 0, `%` in the value of a variable is expanded again, and
//! `TIME` has no seconds. The script's end of the service is not looked at here: the tests of the program do that.

use serde_json::json;
use winject::internals::windows::first_boot::description::{
    JobDescription, PackageStep, Pnputil, Reboot, RunStep, Step,
};
use winject::internals::windows::first_boot::{JobResult, print_script, print_setup};

use super::wine::{Machine, machine};

const VIOSTOR: &str = "viostor\\viostor.inf";
const NETKVM: &str = "NetKVM\\netkvm.inf";
const BALLOON: &str = "a b & c^d\\balloon.inf";

fn package(path: &str, required: bool) -> Step {
    Step::Package(PackageStep { required, seconds: 4, path: path.to_owned() })
}

/// A job with short limits.
fn job(more: Vec<Step>) -> JobDescription {
    let mut steps = vec![package(VIOSTOR, true), package(NETKVM, true), package(BALLOON, false), Step::Scan];
    steps.extend(more);
    let mut job = JobDescription::new(Some(Pnputil::AddDriver), steps, Reboot::Never);
    job.repeat.clear();
    job
}

/// Puts the script and the packages into the machine.
fn put(machine: &Machine, job: &JobDescription) {
    machine.remove_service();
    std::fs::write(machine.base("firstboot.cmd"), print_script(job).unwrap()).unwrap();
    for path in [VIOSTOR, NETKVM, BALLOON] {
        machine.add_inf(path);
    }
}

/// One start of the job.
fn start(machine: &Machine) {
    machine.run(&["cmd.exe", "/d", "/c", "C:\\hyper2kvm\\firstboot.cmd", "run"]);
}

fn files(machine: &Machine) -> Vec<String> {
    machine.files().into_iter().filter(|name| !name.ends_with(".cmd")).collect()
}

/// What inspection reads of the result.
fn result(machine: &Machine) -> JobResult {
    JobResult::parse(&std::fs::read(machine.base("firstboot.json")).unwrap()).unwrap()
}

fn the_script_installs_all_that_the_job_has_and_what_an_administrator_added() {
    let Some(machine) = machine() else { return };
    let run = RunStep { ok_codes: vec![0, 3010], ..RunStep::optional("agent", 4, "msiexec.exe /i \"C:\\a & b.msi\"") };
    put(
        &machine,
        &job(vec![
            Step::Refused { path: "odd\\odd.inf".to_owned() },
            Step::OtherPackages { seconds: 4 },
            Step::Run(RunStep { retry_codes: vec![1618], retries: 1, pause: 2, ..run }),
        ]),
    );
    machine.add_inf("odd\\odd.inf");
    machine.add_inf("more\\x & y^z.inf");
    machine.set_behaviour("viostor.inf\t3010\nnetkvm.inf\t259\nmsiexec\tonce 1618\n");
    start(&machine);
    assert_eq!(
        machine.steps(),
        [
            "viostor\\viostor.inf restart 3010",
            "NetKVM\\netkvm.inf ok 0",
            "a b & c^d\\balloon.inf ok 0",
            "odd\\odd.inf refused 0",
            "agent ok 0",
            "more\\x & y^z.inf ok 0",
        ],
        "{}",
        machine.log()
    );
    let result = machine.result();
    let expected = json!({"state": "done", "attempt": 1, "begun": 1, "restart_needed": true, "failed_required": 0,
        "failed_optional": 0, "schema": "winject.firstboot.v1"});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&result[name], value, "{name}");
    }
    assert_eq!(self::result(&machine).steps.len(), 6, "inspection reads it");
    assert_eq!(files(&machine), ["firstboot.done", "firstboot.json"]);
    let calls = machine.calls();
    assert!(!calls.iter().any(|call| call.contains("odd.inf")), "{calls:?}");
    assert_eq!(calls.iter().filter(|call| call.contains("msiexec")).count(), 2);
    // a second start has nothing to do
    start(&machine);
    assert_eq!(machine.calls().len(), calls.len());
}

fn a_script_that_fails_tries_three_times_and_gives_up() {
    let Some(machine) = machine() else { return };
    let mut job = job(Vec::new());
    job.repeat = vec![2];
    put(&machine, &job);
    machine.set_behaviour("netkvm.inf\t-536870353\nballoon.inf\t5\n");
    for attempt in 1..=3 {
        start(&machine);
        let result = machine.result();
        assert_eq!(result["state"], if attempt < 3 { "retry" } else { "failed" }, "{}", machine.log());
        assert_eq!((&result["attempt"], &result["failed_required"]), (&json!(attempt), &json!(1)));
        assert_eq!(
            machine.steps()[1..],
            ["NetKVM\\netkvm.inf failed -536870353".to_owned(), format!("{BALLOON} failed 5")]
        );
    }
    let calls = machine.calls();
    assert_eq!(calls.iter().filter(|call| call.contains("netkvm")).count(), 6, "twice in each start: {calls:?}");
    assert_eq!(calls.iter().filter(|call| call.contains("balloon")).count(), 3);
    assert_eq!(files(&machine), ["firstboot.failed", "firstboot.json"]);
    assert_eq!(result(&machine).failures().count(), 1);
    start(&machine);
    assert_eq!(machine.calls().len(), calls.len(), "a job that was given up is not begun again");
}

fn a_package_that_hangs_does_not_stop_the_script() {
    let Some(machine) = machine() else { return };
    put(&machine, &job(Vec::new()));
    machine.set_behaviour("viostor.inf\thang\n");
    start(&machine);
    assert_eq!(
        machine.steps()[..2],
        ["viostor\\viostor.inf timeout 0", "NetKVM\\netkvm.inf ok 0"],
        "{}",
        machine.log()
    );
    assert_eq!(machine.result()["state"], "retry");
}

fn counters_and_the_lock_decide_whether_the_script_begins() {
    let Some(machine) = machine() else { return };
    put(&machine, &job(Vec::new()));
    // starts that were interrupted are no failed attempts, but they do not go on for ever
    std::fs::write(machine.base("firstboot.begun"), "9\r\n").unwrap();
    start(&machine);
    assert_eq!(
        (&machine.result()["attempt"], &machine.result()["begun"]),
        (&json!(1), &json!(10)),
        "{}",
        machine.log()
    );
    std::fs::remove_file(machine.base("firstboot.done")).unwrap();
    let calls = machine.calls().len();
    std::fs::write(machine.base("firstboot.begun"), "10\r\n").unwrap();
    start(&machine);
    assert_eq!(machine.result()["state"], "failed");
    assert!(machine.result()["steps"].as_array().unwrap().iter().all(|step| step["result"] == "skipped"));
    assert_eq!(machine.calls().len(), calls);
    // counters that hold no number count as none
    std::fs::remove_file(machine.base("firstboot.failed")).unwrap();
    std::fs::write(machine.base("firstboot.attempts"), "abc\r\n").unwrap();
    std::fs::write(machine.base("firstboot.begun"), "").unwrap();
    start(&machine);
    assert_eq!((&machine.result()["state"], &machine.result()["attempt"]), (&json!("done"), &json!(1)));
}

fn setup_cmd_installs_every_package() {
    let Some(machine) = machine() else { return };
    let job = job(Vec::new());
    put(&machine, &job);
    std::fs::write(machine.base("setup.cmd"), print_setup(&job)).unwrap();
    machine.run(&["cmd.exe", "/d", "/c", "C:\\hyper2kvm\\setup.cmd"]);
    let calls = machine.calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    for (call, path) in calls.iter().zip([VIOSTOR, NETKVM, BALLOON]) {
        assert!(call.contains("/add-driver") && call.contains(path) && call.contains("/install"), "{call}");
    }
}

tests![
    the_script_installs_all_that_the_job_has_and_what_an_administrator_added,
    a_script_that_fails_tries_three_times_and_gives_up,
    a_package_that_hangs_does_not_stop_the_script,
    counters_and_the_lock_decide_whether_the_script_begins,
    setup_cmd_installs_every_package,
];
