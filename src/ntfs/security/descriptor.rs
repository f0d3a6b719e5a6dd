//! Self-relative security descriptors (MS-DTYP 2.4.6), as `$Secure:$SDS` and `$SECURITY_DESCRIPTOR` hold them.

use crate::error::{Error, Layer, Result};
use crate::ntfs::field::Field;

/// Bytes of the header.
pub const HEADER: usize = 20;
/// Largest descriptor that is taken: what an `$SDS` entry can hold.
pub const MAX: usize = 0x1_0000;

/// Revision of the format; always 1.
pub const REVISION: Field<u8> = Field::at(0);
/// Control bits (`SE_…`, MS-DTYP 2.4.6).
pub const CONTROL: Field<u16> = Field::at(2);
/// Where the owner is.
pub const OWNER: Field<u32> = Field::at(4);
/// Where the group is.
pub const GROUP: Field<u32> = Field::at(8);
/// Where the system ACL is.
pub const SACL: Field<u32> = Field::at(12);
/// Where the discretionary ACL is.
pub const DACL: Field<u32> = Field::at(16);

/// In an ACL: its length.
const ACL_SIZE: Field<u16> = Field::at(2);
/// In an ACL: number of entries.
const ACE_COUNT: Field<u16> = Field::at(4);
const ACL_HEADER: usize = 8;
/// In an ACE: its length.
const ACE_SIZE: Field<u16> = Field::at(2);
const ACE_HEADER: usize = 4;

/// Bits of [`CONTROL`] (MS-DTYP 2.4.6).
pub(super) mod control {
    pub const DACL_PRESENT: u16 = 0x0004;
    pub const SACL_PRESENT: u16 = 0x0010;
    pub const DACL_AUTO_INHERITED: u16 = 0x0400;
    pub const DACL_PROTECTED: u16 = 0x1000;
    pub const SELF_RELATIVE: u16 = 0x8000;
}

/// Flags of an ACE (MS-DTYP 2.4.4.1).
mod ace_flags {
    pub const OBJECT_INHERIT: u8 = 0x01;
    pub const CONTAINER_INHERIT: u8 = 0x02;
    pub const INHERITED: u8 = 0x10;
}

/// `ACCESS_ALLOWED_ACE_TYPE`: the ACE grants its mask.
const ALLOW: u8 = 0;
/// `FILE_ALL_ACCESS`, for SYSTEM and administrators.
pub(super) const FULL: u32 = 0x001F_01FF;
/// `FILE_GENERIC_READ | FILE_GENERIC_EXECUTE`, for users.
const READ_EXECUTE: u32 = 0x0012_00A9;

/// S-1-5-18, the system itself.
pub(super) const SYSTEM: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
/// S-1-5-32-544, the administrators of the machine.
pub(super) const ADMINISTRATORS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
/// S-1-5-32-545, the group of users.
const USERS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x21, 2, 0, 0];

/// What a protected descriptor is for.
///
/// All three give SYSTEM and Administrators everything and Users reading and executing, and are owned by
/// Administrators. The first cuts inheritance off; the other two are what Windows itself gives to children of such a
/// directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protected {
    /// The top directory: takes nothing from its parent, hands everything down.
    Top,
    /// A directory below it.
    Directory,
    /// A file below it.
    File,
}

impl Protected {
    /// The descriptor's bytes, in the order in which Windows lays them out (ACL, owner, group).
    #[must_use]
    pub fn descriptor(self) -> Vec<u8> {
        let hand_down = ace_flags::OBJECT_INHERIT | ace_flags::CONTAINER_INHERIT;
        let (extra, flags) = match self {
            Self::Top => (control::DACL_PROTECTED, hand_down),
            Self::Directory => (0, hand_down | ace_flags::INHERITED),
            Self::File => (0, ace_flags::INHERITED),
        };
        let control = control::SELF_RELATIVE | control::DACL_PRESENT | control::DACL_AUTO_INHERITED | extra;
        let aces = [(FULL, SYSTEM), (FULL, ADMINISTRATORS), (READ_EXECUTE, USERS)];
        build(control, flags, &aces, ADMINISTRATORS)
    }

    /// Whether `descriptor` protects as well: owned by SYSTEM or Administrators, and with the same list of rights. What
    /// the system itself creates in such a directory differs in the group only.
    #[must_use]
    pub fn is_met_by(self, descriptor: &[u8]) -> bool {
        is_owned_by_system(descriptor) && dacl(descriptor).is_some_and(|found| Some(found) == dacl(&self.descriptor()))
    }
}

/// The discretionary ACL in a self-relative descriptor ([MS-DTYP] 2.4.5 and 2.4.6).
fn dacl(descriptor: &[u8]) -> Option<&[u8]> {
    let offset = descriptor.get(16..20)?.try_into().ok().map(u32::from_le_bytes).filter(|&at| at != 0)?;
    let acl = descriptor.get(usize::try_from(offset).ok()?..)?;
    let length = acl.get(2..4)?.try_into().ok().map(u16::from_le_bytes)?;
    acl.get(..length.into())
}

/// Whether the owner in a self-relative descriptor ([MS-DTYP] 2.4.6) is SYSTEM or the group of administrators.
#[must_use]
pub fn is_owned_by_system(descriptor: &[u8]) -> bool {
    let offset = descriptor.get(4..8).and_then(|raw| raw.try_into().ok()).map(u32::from_le_bytes);
    let owner = offset.filter(|&at| at != 0).and_then(|at| descriptor.get(usize::try_from(at).ok()?..));
    owner.is_some_and(|owner| owner.starts_with(SYSTEM) || owner.starts_with(ADMINISTRATORS))
}

/// Builds a descriptor whose ACL has one allowing entry per pair; `owner` is also the group.
fn build(control: u16, flags: u8, aces: &[(u32, &[u8])], owner: &[u8]) -> Vec<u8> {
    let entry = |(mask, sid): &(u32, &[u8])| {
        let size = ACE_HEADER + 4 + sid.len();
        let mut ace = vec![ALLOW, flags];
        ace.extend(u16::try_from(size).unwrap_or(0).to_le_bytes());
        ace.extend(mask.to_le_bytes());
        ace.extend(*sid);
        ace
    };
    assemble(control, &aces.iter().map(entry).collect::<Vec<_>>(), owner, owner)
}

/// Lays out a descriptor without a system ACL. What does not fit gets a length of 0, which [`validate`] refuses.
pub(super) fn assemble(control: u16, aces: &[Vec<u8>], owner: &[u8], group: &[u8]) -> Vec<u8> {
    let mut acl = vec![0u8; ACL_HEADER];
    acl[0] = 2;
    aces.iter().for_each(|ace| acl.extend(ace));
    let acl_size = u16::try_from(acl.len()).unwrap_or(0);
    ACL_SIZE.set(&mut acl, acl_size);
    ACE_COUNT.set(&mut acl, u16::try_from(aces.len()).unwrap_or(0));
    let place = |n: usize| u32::try_from(n).unwrap_or(0);
    let mut out = vec![0u8; HEADER];
    REVISION.set(&mut out, 1);
    CONTROL.set(&mut out, control);
    DACL.set(&mut out, place(HEADER));
    OWNER.set(&mut out, place(HEADER + acl.len()));
    GROUP.set(&mut out, place(HEADER + acl.len() + owner.len()));
    out.extend(acl);
    out.extend(owner);
    out.extend(group);
    out
}

/// The entries of the discretionary ACL; `None` if it is absent or malformed.
pub(super) fn entries(descriptor: &[u8]) -> Option<Vec<&[u8]>> {
    let acl = dacl(descriptor)?;
    let count = acl.get(4..6)?.try_into().ok().map(u16::from_le_bytes)?;
    let mut rest = acl.get(ACL_HEADER..)?;
    let mut out = Vec::new();
    for _ in 0..count {
        let size = usize::from(rest.get(2..4)?.try_into().ok().map(u16::from_le_bytes)?);
        let (ace, after) = rest.split_at_checked(size).filter(|(ace, _)| ace.len() >= ACE_HEADER)?;
        out.push(ace);
        rest = after;
    }
    Some(out)
}

/// The hash under which `$SDH` files a descriptor: for each 32-bit word, rotate left by three and add.
#[must_use]
pub fn hash(descriptor: &[u8]) -> u32 {
    descriptor.as_chunks::<4>().0.iter().fold(0u32, |h, word| h.rotate_left(3).wrapping_add(u32::from_le_bytes(*word)))
}

/// Checks that a self-relative descriptor is one that Windows would take.
///
/// # Errors
/// Damaged, saying which part lies wrong.
pub fn validate(bytes: &[u8]) -> Result<()> {
    if bytes.len() < HEADER || bytes.len() > MAX {
        return Err(bad("has an impossible length").expected_found(format!("{HEADER}..{MAX}"), bytes.len()));
    }
    if REVISION.get(bytes) != 1 {
        return Err(bad("has an unknown revision").expected_found(1, REVISION.get(bytes)));
    }
    let control = CONTROL.get(bytes);
    if control & control::SELF_RELATIVE == 0 {
        return Err(bad("is not self-relative"));
    }
    for field in [OWNER, GROUP] {
        let part = part(bytes, field)?;
        if let Some(part) = part.filter(|part| sid_length(part).is_none()) {
            let found = part.get(..2).unwrap_or_default();
            return Err(
                bad("has an owner or group that is not a SID").expected_found("revision 1", format!("{found:02x?}"))
            );
        }
    }
    for (field, present) in [(SACL, control::SACL_PRESENT), (DACL, control::DACL_PRESENT)] {
        if let Some(acl) = part(bytes, field)?.filter(|_| control & present != 0) {
            validate_acl(acl)?;
        }
    }
    Ok(())
}

fn bad(what: &str) -> Error {
    Error::damaged(Layer::Ntfs, format!("a security descriptor {what}"))
}

/// The bytes from a part's offset on; `None` when the part is absent.
fn part(bytes: &[u8], field: Field<u32>) -> Result<Option<&[u8]>> {
    match field.get(bytes) {
        0 => Ok(None),
        offset => usize::try_from(offset)
            .ok()
            .filter(|&at| at >= HEADER && at % 4 == 0)
            .and_then(|at| bytes.get(at..))
            .filter(|rest| rest.len() >= ACL_HEADER)
            .map(Some)
            .ok_or_else(|| bad("has a part outside itself").expected_found(format!("20..{}", bytes.len()), offset)),
    }
}

/// Length of the SID at the start of `bytes`.
fn sid_length(bytes: &[u8]) -> Option<usize> {
    let [revision, count, ..] = *bytes else { return None };
    let length = 8 + 4 * usize::from(count);
    (revision == 1 && count <= 15 && length <= bytes.len()).then_some(length)
}

fn validate_acl(bytes: &[u8]) -> Result<()> {
    let size = usize::from(ACL_SIZE.get(bytes));
    let acl = bytes.get(..size).filter(|_| (2..=4).contains(&bytes[0]) && size >= ACL_HEADER && size % 4 == 0);
    let acl = acl.ok_or_else(|| bad("has a malformed ACL").expected_found("revision 2..4 and its length", size))?;
    let mut rest = &acl[ACL_HEADER..];
    for _ in 0..ACE_COUNT.get(acl) {
        let size = usize::from(ACE_SIZE.get(rest));
        if size < ACE_HEADER || size % 4 != 0 || size > rest.len() {
            return Err(bad("has a malformed ACE").expected_found(format!("4..{}", rest.len()), size));
        }
        rest = &rest[size..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_descriptors_are_valid_and_differ() {
        let all = [Protected::Top, Protected::Directory, Protected::File].map(Protected::descriptor);
        for descriptor in &all {
            validate(descriptor).unwrap();
            assert_eq!(descriptor.len() % 4, 0);
        }
        assert_ne!(hash(&all[0]), hash(&all[1]));
        assert_ne!(hash(&all[1]), hash(&all[2]));
        // D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1200a9;;;BU)
        let top = &all[0];
        assert_eq!(CONTROL.get(top), 0x9404);
        assert_eq!((DACL.get(top), OWNER.get(top), GROUP.get(top), SACL.get(top)), (20, 96, 112, 0));
        assert_eq!(top[28..32], [0, 3, 0x14, 0]);
        assert_eq!(top[32..36], 0x1F_01FFu32.to_le_bytes());
    }

    #[test]
    fn hash_rotates_and_adds() {
        assert_eq!(hash(&[1, 0, 0, 0, 1, 0, 0, 0]), 9);
        assert_eq!(hash(&[0, 0, 0, 0x80, 1, 0, 0, 0, 9]), 5);
    }

    #[test]
    fn no_single_byte_makes_it_panic() {
        let good = Protected::Top.descriptor();
        for at in 0..good.len() {
            for value in 0..=255 {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = validate(&bad);
            }
            let _ = validate(&good[..at]);
        }
    }
}
