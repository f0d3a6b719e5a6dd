//! `ReAgent.xml`, in which `reagentc.exe` keeps what it set up. Microsoft describes it nowhere: names and meanings are those
//! of real files.

use super::describe::RecoveryState;
use crate::escape::shorten;
use crate::guid::Guid;
use crate::partition::{DiskId, Partition};
use crate::xml::Elements;

/// Most characters of a folder that are taken: Windows has no longer path there. What is cut exists nowhere.
const FOLDER_MAX: usize = 260;
/// Most elements that are read; a real file has about 20.
const ELEMENTS_MAX: usize = 1000;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Configuration {
    /// Whether the recovery environment is enabled; unknown where it does not say.
    pub(super) state: RecoveryState,
    /// Where its image is, while it is enabled.
    pub(super) location: Option<Location>,
}

/// A folder on a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// The folder, with `/` between names.
    pub(super) folder: String,
    /// First byte of the partition on its disk.
    pub(super) start: u64,
    /// GUID of a GPT disk; zero for another one.
    disk: Guid,
}

impl Configuration {
    /// Reads the file, in UTF-8, or in UTF-16 with a mark.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let (text, _, _) = encoding_rs::UTF_8.decode(bytes);
        let mut configuration = Self::default();
        for element in Elements::new(&text).take(ELEMENTS_MAX) {
            let attributes = element.attributes();
            let get = |name: &str| attributes.get(name).map(String::as_str).unwrap_or_default();
            match element.name {
                "InstallState" => {
                    configuration.state = match get("state").parse::<u32>() {
                        Ok(0) => RecoveryState::Disabled,
                        Ok(_) => RecoveryState::Enabled,
                        Err(_) => RecoveryState::Unknown,
                    };
                }
                "WinreLocation" if !get("path").is_empty() => {
                    configuration.location = get("offset").parse().ok().map(|start| Location {
                        folder: shorten(get("path").replace('\\', "/").trim_end_matches('/'), FOLDER_MAX).into_owned(),
                        start,
                        disk: Guid::parse(get("guid")).unwrap_or_default(),
                    });
                }
                _ => {}
            }
        }
        configuration
    }
}

impl Location {
    /// Whether it is on this partition of a disk with this id.
    pub(super) fn is_on(&self, partition: &Partition, disk: Option<DiskId>) -> bool {
        let is_disk = match disk {
            Some(DiskId::Gpt(disk)) => self.disk.is_zero() || self.disk == disk,
            // No sample shows how the file spells the signature of an MBR: the offset alone decides.
            Some(DiskId::Mbr(_)) | None => true,
        };
        is_disk && partition.start.0 == self.start
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENABLED: &str = "\u{feff}<?xml version='1.0' encoding='utf-8'?>\r\n\r\n<WindowsRE version=\"2.0\">\r\n  \
        <WinreBCD id=\"{d9ebf8fe-279b-11e3-8baa-937d583d467a}\"/>\r\n  \
        <WinreLocation path=\"\\Recovery\\WindowsRE\" id=\"0\" offset=\"1048576\" \
        guid=\"{1bbe1186-b3bb-4a08-af22-264b3379d8cd}\"/>\r\n  <ImageLocation path=\"\" id=\"0\" offset=\"0\" \
        guid=\"{00000000-0000-0000-0000-000000000000}\"/>\r\n  <InstallState state=\"1\"/>\r\n</WindowsRE>\r\n";

    #[test]
    fn every_encoding_says_the_same() {
        let expected = Configuration {
            state: RecoveryState::Enabled,
            location: Some(Location {
                folder: "/Recovery/WindowsRE".to_owned(),
                start: 1 << 20,
                disk: Guid::parse("1bbe1186-b3bb-4a08-af22-264b3379d8cd").unwrap(),
            }),
        };
        let utf16: Vec<u8> = ENABLED.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [ENABLED.as_bytes(), ENABLED.trim_start_matches('\u{feff}').as_bytes(), &utf16] {
            assert_eq!(Configuration::parse(bytes), expected);
        }
    }

    #[test]
    fn what_is_disabled_has_no_place() {
        let text = ENABLED
            .replace("\\Recovery\\WindowsRE", "")
            .replace("InstallState state=\"1\"", "InstallState state=\"0\"");
        let expected = Configuration { state: RecoveryState::Disabled, location: None };
        assert_eq!(Configuration::parse(text.as_bytes()), expected);
        assert_eq!(Configuration::parse(b""), Configuration::default());
    }

    #[test]
    fn an_endless_folder_is_cut() {
        let text = ENABLED.replace("\\Recovery\\WindowsRE", &"\\Recovery".repeat(50_000));
        let folder = Configuration::parse(text.as_bytes()).location.unwrap().folder;
        assert_eq!(folder.chars().count(), 260);
        assert!(folder.starts_with("/Recovery/Recovery") && folder.ends_with('…'), "{folder}");
    }

    proptest! {
        /// No file keeps it from an answer.
        #[test]
        fn every_mutant_has_an_answer(cuts in prop::collection::vec((0..ENABLED.len(), any::<u8>()), 0..20)) {
            let mut bytes = ENABLED.as_bytes().to_vec();
            for (at, byte) in cuts {
                bytes[at] = byte;
            }
            let _ = Configuration::parse(&bytes);
        }
    }
}
