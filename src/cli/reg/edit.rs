//! The `reg` commands that change a hive.

use std::path::Path;

use super::args::{Delete, Import, Set};
use super::file::open_reg;
use super::json::EditAnswer;
use super::show::readable;
use super::target::{Changed, edit, import as import_file};
use crate::cli::{Ui, environment};
use crate::error::{Error, Kind, Layer, Result};
use crate::exit::ExitCode;
use crate::hex;
use crate::hive::reg_file::{self, ImportChange, KeyPath};
use crate::hive::{Hive, KeyId, RegistryData, ValueType};

/// Prints what was changed, line by line, and the outcome for the target.
fn show_change(
    target: &Path,
    changed: &Changed,
    is_changed: bool,
    changes: &[String],
    what: &str,
    ui: &Ui,
) -> Result<ExitCode> {
    let is_dry_run = changed.is_dry_run();
    // An answer in JSON has the name of the target in any case.
    let written = changed.written_file(target).display().to_string();
    let target = target.display().to_string();
    let changes = if is_changed { changes } else { &[] };
    if ui.is_json() {
        let answer = EditAnswer { target, changed: is_changed, dry_run: is_dry_run, what, changes };
        ui.json_answer("reg-edit", &answer)?;
        return Ok(ExitCode::Done);
    }
    changes.iter().for_each(|line| ui.done(line));
    ui.done(&match (is_changed, is_dry_run) {
        (false, false) if written != target => format!("{target}: unchanged; written to {written} as it is"),
        (false, _) => format!("{target}: unchanged"),
        (true, false) => format!("{written}: {what}"),
        (true, true) => format!("{written}: {what}; a dry run, nothing was written"),
    });
    Ok(ExitCode::Done)
}

/// A value as a line of what was changed: its data before and after.
fn value_change(name: &str, old: Option<&RegistryData>, new: Option<&RegistryData>) -> String {
    let name = if name.is_empty() { "(default)" } else { name };
    let shown = |data: Option<&RegistryData>| match data {
        Some(data) => format!("{} {}", data.kind, readable(data)),
        None => "(no value)".to_owned(),
    };
    format!("    {name}: {} → {}", shown(old), shown(new))
}

pub(super) fn import(args: &Import, ui: &Ui) -> Result<ExitCode> {
    args.changed.refuse_as_output(&args.file)?;
    let places = (&args.image, &args.changed);
    // A file can change very much: people get a summary of what was written.
    let is_listed = ui.is_json() || args.changed.is_dry_run() || ui.verbosity() > 0;
    let mut listed = ChangeList::default();
    let mut see = |path: &KeyPath, change: ImportChange<'_>| {
        if is_listed {
            listed.add(path, change);
        }
    };
    let file = &mut open_reg(&args.file)?;
    let imported = import_file(&args.target, file, &args.prefix.path(), places, ui, &mut see);
    let (is_changed, applied) = imported.map_err(|e| match e.kind() {
        Kind::Usage if args.file == Path::new("-") => e.path("standard input"),
        Kind::Usage => e.path(args.file.display().to_string()),
        _ => e,
    })?;
    show_change(&args.target, &args.changed, is_changed, &listed.lines, &applied.to_string(), ui)
}

/// What an import changed, as lines: each key once for the changes of it that follow each other.
#[derive(Default)]
struct ChangeList {
    lines: Vec<String>,
    key: Option<KeyPath>,
}

impl ChangeList {
    fn add(&mut self, path: &KeyPath, change: ImportChange<'_>) {
        match change {
            ImportChange::KeyCreated => self.lines.push(format!("{path}: created")),
            ImportChange::KeyDeleted => self.lines.push(format!("{path}: deleted, with everything below it")),
            ImportChange::Value { name, old, new } => {
                if self.key.as_ref() != Some(path) {
                    self.lines.push(path.to_string());
                }
                self.lines.push(value_change(&name.to_string(), old, new));
            }
        }
        self.key = Some(path.clone()).filter(|_| change != ImportChange::KeyDeleted);
    }
}

pub(super) fn set(args: &Set, ui: &Ui) -> Result<ExitCode> {
    let data = new_value(args)?;
    let now = environment::clock()?;
    let places = (&args.image, &args.changed);
    let mut lines = Vec::new();
    let is_changed = edit(&args.target, &args.key, &args.prefix.path(), places, ui, &mut |hive, path, prefix| {
        let is_new = path.find(hive)?.is_none();
        let key = path.names().iter().try_fold(hive.root(), |key, name| hive.create_subkey(key, name, now))?;
        let shown = prefix.concat(path);
        lines.push(if is_new { format!("{shown}: created") } else { shown.to_string() });
        if let Some((name, data)) = &data {
            let old = hive.value(key, name)?;
            if hive.set_value(key, name, data, now)? {
                lines.push(value_change(name, old.as_ref(), Some(data)));
            }
        }
        Ok(())
    })?;
    show_change(&args.target, &args.changed, is_changed, &lines, "set", ui)
}

/// The value that is to be set, if one is named, and its data.
fn new_value(args: &Set) -> Result<Option<(&str, RegistryData)>> {
    if let Some(name) = args.value.get() {
        return Ok(Some((name, parse_data(args.kind.as_deref().unwrap_or("sz"), &args.data)?)));
    }
    let given = [(!args.data.is_empty(), "--data"), (args.kind.is_some(), "--type")];
    match given.into_iter().find(|(is_given, _)| *is_given) {
        Some((_, option)) => {
            let error = Error::new(Kind::Usage, Layer::Cli, format!("{option} has no effect: no value given"));
            Err(error.hint("name the value with --value NAME or --default"))
        }
        None => Ok(None),
    }
}

pub(super) fn delete(args: &Delete, ui: &Ui) -> Result<ExitCode> {
    let now = environment::clock()?;
    let places = (&args.image, &args.changed);
    let mut lines = Vec::new();
    let is_changed = edit(&args.target, &args.key, &args.prefix.path(), places, ui, &mut |hive, path, prefix| {
        let Some(key) = path.find(hive)? else { return Ok(()) };
        let shown = prefix.concat(path);
        let Some(name) = args.value.get() else {
            let (keys, values) = count_below(hive, key, path)?;
            lines.push(format!("{shown}: deleted, with {keys} keys below it and {values} values"));
            return hive.delete_key(key, now);
        };
        let old = hive.value(key, name)?;
        if hive.delete_value(key, name, now)? {
            lines.extend([shown.to_string(), value_change(name, old.as_ref(), None)]);
        }
        Ok(())
    })?;
    if lines.is_empty() {
        ui.note(if args.value.get().is_some() { "no such value" } else { "no such key" });
    }
    show_change(&args.target, &args.changed, is_changed, &lines, "deleted", ui)
}

/// How many keys are below `key`, and how many values it and they have.
fn count_below(hive: &Hive, key: KeyId, path: &KeyPath) -> Result<(usize, usize)> {
    let (mut keys, mut values) = (0_usize, 0_usize);
    reg_file::walk(hive, key, path, &mut |key, _| {
        keys = keys.saturating_add(1);
        hive.each_value(key, &mut |_| {
            values = values.saturating_add(1);
            Ok(())
        })
    })?;
    Ok((keys.saturating_sub(1), values))
}

/// The data of `--type` and `--data`.
fn parse_data(kind: &str, given: &[String]) -> Result<RegistryData> {
    let wrong = |what: String| Err(Error::new(Kind::Usage, Layer::Cli, what).hint("see winject reg set --help"));
    let kind = kind.to_ascii_lowercase();
    let kind = kind.strip_prefix("reg_").unwrap_or(&kind);
    if given.is_empty() && kind != "none" {
        let error = Error::new(Kind::Usage, Layer::Cli, "cannot set the value: no data given");
        return Err(error.hint("add --data DATA (--data '' for empty data)"));
    }
    if kind == "multi_sz" {
        // An empty text would end the list: alone it stands for an empty one.
        return Ok(RegistryData::multi_sz(if given == [""] { &[] } else { given }));
    }
    if given.len() > 1 {
        return wrong("only multi_sz takes --data more than once".into());
    }
    let text = given.first().map_or("", String::as_str);
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match kind {
        "sz" => Ok(RegistryData::sz(text)),
        "expand_sz" => Ok(RegistryData::expand_sz(text)),
        "dword" => match number(text).and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Ok(RegistryData::dword(n)),
            None => wrong(format!("not a 32-bit number: {text:?}")),
        },
        "qword" => match number(text) {
            Some(n) => Ok(RegistryData::qword(n)),
            None => wrong(format!("not a 64-bit number: {text:?}")),
        },
        _ => {
            let named = [("none", ValueType::NONE), ("binary", ValueType::BINARY)];
            let named = named.iter().find(|(name, _)| *name == kind).map(|(_, kind)| *kind);
            let numbered = number(kind).and_then(|n| u32::try_from(n).ok()).map(ValueType);
            let Some(kind) = named.or(numbered) else { return wrong(format!("not a type: {kind:?}")) };
            match parse_hex(text) {
                Some(bytes) => Ok(RegistryData { kind, bytes }),
                None => wrong(format!("not pairs of hexadecimal digits: {text:?}")),
            }
        }
    }
}

/// Pairs of hexadecimal digits; blanks and commas between them do not count.
fn parse_hex(text: &str) -> Option<Vec<u8>> {
    hex::decode(&text.replace(|c: char| c.is_whitespace() || c == ',', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(kind: &str, texts: &[&str]) -> Option<RegistryData> {
        parse_data(kind, &texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()).ok()
    }

    #[test]
    fn types_and_data() {
        assert_eq!(given("multi_sz", &[""]), Some(RegistryData::multi_sz::<&str>(&[])));
        assert_eq!(given("binary", &[""]), Some(RegistryData::binary([])));
        assert_eq!(given("REG_SZ", &["a"]), Some(RegistryData::sz("a")));
        assert_eq!(given("dword", &["0x10"]), Some(RegistryData::dword(16)));
        assert_eq!(given("qword", &["5000000000"]), Some(RegistryData::qword(5_000_000_000)));
        assert_eq!(given("multi_sz", &["a", "b"]), Some(RegistryData::multi_sz(&["a", "b"])));
        assert_eq!(given("binary", &["01 ff,2A"]), Some(RegistryData::binary([1, 255, 42])));
        assert_eq!(given("none", &[]), Some(RegistryData::none()));
        assert_eq!(given("0xffff0012", &["00"]), Some(RegistryData { kind: ValueType(0xFFFF_0012), bytes: vec![0] }));
        for (kind, texts) in
            [("dword", vec!["x"]), ("sz", vec!["a", "b"]), ("binary", vec!["123"]), ("what", vec!["1"]), ("sz", vec![])]
        {
            assert_eq!(given(kind, &texts), None, "{kind}");
        }
    }
}
