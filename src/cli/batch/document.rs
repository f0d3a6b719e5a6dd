//! The document of a batch: the keys of the document of one image, and in addition `job`, `images` and `defaults`.
//!
//! A key stands for the option of its name. The options become the worker's command line, which runs in the folder of the
//! document, so that paths mean the same as in the document of one image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Arg, ArgAction, Command};

use super::args::{BatchArgs, Limit, ShardArg, parse_grace, parse_shards, parse_size};
use super::asked::Asked;
use super::gather::Entry;
use super::job::JobKind;
use super::worker_args::{Given, job_command};
use crate::cli::document::key_names;
use crate::cli::numbers::parse_threads;
use crate::error::{Error, Kind, Layer, Result};
use crate::host::{self, folder_of};
use crate::yaml::{Document, Entry as Line, Field, Map, Value, nearest};

/// The largest document that is read, in bytes.
const BYTES_MAX: u64 = 16 << 20;

/// Keys of the document itself.
const OWN_KEYS: [&str; 11] = [
    "job",
    "images",
    "defaults",
    "jobs",
    "memory",
    "per_device",
    "max_failures",
    "grace",
    "shard",
    "shard_count",
    "results",
];

/// Keys of an entry below `images` itself.
const ENTRY_KEYS: [&str; 4] = ["id", "image", "vmdk", "disks"];

/// Options of which one excludes the others: one of an image replaces that of the defaults.
const DESTINATIONS: [&str; 3] = ["in_place", "overlay", "output"];

/// Options by their ids, in the order in which they were given first.
#[derive(Debug, Clone, Default)]
struct Options(Vec<(String, Vec<Given>)>);

impl Options {
    fn set(&mut self, id: &str, given: Vec<Given>) {
        let is_destination = DESTINATIONS.contains(&id) && !given.is_empty();
        self.0.retain(|(other, _)| other != id && !(is_destination && DESTINATIONS.contains(&other.as_str())));
        self.0.push((id.to_owned(), given));
    }

    fn has(&self, id: &str) -> bool {
        self.0.iter().any(|(other, given)| other == id && !given.is_empty())
    }

    fn into_given(self) -> Vec<Given> {
        self.0.into_iter().flat_map(|(_, given)| given).collect()
    }
}

/// The batch that a document describes; options of the command line in `typed` win.
///
/// # Errors
/// [`Kind::Io`] when the document cannot be read; [`Kind::Usage`] with file and line for everything that cannot be done.
pub(super) fn ask(path: &Path, typed: BatchArgs) -> Result<Asked> {
    let name = path.display().to_string();
    let bytes = host::read(path, BYTES_MAX).map_err(|error| {
        error
            .into_error("the document", path, Layer::Cli)
            .hint("winject batch takes a job and images, or a YAML document")
    })?;
    let hint = "winject batch takes a job and images, or a YAML document in UTF-8";
    let text = Document::new(&name, Layer::Cli).text_of(bytes, "the document", hint)?;
    let folder = folder_of(path).canonicalize().unwrap_or_else(|_| folder_of(path).to_owned());
    parse(&text, &name, &folder, typed)
}

fn parse(text: &str, name: &str, folder: &Path, typed: BatchArgs) -> Result<Asked> {
    let mut document = Document::new(name, Layer::Cli).in_folder(folder).ignoring_case();
    let hint = "it should be lines of the form `key: value`, with `job:` and a list `images:`";
    let map = document.parse(text, "the document of a batch", hint)?;
    let find = |key: &str| map.0.iter().find(|line| normal(&line.key) == key);
    let job = match find("job") {
        None => {
            return Err(Error::new(Kind::Usage, Layer::Cli, "no job given")
                .path(name)
                .hint("add a line `job: inject` (or inspect, check, convert)"));
        }
        Some(line) => {
            let field = Field::new(line, &mut document);
            let text = field.text()?;
            JobKind::from_name(&text).ok_or_else(|| {
                field.error(format_args!("{text:?} is unknown"), "write one of: inspect, check, inject, convert")
            })?
        }
    };
    let command = job_command(job);
    let mut batch = BatchArgs::default();
    let mut options = Options::default();
    // Keys at the top are defaults, too.
    let defaults = match find("defaults").map(|line| (&line.value, line.line)) {
        None | Some((Value::Null, _)) => None,
        Some((Value::Map(map), _)) => Some(map),
        Some((_, line)) => {
            let hint = "write \"key: value\" lines, indented, below it";
            return Err(document.error(line, "`defaults`: a mapping is expected", hint));
        }
    };
    for line in map.0.iter().chain(defaults.iter().flat_map(|map| &map.0)) {
        match normal(&line.key).as_str() {
            "job" | "images" | "defaults" => {}
            key if OWN_KEYS.contains(&key) => read_own(&mut batch, key, &Field::new(line, &mut document))?,
            _ => read_option(&mut options, &command, line, &mut document, &OWN_KEYS)?,
        }
    }
    let Some(images) = find("images") else {
        return Err(Error::new(Kind::Usage, Layer::Cli, "no images given")
            .path(name)
            .hint("add a list `images:` of paths, patterns, or entries with `image:`"));
    };
    let entries = entries(images, &options, &command, &mut document)?;
    Ok(Asked {
        job,
        folder: Some(folder.to_owned()),
        entries,
        batch: merge(typed, batch),
        warnings: document.into_warnings(),
    })
}

/// What was typed wins over the document.
fn merge(typed: BatchArgs, written: BatchArgs) -> BatchArgs {
    BatchArgs {
        jobs: typed.jobs.or(written.jobs),
        memory: typed.memory.or(written.memory),
        per_device: typed.per_device.or(written.per_device),
        max_failures: typed.max_failures.or(written.max_failures),
        grace: typed.grace.or(written.grace),
        shard: typed.shard.or(written.shard),
        // A shard that was typed with its count leaves nothing to the document.
        shard_count: match typed.shard {
            Some(ShardArg::Given(_)) => typed.shard_count,
            _ => typed.shard_count.or(written.shard_count),
        },
        results: typed.results.or(written.results),
    }
}

fn normal(key: &str) -> String {
    key.to_lowercase().replace('-', "_")
}

fn read_own(batch: &mut BatchArgs, key: &str, field: &Field<'_>) -> Result<()> {
    fn parsed<T>(field: &Field<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>> {
        let Some(text) = field.optional_text()? else { return Ok(None) };
        parse(&text).map(Some).map_err(|hint| field.error(format_args!("cannot use {text:?}"), hint))
    }
    match key {
        "jobs" => batch.jobs = parsed(field, parse_threads)?,
        "memory" => batch.memory = parsed(field, parse_size)?,
        "per_device" => batch.per_device = parsed(field, parse_threads)?,
        "max_failures" => batch.max_failures = parsed(field, Limit::parse)?,
        "grace" => batch.grace = parsed(field, parse_grace)?,
        "shard" => batch.shard = parsed(field, ShardArg::parse)?,
        "shard_count" => batch.shard_count = parsed(field, parse_shards)?,
        _ => batch.results = field.path()?,
    }
    Ok(())
}

/// The entries of the list of images.
fn entries(images: &Line, defaults: &Options, command: &Command, document: &mut Document) -> Result<Vec<Entry>> {
    let shared = Arc::new(complete(defaults.clone(), document, images.line)?);
    let hint = "write a path or a pattern on each line, or an entry: `- {image: PATH, key: value}`";
    let single = [images.value.clone()];
    let values = match &images.value {
        Value::List(values) => values.as_slice(),
        Value::Text(_) => single.as_slice(),
        _ => return Err(document.error(images.line, "`images`: a list is expected", hint)),
    };
    let mut entries = Vec::new();
    for value in values {
        match value {
            Value::Text(text) => {
                let (disks, options) = (vec![text.into()], shared.clone());
                entries.push(Entry { id: None, disks, is_pattern: true, is_own: false, options });
            }
            Value::Map(map) => entries.push(entry(map, images.line, defaults, command, document)?),
            _ => return Err(document.error(images.line, "`images`: a path or an entry is expected", hint)),
        }
    }
    Ok(entries)
}

fn entry(map: &Map, line: u64, defaults: &Options, command: &Command, document: &mut Document) -> Result<Entry> {
    let (mut id, mut disks) = (None, Vec::new());
    let mut options = defaults.clone();
    let line = map.0.first().map_or(line, |first| first.line);
    for item in &map.0 {
        let field = Field::new(item, document);
        match normal(&item.key).as_str() {
            "id" => id = Some(field.text()?),
            "image" | "vmdk" | "disks" => disks = field.texts()?.into_iter().map(PathBuf::from).collect(),
            _ => read_option(&mut options, command, item, document, &ENTRY_KEYS)?,
        }
    }
    if disks.is_empty() || disks.iter().any(|disk: &PathBuf| disk.as_os_str().is_empty()) {
        return Err(document.error(
            line,
            "an entry without an image",
            "add `image: PATH`, or `disks: [PATH, PATH]` for a machine with several",
        ));
    }
    let options = complete(options, document, line)?;
    Ok(Entry { id, is_pattern: disks.len() == 1, is_own: true, disks, options: Arc::new(options) })
}

/// Reads a key that stands for an option of the job.
fn read_option(
    options: &mut Options,
    command: &Command,
    line: &Line,
    document: &mut Document,
    own: &'static [&'static str],
) -> Result<()> {
    let key = normal(&line.key);
    let Some(names) = key_names().find(|names| names.contains(&key.as_str())) else {
        // Options of `inspect` and `check` that the document of one image does not know.
        if let Some(option) = option_of(command, &[&key]) {
            let given = read_value(option, &Field::new(line, document))?;
            options.set(option.get_id().as_str(), given);
            return Ok(());
        }
        let meant = nearest(&key, key_names().flatten().copied().chain(own.iter().copied()));
        let meant = meant.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        document.warn(line.line, format!("unknown key `{}`{meant}", line.key));
        return Ok(());
    };
    let field = Field::new(line, document);
    match names.first().copied().unwrap_or_default() {
        "cmd" if field.optional_text()?.is_none_or(|text| text == "local") => return Ok(()),
        "windows" if field.flag()? => return Ok(()),
        "cmd" | "windows" => {
            return Err(
                field.error("cannot be done here", "remove the line: winject edits disk images of Windows guests")
            );
        }
        "vmdk" => {
            return Err(
                field.error("the images of a batch stand in a list", "write `images:` with a path on each line")
            );
        }
        "remove_vmware_tools" => {
            let given =
                field.flag()?.then(|| Given::new("remove_tools", "--remove-tools".to_owned(), Some("vmware".into())));
            options.set("remove_vmware_tools", given.into_iter().collect());
            return Ok(());
        }
        // It becomes the output when all keys are known.
        "output_dir" => {
            let given = field.optional_text()?.map(|text| Given::new("output_dir", String::new(), Some(text.into())));
            options.set("output_dir", given.into_iter().collect());
            return Ok(());
        }
        _ => {}
    }
    match option_of(command, names) {
        Some(option) => options.set(option.get_id().as_str(), read_value(option, &field)?),
        None => document.warn(line.line, format!("`{}` has no effect here", line.key)),
    }
    Ok(())
}

/// The option of the job that a key of these spellings stands for.
fn option_of<'a>(command: &'a Command, names: &[&str]) -> Option<&'a Arg> {
    let is_meant = |option: &&Arg| {
        let id = option.get_id().as_str();
        names.contains(&id) && (!option.is_positional() || id == "output")
    };
    command.get_arguments().find(is_meant)
}

/// The option with the value of its key.
fn read_value(option: &Arg, field: &Field<'_>) -> Result<Vec<Given>> {
    let id = option.get_id().as_str();
    let flag = format!("--{}", option.get_long().unwrap_or(id));
    let given = |value: Option<String>| Given::new(id, flag.clone(), value.map(Into::into));
    match option.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => {
            return Ok(field.flag()?.then(|| given(None)).into_iter().collect());
        }
        ArgAction::Append => return Ok(field.texts()?.into_iter().map(|text| given(Some(text))).collect()),
        _ => {}
    }
    let words: Vec<String> = option.get_possible_values().iter().map(|word| word.get_name().to_owned()).collect();
    let is_optional = option.get_num_args().is_some_and(|range| range.min_values() == 0);
    Ok(match field.value() {
        Value::Bool(is_on) if words.iter().any(|word| word == "on" || word == "off") => {
            vec![given(Some(if *is_on { "on" } else { "off" }.to_owned()))]
        }
        Value::Bool(is_on) if is_optional => is_on.then(|| given(None)).into_iter().collect(),
        _ => field.optional_text()?.filter(|text| !text.is_empty()).map(|text| given(Some(text))).into_iter().collect(),
    })
}

/// Fills in what follows from several keys, as in the document of one image.
fn complete(mut options: Options, document: &Document, line: u64) -> Result<Vec<Given>> {
    if options.has("compress_level") && !options.0.iter().any(|(id, _)| id == "compress") {
        options.set("compress", vec![Given::new("compress", "--compress".to_owned(), None)]);
    }
    let folder = options.0.iter().position(|(id, _)| id == "output_dir").map(|at| options.0.remove(at));
    let is_named = DESTINATIONS.iter().chain(&["dry_run"]).any(|id| options.has(id));
    if let (false, Some(folder)) = (is_named, folder.and_then(|(_, given)| given.into_iter().next())) {
        let is_raw = options.0.iter().any(|(id, given)| {
            id == "output_format"
                && given.iter().any(|given| given.value().is_some_and(|value| value.eq_ignore_ascii_case("raw")))
        });
        let mut name = folder.value().unwrap_or_default().to_owned();
        if name.to_string_lossy().contains('{') {
            return Err(document.error(
                line,
                "`output_dir`: braces stand for a part of the item's name",
                "use `to_output: 'FOLDER/{name}.qcow2'`",
            ));
        }
        name.push(if is_raw { "/{name}.raw" } else { "/{name}.qcow2" });
        options.set("output", vec![Given::new("output", "--output".to_owned(), Some(name))]);
    }
    Ok(options.into_given())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Asked> {
        super::parse(text, "fleet.yaml", Path::new("/etc/fleet"), BatchArgs::default())
    }

    fn arguments(entry: &Entry) -> Vec<String> {
        entry.options.iter().map(|given| given.argument(given.value()).into_string().unwrap()).collect()
    }

    #[test]
    fn entries_override_defaults() {
        let asked = parse(
            "job: inject\njobs: 3\nresults: r\ndrivers: [a.iso, b]\ndefaults:\n  in_place: true\n  registration: full\n  threads: 1\n\
             images:\n  - 'vms/*.raw'\n  - {image: x.vmdk, to_output: 'new/{name}.qcow2', compress: true, registration: minimal}\n  \
             - {id: two, disks: [a.raw, b.raw], threads:}\n",
        )
        .unwrap();
        assert!(asked.warnings.is_empty(), "{:?}", asked.warnings);
        assert_eq!((asked.job, asked.batch.jobs), (JobKind::Inject, Some(3)));
        assert_eq!(asked.batch.results.as_deref(), Some(Path::new("/etc/fleet/r")));
        let all: Vec<_> = asked.entries.iter().map(arguments).collect();
        assert_eq!(all[0], ["--drivers=a.iso", "--drivers=b", "--in-place", "--registration=full", "--threads=1"]);
        assert_eq!(
            all[1],
            [
                "--drivers=a.iso",
                "--drivers=b",
                "--threads=1",
                "--output=new/{name}.qcow2",
                "--compress",
                "--registration=minimal"
            ]
        );
        assert_eq!(all[2], ["--drivers=a.iso", "--drivers=b", "--in-place", "--registration=full"]);
        assert_eq!((asked.entries[2].id.as_deref(), asked.entries[2].disks.len()), (Some("two"), 2));
    }

    #[test]
    fn keys_of_one_image_mean_the_same() {
        let asked = parse(
            "job: convert\ncmd: local\nwindows: true\noutput_dir: out\nout_format: raw\nimages: a.vmdk\ncheck_sum: 1\nvcpus: 2\n",
        )
        .unwrap();
        assert_eq!(arguments(&asked.entries[0]), ["--output-format=raw", "--output=out/{name}.raw"]);
        assert_eq!(asked.warnings.len(), 2, "{:?}", asked.warnings);
        let asked = parse("job: check\nimages: [a]\nbus: virtio-scsi\nno_replay: yes\n").unwrap();
        assert_eq!(arguments(&asked.entries[0]), ["--bus=virtio-scsi", "--no-replay"]);
    }

    #[test]
    fn what_cannot_be_meant_is_an_error_with_a_hint() {
        for (text, word) in [
            ("images: [a]\n", "no job"),
            ("job: undo\nimages: [a]\n", "undo"),
            ("job: inject\n", "no images"),
            ("job: inject\nimages: [{id: x}]\n", "without an image"),
            ("job: inject\nimages: [[a]]\n", "an entry is expected"),
            ("job: inject\nimages: {a: b}\n", "a list is expected"),
            ("job: inject\nvmdk: a\nimages: [b]\n", "stand in a list"),
            ("job: inject\nimages: [b]\njobs: many\n", "many"),
        ] {
            let error = parse(text).map(|_| ()).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{error}");
            assert!(error.to_string().contains(word) && error.to_string().contains("fleet.yaml"), "{error}");
        }
    }
}
