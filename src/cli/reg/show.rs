//! The commands that only read.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;

use super::Answer;
use super::file::{read, sources};
use super::target::{Image, Opened};
use crate::cli::{Ui, signals};
use crate::error::{Error, Layer, Result};
use crate::escape::{EscapedLines, escape};
use crate::exit::ExitCode;
use crate::hive::check::{Severity, check as check_hive};
use crate::hive::reg::{self, Document, KeyPath};
use crate::hive::{Hive, KeyId, Value, ValueType};
use crate::host_file::{RunFiles, Target, TextOutput};

/// Bytes of data that a listing shows of a value.
const SHOWN: usize = 64;

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
        files.add_output(OUTPUT, output)?;
        TextOutput::create(Target::resolve(output, OUTPUT)?, &read, self.overwrite, &signals::cancel()).map(Some)
    }
}

pub(super) fn query(args: &super::Query, ui: &Ui) -> Result<ExitCode> {
    let output = args.answer.open(&[&args.target], &args.image)?;
    let file = Opened::open(&args.target, &args.key, args.prefix.path(), &args.image, ui)?;
    let key = file.key()?;
    let mut text = EscapedLines::new(String::new());
    if let Some(name) = args.value.get() {
        let Some(value) = file.hive.value(key, name)? else {
            ui.note("the key has no such value");
            return Ok(ExitCode::No);
        };
        line(&mut text, &value);
    } else {
        list(&mut text, &file.hive, key, file.prefix.concat(&file.path), args.recursive)?;
    }
    let text = text.into_inner();
    match output {
        Some(output) => write_all(output, text.as_bytes())?,
        None => ui.answer(&text),
    }
    Ok(ExitCode::Done)
}

fn list(text: &mut EscapedLines<String>, hive: &Hive, key: KeyId, path: KeyPath, recursive: bool) -> Result<()> {
    let mut pending = vec![(key, path)];
    let mut left = hive.file_size() / 80;
    while let Some((key, path)) = pending.pop() {
        let _ = writeln!(text, "{path}");
        for value in hive.values(key)? {
            line(text, &value);
        }
        let mut children = Vec::new();
        for child in hive.subkeys(key)? {
            // Every key is met once in a sound hive.
            let looped = || Error::damaged(Layer::Hive, "the keys of the hive form a loop");
            left = left.checked_sub(1).ok_or_else(looped)?;
            children.push((child, path.join(hive.key_name(child)?)));
        }
        let _ = writeln!(text);
        if recursive {
            pending.extend(children.into_iter().rev());
        } else {
            for (_, path) in &children {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{path}");
            }
        }
    }
    Ok(())
}

fn line(text: &mut EscapedLines<String>, value: &Value) {
    let name = if value.name.is_empty() { "(default)".to_owned() } else { value.name.to_string() };
    let _ = writeln!(text, "    {name}    {}    {}", value.kind, data(value));
}

fn data(value: &Value) -> String {
    if let Some(number) = value.as_u32() {
        return format!("{number:#x}");
    }
    if let Some(number) = value.as_u64() {
        return format!("{number:#x}");
    }
    if let Some(text) = value.as_str() {
        return text;
    }
    if let Some(texts) = value.as_multi_str().filter(|_| value.kind == ValueType::MULTI_SZ) {
        return texts.join("\\0");
    }
    let mut text = String::new();
    for byte in value.data.iter().take(SHOWN) {
        let _ = write!(text, "{byte:02X}");
    }
    if value.data.len() > SHOWN {
        let _ = write!(text, "… ({} bytes)", value.data.len());
    }
    text
}

fn write_all(mut output: TextOutput, bytes: &[u8]) -> Result<()> {
    output.write(bytes)?;
    output.finish()
}

pub(super) fn export(args: &super::Export, ui: &Ui) -> Result<ExitCode> {
    let output = args.answer.open(&[&args.target], &args.image)?;
    let file = Opened::open(&args.target, &args.key, args.prefix.path(), &args.image, ui)?;
    let document = reg::export(&file.hive, file.key()?, &file.path)?;
    write(&document, &file.prefix, args.utf8, output, ui)?;
    Ok(ExitCode::Done)
}

pub(super) fn diff(args: &super::Diff, ui: &Ui) -> Result<ExitCode> {
    let output = args.answer.open(&[&args.old, &args.new], &args.image)?;
    let open = |target| Opened::open(target, &args.key, args.prefix.path(), &args.image, ui);
    let (old, new) = (open(&args.old)?, open(&args.new)?);
    let document = reg::diff((&old.hive, old.key()?), (&new.hive, new.key()?), &new.path)?;
    write(&document, &new.prefix, args.utf8, output, ui)?;
    Ok(ExitCode::Done)
}

fn write(document: &Document, prefix: &KeyPath, utf8: bool, output: Option<TextOutput>, ui: &Ui) -> Result<()> {
    let bytes = if utf8 { document.to_text(prefix)?.into_bytes() } else { document.to_bytes(prefix)? };
    if output.is_none() && !utf8 && std::io::stdout().is_terminal() {
        // UTF-16 is for files; a person gets the same as text.
        let units: Vec<u16> = bytes.chunks_exact(2).skip(1).map(|p| u16::from_le_bytes([p[0], p[1]])).collect();
        ui.answer(&String::from_utf16_lossy(&units).replace("\r\n", "\n"));
        return Ok(());
    }
    match output {
        Some(output) => write_all(output, &bytes),
        None => ui.raw(&bytes),
    }
}

pub(super) fn check(args: &super::Check, ui: &Ui) -> Result<ExitCode> {
    let faults = check_hive(&read(&args.hive)?);
    let worst = faults.iter().map(|f| f.severity()).max();
    let clean = worst.is_none() || (worst == Some(Severity::Warning) && !args.strict);
    if args.json {
        let report = serde_json::json!({ "hive": args.hive.display().to_string(), "clean": clean, "faults": faults });
        ui.json(&report)?;
    } else {
        for fault in &faults {
            let word = if fault.severity() == Severity::Error { "fault" } else { "oddity" };
            ui.answer(&escape(&format!("{word} {fault}")));
        }
        let (errors, count) = (faults.iter().filter(|f| f.severity() == Severity::Error).count(), faults.len());
        ui.done(&match count {
            0 => "the hive is clean".to_owned(),
            _ => format!("{errors} faults, {} oddities that Windows tolerates", count - errors),
        });
    }
    Ok(if clean { ExitCode::Done } else { ExitCode::No })
}
