//! A new, empty hive.

use super::cells::Cells;
use super::format::{NIL, PAGE, base_block, bin, key, security};
use super::{Hive, Name};
use crate::clock::FileTime;

/// Full control for SYSTEM and the administrators, who also own it; inherited by every key.
const DESCRIPTOR: [u8; 104] = [
    1, 0, 0x04, 0x80, 0x48, 0, 0, 0, 0x58, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, // header
    2, 0, 0x34, 0, 2, 0, 0, 0, // DACL of 52 bytes, two entries
    0, 2, 0x14, 0, 0x3F, 0, 0x0F, 0, 1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0, // allow S-1-5-18
    0, 2, 0x18, 0, 0x3F, 0, 0x0F, 0, 1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0, // allow S-1-5-32-544
    1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0, // owner S-1-5-32-544
    1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0, // group
];

impl Hive {
    /// A hive of version 1.5 with nothing but a root key of this name.
    ///
    /// # Panics
    /// If `root` is empty or longer than 255 characters.
    #[must_use]
    pub fn create(root: &str, now: FileTime) -> Self {
        Self::create_version(root, 5, now)
    }

    /// Like [`create`](Self::create), with another minor version (3 to 6).
    ///
    /// # Panics
    /// If `root` is empty or longer than 255 characters, or the version is out of range.
    #[must_use]
    pub fn create_version(root: &str, minor: u32, now: FileTime) -> Self {
        let name = Name::from(root);
        assert!((3..=6).contains(&minor), "hive versions are 1.3 to 1.6");
        assert!((1..=255).contains(&name.units().len()), "a root key's name has 1 to 255 characters");
        let build = || Self::open(empty(&name, minor, now)?).ok();
        #[allow(clippy::expect_used)]
        build().expect("an empty hive is well-formed")
    }
}

fn empty(name: &Name, minor: u32, now: FileTime) -> Option<Vec<u8>> {
    let mut cells = Cells::new(vec![0; PAGE as usize], 0);
    let (bytes, latin) = name.encode();
    let root = cells.allocate(key::NAME + bytes.len()).ok()?;
    let secure = cells.allocate(security::DESCRIPTOR + DESCRIPTOR.len()).ok()?;

    let cell = cells.data_mut(root).ok()?;
    cell.get_mut(..2)?.copy_from_slice(key::SIGNATURE);
    let flags = key::ENTRY | key::NO_DELETE | if latin { key::LATIN_NAME } else { 0 };
    key::FLAGS.try_set(cell, flags)?;
    key::LAST_WRITTEN.try_set(cell, now.0)?;
    for none in [key::PARENT, key::SUBKEY_LIST, key::VOLATILE_LIST, key::VALUE_LIST, key::CLASS] {
        none.try_set(cell, NIL)?;
    }
    key::SECURITY.try_set(cell, secure.0)?;
    key::NAME_LENGTH.try_set(cell, u16::try_from(bytes.len()).ok()?)?;
    cell.get_mut(key::NAME..)?.get_mut(..bytes.len())?.copy_from_slice(&bytes);

    let cell = cells.data_mut(secure).ok()?;
    cell.get_mut(..2)?.copy_from_slice(security::SIGNATURE);
    security::NEXT.try_set(cell, secure.0)?;
    security::PREVIOUS.try_set(cell, secure.0)?;
    security::REFERENCES.try_set(cell, 1)?;
    security::LENGTH.try_set(cell, u32::try_from(DESCRIPTOR.len()).ok()?)?;
    cell.get_mut(security::DESCRIPTOR..)?.get_mut(..DESCRIPTOR.len())?.copy_from_slice(&DESCRIPTOR);

    let length = cells.length();
    let head = cells.bytes_mut();
    head.get_mut(..4)?.copy_from_slice(base_block::SIGNATURE);
    base_block::MAJOR.try_set(head, 1)?;
    base_block::MINOR.try_set(head, minor)?;
    base_block::FORMAT.try_set(head, 1)?;
    base_block::CLUSTER.try_set(head, 1)?;
    base_block::ROOT.try_set(head, root.0)?;
    base_block::LAST_WRITTEN.try_set(head, now.0)?;
    super::editor::seal(head, length, &[]).ok()?;
    let first = head.get_mut(PAGE as usize..)?;
    bin::LAST_WRITTEN.try_set(first, now.0)?;
    Some(cells.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hive::check;

    #[test]
    fn an_empty_hive_is_clean() {
        for minor in 3..=6 {
            let hive = Hive::create_version("ROOT", minor, FileTime(1));
            let bytes = hive.finish(&[]).unwrap();
            assert_eq!(bytes.len(), 8192);
            assert_eq!(check::check(&bytes), []);
        }
    }
}
