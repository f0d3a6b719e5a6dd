//! Security cells and descriptors.

use std::collections::{BTreeMap, BTreeSet};

use super::checker::Checker;
use super::fault::{Code, Severity};
use crate::field::Le;
use crate::hive::format::{NIL, security};

/// `SE_SELF_RELATIVE`, `SE_DACL_PRESENT`, `SE_SACL_PRESENT` (MS-DTYP 2.4.6).
const SELF_RELATIVE: u16 = 0x8000;
const DACL_PRESENT: u16 = 0x4;
const SACL_PRESENT: u16 = 0x10;

impl<'a> Checker<'a> {
    pub(super) fn ring(&mut self) {
        let Some(head) = self.root_security else { return };
        let ring = self.walk_ring(head);
        let mut bodies: BTreeMap<&'a [u8], u32> = BTreeMap::new();
        for &at in &ring {
            self.security_cell(at, &mut bodies);
        }
        let members: BTreeSet<u32> = ring.into_iter().collect();
        let mut strangers: Vec<(u32, u32)> = self.users.iter().map(|(&at, &n)| (at, n)).collect();
        strangers.retain(|(at, _)| !members.contains(at));
        for (at, users) in strangers {
            let what = if at == NIL { "nothing" } else { "a cell that is not in the ring" };
            self.add(Code::SkDangling, format!("sk {at:#x}"), format!("{users} keys refer to {what}"));
        }
    }

    fn walk_ring(&mut self, head: u32) -> Vec<u32> {
        let (mut ring, mut seen) = (Vec::new(), BTreeSet::new());
        let (mut at, mut before) = (head, NIL);
        loop {
            let place = || format!("sk {at:#x}");
            let closes = !seen.insert(at);
            if closes && at != head {
                self.add(Code::SkRing, place(), "the security list closes on a cell that is not its head");
                return ring;
            }
            let cell = if closes {
                self.data(at)
            } else {
                let from = |_: &Self| if before == NIL { "root key".into() } else { format!("sk {before:#x}") };
                let Some(cell) = self.claim(at, || "security cell".into(), &from) else { return ring };
                if cell.len() < security::DESCRIPTOR || !cell.starts_with(security::SIGNATURE) {
                    self.add(Code::SkSignature, place(), "no security cell");
                    return ring;
                }
                cell
            };
            let previous = security::PREVIOUS.try_get(cell).unwrap_or(NIL);
            if before != NIL && previous != before {
                self.add(Code::SkBlink, place(), format!("says its predecessor is {previous:#x}, it is {before:#x}"));
            }
            if closes {
                return ring;
            }
            ring.push(at);
            before = at;
            at = security::NEXT.try_get(cell).unwrap_or(NIL);
        }
    }

    fn security_cell(&mut self, at: u32, bodies: &mut BTreeMap<&'a [u8], u32>) {
        let cell = self.data(at);
        let place = || format!("sk {at:#x}");
        let count = security::REFERENCES.try_get(cell).unwrap_or(0);
        let used = self.users.get(&at).copied().unwrap_or(0);
        if count != used {
            // Too low: it will be freed while in use. Too high (healed hives have it): it is never freed.
            let severity = if count < used { Severity::Error } else { Severity::Warning };
            let text = format!("reference count {count}, used by {used} keys");
            self.add_as(Code::SkRefcount, severity, place(), text);
            self.surplus.insert(at, count.saturating_sub(used));
        }
        if used == 0 {
            self.add(Code::SkUnused, place(), "no key uses it");
        }
        let length = security::LENGTH.try_get(cell).unwrap_or(0) as usize;
        let Some(body) = cell.get(security::DESCRIPTOR..).and_then(|rest| rest.get(..length)) else {
            return self.add(Code::SkSize, place(), format!("a descriptor of {length} bytes in {}", cell.len()));
        };
        if let Some(fault) = descriptor_fault(body) {
            self.add(Code::SkDescriptor, place(), fault);
        }
        if let Some(other) = bodies.insert(body, at) {
            self.add(Code::SkDuplicate, place(), format!("the same descriptor as sk {other:#x}"));
        }
    }
}

/// What is wrong with a self-relative security descriptor (MS-DTYP 2.4.6), if anything.
pub(in super::super) fn descriptor_fault(bytes: &[u8]) -> Option<String> {
    let (Some(control), Some(offsets)) = (word(bytes, 2), bytes.get(4..20)) else {
        return Some("a descriptor shorter than 20 bytes".into());
    };
    if bytes.first() != Some(&1) {
        return Some(format!("descriptor revision {}", bytes.first().unwrap_or(&0)));
    }
    if control & SELF_RELATIVE == 0 {
        return Some("the descriptor is not self-relative".into());
    }
    let mut offsets = offsets.chunks_exact(4).map(|o| u32::try_load(o).unwrap_or(0) as usize);
    let mut next = || offsets.next().unwrap_or(0);
    let (owner, group, sacl, dacl) = (next(), next(), next(), next());
    if owner == 0 {
        return Some("the descriptor has no owner".into());
    }
    for (name, at) in [("owner", owner), ("group", group)] {
        if at != 0 && (at < 20 || at % 4 != 0 || !is_sid(bytes, at)) {
            return Some(format!("bad {name} at {at}"));
        }
    }
    for (name, at, present) in [("system ACL", sacl, SACL_PRESENT), ("ACL", dacl, DACL_PRESENT)] {
        if control & present != 0
            && at != 0
            && let Some(fault) = acl_fault(bytes, at)
        {
            return Some(format!("{name}: {fault}"));
        }
    }
    None
}

fn acl_fault(bytes: &[u8], at: usize) -> Option<String> {
    let (Some(revision), Some(size), Some(count)) = (bytes.get(at), word(bytes, at + 2), word(bytes, at + 4)) else {
        return Some(format!("offset {at}"));
    };
    if at < 20 || !at.is_multiple_of(4) {
        return Some(format!("offset {at}"));
    }
    if !(2..=4).contains(revision) {
        return Some(format!("revision {revision}"));
    }
    let end = at + usize::from(size);
    if size < 8 || size % 4 != 0 || end > bytes.len() {
        return Some(format!("size {size}"));
    }
    let acl = bytes.get(..end)?;
    let mut entry = at + 8;
    for _ in 0..count {
        let (Some(kind), Some(size)) = (acl.get(entry), word(acl, entry + 2)) else {
            return Some("an entry outside".into());
        };
        let end = entry + usize::from(size);
        if size < 8 || size % 4 != 0 || end > acl.len() {
            return Some(format!("an entry of {size} bytes"));
        }
        // The kinds whose SID directly follows the mask.
        let simple = matches!(kind, 0..=3 | 9 | 10 | 13 | 14 | 0x11);
        if simple && !is_sid(acl.get(..end)?, entry + 8) {
            return Some("an entry with a bad SID".into());
        }
        entry = end;
    }
    None
}

fn is_sid(bytes: &[u8], at: usize) -> bool {
    let (Some(&revision), Some(&count)) = (bytes.get(at), bytes.get(at + 1)) else { return false };
    revision == 1 && count <= 15 && at + 8 + 4 * usize::from(count) <= bytes.len()
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    u16::try_load(bytes.get(at..)?.get(..2)?)
}
