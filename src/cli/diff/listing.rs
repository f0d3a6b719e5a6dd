//! The differences as a list for people.

use std::fmt::Write as _;

use crate::cli::Ui;
use crate::cli::look::attribute_letters;
use crate::escape::EscapedLines;
use crate::hive::reg_file::KeyPath;
use crate::hive::{Name, RegistryData};
use crate::job::diff::{Aspect, Change, Compared, Difference, FileDifference, VolumeDifference};
use crate::job::look::{Details, NodeKind};
use crate::partition::Content;

/// Characters of a value's data that are shown.
const DATA_MAX: usize = 200;

/// Bytes of a listing that are printed at once.
const PRINTED_AT_ONCE: usize = 64 << 10;

/// A listing while it is being printed.
pub(super) struct Listing<'u> {
    ui: &'u Ui,
    /// What is not printed yet.
    text: String,
    /// The partition, or the registry, and the key under which the last line stands.
    partition: Option<u32>,
    is_in_registry: bool,
    key: Option<KeyPath>,
}

impl<'u> Listing<'u> {
    pub(super) fn new(ui: &'u Ui) -> Self {
        Self { ui, text: String::new(), partition: None, is_in_registry: false, key: None }
    }

    pub(super) fn add(&mut self, difference: &Difference<'_>) {
        let mut out = EscapedLines::new(std::mem::take(&mut self.text));
        let is_of_registry = matches!(difference, Difference::Key { .. } | Difference::Value { .. });
        // Writing to a String cannot fail.
        if is_of_registry && !std::mem::replace(&mut self.is_in_registry, true) {
            let _ = writeln!(out, "registry:");
        }
        let _ = match difference {
            Difference::Volume(volume) => write_volume(&mut out, volume),
            Difference::File(file) => self.write_file(&mut out, file),
            Difference::Key { change, key } => {
                self.key = Some((*key).clone());
                writeln!(out, "{} [{key}]", mark(*change))
            }
            Difference::Value { key, name, old, new } => self.write_value(&mut out, key, name, [*old, *new]),
        };
        self.text = out.into_inner();
        if self.text.len() >= PRINTED_AT_ONCE {
            self.print();
        }
    }

    /// Prints the rest, and what came of the comparison.
    pub(super) fn finish(mut self, compared: &Compared) {
        self.print();
        self.ui.done(&summary(compared));
    }

    fn print(&mut self) {
        self.ui.answer_part(&std::mem::take(&mut self.text));
    }

    fn write_file(&mut self, out: &mut EscapedLines<String>, file: &FileDifference) -> std::fmt::Result {
        if self.partition != Some(file.partition) {
            self.partition = Some(file.partition);
            writeln!(out, "partition {}:", file.partition)?;
        }
        let details = file.new.as_ref().or(file.old.as_ref());
        let end = if details.is_some_and(|details| details.kind == NodeKind::Folder) { "/" } else { "" };
        write!(out, "{} {}{end}", mark(file.change), file.path)?;
        match (&file.old, &file.new) {
            (Some(old), Some(new)) => {
                let texts: Vec<String> = file.differs.iter().map(|aspect| describe(*aspect, old, new)).collect();
                write!(out, ": {}", texts.join(", "))?;
            }
            (Some(only), None) | (None, Some(only)) if only.kind == NodeKind::File => {
                write!(out, ", {} bytes", only.size)?
            }
            _ => {}
        }
        writeln!(out)
    }

    fn write_value(
        &mut self,
        out: &mut EscapedLines<String>,
        key: &KeyPath,
        name: &Name,
        data: [Option<&RegistryData>; 2],
    ) -> std::fmt::Result {
        if self.key.as_ref() != Some(key) {
            self.key = Some(key.clone());
            writeln!(out, "  [{key}]")?;
        }
        let name = if name.is_empty() { "(default)".to_owned() } else { name.to_string() };
        match data {
            [Some(old), Some(new)] => {
                writeln!(out, "~   {name}: {} → {}", readable(old), readable(new))
            }
            [Some(old), None] => writeln!(out, "-   {name}: {}", readable(old)),
            [None, Some(new)] => writeln!(out, "+   {name}: {}", readable(new)),
            [None, None] => Ok(()),
        }
    }
}

fn write_volume(out: &mut EscapedLines<String>, volume: &VolumeDifference) -> std::fmt::Result {
    let name = |content: Option<Content>| content.map_or_else(|| "none".to_owned(), |content| content.to_string());
    writeln!(out, "~ partition {}: {} → {}, not compared", volume.partition, name(volume.old), name(volume.new))
}

fn mark(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
    }
}

fn describe(aspect: Aspect, old: &Details, new: &Details) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    match aspect {
        Aspect::Kind => format!("{} → {}", kind(old.kind), kind(new.kind)),
        Aspect::Name => "case of the name".to_owned(),
        Aspect::Size => format!("{} → {} bytes", old.size, new.size),
        Aspect::Content => "content".to_owned(),
        Aspect::Streams => "alternate data streams".to_owned(),
        Aspect::Target => format!("link to {} → {}", text(&old.target), text(&new.target)),
        Aspect::Reparse => "data of the reparse point".to_owned(),
        Aspect::ExtendedAttributes => "extended attributes".to_owned(),
        Aspect::ObjectId => "object id".to_owned(),
        Aspect::Attributes => {
            format!("attributes {} → {}", attribute_letters(old.attributes), attribute_letters(new.attributes))
        }
        Aspect::Modified => format!("modified {} → {}", text(&old.modified), text(&new.modified)),
    }
}

fn kind(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Folder => "folder",
        NodeKind::File => "file",
        NodeKind::Link => "link",
    }
}

fn readable(data: &RegistryData) -> String {
    let text = data.to_string();
    match text.char_indices().nth(DATA_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", text.get(..end).unwrap_or_default(), data.bytes.len()),
        None => text,
    }
}

/// What was compared, and what came of it.
fn summary(compared: &Compared) -> String {
    let list = |numbers: &[u32]| {
        let word = if numbers.len() == 1 { "partition" } else { "partitions" };
        format!("{word} {}", numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
    };
    // What was not read may differ.
    let verdict = match (compared.is_same(), &compared.unread) {
        (false, _) => "Different",
        (true, None) => "The same",
        (true, Some(_)) => "No difference found, but not all could be read",
    };
    let mut text = verdict.to_owned();
    let counts = [
        (compared.volumes, "volume"),
        (compared.files, "file or folder"),
        (compared.keys, "registry key"),
        (compared.values, "registry value"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| match (*count, *word) {
            (1, word) => format!("1 {word}"),
            (count, "file or folder") => format!("{count} files and folders"),
            (count, word) => format!("{count} {word}s"),
        })
        .collect();
    if !counts.is_empty() {
        text += &format!(": {}", counts.join(", "));
    }
    let mut scope = Vec::new();
    if !compared.partitions.is_empty() {
        scope.push(format!("the files of {}", list(&compared.partitions)));
    }
    if !compared.registries.is_empty() {
        scope.push(format!("the registry of {}", list(&compared.registries)));
    }
    text += &format!(" (compared: {}", if scope.is_empty() { "nothing".to_owned() } else { scope.join(", ") });
    if !compared.not_compared.is_empty() {
        let numbers: Vec<u32> = compared.not_compared.iter().map(|other| other.partition).collect();
        text += &format!("; not compared: {}", list(&numbers));
    }
    text + ")"
}
