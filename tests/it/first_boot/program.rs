//! The service program under Wine's service manager.

use super::wine::machine;

/// Packages with one of each kind of end.
const PACKAGES: &str = "wait-pnp\t10\npackage\trequired\t20\tviostor\\viostor.inf\n\
    package\trequired\t20\tNetKVM\\netkvm.inf\npackage\toptional\t20\tBalloon\\balloon.inf\nscan\n";

fn add_packages(machine: &super::wine::Machine) {
    for inf in ["viostor\\viostor.inf", "NetKVM\\netkvm.inf", "Balloon\\balloon.inf"] {
        machine.add_inf(inf);
    }
}

fn when_all_succeeds_the_job_is_done_and_the_service_gone() {
    let Some(machine) = machine() else { return };
    add_packages(&machine);
    machine.write_job(PACKAGES);
    machine.start();
    assert_eq!(machine.result()["state"], "done", "{}", machine.log());
    assert_eq!(machine.steps(), ["viostor\\viostor.inf ok 0", "NetKVM\\netkvm.inf ok 0", "Balloon\\balloon.inf ok 0"]);
    let inf = |name: &str| format!("\"pnputil.exe\" /add-driver \"C:\\hyper2kvm\\drivers\\virtio\\{name}\" /install");
    assert_eq!(
        machine.calls(),
        [
            inf("viostor\\viostor.inf"),
            inf("NetKVM\\netkvm.inf"),
            inf("Balloon\\balloon.inf"),
            "\"pnputil.exe\" /scan-devices".to_owned()
        ]
    );
    assert_eq!(machine.files(), ["firstboot.done", "firstboot.json"]);
    assert!(!machine.has_service());
}

tests![when_all_succeeds_the_job_is_done_and_the_service_gone];
