//! The header block of a tar member (POSIX.1-1988 ustar; GNU tar manual, "Basic Tar Format").

use std::mem::offset_of;
use std::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a block; headers and contents begin at one.
pub(super) const BLOCK: u64 = size_of::<StoredHeader>() as u64;

/// Numbers are octal digits, texts end at a zero byte or fill their field.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredHeader {
    name: [u8; 100],
    mode: [u8; 8],
    uid: [u8; 8],
    gid: [u8; 8],
    /// Bytes of the content.
    size: [u8; 12],
    mtime: [u8; 12],
    /// The sum of all bytes of the header, with blanks in place of this field.
    checksum: [u8; 8],
    /// What the member is: one of the `TYPE_` letters.
    pub typeflag: u8,
    link_name: [u8; 100],
    /// "ustar" and a zero byte; with a blank instead, as GNU tar writes it, there is no `prefix`.
    magic: [u8; 6],
    version: [u8; 2],
    user_name: [u8; 32],
    group_name: [u8; 32],
    dev_major: [u8; 8],
    dev_minor: [u8; 8],
    /// The folder of a name that is longer than its field.
    prefix: [u8; 155],
    padding: [u8; 12],
}

const _: () = assert!(size_of::<StoredHeader>() == 512);

impl StoredHeader {
    /// A plain file; old programs write a zero byte, and a contiguous file is one too.
    pub const TYPE_FILE: u8 = b'0';
    pub const TYPE_FILE_OLD: u8 = 0;
    pub const TYPE_CONTIGUOUS: u8 = b'7';
    /// GNU: the content is the next member's name.
    pub const TYPE_LONG_NAME: u8 = b'L';
    /// GNU: the content is the target of the next member, a link.
    pub const TYPE_LONG_LINK: u8 = b'K';
    /// GNU: a file with holes.
    pub const TYPE_SPARSE: u8 = b'S';
    /// Pax: the content describes the next member.
    pub const TYPE_PAX: u8 = b'x';
    /// Pax: the content describes all members that follow.
    pub const TYPE_PAX_GLOBAL: u8 = b'g';

    const CHECKSUM: Range<usize> =
        offset_of!(StoredHeader, checksum)..offset_of!(StoredHeader, checksum) + size_of::<[u8; 8]>();

    /// Whether the block marks the end of the archive.
    pub fn is_end(&self) -> bool {
        self.as_bytes().iter().all(|byte| *byte == 0)
    }

    /// Whether the stored checksum is right.
    pub fn is_checksum_right(&self) -> bool {
        let bytes = self.as_bytes().iter().enumerate();
        let sum = bytes.map(|(i, byte)| if Self::CHECKSUM.contains(&i) { u64::from(b' ') } else { u64::from(*byte) });
        number(&self.checksum) == Some(sum.sum())
    }

    /// Bytes of the content; `None` when the field is not a number.
    pub fn size(&self) -> Option<u64> {
        number(&self.size)
    }

    /// The member's path in the archive.
    pub fn path(&self) -> String {
        let (name, prefix) = (text(&self.name), text(&self.prefix));
        if self.magic == *b"ustar\0" && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
    }
}

/// Octal digits, or (GNU, for 8 GiB and more) a big-endian number with the top bit of its first byte set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let start = Some(u64::from(first & 0x7F));
        return rest.iter().fold(start, |value, byte| value?.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let digits: Vec<u8> = field.iter().copied().take_while(|b| *b != 0).filter(|b| *b != b' ').collect();
    if digits.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()
}

/// A text up to its first zero byte.
pub(super) fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}
