//! The job as the service program reads it: lines of fields that are separated by tabs.

use std::fmt::Write as _;

use super::description::{ATTEMPTS_MAX, BEGUN_MAX, JobDescription, Pnputil, Reboot, RunStep, Step};

/// Name and version of the form, its first line.
pub const FORM: &str = "winject-firstboot\t1";
/// Largest job that the program accepts, in bytes.
const BYTES_MAX: usize = 1 << 20;
/// Most lines that the program accepts.
const LINES_MAX: usize = 4096;

/// The file's bytes: UTF-8 without a byte-order mark, with CR LF.
///
/// # Errors
/// Why this job cannot be written down.
pub fn print(job: &JobDescription) -> Result<Vec<u8>, String> {
    job.judge()?;
    let mut out = format!("{FORM}\nattempts\t{ATTEMPTS_MAX}\t{BEGUN_MAX}\n");
    let _ = writeln!(out, "repeat\t{}", list(&job.repeat));
    match job.pnputil {
        Some(Pnputil::AddDriver) => out.push_str("pnputil\tadd-driver\n"),
        Some(Pnputil::Legacy) => out.push_str("pnputil\tlegacy\n"),
        None => {}
    }
    for step in &job.steps {
        add_step(&mut out, step);
    }
    out.push_str(match job.reboot {
        Reboot::Never => "reboot\tnever\n",
        Reboot::IfNeeded => "reboot\tif-needed\n",
    });
    out.push_str("serial\tCOM1\n");
    let lines = out.lines().count();
    if lines > LINES_MAX {
        return Err(format!("it has {lines} lines, and at most {LINES_MAX} are possible"));
    }
    let out = out.replace('\n', "\r\n").into_bytes();
    if out.len() > BYTES_MAX {
        return Err(format!("it has {} bytes, and at most {BYTES_MAX} are possible", out.len()));
    }
    Ok(out)
}

fn add_step(out: &mut String, step: &Step) {
    let _ = match step {
        Step::WaitForDevices { seconds } => writeln!(out, "wait-pnp\t{seconds}"),
        Step::Package(step) => {
            writeln!(out, "package\t{}\t{}\t{}", class(step.required), step.seconds, step.path)
        }
        Step::Refused { path } => writeln!(out, "refused\t{path}"),
        Step::OtherPackages { seconds } => writeln!(out, "others\t{seconds}"),
        Step::Scan => writeln!(out, "scan"),
        Step::Network(step) => {
            let _ = writeln!(out, "network\t{}\t{}\t{}", step.mac, step.seconds, step.name);
            step.commands.iter().try_for_each(|command| writeln!(out, "netsh\t{command}"))
        }
        Step::Run(step) => add_run(out, step),
        Step::Release(step) => writeln!(out, "release\t{}\t{}\t{}", step.inf, step.package, step.service),
    };
}

fn add_run(out: &mut String, step: &RunStep) -> std::fmt::Result {
    let RunStep { required, name, seconds, ok_codes, retry_codes, retries, pause, command } = step;
    let (class, ok, retry) = (class(*required), list(ok_codes), list(retry_codes));
    writeln!(out, "run\t{class}\t{name}\t{seconds}\t{ok}\t{retry}\t{retries}\t{pause}\t{command}")
}

const fn class(required: bool) -> &'static str {
    if required { "required" } else { "optional" }
}

/// Numbers with commas; `-` for none.
fn list<T: ToString>(numbers: &[T]) -> String {
    if numbers.is_empty() {
        return "-".to_owned();
    }
    numbers.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::super::description::{NetworkStep, PackageStep, ReleaseStep};
    use super::*;

    #[test]
    fn every_kind_of_step_has_its_line() {
        let text = |text: &str| text.to_owned();
        let steps = vec![
            Step::WaitForDevices { seconds: 180 },
            Step::Package(PackageStep { required: true, seconds: 300, path: text("viostor\\viostor.inf") }),
            Step::Refused { path: text("odd\\odd.inf") },
            Step::OtherPackages { seconds: 300 },
            Step::Scan,
            Step::Network(NetworkStep {
                mac: text("52:54:00:12:34:56"),
                seconds: 60,
                name: text("Ethernet"),
                commands: vec![text("interface ipv4 set address {index} dhcp")],
            }),
            Step::Run(RunStep {
                ok_codes: vec![0, 3010],
                retry_codes: vec![1618],
                retries: 10,
                pause: 60,
                ..RunStep::optional("agent", 600, "msiexec.exe /i x.msi")
            }),
            Step::Release(ReleaseStep {
                inf: text("h2k-x.inf"),
                package: text("h2k-x.inf_amd64_0"),
                service: text("x"),
            }),
        ];
        let job = JobDescription::new(Some(Pnputil::Legacy), steps, Reboot::IfNeeded);
        let expected = "winject-firstboot\t1\nattempts\t3\t10\nrepeat\t60,180,600\npnputil\tlegacy\nwait-pnp\t180\n\
                        package\trequired\t300\tviostor\\viostor.inf\nrefused\todd\\odd.inf\nothers\t300\nscan\n\
                        network\t52:54:00:12:34:56\t60\tEthernet\nnetsh\tinterface ipv4 set address {index} dhcp\n\
                        run\toptional\tagent\t600\t0,3010\t1618\t10\t60\tmsiexec.exe /i x.msi\n\
                        release\th2k-x.inf\th2k-x.inf_amd64_0\tx\nreboot\tif-needed\nserial\tCOM1\n";
        assert_eq!(String::from_utf8(print(&job).unwrap()).unwrap(), expected.replace('\n', "\r\n"));
        let read = winject_firstboot::job::parse(&print(&job).unwrap()).expect("the guest's program reads it");
        assert_eq!(read.steps.len(), job.steps.len());
    }

    #[test]
    fn a_job_that_the_program_would_refuse_is_not_written() {
        let long = vec![Step::Run(RunStep::optional("x", 1, "x.exe")); LINES_MAX];
        assert!(print(&JobDescription::new(None, long, Reboot::Never)).is_err());
        let large = vec![Step::Run(RunStep::optional("x", 1, "x".repeat(30_000))); 40];
        assert!(print(&JobDescription::new(None, large, Reboot::Never)).is_err());
    }
}
