//! Security cells: shared descriptors in one ring, counted.

use super::cells::{CellOffset, damaged};
use super::check::descriptor_fault;
use super::format::{key, security};
use super::{Hive, KeyId};
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};

impl Hive {
    /// Gives a key a security descriptor (self-relative bytes). An equal descriptor of the hive is shared.
    ///
    /// # Errors
    /// Refuses bytes that are no valid self-relative descriptor.
    pub fn set_security(&mut self, key: KeyId, descriptor: &[u8], now: FileTime) -> Result<bool> {
        self.ensure_editable()?;
        if self.security(key)? == descriptor {
            return Ok(false);
        }
        if let Some(fault) = descriptor_fault(descriptor) {
            let error = Error::refused(Layer::Hive, format!("not a valid security descriptor: {fault}"));
            return Err(error.hint("give a self-relative descriptor with an owner"));
        }
        self.edit(|hive| {
            let old = CellOffset(hive.cells.get(key.0, key::SECURITY)?);
            let new = match hive.equal_descriptor(descriptor)? {
                Some(shared) => shared,
                None => hive.add_descriptor(descriptor)?,
            };
            hive.share_security(new)?;
            hive.cells.put(key.0, key::SECURITY, new.0)?;
            hive.cells.put(key.0, key::LAST_WRITTEN, now.0)?;
            hive.release_security(old)?;
            Ok(true)
        })
    }

    pub(super) fn descriptor(&self, at: CellOffset) -> Result<&[u8]> {
        let cell = self.cells.data(at)?;
        if !cell.starts_with(security::SIGNATURE) {
            return Err(damaged(at, "not a security cell (sk)"));
        }
        let length = self.cells.get(at, security::LENGTH)? as usize;
        let descriptor = cell.get(security::DESCRIPTOR..).and_then(|rest| rest.get(..length));
        descriptor.ok_or_else(|| damaged(at, "security descriptor leaves its cell"))
    }

    /// One more key uses the cell.
    pub(super) fn share_security(&mut self, at: CellOffset) -> Result<()> {
        let count = self.cells.get(at, security::REFERENCES)?;
        let count = count.checked_add(1).ok_or_else(|| damaged(at, "reference count of a security cell overflows"))?;
        self.cells.put(at, security::REFERENCES, count)
    }

    /// One key less uses the cell; the last one takes it out of the ring.
    pub(super) fn release_security(&mut self, at: CellOffset) -> Result<()> {
        let count = self.cells.get(at, security::REFERENCES)?;
        // Windows' own repairs leave counts that are too high: the keys are what counts.
        let users = count.saturating_sub(self.surplus.get(&at.0).copied().unwrap_or(0));
        if users > 1 {
            return self.cells.put(at, security::REFERENCES, count - 1);
        }
        self.surplus.remove(&at.0);
        let next = CellOffset(self.cells.get(at, security::NEXT)?);
        let previous = CellOffset(self.cells.get(at, security::PREVIOUS)?);
        if next == at {
            return Err(Error::bug(Layer::Hive, "the last security cell of a hive is in use"));
        }
        self.cells.put(previous, security::NEXT, next.0)?;
        self.cells.put(next, security::PREVIOUS, previous.0)?;
        self.cells.free(at)
    }

    fn equal_descriptor(&self, descriptor: &[u8]) -> Result<Option<CellOffset>> {
        let head = CellOffset(self.cells.get(self.root, key::SECURITY)?);
        let mut at = head;
        for _ in 0..self.cells.length() / 32 {
            if self.descriptor(at)? == descriptor {
                return Ok(Some(at));
            }
            at = CellOffset(self.cells.get(at, security::NEXT)?);
            if at == head {
                return Ok(None);
            }
        }
        Err(damaged(head, "the ring of security cells does not close"))
    }

    /// A new cell with this descriptor, after the root's in the ring, with no references yet.
    fn add_descriptor(&mut self, descriptor: &[u8]) -> Result<CellOffset> {
        let head = CellOffset(self.cells.get(self.root, key::SECURITY)?);
        let next = CellOffset(self.cells.get(head, security::NEXT)?);
        let at = self.cells.allocate(security::DESCRIPTOR + descriptor.len())?;
        self.cells.overwrite(at, security::SIGNATURE)?;
        let length = u32::try_from(descriptor.len()).map_err(|_| damaged(at, "security descriptor is too long"))?;
        self.cells.put(at, security::LENGTH, length)?;
        self.cells.put(at, security::NEXT, next.0)?;
        self.cells.put(at, security::PREVIOUS, head.0)?;
        let cell = self.cells.data_mut(at)?.get_mut(security::DESCRIPTOR..).unwrap_or_default();
        cell.iter_mut().zip(descriptor).for_each(|(slot, byte)| *slot = *byte);
        self.cells.put(next, security::PREVIOUS, at.0)?;
        self.cells.put(head, security::NEXT, at.0)?;
        Ok(at)
    }
}
