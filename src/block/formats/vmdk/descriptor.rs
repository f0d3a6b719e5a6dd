//! The descriptor: the text that names a disk's extents and its parent.
//!
//! Source: VMware, "Virtual Disk Format 5.0", chapter "The Descriptor File".

use crate::error::{Error, Layer, Result};
use crate::escape::escape;

/// Largest descriptor accepted, in bytes. A disk of a thousand extents has about 60 KiB.
pub(crate) const DESCRIPTOR_MAX: u64 = 4 << 20;

/// Extents that a disk may have; 8 TiB in parts of 2 GiB are 4096.
const EXTENTS_MAX: usize = 8192;

/// The `parentCID` of a disk without parent.
const NO_PARENT: u32 = 0xFFFF_FFFF;

/// Kind of an extent, as its line states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtentType {
    /// `FLAT` or `VMFS`: the bytes as they are.
    Flat,
    /// `SPARSE`: a hosted sparse extent.
    Sparse,
    /// `ZERO`: no file, reads as zeros.
    Zero,
    /// `VMFSSPARSE`: a COWD extent.
    Cowd,
    /// `SESPARSE`: a seSparse extent.
    SeSparse,
}

impl ExtentType {
    /// The word in the descriptor (`VMFS` is the same as `FLAT`).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Flat => "FLAT",
            Self::Sparse => "SPARSE",
            Self::Zero => "ZERO",
            Self::Cowd => "VMFSSPARSE",
            Self::SeSparse => "SESPARSE",
        }
    }
}

/// One extent line: `ACCESS SECTORS TYPE "file" OFFSET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExtentLine {
    /// Sectors of the disk that the extent makes up.
    pub(crate) sectors: u64,
    pub(crate) kind: ExtentType,
    /// The file's name; empty for `ZERO`.
    pub(crate) file: String,
    /// First sector in the file (flat extents only).
    pub(crate) offset: u64,
}

/// A parsed descriptor. Names come from the image: escape them before printing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// Identity of the content; changes when the content does.
    pub(crate) cid: u32,
    /// `cid` of the parent when the snapshot was taken; `None` without parent.
    pub(crate) parent_cid: Option<u32>,
    /// Path of the parent on the machine that took the snapshot.
    pub(crate) parent_hint: Option<String>,
    /// `createType`, which only serves reports.
    pub(crate) create_type: String,
    /// The extents in guest order.
    pub(crate) extents: Vec<ExtentLine>,
    /// How QEMU reads the same text.
    pub(crate) in_qemu: InQemu,
}

/// How QEMU (block/vmdk.c) reads a descriptor: it looks for `key="value"` in the text, without blanks, and skips extent
/// lines of other forms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InQemu {
    /// Whether it finds the same ids and the same name of the parent.
    pub(crate) is_same_head: bool,
    /// Whether it finds the same `createType` and the same extents.
    pub(crate) is_same_disk: bool,
}

impl InQemu {
    /// Longest descriptor that QEMU reads; of the ids and the parent's name it reads the first part only.
    const TEXT_MAX: usize = (1 << 20) - 1;
    const HEAD_MAX: usize = 20 * 512;

    fn new(raw: &[u8], ours: &Descriptor) -> Self {
        let raw = raw.split(|b| *b == 0).next().unwrap_or_default();
        let head = String::from_utf8_lossy(raw.get(..Self::HEAD_MAX).unwrap_or(raw));
        let id = |key: &str| head.split_once(key).and_then(|(_, after)| hex_prefix(after));
        let parent = ours.parent_cid.unwrap_or(NO_PARENT);
        let is_same_head = id("CID=").unwrap_or(0) == ours.cid
            && id("parentCID=").unwrap_or(NO_PARENT) == parent
            && quoted(&head, "parentFileNameHint") == ours.parent_hint.as_deref();
        let text = String::from_utf8_lossy(raw);
        let is_same_disk = raw.len() <= Self::TEXT_MAX
            && quoted(&text, "createType") == Some(ours.create_type.as_str())
            && Self::extents(&text).is_some_and(|extents| extents == ours.extents);
        Self { is_same_head, is_same_disk }
    }

    /// The extents that QEMU finds; `None` where it gives up.
    fn extents(text: &str) -> Option<Vec<ExtentLine>> {
        let mut found = Vec::new();
        for line in text.split('\n') {
            let Some((head, rest)) = line.split_once('"') else { continue };
            let [access, sectors, kind] = head.split_whitespace().collect::<Vec<_>>()[..] else { continue };
            let (file, after) = rest.split_once(['"', '\r']).unwrap_or((rest, ""));
            let (Ok(sectors), "RW", false) = (sectors.parse(), access, file.is_empty()) else { continue };
            let offset = after.split_whitespace().next();
            let (kind, offset) = match (kind, offset.map(str::parse)) {
                ("FLAT", Some(Ok(offset))) => (ExtentType::Flat, offset),
                ("VMFS", None) => (ExtentType::Flat, 0),
                ("SPARSE", None) => (ExtentType::Sparse, 0),
                ("VMFSSPARSE", None) => (ExtentType::Cowd, 0),
                ("SESPARSE", None) => (ExtentType::SeSparse, 0),
                ("FLAT" | "VMFS" | "SPARSE" | "VMFSSPARSE" | "SESPARSE", _) => return None,
                _ => continue,
            };
            found.push(ExtentLine { sectors, kind, file: file.to_owned(), offset });
        }
        Some(found)
    }
}

/// The text between the quotes of the first `key="…"`, without blanks around the equals sign.
fn quoted<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(key)?;
    after.strip_prefix("=\"")?.split_once('"').map(|(value, _)| value)
}

fn hex_prefix(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
    u32::from_str_radix(&text[..end], 16).ok()
}

impl Descriptor {
    /// A descriptor for a disk that consists of one extent file without a descriptor.
    pub(super) fn of_extent(kind: ExtentType, sectors: u64) -> Self {
        let extent = ExtentLine { sectors, kind, file: String::new(), offset: 0 };
        Self { create_type: String::from("custom"), extents: vec![extent], ..Self::default() }
    }

    /// Parses the bytes of a descriptor, NUL padding included.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self> {
        let text = decode(raw);
        let mut descriptor = Self::default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(extent) = ExtentLine::parse(line)? {
                if descriptor.extents.len() >= EXTENTS_MAX {
                    return Err(Error::damaged(Layer::Block, format!("the VMDK has more than {EXTENTS_MAX} extents")));
                }
                descriptor.extents.push(extent);
            } else if let Some((key, value)) = line.split_once('=') {
                descriptor.set(&key.trim().to_ascii_lowercase(), value.trim().trim_matches('"'))?;
            }
        }
        descriptor.in_qemu = InQemu::new(raw, &descriptor);
        Ok(descriptor)
    }

    /// Sets the field that the line `key=value` belongs to; other keys are ignored.
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let id = || {
            u32::from_str_radix(value, 16).map_err(|_| {
                Error::damaged(Layer::Block, format!("the VMDK's {key} is not a number"))
                    .expected_found("eight hexadecimal digits", escape(value))
            })
        };
        match key {
            "version" if !matches!(value, "1" | "2" | "3" | "4") => {
                return Err(Error::unsupported(Layer::Block, format!("VMDK descriptor version {}", escape(value)))
                    .hint("convert the disk with vmware-vdiskmanager or qemu-img first"));
            }
            "cid" => self.cid = id()?,
            "parentcid" => self.parent_cid = Some(id()?).filter(|id| *id != NO_PARENT),
            "parentfilenamehint" => self.parent_hint = Some(value.to_owned()),
            "createtype" => self.create_type = value.to_owned(),
            _ => {}
        }
        Ok(())
    }
}

impl ExtentLine {
    /// `None` when the line is not an extent line.
    fn parse(line: &str) -> Result<Option<Self>> {
        let (head, quoted) = match line.split_once('"') {
            Some((head, rest)) => (head, Some(rest)),
            None => (line, None),
        };
        let mut words = head.split_whitespace();
        let access = words.next().unwrap_or_default();
        if !["RW", "RDONLY", "NOACCESS"].contains(&access.to_ascii_uppercase().as_str()) {
            return Ok(None);
        }
        let bad = || {
            Error::damaged(Layer::Block, "cannot parse an extent line of the VMDK's descriptor")
                .expected_found("ACCESS SECTORS TYPE \"file\" OFFSET", escape(line))
        };
        let sectors: u64 = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
        let kind = match words.next().ok_or_else(bad)?.to_ascii_uppercase().as_str() {
            "FLAT" | "VMFS" => ExtentType::Flat,
            "SPARSE" => ExtentType::Sparse,
            "ZERO" => ExtentType::Zero,
            "VMFSSPARSE" => ExtentType::Cowd,
            "SESPARSE" => ExtentType::SeSparse,
            "VMFSRDM" | "VMFSRAW" | "VMFSRDMP" => {
                return Err(Error::unsupported(Layer::Block, "this VMDK refers to a raw device (RDM)")
                    .hint("clone the disk to a VMDK file first, for instance with vmkfstools -i"));
            }
            other => return Err(Error::unsupported(Layer::Block, format!("VMDK extents of type {}", escape(other)))),
        };
        let (file, after) = match quoted {
            Some(rest) => split_name(rest).ok_or_else(bad)?,
            None => ("", ""),
        };
        // NOACCESS extents read as zeros.
        let kind = if access.eq_ignore_ascii_case("NOACCESS") { ExtentType::Zero } else { kind };
        if kind != ExtentType::Zero && file.is_empty() {
            return Err(bad());
        }
        let offset = match after.split_whitespace().next() {
            Some(word) if kind == ExtentType::Flat && !word.starts_with('"') => word.parse().map_err(|_| bad())?,
            _ => 0,
        };
        Ok(Some(Self { sectors, kind, file: file.to_owned(), offset }))
    }
}

/// Splits the file's name from what follows its quote: nothing, the offset, or more values. A name can have quotes, so
/// that the first quote which is followed so ends it.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let is_end = |after: &str| match after.trim_start() {
        "" => true,
        rest => rest.len() < after.len() && rest.starts_with(|c: char| c.is_ascii_digit() || c == '"'),
    };
    let quotes = text.match_indices('"').map(|(at, _)| (&text[..at], &text[at + 1..]));
    quotes.clone().find(|(_, after)| is_end(after)).or_else(|| quotes.clone().next_back())
}

/// The text of a descriptor in the encoding that it names; UTF-8 when it names none.
fn decode(raw: &[u8]) -> String {
    let raw = raw.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(raw);
    let raw = raw.split(|b| *b == 0).next().unwrap_or_default();
    let named = raw.split(|b| *b == b'\n').take(64).find_map(|line| {
        let line = line.trim_ascii();
        let value = line.get(9..).filter(|_| line.len() > 9 && line[..9].eq_ignore_ascii_case(b"encoding="))?;
        encoding_rs::Encoding::for_label(value.trim_ascii().strip_prefix(b"\"").unwrap_or(value).strip_suffix(b"\"")?)
    });
    named.unwrap_or(encoding_rs::UTF_8).decode_without_bom_handling(raw).0.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const TEXT: &str = "# Disk DescriptorFile\nversion=1\nencoding=\"windows-1252\"\nCID=fffffffe\nparentCID=0000ab12\n\
        parentFileNameHint=\"/vmfs/volumes/x/b\u{e4}se.vmdk\"\ncreateType=\"custom\"\n\n\
        RW 4192256 FLAT \"a \"quoted\" disk-f001.vmdk\" 64\r\nRDONLY 8 ZERO\nRW 16 SPARSE \"b.vmdk\"\n\
        NOACCESS 63 FLAT \"c\" 0\nddb.adapterType = \"lsilogic\"\n";

    #[test]
    fn extents_and_identity() {
        let mut raw = encoding_rs::WINDOWS_1252.encode(TEXT).0.into_owned();
        raw.extend([0; 100]);
        let d = Descriptor::parse(&raw).unwrap();
        assert_eq!((d.cid, d.parent_cid, d.create_type.as_str()), (0xFFFF_FFFE, Some(0xAB12), "custom"));
        assert_eq!(d.parent_hint.as_deref(), Some("/vmfs/volumes/x/b\u{e4}se.vmdk"));
        let line = |sectors, kind, file: &str, offset| ExtentLine { sectors, kind, file: file.into(), offset };
        assert_eq!(
            d.extents,
            [
                line(4_192_256, ExtentType::Flat, "a \"quoted\" disk-f001.vmdk", 64),
                line(8, ExtentType::Zero, "", 0),
                line(16, ExtentType::Sparse, "b.vmdk", 0),
                line(63, ExtentType::Zero, "c", 0),
            ]
        );
    }

    #[test]
    fn a_name_ends_at_its_own_quote() {
        for (line, file, offset) in [
            ("RW 8 FLAT \"x-flat.vmdk\" 0 \"partUUID\" \"devid\"", "x-flat.vmdk", 0),
            ("RW 8 FLAT \"a b.vmdk\" 63 \"p\"", "a b.vmdk", 63),
            ("RW 8 FLAT \"a b.vmdk\" \"p\" \"q\"", "a b.vmdk", 0),
            ("RW 8 FLAT \"a \"b\" c.vmdk\" 7 \"p\"", "a \"b\" c.vmdk", 7),
            ("RW 8 SPARSE \"s001.vmdk\"", "s001.vmdk", 0),
        ] {
            let line = ExtentLine::parse(line).unwrap().unwrap();
            assert_eq!((line.file.as_str(), line.offset), (file, offset), "{line:?}");
        }
        if let Ok(Some(line)) = ExtentLine::parse("RW 8 FLAT \"a\" x") {
            panic!("an offset that is not a number: {line:?}");
        }
    }

    #[test]
    fn texts_that_qemu_reads_differently_are_recognised() {
        let head = "CID=bc19b020\nparentCID=ffffffff\n";
        let disk = |text: &str| Descriptor::parse(format!("{head}{text}").as_bytes()).unwrap().in_qemu;
        let good = "createType=\"monolithicFlat\"\nRW 8 FLAT \"a.vmdk\" 0";
        assert_eq!(disk(good), InQemu { is_same_head: true, is_same_disk: true });
        assert!(disk(&format!("{good} \"partUUID\" \"devid\"\r\n")).is_same_disk);
        assert!(disk("createType=\"vmfs\"\nRW 8 VMFS \"a.vmdk\"").is_same_disk);
        for text in [
            "createType = \"monolithicFlat\"\nRW 8 FLAT \"a.vmdk\" 0",
            "createType=monolithicFlat\nRW 8 FLAT \"a.vmdk\" 0",
            "createType=\"monolithicFlat\"\nRW 8 FLAT \"a.vmdk\"",
            "createType=\"vmfs\"\nRW 8 VMFS \"a.vmdk\" 0",
            "createType=\"vmfs\"\nrw 8 FLAT \"a.vmdk\" 0",
            "createType=\"vmfs\"\nRW 8 flat \"a.vmdk\" 0",
            "createType=\"vmfs\"\nRDONLY 8 FLAT \"a.vmdk\" 0",
            "createType=\"vmfs\"\nRW 8 ZERO\nRW 8 FLAT \"a.vmdk\" 0",
            "createType=\"vmfs\"\nRW 8 FLAT \"a\"b.vmdk\" 0",
            "createType=\"vmfs\"\nRW 8 SPARSE \"a.vmdk\" 0",
        ] {
            assert!(!disk(text).is_same_disk, "{text}");
        }
        for head in ["CID = bc19b020\n", "parentCID=ffffffff\nCID=bc19b020\n", "cid=bc19b020\n"] {
            assert!(!Descriptor::parse(head.as_bytes()).unwrap().in_qemu.is_same_head, "{head}");
        }
        let parent = "CID=1\nparentCID=00000002\nparentFileNameHint";
        assert!(Descriptor::parse(format!("{parent}=\"a b.vmdk\"\n").as_bytes()).unwrap().in_qemu.is_same_head);
        assert!(!Descriptor::parse(format!("{parent} = \"a b.vmdk\"\n").as_bytes()).unwrap().in_qemu.is_same_head);
    }

    #[test]
    fn raw_devices_are_refused_by_name() {
        for word in ["VMFSRDM", "VMFSRAW"] {
            let error = Descriptor::parse(format!("RW 16 {word} \"x\"").as_bytes()).unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(error.hint_text().is_some());
        }
    }

    #[test]
    fn lines_that_cannot_be_parsed_are_errors() {
        for line in
            ["RW x FLAT \"a\" 0", "RW 16", "RW 16 FLAT", "RW 16 FLAT \"a", "RW 99999999999999999999 ZERO", "CID=xyz"]
        {
            assert!(Descriptor::parse(line.as_bytes()).is_err(), "{line}");
        }
    }
}
