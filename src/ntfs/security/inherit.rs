//! What a new file inherits from its folder: the security descriptor that Windows computes when the system itself
//! creates a file there (MS-DTYP 2.5.3.4, `CreateSecurityDescriptor`).

use super::descriptor::{ADMINISTRATORS, CONTROL, DACL, FULL, SYSTEM, assemble, control, entries, validate};

/// Entries of an ACL that are taken over; Windows' own folders have fewer than twenty.
const ENTRIES_MAX: usize = 1_000;

/// Flags of an ACE (MS-DTYP 2.4.4.1).
mod flags {
    pub const OBJECT_INHERIT: u8 = 0x01;
    pub const CONTAINER_INHERIT: u8 = 0x02;
    pub const NO_PROPAGATE: u8 = 0x04;
    pub const INHERIT_ONLY: u8 = 0x08;
    pub const INHERITED: u8 = 0x10;
}

/// S-1-3-0: in an inheritable ACE it stands for the owner of the new file.
const CREATOR_OWNER: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
/// S-1-3-1: the same for the group.
const CREATOR_GROUP: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0];

/// Generic rights, and what they mean for files (MS-FSA, `FILE_GENERIC_…`).
const GENERIC: [(u32, u32); 4] =
    [(0x1000_0000, FULL), (0x2000_0000, 0x0012_00A0), (0x4000_0000, 0x0012_0116), (0x8000_0000, 0x0012_0089)];

/// An allowing or denying ACE.
struct Ace<'a> {
    kind: u8,
    flags: u8,
    mask: u32,
    sid: &'a [u8],
}

impl<'a> Ace<'a> {
    /// Kind, flags, length, mask and SID; `None` for an ACE of any other form.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, sid) = bytes.split_first_chunk::<8>()?;
        let [kind @ (0 | 1), flags, _, _, mask @ ..] = *head else { return None };
        let length = 8 + 4 * usize::from(*sid.get(1)?);
        Some(Self { kind, flags, mask: u32::from_le_bytes(mask), sid: sid.get(..length)? })
    }

    fn write(&self, flags: u8, mask: u32, sid: &[u8], out: &mut Vec<Vec<u8>>) {
        let length = u16::try_from(8 + sid.len()).unwrap_or(0);
        let mut ace = vec![self.kind, flags];
        ace.extend(length.to_le_bytes());
        ace.extend(mask.to_le_bytes());
        ace.extend(sid);
        out.push(ace);
    }

    /// The entries that a new file or folder gets for this entry of its folder.
    fn inherit(&self, is_folder: bool, out: &mut Vec<Vec<u8>>) {
        let has = |flag| self.flags & flag != 0;
        let effective_mask = specific_rights(self.mask);
        let sid = match self.sid {
            CREATOR_OWNER => ADMINISTRATORS,
            CREATOR_GROUP => SYSTEM,
            other => other,
        };
        if !is_folder {
            if has(flags::OBJECT_INHERIT) {
                self.write(flags::INHERITED, effective_mask, sid, out);
            }
            return;
        }
        let hands_on = self.flags & (flags::OBJECT_INHERIT | flags::CONTAINER_INHERIT);
        if has(flags::CONTAINER_INHERIT) {
            let is_generic = effective_mask != self.mask || sid != self.sid;
            match (has(flags::NO_PROPAGATE), is_generic) {
                (true, _) => self.write(flags::INHERITED, effective_mask, sid, out),
                (false, false) => self.write(flags::INHERITED | hands_on, self.mask, sid, out),
                // What stands for something else is resolved for this folder, and handed on as it is.
                (false, true) => {
                    self.write(flags::INHERITED, effective_mask, sid, out);
                    self.write(flags::INHERITED | flags::INHERIT_ONLY | hands_on, self.mask, self.sid, out);
                }
            }
        } else if has(flags::OBJECT_INHERIT) && !has(flags::NO_PROPAGATE) {
            self.write(flags::INHERITED | flags::INHERIT_ONLY | hands_on, self.mask, self.sid, out);
        }
    }
}

fn specific_rights(mask: u32) -> u32 {
    let generic: u32 = GENERIC.iter().map(|(bit, _)| bit).sum();
    GENERIC.iter().filter(|(bit, _)| mask & bit != 0).fold(mask & !generic, |mask, (_, rights)| mask | rights)
}

/// The descriptor of a new file (or folder) in a folder with the descriptor `folder`. The owner is Administrators, the
/// group SYSTEM. Auditing entries are not taken over. A folder without a descriptor, or with one that cannot be handed
/// down, gives full access to SYSTEM and Administrators, and to no others.
#[must_use]
pub fn inherited(folder: Option<&[u8]>, is_folder: bool) -> Vec<u8> {
    folder.and_then(|folder| hand_down(folder, is_folder)).unwrap_or_else(closed)
}

/// Full access for SYSTEM and Administrators: the default of the system's own token.
fn closed() -> Vec<u8> {
    let mut aces = Vec::new();
    for sid in [SYSTEM, ADMINISTRATORS] {
        Ace { kind: 0, flags: 0, mask: FULL, sid }.write(0, FULL, sid, &mut aces);
    }
    assemble(control::SELF_RELATIVE | control::DACL_PRESENT, &aces, ADMINISTRATORS, SYSTEM)
}

/// `None` when `folder` is malformed, hands nothing down, or holds entries that are neither allowing nor denying ones of
/// the plain form.
fn hand_down(folder: &[u8], is_folder: bool) -> Option<Vec<u8>> {
    validate(folder).ok()?;
    if CONTROL.get(folder) & control::DACL_PRESENT == 0 || DACL.get(folder) == 0 {
        return None;
    }
    let mut aces = Vec::new();
    for bytes in entries(folder)?.into_iter().take(ENTRIES_MAX) {
        Ace::parse(bytes)?.inherit(is_folder, &mut aces);
    }
    let control = control::SELF_RELATIVE | control::DACL_PRESENT | control::DACL_AUTO_INHERITED;
    let descriptor = assemble(control, &aces, ADMINISTRATORS, SYSTEM);
    (!aces.is_empty() && validate(&descriptor).is_ok()).then_some(descriptor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::descriptor::Protected;
    use super::*;

    const USERS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x21, 2, 0, 0];

    fn ace(flags: u8, mask: u32, sid: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Ace { kind: 0, flags, mask, sid }.write(flags, mask, sid, &mut out);
        out.remove(0)
    }

    fn folder(aces: &[Vec<u8>]) -> Vec<u8> {
        assemble(control::SELF_RELATIVE | control::DACL_PRESENT, aces, ADMINISTRATORS, SYSTEM)
    }

    fn acl(descriptor: &[u8]) -> Vec<Vec<u8>> {
        entries(descriptor).unwrap().into_iter().map(<[u8]>::to_vec).collect()
    }

    /// What Windows gives to what SYSTEM creates below a folder of ours is what we give it ourselves.
    #[test]
    fn children_of_the_protected_folder_get_the_rights_that_we_write() {
        for (is_folder, what) in [(true, Protected::Directory), (false, Protected::File)] {
            let got = inherited(Some(&Protected::Top.descriptor()), is_folder);
            assert!(what.is_met_by(&got));
            let again = inherited(Some(&Protected::Directory.descriptor()), is_folder);
            assert!(what.is_met_by(&again));
        }
    }

    /// `C:\` of Windows 10: D:PAI(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;OICI;0x1200a9;;;BU)(A;CI;LC;;;AU)(A;OICIIO;SDGXGWGR;;;AU),
    /// and what `icacls` shows of a folder and a file that are made there.
    #[test]
    fn the_root_of_a_windows_drive_hands_down_what_windows_shows() {
        const ALL: u8 = 3;
        const USER: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 5, 11, 0, 0, 0];
        let root = folder(&[
            ace(ALL, FULL, ADMINISTRATORS),
            ace(ALL, FULL, SYSTEM),
            ace(ALL, 0x0012_00A9, USERS),
            ace(2, 4, USER),
            ace(ALL | 8, 0xE001_0000, USER),
        ]);
        let file = inherited(Some(&root), false);
        let expected = [
            ace(0x10, FULL, ADMINISTRATORS),
            ace(0x10, FULL, SYSTEM),
            ace(0x10, 0x0012_00A9, USERS),
            // (I)(M): FILE_GENERIC_READ, WRITE and EXECUTE, and DELETE
            ace(0x10, 0x0013_01BF, USER),
        ];
        assert_eq!(acl(&file), expected);
        let expected = [
            ace(0x13, FULL, ADMINISTRATORS),
            ace(0x13, FULL, SYSTEM),
            ace(0x13, 0x0012_00A9, USERS),
            ace(0x12, 4, USER),
            ace(0x10, 0x0013_01BF, USER),
            ace(0x1B, 0xE001_0000, USER),
        ];
        assert_eq!(acl(&inherited(Some(&root), true)), expected);
    }

    #[test]
    fn the_creator_becomes_the_owner_and_what_ends_here_ends() {
        let parent =
            folder(&[ace(3 | 8, FULL, CREATOR_OWNER), ace(3 | 4, 1, USERS), ace(1, 2, USERS), ace(0, 4, USERS)]);
        let file = [ace(0x10, FULL, ADMINISTRATORS), ace(0x10, 1, USERS), ace(0x10, 2, USERS)];
        assert_eq!(acl(&inherited(Some(&parent), false)), file);
        let sub =
            [ace(0x10, FULL, ADMINISTRATORS), ace(0x1B, FULL, CREATOR_OWNER), ace(0x10, 1, USERS), ace(0x19, 2, USERS)];
        assert_eq!(acl(&inherited(Some(&parent), true)), sub);
        let silent = folder(&[ace(0, FULL, USERS)]);
        assert_eq!(acl(&inherited(Some(&silent), false)), [ace(0, FULL, SYSTEM), ace(0, FULL, ADMINISTRATORS)]);
    }

    proptest! {
        /// Whatever a guest holds: no panic, and what comes out is one that Windows takes.
        #[test]
        fn any_descriptor_gives_a_valid_one(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                (prop::collection::vec((any::<u8>(), any::<u32>()), 0..6), any::<(usize, u8)>()).prop_map(|(aces, (at, byte))| {
                    let aces: Vec<_> = aces.into_iter().map(|(flags, mask)| ace(flags, mask, CREATOR_OWNER)).collect();
                    let mut bytes = folder(&aces);
                    let at = at % (2 * bytes.len());
                    if let Some(place) = bytes.get_mut(at) { *place = byte; }
                    bytes
                }),
            ],
            is_folder in any::<bool>(),
        ) {
            let got = inherited(Some(&bytes), is_folder);
            prop_assert!(validate(&got).is_ok());
            prop_assert!(super::super::is_owned_by_system(&got));
            if validate(&bytes).is_err() {
                prop_assert_eq!(got, closed());
            }
        }
    }
}
