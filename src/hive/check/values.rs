//! Values.

use super::checker::Checker;
use super::fault::Code;
use crate::hive::format::{CELL_MAX, NIL, SEGMENT, VALUE_NAME_MAX, big_data, key, list, value};
use crate::hive::name::StoredName;
use crate::upcase::upcase;

impl<'a> Checker<'a> {
    /// Checks the values of a key; returns the longest name and data in bytes.
    pub(super) fn values(&mut self, cell: &'a [u8]) -> (u32, u32) {
        let count = key::VALUES.try_get(cell).unwrap_or(0) as usize;
        let list_at = key::VALUE_LIST.try_get(cell).unwrap_or(NIL);
        if key::FLAGS.try_get(cell).unwrap_or(0) & key::PREDEFINED != 0 {
            return (0, 0);
        }
        if count == 0 {
            if list_at != NIL {
                let place = self.path();
                self.add(Code::VlEmpty, place, format!("no values, but a list ({list_at:#x})"));
                self.stale_list(list_at);
            }
            return (0, 0);
        }
        let Some(list) = self.claim(list_at, || "value list".into(), &Self::path) else { return (0, 0) };
        if count > list.len() / 4 {
            let place = self.path();
            self.add(Code::VlSize, place, format!("{count} values in a list of {} bytes", list.len()));
        }
        let (mut largest_name, mut largest_data) = (0, 0);
        self.names.clear();
        for i in 0..count.min(list.len() / 4) {
            let at = list::entry(list, 0, i, 4).unwrap_or(NIL);
            let place = move |c: &Self| format!("{} : value {i}", c.path());
            let Some(cell) = self.claim(at, || "value".into(), &place) else { continue };
            if let Some((name, data)) = self.value(at, cell, &place) {
                largest_name = largest_name.max(name);
                largest_data = largest_data.max(data);
            }
        }
        self.duplicates();
        (largest_name, largest_data)
    }

    fn value(&mut self, at: u32, cell: &'a [u8], place: &dyn Fn(&Self) -> String) -> Option<(u32, u32)> {
        if cell.len() < value::NAME || !cell.starts_with(value::SIGNATURE) {
            let place = place(self);
            self.add(Code::VkSignature, place, format!("cell {at:#x} is not a value"));
            return None;
        }
        let length = usize::from(value::NAME_LENGTH.try_get(cell)?);
        let Some(bytes) = cell.get(value::NAME..)?.get(..length) else {
            let place = place(self);
            self.add(Code::VkNamelen, place, format!("a name of {length} bytes leaves the cell"));
            return None;
        };
        let flags = value::FLAGS.try_get(cell)?;
        let name = StoredName::new(bytes, flags & value::LATIN_NAME != 0);
        self.value_name(name, bytes, flags);
        self.names.push((name_hash(name), at));
        let field = value::DATA_LENGTH.try_get(cell)?;
        let data = field & !value::RESIDENT;
        let at = value::DATA.try_get(cell)?;
        if field & value::RESIDENT != 0 {
            if data > 4 {
                self.value_fault(name, Code::VkResident, format!("resident data of {data} bytes"));
            }
        } else if data == 0 {
            if at != NIL {
                self.value_fault(name, Code::VkZerodata, format!("no data, but a cell for them ({at:#x})"));
            }
        } else {
            if flags & value::TOMBSTONE != 0 {
                self.value_fault(name, Code::VkTombstone, "a tombstone with data");
            }
            self.data_cells(name, at, data as usize);
        }
        Some((2 * name.len() as u32, data))
    }

    fn value_fault(&mut self, name: StoredName<'_>, code: Code, text: impl Into<String>) {
        let place = self.value_place(name);
        self.add(code, place, text);
    }

    fn value_place(&self, name: StoredName<'_>) -> String {
        let name = if name.len() == 0 { "(default)".into() } else { name.shown() };
        format!("{} : {name}", self.path())
    }

    fn value_name(&mut self, name: StoredName<'_>, bytes: &[u8], flags: u16) {
        let wide = matches!(name, StoredName::Wide(_));
        if wide && !bytes.len().is_multiple_of(2) {
            self.value_fault(name, Code::NmOdd, format!("a UTF-16 name of {} bytes", bytes.len()));
        }
        if name.len() > VALUE_NAME_MAX {
            self.value_fault(name, Code::VkNamelong, format!("a name of {} characters", name.len()));
        }
        if wide && name.len() > 0 && name.units().all(|u| u < 256) {
            self.value_fault(name, Code::VkUncompressed, "the name fits 8 bits");
        }
        if flags & !(value::LATIN_NAME | value::TOMBSTONE) != 0 {
            self.value_fault(name, Code::VkFlags, format!("unknown flags {flags:#x}"));
        }
    }

    fn data_cells(&mut self, name: StoredName<'_>, at: u32, length: usize) {
        if length > SEGMENT && self.minor >= 4 {
            return self.big_data(name, at, length);
        }
        let Some(cell) = self.claim(at, || "data".into(), &|c| c.value_place(name)) else { return };
        if length > cell.len() {
            self.value_fault(name, Code::VkDatasize, format!("{length} bytes in a cell of {}", cell.len()));
        }
        if length > CELL_MAX {
            self.value_fault(name, Code::VkToobig, format!("{length} bytes in one cell"));
        }
    }

    fn big_data(&mut self, name: StoredName<'_>, at: u32, length: usize) {
        let place = |c: &Self| c.value_place(name);
        let Some(record) = self.claim(at, || "big data".into(), &place) else { return };
        let fields = (big_data::SEGMENTS.try_get(record), big_data::LIST.try_get(record));
        let (true, (Some(count), Some(list_at))) = (record.starts_with(big_data::SIGNATURE), fields) else {
            let text = format!("{length} bytes, but cell {at:#x} is not a big data record");
            return self.value_fault(name, Code::DbSignature, text);
        };
        let needed = length.div_ceil(SEGMENT);
        if usize::from(count) != needed {
            self.value_fault(name, Code::DbCount, format!("{count} segments for {length} bytes, should be {needed}"));
        }
        if count < 2 {
            self.value_fault(name, Code::DbShort, format!("big data with {count} segments"));
        }
        let Some(list) = self.claim(list_at, || "segment list".into(), &place) else { return };
        let room = list.len() / 4;
        if usize::from(count) > room {
            self.value_fault(name, Code::DbList, format!("{count} segments in a list of {} bytes", list.len()));
        }
        let mut left = length;
        for i in 0..usize::from(count).min(room) {
            let at = list::entry(list, 0, i, 4).unwrap_or(NIL);
            let need = left.min(SEGMENT);
            left -= need;
            if let Some(segment) = self.claim(at, || format!("segment {i}"), &place)
                && segment.len() < need
            {
                let text = format!("segment {i} needs {need} bytes, its cell holds {}", segment.len());
                self.value_fault(name, Code::DbSegment, text);
            }
        }
    }

    /// Equal names have equal hashes: so sort by hash and compare only neighbours.
    fn duplicates(&mut self) {
        self.names.sort_unstable();
        let mut twice = Vec::new();
        for pair in self.names.windows(2) {
            if let [(a, first), (b, second)] = *pair
                && a == b
                && value_name(self.data(first)).cmp_upcased(value_name(self.data(second))).is_eq()
            {
                twice.push(second);
            }
        }
        for at in twice {
            self.value_fault(value_name(self.data(at)), Code::VlDuplicate, "two values of this name");
        }
    }
}

fn value_name(cell: &[u8]) -> StoredName<'_> {
    let length = usize::from(value::NAME_LENGTH.try_get(cell).unwrap_or(0));
    let bytes = cell.get(value::NAME..).and_then(|rest| rest.get(..length)).unwrap_or_default();
    StoredName::new(bytes, value::FLAGS.try_get(cell).unwrap_or(0) & value::LATIN_NAME != 0)
}

/// Any spread will do: names with equal hashes are compared.
fn name_hash(name: StoredName<'_>) -> u64 {
    name.units().fold(0xCBF2_9CE4_8422_2325, |hash: u64, unit| {
        (hash ^ u64::from(upcase(unit))).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
