use super::*;
use std::format;
use std::vec;

const GOOD: &str = "winject-firstboot\t1\r\nattempts\t3\t10\r\npnputil\tadd-driver\r\nrepeat\t60,180,600\r\n\
    wait-pnp\t120\r\npackage\trequired\t300\tviostor\\viostor.inf\r\nrefused\tgood\\theirs.inf\r\nothers\t300\r\nscan\r\n\
    release\th2k-viostor.inf\th2k-viostor.inf_amd64_0000000000000000\tviostor\r\n\
    network\t52:54:00:12:34:56\t300\tEthernet \u{e4}\r\nnetsh\tinterface ipv4 set address name={index}\r\n\
    run\toptional\tagent\t600\t0,3010,1641\t1618\t10\t60\tmsiexec.exe /i \"%SystemDrive%\\a b.msi\" /qn\r\n\
    reboot\tif-needed\r\nserial\tCOM1\r\n";

#[test]
fn a_job_is_read_as_it_was_meant() {
    let job = parse(GOOD.as_bytes()).unwrap();
    assert_eq!((job.attempts_max, job.begun_max), (3, 10));
    assert_eq!(job.pnputil, Some(Dialect::AddDriver));
    assert_eq!(job.repeat, [60, 180, 600]);
    assert!(job.may_restart);
    assert_eq!(job.serial.as_deref(), Some("COM1"));
    assert_eq!(job.steps.len(), 8);
    assert_eq!(job.steps.get(2), Some(&Step::Refused("good\\theirs.inf".into())));
    let Some(Step::Network(network)) = job.steps.get(6) else { panic!("{:?}", job.steps) };
    assert_eq!(network.mac, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    assert_eq!(network.commands, ["interface ipv4 set address name={index}"]);
    let Some(Step::Run(run)) = job.steps.get(7) else { panic!("{:?}", job.steps) };
    assert_eq!((&run.ok_codes, &run.retry_codes), (&vec![0, 3010, 1641], &vec![1618]));
}

#[test]
fn each_deviation_is_refused_with_its_line() {
    let cases = [
        ("scan\r\n", "scan\tnow\r\n", 9),
        ("wait-pnp\t120", "wait-pnp\t0", 5),
        ("wait-pnp\t120", "wait-pnp\t+5", 5),
        ("package\trequired", "package\tneeded", 6),
        ("viostor\\viostor.inf\r\nrefused", "..\\viostor.inf\r\nrefused", 6),
        ("viostor\\viostor.inf\r\nrefused", "\\viostor.inf\r\nrefused", 6),
        ("viostor\\viostor.inf\r\nrefused", "C:viostor.inf\r\nrefused", 6),
        ("viostor\\viostor.inf\r\nrefused", "viostor.exe\r\nrefused", 6),
        ("release\th2k-", "release\toem7-", 10),
        ("release\th2k-", "release\th2k-\\", 10),
        ("52:54:00:12:34:56", "52:54:00:12:34", 11),
        ("52:54:00:12:34:56", "52-54-00-12-34-56", 11),
        ("scan\r\n", "scan\r\nnetsh\tx\r\n", 10),
        ("1618\t10\t60", "1618\t101\t60", 13),
        ("0,3010,1641", "0,,1641", 13),
        ("serial\tCOM1", "serial\tCOM10", 15),
        ("reboot\tif-needed\r\n", "reboot\tif-needed\r\nreboot\tnever\r\n", 15),
        ("winject-firstboot\t1", "winject-firstboot\t2", 1),
        ("winject", "\u{feff}winject", 1),
        ("attempts\t3\t10\r\n", "", 0),
        ("pnputil\tadd-driver\r\n", "", 0),
        ("attempts\t3", "attempts\t0", 0),
        ("serial\tCOM1\r\n", "serial\tCOM1", 0),
        ("scan\r\n", "scan\n", 9),
    ];
    for (from, to, line) in cases {
        assert_eq!(GOOD.matches(from).count(), 1, "{from:?}");
        let refused = parse(GOOD.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert_eq!(refused.line, line, "{to:?}: {refused:?}");
    }
    assert_eq!(parse(b"").unwrap_err().line, 0);
    assert_eq!(parse(&[0xff, 0xfe]).unwrap_err().reason, "not UTF-8");
    let long = format!("winject-firstboot\t1\r\n{}", "wait-pnp\t1\r\n".repeat(LINES_MAX));
    assert_eq!(parse(long.as_bytes()).unwrap_err().reason, "more than 4,096 lines");
}

#[test]
fn no_change_of_one_byte_makes_a_step_leave_the_staging_folder_or_name_a_foreign_record() {
    let mut accepted = 0;
    for at in 0..GOOD.len() {
        for byte in [0, 9, 10, 13, b' ', b'"', b'.', b'/', b'\\', b':', b'0', b'h', 0x80, 0xff] {
            let mut data = GOOD.as_bytes().to_vec();
            data[at] = byte;
            let Ok(job) = parse(&data) else { continue };
            accepted += 1;
            for step in &job.steps {
                match step {
                    Step::Package(package) => {
                        assert!(!package.inf.split('\\').any(|name| name.is_empty() || name.starts_with("..")));
                    }
                    Step::Release(release) => {
                        assert!(release.inf.starts_with(INVENTED) && release.package.starts_with(INVENTED));
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(accepted > 100, "{accepted}");
}
