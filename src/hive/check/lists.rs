//! Subkey indexes.

use std::cmp::Ordering;

use super::checker::Checker;
use super::fault::{Code, Severity};
use super::keys::{Found, Pending, key_name, name_faults};
use crate::hive::format::{LeafKind, NIL, key, list};
use crate::hive::name::{StoredName, hash, hint};
use crate::upcase::upcase;

/// What is gathered over all leaves of a key.
#[derive(Default)]
struct Gathered<'a> {
    total: u32,
    largest_name: u32,
    largest_class: u32,
    previous: Option<StoredName<'a>>,
    kinds: Vec<LeafKind>,
}

impl<'a> Checker<'a> {
    /// Checks the index of a key, queues its subkeys, and returns their longest name and class in bytes.
    pub(super) fn subkeys(&mut self, this: &Pending, cell: &'a [u8], pending: &mut Vec<Pending>) -> (u32, u32) {
        let count = key::SUBKEYS.try_get(cell).unwrap_or(0);
        let top_at = key::SUBKEY_LIST.try_get(cell).unwrap_or(NIL);
        if count == 0 {
            if top_at != NIL {
                let place = self.path();
                self.add(Code::SlEmpty, place, format!("no subkeys, but a list ({top_at:#x})"));
                self.stale_list(top_at);
            }
            return (0, 0);
        }
        let Some(top) = self.claim(top_at, || "subkey list".into(), &Self::path) else { return (0, 0) };
        let first = pending.len();
        let mut gathered = Gathered::default();
        if top.starts_with(list::ROOT) {
            for i in 0..self.index_root(top) {
                let at = list::entry(top, list::ENTRIES, i, 4).unwrap_or(NIL);
                if let Some(leaf) = self.claim(at, || "leaf of the index".into(), &Self::path) {
                    self.leaf(this, at, leaf, &mut gathered, pending);
                }
            }
        } else {
            self.leaf(this, top_at, top, &mut gathered, pending);
        }
        if gathered.total != count {
            let place = self.path();
            self.add(Code::SlCount, place, format!("the key says {count} subkeys, its lists hold {}", gathered.total));
        }
        if gathered.kinds.len() > 1 {
            let place = self.path();
            self.add(Code::SlMixed, place, format!("leaves of several kinds: {:?}", gathered.kinds));
        }
        // Keys are popped from the end.
        if let Some(new) = pending.get_mut(first..) {
            new.reverse();
        }
        (gathered.largest_name, gathered.largest_class)
    }

    fn index_root(&mut self, top: &[u8]) -> usize {
        let count = usize::from(list::COUNT.try_get(top).unwrap_or(0));
        if count == 0 {
            let place = self.path();
            self.add(Code::SlRiempty, place, "an index root without leaves");
        }
        let room = top.len().saturating_sub(list::ENTRIES) / 4;
        if count > room {
            let place = self.path();
            self.add(Code::SlRisize, place, format!("an index root of {count} entries in {} bytes", top.len()));
        }
        count.min(room)
    }

    fn leaf(
        &mut self,
        this: &Pending,
        at: u32,
        leaf: &'a [u8],
        gathered: &mut Gathered<'a>,
        pending: &mut Vec<Pending>,
    ) {
        let Some(kind) = LeafKind::of(leaf) else {
            let place = self.path();
            return self.add(Code::SlSignature, place, format!("cell {at:#x} is not a subkey list"));
        };
        if !gathered.kinds.contains(&kind) {
            gathered.kinds.push(kind);
        }
        let count = self.leaf_shape(at, leaf, kind);
        gathered.total = gathered.total.saturating_add(count as u32);
        for i in 0..count {
            let child_at = list::entry(leaf, list::ENTRIES, i, kind.stride()).unwrap_or(NIL);
            let Some(child) = self.claim(child_at, || format!("subkey {i}"), &Self::path) else { continue };
            pending.push(Pending { at: child_at, parent: this.at, depth: this.depth + 1 });
            let length = usize::from(key::NAME_LENGTH.try_get(child).unwrap_or(0));
            if !child.starts_with(key::SIGNATURE) || key::NAME + length > child.len() {
                continue; // the key itself will be reported
            }
            let name = key_name(child);
            let mut found = Found::new();
            name_faults(name, &mut found);
            order_fault(gathered.previous, name, &mut found);
            entry_fault(leaf, i, kind, name, &mut found);
            if !found.is_empty() {
                let place = format!("{}\\{}", self.path().trim_end_matches('\\'), name.shown());
                found.into_iter().for_each(|(code, severity, text)| self.add_as(code, severity, place.clone(), text));
            }
            gathered.previous = Some(name);
            gathered.largest_name = gathered.largest_name.max(2 * name.len() as u32);
            gathered.largest_class = gathered.largest_class.max(key::CLASS_LENGTH.try_get(child).unwrap_or(0).into());
        }
    }

    fn leaf_shape(&mut self, at: u32, leaf: &[u8], kind: LeafKind) -> usize {
        let count = usize::from(list::COUNT.try_get(leaf).unwrap_or(0));
        let room = leaf.len().saturating_sub(list::ENTRIES) / kind.stride();
        let mut faults = Vec::new();
        if count == 0 {
            faults.push((Code::SlLeafempty, format!("leaf {at:#x} without entries")));
        }
        if count > room {
            faults.push((Code::SlLeafsize, format!("a leaf of {count} entries in {} bytes", leaf.len())));
        }
        if count.min(room) > kind.entries_max() {
            faults.push((Code::SlLeafbig, format!("a leaf of {count} entries")));
        }
        if kind == LeafKind::Lh && self.minor < 5 {
            faults.push((Code::SlKind, format!("a hashed leaf in a hive of version 1.{}", self.minor)));
        }
        for (code, text) in faults {
            let place = self.path();
            self.add(code, place, text);
        }
        count.min(room)
    }
}

fn order_fault(previous: Option<StoredName<'_>>, name: StoredName<'_>, found: &mut Found) {
    let Some(previous) = previous else { return };
    let (code, how) = match previous.cmp_upcased(name) {
        Ordering::Less => return,
        Ordering::Equal => (Code::SlDuplicate, "has the name of its predecessor"),
        Ordering::Greater => (Code::SlOrder, "is sorted after"),
    };
    found.push((code, code.severity(), format!("{how} \"{}\"", previous.shown())));
}

fn entry_fault(leaf: &[u8], i: usize, kind: LeafKind, name: StoredName<'_>, found: &mut Found) {
    let stored = list::entry(leaf, list::ENTRIES + 4, i, kind.stride()).unwrap_or(0);
    match kind {
        LeafKind::Li => {}
        LeafKind::Lh => {
            let right = hash(name.units());
            if stored != right {
                let text = format!("hash {stored:08x}, should be {right:08x}");
                found.push((Code::SlHash, Severity::Error, text));
            }
        }
        LeafKind::Lf => {
            let (stored, right) = (stored.to_le_bytes(), hint(name.units()));
            if stored != right {
                let severity = if misleads(stored, name) { Severity::Error } else { Severity::Warning };
                found.push((Code::SlHint, severity, format!("hint {stored:?}, should be {right:?}")));
            }
        }
    }
}

/// Whether a look-up by this hint misses the key: its bytes up to the first zero must fit the name in any case.
fn misleads(hint: [u8; 4], name: StoredName<'_>) -> bool {
    let mut units = name.units();
    for byte in hint.into_iter().take_while(|&b| b != 0) {
        if units.next().is_none_or(|unit| upcase(unit) != upcase(byte.into())) {
            return true;
        }
    }
    false
}
