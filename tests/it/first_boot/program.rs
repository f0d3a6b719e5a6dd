//! The service program under Wine's service manager: packages, attempts, and what ends it early.

use super::wine::{Machine, machine};

const PACKAGES: &str = "wait-pnp\t10\npackage\trequired\t20\tviostor\\viostor.inf\n\
    package\trequired\t20\tNetKVM\\netkvm.inf\npackage\toptional\t20\tBalloon\\balloon.inf\nscan\n";

/// The three packages and a job that installs them.
fn prepare(machine: &Machine, before: &str, after: &str) {
    for inf in ["viostor\\viostor.inf", "NetKVM\\netkvm.inf", "Balloon\\balloon.inf"] {
        machine.add_inf(inf);
    }
    machine.write_job(&format!("{before}{PACKAGES}{after}"));
}

fn install(inf: &str) -> String {
    format!("\"pnputil.exe\" /add-driver \"C:\\hyper2kvm\\drivers\\virtio\\{inf}\" /install")
}

fn scan() -> String {
    "\"pnputil.exe\" /scan-devices".to_owned()
}

fn when_all_succeeds_the_job_is_done_and_the_service_gone() {
    let Some(machine) = machine() else { return };
    let Some((port, mut copy)) = machine.link_serial_port() else { return };
    prepare(&machine, "serial\tCOM1\n", "");
    machine.start();
    copy.kill().unwrap();
    copy.wait().unwrap();
    assert_eq!(machine.result()["state"], "done", "{}", machine.log());
    assert_eq!(machine.steps(), ["viostor\\viostor.inf ok 0", "NetKVM\\netkvm.inf ok 0", "Balloon\\balloon.inf ok 0"]);
    let infs = ["viostor\\viostor.inf", "NetKVM\\netkvm.inf", "Balloon\\balloon.inf"];
    let mut calls: Vec<String> = infs.iter().map(|inf| install(inf)).collect();
    calls.push(scan());
    assert_eq!(machine.calls(), calls);
    assert_eq!(machine.files(), ["firstboot.done", "firstboot.json"]);
    assert!(!machine.has_service());
    assert_eq!(
        std::fs::read_to_string(port).unwrap(),
        "winject-firstboot: done attempt=1 failed_required=0 failed_optional=0 restart=0\r\n",
        "{}",
        machine.log()
    );
}

fn a_required_package_that_fails_is_tried_at_three_starts_and_then_given_up() {
    let Some(machine) = machine() else { return };
    prepare(&machine, "", "");
    machine.set_behaviour("netkvm.inf\t-536870353\nballoon.inf\t5\n");
    for (attempt, state) in [(1, "retry"), (2, "retry"), (3, "failed")] {
        machine.start();
        let result = machine.result();
        assert_eq!((&result["state"], &result["attempt"]), (&state.into(), &attempt.into()), "{}", machine.log());
        assert_eq!((&result["failed_required"], &result["failed_optional"]), (&1.into(), &1.into()));
        assert_eq!(
            machine.steps(),
            ["viostor\\viostor.inf ok 0", "NetKVM\\netkvm.inf failed -536870353", "Balloon\\balloon.inf failed 5"]
        );
        assert_eq!(machine.has_service(), state == "retry");
    }
    assert_eq!(machine.files(), ["firstboot.failed", "firstboot.job", "firstboot.json"]);
    // deleting the service may fail: the marker alone has to hold
    let calls = machine.calls().len();
    machine.register_service();
    machine.start();
    assert_eq!(machine.calls().len(), calls, "a job that was given up is not begun again");
    assert!(!machine.has_service());
}

fn a_required_package_that_fails_at_first_is_tried_again_in_the_same_start() {
    let Some(machine) = machine() else { return };
    prepare(&machine, "repeat\t1,1\n", "");
    machine.set_behaviour("netkvm.inf\tonce 1\n");
    machine.start();
    assert_eq!(machine.result()["state"], "done", "{}", machine.log());
    assert_eq!(machine.steps()[1], "NetKVM\\netkvm.inf ok 0");
    assert_eq!(machine.calls()[4..], [install("NetKVM\\netkvm.inf"), scan()]);
}

fn a_package_that_hangs_is_ended_with_all_that_it_started_and_the_others_go_on() {
    let Some(machine) = machine() else { return };
    machine.add_inf("viostor\\viostor.inf");
    machine.add_inf("NetKVM\\netkvm.inf");
    machine.write_job(
        "repeat\t60\npackage\trequired\t3\tviostor\\viostor.inf\npackage\trequired\t20\tNetKVM\\netkvm.inf\n",
    );
    machine.set_behaviour("viostor.inf\tchild\n");
    machine.start_and_look(|| {
        let left = machine.processes("grandchild");
        assert!(left.is_empty(), "still running: {left:?}");
    });
    assert_eq!(machine.steps(), ["viostor\\viostor.inf timeout 0", "NetKVM\\netkvm.inf ok 0"]);
    assert!(machine.calls().iter().any(|call| call.ends_with("grandchild")), "the child had started another");
    assert_eq!(machine.result()["state"], "retry");
}

fn a_restart_is_asked_for_once_and_only_where_the_job_allows_it() {
    let Some(machine) = machine() else { return };
    prepare(&machine, "reboot\tnever\n", "");
    machine.set_behaviour("viostor.inf\t3010\nnetkvm.inf\t259\nballoon.inf\t1641\n");
    machine.start();
    let result = machine.result();
    assert_eq!((&result["state"], &result["restart_needed"]), (&"done".into(), &true.into()), "{}", machine.log());
    let steps = machine.steps();
    assert_eq!(steps[0], "viostor\\viostor.inf restart 3010");
    assert_eq!(steps[2], "Balloon\\balloon.inf restart 1641");
    // Wine's own exit codes are those of Unix in one place, where 259 is lost: what pnputil returned is seen here
    assert_eq!(steps[1], "NetKVM\\netkvm.inf no-device 259");
    assert!(!machine.log().contains("Windows is restarted"), "{}", machine.log());

    let Some(machine) = allow_restart(machine) else { return };
    for attempt in 1..=2 {
        machine.start();
        assert_eq!(machine.result()["attempt"], attempt);
    }
    assert_eq!(machine.log().matches("Windows is restarted in 30 seconds").count(), 1, "{}", machine.log());
}

/// The machine anew, with a job that may restart Windows and a required package that always fails.
fn allow_restart(guard: std::sync::MutexGuard<'static, Machine>) -> Option<std::sync::MutexGuard<'static, Machine>> {
    drop(guard);
    let machine = machine()?;
    prepare(&machine, "reboot\tif-needed\n", "");
    machine.set_behaviour("viostor.inf\t3010\nnetkvm.inf\t1\n");
    Some(machine)
}

fn starts_that_are_cut_off_do_not_count_as_failed() {
    let Some(machine) = machine() else { return };
    prepare(&machine, "", "");
    machine.set_behaviour("netkvm.inf\thang\n");
    for start in 1..=3 {
        machine.boot();
        machine.wait_for_count("NetKVM\\netkvm.inf\" /install", start);
        machine.wait_for_calls(2 * start);
        machine.power_off();
        // what a start has written just before a power cut may be lost, as on any machine
        assert!(!machine.base("firstboot.attempts").exists() && !machine.base("firstboot.json").exists());
    }
    machine.set_behaviour("");
    machine.start();
    let result = machine.result();
    assert_eq!((&result["state"], &result["attempt"]), (&"done".into(), &1.into()), "{}", machine.log());
    assert_eq!(result["begun"], 4);
}

fn too_many_begun_attempts_are_given_up_without_running_anything() {
    let Some(machine) = machine() else { return };
    prepare(&machine, "", "");
    std::fs::write(machine.base("firstboot.begun"), "10\r\n").unwrap();
    machine.start();
    let result = machine.result();
    assert_eq!((&result["state"], &result["begun"]), (&"failed".into(), &11.into()), "{}", machine.log());
    assert!(machine.calls().is_empty() && !machine.has_service());
    assert_eq!(machine.files(), ["firstboot.failed", "firstboot.job", "firstboot.json"]);
}

fn a_counter_that_is_not_a_number_does_not_end_the_job() {
    let Some(machine) = machine() else { return };
    prepare(&machine, "", "");
    std::fs::write(machine.base("firstboot.begun"), "abc\r\n").unwrap();
    std::fs::write(machine.base("firstboot.attempts"), "").unwrap();
    machine.start();
    assert_eq!(machine.result()["state"], "done", "{}", machine.log());
}

fn a_done_marker_keeps_everything_from_running_and_the_service_goes() {
    let Some(machine) = machine() else { return };
    prepare(&machine, "", "");
    std::fs::write(machine.base("firstboot.done"), "done\r\n").unwrap();
    machine.start();
    assert!(machine.calls().is_empty() && !machine.has_service());
    assert_eq!(machine.files(), ["firstboot.done", "firstboot.job"]);
}

fn the_service_manager_can_stop_it_and_that_does_not_count() {
    let Some(machine) = machine() else { return };
    prepare(&machine, "", "");
    machine.set_behaviour("netkvm.inf\thang\n");
    machine.boot();
    machine.wait_for_calls(2);
    let running = machine.run(&["net", "start"]);
    assert!(running.contains("hyper2kvm First Boot Driver Installer"), "it reports that it runs: {running}");
    let stopped = machine.run(&["net", "stop", "hyper2kvm-firstboot"]);
    assert!(stopped.contains("stopped"), "{stopped}");
    machine.wait_for("stopped from outside; this attempt does not count");
    assert!(machine.processes("netkvm.inf").is_empty(), "the package's program ends with it");
    machine.shut_down();
    assert!(machine.has_service());
    assert_eq!(machine.files(), ["firstboot.begun", "firstboot.job"]);
}

fn a_second_instance_leaves_the_first_alone() {
    let Some(machine) = machine() else { return };
    prepare(&machine, "", "");
    machine.set_behaviour("netkvm.inf\thang\n");
    machine.boot();
    machine.wait_for_calls(2);
    assert!(machine.spawn().wait().unwrap().success());
    machine.wait_for("not begun: it is running already");
    assert_eq!(machine.calls().len(), 2);
    assert_eq!(std::fs::read_to_string(machine.base("firstboot.begun")).unwrap(), "1\r\n");
}

fn a_job_file_that_is_not_as_agreed_is_refused_before_anything_runs() {
    let good = "package\trequired\t20\tviostor\\viostor.inf\n";
    let cases = [
        format!("{good}unknown\tword\n"),
        format!("{good}package\trequired\t20\n"),
        format!("{good}package\trequired\t20\t..\\..\\x.inf\n"),
        format!("{good}release\toem1.inf\th2k-x\tviostor\n"),
    ];
    for body in cases {
        let Some(machine) = machine() else { return };
        machine.add_inf("viostor\\viostor.inf");
        machine.write_job(&body);
        machine.start();
        assert_eq!(machine.result()["state"], "failed", "{body:?}");
        assert!(machine.log().contains("firstboot.job is refused, nothing was run: "), "{}", machine.log());
        assert!(machine.calls().is_empty() && !machine.has_service(), "{body:?}");
        assert_eq!(machine.files(), ["firstboot.failed", "firstboot.job", "firstboot.json"]);
    }
}

fn without_a_job_file_it_says_so_and_goes() {
    let Some(machine) = machine() else { return };
    machine.start();
    assert!(machine.log().contains("firstboot.job is refused, nothing was run: cannot be read"), "{}", machine.log());
    assert_eq!(machine.files(), ["firstboot.failed", "firstboot.json"]);
}

/// Everybody may create files in `Windows\Temp`.
fn a_log_that_a_user_prepared_as_a_link_is_not_written_through() {
    let Some(machine) = machine() else { return };
    prepare(&machine, "", "");
    let victim = machine.drive().join("stub/victim.txt");
    std::fs::write(&victim, "as it was").unwrap();
    std::fs::hard_link(&victim, machine.log_path()).unwrap();
    machine.start();
    assert_eq!(std::fs::read_to_string(victim).unwrap(), "as it was");
    assert!(machine.log().ends_with("done\r\n"), "{}", machine.log());
}

tests![
    when_all_succeeds_the_job_is_done_and_the_service_gone,
    a_required_package_that_fails_is_tried_at_three_starts_and_then_given_up,
    a_required_package_that_fails_at_first_is_tried_again_in_the_same_start,
    a_package_that_hangs_is_ended_with_all_that_it_started_and_the_others_go_on,
    a_restart_is_asked_for_once_and_only_where_the_job_allows_it,
    starts_that_are_cut_off_do_not_count_as_failed,
    too_many_begun_attempts_are_given_up_without_running_anything,
    a_counter_that_is_not_a_number_does_not_end_the_job,
    a_done_marker_keeps_everything_from_running_and_the_service_goes,
    the_service_manager_can_stop_it_and_that_does_not_count,
    a_second_instance_leaves_the_first_alone,
    a_job_file_that_is_not_as_agreed_is_refused_before_anything_runs,
    without_a_job_file_it_says_so_and_goes,
    a_log_that_a_user_prepared_as_a_link_is_not_written_through,
];
