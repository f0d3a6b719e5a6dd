//! The text of the two batch files that the guest runs.
//!
//! `cmd.exe` reads batch files in the OEM code page: plain ASCII, CR LF, no byte-order mark. `%ERRORLEVEL%` inside a
//! parenthesised block is expanded when the block is parsed, so there are no blocks here, only labels.

use std::fmt::Write as _;

use crate::windows::guest_paths;

/// First Windows build whose `pnputil` knows `/add-driver` (10 1607, Server 2016).
const BUILD_ADD_DRIVER: u32 = 14393;
/// First Windows build whose `pnputil` knows `/scan-devices` (10 2004).
const BUILD_SCAN_DEVICES: u32 = 19041;
/// First Windows build with a `pnputil` (Vista).
const BUILD_PNPUTIL: u32 = 6000;
/// How often the job tries before it gives up for good.
pub const ATTEMPTS_MAX: u32 = 3;
/// How many polls of two seconds one package may take.
const POLLS_MAX: u32 = 150;

/// What the scripts need to know of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptPackage {
    /// Folder below the staging folder.
    pub folder: String,
    /// File name of the INF.
    pub inf: String,
    /// Whether the job is only done when this one is installed.
    pub required: bool,
}

impl ScriptPackage {
    /// `folder\name.inf` as it can stand in a batch file; `None` when it cannot (the job then finds the file by
    /// listing the folder).
    fn path(&self) -> Option<String> {
        let path = format!("{}\\{}", self.folder, self.inf);
        let plain = path.bytes().all(|b| (b' '..=b'~').contains(&b) && !b"\"!^&|<>".contains(&b));
        plain.then(|| path.replace('%', "%%"))
    }
}

/// The `pnputil` arguments before and after the quoted INF, for a Windows build; `None` for one without `pnputil`.
fn pnputil(build: u32) -> Option<(&'static str, &'static str)> {
    match build {
        BUILD_ADD_DRIVER.. => Some(("/add-driver", " /install")),
        BUILD_PNPUTIL.. => Some(("-i -a", "")),
        _ => None,
    }
}

/// Joins lines with CR LF.
fn lines(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// `setup.cmd`: installs everything when a person runs it.
#[must_use]
pub fn setup(packages: &[ScriptPackage], build: u32) -> Vec<u8> {
    let mut out = String::from(
        "@echo off\n\
         rem Installs the staged driver packages. Run it as administrator.\n\
         setlocal EnableExtensions DisableDelayedExpansion\n\
         set \"SYS=%SystemRoot%\\System32\"\n\
         if exist \"%SystemRoot%\\Sysnative\\cmd.exe\" set \"SYS=%SystemRoot%\\Sysnative\"\n",
    );
    match pnputil(build) {
        Some((before, after)) => {
            for path in packages.iter().filter_map(ScriptPackage::path) {
                let _ = writeln!(
                    out,
                    "\"%SYS%\\pnputil.exe\" {before} \"{}\\{path}\"{after}",
                    guest_paths::STAGE_IN_SCRIPT
                );
            }
        }
        None => out.push_str(
            "echo This Windows has no pnputil: it finds the drivers through the registry value DevicePath.\n\
             echo Open the device manager and look for changed hardware.\n",
        ),
    }
    let _ = writeln!(out, "echo Log of the automatic installation: %SystemRoot%\\{}", guest_paths::LOG_BELOW_WINDOWS);
    lines(&out)
}

/// The beginning of `firstboot.cmd`, which every path through it runs.
const HEAD: &str = r#"@echo off
rem Installs the staged driver packages once. The service hyper2kvm-firstboot starts it.
setlocal EnableExtensions DisableDelayedExpansion
set "SELF=%~f0"
set "BASE=%SystemDrive%\hyper2kvm"
set "STAGE=%BASE%\drivers\virtio"
set "LOG=%SystemRoot%\Temp\hyper2kvm-firstboot.log"
set "STATUS=%BASE%\firstboot.json"
set "SYS=%SystemRoot%\System32"
if exist "%SystemRoot%\Sysnative\cmd.exe" set "SYS=%SystemRoot%\Sysnative"
if /i "%~1"=="run" goto run
if /i "%~1"=="one" goto one
rem The service manager ends a process that does not report to it within 30 seconds: go on as a detached child.
start "" /b "%SYS%\cmd.exe" /d /c ""%SELF%" run"
exit /b 0

:run
if exist "%BASE%\firstboot.done" goto remove
set "N=0"
if exist "%BASE%\firstboot.attempts" set /p N=<"%BASE%\firstboot.attempts"
set /a N=N+1
if errorlevel 1 goto giveup
"#;

/// From the first package to the end.
const TAIL: &str = r#"
if "%REQUIRED_FAILURES%"=="0" goto done
call :log "%REQUIRED_FAILURES% required packages failed"
if %N% GEQ @ATTEMPTS@ goto giveup
call :log "the next start of Windows tries again"
exit /b 1

:done
call :log "done, %FAILURES% optional packages failed"
if "%REBOOT%"=="1" call :log "a restart of Windows completes the installation"
>"%BASE%\firstboot.done" echo done
goto remove

:giveup
call :log "given up; run setup.cmd by hand"
>"%BASE%\firstboot.failed" echo failed

:remove
del "%BASE%\firstboot.attempts" "%BASE%\firstboot.tried" "%BASE%\firstboot.rc" "%BASE%\firstboot.out" >nul 2>&1
"%SYS%\sc.exe" delete hyper2kvm-firstboot >nul 2>&1
exit /b 0

:log
>>"%LOG%" echo %DATE% %TIME% "%~1"
goto :eof
"#;

/// The subroutine that installs one package with a time limit and evaluates the exit code.
const INSTALL: &str = r#"
:install
if not exist "%~2" goto absent
if not exist "%BASE%\firstboot.tried" goto fresh
"%SYS%\findstr.exe" /i /l /c:"%~2" "%BASE%\firstboot.tried" >nul 2>&1
if not errorlevel 1 goto :eof
:fresh
>>"%BASE%\firstboot.tried" echo "%~2"
call :log "installing %~2"
del "%BASE%\firstboot.rc" "%BASE%\firstboot.out" >nul 2>&1
set "POLLS=0"
start "" /b "%SYS%\cmd.exe" /d /c ""%SELF%" one "%~2""
:poll
if exist "%BASE%\firstboot.rc" goto ended
"%SYS%\ping.exe" -n 3 127.0.0.1 >nul
set /a POLLS=POLLS+1
if %POLLS% LSS @POLLS@ goto poll
"%SYS%\taskkill.exe" /f /im pnputil.exe >nul 2>&1
"%SYS%\ping.exe" -n 4 127.0.0.1 >nul
set "CODE=timeout"
goto result
:ended
set "CODE=unknown"
set /p CODE=<"%BASE%\firstboot.rc"
:result
if exist "%BASE%\firstboot.out" type "%BASE%\firstboot.out" >>"%LOG%" 2>nul
call :log "exit code %CODE%"
>>"%STATUS%" echo %COMMA%{"inf": "%~nx2", "class": "%~1", "code": "%CODE%"}
set "COMMA=,"
rem 259: no such device here, or the driver is there already; 3010 and 1641: a restart is needed
if "%CODE%"=="0" goto :eof
if "%CODE%"=="259" goto :eof
if "%CODE%"=="3010" goto restart
if "%CODE%"=="1641" goto restart
goto failed
:restart
set "REBOOT=1"
goto :eof
:absent
call :log "missing: %~2"
:failed
if /i "%~1"=="required" goto failed_required
set /a FAILURES=FAILURES+1
goto :eof
:failed_required
set /a REQUIRED_FAILURES=REQUIRED_FAILURES+1
goto :eof

:one
"%SYS%\pnputil.exe" @BEFORE@ "%~2"@AFTER@ >"%BASE%\firstboot.out" 2>&1
>"%BASE%\firstboot.tmp" echo %ERRORLEVEL%
move /y "%BASE%\firstboot.tmp" "%BASE%\firstboot.rc" >nul
exit /b 0
"#;

/// `firstboot.cmd`: the job that the service starts.
#[must_use]
pub fn firstboot(packages: &[ScriptPackage], build: u32) -> Vec<u8> {
    let mut out = String::from(HEAD);
    let _ = writeln!(out, "if %N% GTR {ATTEMPTS_MAX} goto giveup");
    out.push_str(">\"%BASE%\\firstboot.attempts\" echo %N%\n");
    out.push_str("set \"FAILURES=0\"\nset \"REQUIRED_FAILURES=0\"\nset \"REBOOT=0\"\nset \"COMMA=\"\n");
    out.push_str("del \"%BASE%\\firstboot.tried\" >nul 2>&1\n");
    let _ = writeln!(out, "call :log \"attempt %N% of {ATTEMPTS_MAX}, %PROCESSOR_ARCHITECTURE%\"");
    out.push_str("ver >>\"%LOG%\"\ndir /b /s \"%STAGE%\\*.inf\" >>\"%LOG%\" 2>&1\n");
    match pnputil(build) {
        Some((before, after)) => {
            out.push_str("rem plug and play is busy right after the start\n");
            out.push_str("\"%SYS%\\ping.exe\" -n 16 127.0.0.1 >nul\n>\"%STATUS%\" echo {\"packages\": [\n");
            for package in packages {
                let class = if package.required { "required" } else { "optional" };
                if let Some(path) = package.path() {
                    let _ = writeln!(out, "call :install {class} \"%STAGE%\\{path}\"");
                }
            }
            out.push_str("rem whatever else was put there\n");
            out.push_str(
                "for /f \"delims=\" %%I in ('dir /b /s \"%STAGE%\\*.inf\" 2^>nul') do call :install optional \"%%I\"\n",
            );
            if build >= BUILD_SCAN_DEVICES {
                out.push_str("\"%SYS%\\pnputil.exe\" /scan-devices >>\"%LOG%\" 2>&1\n");
            }
            out.push_str(
                ">>\"%STATUS%\" echo ], \"attempt\": %N%, \"failed_required\": %REQUIRED_FAILURES%, \
                 \"failed_optional\": %FAILURES%}\n",
            );
            out.push_str(&TAIL.replace("@ATTEMPTS@", &ATTEMPTS_MAX.to_string()));
            out.push_str(
                &INSTALL
                    .replace("@POLLS@", &POLLS_MAX.to_string())
                    .replace("@BEFORE@", before)
                    .replace("@AFTER@", after),
            );
        }
        None => {
            out.push_str("call :log \"no pnputil in this Windows: DevicePath leads to the drivers\"\n");
            out.push_str(&TAIL.replace("@ATTEMPTS@", &ATTEMPTS_MAX.to_string()));
            out.push_str("\n:one\nexit /b 0\n");
        }
    }
    lines(&out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn packages() -> Vec<ScriptPackage> {
        let package = |folder: &str, inf: &str, required| ScriptPackage {
            folder: folder.to_owned(),
            inf: inf.to_owned(),
            required,
        };
        vec![package("viostor", "viostor.inf", true), package("balloon", "balloon.inf", false)]
    }

    #[test]
    fn scripts_are_ascii_with_cr_lf() {
        for build in [2600, 7601, 9600, 19045, 26100] {
            for script in [setup(&packages(), build), firstboot(&packages(), build)] {
                assert!(script.is_ascii());
                let text = String::from_utf8(script).unwrap();
                assert!(text.ends_with("\r\n"));
                assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
                assert!(text.lines().all(|l| l.len() < 1000), "cmd.exe limits the line");
                assert!(!text.contains('@') || text.starts_with("@echo off\r\n") && text.matches('@').count() == 1);
            }
        }
    }

    #[test]
    fn every_label_exists_once() {
        for build in [2600, 7601, 26100] {
            let text = String::from_utf8(firstboot(&packages(), build)).unwrap();
            let labels: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix(':')).map(|l| l.trim()).collect();
            let set: BTreeSet<&str> = labels.iter().copied().collect();
            assert_eq!(labels.len(), set.len(), "a label twice: {labels:?}");
            for word in ["goto ", "call :"] {
                for (at, _) in text.match_indices(word) {
                    let target: String = text[at + word.len()..]
                        .trim_start_matches(':')
                        .chars()
                        .take_while(|c| c.is_alphanumeric() || *c == '_')
                        .collect();
                    assert!(target == "eof" || set.contains(target.as_str()), "no label {target} (build {build})");
                }
            }
        }
    }

    #[test]
    fn pnputil_speaks_the_dialect_of_its_windows() {
        let text = |build| String::from_utf8(setup(&packages(), build)).unwrap();
        assert!(text(19045).contains(
            "pnputil.exe\" /add-driver \"%SystemDrive%\\hyper2kvm\\drivers\\virtio\\viostor\\viostor.inf\" /install\r\n"
        ));
        assert!(
            text(9600).contains(
                "pnputil.exe\" -i -a \"%SystemDrive%\\hyper2kvm\\drivers\\virtio\\viostor\\viostor.inf\"\r\n"
            )
        );
        assert!(!text(2600).contains("pnputil.exe"));
        let job = String::from_utf8(firstboot(&packages(), 17763)).unwrap();
        assert!(job.contains("/add-driver \"%~2\" /install") && !job.contains("/scan-devices"));
    }

    #[test]
    fn the_job_keeps_the_contract() {
        let text = String::from_utf8(firstboot(&packages(), 19045)).unwrap();
        assert!(text.contains("dir /b /s \"%STAGE%\\*.inf\""));
        assert!(text.contains("%SystemRoot%\\Temp\\hyper2kvm-firstboot.log"));
        assert!(text.contains("%BASE%\\firstboot.done"));
        assert!(text.contains("sc.exe\" delete hyper2kvm-firstboot"));
        let storage = text.find("viostor\\viostor.inf").unwrap();
        assert!(storage < text.find("balloon\\balloon.inf").unwrap());
        // the marker is written at one place only, after the required packages were counted
        assert_eq!(text.matches(">\"%BASE%\\firstboot.done\"").count(), 1);
        assert!(
            text.find("REQUIRED_FAILURES%\"==\"0\" goto done").unwrap()
                < text.find(">\"%BASE%\\firstboot.done\"").unwrap()
        );
        for code in ["0", "259", "3010", "1641"] {
            assert!(text.contains(&format!("if \"%CODE%\"==\"{code}\" goto")), "{code}");
        }
    }

    #[test]
    fn names_that_would_break_a_batch_file_are_left_to_the_listing() {
        let odd = |inf: &str| ScriptPackage { folder: "x".to_owned(), inf: inf.to_owned(), required: false };
        assert_eq!(odd("a b%1.inf").path().as_deref(), Some("x\\a b%%1.inf"));
        assert_eq!(odd("a&b.inf").path(), None);
        assert_eq!(odd("\u{e4}.inf").path(), None);
    }
}
