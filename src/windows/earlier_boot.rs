//! What the manifest in the guest says of edits of the boot volume by earlier runs. It is input from outside: it is judged
//! here.

use super::boot_check::{NO_GRAPHICS, TEST_SIGNING};
use super::staging::manifest::ManifestBoot;
use crate::drivers::Arch;
use crate::guid::Guid;
use crate::hex;
use crate::plan::fallback_loader;

/// Most edits that are listed.
const ITEMS_MAX: usize = 64;
/// Largest flag in bytes; Windows writes 1.
const FLAG_BYTES_MAX: usize = 8;

/// Edits of the boot volume by earlier runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EarlierBoot {
    pub files: Vec<EarlierFile>,
    pub elements: Vec<EarlierElement>,
}

/// A file that an earlier run wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EarlierFile {
    pub path: String,
    pub sha256: [u8; 32],
}

/// An element that an earlier run changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EarlierElement {
    pub object: String,
    pub element: String,
    /// What the run made of it; `None` if it removed it.
    pub data: Option<Vec<u8>>,
    /// What was there before the first run.
    pub before: Option<Vec<u8>>,
}

impl EarlierBoot {
    /// Takes what is listed, if winject can have written it; else why not.
    pub(super) fn judge(listed: ManifestBoot) -> std::result::Result<Self, String> {
        if listed.files.len() > ITEMS_MAX || listed.elements.len() > ITEMS_MAX {
            return Err("it lists more than winject writes".to_owned());
        }
        let mut out = Self::default();
        for file in listed.files {
            let is_loader =
                [Arch::Amd64, Arch::X86, Arch::Arm64].into_iter().any(|arch| file.path == fallback_loader(arch));
            let sha256 = hex::decode_array(&file.sha256);
            let sha256 = sha256.filter(|_| is_loader).ok_or_else(|| format!("winject writes no file {}", file.path))?;
            out.files.push(EarlierFile { path: file.path, sha256 });
        }
        for listed in listed.elements {
            let is_own = Guid::parse(&listed.object)
                .is_some_and(|guid| guid.braced().eq_ignore_ascii_case(&listed.object))
                && [NO_GRAPHICS, TEST_SIGNING].contains(&listed.element.as_str());
            let flag = |digits: Option<String>| {
                let Some(digits) = digits else { return Ok(None) };
                hex::decode(&digits).filter(|bytes| bytes.len() <= FLAG_BYTES_MAX).map(Some).ok_or("not a flag")
            };
            let (data, before) = (flag(listed.data)?, flag(listed.before)?);
            if !is_own || data == before {
                return Err(format!("winject writes no element {} of {}", listed.element, listed.object));
            }
            out.elements.push(EarlierElement { object: listed.object, element: listed.element, data, before });
        }
        Ok(out)
    }
}
