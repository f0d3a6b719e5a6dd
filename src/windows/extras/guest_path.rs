//! Paths of the guest as a user types them.

use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::plan::saved::judge_upload_path;
use crate::windows::inspect::guest::Guest;

/// The path on the volume for a path of the guest: `C:\Tools\x.exe` or `\Tools\x.exe`. The guest is not looked at.
///
/// # Errors
/// [`Kind::Usage`] for every path that is not one of a new file of the Windows volume.
pub fn parse(text: &str, guest: &Guest) -> Result<String> {
    let drive = guest.drive();
    to_volume_path(text, drive, &guest.windows_dir).map_err(|why| wrong(text, drive, &why))
}

fn to_volume_path(text: &str, drive: &str, windows_dir: &str) -> std::result::Result<String, String> {
    let below = match text.split_once('\\') {
        Some(("", rest)) => rest,
        Some((found, rest)) if found.eq_ignore_ascii_case(drive) => rest,
        Some((found, _)) if found.len() == 2 && found.ends_with(':') => {
            return Err(format!("Windows is on {drive}, and files go to its volume only"));
        }
        _ => return Err(format!("it begins neither with {drive}\\ nor with \\")),
    };
    if below.contains('/') {
        return Err("it has a slash where Windows has a backslash".to_owned());
    }
    if below.split('\\').any(|name| name == "." || name == "..") {
        return Err("it leads over . or ..".to_owned());
    }
    if below.split('\\').any(str::is_empty) {
        return Err("it does not end with the name of a file, or has two backslashes in a row".to_owned());
    }
    let path = format!("/{}", below.replace('\\', "/"));
    judge_upload_path(&path, windows_dir)?;
    Ok(path)
}

fn wrong(text: &str, drive: &str, why: &str) -> Error {
    Error::new(Kind::Usage, Layer::Windows, format!("cannot upload to {text}: {why}"))
        .with_code(ErrorCode::Upload)
        .hint(format!(
            "name a new file outside of the Windows folder, in quotes: --upload 'tool.exe={drive}\\Tools\\tool.exe'"
        ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Option<String> {
        to_volume_path(text, "C:", "/Windows").ok()
    }

    #[test]
    fn paths_of_the_windows_volume_are_taken_and_no_others() {
        for (text, expected) in [
            ("C:\\Tools\\x.exe", "/Tools/x.exe"),
            ("c:\\x", "/x"),
            ("\\Program Files\\A b\\c.txt", "/Program Files/A b/c.txt"),
            ("C:\\ä=b.txt", "/ä=b.txt"),
        ] {
            assert_eq!(path(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            "C:",
            "C:\\",
            "\\",
            "C:x",
            "x",
            "x\\y",
            "D:\\x",
            "CC:\\x",
            "C:/x",
            "C:\\a/b",
            "\\\\server\\share\\x",
            "\\\\?\\C:\\x",
            "\\??\\C:\\x",
            "C:\\a\\..\\b",
            "C:\\.\\b",
            "C:\\a\\\\b",
            "C:\\a\\",
            "C:\\a:stream",
            "C:\\a\\NUL",
            "C:\\com1.txt",
            "C:\\a.",
            "C:\\a \\b",
            "C:\\a*",
            "C:\\a\tb",
            "C:\\Windows\\x.dll",
            "C:\\wInDoWs\\a\\b",
            "C:\\hyper2kvm\\x",
            "C:\\HYPER2~1\\x",
            "C:\\$MFT",
            "C:\\bootmgr",
            "C:\\pagefile.sys",
            "Ω:\\x",
        ] {
            assert_eq!(path(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_absolute_path_or_an_error(text in prop_oneof![any::<String>(), "[cC]:(\\\\[a-zA-Z.~ :$]{0,5}){0,4}"]) {
            if let Some(path) = path(&text) {
                prop_assert!(path.starts_with('/') && !path.contains('\\') && !path.contains(':'));
                prop_assert!(text.ends_with(&path.replace('/', "\\")));
                prop_assert!(!path.to_lowercase().starts_with("/windows/"));
            }
        }
    }
}
