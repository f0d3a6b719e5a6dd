//! What a command works on: a hive file, or a hive inside an image.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::file::{HostHive, find_log, is_hive, show_replay};
use crate::cli::args::{ImageArgs, OverrideArgs, PartitionArgs, ReplayArgs, StateArgs, VolumeCheckArgs};
use crate::cli::bitlocker_args::BitLockerArgs;
use crate::cli::output_args::OutputArgs;
use crate::cli::recover::show_recovery;
use crate::cli::signals::{self, Subject};
use crate::cli::{Ui, environment};
use crate::error::{Error, Kind, Layer, Result};
use crate::hive::reg_file::{Import, KeyPath, Parser, RegEntry};
use crate::hive::{Hive, HiveFile, KeyId, LOG_ENDINGS};
use crate::host::RunFiles;
use crate::job::{
    Destination, HiveEdit, HiveName, HiveRequest, StateOverrides, edit_hive, image_files, import_into_image, read_hive,
    undo_command,
};

// How an image is opened.
#[derive(Debug, clap::Args)]
pub(super) struct Image {
    #[command(flatten)]
    windows: PartitionArgs,
    #[command(flatten)]
    replay: ReplayArgs,
    #[command(flatten)]
    bitlocker: BitLockerArgs,
    #[command(flatten)]
    source: ImageArgs,
}

// Where a changed image goes.
#[derive(Debug, clap::Args)]
pub(super) struct Changed {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    state: OverrideArgs,
    #[command(flatten)]
    check: VolumeCheckArgs,
}

impl Image {
    fn request(&self, image: &Path) -> Result<HiveRequest> {
        Ok(HiveRequest {
            image: image.to_owned(),
            options: self.source.open_options(),
            partition: self.windows.partition,
            bitlocker: self.bitlocker.keys()?,
            rehearsed: None,
            overwrite_output: false,
            keep_undo: false,
            state: StateOverrides { no_replay: self.replay.no_replay, ..StateOverrides::default() },
            clock: environment::clock()?,
            skip_volume_check: false,
            cancel: signals::cancel(),
        })
    }

    /// The files of the image, with those that it names.
    pub(super) fn files(&self, image: &Path) -> Result<Vec<PathBuf>> {
        image_files(image, &self.source.open_options())
    }
}

/// A hive that was opened for reading, and the key that was asked for.
pub(super) struct OpenedKey {
    pub(super) hive: Hive,
    /// The key, from the root of the hive.
    pub(super) path: KeyPath,
    /// What stands for the root of the hive in output.
    pub(super) prefix: KeyPath,
}

impl OpenedKey {
    /// Opens the hive that holds the key `text`.
    pub(super) fn open(target: &Path, text: &str, prefix: KeyPath, image: &Image, ui: &Ui) -> Result<Self> {
        if !is_hive(target)? {
            let (name, path) = HiveName::of(&KeyPath::from(text))?;
            let (HiveFile { hive, replay }, warning) = read_hive(&image.request(target)?, name)?;
            warning.iter().for_each(|warning| ui.warn(warning));
            show_replay(replay.as_ref(), ui);
            let path = path.resolve_control_set(&hive)?;
            return Ok(Self { hive, path, prefix: name.root() });
        }
        let hive = HostHive::open(target, ui)?.hive;
        let path = in_hive(&hive, text, &prefix)?;
        Ok(Self { hive, path, prefix })
    }

    /// The key, which must be there.
    pub(super) fn key(&self) -> Result<KeyId> {
        let names = self.path.names();
        let mut key = self.hive.root();
        for (i, name) in names.iter().enumerate() {
            let Some(next) = self.hive.subkey(key, name)? else {
                let hint = match i {
                    0 if self.path.is_full() => {
                        "in a hive file a KEY is a path from its root; --prefix names the part that stands for the root"
                            .into()
                    }
                    0 => "a KEY is a path from the root of the hive; winject reg query TARGET \\ shows what is there"
                        .into(),
                    _ => format!("{} is there, but holds no {name}", self.full(&self.path.first(i))),
                };
                let error = Error::new(Kind::Usage, Layer::Hive, "no such key");
                return Err(error.path(self.full(&self.path)).hint(hint));
            };
            key = next;
        }
        Ok(key)
    }

    fn full(&self, path: &KeyPath) -> String {
        self.prefix.concat(path).to_string()
    }
}

/// The key `text` in a hive file: a path from its root, with or without the prefix.
fn in_hive(hive: &Hive, text: &str, prefix: &KeyPath) -> Result<KeyPath> {
    let path = KeyPath::from(text);
    let path = path.below(prefix).filter(|_| !prefix.names().is_empty()).unwrap_or(path);
    path.resolve_control_set(hive)
}

/// The files that a target is read from: the hive and its logs, or those of the image.
pub(super) fn sources(target: &Path, image: &Image) -> Result<Vec<PathBuf>> {
    if !is_hive(target)? {
        return image.files(target);
    }
    let mut files = vec![target.to_owned()];
    for ending in LOG_ENDINGS {
        files.extend(find_log(target, ending)?);
    }
    Ok(files)
}

impl Changed {
    /// Where the changes of the image `target` go.
    fn destination(&self, target: &Path) -> Result<Destination> {
        let destination = self.output.destination()?;
        Subject::of(&destination, target).into_iter().for_each(signals::set_subject);
        Ok(destination)
    }

    /// Refuses an output that is the `.reg` file.
    pub(super) fn refuse_as_output(&self, input: &Path) -> Result<()> {
        let Some(output) = self.output.overlay.as_ref().or(self.output.output.as_ref()) else { return Ok(()) };
        let mut files = RunFiles::default();
        files.add_input("the .reg file", input);
        files.add_output("the output", output)
    }

    fn request(&self, image: &Image, target: &Path) -> Result<HiveRequest> {
        Ok(HiveRequest {
            skip_volume_check: self.check.skip_volume_check,
            rehearsed: self.output.named()?,
            overwrite_output: self.output.overwrite,
            keep_undo: !self.output.no_undo,
            state: StateArgs { overrides: self.state, replay: image.replay }.overrides(),
            ..image.request(target)?
        })
    }

    /// Refuses the options of images for the hive file `target`, which is always changed in place.
    fn refuse_for_file(&self, target: &Path) -> Result<()> {
        if self.output != OutputArgs::default() || self.state != OverrideArgs::default() {
            let error = Error::new(
                Kind::Usage,
                Layer::Cli,
                "cannot change a hive file like an image: --in-place, --overlay, --output, --dry-run, --allow-dirty and --discard-… \
                 are for images",
            );
            return Err(error.hint("a hive file is changed where it is; copy it first to keep the old one"));
        }
        signals::set_subject(Subject::InPlace(target.to_owned()));
        Ok(())
    }
}

/// Edits the hive that holds the key `text`; returns whether anything changed.
pub(super) fn edit(
    target: &Path,
    text: &str,
    prefix: &KeyPath,
    places: (&Image, &Changed),
    ui: &Ui,
    change: &mut dyn FnMut(&mut Hive, &KeyPath) -> Result<()>,
) -> Result<bool> {
    let (image, changed) = places;
    if !is_hive(target)? {
        let (name, path) = HiveName::of(&KeyPath::from(text))?;
        let destination = changed.destination(target)?;
        let done = edit_hive(&changed.request(image, target)?, name, &destination, &mut |hive| {
            let path = path.resolve_control_set(hive)?;
            change(hive, &path)
        })?;
        return Ok(show_edit(target, &done, ui));
    }
    changed.refuse_for_file(target)?;
    let mut file = HostHive::open_for_edit(target, ui)?;
    let path = in_hive(&file.hive, text, prefix)?;
    change(&mut file.hive, &path)?;
    file.save()
}

/// Applies a `.reg` file, which is read piece by piece. Returns whether anything changed, and what was done.
pub(super) fn import(
    target: &Path,
    file: &mut dyn Read,
    prefix: &KeyPath,
    places: (&Image, &Changed),
    ui: &Ui,
) -> Result<(bool, String)> {
    let (_, changed) = places;
    if !is_hive(target)? {
        return Ok((import_image(target, file, places, ui)?, "imported".into()));
    }
    changed.refuse_for_file(target)?;
    let mut parser = Parser::new(file, prefix)?;
    let mut file = HostHive::open_for_edit(target, ui)?;
    let mut import = Import::new(environment::clock()?);
    while let Some(entry) = parser.next_entry()? {
        match entry {
            RegEntry::Key { path, .. } if path.is_full() && prefix.names().is_empty() => {
                return Err(missing_prefix(&path));
            }
            RegEntry::Key { path, delete } => import.key(&mut file.hive, &path, delete)?,
            RegEntry::Value(name, data) => import.value(&mut file.hive, &name, data.as_ref())?,
        }
    }
    let done = import.applied();
    let changed = file.save()?;
    let what = format!(
        "{} keys created, {} deleted; {} values set, {} deleted",
        done.keys_created, done.keys_deleted, done.values_set, done.values_deleted
    );
    Ok((changed, what))
}

/// A key of the registry means nothing in a hive file as long as it is not known which part stands for the root.
fn missing_prefix(path: &KeyPath) -> Error {
    let root = path.first(path.names().len().min(2));
    Error::new(Kind::Usage, Layer::Cli, "cannot import a full path into a hive file")
        .path(path.to_string())
        .hint(format!("name the part of it that stands for the root of the hive: --prefix '{root}'"))
}

/// Applies a `.reg` file to the hives inside an image.
fn import_image(target: &Path, file: &mut dyn Read, places: (&Image, &Changed), ui: &Ui) -> Result<bool> {
    let (image, changed) = places;
    let mut parser = Parser::new(file, &KeyPath::default())?;
    let done = import_into_image(&changed.request(image, target)?, &mut parser, &changed.destination(target)?)?;
    Ok(show_edit(target, &done, ui))
}

fn show_edit(image: &Path, done: &HiveEdit, ui: &Ui) -> bool {
    show_recovery(done.recovery, ui);
    if let Some(replay) = &done.log_replay {
        ui.note(&format!("NTFS log: {replay}"));
    }
    done.replays.iter().for_each(|replay| show_replay(Some(replay), ui));
    done.warnings.iter().for_each(|warning| ui.warn(warning));
    if done.undo_record.is_some() {
        ui.note(&format!("undo: {}", undo_command(image)));
    }
    done.changed
}
