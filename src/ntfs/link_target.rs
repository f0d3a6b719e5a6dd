//! Where symbolic links and junctions lead (MS-FSCC 2.1.2.4, 2.1.2.5).

use super::content::reparse_point;
use super::metadata::REPARSE_TAG;
use super::pager::Pager;
use crate::error::Result;
use crate::field::Field;
use crate::io::VolumeRead;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::units::FileId;

/// Tag of a symbolic link.
const TAG_SYMLINK: u32 = 0xA000_000C;
/// Tag of a junction or a mounted volume.
const TAG_MOUNT_POINT: u32 = 0xA000_0003;
/// Offset and length of the target's name, from the start of the names.
const SUBSTITUTE_OFFSET: Field<u16> = Field::at(8);
const SUBSTITUTE_LENGTH: Field<u16> = Field::at(10);
/// Offset and length of the name that is shown; the length may be 0.
const PRINT_OFFSET: Field<u16> = Field::at(12);
const PRINT_LENGTH: Field<u16> = Field::at(14);
/// Bytes before the names; a symbolic link has flags in addition.
const MOUNT_POINT_NAMES: usize = 16;
const SYMLINK_NAMES: usize = 20;

/// The path that a symbolic link or a junction leads to, as Windows shows it; `None` for every other file.
pub(crate) fn link_target<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<Option<String>> {
    let Some(point) = reparse_point(pager, file)? else { return Ok(None) };
    parse(&point)
}

fn parse(point: &[u8]) -> Result<Option<String>> {
    let cut_short = || damaged("a reparse point is cut short");
    if point.len() < 4 {
        return Err(cut_short());
    }
    let names = match REPARSE_TAG.get(point) {
        TAG_MOUNT_POINT => MOUNT_POINT_NAMES,
        TAG_SYMLINK => SYMLINK_NAMES,
        _ => return Ok(None),
    };
    let names = point.get(names..).ok_or_else(cut_short)?;
    let text = |offset: Field<u16>, length: Field<u16>| {
        let (start, length) = (usize::from(offset.get(point)), usize::from(length.get(point)));
        let name = names.get(start..).and_then(|name| name.get(..length)).ok_or_else(cut_short)?;
        Ok(String::from_utf16_lossy(&crate::field::utf16_from_le(name)))
    };
    let shown = text(PRINT_OFFSET, PRINT_LENGTH)?;
    let target = if shown.is_empty() { text(SUBSTITUTE_OFFSET, SUBSTITUTE_LENGTH)? } else { shown };
    Ok(Some(target.strip_prefix(r"\??\").map_or_else(|| target.clone(), str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(tag: u32, before_names: usize, substitute: &str, print: &str) -> Vec<u8> {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let (substitute, print) = (wide(substitute), wide(print));
        let mut out = tag.to_le_bytes().to_vec();
        let length = |value: usize| u16::try_from(value).unwrap().to_le_bytes();
        out.extend(length(before_names - 8 + substitute.len() + print.len()));
        out.extend([0, 0]);
        for value in [0, substitute.len(), substitute.len(), print.len()] {
            out.extend(length(value));
        }
        out.resize(before_names, 0);
        out.extend(substitute);
        out.extend(print);
        out
    }

    #[test]
    fn links_lead_where_windows_shows_it() {
        let junction = point(TAG_MOUNT_POINT, 16, r"\??\C:\Users", r"C:\Users");
        assert_eq!(parse(&junction).unwrap().unwrap(), r"C:\Users");
        let unnamed = point(TAG_SYMLINK, 20, r"\??\C:\ProgramData", "");
        assert_eq!(parse(&unnamed).unwrap().unwrap(), r"C:\ProgramData");
        assert_eq!(parse(&point(0x8000_0017, 16, "", "")).unwrap(), None);
        for end in 0..junction.len() - 16 {
            assert!(parse(&junction[..end]).is_err(), "{end}");
        }
    }
}
