//! Arguments of the `reg` commands.

use std::path::PathBuf;

use clap::builder::PossibleValue;

use super::target;
use crate::cli::words::{named, suggestions, words};
use crate::hive::reg_file::KeyPath;
use crate::job::HiveName;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[command(defer = true)]
pub(super) enum Command {
    /// Show a key, its values and the names of its subkeys
    Query(Query),
    /// Write a key and everything below it as a .reg file (UTF-16)
    Export(Export),
    /// Make the changes that a .reg file asks for
    ///
    /// A hive file is changed in place unless --output names a new file; an image needs a destination.
    Import(Import),
    /// Print the differences between two hives as a .reg file (exit code 1 if there are any)
    Diff(Diff),
    /// Create a key, or set a value
    ///
    /// A hive file is changed in place unless --output names a new file; an image needs a destination.
    Set(Set),
    /// Delete a key and everything below it, or a value
    ///
    /// A hive file is changed in place unless --output names a new file; an image needs a destination.
    Delete(Delete),
    /// Check a hive, or those of an image, against every rule of the format (exit code 1 if one is broken)
    Check(Check),
}

// Which part of the keys in a .reg file stands for the root of a hive file.
#[derive(Debug, clap::Args)]
pub(super) struct Prefix {
    /// Let this path stand for the root of the hive file in keys and .reg files, such as HKEY_LOCAL_MACHINE\SYSTEM
    #[arg(long, value_name = "KEY", default_value = "")]
    prefix: String,
}

impl Prefix {
    pub(super) fn path(&self) -> KeyPath {
        KeyPath::from(self.prefix.as_str())
    }
}

// Where an answer goes.
#[derive(Debug, clap::Args)]
pub(super) struct Answer {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Replace an output file that exists
    #[arg(long, requires = "output")]
    pub(super) overwrite: bool,
}

// Which value of a key is meant.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct ValueName {
    /// Use the value with this name
    #[arg(long, value_name = "NAME")]
    value: Option<String>,
    /// Use the key's default value
    #[arg(long)]
    default: bool,
}

impl ValueName {
    pub(super) fn get(&self) -> Option<&str> {
        if self.default { Some("") } else { self.value.as_deref() }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Query {
    /// Hive file or image
    pub(super) target: PathBuf,
    /// Key, such as HKLM\SYSTEM\Select or SYSTEM\Select; in a hive file also a path from its root
    pub(super) key: String,
    #[command(flatten)]
    pub(super) value: ValueName,
    #[command(flatten)]
    pub(super) prefix: Prefix,
    #[command(flatten)]
    pub(super) image: target::Image,
    /// Show everything below the key, too
    #[arg(short, long, conflicts_with_all = ["value", "default"])]
    pub(super) recursive: bool,
    #[command(flatten)]
    pub(super) answer: Answer,
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Hive file or image
    pub(super) target: PathBuf,
    /// Key, such as HKLM\SYSTEM\Select or SYSTEM\Select; in a hive file also a path from its root
    pub(super) key: String,
    #[command(flatten)]
    pub(super) prefix: Prefix,
    #[command(flatten)]
    pub(super) image: target::Image,
    /// Write UTF-8 instead of UTF-16, in the form that `hivexregedit --merge` takes
    #[arg(long)]
    pub(super) utf8: bool,
    #[command(flatten)]
    pub(super) answer: Answer,
}

#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// Hive file or image
    pub(super) target: PathBuf,
    /// The .reg file to import; - stands for standard input
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) prefix: Prefix,
    #[command(flatten)]
    pub(super) image: target::Image,
    #[command(flatten)]
    pub(super) changed: target::Changed,
}

#[derive(Debug, clap::Args)]
pub(super) struct Diff {
    /// Hive file or image before the change
    pub(super) old: PathBuf,
    /// Hive file or image after the change
    pub(super) new: PathBuf,
    /// Compare only this key and what is below it
    #[arg(default_value = "\\")]
    pub(super) key: String,
    #[command(flatten)]
    pub(super) prefix: Prefix,
    #[command(flatten)]
    pub(super) image: target::Image,
    /// Write UTF-8 instead of UTF-16, in the form that `hivexregedit --merge` takes
    #[arg(long)]
    pub(super) utf8: bool,
    #[command(flatten)]
    pub(super) answer: Answer,
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// Hive file or image
    pub(super) target: PathBuf,
    /// Key, such as HKLM\SYSTEM\Select or SYSTEM\Select; missing keys on the way are created
    pub(super) key: String,
    #[command(flatten)]
    pub(super) value: ValueName,
    /// Set the value's type: sz, expand_sz, multi_sz, dword, qword, binary, none, or a number [default: sz]
    #[arg(long = "type", value_name = "TYPE", value_parser = suggestions(|| named(&TYPES)), hide_possible_values = true)]
    pub(super) kind: Option<String>,
    /// Set this data: text, a number (0x for hexadecimal), or hexadecimal digits, as the type asks; repeat it for multi_sz, leave it out only for none
    #[arg(long, value_name = "DATA", allow_hyphen_values = true)]
    pub(super) data: Vec<String>,
    #[command(flatten)]
    pub(super) prefix: Prefix,
    #[command(flatten)]
    pub(super) image: target::Image,
    #[command(flatten)]
    pub(super) changed: target::Changed,
}

#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    /// Hive file or image
    pub(super) target: PathBuf,
    /// Key, such as HKLM\SYSTEM\Select or SYSTEM\Select; in a hive file also a path from its root
    pub(super) key: String,
    #[command(flatten)]
    pub(super) value: ValueName,
    #[command(flatten)]
    pub(super) prefix: Prefix,
    #[command(flatten)]
    pub(super) image: target::Image,
    #[command(flatten)]
    pub(super) changed: target::Changed,
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Hive file, or image whose hives in System32\config are checked
    pub(super) target: PathBuf,
    /// Check only this hive of an image, such as SYSTEM
    #[arg(long, value_name = "NAME", value_parser = words(parse_hive, hives), hide_possible_values = true)]
    pub(super) hive: Option<HiveName>,
    #[command(flatten)]
    pub(super) image: target::Image,
    /// Count as faults what Windows never writes, but tolerates
    #[arg(long)]
    pub(super) strict: bool,
}

/// Names of the types of values.
const TYPES: [&str; 7] = ["sz", "expand_sz", "multi_sz", "dword", "qword", "binary", "none"];

fn hives() -> Vec<PossibleValue> {
    HiveName::all().map(|hive| PossibleValue::new(hive.file())).collect()
}

/// Parses the name of a hive of `System32\config`, in any case.
fn parse_hive(name: &str) -> std::result::Result<HiveName, String> {
    HiveName::of_file(name).ok_or_else(|| {
        let names: Vec<&str> = HiveName::all().map(HiveName::file).collect();
        format!("use one of {}", names.join(", "))
    })
}
