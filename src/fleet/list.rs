//! Lists of images: patterns, and lists that another program made.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use glob::MatchOptions;

use crate::error::{Error, Kind, Layer, Result};
use crate::host::{is_nbd_name, is_reserved};

/// Largest list that is read, in bytes.
pub const LIST_BYTES_MAX: u64 = 64 << 20;

/// Most images of one batch.
const IMAGES_MAX: usize = 1_000_000;

/// The paths of a list: separated by NUL if it has one, else each on a line of its own. They are taken as they stand.
#[must_use]
pub fn parse_list(bytes: &[u8]) -> Vec<PathBuf> {
    let separator = if bytes.contains(&0) { 0 } else { b'\n' };
    let paths = bytes.split(|byte| *byte == separator).filter(|path| !path.is_empty());
    paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
}

/// The images that an argument stands for: a file of exactly this name, else those that the pattern matches, sorted. `folder`
/// is what a relative pattern is relative to, and the paths are relative if it is. A name without `*`, `?` and `[` stands for
/// itself, whether or not there is such a file.
///
/// # Errors
/// [`Kind::Usage`] when the pattern is wrong or matches no file; [`Kind::Io`] when a folder cannot be read.
pub fn expand(argument: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    // The address of an image on a server may have a `?`.
    let has_pattern =
        !is_nbd_name(argument) && argument.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte));
    if !has_pattern || folder.join(argument).symlink_metadata().is_ok() {
        return Ok(vec![argument.to_owned()]);
    }
    let shown = argument.display().to_string();
    let usage = |message: String| Error::new(Kind::Usage, Layer::Job, message).path(&shown);
    let place = folder.join(argument);
    let pattern = match (argument.to_str(), folder.to_str()) {
        (Some(text), Some(folder)) if !argument.is_absolute() && !folder.is_empty() => {
            format!("{}/{text}", glob::Pattern::escape(folder))
        }
        (Some(text), Some(_)) => text.to_owned(),
        _ => {
            return Err(usage("cannot use the pattern: not UTF-8".to_owned())
                .hint("give the images as a list: `-` reads it from standard input"));
        }
    };
    let options =
        MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let found = glob::glob_with(&pattern, options).map_err(|error| {
        usage(format!("cannot use the pattern: {}", error.msg))
            .hint("`*`, `?` and `[…]` match within a name, `**` matches folders")
    })?;
    let mut paths = Vec::new();
    for path in found {
        let path = path.map_err(|error| {
            let at = error.path().display().to_string();
            Error::io(Layer::Host, "cannot read a folder of the pattern", error.into())
                .path(at)
                .hint("check its permissions")
        })?;
        if paths.len() >= IMAGES_MAX {
            return Err(usage(format!("more than {IMAGES_MAX} images")).hint("give a narrower pattern"));
        }
        if is_image_name(&path) {
            paths.push(path.strip_prefix(folder).map_or(path.clone(), Path::to_owned));
        }
    }
    if paths.is_empty() {
        let message = "the pattern matches no file";
        return Err(usage(message.to_owned()).hint(format!("check the folder: {}", folder_hint(&place))));
    }
    Ok(paths)
}

/// Whether a pattern may mean this file: not a folder, and not one of the files that winject leaves next to images.
fn is_image_name(path: &Path) -> bool {
    !is_reserved(path) && std::fs::metadata(path).is_ok_and(|meta| !meta.is_dir())
}

/// The command that lists the folder of a pattern up to its first wildcard.
fn folder_hint(pattern: &Path) -> String {
    let is_plain =
        |part: &&std::path::Component<'_>| !part.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte));
    let folder: PathBuf = pattern.components().collect::<Vec<_>>().iter().take_while(is_plain).collect();
    let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
    format!("ls {}", crate::escape::shell_argument(&folder, "FOLDER"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_nul_has_lines_in_its_names() {
        let paths = |bytes: &[u8]| parse_list(bytes).iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        assert_eq!(paths(b"a\nb c\n\n*.raw"), ["a", "b c", "*.raw"]);
        assert_eq!(paths(b"a\nb\0c\0"), ["a\nb", "c"]);
        assert!(paths(b"").is_empty());
        assert_eq!(parse_list(b"\xff\n")[0].as_os_str().as_bytes(), b"\xff");
    }

    #[test]
    fn a_pattern_matches_images_and_a_name_itself() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for name in ["a.raw", "b.raw", "a.raw.winject-undo", ".c.raw", "[x].raw"] {
            std::fs::write(at.join(name), b"x").unwrap();
        }
        std::fs::create_dir(at.join("d.raw")).unwrap();
        let found = |pattern: &str| expand(Path::new(pattern), at).unwrap();
        assert_eq!(found("*.raw*"), ["[x].raw", "a.raw", "b.raw"].map(PathBuf::from));
        assert_eq!(found("[x].raw"), [PathBuf::from("[x].raw")]);
        assert_eq!(found("none.raw"), [PathBuf::from("none.raw")]);
        let address = "nbd+unix:///export?socket=/run/s";
        assert_eq!(found(address), [PathBuf::from(address)]);
        for pattern in ["*.qcow2", "none/*", "[", "a/***b"] {
            let error = expand(Path::new(pattern), at).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{pattern}: {error}");
        }
    }
}
