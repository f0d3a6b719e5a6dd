//! What a command works on: a hive file, or a hive inside an image.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::file::{HostHive, find_log, is_hive, show_replay};
use super::key;
use crate::cli::args::{ImageArgs, OverrideArgs, PartitionArgs, ReplayArgs, StateArgs, VolumeCheckArgs};
use crate::cli::bitlocker_args::BitLockerArgs;
use crate::cli::execute::Watcher;
use crate::cli::output_args::{NewImageArgs, OutputArgs};
use crate::cli::recover::show_recovery;
use crate::cli::signals::{self, Subject};
use crate::cli::{Ui, environment};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::hive::reg_file::{Applied, Import, ImportChange, KeyPath, Parser, RegEntry, SeeChange};
use crate::hive::{Hive, HiveFile, KeyId, LOG_ENDINGS, Name, RegistryValue};
use crate::host::{RunFiles, Target, TextOutput};
use crate::job::{
    Destination, HiveEdit, HiveName, HiveRequest, StateOverrides, edit_hive, image_files, import_into_image, read_hive,
};

// How an image is opened.
#[derive(Debug, clap::Args)]
pub(super) struct Image {
    #[command(flatten)]
    windows: PartitionArgs,
    #[command(flatten)]
    replay: ReplayArgs,
    #[command(flatten)]
    pub(super) bitlocker: BitLockerArgs,
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
    pub(super) fn request(&self, image: &Path) -> Result<HiveRequest> {
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

    /// Refuses options that have no effect on a target of this kind: those of an image on a hive file, and the prefix of a
    /// hive file on an image.
    ///
    /// # Errors
    /// [`Kind::Usage`] with the option.
    pub(super) fn refuse_ineffective(&self, target: &Path, is_hive: bool, prefix: &KeyPath) -> Result<()> {
        let of_image = [
            (self.windows != PartitionArgs::default(), "--partition"),
            (self.source.format.is_some(), "--format"),
            (!self.source.allow_path.is_empty(), "--allow-path"),
            (self.source.disk.is_some(), "--disk"),
            (self.source.nbd_requests.is_some(), "--nbd-requests"),
            (self.bitlocker != BitLockerArgs::default(), "--bitlocker-…"),
            (self.replay != ReplayArgs::default(), "--no-replay"),
        ];
        let (needless, message) = match of_image.into_iter().find(|(is_given, _)| *is_given && is_hive) {
            Some((_, option)) => (option, "has no effect on a hive file: it is for an image"),
            None if !is_hive && !prefix.names().is_empty() => {
                ("--prefix", "has no effect on an image: it is for a hive file")
            }
            None => return Ok(()),
        };
        let error = Error::new(Kind::Usage, Layer::Cli, format!("{needless} {message}"));
        Err(error.path(target.display().to_string()).hint("leave it out"))
    }

    /// The files of the image, with those that it names.
    pub(super) fn files(&self, image: &Path) -> Result<Vec<PathBuf>> {
        image_files(image, &self.source.open_options())
    }
}

/// A hive that was opened for reading, and the key that was asked for.
pub(super) struct OpenedKey {
    target: PathBuf,
    pub(super) hive: Hive,
    /// The key, from the root of the hive.
    pub(super) path: KeyPath,
    /// What stands for the root of the hive in output.
    pub(super) prefix: KeyPath,
}

impl OpenedKey {
    /// Opens the hive that holds the key `text`.
    pub(super) fn open(target: &Path, text: &str, prefix: KeyPath, image: &Image, ui: &Ui) -> Result<Self> {
        let is_hive = is_hive(target)?;
        image.refuse_ineffective(target, is_hive, &prefix)?;
        if !is_hive {
            let (name, path) = HiveName::of_typed(&KeyPath::from(text))?;
            let (HiveFile { hive, replay }, warning) = read_hive(&image.request(target)?, name)?;
            warning.iter().for_each(|warning| ui.warn(warning));
            show_replay(replay.as_ref(), ui);
            let path = path.resolve_control_set(&hive)?;
            return Ok(Self { target: target.to_owned(), hive, path, prefix: name.root() });
        }
        let hive = HostHive::open(target, ui)?.hive;
        let path = key::in_hive(&hive, target, text, &prefix)?;
        Ok(Self { target: target.to_owned(), hive, path, prefix })
    }

    /// The key, which must be there.
    pub(super) fn key(&self) -> Result<KeyId> {
        key::require(&self.target, &self.hive, &self.path, &self.prefix)
    }

    /// The key's path as it is shown.
    pub(super) fn full_path(&self) -> KeyPath {
        self.prefix.concat(&self.path)
    }

    /// A value of the key, which must be there.
    pub(super) fn value(&self, key: KeyId, name: &str) -> Result<RegistryValue> {
        let value = self.hive.value_named(key, &Name::from(name))?;
        value.ok_or_else(|| key::no_value(&self.target, &self.full_path(), name))
    }
}

/// The files that a target is read from: the hive and its logs, or those of the image.
pub(super) fn sources(target: &Path, image: &Image) -> Result<Vec<PathBuf>> {
    if is_hive(target)? { hive_sources(target) } else { image.files(target) }
}

/// A hive file and its logs.
fn hive_sources(target: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![target.to_owned()];
    for ending in LOG_ENDINGS {
        files.extend(find_log(target, ending)?);
    }
    Ok(files)
}

impl Changed {
    /// Where the changes of the image `target` go.
    fn destination(&self, target: &Path) -> Result<Destination> {
        let destination = self.output.destination().map_err(|error| error.path(target.display().to_string()))?;
        Subject::of(&destination, target).into_iter().for_each(signals::set_subject);
        Ok(destination)
    }

    /// Refuses an output that is the `.reg` file.
    pub(super) fn refuse_as_output(&self, input: &Path) -> Result<()> {
        let Some(output) = self.output.new_file() else { return Ok(()) };
        let mut files = RunFiles::default();
        files.add_input("the .reg file", input);
        files.add_output("the output", output)
    }

    fn request(&self, image: &Image, target: &Path) -> Result<HiveRequest> {
        image.bitlocker.refuse_as_output(self.output.new_file())?;
        Ok(HiveRequest {
            skip_volume_check: self.check.skip_volume_check,
            rehearsed: self.output.named().map_err(|error| error.path(target.display().to_string()))?,
            overwrite_output: self.output.overwrite,
            keep_undo: !self.output.no_undo,
            state: StateArgs { overrides: self.state, replay: image.replay }.overrides(),
            ..image.request(target)?
        })
    }

    /// Where the changes of the hive file `target` go: into the file itself, unless another place is named.
    fn hive_destination(&self, target: &Path) -> Result<HiveDestination> {
        let OutputArgs { no_undo, overlay, new_image, overwrite, output, dry_run: _, in_place } = &self.output;
        let wrong = [
            (*no_undo, "--no-undo"),
            (overlay.is_some(), "--overlay"),
            (*new_image != NewImageArgs::default(), "a format, compression or checksum of a new image"),
            (self.state != OverrideArgs::default(), "--allow-dirty or --discard-…"),
            (self.check != VolumeCheckArgs::default(), "--skip-volume-check"),
            (*overwrite && output.is_none(), "--overwrite without --output"),
        ];
        if let Some((_, option)) = wrong.iter().find(|(is_given, _)| *is_given) {
            let error = Error::new(Kind::Usage, Layer::Cli, format!("cannot change a hive file with {option}"));
            let hint = "a hive file is changed where it is (--in-place), or written to a new file (--output NEW)";
            return Err(error.path(target.display().to_string()).hint(hint));
        }
        if *in_place && output.is_some() {
            let error = Error::new(Kind::Usage, Layer::Cli, "several destinations are given");
            return Err(error.hint("keep one of --in-place and --output"));
        }
        let destination = match output {
            Some(path) => HiveDestination::New(path.clone()),
            None => HiveDestination::InPlace,
        };
        match &destination {
            _ if self.is_dry_run() => {}
            HiveDestination::New(path) => signals::set_subject(Subject::Output(path.clone())),
            HiveDestination::InPlace => signals::set_subject(Subject::InPlace(target.to_owned())),
        }
        Ok(destination)
    }

    /// Edits a hive file; returns whether anything changed.
    fn edit_file(&self, target: &Path, ui: &Ui, change: &mut dyn FnMut(&mut Hive) -> Result<()>) -> Result<bool> {
        let destination = self.hive_destination(target)?;
        let HiveDestination::New(path) = &destination else {
            let is_dry_run = self.is_dry_run();
            let mut file = if is_dry_run { HostHive::open(target, ui)? } else { HostHive::open_for_edit(target, ui)? };
            change(&mut file.hive)?;
            return if is_dry_run { file.rehearse_save() } else { file.save() };
        };
        let mut files = RunFiles::default();
        let read = hive_sources(target)?;
        read.iter().for_each(|file| files.add_input("the input", file));
        files.add_output("the output", path)?;
        let output = Target::resolve(path, "the output")?;
        if self.is_dry_run() {
            TextOutput::rehearse(&output, self.output.overwrite)?;
            let mut file = HostHive::open(target, ui)?;
            change(&mut file.hive)?;
            return Ok(file.hive.is_changed());
        }
        let mut output = TextOutput::create(output, &read, self.output.overwrite, &signals::cancel())?;
        let mut file = HostHive::open(target, ui)?;
        change(&mut file.hive)?;
        let is_changed = file.hive.is_changed();
        // A new file is written even if nothing changed: it is asked for as such.
        output.write(&file.hive.finish(&[]).map_err(|error| error.path(target.display().to_string()))?)?;
        output.finish()?;
        Ok(is_changed)
    }

    /// The file that is changed: the new one, or the target itself.
    pub(super) fn written_file<'a>(&'a self, target: &'a Path) -> &'a Path {
        self.output.new_file().unwrap_or(target)
    }

    /// Whether nothing is to be written.
    pub(super) fn is_dry_run(&self) -> bool {
        self.output.dry_run
    }
}

/// Where a changed hive file goes, or would go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HiveDestination {
    InPlace,
    New(PathBuf),
}

/// Edits the hive that holds the key `text`; returns whether anything changed. `change` gets the hive, the key's path from its
/// root, and what stands for the root in output.
pub(super) fn edit(
    target: &Path,
    text: &str,
    prefix: &KeyPath,
    places: (&Image, &Changed),
    ui: &Ui,
    change: &mut dyn FnMut(&mut Hive, &KeyPath, &KeyPath) -> Result<()>,
) -> Result<bool> {
    let (image, changed) = places;
    let is_hive = is_hive(target)?;
    image.refuse_ineffective(target, is_hive, prefix)?;
    if !is_hive {
        let (name, path) = HiveName::of_typed(&KeyPath::from(text))?;
        let destination = changed.destination(target)?;
        let request = changed.request(image, target)?;
        let done = edit_hive(&request, name, &destination, &Watcher::new(ui), &mut |hive| {
            let path = path.resolve_control_set(hive)?;
            change(hive, &path, &name.root())
        })?;
        return Ok(show_edit(&done, ui));
    }
    changed.edit_file(target, ui, &mut |hive| {
        let path = key::in_hive(hive, target, text, prefix)?;
        change(hive, &path, prefix)
    })
}

/// Applies a `.reg` file, which is read piece by piece. Returns whether anything changed, and what was done. `see` is told
/// each change, with the path of its key as it is shown.
pub(super) fn import(
    target: &Path,
    file: &mut dyn Read,
    prefix: &KeyPath,
    places: (&Image, &Changed),
    ui: &Ui,
    see: &mut SeeChange<'_>,
) -> Result<(bool, Applied)> {
    let (image, changed) = places;
    let is_hive = is_hive(target)?;
    image.refuse_ineffective(target, is_hive, prefix)?;
    if !is_hive {
        let mut parser = Parser::new(file, &KeyPath::default())?;
        let destination = changed.destination(target)?;
        let request = changed.request(image, target)?;
        let done = import_into_image(&request, &mut parser, &destination, &Watcher::new(ui), see)?;
        return Ok((show_edit(&done, ui), done.applied));
    }
    let mut parser = Parser::new(file, prefix)?;
    let mut import = Import::new(environment::clock()?);
    let is_changed = changed.edit_file(target, ui, &mut |hive| {
        let mut see = |path: &KeyPath, change: ImportChange<'_>| see(&prefix.concat(path), change);
        while let Some(entry) = parser.next_entry()? {
            match entry {
                RegEntry::Key { path, delete } if path.is_full() && prefix.names().is_empty() => {
                    let path = key::in_file(target, &path).ok_or_else(|| missing_prefix(&path))?;
                    import.key(hive, &path, delete, &mut see)?;
                }
                RegEntry::Key { path, delete } => import.key(hive, &path, delete, &mut see)?,
                RegEntry::Value(name, data) => import.value(hive, &name, data.as_ref(), &mut see)?,
            }
        }
        Ok(())
    })?;
    Ok((is_changed, import.applied()))
}

/// A key of the registry means nothing in a hive file as long as it is not known which part stands for the root.
fn missing_prefix(path: &KeyPath) -> Error {
    let root = path.first(path.names().len().min(2));
    Error::new(Kind::Usage, Layer::Cli, "cannot import a full path into a hive file")
        .with_code(ErrorCode::KeyElsewhere)
        .path(path.to_string())
        .hint(format!("name the part of it that stands for the root of the hive: --prefix '{root}'"))
}

fn show_edit(done: &HiveEdit, ui: &Ui) -> bool {
    show_recovery(done.recovery, ui);
    if let Some(replay) = &done.log_replay {
        ui.note(&format!("NTFS log: {replay}"));
    }
    done.replays.iter().for_each(|replay| show_replay(Some(replay), ui));
    done.warnings.iter().for_each(|warning| ui.warn(warning));
    if let Some(undo) = &done.undo_command {
        ui.note(&format!("undo: {undo}"));
    }
    done.changed
}
