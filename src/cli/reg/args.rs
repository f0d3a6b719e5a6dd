//! `winject reg`: registry hives, in a file or in an image.

mod edit;
mod file;
mod show;
mod target;

use std::path::PathBuf;

use super::Ui;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::hive::reg::KeyPath;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[command(defer = true)]
enum Command {
    /// Shows a key, its values and the names of its subkeys
    Query(Query),
    /// Writes a key with everything below it as a .reg file (UTF-16)
    Export(Export),
    /// Prints as .reg file what leads from one hive to another
    Diff(Diff),
    /// Creates a key, or sets a value
    Set(Set),
    /// Deletes a key with everything below it, or a value
    Delete(Delete),
    /// Checks a hive against every rule of the format (exit code 1 if it breaks one)
    Check(Check),
    // The last one, because code is laid out in this order: what an import needs stands together, on few pages.
    /// Makes the changes that a .reg file asks for
    #[command(display_order = 1)]
    Import(Import),
}

// Which part of the keys in a .reg file stands for the root of a hive file.
#[derive(Debug, clap::Args)]
struct Prefix {
    /// The part of the keys in .reg files that stands for the root of a hive file, such as `HKEY_LOCAL_MACHINE\SYSTEM`
    #[arg(long, value_name = "KEY", default_value = "")]
    prefix: String,
}

impl Prefix {
    fn path(&self) -> KeyPath {
        KeyPath::from(self.prefix.as_str())
    }
}

// Where an answer goes.
#[derive(Debug, clap::Args)]
struct Answer {
    /// Writes to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replaces the output file if it exists
    #[arg(long, requires = "output")]
    overwrite: bool,
}

// Which value of a key is meant.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct ValueName {
    /// The value's name
    #[arg(long, value_name = "NAME")]
    value: Option<String>,
    /// The key's default value
    #[arg(long)]
    default: bool,
}

impl ValueName {
    fn get(&self) -> Option<&str> {
        if self.default { Some("") } else { self.value.as_deref() }
    }
}

#[derive(Debug, clap::Args)]
struct Query {
    /// Hive file or image
    target: PathBuf,
    /// The key
    key: String,
    #[command(flatten)]
    value: ValueName,
    #[command(flatten)]
    prefix: Prefix,
    #[command(flatten)]
    image: target::Image,
    /// Shows everything below the key too
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    answer: Answer,
}

#[derive(Debug, clap::Args)]
struct Export {
    /// Hive file or image
    target: PathBuf,
    /// The key
    key: String,
    #[command(flatten)]
    prefix: Prefix,
    #[command(flatten)]
    image: target::Image,
    /// Writes UTF-8 instead of UTF-16, in the form that `hivexregedit --merge` takes
    #[arg(long)]
    utf8: bool,
    #[command(flatten)]
    answer: Answer,
}

#[derive(Debug, clap::Args)]
struct Import {
    /// Hive file or image
    target: PathBuf,
    /// The .reg file
    file: PathBuf,
    #[command(flatten)]
    prefix: Prefix,
    #[command(flatten)]
    image: target::Image,
    #[command(flatten)]
    changed: target::Changed,
}

#[derive(Debug, clap::Args)]
struct Diff {
    /// The hive before
    old: PathBuf,
    /// The hive after
    new: PathBuf,
    /// Compares only this key and what is below it
    #[arg(default_value = "\\")]
    key: String,
    #[command(flatten)]
    prefix: Prefix,
    #[command(flatten)]
    image: target::Image,
    /// Writes UTF-8 instead of UTF-16, in the form that `hivexregedit --merge` takes
    #[arg(long)]
    utf8: bool,
    #[command(flatten)]
    answer: Answer,
}

#[derive(Debug, clap::Args)]
struct Set {
    /// Hive file or image
    target: PathBuf,
    /// The key; what is missing of it is created
    key: String,
    #[command(flatten)]
    value: ValueName,
    #[command(flatten)]
    prefix: Prefix,
    #[command(flatten)]
    image: target::Image,
    #[command(flatten)]
    changed: target::Changed,
    /// The value's type: sz, expand_sz, multi_sz, dword, qword, binary, none, or a number
    #[arg(long = "type", value_name = "TYPE", default_value = "sz")]
    kind: String,
    /// The data: text; a number (0x for hexadecimal); hexadecimal digits. For multi_sz repeat the option
    #[arg(long, value_name = "DATA")]
    data: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Delete {
    /// Hive file or image
    target: PathBuf,
    /// The key
    key: String,
    #[command(flatten)]
    value: ValueName,
    #[command(flatten)]
    prefix: Prefix,
    #[command(flatten)]
    image: target::Image,
    #[command(flatten)]
    changed: target::Changed,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// Hive file
    hive: PathBuf,
    /// Takes what Windows tolerates, but never writes, for a fault too
    #[arg(long)]
    strict: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What the hive, its files or the arguments are refused for.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    match args.command {
        Command::Query(args) => show::query(&args, ui),
        Command::Export(args) => show::export(&args, ui),
        Command::Diff(args) => show::diff(&args, ui),
        Command::Check(args) => show::check(&args, ui),
        Command::Set(args) => edit::set(&args, ui),
        Command::Delete(args) => edit::delete(&args, ui),
        Command::Import(args) => edit::import(&args, ui),
    }
}
