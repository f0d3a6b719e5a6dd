//! The service program's other steps under Wine: packages that others have put there, networks, commands, records.

use std::os::unix::fs::PermissionsExt;

use super::wine::machine;

/// Blanks, what a command interpreter would take for its own, and names outside of every code page.
const ODD: &str = "100% x^y & \u{4e2d}\u{6587}\\\u{414}\u{440}\u{430}\u{439}\u{432}\u{435}\u{440} \u{fc}!.inf";

fn names_reach_the_programs_as_they_are() {
    let Some(machine) = machine() else { return };
    machine.add_inf(ODD);
    machine.write_job(&format!(
        "package\trequired\t20\t{ODD}\n\
         run\trequired\tagent\t20\t0\t-\t0\t0\t\"%SystemRoot%\\System32\\msiexec.exe\" /i \"%SystemDrive%\\{ODD}\" 50%^&|\n"
    ));
    machine.start();
    assert_eq!(machine.result()["state"], "done", "{}", machine.log());
    assert_eq!(
        machine.calls(),
        [
            format!("\"pnputil.exe\" /add-driver \"C:\\hyper2kvm\\drivers\\virtio\\{ODD}\" /install"),
            format!("\"msiexec.exe\" /i \"C:\\{ODD}\" 50%^&|")
        ]
    );
    assert_eq!(machine.steps()[0], format!("{ODD} ok 0"));
}

/// Wine's access lists come from the modes of Unix, and the owner is the account that runs the program.
fn only_packages_that_administrators_alone_may_change_are_installed() {
    let Some(machine) = machine() else { return };
    let names = [
        "listed\\listed.inf",
        "good\\good.inf",
        "good\\theirs.inf",
        "open\\open.inf",
        "open folder\\x.inf",
        "good\\readme.txt",
    ];
    for inf in names {
        machine.add_inf(inf);
    }
    for (name, mode) in [
        ("", 0o755),
        ("good", 0o755),
        ("good/good.inf", 0o644),
        ("open", 0o755),
        ("open/open.inf", 0o666),
        ("open folder", 0o777),
        ("open folder/x.inf", 0o644),
    ] {
        std::fs::set_permissions(machine.stage(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    for name in ["", "drivers"] {
        std::fs::set_permissions(machine.base(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    machine.write_job("package\trequired\t20\tLISTED\\Listed.INF\nrefused\tGood\\Theirs.inf\nothers\t20\n");
    machine.start();
    assert_eq!(machine.result()["state"], "done", "{}", machine.log());
    assert_eq!(
        machine.steps(),
        [
            "LISTED\\Listed.INF ok 0",
            "Good\\Theirs.inf refused 0",
            "good\\good.inf ok 0",
            "open folder\\x.inf refused 0",
            "open\\open.inf refused 0"
        ],
        "{}",
        machine.log()
    );
    assert_eq!(machine.calls().len(), 2);
}

fn a_missing_package_and_a_missing_program_are_named() {
    let Some(machine) = machine() else { return };
    machine.add_inf("viostor\\viostor.inf");
    machine.write_job(
        "repeat\t60\npackage\toptional\t20\tgone\\gone.inf\npackage\toptional\t20\tviostor\\viostor.inf\n\
         run\trequired\tagent\t20\t0\t-\t0\t0\tC:\\gone\\setup.exe /q\n",
    );
    let pnputil = machine.hide_program("pnputil.exe");
    machine.start();
    drop(pnputil);
    assert_eq!(machine.steps(), ["gone\\gone.inf missing 0", "viostor\\viostor.inf missing 0", "agent missing 0"]);
    let result = machine.result();
    assert_eq!((&result["failed_required"], &result["failed_optional"]), (&1.into(), &2.into()));
}

fn commands_are_judged_by_their_own_codes_and_tried_again_while_an_installer_is_busy() {
    let Some(machine) = machine() else { return };
    machine.write_job(
        "run\trequired\tbusy\t20\t0,3010\t1618\t3\t1\tmsiexec.exe /i busy.msi\n\
         run\toptional\talways busy\t20\t0\t1618\t1\t1\tmsiexec.exe /i always.msi\n\
         run\toptional\trestart\t20\t0,3010\t-\t0\t0\tmsiexec.exe /i restart.msi\n\
         run\toptional\tnot ok here\t20\t0\t-\t0\t0\tmsiexec.exe /x restart.msi\n\
         run\trequired\tslow\t2\t0\t-\t0\t0\tmsiexec.exe /i slow.msi\n",
    );
    machine.set_behaviour("busy.msi\tonce 1618\nalways.msi\t1618\nrestart.msi\t3010\nslow.msi\thang\n");
    machine.start();
    assert_eq!(
        machine.steps(),
        ["busy ok 0", "always busy failed 1618", "restart restart 3010", "not ok here failed 3010", "slow timeout 0"],
        "{}",
        machine.log()
    );
    assert_eq!(machine.calls().len(), 2 + 2 + 1 + 1 + 1);
}

fn what_has_succeeded_is_not_done_again_by_a_second_attempt() {
    let Some(machine) = machine() else { return };
    let Some(mac) = machine.hardware_address() else { return };
    machine.write_job(&format!(
        "network\t{mac}\t5\tLAN\nnetsh\tinterface ipv4 set address {{index}} dhcp\n\
         run\toptional\tscript\t20\t0\t-\t0\t0\tmsiexec.exe /script\n\
         run\trequired\tagent\t20\t0\t-\t0\t0\tmsiexec.exe /agent\n"
    ));
    machine.set_behaviour("/agent\tonce 7\n");
    machine.start();
    assert_eq!(machine.result()["state"], "retry", "{}", machine.log());
    assert_eq!(machine.calls().len(), 3);
    machine.start();
    assert_eq!(machine.result()["state"], "done", "{}", machine.log());
    assert_eq!(machine.steps(), ["LAN skipped 0".to_owned(), "script skipped 0".into(), "agent ok 0".into()]);
    assert_eq!(machine.calls().len(), 4);
    assert_eq!(machine.files(), ["firstboot.done", "firstboot.json"]);
}

fn an_adapter_is_found_by_its_address_and_each_of_its_lines_runs() {
    let Some(machine) = machine() else { return };
    let Some(mac) = machine.hardware_address() else { return };
    machine.write_job(&format!(
        "network\t{}\t5\tLAN\nnetsh\tset address {{index}} static\nnetsh\tset {{name}} {{index6}}\nnetsh\tadd dns\n\
         network\t02:00:00:00:00:99\t1\t\nnetsh\tset address {{index}} dhcp\n",
        mac.to_uppercase()
    ));
    machine.set_behaviour("set address\t1\n");
    machine.start();
    assert_eq!(machine.steps(), ["LAN failed 1", "02:00:00:00:00:99 missing 0"], "{}", machine.log());
    assert_eq!(machine.result()["state"], "done", "networks are not required");
    let calls = machine.calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    let index: u32 = calls[0].split(' ').nth(3).unwrap().parse().expect("the index is filled in");
    assert!(index > 0 && calls[0].ends_with(" static"));
    assert!(calls[1].starts_with("\"netsh.exe\" set \"") && !calls[1].contains(['{', '}']), "{}", calls[1]);
    assert_eq!(calls[2], "\"netsh.exe\" add dns");
    assert_eq!(machine.result()["steps"][0]["detail"], "netsh set address {index} static");
}

fn without_netsh_the_network_fails_and_the_rest_goes_on() {
    let Some(machine) = machine() else { return };
    let Some(mac) = machine.hardware_address() else { return };
    machine.write_job(&format!(
        "network\t{mac}\t5\tLAN\nnetsh\tset address {{index}} dhcp\n\
         run\trequired\tagent\t20\t0\t-\t0\t0\tmsiexec.exe /agent\n"
    ));
    let netsh = machine.hide_program("netsh.exe");
    machine.start();
    drop(netsh);
    assert_eq!(machine.steps(), ["LAN missing 0".to_owned(), "agent ok 0".into()], "{}", machine.log());
}

/// The text is that of the code page, which Wine takes from the locale.
fn what_programs_print_is_read_in_the_code_page_of_windows() {
    let cases: [(&str, &[u8], &str); 4] = [
        ("en_US", b"Ger\x84t: \xe1\r\n", "Ger\u{e4}t: \u{df}"),
        ("de_DE", b"Ger\x84t: \xb5\r\n", "Ger\u{e4}t: \u{c1}"),
        ("ja_JP", b"\x83h\x83\x89\x83C\x83o\r\n", "\u{30c9}\u{30e9}\u{30a4}\u{30d0}"),
        ("ru_RU", b"\x84\xe0\xa0\xa9\xa2\xa5\xe0\r\n", "\u{414}\u{440}\u{430}\u{439}\u{432}\u{435}\u{440}"),
    ];
    for (locale, printed, read) in cases {
        let Some(mut machine) = machine() else { return };
        machine.set_locale(locale);
        machine.add_inf(ODD);
        machine.write_job(&format!("package\trequired\t20\t{ODD}\n"));
        std::fs::write(machine.drive().join("stub/says.bin"), printed).unwrap();
        machine.start();
        assert_eq!(machine.steps(), [format!("{ODD} ok 0")], "{locale}");
        assert!(machine.log().contains(&format!("\r\n    {read}\r\n")), "{locale}:\n{}", machine.log());
    }
}

/// The registry of a guest whose controller is bound to `inf`.
fn records(inf: &str) -> String {
    let system = "System\\CurrentControlSet";
    let database = "System\\DriverDatabase";
    let id = "PCI\\VEN_1AF4&DEV_1001";
    let keys = [
        (format!("{system}\\Services\\viostor"), "\"Start\"=dword:00000000".to_owned()),
        (
            format!("{system}\\Enum\\{id}\\3&1"),
            format!(
                "\"Service\"=\"viostor\"\n\"Driver\"=\"{{4d36e97b}}\\\\0001\"\n\"HardwareID\"=str(7):\"{}\\0\\0\"",
                id.replace('\\', "\\\\")
            ),
        ),
        (format!("{system}\\Control\\Class\\{{4d36e97b}}\\0001"), format!("\"InfPath\"=\"{inf}\"")),
        (format!("{database}\\DeviceIds\\{id}"), "\"h2k-viostor.inf\"=hex:01,ff\n\"oem7.inf\"=hex:01,ff".to_owned()),
        (format!("{database}\\DriverInfFiles\\h2k-viostor.inf"), "\"Active\"=\"h2k-viostor.inf_amd64_0\"".to_owned()),
        (format!("{database}\\DriverInfFiles\\oem7.inf"), "\"Active\"=\"viostor.inf_amd64_1\"".to_owned()),
        (format!("{database}\\DriverPackages\\h2k-viostor.inf_amd64_0\\Strings"), "\"a\"=\"b\"".to_owned()),
        (
            format!("{database}\\DriverPackages\\viostor.inf_amd64_1\\Descriptors\\{id}"),
            "\"Configuration\"=\"inst\"".to_owned(),
        ),
        (
            format!("{database}\\DriverPackages\\viostor.inf_amd64_1\\Configurations\\inst"),
            "\"Service\"=\"viostor\"".to_owned(),
        ),
    ];
    keys.iter().map(|(key, values)| format!("\n[{}] 1700000000\n{values}\n", key.replace('\\', "\\\\"))).collect()
}

fn invented_records_go_only_when_the_real_package_has_taken_over() {
    for (inf, result) in [("oem7.inf", "ok"), ("h2k-viostor.inf", "skipped")] {
        let Some(machine) = machine() else { return };
        for file in ["windows/system32/drivers/viostor.sys", "windows/inf/oem7.inf"] {
            std::fs::write(machine.drive().join(file), "x").unwrap();
        }
        machine.add_to_registry(&records(inf));
        machine.write_job("release\th2k-viostor.inf\th2k-viostor.inf_amd64_0\tviostor\n");
        machine.start();
        assert_eq!(machine.steps(), [format!("h2k-viostor.inf {result} 0")], "{}", machine.log());
        let text = machine.registry();
        let found =
            ["h2k-viostor.inf\"=", "DriverInfFiles\\\\h2k-", "DriverPackages\\\\h2k-"].map(|t| text.contains(t));
        assert_eq!(found, [result == "skipped"; 3]);
        for rest in ["\"oem7.inf\"=hex:01,ff", "DriverInfFiles\\\\oem7.inf]", "Configurations\\\\inst]"] {
            assert!(text.contains(rest), "{rest}");
        }
    }
}

tests![
    names_reach_the_programs_as_they_are,
    only_packages_that_administrators_alone_may_change_are_installed,
    a_missing_package_and_a_missing_program_are_named,
    commands_are_judged_by_their_own_codes_and_tried_again_while_an_installer_is_busy,
    what_has_succeeded_is_not_done_again_by_a_second_attempt,
    an_adapter_is_found_by_its_address_and_each_of_its_lines_runs,
    without_netsh_the_network_fails_and_the_rest_goes_on,
    what_programs_print_is_read_in_the_code_page_of_windows,
    invented_records_go_only_when_the_real_package_has_taken_over,
];
