//! Who may change a file: judged by its security descriptor, in the self-relative form (MS-DTYP 2.4.6) that Windows
//! gives out and that NTFS stores.
//!
//! What cannot be understood is not trusted.

/// `S-1-5-18`, LocalSystem.
const SYSTEM: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
/// `S-1-5-32-544`, the administrators.
const ADMINISTRATORS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
/// `S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464`, the service TrustedInstaller.
const TRUSTED_INSTALLER: &[u8] = &[
    1, 6, 0, 0, 0, 0, 0, 5, 80, 0, 0, 0, 0xb5, 0x89, 0xfb, 0x38, 0x19, 0x84, 0xc2, 0xcb, 0x5c, 0x6c, 0x23, 0x6d, 0x57,
    0x00, 0x77, 0x6e, 0xc0, 0x02, 0x64, 0x87,
];
/// `S-1-3-0` and `S-1-3-4`: the owner, which is judged by itself.
const OWNERS: [&[u8]; 2] = [&[1, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0], &[1, 1, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0]];

/// Rights that change a file or folder, its descriptor or its owner: write or append data, delete, delete a child, write
/// attributes (also the extended ones), `WRITE_DAC`, `WRITE_OWNER`, `GENERIC_WRITE`, `GENERIC_ALL`.
const CHANGE: u32 = 0x2 | 0x4 | 0x10 | 0x40 | 0x100 | 0x1_0000 | 0x4_0000 | 0x8_0000 | 0x4000_0000 | 0x1000_0000;

/// `SE_DACL_PRESENT`
const DACL_PRESENT: u16 = 4;
/// `ACCESS_ALLOWED_ACE_TYPE`
const ALLOWED: u8 = 0;
/// `ACCESS_DENIED_ACE_TYPE`
const DENIED: u8 = 1;
/// `INHERIT_ONLY_ACE`: holds for the children, which are judged by themselves.
const INHERIT_ONLY: u8 = 8;

/// Why a file is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// The descriptor cannot be read or understood.
    Unreadable,
    /// Another account owns it.
    Owner,
    /// Another account may change it.
    Writable,
    /// It leads to somewhere else.
    Link,
    /// Another account could change it before the host protected the folder.
    Earlier,
}

impl Distrust {
    /// The reason as text.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unreadable => "its security descriptor cannot be read",
            Self::Owner => "its owner is not SYSTEM, Administrators or TrustedInstaller",
            Self::Writable => "others than SYSTEM, Administrators and TrustedInstaller may change it",
            Self::Link => "it is a link",
            Self::Earlier => "users could change it before the conversion",
        }
    }
}

/// Judges a descriptor. `own` is the account that the program runs as: LocalSystem, or the administrator who started it.
///
/// # Errors
/// With the reason, unless only trusted accounts own the file and may change it.
pub fn check_trusted(descriptor: &[u8], own: &[u8]) -> Result<(), Distrust> {
    check_owner(descriptor, own)?;
    let control = u16_at(descriptor, 2).ok_or(Distrust::Unreadable)?;
    let dacl = offset_at(descriptor, 16).ok_or(Distrust::Unreadable)?;
    if control & DACL_PRESENT == 0 || dacl == 0 {
        return Err(Distrust::Writable); // everyone may do everything
    }
    check_dacl(descriptor.get(dacl..).ok_or(Distrust::Unreadable)?, own)
}

/// Judges the owner alone.
///
/// # Errors
/// When it is not a trusted account.
pub fn check_owner(descriptor: &[u8], own: &[u8]) -> Result<(), Distrust> {
    let owner = offset_at(descriptor, 4).filter(|&at| at != 0).ok_or(Distrust::Unreadable)?;
    let sid = sid(descriptor.get(owner..).unwrap_or_default()).ok_or(Distrust::Unreadable)?;
    if is_trusted(sid, own) { Ok(()) } else { Err(Distrust::Owner) }
}

fn check_dacl(dacl: &[u8], own: &[u8]) -> Result<(), Distrust> {
    let count = u16_at(dacl, 4).ok_or(Distrust::Unreadable)?;
    let mut at = 8;
    for _ in 0..count {
        let size = usize::from(u16_at(dacl, at + 2).ok_or(Distrust::Unreadable)?);
        let ace = dacl.get(at..at + size).filter(|_| size >= 8).ok_or(Distrust::Unreadable)?;
        at += size;
        let (kind, flags) = (ace.first().copied(), ace.get(1).copied().unwrap_or(0));
        let mask = u32_at(ace, 4).ok_or(Distrust::Unreadable)?;
        if kind == Some(DENIED) || flags & INHERIT_ONLY != 0 || mask & CHANGE == 0 {
            continue;
        }
        // the other kinds (callbacks, objects, compound) have no business on these files
        if kind != Some(ALLOWED) {
            return Err(Distrust::Writable);
        }
        let sid = sid(ace.get(8..).unwrap_or_default()).ok_or(Distrust::Unreadable)?;
        if !is_trusted(sid, own) && !OWNERS.contains(&sid) {
            return Err(Distrust::Writable);
        }
    }
    Ok(())
}

fn is_trusted(sid: &[u8], own: &[u8]) -> bool {
    sid == SYSTEM || sid == ADMINISTRATORS || sid == TRUSTED_INSTALLER || (sid == own && !own.is_empty())
}

/// The SID at the beginning of `data`.
fn sid(data: &[u8]) -> Option<&[u8]> {
    let count = usize::from(*data.get(1)?);
    if data.first() != Some(&1) || count > 15 {
        return None;
    }
    data.get(..8 + 4 * count)
}

fn offset_at(data: &[u8], at: usize) -> Option<usize> {
    u32_at(data, at).and_then(|offset| usize::try_from(offset).ok())
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use std::vec;

    const USERS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x21, 2, 0, 0];
    const FULL: u32 = 0x1f_01ff;
    const READ: u32 = 0x12_00a9;

    fn descriptor(owner: &[u8], aces: Option<&[(u8, u8, u32, &[u8])]>) -> Vec<u8> {
        let mut out = vec![1, 0, if aces.is_some() { 4 } else { 0 }, 0x80];
        let dacl_at = u32::try_from(20 + owner.len()).unwrap();
        for offset in [20, 0, 0, if aces.is_some() { dacl_at } else { 0 }] {
            out.extend_from_slice(&offset.to_le_bytes());
        }
        out.extend_from_slice(owner);
        let Some(aces) = aces else { return out };
        let mut body = Vec::new();
        for (kind, flags, mask, sid) in aces {
            body.extend_from_slice(&[*kind, *flags]);
            body.extend_from_slice(&u16::try_from(8 + sid.len()).unwrap().to_le_bytes());
            body.extend_from_slice(&mask.to_le_bytes());
            body.extend_from_slice(sid);
        }
        out.extend_from_slice(&[2, 0]);
        out.extend_from_slice(&u16::try_from(8 + body.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&u16::try_from(aces.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&body);
        out
    }

    #[test]
    fn only_files_that_trusted_accounts_own_and_change_are_trusted() {
        let good: &[(u8, u8, u32, &[u8])] = &[(0, 3, FULL, SYSTEM), (0, 3, FULL, ADMINISTRATORS), (0, 3, READ, USERS)];
        let open: &[(u8, u8, u32, &[u8])] = &[(0, 3, FULL, SYSTEM), (0, 3, READ | 2, USERS)];
        let creator: &[(u8, u8, u32, &[u8])] = &[(0, 3, FULL, OWNERS[0]), (0, 11, FULL, USERS), (1, 0, FULL, USERS)];
        let callback: &[(u8, u8, u32, &[u8])] = &[(9, 0, FULL, SYSTEM)];
        for owner in [SYSTEM, ADMINISTRATORS, TRUSTED_INSTALLER] {
            assert_eq!(check_trusted(&descriptor(owner, Some(good)), &[]), Ok(()));
            assert_eq!(check_trusted(&descriptor(owner, Some(creator)), &[]), Ok(()));
            assert_eq!(check_trusted(&descriptor(owner, Some(&[])), &[]), Ok(()), "no account may do anything");
            assert_eq!(check_trusted(&descriptor(owner, Some(open)), &[]), Err(Distrust::Writable));
            assert_eq!(check_trusted(&descriptor(owner, Some(callback)), &[]), Err(Distrust::Writable));
            assert_eq!(check_trusted(&descriptor(owner, None), &[]), Err(Distrust::Writable), "no list: all may");
        }
        assert_eq!(check_trusted(&descriptor(USERS, Some(good)), &[]), Err(Distrust::Owner));
        assert_eq!(check_trusted(&descriptor(USERS, Some(good)), USERS), Ok(()), "who runs it");
        for right in [0x2, 0x4, 0x10, 0x40, 0x100, 0x1_0000, 0x4_0000, 0x8_0000, 0x4000_0000, 0x1000_0000] {
            let aces: &[(u8, u8, u32, &[u8])] = &[(0, 0, right, USERS)];
            assert_eq!(check_trusted(&descriptor(SYSTEM, Some(aces)), &[]), Err(Distrust::Writable), "{right:x}");
        }
    }

    #[test]
    fn a_truncated_descriptor_is_never_trusted() {
        let whole = descriptor(SYSTEM, Some(&[(0, 0, FULL, SYSTEM), (0, 0, FULL, ADMINISTRATORS)]));
        assert_eq!(check_trusted(&whole, &[]), Ok(()));
        for length in 0..whole.len() {
            assert!(check_trusted(whole.get(..length).unwrap(), &[]).is_err(), "{length}");
        }
    }
}
