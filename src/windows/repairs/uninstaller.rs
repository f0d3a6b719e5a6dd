//! The uninstaller that a former hypervisor's tools registered.
//!
//! The command that Windows has for it is data of the guest, and the first-boot job runs as LocalSystem: of the command
//! only a product code, or the path of a program below `Program Files`, is taken over.

use super::hypervisor::Hypervisor;
use crate::error::Result;
use crate::guid::Guid;
use crate::plan::GuestHive;
use crate::windows::first_boot::description::RunStep;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{RepairRecord, Uninstaller};
use crate::windows::registry;

/// Where installed programs are registered, in SOFTWARE.
const LISTS: [&str; 2] =
    ["Microsoft\\Windows\\CurrentVersion\\Uninstall", "WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\Uninstall"];
/// Most installed programs that are read of one list.
const PROGRAMS_MAX: usize = 20_000;
/// Most programs of one hypervisor that are uninstalled: a guest has a few, and each is a step of the first-boot job.
const UNINSTALLERS_MAX: usize = 64;
/// Time limit of an uninstaller, in seconds.
const SECONDS_MAX: u32 = 900;
/// Longest name of a program that is shown.
const NAME_UNITS_MAX: usize = 256;

/// Finds the uninstallers of one hypervisor's tools. A list that is too long to be one of installed programs is read in part,
/// with a warning.
///
/// # Errors
/// When the hive or the volume is damaged.
pub(super) fn find(builder: &mut PlanBuilder<'_>, hypervisor: Hypervisor, record: &mut RepairRecord) -> Result<()> {
    let mut warnings = Vec::new();
    let mut found = 0_usize;
    let tools = hypervisor.tools();
    if tools.products.is_empty() {
        return Ok(());
    }
    for list in LISTS {
        let hive = builder.hive(GuestHive::Software)?;
        let programs = registry::subkey_names(hive, list)?;
        if programs.len() > PROGRAMS_MAX {
            warnings.push(format!(
                "{hypervisor}: of the {} programs in SOFTWARE\\{list}, only the first {PROGRAMS_MAX} are looked at",
                programs.len()
            ));
        }
        for program in programs.into_iter().take(PROGRAMS_MAX) {
            let key = format!("{list}\\{program}");
            let Some(name) = registry::get_string(hive, &key, "DisplayName")? else { continue };
            if !tools.products.iter().any(|product| begins_with_words(&name, product)) {
                continue;
            }
            let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_UNITS_MAX).collect();
            let texts =
                ["UninstallString", "QuietUninstallString"].map(|value| registry::get_string(hive, &key, value));
            let [plain, quiet] = texts;
            let texts: Vec<String> = [plain?, quiet?].into_iter().flatten().collect();
            found += 1;
            if found > UNINSTALLERS_MAX {
                continue;
            }
            match command(builder, &program, &texts, tools.silent)? {
                Ok(command) => {
                    if !record.uninstallers.iter().any(|known| known.command == command) {
                        let hypervisor = hypervisor.to_string();
                        record.uninstallers.push(Uninstaller { hypervisor, name, command });
                    }
                }
                Err(reason) => record.leave(format!("{hypervisor}: {name} is not uninstalled: {reason}")),
            }
        }
    }
    if found > UNINSTALLERS_MAX {
        warnings.push(format!(
            "{hypervisor}: {found} programs have the names of its tools; the first-boot job uninstalls the first \
             {UNINSTALLERS_MAX} at most"
        ));
    }
    warnings.into_iter().for_each(|warning| builder.add_warning(warning));
    Ok(())
}

/// The step of the first-boot job. A failure is only noted: the tools of some hypervisors do not go once they are off it.
pub(super) fn step(uninstaller: &Uninstaller) -> RunStep {
    /// Windows Installer's code for a product that is not installed (any more).
    const GONE: i64 = 1605;
    let name: String = uninstaller.name.chars().filter(|c| c.is_ascii_alphanumeric() || " .-_".contains(*c)).collect();
    let mut step = RunStep::installer(format!("uninstall {name}"), SECONDS_MAX, uninstaller.command.as_str());
    step.ok_codes.insert(1, GONE);
    step
}

/// Whether a name begins with these words, in upper or lower case.
fn begins_with_words(name: &str, words: &str) -> bool {
    let (name, words) = (name.trim().to_ascii_lowercase(), words.to_ascii_lowercase());
    name.strip_prefix(&words).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
}

/// The command that uninstalls a program without a question, or why there can be none.
fn command(
    builder: &PlanBuilder<'_>,
    program: &str,
    texts: &[String],
    silent: Option<&str>,
) -> Result<std::result::Result<String, String>> {
    if let Some(code) = product_code(program, texts) {
        return Ok(Ok(format!("\"%SystemRoot%\\System32\\msiexec.exe\" /x {code} /qn /norestart")));
    }
    let Some(path) = texts.iter().find_map(|text| program_path(text, &builder.guest.system_root)) else {
        return Ok(Err("its uninstaller is neither Windows Installer nor a program below Program Files".to_owned()));
    };
    let Some(silent) = silent else {
        return Ok(Err("it is not known how to run its uninstaller without questions".to_owned()));
    };
    let on_volume = path.get(2..).unwrap_or_default().replace('\\', "/");
    if builder.file_size(&on_volume)?.is_none() || builder.is_folder(&on_volume)? {
        return Ok(Err(format!("its uninstaller {path} is not there")));
    }
    Ok(Ok(format!("\"{path}\" {silent}")))
}

/// The product code of a program that Windows Installer installed: the name of its key, and in its command.
fn product_code(program: &str, texts: &[String]) -> Option<String> {
    let code = program.strip_prefix('{')?.strip_suffix('}')?;
    let code = Guid::parse(code)?.to_string().to_uppercase();
    let uses_installer = |text: &String| {
        let text = text.trim().trim_start_matches('"').to_uppercase();
        let name = text.split(['"', ' ']).next().unwrap_or_default();
        let is_installer = matches!(name.rsplit('\\').next(), Some("MSIEXEC" | "MSIEXEC.EXE"));
        is_installer && text.contains(&format!("{{{code}}}"))
    };
    texts.iter().any(uses_installer).then(|| format!("{{{code}}}"))
}

/// The program of a command, if it lies below `Program Files` on the drive of Windows; its arguments are dropped.
fn program_path(text: &str, system_root: &str) -> Option<String> {
    let text = text.trim();
    let path = match text.strip_prefix('"') {
        Some(rest) => rest.split('"').next()?,
        // without quotes the program ends with its first `.exe`
        None => {
            let end = text.to_ascii_lowercase().find(".exe")?.checked_add(4)?;
            let is_end = text.get(end..)?.chars().next().is_none_or(char::is_whitespace);
            is_end.then_some(text.get(..end)?)?
        }
    };
    let drive = system_root.get(..2)?;
    let rest = path.get(..2).filter(|own| own.eq_ignore_ascii_case(drive)).and_then(|_| path.get(2..))?;
    let lower = rest.to_ascii_lowercase();
    let is_below = ["\\program files\\", "\\program files (x86)\\"].iter().any(|folder| lower.starts_with(folder));
    // `%` would be expanded, the rest has a meaning in a command, and the script form of the job is ASCII
    let is_plain = |c: char| c.is_ascii() && !c.is_control() && !"%\"<>|?*:/&^!".contains(c);
    let is_name = |name: &str| {
        let is_dots = name.chars().all(|c| c == '.' || c == ' ');
        !is_dots && !name.ends_with([' ', '.'])
    };
    let is_path = rest.chars().all(is_plain) && rest.split('\\').skip(1).all(is_name);
    (is_below && is_path && lower.ends_with(".exe") && path.len() < 240).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_installers_command_only_the_product_code_is_taken() {
        let key = "{12345678-9ABC-DEF0-1234-56789ABCDEF0}";
        let code = |text: &str| product_code(key, &[text.to_owned()]);
        for text in [
            "MsiExec.exe /I{12345678-9ABC-DEF0-1234-56789ABCDEF0}",
            "msiexec /x {12345678-9abc-def0-1234-56789abcdef0} & format c:",
            "\"C:\\Windows\\System32\\msiexec.exe\" /X{12345678-9ABC-DEF0-1234-56789ABCDEF0}",
        ] {
            assert_eq!(code(text).as_deref(), Some(key), "{text}");
        }
        for text in [
            "evil.exe msiexec {12345678-9ABC-DEF0-1234-56789ABCDEF0}",
            "MsiExec.exe /I{00000000-9ABC-DEF0-1234-56789ABCDEF0}",
            "",
        ] {
            assert_eq!(code(text), None, "{text}");
        }
        for key in ["VMware Tools", "{12345678}", "{12345678-9ABC-DEF0-1234-56789ABCDEF0} & x", "{}"] {
            assert_eq!(product_code(key, &[format!("msiexec /x {key}")]), None, "{key}");
        }
    }

    #[test]
    fn a_program_is_run_only_below_program_files_and_without_its_arguments() {
        let path = |text: &str| program_path(text, "C:\\Windows");
        let expected = Some("C:\\Program Files\\Oracle\\VirtualBox Guest Additions\\uninst.exe".to_owned());
        for text in [
            "C:\\Program Files\\Oracle\\VirtualBox Guest Additions\\uninst.exe",
            "\"C:\\Program Files\\Oracle\\VirtualBox Guest Additions\\uninst.exe\" /x & format c:",
            "C:\\Program Files\\Oracle\\VirtualBox Guest Additions\\uninst.exe /S",
        ] {
            assert_eq!(path(text), expected, "{text}");
        }
        for text in [
            "C:\\Program Files\\..\\Users\\Public\\x.exe",
            "C:\\Program Files\\a\\.. \\x.exe",
            "C:\\Program Files\\%TEMP%\\x.exe",
            "C:\\Program Files\\a.exe\\..\\..\\Temp\\b.exe\" x",
            "C:\\Program Files\\a\\b.exe:stream.exe",
            "C:\\Program FilesX\\x.exe",
            "C:\\Temp\\x.exe",
            "D:\\Program Files\\x.exe",
            "\\\\host\\share\\x.exe",
            "cmd /c C:\\Program Files\\x.exe",
            "C:\\Program Files\\x.cmd",
            "C:\\Program Files\\x.exes",
            "C:\\Program Files\\a\\x\u{7}.exe",
            "",
        ] {
            assert_eq!(path(text), None, "{text}");
        }
    }

    #[test]
    fn a_product_is_known_by_whole_words() {
        assert!(begins_with_words("VMware Tools", "VMware Tools"));
        assert!(begins_with_words(
            "Oracle VM VirtualBox Guest Additions 7.0.14",
            "Oracle VM VirtualBox Guest Additions"
        ));
        assert!(!begins_with_words("VMware Toolset", "VMware Tools"));
        assert!(!begins_with_words("My VMware Tools", "VMware Tools"));
    }
}
