//! The job file: what the host wants done, one line for each step, fields separated by tabs.
//!
//! A file that is not exactly as agreed is refused as a whole, before anything runs: half a job is worse than none.

use alloc::string::String;
use alloc::vec::Vec;

/// Largest job file, in bytes.
pub const BYTES_MAX: usize = 1 << 20;
/// Most lines of a job file.
pub const LINES_MAX: usize = 4096;
/// Longest wait or time limit, in seconds.
const SECONDS_MAX: u32 = 86_400;
/// Most tries after the first.
const RETRIES_MAX: u32 = 100;
/// Most pauses after which failed packages are tried again.
const PAUSES_MAX: usize = 10;
/// Most exit codes in one list.
const CODES_MAX: usize = 64;
/// What the names of invented registry records begin with; nothing else is ever removed.
const INVENTED: &str = "h2k-";

/// How this Windows' `pnputil` is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `/add-driver INF /install`
    AddDriver,
    /// `-i -a INF`
    Legacy,
}

/// The driver packages to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Whether the job is only done when this one is installed.
    pub required: bool,
    /// Time limit.
    pub seconds: u32,
    /// Path of the INF below the staging folder.
    pub inf: String,
}

/// Invented registry records that are removed once a real package has taken their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Name under `DriverInfFiles`, and of the values under `DeviceIds`.
    pub inf: String,
    /// Name under `DriverPackages`.
    pub package: String,
    /// The service that the records lead to.
    pub service: String,
}

/// Settings for the adapter with one hardware address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The hardware address.
    pub mac: [u8; 6],
    /// The same as text.
    pub mac_text: String,
    /// How long to wait for the adapter.
    pub seconds: u32,
    /// The former connection's name, for the log.
    pub name: String,
    /// Arguments of `netsh`, with `{index}`, `{index6}` and `{name}` in them.
    pub commands: Vec<String>,
}

impl Network {
    /// What the log and the result call it.
    #[must_use]
    pub fn title(&self) -> &str {
        if self.name.is_empty() { &self.mac_text } else { &self.name }
    }
}

/// A command of the user or of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Whether the job is only done when this one succeeds.
    pub required: bool,
    /// What the log and the result call it.
    pub name: String,
    /// Time limit of each try.
    pub seconds: u32,
    /// Exit codes that mean success.
    pub ok_codes: Vec<i32>,
    /// Exit codes that mean "try again later".
    pub retry_codes: Vec<i32>,
    /// How often it is tried again.
    pub retries: u32,
    /// Seconds between two tries.
    pub pause: u32,
    /// The command line, with `%VARIABLES%` in it.
    pub line: String,
}

/// One step, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait until Windows has no device to install, at most so many seconds.
    WaitPnp(u32),
    /// Install one package.
    Package(Package),
    /// Never install this INF, by its path below the staging folder: another than an administrator can have put it there
    /// before the folder was protected.
    Refused(String),
    /// Install the packages that an administrator has put there, each with this time limit.
    Others(u32),
    /// Look for changed hardware.
    Scan,
    /// Remove invented records.
    Release(Release),
    /// Configure an adapter.
    Network(Network),
    /// Run a command.
    Run(Command),
}

/// A job file that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Attempts that may end with a failed required step.
    pub attempts_max: u32,
    /// Attempts that may begin.
    pub begun_max: u32,
    /// How `pnputil` is called; there are no packages without it.
    pub pnputil: Option<Dialect>,
    /// Seconds to wait before required packages that failed are tried again, once for each number.
    pub repeat: Vec<u32>,
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// Whether Windows may be restarted when a step asks for it.
    pub may_restart: bool,
    /// The port for the line at the end.
    pub serial: Option<String>,
}

/// Why a job file is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Number of the line, from 1; 0 for the file as a whole.
    pub line: u32,
    /// The reason.
    pub reason: &'static str,
}

/// Reads a job file.
///
/// # Errors
/// When it is too large, not UTF-8 with CR LF, or has a line that is not in the format.
pub fn parse(data: &[u8]) -> Result<Job, Refused> {
    let file = |reason| Refused { line: 0, reason };
    if data.len() > BYTES_MAX {
        return Err(file("larger than 1 MiB"));
    }
    let text = core::str::from_utf8(data).map_err(|_| file("not UTF-8"))?;
    let body = text.strip_suffix("\r\n").ok_or(file("the last line does not end with CR LF"))?;
    let mut parser = Parser::default();
    let mut number = 0;
    for line in body.split("\r\n") {
        number += 1;
        let refused = |reason| Refused { line: number, reason };
        if number as usize > LINES_MAX {
            return Err(refused("more than 4,096 lines"));
        }
        if line.contains(['\r', '\n', '\0']) {
            return Err(refused("a control character in a field"));
        }
        let fields: Vec<&str> = line.split('\t').collect();
        if number == 1 {
            if fields != ["winject-firstboot", "1"] {
                return Err(refused("not a job file of version 1"));
            }
            continue;
        }
        parser.read_line(&fields).map_err(refused)?;
    }
    parser.finish().map_err(file)
}

#[derive(Default)]
struct Parser {
    attempts: Option<(u32, u32)>,
    pnputil: Option<Dialect>,
    repeat: Option<Vec<u32>>,
    reboot: Option<bool>,
    serial: Option<String>,
    steps: Vec<Step>,
}

type Read<T> = Result<T, &'static str>;

impl Parser {
    fn read_line(&mut self, fields: &[&str]) -> Read<()> {
        match *fields {
            ["attempts", max, begun] => set(&mut self.attempts, (number(max, 1000)?, number(begun, 1000)?)),
            ["pnputil", "add-driver"] => set(&mut self.pnputil, Dialect::AddDriver),
            ["pnputil", "legacy"] => set(&mut self.pnputil, Dialect::Legacy),
            ["repeat", pauses] => set(&mut self.repeat, read_pauses(pauses)?),
            ["reboot", "never"] => set(&mut self.reboot, false),
            ["reboot", "if-needed"] => set(&mut self.reboot, true),
            ["serial", port] => set(&mut self.serial, read_port(port)?),
            ["wait-pnp", limit] => self.add(Step::WaitPnp(seconds(limit)?)),
            ["package", required, limit, inf] => self.add(Step::Package(Package {
                required: is_required(required)?,
                seconds: seconds(limit)?,
                inf: read_inf_path(inf)?,
            })),
            ["refused", inf] => self.add(Step::Refused(read_inf_path(inf)?)),
            ["others", limit] => self.add(Step::Others(seconds(limit)?)),
            ["scan"] => self.add(Step::Scan),
            ["release", inf, package, service] => self.add(Step::Release(Release {
                inf: read_invented(inf)?,
                package: read_invented(package)?,
                service: read_key_name(service)?,
            })),
            ["network", mac, limit, name] => self.add(Step::Network(Network {
                mac: read_mac(mac)?,
                mac_text: mac.into(),
                seconds: seconds(limit)?,
                name: name.into(),
                commands: Vec::new(),
            })),
            ["netsh", arguments] => self.add_netsh(arguments),
            ["run", required, name, limit, ok, retry, retries, pause, line] => self.add(Step::Run(Command {
                required: is_required(required)?,
                name: filled(name)?.into(),
                seconds: seconds(limit)?,
                ok_codes: read_codes(ok)?,
                retry_codes: read_codes(retry)?,
                retries: number(retries, RETRIES_MAX)?,
                pause: number(pause, SECONDS_MAX)?,
                line: filled(line)?.into(),
            })),
            _ => Err("an unknown word, or a wrong number of fields"),
        }
    }

    fn add(&mut self, step: Step) -> Read<()> {
        self.steps.push(step);
        Ok(())
    }

    fn add_netsh(&mut self, arguments: &str) -> Read<()> {
        let Some(Step::Network(network)) = self.steps.last_mut() else {
            return Err("netsh without the network that it belongs to");
        };
        network.commands.push(filled(arguments)?.into());
        Ok(())
    }

    fn finish(self) -> Read<Job> {
        let (attempts_max, begun_max) = self.attempts.ok_or("no line \"attempts\"")?;
        if attempts_max == 0 || begun_max == 0 {
            return Err("no attempt is allowed");
        }
        let needs_pnputil = |step: &Step| matches!(step, Step::Package(_) | Step::Others(_) | Step::Scan);
        if self.pnputil.is_none() && self.steps.iter().any(needs_pnputil) {
            return Err("packages without a line \"pnputil\"");
        }
        Ok(Job {
            attempts_max,
            begun_max,
            pnputil: self.pnputil,
            repeat: self.repeat.unwrap_or_default(),
            steps: self.steps,
            may_restart: self.reboot.unwrap_or(false),
            serial: self.serial,
        })
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> Read<()> {
    if place.is_some() {
        return Err("a setting that was made before");
    }
    *place = Some(value);
    Ok(())
}

fn filled(text: &str) -> Read<&str> {
    if text.is_empty() { Err("an empty field") } else { Ok(text) }
}

fn number(text: &str, max: u32) -> Read<u32> {
    // `parse` takes a plus sign
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not a number");
    }
    let value: u32 = text.parse().map_err(|_| "not a number")?;
    if value > max { Err("a number out of range") } else { Ok(value) }
}

fn seconds(text: &str) -> Read<u32> {
    match number(text, SECONDS_MAX)? {
        0 => Err("a number out of range"),
        seconds => Ok(seconds),
    }
}

fn is_required(word: &str) -> Read<bool> {
    match word {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err("neither required nor optional"),
    }
}

fn read_codes(text: &str) -> Read<Vec<i32>> {
    if text == "-" {
        return Ok(Vec::new());
    }
    let mut codes = Vec::new();
    for code in text.split(',') {
        if codes.len() == CODES_MAX {
            return Err("too many exit codes");
        }
        // 0x80070643 is written 2147944003 or -2147023293
        let unsigned = code.parse::<u32>().map(u32::cast_signed);
        codes.push(unsigned.or_else(|_| code.parse::<i32>()).map_err(|_| "not an exit code")?);
    }
    Ok(codes)
}

fn read_pauses(text: &str) -> Read<Vec<u32>> {
    if text == "-" {
        return Ok(Vec::new());
    }
    let mut pauses = Vec::new();
    for pause in text.split(',') {
        if pauses.len() == PAUSES_MAX {
            return Err("too many pauses");
        }
        pauses.push(number(pause, SECONDS_MAX)?);
    }
    Ok(pauses)
}

/// A path below the staging folder that cannot lead out of it.
fn read_inf_path(path: &str) -> Read<String> {
    if path.contains(['/', ':', '"', '<', '>', '|', '?', '*']) || path.chars().any(char::is_control) {
        return Err("a character that a path cannot have");
    }
    let is_name = |name: &str| !name.is_empty() && !name.ends_with(['.', ' ']);
    if !path.split('\\').all(is_name) {
        return Err("not a path below the staging folder");
    }
    match path.char_indices().rev().nth(3).and_then(|(at, _)| path.get(at..)) {
        Some(end) if end.eq_ignore_ascii_case(".inf") => Ok(path.into()),
        _ => Err("not the path of an INF"),
    }
}

/// The name of a registry key below another.
fn read_key_name(name: &str) -> Read<String> {
    if name.contains(['\\', '/']) || name.len() > 255 { Err("not the name of a key") } else { Ok(filled(name)?.into()) }
}

fn read_invented(name: &str) -> Read<String> {
    if !name.starts_with(INVENTED) {
        return Err("not an invented record (h2k-)");
    }
    read_key_name(name)
}

fn read_mac(text: &str) -> Read<[u8; 6]> {
    let mut mac = [0; 6];
    let mut groups = text.split(':');
    for byte in &mut mac {
        let group = groups.next().unwrap_or_default();
        if group.len() != 2 || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("not a hardware address");
        }
        *byte = u8::from_str_radix(group, 16).map_err(|_| "not a hardware address")?;
    }
    if groups.next().is_some() { Err("not a hardware address") } else { Ok(mac) }
}

fn read_port(text: &str) -> Read<String> {
    match text.as_bytes() {
        [b'C', b'O', b'M', b'1'..=b'9'] => Ok(text.into()),
        _ => Err("not a serial port"),
    }
}

#[cfg(test)]
mod tests;
