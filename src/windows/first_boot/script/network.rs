//! The network step as a part of the script.

use std::fmt::Write as _;

use super::shared::{polls, unspellable};
use crate::windows::first_boot::description::NetworkStep;
use crate::windows::first_boot::text::spell_command;

/// Adds the step with this number, which sets `R`, `C` and `S` of it. `getmac` names the connection by its MAC address, and
/// `netsh` takes the name wherever it takes an index.
pub(super) fn add(out: &mut String, at: usize, step: &NetworkStep) -> Result<(), String> {
    let mac = step.mac.replace(':', "-");
    let _ = write!(
        out,
        "set \"R{at}=missing\"\nset \"COUNT={}\"\n:network_{at}\nset \"ROW=\"\nset \"NIC=\"\n\
         \"%SYS%\\getmac.exe\" /v /fo csv /nh 2>nul | \"%SYS%\\findstr.exe\" /i /c:\"{mac}\" >\"%BASE%\\firstboot.out\"\n\
         for /f \"usebackq delims=\" %%L in (\"%BASE%\\firstboot.out\") do set \"ROW=%%L\"\n\
         if not defined ROW goto network_wait_{at}\n\
         for %%A in (%ROW%) do if not defined NIC set \"NIC=%%~A\"\n\
         if defined NIC goto network_found_{at}\n:network_wait_{at}\nif %COUNT% LEQ 0 goto network_end_{at}\n\
         set /a COUNT=COUNT-1\ncall :pause\ngoto network_{at}\n:network_found_{at}\nset \"R{at}=ok\"\n",
        polls(step.seconds)
    );
    for command in &step.commands {
        let _ = match spell(command) {
            Some(arguments) => writeln!(
                out,
                ">>\"%LOG%\" echo %DATE% %TIME% netsh, \"%NIC%\"\n\"%SYS%\\netsh.exe\" {arguments} >>\"%LOG%\" 2>&1\n\
                 set \"CODE=%ERRORLEVEL%\"\nif not \"%CODE%\"==\"0\" set \"C{at}=%CODE%\"\n\
                 if not \"%CODE%\"==\"0\" set \"R{at}=failed\""
            ),
            // A batch file is ASCII: what it cannot say is left undone, and the result says so.
            None => writeln!(out, "if \"%R{at}%\"==\"ok\" set \"R{at}=skipped\""),
        };
    }
    let _ = writeln!(
        out,
        ":network_end_{at}\n>>\"%LOG%\" echo %DATE% %TIME% %R{at}%, network {mac}\n\
         if \"%R{at}%\"==\"ok\" set \"S{at}=1\"\nif \"%R{at}%\"==\"skipped\" set \"S{at}=1\""
    );
    if step.mac.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
        Ok(())
    } else {
        Err(unspellable(&step.name))
    }
}

/// The arguments with the connection's name for each placeholder; `None` when they cannot stand in a batch file.
fn spell(command: &str) -> Option<String> {
    let spelled = spell_command(&command.replace('%', "%%"))?;
    Some(["{index}", "{index6}", "{name}"].iter().fold(spelled, |text, place| text.replace(place, "\"%NIC%\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_become_the_quoted_name_and_nothing_else_means_anything() {
        let spelled = spell("interface ipv4 set address name={index} address=10.0.0.5").unwrap();
        assert_eq!(spelled, "interface ipv4 set address name=\"%NIC%\" address=10.0.0.5");
        let spelled = spell("interface set interface name={name} newname=\"a & b\"").unwrap();
        assert_eq!(spelled, "interface set interface name=\"%NIC%\" newname=\"a & b\"");
        assert_eq!(spell("x & del y").as_deref(), Some("x ^& del y"));
        assert_eq!(spell("newname=\"B\u{fc}ro\""), None);
    }
}
