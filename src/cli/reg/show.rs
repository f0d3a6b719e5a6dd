//! The `reg` commands that only read.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;

use serde::Serialize;

use super::args::{Answer, Check, Diff, Export, Query};
use super::file::{is_hive, is_hive_or_damaged, read};
use super::json::{self, refuse_for_reg_file};
use super::target::{Image, OpenedKey, sources};
use crate::cli::{Ui, explain, signals};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::{EscapedLines, escape, shell_argument};
use crate::exit::ExitCode;
use crate::hex;
use crate::hive::check::{Fault, Severity, check as check_hive};
use crate::hive::reg_file::{self, KeyPath, RegSink, Writer};
use crate::hive::{Hive, KeyId, Name, RegistryData, RegistryValue};
use crate::host::{RunFiles, Target, TextOutput};
use crate::job::{CheckedHive, check_hives};

/// Bytes of data that a listing shows of a value.
const SHOWN: usize = 64;

/// Bytes of a listing that are printed at once.
const PRINTED_AT_ONCE: usize = 64 << 10;

/// What an answer is called in messages.
const OUTPUT: &str = "the output";

impl Answer {
    /// The file that the answer goes to, if it is to be a file; `targets` are the hives and images that are read.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) for a file that must not be written.
    fn open(&self, targets: &[&Path], image: &Image) -> Result<Option<TextOutput>> {
        let Some(output) = &self.output else { return Ok(None) };
        let mut files = RunFiles::default();
        let mut read = Vec::new();
        for target in targets {
            files.add_input("the input", target);
            read.extend(sources(target, image)?);
        }
        read.iter().for_each(|file| files.add_input("a file that the input needs", file));
        image.bitlocker.inputs().for_each(|file| files.add_input("a key file of this run", file));
        files.add_output(OUTPUT, output)?;
        TextOutput::create(Target::resolve(output, OUTPUT)?, &read, self.overwrite, &signals::cancel()).map(Some)
    }
}

pub(super) fn query(args: &Query, ui: &Ui) -> Result<ExitCode> {
    let output = args.answer.open(&[&args.target], &args.image)?;
    let file = OpenedKey::open(&args.target, &args.key, args.prefix.path(), &args.image, ui)?;
    let key = file.key()?;
    if ui.is_json() {
        if output.is_some() {
            return Err(Error::new(Kind::Usage, Layer::Cli, "cannot write the JSON answer to a file")
                .hint("leave --output out: --json prints to standard output"));
        }
        json::query(&args.target, &file, key, args.value.get(), args.recursive, ui)?;
        return Ok(ExitCode::Done);
    }
    if let Some(name) = args.value.get() {
        let value = file.value(key, name)?;
        let mut text = String::new();
        write_value(&mut text, &value);
        print(output, ui, &mut |put| put(&text))?;
        return Ok(ExitCode::Done);
    }
    print(output, ui, &mut |put| write_listing(put, &file.hive, key, file.full_path(), args.recursive))?;
    Ok(ExitCode::Done)
}

/// Receives a text in pieces.
type Put<'a> = &'a mut dyn FnMut(&str) -> Result<()>;

/// Prints whole lines as they are being made, or writes them to a file.
fn print(output: Option<TextOutput>, ui: &Ui, make: &mut dyn FnMut(Put<'_>) -> Result<()>) -> Result<()> {
    let Some(mut output) = output else {
        return make(&mut |text| {
            ui.answer(text);
            Ok(())
        });
    };
    make(&mut |text| output.write(text.as_bytes()))?;
    output.finish()
}

fn write_listing(put: Put<'_>, hive: &Hive, key: KeyId, path: KeyPath, recursive: bool) -> Result<()> {
    let mut text = String::new();
    let mut pass_on = |text: &mut String, at_least: usize| {
        if text.len() > at_least {
            put(text)?;
            text.clear();
        }
        Ok(())
    };
    let mut show = |text: &mut String, key: KeyId, path: &KeyPath| {
        // Writing to a String cannot fail.
        let _ = writeln!(EscapedLines::new(&mut *text), "{path}");
        hive.each_value(key, &mut |value| {
            write_value(text, &value);
            pass_on(text, PRINTED_AT_ONCE)
        })?;
        text.push('\n');
        pass_on(text, PRINTED_AT_ONCE)
    };
    if recursive {
        reg_file::walk(hive, key, &path, &mut |key, path| show(&mut text, key, path))?;
    } else {
        show(&mut text, key, &path)?;
        for child in hive.subkeys(key)? {
            let _ = writeln!(EscapedLines::new(&mut text), "{}", path.join(hive.key_name(child)?));
            pass_on(&mut text, PRINTED_AT_ONCE)?;
        }
    }
    pass_on(&mut text, 0)
}

fn write_value(text: &mut String, value: &RegistryValue) {
    let name = if value.name.is_empty() { "(default)".to_owned() } else { value.name.to_string() };
    let _ = writeln!(EscapedLines::new(text), "    {name}    {}    {}", value.data.kind, readable(&value.data));
}

/// The data of a value, of long bytes the first [`SHOWN`].
pub(super) fn readable(data: &RegistryData) -> String {
    if let Some(number) = data.as_u32() {
        return format!("{number:#x}");
    }
    if let Some(number) = data.as_u64() {
        return format!("{number:#x}");
    }
    if let Some(text) = data.as_text() {
        return text;
    }
    if let Some(texts) = data.as_texts() {
        return texts.join("\\0");
    }
    let text = hex::encode_upper(data.bytes.get(..SHOWN).unwrap_or(&data.bytes));
    if data.bytes.len() > SHOWN { format!("{text}… ({} bytes)", data.bytes.len()) } else { text }
}

pub(super) fn export(args: &Export, ui: &Ui) -> Result<ExitCode> {
    refuse_for_reg_file(ui)?;
    let output = args.answer.open(&[&args.target], &args.image)?;
    let file = OpenedKey::open(&args.target, &args.key, args.prefix.path(), &args.image, ui)?;
    let key = file.key()?;
    write_reg(Some(&file.prefix), args.utf8, output, ui, &mut |sink| {
        reg_file::export_to(&file.hive, key, &file.path, sink)
    })?;
    Ok(ExitCode::Done)
}

pub(super) fn diff(args: &Diff, ui: &Ui) -> Result<ExitCode> {
    refuse_for_reg_file(ui)?;
    if KeyPath::from(args.key.as_str()).names().is_empty() && !(is_hive(&args.old)? && is_hive(&args.new)?) {
        return Err(hive_not_named(args));
    }
    let output = args.answer.open(&[&args.old, &args.new], &args.image)?;
    let open = |target| OpenedKey::open(target, &args.key, args.prefix.path(), &args.image, ui);
    let (old, new) = (open(&args.old)?, open(&args.new)?);
    let keys = (old.key()?, new.key()?);
    let mut is_different = false;
    write_reg(Some(&new.prefix), args.utf8, output, ui, &mut |sink| {
        let mut sink = NotingSink { sink, is_different: &mut is_different };
        reg_file::diff_to((&old.hive, keys.0), (&new.hive, keys.1), &new.path, &mut sink)
    })?;
    Ok(if is_different { ExitCode::No } else { ExitCode::Done })
}

/// Passes differences on, and notes whether there are any.
struct NotingSink<'a> {
    sink: &'a mut dyn RegSink,
    is_different: &'a mut bool,
}

impl RegSink for NotingSink<'_> {
    fn key(&mut self, path: &KeyPath, delete: bool) -> Result<()> {
        *self.is_different = true;
        self.sink.key(path, delete)
    }

    fn value(&mut self, name: &Name, data: Option<&RegistryData>) -> Result<()> {
        *self.is_different = true;
        self.sink.value(name, data)
    }
}

/// An image holds several hives, of which one is compared.
fn hive_not_named(args: &Diff) -> Error {
    let (old, new) = (shell_argument(&args.old, "OLD"), shell_argument(&args.new, "NEW"));
    let hint = format!(
        r"name the hive: winject reg diff {old} {new} 'HKLM\SYSTEM'; all hives of two images: winject diff {old} {new} --reg"
    );
    Error::new(Kind::Usage, Layer::Cli, "cannot compare the registry of an image: no key given")
        .path(args.new.display().to_string())
        .hint(hint)
}

/// Writes a `.reg` file as `make` makes it: to a file, all or nothing, or to standard output. `prefix` stands for the root of
/// the hive; `None`: `make` gives full paths.
///
/// # Errors
/// Those of `make`, and when the output cannot be written.
pub(in super::super) fn write_reg(
    prefix: Option<&KeyPath>,
    utf8: bool,
    output: Option<TextOutput>,
    ui: &Ui,
    make: &mut dyn FnMut(&mut dyn RegSink) -> Result<()>,
) -> Result<()> {
    let none = KeyPath::default();
    let (root, has_full_paths) = (prefix.unwrap_or(&none), prefix.is_none());
    if output.is_none() && std::io::stdout().is_terminal() {
        // UTF-16 is for files; a person gets the same as text, in which no name begins a line or steers the terminal.
        let mut put = |units: &[u16]| {
            ui.answer_part(&String::from_utf16_lossy(units).replace("\r\n", "\n"));
            Ok(())
        };
        let mut writer = Writer::new(root, utf8, &mut put).with_full_paths(has_full_paths).shown();
        make(&mut writer)?;
        return writer.finish();
    }
    let mut encode = |put: &mut dyn FnMut(&[u8]) -> Result<()>| {
        if !utf8 {
            put(&[0xFF, 0xFE])?;
        }
        let mut bytes = Vec::new();
        let mut put = |units: &[u16]| {
            bytes.clear();
            if utf8 {
                bytes.extend_from_slice(String::from_utf16_lossy(units).as_bytes());
            } else {
                bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
            }
            put(&bytes)
        };
        let mut writer = Writer::new(root, utf8, &mut put).with_full_paths(has_full_paths);
        make(&mut writer)?;
        writer.finish()
    };
    let Some(mut output) = output else { return encode(&mut |bytes| ui.raw(bytes)) };
    encode(&mut |bytes| output.write(bytes))?;
    output.finish()
}

/// The answer of `check` in JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct CheckAnswer<'a> {
    /// Path of the hive, or of the image whose hives were checked, as it was given.
    hive: String,
    /// Whether it keeps every rule; with `--strict` also those that Windows itself never breaks.
    clean: bool,
    /// What was found.
    faults: &'a [Fault],
}

pub(super) fn check(args: &Check, ui: &Ui) -> Result<ExitCode> {
    let is_hive = is_hive_or_damaged(&args.target)?;
    args.image.refuse_ineffective(&args.target, is_hive, &KeyPath::default())?;
    let (faults, count) = if is_hive {
        if args.hive.is_some() {
            let error = Error::new(Kind::Usage, Layer::Cli, "--hive has no effect on a hive file: it is for an image");
            return Err(error.hint("leave it out"));
        }
        (check_hive(&read(&args.target)?), 1)
    } else {
        let (hives, warning) = check_hives(&args.image.request(&args.target)?, args.hive)?;
        warning.iter().for_each(|warning| ui.warn(warning));
        let count = hives.len();
        let faults = hives.into_iter().flat_map(|CheckedHive { path, faults }| {
            faults.into_iter().map(move |fault| fault.within(&path)).collect::<Vec<_>>()
        });
        (faults.collect::<Vec<_>>(), count)
    };
    let worst = faults.iter().map(|f| f.severity()).max();
    let clean = worst.is_none() || (worst == Some(Severity::Warning) && !args.strict);
    if ui.is_json() {
        let hive = args.target.display().to_string();
        ui.json_answer("reg-check", &CheckAnswer { hive, clean, faults: &faults })?;
    } else {
        for fault in &faults {
            let word = if fault.severity() == Severity::Error { "fault" } else { "oddity" };
            ui.answer(&escape(&format!("{word} {fault}")));
        }
        let errors = faults.iter().filter(|fault| fault.severity() == Severity::Error).count();
        ui.done(&match (faults.len(), count) {
            (0, 1) => "the hive is clean".to_owned(),
            (0, _) => format!("{count} hives are clean"),
            (all, _) => format!("{errors} faults, {} oddities that Windows tolerates", all.saturating_sub(errors)),
        });
        if let Some(fault) = faults.first() {
            explain::note_codes(fault.code().name(), ui);
        }
    }
    Ok(if clean { ExitCode::Done } else { ExitCode::No })
}
