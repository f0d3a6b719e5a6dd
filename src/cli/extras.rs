//! Options for what a user puts into the guest in addition to drivers.

use std::path::PathBuf;

use super::numbers::parse_number;
use crate::windows::{ExtrasOptions, SCRIPT_SECONDS, Upload};

// Additions of the user to the guest: the same for `inject`, `plan`, `convert --drivers` and a document
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ExtrasArgs {
    /// Put a file of the host into the guest, where no other file is yet: 'tool.exe=C:\Tools\tool.exe' (in quotes); missing
    /// folders are made; repeatable
    #[arg(long, value_name = "HOST=GUEST", value_parser = parse_upload)]
    pub upload: Vec<Upload>,

    /// Run this script or program (.cmd, .bat, .ps1, .exe, .msi) at the first start, after drivers and network; repeatable, in
    /// this order
    #[arg(long, value_name = "FILE")]
    pub firstboot: Vec<PathBuf>,

    /// End each of them after this time [default: 600]
    #[arg(long, value_name = "SECONDS", requires = "firstboot", value_parser = parse_timeout)]
    pub firstboot_timeout: Option<u32>,

    /// Install the QEMU guest agent at the first start, from the driver media
    #[arg(long)]
    pub guest_agent: bool,
}

impl ExtrasArgs {
    /// The files of the host that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.upload.iter().map(|upload| &upload.file).chain(&self.firstboot)
    }

    /// The options of the job.
    #[must_use]
    pub fn options(&self) -> ExtrasOptions {
        ExtrasOptions {
            uploads: self.upload.clone(),
            scripts: self.firstboot.clone(),
            script_seconds: self.firstboot_timeout.unwrap_or(SCRIPT_SECONDS),
            guest_agent: self.guest_agent,
        }
    }
}

/// Parses how long a script may run, in seconds.
///
/// # Errors
/// The numbers that are allowed, for any other text.
pub fn parse_timeout(text: &str) -> Result<u32, String> {
    parse_number(text, 1..=86_400)
}

/// Parses `HOST=GUEST`. A name on either side may hold an equals sign: the path in the guest begins at the first one that
/// a backslash or a drive with a backslash follows.
///
/// # Errors
/// The form that is expected, when it is another one.
pub fn parse_upload(text: &str) -> Result<Upload, String> {
    let begins_path = |rest: &str| {
        rest.starts_with('\\') || matches!(rest.as_bytes(), [drive, b':', b'\\', ..] if drive.is_ascii_alphabetic())
    };
    let parts = text.match_indices('=').map(|(at, _)| (text.get(..at), text.get(at + 1..)));
    let found = parts.filter_map(|(host, guest)| host.zip(guest)).find(|(_, guest)| begins_path(guest));
    match found {
        Some((host, guest)) if !host.is_empty() => Ok(Upload { file: PathBuf::from(host), guest: guest.to_owned() }),
        _ => Err(r"write HOST=GUEST with a path of Windows, in quotes: 'tool.exe=C:\Tools\tool.exe'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_in_the_guest_begins_with_a_drive_or_a_backslash() {
        for (text, host, guest) in [
            (r"a=C:\b", "a", r"C:\b"),
            (r"a=\b", "a", r"\b"),
            (r"/x/k=v.txt=c:\b=d", "/x/k=v.txt", r"c:\b=d"),
            (r"a==\b", "a=", r"\b"),
        ] {
            let arg = parse_upload(text).unwrap();
            assert_eq!((arg.file, arg.guest.as_str()), (PathBuf::from(host), guest), "{text}");
        }
        for text in ["", "a", "a=", r"=C:\b", "a=b", "a=C:b", "a=C:/b", "a=/b", r"a=CC:\b", "a=C:Toolsx.exe"] {
            assert!(parse_upload(text).is_err(), "{text}");
        }
    }
}
