//! The elements of an OVF description (DSP0243) that name the disks: `References/File` and `DiskSection/Disk`.

use std::collections::HashMap;

use crate::error::{Error, Layer, Result};
use crate::escape::escape;
use crate::xml::Elements;

/// Most elements that are read; a description has a few hundred.
const ELEMENTS_MAX: usize = 100_000;

/// The attributes of the description's files and disks, by their local names.
#[derive(Debug, Default)]
pub(super) struct Ovf {
    files: Vec<HashMap<String, String>>,
    disks: Vec<HashMap<String, String>>,
}

impl Ovf {
    /// Finds the elements `File` and `Disk`, whatever their namespace prefix.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut ovf = Self::default();
        for (count, element) in Elements::new(text).enumerate() {
            if count >= ELEMENTS_MAX {
                let what = format!("the OVF description has more than {ELEMENTS_MAX} elements");
                return Err(Error::damaged(Layer::Block, what));
            }
            match element.name {
                "File" => ovf.files.push(element.attributes()),
                "Disk" => ovf.disks.push(element.attributes()),
                _ => {}
            }
        }
        Ok(ovf)
    }

    /// The member names of the disks, in their order.
    pub(super) fn disks(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for reference in self.disks.iter().filter_map(|d| d.get("fileRef")) {
            let Some(file) = self.files.iter().find(|f| f.get("id") == Some(reference)) else {
                return Err(Error::damaged(
                    Layer::Block,
                    format!("the OVF description has a disk without a file: {}", escape(reference)),
                ));
            };
            if file.get("compression").is_some_and(|c| !c.is_empty() && c != "identity")
                || file.contains_key("chunkSize")
            {
                return Err(Error::unsupported(
                    Layer::Block,
                    "an OVA whose disks are compressed as whole files, or split",
                )
                .hint("unpack the OVA and its disks, and give winject the disk image"));
            }
            if let Some(name) = file.get("href").filter(|n| !names.contains(*n)) {
                names.push(name.clone());
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_in_their_order() {
        let text = r#"<?xml version="1.0"?><!-- <File ovf:id="no"/> --><Envelope xmlns="x > y">
            <References><File ovf:href="b &amp; c.vmdk" ovf:id="f2" ovf:size="1"/><ovf:File ovf:id='f1' ovf:href='a.vmdk'/>
            <File ovf:href="notes.nvram" ovf:id="f3"/></References>
            <DiskSection><Info>Disks</Info><Disk ovf:diskId="d1" ovf:fileRef="f1"/><Disk ovf:fileRef="f2"/><Disk ovf:diskId="empty"/></DiskSection>"#;
        assert_eq!(Ovf::parse(text).unwrap().disks().unwrap(), ["a.vmdk", "b & c.vmdk"]);
    }

    #[test]
    fn compressed_files_are_refused() {
        let text = r#"<File ovf:href="a.vmdk.gz" ovf:id="f" ovf:compression="gzip"/><Disk ovf:fileRef="f"/>"#;
        assert!(Ovf::parse(text).unwrap().disks().is_err());
    }

    #[test]
    fn broken_text_has_no_disks() {
        for text in ["<", "<File ovf:id=", "<File a='", "<!--", "<File \u{e4}=\"\u{1F600}", "=<=<=>"] {
            assert!(Ovf::parse(text).unwrap().disks().unwrap().is_empty());
        }
    }
}
