//! Lists of images: patterns, and lists that another program made.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use glob::MatchOptions;

use crate::error::{Error, Kind, Layer, Result};
use crate::host::{is_nbd_name, is_reserved};

/// Largest list that is read, in bytes.
pub const LIST_BYTES_MAX: u64 = 64 << 20;

/// Most images of one batch.
const IMAGES_MAX: usize = 1_000_000;

/// The paths of a list: separated by NUL if it has one, else each on a line of its own. They are taken as they stand, but for
/// what a program of Windows adds: a byte order mark, and a carriage return at the end of every line.
#[must_use]
pub fn parse_list(bytes: &[u8]) -> Vec<PathBuf> {
    let path = |path: &[u8]| PathBuf::from(OsStr::from_bytes(path));
    if bytes.contains(&0) {
        return bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(path).collect();
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // One name alone may end so; a last line without an end has none of the two.
    let has_returns = bytes.split_inclusive(|byte| *byte == b'\n').all(|line| match line {
        [b'\n'] => false,
        line => !line.ends_with(b"\n") || line.ends_with(b"\r\n"),
    });
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| if has_returns { line.strip_suffix(b"\r").unwrap_or(line) } else { line });
    lines.filter(|line| !line.is_empty()).map(path).collect()
}

/// The images that an argument stands for: a file of exactly this name, else those that the pattern matches, sorted. `folder`
/// is what a relative pattern is relative to, and the paths are relative if it is. A name without `*`, `?` and `[` stands for
/// itself, whether or not there is such a file.
///
/// # Errors
/// [`Kind::Usage`] when the pattern is wrong or matches no file; [`Kind::Io`] when a folder cannot be read.
pub fn expand(argument: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    // The address of an image on a server may have a `?`.
    let has_pattern = !is_nbd_name(argument) && has_wildcard(argument.as_os_str());
    if !has_pattern || folder.join(argument).symlink_metadata().is_ok() {
        return Ok(vec![argument.to_owned()]);
    }
    let shown = argument.display().to_string();
    let usage = |message: String| Error::new(Kind::Usage, Layer::Job, message).path(&shown);
    let Some(text) = argument.to_str() else {
        return Err(usage("cannot use the pattern: not UTF-8".to_owned())
            .hint("give the images as a list: `-` reads it from standard input"));
    };
    let wrong = |error: glob::PatternError| {
        usage(format!("cannot use the pattern: {}", error.msg))
            .hint("`*`, `?` and `[…]` match within a name, `**` matches folders")
    };
    glob::Pattern::new(text).map_err(wrong)?;
    let mut parts = Vec::new();
    for component in argument.components() {
        let part = match component {
            Component::CurDir => continue,
            Component::Normal(name) if name == "**" => Part::Folders,
            Component::Normal(name) if has_wildcard(name) => {
                Part::Pattern(glob::Pattern::new(&name.to_string_lossy()).map_err(wrong)?)
            }
            other => Part::Name(other.as_os_str()),
        };
        if !(matches!(part, Part::Folders) && matches!(parts.last(), Some(Part::Folders))) {
            parts.push(part);
        }
    }
    let mut paths = Vec::new();
    add_matches(folder, Path::new(""), &parts, &mut paths)?;
    paths.sort_unstable();
    paths.dedup();
    if paths.len() > IMAGES_MAX {
        return Err(usage(format!("more than {IMAGES_MAX} images")).hint("give a narrower pattern"));
    }
    let place = folder.join(argument);
    if paths.is_empty() {
        let message = "the pattern matches no file";
        return Err(usage(message.to_owned()).hint(format!("check the folder: {}", folder_hint(&place))));
    }
    Ok(paths)
}

/// Whether a name, or one of its parts, has a character that makes it a pattern.
fn has_wildcard(name: &OsStr) -> bool {
    name.as_bytes().iter().any(|byte| b"*?[".contains(byte))
}

/// A part of a pattern between slashes.
#[derive(Debug)]
enum Part<'a> {
    /// `**`: any number of folders, without hidden ones and links.
    Folders,
    Pattern(glob::Pattern),
    /// Itself.
    Name(&'a OsStr),
}

/// Adds the files below `path` that `parts` match, no more than one over [`IMAGES_MAX`]; `path` is as they are shown, relative to
/// `folder`. Names that are not UTF-8 are matched with a replacement character for what is not.
fn add_matches(folder: &Path, path: &Path, parts: &[Part<'_>], found: &mut Vec<PathBuf>) -> Result<()> {
    let Some((part, rest)) = parts.split_first() else {
        if found.len() <= IMAGES_MAX && is_image_name(&folder.join(path)) {
            found.push(path.to_owned());
        }
        return Ok(());
    };
    match part {
        Part::Name(name) => return add_matches(folder, &path.join(name), rest, found),
        // As the last part it stands for folders, which are no images.
        Part::Folders if rest.is_empty() => return Ok(()),
        Part::Folders => add_matches(folder, path, rest, found)?,
        Part::Pattern(_) => {}
    }
    for (name, is_folder) in entries_of(&folder.join(path))? {
        let shown = name.to_string_lossy();
        match part {
            Part::Folders if is_folder && !shown.starts_with('.') => {
                add_matches(folder, &path.join(&name), parts, found)?;
            }
            Part::Pattern(pattern) if pattern.matches_with(&shown, OPTIONS) => {
                add_matches(folder, &path.join(&name), rest, found)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A `*` at the start of a name does not mean hidden files.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The names in a folder, each with whether it is a folder itself (not a link to one); none if it is not there or no folder.
fn entries_of(folder: &Path) -> Result<Vec<(OsString, bool)>> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let read = || {
        let entry = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.map(|entry| (entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_dir())))
        };
        std::fs::read_dir(folder)?.map(entry).collect::<std::io::Result<Vec<_>>>()
    };
    match read() {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
        read => read.map_err(|error| {
            Error::io(Layer::Host, "cannot read a folder of the pattern", error)
                .path(folder.display().to_string())
                .hint("check its permissions")
        }),
    }
}

/// Whether a pattern may mean this file: not a folder, and not one of the files that winject leaves next to images. A link that
/// leads to no file is an image that is missing, and no reason to leave it out without a word.
fn is_image_name(path: &Path) -> bool {
    use std::io::ErrorKind::NotFound;
    !is_reserved(path)
        && match std::fs::metadata(path) {
            Ok(meta) => !meta.is_dir(),
            Err(error) => error.kind() == NotFound && path.is_symlink(),
        }
}

/// The command that lists the folder of a pattern up to its first wildcard.
fn folder_hint(pattern: &Path) -> String {
    let folder: PathBuf = pattern.components().take_while(|part| !has_wildcard(part.as_os_str())).collect();
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
        assert_eq!(paths(b"\xef\xbb\xbfa\r\nb c\r\n\r\nd"), ["a", "b c", "d"]);
        // A name that ends so among others is what it is.
        assert_eq!(paths(b"a\r\nb\n"), ["a\r", "b"]);
        assert_eq!(paths(b"a\r\0b\r\0"), ["a\r", "b\r"]);
        assert_eq!(parse_list(b"\xff\n")[0].as_os_str().as_bytes(), b"\xff");
    }

    #[test]
    fn a_pattern_matches_images_and_a_name_itself() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for name in ["a.raw", "b.raw", "a.raw.winject-undo", ".c.raw", "[x].raw"] {
            std::fs::write(at.join(name), b"x").unwrap();
        }
        let odd = OsStr::from_bytes(b"odd-\xff.img");
        std::fs::write(at.join(odd), b"x").unwrap();
        std::fs::create_dir(at.join("d.raw")).unwrap();
        std::os::unix::fs::symlink("nowhere", at.join("lost.vmdk")).unwrap();
        for name in ["deep/er/c.img", "deep/.snapshots/c.img"] {
            std::fs::create_dir_all(at.join(name).parent().unwrap()).unwrap();
            std::fs::write(at.join(name), b"x").unwrap();
        }
        let found = |pattern: &str| expand(Path::new(pattern), at).unwrap();
        assert_eq!(found("*.raw*"), ["[x].raw", "a.raw", "b.raw"].map(PathBuf::from));
        assert_eq!(found("*.img"), [PathBuf::from(odd)]);
        assert_eq!(found("*.vmdk"), [PathBuf::from("lost.vmdk")]);
        assert_eq!(found("**/*.img"), [PathBuf::from("deep/er/c.img"), PathBuf::from(odd)]);
        assert_eq!(found("./d*/*/[c].img"), [PathBuf::from("deep/er/c.img")]);
        let absolute = at.join("?.raw");
        assert_eq!(found(absolute.to_str().unwrap()), [at.join("a.raw"), at.join("b.raw")]);
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
