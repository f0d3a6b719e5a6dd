//! `IMAGE PATH` and `IMAGE:PATH`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::cli::Ui;
use crate::cli::args::{ImageArgs, ReplayArgs};
use crate::cli::bitlocker_args::BitLockerArgs;
use crate::cli::numbers::parse_partition;
use crate::error::{Error, Kind, Layer, Result};
use crate::host::is_nbd_name;
use crate::job::look::{Files, LookRequest, look_into};
use crate::nbd::network_notes;

// The volume to look into
#[derive(Debug, clap::Args)]
pub(super) struct VolumeArgs {
    /// Look into the partition of this number, counted as Linux does (0: the image is a volume without a partition table);
    /// by default the one with Windows, or the only one that can be read
    #[arg(long, value_name = "NUMBER", value_parser = parse_partition)]
    partition: Option<u32>,

    #[command(flatten)]
    source: ImageArgs,

    #[command(flatten)]
    replay: ReplayArgs,

    #[command(flatten)]
    pub(super) bitlocker: BitLockerArgs,
}

/// An image, and paths in one of its volumes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) image: PathBuf,
    pub(super) paths: Vec<String>,
}

impl Place {
    /// Reads `IMAGE PATH…` or `IMAGE:PATH…`. The first argument is the image if there is a file of that name, or if it is an NBD URI; else it is
    /// divided at the first colon that leaves the name of a file.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a path in the image that is not Unicode.
    pub(super) fn parse(arguments: &[OsString]) -> Result<Self> {
        Self::parse_with(arguments, &|path| path.try_exists().unwrap_or(true))
    }

    fn parse_with(arguments: &[OsString], is_file: &dyn Fn(&Path) -> bool) -> Result<Self> {
        let (first, others) = arguments.split_first().ok_or_else(|| Error::bug(Layer::Cli, "no argument"))?;
        let (image, path) = divide(first, is_file);
        // After `IMAGE:PATH` the others may name the image again.
        let prefix = path.as_ref().map(|_| [image.as_os_str().as_bytes(), b":"].concat());
        let others = others.iter().map(|other| {
            let path = prefix.as_ref().and_then(|prefix| other.as_bytes().strip_prefix(prefix.as_slice()));
            path.map_or_else(|| other.clone(), |path| OsString::from_vec(path.to_vec()))
        });
        let paths = path.into_iter().chain(others).map(|path| {
            path.into_string().map_err(|path| {
                Error::new(Kind::Usage, Layer::Cli, "the path in the image is not Unicode")
                    .path(path.display().to_string())
                    .hint("write it in UTF-8, or match it with `*`")
            })
        });
        Ok(Self { paths: paths.collect::<Result<_>>()?, image })
    }

    /// Opens the volume and shows it to `look`, after a warning if it is not as Windows would see it.
    ///
    /// # Errors
    /// When a key of a BitLocker volume cannot be read, those of [`look_into`], and what `look` returns.
    pub(super) fn look<T>(
        &self,
        volume: &VolumeArgs,
        ui: &Ui,
        look: impl FnOnce(&Files<'_>) -> Result<T>,
    ) -> Result<T> {
        let request = LookRequest {
            image: self.image.clone(),
            options: volume.source.open_options(),
            bitlocker: volume.bitlocker.keys()?,
            replay: volume.replay.into(),
            partition: volume.partition,
        };
        look_into(&request, |files| {
            network_notes(&files.image_files).iter().for_each(|note| ui.warn(note));
            files.log_warning().iter().for_each(|warning| ui.warn(warning));
            look(files)
        })
    }
}

/// The image that arguments in the form of [`Place`] name, if there are any.
pub fn image_of(arguments: &[OsString]) -> Option<PathBuf> {
    Some(divide(arguments.first()?, &|path| path.try_exists().unwrap_or(true)).0)
}

fn divide(argument: &OsString, is_file: &dyn Fn(&Path) -> bool) -> (PathBuf, Option<OsString>) {
    let whole = PathBuf::from(argument);
    // A URI is full of colons: paths are given apart from it.
    if is_nbd_name(&whole) || is_file(&whole) {
        return (whole, None);
    }
    let bytes = argument.as_bytes();
    for (colon, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b':') {
        let (image, path) = bytes.split_at(colon);
        let image = PathBuf::from(OsString::from_vec(image.to_vec()));
        if !image.as_os_str().is_empty() && is_file(&image) {
            return (image, Some(OsString::from_vec(path.get(1..).unwrap_or_default().to_vec())));
        }
    }
    (whole, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_and_its_paths_are_told_apart() {
        let files = |path: &Path| matches!(path.to_str(), Some("a.img" | "b:c.img"));
        for (arguments, image, paths) in [
            (&["a.img"][..], "a.img", &[][..]),
            (&["a.img", "/x", "a.img:/y"], "a.img", &["/x", "a.img:/y"]),
            (&["a.img:/x"], "a.img", &["/x"]),
            (&[r"a.img:C:\x", "a.img:/y", "/z"], "a.img", &[r"C:\x", "/y", "/z"]),
            (&["b:c.img:/x"], "b:c.img", &["/x"]),
            (&["none.img:/x"], "none.img:/x", &[]),
            (&["nbd://h:1/e", "/x"], "nbd://h:1/e", &["/x"]),
        ] {
            let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
            let place = Place::parse_with(&arguments, &files).unwrap();
            assert_eq!(place.image, Path::new(image), "{arguments:?}");
            assert_eq!(place.paths, paths, "{arguments:?}");
        }
    }
}
