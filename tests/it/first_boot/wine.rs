//! A Windows of Wine to run the first boot in: one folder for all tests, which take turns.
//!
//! It is started like a machine: the service stands in the registry, and Wine's service manager starts it because its
//! start type says so. What differs from Windows is said where a test meets it. Above all: files belong to one account,
//! whose access list Wine makes up from the modes of Unix; there is no plug and play that installs anything; exit codes,
//! job objects, services, files and pipes are Wine's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::build;
use crate::support;

/// The registry value lines of the service, in Wine's own text form.
const SERVICE: &str = r#"
[System\\CurrentControlSet\\Services\\hyper2kvm-firstboot] 1700000000
"DelayedAutoStart"=dword:00000000
"Description"="Installs the driver packages"
"DisplayName"="hyper2kvm First Boot Driver Installer"
"ErrorControl"=dword:00000001
"ImagePath"=str(2):"\"%SystemDrive%\\hyper2kvm\\hyper2kvm-firstboot.exe\""
"ObjectName"="LocalSystem"
"Start"=dword:00000002
"Type"=dword:00000010
"#;
/// What the last line of a start says.
const LAST_WORDS: [&str; 7] =
    ["done", "nothing to do", "tries again", "given up", "does not count", "completes the installation", "seconds"];
/// How long one start may take at most, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// The Windows folder of Wine, which one test at a time has.
pub struct Machine {
    prefix: PathBuf,
}

/// Takes the machine with nothing of an earlier test in it; `None` after saying what is missing.
pub fn machine() -> Option<MutexGuard<'static, Machine>> {
    static MACHINE: OnceLock<Mutex<Machine>> = OnceLock::new();
    support::program("wine")?;
    support::program("wineserver")?;
    let built = build::built()?;
    let machine = MACHINE.get_or_init(|| Mutex::new(Machine::make(&built.join("stand-in.exe"))));
    // a test that failed leaves nothing that the reset does not take away
    let guard = machine.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    guard.reset();
    Some(guard)
}

impl Machine {
    fn make(stand_in: &Path) -> Self {
        let machine = Self { prefix: Path::new(env!("CARGO_TARGET_TMPDIR")).join("wine") };
        if !machine.prefix.join("system.reg").exists() {
            let _ = std::fs::remove_dir_all(&machine.prefix);
            std::fs::create_dir_all(&machine.prefix).unwrap();
            support::run(machine.command("wineboot").arg("--init").stdout(Stdio::null()).stderr(Stdio::null()));
            support::run(machine.command("wineserver").arg("-w"));
        }
        for name in ["pnputil.exe", "netsh.exe", "msiexec.exe"] {
            std::fs::copy(stand_in, machine.drive().join("windows/system32").join(name)).unwrap();
        }
        machine
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("WINEPREFIX", &self.prefix)
            .env("WINEARCH", "win64")
            .env("WINEDEBUG", "-all")
            .env(
                "WINEDLLOVERRIDES",
                "mscoree,mshtml=;winemenubuilder.exe,explorer.exe=d;pnputil.exe,netsh.exe,msiexec.exe=n",
            )
            .env_remove("DISPLAY")
            .stdin(Stdio::null());
        command
    }

    /// The folder that is `C:`.
    pub fn drive(&self) -> PathBuf {
        self.prefix.join("drive_c")
    }

    /// A file of `C:\hyper2kvm`.
    pub fn base(&self, name: &str) -> PathBuf {
        self.drive().join("hyper2kvm").join(name)
    }

    /// The staging folder.
    pub fn stage(&self, name: &str) -> PathBuf {
        self.base("drivers/virtio").join(name)
    }

    fn reset(&self) {
        self.power_off();
        for folder in ["hyper2kvm", "stub"] {
            let _ = std::fs::remove_dir_all(self.drive().join(folder));
            std::fs::create_dir_all(self.drive().join(folder)).unwrap();
        }
        let _ = std::fs::remove_file(self.log_path());
        std::fs::copy(build::program("amd64"), self.base("hyper2kvm-firstboot.exe")).unwrap();
        let registry = self.prefix.join("system.reg");
        let text = std::fs::read_to_string(&registry).unwrap();
        let blocks: Vec<&str> =
            text.split("\n\n").filter(|block| !block.contains("Services\\\\hyper2kvm-firstboot]")).collect();
        std::fs::write(&registry, format!("{}\n{SERVICE}", blocks.join("\n\n").trim_end())).unwrap();
    }

    /// The log's path.
    pub fn log_path(&self) -> PathBuf {
        self.drive().join("windows/temp/hyper2kvm-firstboot.log")
    }

    /// The log.
    pub fn log(&self) -> String {
        String::from_utf8(std::fs::read(self.log_path()).unwrap_or_default()).expect("the log is UTF-8")
    }

    /// Puts a package's INF where the job finds it.
    pub fn add_inf(&self, path: &str) {
        let file = self.stage(&path.replace('\\', "/"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "x").unwrap();
    }

    /// Writes the job file: the first lines and `body`, whose lines end with `\n` here.
    pub fn write_job(&self, body: &str) {
        let text = format!("winject-firstboot\t1\nattempts\t3\t10\npnputil\tadd-driver\n{body}");
        std::fs::write(self.base("firstboot.job"), text.replace('\n', "\r\n")).unwrap();
    }

    /// Tells the stand-ins what to do.
    pub fn set_behaviour(&self, rules: &str) {
        std::fs::write(self.drive().join("stub/behave.txt"), rules).unwrap();
    }

    /// The calls of the stand-ins without the program's path.
    pub fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.drive().join("stub/calls.txt")).unwrap_or_default();
        text.lines().map(|line| line.replace("\"C:\\windows\\System32\\", "\"").replace("\\\\", "\\")).collect()
    }

    /// Switches the machine on. The service manager starts the service; nothing else does.
    pub fn boot(&self) {
        let mut wine = self.command("wineboot");
        let mut child = wine.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        child.wait().unwrap();
    }

    /// Runs a program of Wine and returns what it prints.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command("wine").args(arguments).stderr(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts the program as a person does, without the service manager.
    pub fn spawn(&self) -> std::process::Child {
        let mut wine = self.command("wine");
        wine.arg("C:\\hyper2kvm\\hyper2kvm-firstboot.exe").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Waits until the log contains a text.
    pub fn wait_for(&self, text: &str) {
        self.wait_until(text, |log| log.contains(text));
    }

    fn wait_until(&self, what: &str, is_reached: impl Fn(&str) -> bool) {
        let begin = Instant::now();
        while !is_reached(&self.log()) {
            assert!(begin.elapsed() < PATIENCE, "waited for {what:?} in vain; the log:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// Switches the machine on, waits until the program has ended, and shuts down.
    pub fn start(&self) {
        let before = self.log().len();
        self.boot();
        self.wait_until("the end of the start", |log| {
            let last = log.get(before..).unwrap_or_default().trim_end().lines().last().unwrap_or_default().to_owned();
            LAST_WORDS.iter().any(|words| last.contains(words)) && !self.base("firstboot.lock").exists()
        });
        self.shut_down();
    }

    /// Ends Wine in order: the registry is written.
    pub fn shut_down(&self) {
        // the service's end has to reach the service manager before
        std::thread::sleep(POLL * 4);
        let _ = self.command("wineserver").arg("-k").status();
        let _ = self.command("wineserver").arg("-w").status();
    }

    /// Ends Wine at once, as a power cut does.
    pub fn power_off(&self) {
        let _ = self.command("wineserver").arg("-k9").status();
        let _ = self.command("wineserver").arg("-w").status();
    }

    /// Whether the service is in the registry, after the machine was shut down.
    pub fn has_service(&self) -> bool {
        std::fs::read_to_string(self.prefix.join("system.reg")).unwrap().contains("Services\\\\hyper2kvm-firstboot]")
    }

    /// The result file.
    pub fn result(&self) -> Value {
        let text = std::fs::read_to_string(self.base("firstboot.json"))
            .unwrap_or_else(|e| panic!("firstboot.json: {e}; the log:\n{}", self.log()));
        assert!(text.ends_with("\r\n") && text.matches('\n').count() == text.matches("\r\n").count());
        serde_json::from_str(&text).unwrap()
    }

    /// The steps of the result as `name result code`.
    pub fn steps(&self) -> Vec<String> {
        let result = self.result();
        let steps = result["steps"].as_array().unwrap();
        steps
            .iter()
            .map(|s| format!("{} {} {}", s["name"].as_str().unwrap(), s["result"].as_str().unwrap(), s["code"]))
            .collect()
    }

    /// The files of `C:\hyper2kvm`, without the program and folders.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.base("")).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        let mut names: Vec<String> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "hyper2kvm-firstboot.exe");
        names.sort();
        names
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}
