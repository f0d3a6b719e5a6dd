//! Keys.

use super::checker::Checker;
use super::fault::{Code, Severity};
use crate::hive::format::{DEPTH_MAX, KEY_CELL_MAX, KEY_NAME_MAX, NIL, base_block, key};
use crate::hive::name::StoredName;

const KNOWN_FLAGS: u16 = 0x03FF | 0xF000;

/// Bytes of a path that a report shows.
const PATH_MAX: usize = 4096;

/// A key that waits for its turn.
pub(super) struct Pending {
    pub(super) at: u32,
    pub(super) parent: u32,
    pub(super) depth: u32,
}

impl<'a> Checker<'a> {
    pub(super) fn tree(&mut self) {
        let root = base_block::ROOT.try_get(self.bytes).unwrap_or(NIL);
        if self.claim(root, || "root key".into(), &|_| "base block".into()).is_none() {
            return;
        }
        let mut pending = vec![Pending { at: root, parent: NIL, depth: 1 }];
        while let Some(next) = pending.pop() {
            self.trail.truncate(next.depth as usize - 1);
            self.trail.push(next.at);
            self.key(&next, &mut pending);
        }
    }

    /// The path of the key at hand; of a very long one the end, and where its cell is.
    pub(super) fn path(&self) -> String {
        let Some((_, below)) = self.trail.split_first().filter(|(_, below)| !below.is_empty()) else {
            return "\\".into();
        };
        let mut names = Vec::new();
        let mut length = 0;
        for &at in below.iter().rev() {
            let name = key_name(self.data(at)).shown();
            length += name.len();
            if length > PATH_MAX {
                names.push(format!("(cell {:#x}) …", below.last().unwrap_or(&0)));
                break;
            }
            names.push(name);
        }
        let whole = names.len() == below.len() && length <= PATH_MAX;
        names.reverse();
        if whole { format!("\\{}", names.join("\\")) } else { names.join("\\") }
    }

    fn fault(&mut self, code: Code, text: impl Into<String>) {
        let place = self.path();
        self.add(code, place, text);
    }

    fn key(&mut self, this: &Pending, pending: &mut Vec<Pending>) {
        let cell = self.data(this.at);
        if this.depth as usize > DEPTH_MAX {
            return self.fault(Code::NkDepth, "deeper than 512 levels");
        }
        let names = (key::NAME_LENGTH.try_get(cell), key::CLASS_LENGTH.try_get(cell));
        let (true, (Some(name_length), Some(class_length))) = (cell.starts_with(key::SIGNATURE), names) else {
            return self.fault(Code::NkSignature, format!("cell {:#x} is not a key", this.at));
        };
        if cell.len() > KEY_CELL_MAX {
            self.fault(Code::NkCellsize, format!("the key's cell holds {} bytes", cell.len()));
        }
        self.key_flags(cell, this.parent);
        if name_length == 0 {
            self.fault(Code::NkNoname, "the key has no name");
        }
        if key::NAME + usize::from(name_length) > cell.len() {
            return self.fault(Code::NkNamelen, format!("a name of {name_length} bytes leaves the cell"));
        }
        self.class(cell, class_length);
        let security = key::SECURITY.try_get(cell).unwrap_or(NIL);
        *self.users.entry(security).or_insert(0) += 1;
        if this.parent == NIL {
            self.root_security = Some(security);
        }
        let (largest_name, largest_data) = self.values(cell);
        self.maximum(Code::NkMaxvname, "value name", largest_name, key::LARGEST_VALUE_NAME.try_get(cell).unwrap_or(0));
        self.maximum(Code::NkMaxvdata, "value data", largest_data, key::LARGEST_VALUE_DATA.try_get(cell).unwrap_or(0));
        let before = pending.len();
        let (largest_name, largest_class) = self.subkeys(this, cell, pending);
        let cached = u32::from(key::LARGEST_NAME.try_get(cell).unwrap_or(0));
        self.maximum(Code::NkMaxname, "subkey name", largest_name, cached);
        self.maximum(Code::NkMaxclass, "subkey class", largest_class, key::LARGEST_CLASS.try_get(cell).unwrap_or(0));
        if key::FLAGS.try_get(cell).unwrap_or(0) & key::LINK != 0 && pending.len() > before {
            self.fault(Code::NkLinkkids, "a symbolic link with subkeys");
        }
    }

    fn maximum(&mut self, code: Code, what: &str, truth: u32, cached: u32) {
        if cached < truth {
            self.fault(code, format!("the largest {what} has {truth} bytes, the key says {cached}"));
        }
    }

    fn key_flags(&mut self, cell: &[u8], parent: u32) {
        let flags = key::FLAGS.try_get(cell).unwrap_or(0);
        if flags & (key::VOLATILE | key::EXIT | key::PREDEFINED) != 0 {
            self.fault(Code::NkFlags, format!("flags {flags:#06x} must not be on disk"));
        }
        if flags & !KNOWN_FLAGS != 0 {
            self.fault(Code::NkFlags2, format!("unknown flags {flags:#06x}"));
        }
        if parent == NIL {
            if flags & key::ENTRY == 0 {
                self.fault(Code::NkRootflag, format!("root key with flags {flags:#06x}"));
            }
            if flags & key::NO_DELETE == 0 {
                self.fault(Code::NkRootnodel, format!("root key with flags {flags:#06x}"));
            }
        } else {
            if flags & key::ENTRY != 0 {
                self.fault(Code::NkEntryflag, "not the root, but flagged as hive entry");
            }
            let says = key::PARENT.try_get(cell).unwrap_or(0);
            if says != parent {
                self.fault(Code::NkParent, format!("the key says its parent is {says:#x}, it is {parent:#x}"));
            }
        }
        let layer = if self.minor >= 6 { key::LAYER.try_get(cell).unwrap_or(0) & 3 } else { 0 };
        if layer != 0 && !self.layered {
            self.fault(Code::NkLayer, format!("layer bits {layer} in a hive that has no layers"));
        }
    }

    fn class(&mut self, cell: &[u8], length: u16) {
        let at = key::CLASS.try_get(cell).unwrap_or(NIL);
        if length == 0 {
            if at != NIL {
                self.fault(Code::NkClass0, format!("no class name, but a cell for it ({at:#x})"));
            }
            return;
        }
        let Some(class) = self.claim(at, || "class name".into(), &Self::path) else { return };
        if usize::from(length) > class.len() {
            self.fault(Code::NkClass, format!("a class name of {length} bytes in a cell of {}", class.len()));
        }
        if !length.is_multiple_of(2) {
            self.fault(Code::NkClassodd, format!("a class name of {length} bytes"));
        }
    }
}

/// Faults found at one place that has yet to be named.
pub(super) type Found = Vec<(Code, Severity, String)>;

/// The rules for a subkey's name.
pub(super) fn name_faults(name: StoredName<'_>, found: &mut Found) {
    let length = name.len();
    let latin = matches!(name, StoredName::Latin(_));
    let backslash = name.units().any(|u| u == u16::from(b'\\'));
    if latin && length <= KEY_NAME_MAX && !backslash {
        return;
    }
    let mut add = |code: Code, text: String| found.push((code, code.severity(), text));
    if let StoredName::Wide(bytes) = name
        && bytes.len() % 2 != 0
    {
        add(Code::NmOdd, format!("a UTF-16 name of {} bytes", bytes.len()));
    }
    if backslash {
        add(Code::NkBackslash, "the name holds a backslash".into());
    }
    match length {
        0..=255 => {}
        256 => add(Code::NkName256, "a name of 256 characters".into()),
        _ => add(Code::NkNamelong, format!("a name of {length} characters")),
    }
    if !latin && length > 0 && name.units().all(|u| u < 256) {
        add(Code::NkUncompressed, "the name fits 8 bits".into());
    }
}

/// The name in a key's cell, as far as the cell reaches.
pub(super) fn key_name(cell: &[u8]) -> StoredName<'_> {
    let length = usize::from(key::NAME_LENGTH.try_get(cell).unwrap_or(0));
    let name = cell.get(key::NAME..).unwrap_or_default();
    let latin = key::FLAGS.try_get(cell).unwrap_or(0) & key::LATIN_NAME != 0;
    StoredName::new(name.get(..length).unwrap_or_default(), latin)
}
