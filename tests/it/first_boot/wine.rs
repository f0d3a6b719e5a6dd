//! A Windows of Wine to run the first boot in: one folder for all tests, which take turns.
//!
//! It is started like a machine: the service stands in the registry, and Wine's service manager starts it because its
//! start type says so. What differs from Windows is said where a test meets it. Above all: files belong to one account,
//! whose access list Wine makes up from the modes of Unix; plug and play installs nothing; exit codes,
//! job objects, services, files and pipes are Wine's.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::build;
use crate::support;

/// The registry value lines of the service, in Wine's own text form.
pub const SERVICE: &str = r#"
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
/// The languages that a test can choose, and the one that it has otherwise.
const LOCALES: [&str; 4] = ["en_US", "de_DE", "ja_JP", "ru_RU"];
const DEFAULT_LOCALE: &str = "en_US";
/// What the loopback interface shows.
const NO_ADDRESS: &str = "00:00:00:00:00:00";
/// How long one start may take at most, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// The Windows folder of Wine, which one test at a time has.
pub struct Machine {
    prefix: PathBuf,
    /// The program that keeps Wine running.
    user: RefCell<Option<Child>>,
    /// How the last program of [`run`](Self::run) ended.
    last_run: RefCell<String>,
    /// The pristine registry.
    registry: String,
    /// The language that Wine takes its code pages from.
    locale: &'static str,
}

/// Takes the machine with nothing of an earlier test in it; `None` after saying what it lacks.
pub fn machine() -> Option<MutexGuard<'static, Machine>> {
    static MACHINE: OnceLock<Option<Mutex<Machine>>> = OnceLock::new();
    support::program("wine")?;
    support::program("wineserver")?;
    let machine = MACHINE.get_or_init(|| build::stand_in().map(|program| Mutex::new(Machine::make(&program))));
    // a test that failed leaves nothing that the reset does not take away
    let mut guard = machine.as_ref()?.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    guard.reset();
    Some(guard)
}

impl Machine {
    fn make(stand_in: &Path) -> Self {
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wine");
        let (user, last_run) = (RefCell::new(None), RefCell::new(String::new()));
        let mut machine = Self { prefix, user, last_run, registry: String::new(), locale: DEFAULT_LOCALE };
        if !machine.prefix.join("system.reg").exists() {
            let _ = std::fs::remove_dir_all(&machine.prefix);
            std::fs::create_dir_all(&machine.prefix).unwrap();
            support::run(machine.command("wineboot").arg("--init").stdout(Stdio::null()).stderr(Stdio::null()));
            support::run(machine.command("wineserver").arg("-w"));
        }
        machine.power_off();
        for name in ["pnputil.exe", "netsh.exe", "msiexec.exe"] {
            std::fs::copy(stand_in, machine.system_program(name)).unwrap();
        }
        machine.make_locales();
        // what Wine itself writes, once, before any test has added to it
        let pristine = machine.prefix.join("pristine.reg");
        if !pristine.exists() {
            std::fs::copy(machine.prefix.join("system.reg"), &pristine).unwrap();
        }
        machine.registry = std::fs::read_to_string(pristine).unwrap();
        machine
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("WINEPREFIX", &self.prefix)
            .env("WINEARCH", "win64")
            .env("WINEDEBUG", "-all")
            .env("LOCPATH", self.prefix.join("locales"))
            .env("LC_ALL", format!("{}.UTF-8", self.locale))
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

    fn system_program(&self, name: &str) -> PathBuf {
        self.drive().join("windows/system32").join(name)
    }

    /// The languages that the tests choose from, made of the one that every Debian has: only their names matter here.
    fn make_locales(&self) {
        for name in LOCALES {
            let folder = self.prefix.join("locales").join(format!("{name}.UTF-8"));
            if !folder.exists() {
                std::fs::create_dir_all(self.prefix.join("locales")).unwrap();
                support::run(Command::new("cp").args(["-rL", "/usr/lib/locale/C.utf8"]).arg(&folder));
            }
        }
    }

    fn reset(&mut self) {
        self.power_off();
        self.locale = DEFAULT_LOCALE;
        for folder in ["hyper2kvm", "stub"] {
            let _ = std::fs::remove_dir_all(self.drive().join(folder));
            std::fs::create_dir_all(self.drive().join(folder)).unwrap();
        }
        let _ = std::fs::remove_file(self.log_path());
        std::fs::copy(build::program("amd64"), self.base("hyper2kvm-firstboot.exe")).unwrap();
        std::fs::write(self.prefix.join("system.reg"), &self.registry).unwrap();
        self.register_service();
    }

    /// Puts the service into the registry of the machine, which is off.
    pub fn register_service(&self) {
        self.add_to_registry(SERVICE);
    }

    /// Takes the service out of the machine, which is off, with its program.
    pub fn remove_service(&self) {
        std::fs::write(self.prefix.join("system.reg"), &self.registry).unwrap();
        std::fs::remove_file(self.base("hyper2kvm-firstboot.exe")).unwrap();
    }

    /// Gives the service these values, and no others.
    pub fn set_service(&self, values: &str) {
        let old = self.registry();
        let (before, after) = old.split_once(SERVICE).unwrap();
        let key = SERVICE.lines().find(|line| line.starts_with('[')).unwrap();
        let text = format!("{before}\n{key}\n{values}\n{after}");
        std::fs::write(self.prefix.join("system.reg"), text).unwrap();
    }

    /// Adds keys to the registry of the machine, which is off, in Wine's own text form.
    pub fn add_to_registry(&self, text: &str) {
        let old = self.registry();
        std::fs::write(self.prefix.join("system.reg"), format!("{old}{text}")).unwrap();
    }

    /// The registry of the machine, which is off.
    pub fn registry(&self) -> String {
        std::fs::read_to_string(self.prefix.join("system.reg")).unwrap()
    }

    /// Chooses the language of Windows, and with it the code pages.
    pub fn set_locale(&mut self, name: &'static str) {
        assert!(LOCALES.contains(&name));
        self.locale = name;
    }

    /// Makes `COM1` a terminal whose other end goes into a file, which is returned with the process that does that.
    pub fn link_serial_port(&self) -> Option<(PathBuf, Child)> {
        const COPY: &str = "import os, sys, tty\nmain, port = os.openpty()\ntty.setraw(port)\n\
            print(os.ttyname(port), flush=True)\nout = open(sys.argv[1], 'wb', 0)\n\
            while True: out.write(os.read(main, 100))";
        let python = support::program("python3")?;
        let file = self.drive().join("stub/com1.txt");
        let mut copy = Command::new(python).args(["-c", COPY]).arg(&file).stdout(Stdio::piped()).spawn().unwrap();
        let mut name = String::new();
        BufReader::new(copy.stdout.take().unwrap()).read_line(&mut name).unwrap();
        self.add_to_registry(&format!("\n[Software\\\\Wine\\\\Ports] 1700000000\n\"COM1\"=\"{}\"\n", name.trim()));
        Some((file, copy))
    }

    /// Takes a program of Windows away until the result is dropped.
    pub fn hide_program(&self, name: &str) -> Hidden {
        let (path, away) = (self.system_program(name), self.prefix.join(name));
        std::fs::rename(&path, &away).unwrap();
        Hidden { path, away }
    }

    /// The hardware address of a network adapter that Wine shows, as it is written in a job.
    pub fn hardware_address(&self) -> Option<String> {
        let adapters = std::fs::read_dir("/sys/class/net").unwrap().map(Result::unwrap);
        let addresses = adapters.map(|adapter| std::fs::read_to_string(adapter.path().join("address")).unwrap());
        let found = addresses.map(|text| text.trim().to_owned()).find(|text| text.len() == 17 && text != NO_ADDRESS);
        if found.is_none() {
            support::skip("this machine has no network adapter with a hardware address");
        }
        found
    }

    /// The command lines of running processes that contain a text.
    pub fn processes(&self, text: &str) -> Vec<String> {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains("pnputil") && line.contains(text)).collect()
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
    ///
    /// Wine ends when its last program that is not a service ends: a command interpreter waits for input meanwhile.
    pub fn boot(&self) {
        let mut wine = self.command("wine");
        wine.arg("cmd.exe").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let earlier = self.user.borrow_mut().replace(wine.spawn().unwrap());
        assert!(earlier.is_none(), "the machine is on already");
    }

    /// Runs a program of Wine and returns what it prints.
    pub fn run(&self, arguments: &[&str]) -> String {
        // a file and no pipe: Wine's server holds it open for longer
        let errors = self.prefix.join("last-run.txt");
        let output = self.command("wine").args(arguments).stderr(File::create(&errors).unwrap()).output().unwrap();
        let errors = String::from_utf8_lossy(&std::fs::read(&errors).unwrap()).into_owned();
        *self.last_run.borrow_mut() = format!("{arguments:?}: {}, standard error: {errors:?}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts the program as a person does, without the service manager.
    pub fn spawn(&self) -> Child {
        let mut wine = self.command("wine");
        wine.arg("C:\\hyper2kvm\\hyper2kvm-firstboot.exe").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Waits until the log contains a text.
    pub fn wait_for(&self, text: &str) {
        self.wait_until(text, |log| log.contains(text));
    }

    /// Waits until the log contains a text so many times.
    pub fn wait_for_count(&self, text: &str, count: usize) {
        self.wait_until(text, |log| log.matches(text).count() >= count);
    }

    /// Waits until the stand-ins were called so many times.
    pub fn wait_for_calls(&self, count: usize) {
        self.wait_until("calls", |_| self.calls().len() >= count);
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
        self.start_and_look(|| {});
    }

    /// Like [`start`](Self::start), with a look at the machine before it shuts down.
    pub fn start_and_look(&self, look: impl FnOnce()) {
        let before = self.log().len();
        self.boot();
        // the program holds the lock from before its first line to after its last
        self.wait_until("the end of the start", |log| log.len() > before && !self.base("firstboot.lock").exists());
        look();
        self.shut_down();
    }

    /// Ends Wine in order: the registry is written.
    pub fn shut_down(&self) {
        // the service's end has to reach the service manager before
        std::thread::sleep(POLL * 4);
        self.end("-k");
    }

    /// Ends Wine at once, as a power cut does.
    pub fn power_off(&self) {
        self.end("-k9");
    }

    fn end(&self, how: &str) {
        let _ = self.command("wineserver").arg(how).stderr(Stdio::null()).status();
        let _ = self.command("wineserver").arg("-w").stderr(Stdio::null()).status();
        if let Some(mut user) = self.user.borrow_mut().take() {
            let _ = user.kill();
            user.wait().unwrap();
        }
        // Without its server, a program that waits waits for ever. One that was about to start another is not seen once, and would
        // start a server of its own, whose open files the next start cannot have.
        let (begin, mut empty) = (Instant::now(), 0);
        while empty < 2 {
            let running = self.own_processes();
            empty = if running.is_empty() { empty + 1 } else { 0 };
            for process in &running {
                let _ = Command::new("kill").args(["-9", process]).stderr(Stdio::null()).status();
            }
            assert!(begin.elapsed() < PATIENCE, "Wine does not end: {running:?}");
            std::thread::sleep(POLL / 5);
        }
    }

    /// The numbers of the running processes of this machine.
    fn own_processes(&self) -> Vec<String> {
        let own = format!("WINEPREFIX={}", self.prefix.display()).into_bytes();
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let is_own = |process: &std::fs::DirEntry| {
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == own)
        };
        processes.filter(is_own).map(|process| process.file_name().into_string().unwrap()).collect()
    }

    /// Whether the service is in the registry, after the machine was shut down.
    pub fn has_service(&self) -> bool {
        self.registry().contains("Services\\\\hyper2kvm-firstboot]")
    }

    /// The result file.
    pub fn result(&self) -> Value {
        let text = std::fs::read_to_string(self.base("firstboot.json"))
            .unwrap_or_else(|e| panic!("firstboot.json: {e}; {}; the log:\n{}", self.last_run.borrow(), self.log()));
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

/// A program that is not where Windows has it.
pub struct Hidden {
    path: PathBuf,
    away: PathBuf,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        std::fs::rename(&self.away, &self.path).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}
