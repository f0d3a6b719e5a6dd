//! What foreign readers see in a hive.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nt_hive::{KeyNode, NtHiveError, NtHiveNameString};
use sha1::{Digest, Sha1};
use winject::internals::hive::reader::Reader;

use super::support::script;
use crate::support;

/// One line for each key and value, sorted: the form in which readers are compared.
pub type Listing = Vec<String>;

fn code(units: impl Iterator<Item = u16>) -> String {
    let mut text = String::new();
    units.flat_map(u16::to_le_bytes).for_each(|b| write!(text, "{b:02x}").unwrap());
    text
}

pub fn join(path: &str, name: &[u16]) -> String {
    format!("{path}/{}", code(name.iter().copied()))
}

pub fn key_line(path: &str) -> String {
    format!("K {path}")
}

pub fn value_line(path: &str, name: &[u16], kind: u32, data: &[u8]) -> String {
    let mut sum = String::new();
    Sha1::digest(data).iter().for_each(|b| write!(sum, "{b:02x}").unwrap());
    format!("V {path} {} {kind:x} {} {sum}", code(name.iter().copied()), data.len())
}

/// Through our own second reader.
pub fn our_reader(bytes: &[u8]) -> Listing {
    let reader = Reader::open(bytes).unwrap();
    let mut lines = Vec::new();
    let mut pending = vec![(String::new(), reader.root().unwrap())];
    while let Some((path, node)) = pending.pop() {
        lines.push(key_line(&path));
        for value in node.values().unwrap() {
            lines.push(value_line(&path, value.name.units(), value.data.kind.0, &value.data.bytes));
        }
        for child in node.subkeys().unwrap() {
            pending.push((join(&path, child.name().unwrap().units()), child));
        }
    }
    lines.sort();
    lines
}

/// Through the crate nt-hive.
pub fn nt_hive(bytes: &[u8]) -> Listing {
    let hive = nt_hive::Hive::new(bytes).unwrap();
    let mut lines = Vec::new();
    nt_hive_key(&hive.root_key_node().unwrap(), "", &mut lines);
    lines.sort();
    lines
}

fn nt_hive_name(name: &NtHiveNameString<'_>) -> Vec<u16> {
    match name {
        NtHiveNameString::Latin1(bytes) => bytes.iter().map(|&b| b.into()).collect(),
        NtHiveNameString::Utf16LE(bytes) => bytes.chunks_exact(2).map(|p| u16::from_le_bytes([p[0], p[1]])).collect(),
    }
}

fn nt_hive_key(key: &KeyNode<'_, &[u8]>, path: &str, lines: &mut Listing) {
    lines.push(key_line(path));
    for value in key.values().into_iter().flat_map(|values| values.unwrap()) {
        let value = value.unwrap();
        let kind = match value.data_type() {
            Ok(kind) => kind as u32,
            Err(NtHiveError::UnsupportedKeyValueDataType { actual, .. }) => actual,
            Err(error) => panic!("{error}"),
        };
        let data = value.data().unwrap().into_vec().unwrap();
        lines.push(value_line(path, &nt_hive_name(&value.name().unwrap()), kind, &data));
    }
    for child in key.subkeys().into_iter().flat_map(|keys| keys.unwrap()) {
        let child = child.unwrap();
        let path = join(path, &nt_hive_name(&child.name().unwrap()));
        nt_hive_key(&child, &path, lines);
    }
}

/// Runs a Python reader over hive files; `None` if it is not here.
pub fn python(reader: &str, hives: &[PathBuf]) -> Option<Vec<Listing>> {
    // hivex comes with the distribution's Python, the others with the judges' own.
    let python = if reader == "hivex" { PathBuf::from("/usr/bin/python3") } else { support::judge_python()? };
    if reader == "hivex"
        && !Command::new(&python).args(["-c", "import hivex"]).output().is_ok_and(|o| o.status.success())
    {
        support::skip("the Python module hivex is not installed");
        return None;
    }
    support::run(Command::new(python).arg(script("dump.py")).arg(reader).args(hives));
    let listing = |hive: &PathBuf| {
        let path = format!("{}.{reader}", hive.display());
        std::fs::read_to_string(Path::new(&path)).unwrap().lines().map(str::to_owned).collect()
    };
    Some(hives.iter().map(listing).collect())
}

/// Fails with the first line that differs.
pub fn assert_same(what: &str, expected: &[String], found: &[String]) {
    if expected != found {
        let at = expected.iter().zip(found).position(|(a, b)| a != b).unwrap_or(expected.len().min(found.len()));
        panic!("{what}: line {at}: expected {:?}, found {:?}", expected.get(at), found.get(at));
    }
}
