//! Runs of a program under strace: what they change, and faults in their system calls.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::virtual_host::Op;

/// System calls that create, change, rename or remove files, or make changes durable.
pub const CALLS: &str = "openat,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,ftruncate,fallocate,\
    rename,renameat,renameat2,unlink,unlinkat,link,linkat,copy_file_range,sendfile,mkdir,mkdirat,fchmod,fchown";

/// A system call of a recorded run.
#[derive(Debug)]
pub struct Call {
    thread: u32,
    name: String,
    /// As strace prints them: strings in quotes, files as `7<path>`, every byte of them as `\xNN`.
    arguments: Vec<String>,
    result: String,
}

/// The `number`th system call of a name on a thread, counted from 1, as strace counts where it injects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub call: String,
    pub number: usize,
}

/// The command that records a run in the file `log`.
pub fn recording(log: &Path) -> Vec<String> {
    let log = log.to_str().unwrap();
    let trace = format!("trace={CALLS}");
    ["strace", "-f", "-qq", "-y", "-xx", "-s", "16777216", "-o", log, "-e", &trace].map(Into::into).into()
}

/// The command that does something (`signal=KILL`, `error=EIO`) at a system call; `and_later` also at those after it.
pub fn injecting(point: &Point, what: &str, and_later: bool) -> Vec<String> {
    let Point { call, number } = point;
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:{what}:when={number}{}", if and_later { "+" } else { "" });
    ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(Into::into).into()
}

/// Reads the record of a run.
///
/// # Errors
/// A line that cannot be understood.
pub fn parse(log: &str) -> Result<Vec<Call>, String> {
    let mut calls = Vec::new();
    let mut unfinished: BTreeMap<u32, String> = BTreeMap::new();
    for line in log.lines() {
        let line = line.trim_end();
        let (thread, rest) = line.split_once(' ').ok_or(line)?;
        let (thread, rest) = (thread.parse().map_err(|_| line)?, rest.trim_start());
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, begin.to_owned());
            continue;
        }
        let whole = match rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, end)) => unfinished.remove(&thread).ok_or(line)? + end,
            None => rest.to_owned(),
        };
        let (name, rest) = whole.split_once('(').ok_or(line)?;
        let (arguments, result) = rest.rsplit_once(" = ").ok_or(line)?;
        let arguments = arguments.trim_end().strip_suffix(')').ok_or(line)?;
        calls.push(Call {
            thread,
            name: name.to_owned(),
            arguments: arguments.split(", ").map(|text| text.trim().to_owned()).collect(),
            result: result.split(' ').next().unwrap_or_default().to_owned(),
        });
    }
    Ok(calls)
}

impl Call {
    /// Whether it changes files, or makes changes durable. Standard output and error do not count.
    fn is_mutating(&self) -> bool {
        match self.name.as_str() {
            "openat" => self.arguments.iter().any(|flags| flags.contains("O_CREAT") || flags.contains("O_TRUNC")),
            "write" | "writev" => self.descriptor().is_some_and(|number| number > 2),
            _ => true,
        }
    }

    fn descriptor(&self) -> Option<u32> {
        self.arguments.first()?.split('<').next()?.parse().ok()
    }

    fn has_failed(&self) -> bool {
        self.result.starts_with('-') || self.result.starts_with('?')
    }

    /// The path of the file that an argument names by an open descriptor or by a string.
    fn path(&self, argument: usize, folder: &Path) -> Result<PathBuf, String> {
        let text = self.arguments.get(argument).map_or("", String::as_str);
        let inner = match text.split_once('<') {
            Some((_, path)) => path.strip_suffix('>'),
            None => text.strip_prefix('"').and_then(|text| text.strip_suffix('"')),
        };
        let bytes = unescape(inner.ok_or_else(|| format!("not a path: {text}"))?)?;
        Ok(folder.join(PathBuf::from(std::ffi::OsString::from_vec(bytes))))
    }

    fn number(&self, argument: usize) -> Result<u64, String> {
        let text = self.arguments.get(argument).map_or("", String::as_str);
        text.parse().map_err(|_| format!("not a number in {}: {text}", self.name))
    }

    /// The range of a write to a file in `folder`.
    pub fn written(&self, folder: &Path) -> Option<(u64, u64)> {
        let is_write = self.name == "pwrite64" && self.path(0, folder).is_ok_and(|path| path.starts_with(folder));
        (is_write && !self.has_failed()).then(|| Some((self.number(3).ok()?, self.number(2).ok()?)))?
    }

    /// What it does to the files in `folder`, whose paths become relative to it.
    ///
    /// # Errors
    /// A system call whose effect is not modelled.
    fn ops(&self, folder: &Path) -> Result<Option<Op>, String> {
        if self.has_failed() || !self.is_mutating() {
            return Ok(None);
        }
        let inside = |path: PathBuf| path.strip_prefix(folder).ok().map(Path::to_owned);
        let file = |argument| self.path(argument, folder).map(inside);
        Ok(match self.name.as_str() {
            // Its result is the new file, with its path.
            "openat" => match self.arguments.iter().any(|flags| flags.contains("O_EXCL")) {
                true => file(1)?.map(Op::Create),
                false => match file(1)? {
                    Some(path) => return Err(format!("{} is opened with O_CREAT, but not O_EXCL", path.display())),
                    None => None,
                },
            },
            "pwrite64" => match file(0)? {
                Some(path) => Some(Op::Write(path, self.number(3)?, self.data(1)?)),
                None => None,
            },
            // What was a folder then is one still.
            "fsync" | "fdatasync" => {
                let op =
                    |path: PathBuf| if folder.join(&path).is_dir() { Op::SyncFolder(path) } else { Op::Flush(path) };
                file(0)?.map(op)
            }
            "mkdir" => file(0)?.map(Op::CreateFolder),
            "mkdirat" => file(1)?.map(Op::CreateFolder),
            "ftruncate" => match file(0)? {
                Some(path) => Some(Op::SetLen(path, self.number(1)?)),
                None => None,
            },
            "fallocate" => match file(0)? {
                Some(path) => {
                    let is_hole = self.arguments.get(1).is_some_and(|mode| mode.contains("PUNCH_HOLE"));
                    let (offset, length) = (self.number(2)?, self.number(3)?);
                    Some(if is_hole { Op::Punch(path, offset, length) } else { Op::Reserve(path, offset, length) })
                }
                None => None,
            },
            "rename" => file(0)?.zip(file(1)?).map(|(from, to)| Op::Rename(from, to)),
            "renameat" | "renameat2" => file(1)?.zip(file(3)?).map(|(from, to)| Op::Rename(from, to)),
            "unlink" => file(0)?.map(Op::Remove),
            "unlinkat" => file(1)?.map(Op::Remove),
            // Permissions do not matter here.
            "fchmod" | "fchown" => None,
            other => return Err(format!("what {other} does is not modelled")),
        })
    }

    /// The bytes of a string argument, as many as were written.
    fn data(&self, argument: usize) -> Result<Vec<u8>, String> {
        let text = self.arguments.get(argument).and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
        let mut bytes = unescape(text.ok_or("a write without all of its data")?)?;
        bytes.truncate(self.result.parse().map_err(|_| "a write without a result")?);
        Ok(bytes)
    }
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16));
    digits.collect::<Result<_, _>>().map_err(|error| format!("cannot read the escaped text {text:.80}: {error}"))
}

/// All places where a fault can be injected into such a run.
pub fn points(calls: &[Call]) -> Vec<Point> {
    let mut counts: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    let mut points = BTreeSet::new();
    for call in calls {
        let count = counts.entry((call.thread, &call.name)).or_default();
        *count += 1;
        if call.is_mutating() {
            points.insert(Point { call: call.name.clone(), number: *count });
        }
    }
    points.into_iter().collect()
}

/// What a run did to the files in `folder`.
///
/// # Errors
/// A system call whose effect is not modelled.
pub fn ops(calls: &[Call], folder: &Path) -> Result<Vec<Op>, String> {
    calls.iter().filter_map(|call| call.ops(folder).transpose()).collect()
}
