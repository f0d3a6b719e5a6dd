//! A second way to read a hive, for verification.
//!
//! It shares no code with the editor: neither the declarations of the structures nor the look-up. What the editor wrote
//! and this reader finds was written where Windows looks: keys are looked up as the kernel does, by the hash in an `lh`
//! leaf and by binary search elsewhere, so a key in the wrong place or with a wrong hash is *not* found.

use std::cmp::Ordering;

use super::{Name, RegistryData, RegistryValue, ValueType};
use crate::error::{Error, Layer, Result};
use crate::upcase::upcase;

/// A read-only hive over the bytes of its file.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bins: &'a [u8],
    root: u32,
    big_data: bool,
}

/// A key of a [`Reader`].
#[derive(Clone, Copy)]
pub struct Node<'a> {
    hive: Reader<'a>,
    at: u32,
    cell: &'a [u8],
}

fn bad(at: u32, what: &str) -> Error {
    Error::damaged(Layer::Hive, what).at(u64::from(at) + 0x1000)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn full(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(half(bytes, at)?) | u32::from(half(bytes, at + 2)?) << 16)
}

fn text(bytes: &[u8], eight_bit: bool) -> Vec<u16> {
    if eight_bit {
        return bytes.iter().map(|&b| b.into()).collect();
    }
    bytes.chunks_exact(2).filter_map(|pair| half(pair, 0)).collect()
}

fn compare(a: &[u16], b: &[u16]) -> Ordering {
    let upper = |name: &[u16]| name.iter().map(|&u| upcase(u)).collect::<Vec<_>>();
    upper(a).cmp(&upper(b))
}

impl<'a> Reader<'a> {
    /// Opens the bytes of a hive file.
    ///
    /// # Errors
    /// Fails if the data is not a hive, is truncated, or is dirty.
    pub fn open(file: &'a [u8]) -> Result<Self> {
        let head = |at| full(file, at).ok_or_else(|| bad(0, "no base block"));
        if file.get(..4) != Some(b"regf") {
            return Err(bad(0, "not a registry hive"));
        }
        if head(4)? != head(8)? {
            let error = Error::refused(Layer::Hive, "the hive is dirty");
            return Err(error.hint("replay its logs first"));
        }
        let sum =
            (0..127).try_fold(0, |sum, i| Some(sum ^ full(file, 4 * i)?)).ok_or_else(|| bad(0, "no base block"))?;
        let avoided = match sum {
            0 => 1,
            u32::MAX => u32::MAX - 1,
            sum => sum,
        };
        if head(508)? != avoided {
            return Err(bad(0, "the base block's checksum is wrong"));
        }
        let bins = file.get(0x1000..).and_then(|rest| rest.get(..head(40).ok()? as usize));
        let bins = bins.ok_or_else(|| bad(0, "the hive is cut off"))?;
        Ok(Self { bins, root: head(36)?, big_data: head(24)? > 3 })
    }

    /// The root key, which every hive has.
    pub fn root(&self) -> Result<Node<'a>> {
        self.node(self.root)
    }

    /// The key at a path from the root (`\` between components), if it is there.
    pub fn key(&self, path: &str) -> Result<Option<Node<'a>>> {
        let mut node = self.root()?;
        for name in path.split('\\').filter(|part| !part.is_empty()) {
            match node.subkey(&name.encode_utf16().collect::<Vec<_>>())? {
                Some(next) => node = next,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// A value by the path of its key, if both are there.
    pub fn value(&self, key: &str, name: &str) -> Result<Option<RegistryData>> {
        match self.key(key)? {
            Some(key) => key.value(name),
            None => Ok(None),
        }
    }

    /// Calls `visit` with every key and its path, parents first, in the order of the indexes.
    ///
    /// # Errors
    /// Whatever `visit` returns; damage; a key that is met twice.
    pub fn walk(&self, visit: &mut dyn FnMut(&str, &Node<'a>) -> Result<()>) -> Result<()> {
        let below = |path: &String, child: &Node<'a>| {
            let name = child.name()?;
            Ok(if path.is_empty() { name.to_string() } else { format!("{path}\\{name}") })
        };
        self.traverse(String::new(), below, &mut |path, node| visit(path, node))
    }

    /// Visits every key and returns their number. Like [`walk`](Self::walk), without building paths.
    ///
    /// # Errors
    /// Like [`walk`](Self::walk).
    pub fn reach_all(&self) -> Result<usize> {
        let mut keys = 0;
        self.traverse((), |(), _| Ok(()), &mut |(), node| {
            keys += 1;
            node.name_bytes().map(drop)
        })?;
        Ok(keys)
    }

    /// Calls `visit` with every key and a value that `below` derives from the parent's; the root has `top`.
    fn traverse<T>(
        &self,
        top: T,
        below: impl Fn(&T, &Node<'a>) -> Result<T>,
        visit: &mut dyn FnMut(&T, &Node<'a>) -> Result<()>,
    ) -> Result<()> {
        // a bit for each place where a cell can start
        let mut met = vec![0_u64; (self.bins.len() / 8).div_ceil(64)];
        let mut meet = |node: &Node<'_>| {
            let place = node.at as usize / 8;
            let bit = 1 << (place % 64);
            match met.get_mut(place / 64) {
                Some(word) if *word & bit == 0 => {
                    *word |= bit;
                    Ok(())
                }
                _ => Err(bad(node.at, "a key is its own ancestor, or has two parents")),
            }
        };
        let root = self.root()?;
        meet(&root)?;
        let mut open = vec![(top, root)];
        while let Some((mine, node)) = open.pop() {
            visit(&mine, &node)?;
            for child in node.subkeys()?.into_iter().rev() {
                meet(&child)?;
                open.push((below(&mine, &child)?, child));
            }
        }
        Ok(())
    }

    fn cell(&self, at: u32) -> Result<&'a [u8]> {
        let start = at as usize;
        let size = full(self.bins, start).ok_or_else(|| bad(at, "a reference leaves the hive"))?;
        if size >> 31 == 0 {
            return Err(bad(at, "a reference to a free cell"));
        }
        let end = start.checked_add(size.wrapping_neg() as usize);
        end.and_then(|end| self.bins.get(start + 4..end)).ok_or_else(|| bad(at, "a cell leaves the hive"))
    }

    fn node(&self, at: u32) -> Result<Node<'a>> {
        let cell = self.cell(at)?;
        if cell.len() < 76 || cell.get(..2) != Some(b"nk") {
            return Err(bad(at, "a key was expected here"));
        }
        Ok(Node { hive: *self, at, cell })
    }

    fn array(&self, at: u32, skip: usize, count: usize, step: usize) -> Result<Vec<u32>> {
        let cell = self.cell(at)?;
        let all = (0..count).map(|i| full(cell, skip + i * step)).collect::<Option<Vec<_>>>();
        all.ok_or_else(|| bad(at, "a list is longer than its cell"))
    }

    fn data(&self, cell: &[u8], at: u32) -> Result<Vec<u8>> {
        let short = || bad(at, "a value is cut off");
        let (length, place) = (full(cell, 4).ok_or_else(short)?, full(cell, 8).ok_or_else(short)?);
        let size = (length & 0x7FFF_FFFF) as usize;
        if length >> 31 != 0 {
            return Ok(cell
                .get(8..)
                .and_then(|c| c.get(..size.min(5)))
                .filter(|c| c.len() < 5)
                .ok_or_else(short)?
                .to_vec());
        }
        if size == 0 {
            return Ok(Vec::new());
        }
        if size <= 16344 || !self.big_data {
            return Ok(self.cell(place)?.get(..size).ok_or_else(short)?.to_vec());
        }
        let record = self.cell(place)?;
        let (Some(count), Some(list)) = (half(record, 2), full(record, 4)) else { return Err(short()) };
        if record.get(..2) != Some(b"db") || size > self.bins.len() {
            return Err(bad(place, "big data were expected here"));
        }
        let mut data = Vec::with_capacity(size);
        for segment in self.array(list, 0, count.into(), 4)? {
            let want = (size - data.len()).min(16344);
            data.extend_from_slice(self.cell(segment)?.get(..want).ok_or_else(short)?);
        }
        if data.len() == size { Ok(data) } else { Err(short()) }
    }
}

impl<'a> Node<'a> {
    fn number(&self, at: usize) -> Result<u32> {
        full(self.cell, at).ok_or_else(|| bad(self.at, "a key is cut off"))
    }

    fn short(&self, at: usize) -> Result<u16> {
        half(self.cell, at).ok_or_else(|| bad(self.at, "a key is cut off"))
    }

    /// The key's name as stored, which need not be valid text.
    pub fn name(&self) -> Result<Name> {
        Ok(Name::from_units(self.name_units()?))
    }

    fn name_bytes(&self) -> Result<&'a [u8]> {
        let length = usize::from(self.short(72)?);
        let bytes = self.cell.get(76..).and_then(|rest| rest.get(..length));
        bytes.ok_or_else(|| bad(self.at, "a key's name is cut off"))
    }

    fn name_units(&self) -> Result<Vec<u16>> {
        Ok(text(self.name_bytes()?, self.short(2)? & 0x20 != 0))
    }

    /// When the key was last written, as a FILETIME.
    pub fn last_written(&self) -> Result<u64> {
        Ok(u64::from(self.number(4)?) | u64::from(self.number(8)?) << 32)
    }

    /// The key's class name; empty if it has none.
    pub fn class(&self) -> Result<Name> {
        let length = usize::from(self.short(74)?);
        if length == 0 {
            return Ok(Name::default());
        }
        let cell = self.hive.cell(self.number(48)?)?;
        let bytes = cell.get(..length).ok_or_else(|| bad(self.at, "a class name is cut off"))?;
        Ok(Name::from_units(text(bytes, false)))
    }

    /// The key's security descriptor.
    pub fn security(&self) -> Result<&'a [u8]> {
        let at = self.number(44)?;
        let cell = self.hive.cell(at)?;
        let length = full(cell, 16).filter(|_| cell.get(..2) == Some(b"sk"));
        let body = length.and_then(|n| cell.get(20..)?.get(..n as usize));
        body.ok_or_else(|| bad(at, "a security cell was expected here"))
    }

    /// The key's subkeys, in the order of the index.
    pub fn subkeys(&self) -> Result<Vec<Node<'a>>> {
        let wrong = || bad(self.at, "a key's index does not hold as many subkeys as the key says");
        let count = self.number(20)? as usize;
        if count > self.hive.bins.len() / 80 {
            return Err(wrong());
        }
        let mut all = Vec::new();
        for leaf in self.leaves()? {
            for at in self.leaf(leaf)? {
                if all.len() == count {
                    return Err(wrong());
                }
                all.push(self.hive.node(at)?);
            }
        }
        if all.len() == count { Ok(all) } else { Err(wrong()) }
    }

    fn leaves(&self) -> Result<Vec<u32>> {
        if self.number(20)? == 0 {
            return Ok(Vec::new());
        }
        let top = self.number(28)?;
        let cell = self.hive.cell(top)?;
        if cell.get(..2) != Some(b"ri") {
            return Ok(vec![top]);
        }
        self.hive.array(top, 4, half(cell, 2).unwrap_or(0).into(), 4)
    }

    fn leaf(&self, at: u32) -> Result<Vec<u32>> {
        let cell = self.hive.cell(at)?;
        let step = match cell.get(..2) {
            Some(b"li") => 4,
            Some(b"lf" | b"lh") => 8,
            _ => return Err(bad(at, "a subkey list was expected here")),
        };
        self.hive.array(at, 4, half(cell, 2).unwrap_or(0).into(), step)
    }

    /// The subkey of this name, looked up as the kernel does.
    pub fn subkey(&self, name: &[u16]) -> Result<Option<Node<'a>>> {
        let leaves = self.leaves()?;
        let (mut low, mut high) = (0, leaves.len());
        while high - low > 1 {
            let middle = low.midpoint(high);
            let at = leaves.get(middle).copied().unwrap_or(0);
            let first = self.leaf(at)?.first().copied().ok_or_else(|| bad(at, "a subkey list without entries"))?;
            let first = self.hive.node(first)?.name_units()?;
            if compare(&first, name) == Ordering::Greater { high = middle } else { low = middle }
        }
        let Some(&at) = leaves.get(low) else { return Ok(None) };
        if self.hive.cell(at)?.get(..2) == Some(b"lh") { self.by_hash(at, name) } else { self.by_name(at, name) }
    }

    fn by_hash(&self, at: u32, name: &[u16]) -> Result<Option<Node<'a>>> {
        let hash = name.iter().fold(0u32, |h, &u| h.wrapping_mul(37).wrapping_add(upcase(u).into()));
        let keys = self.leaf(at)?;
        let hashes = self.hive.array(at, 8, keys.len(), 8)?;
        for (key, _) in keys.into_iter().zip(hashes).filter(|&(_, h)| h == hash) {
            let node = self.hive.node(key)?;
            if compare(&node.name_units()?, name) == Ordering::Equal {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    fn by_name(&self, at: u32, name: &[u16]) -> Result<Option<Node<'a>>> {
        let keys = self.leaf(at)?;
        let (mut low, mut high) = (0, keys.len());
        while low < high {
            let middle = low.midpoint(high);
            let node = self.hive.node(keys.get(middle).copied().unwrap_or(0))?;
            match compare(&node.name_units()?, name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Some(node)),
            }
        }
        Ok(None)
    }

    /// The key's values, in the order of the list.
    pub fn values(&self) -> Result<Vec<RegistryValue>> {
        let count = self.number(36)? as usize;
        if count == 0 {
            return Ok(Vec::new());
        }
        let list = self.number(40)?;
        if count > self.hive.cell(list)?.len() / 4 {
            return Err(bad(list, "a value list is longer than its cell"));
        }
        let mut left = self.hive.bins.len();
        let mut all = Vec::new();
        for at in self.hive.array(list, 0, count, 4)? {
            let value = self.value_at(at)?;
            left = left
                .checked_sub(value.data.bytes.len() + value.name.units().len() + 20)
                .ok_or_else(|| bad(at, "values overlap"))?;
            all.push(value);
        }
        Ok(all)
    }

    /// The data of the value of this name; the empty name is the default value.
    pub fn value(&self, name: &str) -> Result<Option<RegistryData>> {
        let name: Vec<u16> = name.encode_utf16().collect();
        let found = self.values()?.into_iter().find(|v| compare(v.name.units(), &name) == Ordering::Equal);
        Ok(found.map(|value| value.data))
    }

    fn value_at(&self, at: u32) -> Result<RegistryValue> {
        let cell = self.hive.cell(at)?;
        let fields = (half(cell, 2), full(cell, 12), half(cell, 16));
        let (Some(b"vk"), (Some(length), Some(kind), Some(flags))) = (cell.get(..2), fields) else {
            return Err(bad(at, "a value was expected here"));
        };
        let name = cell.get(20..).and_then(|rest| rest.get(..length.into()));
        let name = text(name.ok_or_else(|| bad(at, "a value's name is cut off"))?, flags & 1 != 0);
        let data = RegistryData { kind: ValueType(kind), bytes: self.hive.data(cell, at)? };
        Ok(RegistryValue { name: Name::from_units(name), data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;
    use crate::hive::Hive;

    #[test]
    fn reads_what_the_editor_wrote() {
        let now = FileTime(77);
        let mut hive = Hive::create("ROOT", now);
        for i in 0..3000 {
            hive.create_key(hive.root(), &format!("Key {i}"), now).unwrap();
        }
        let key = hive.create_key(hive.root(), r"key 7\Ünter", now).unwrap();
        let large = RegistryData::binary([9; 40_000]);
        hive.set_value(key, "Large", &large, now).unwrap();
        hive.set_value(key, "", &RegistryData::new(ValueType::SZ, b"a\0\0\0"), now).unwrap();
        let bytes = hive.finish(&[]).unwrap();
        let reader = Reader::open(&bytes).unwrap();
        let node = reader.key(r"KEY 7\üNTER").unwrap().unwrap();
        assert_eq!(node.value("large").unwrap().unwrap(), large);
        assert_eq!(node.values().unwrap().len(), 2);
        assert_eq!(node.last_written().unwrap(), 77);
        for i in 0..3000 {
            assert!(reader.key(&format!("key {i}")).unwrap().is_some());
        }
        assert!(reader.key("key 3000").unwrap().is_none());
        let mut count = 0;
        reader
            .walk(&mut |_, _| {
                let _: () = count += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(count, 3002);
    }
}
