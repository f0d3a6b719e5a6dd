//! The device of a volume as it is after the replay of its log.

use std::sync::Arc;

use super::log::{Overlay, ReplayReport};
use super::shared_replay::{Outcome, Replay, SharedReplay};
use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::units::VolumeOffset;

/// A device, and the blocks that the replay of the volume's log has changed. All readers see these in place of the
/// device's own; they reach the device when an edit begins, and before that nothing else does.
#[derive(Debug, Clone)]
pub struct Overlaid<D> {
    device: D,
    log: Outcome,
}

impl<D> Overlaid<D> {
    /// The device as it is.
    #[must_use]
    pub fn unchanged(device: D) -> Self {
        Self { device, log: Outcome::default() }
    }

    /// The device below, without what was replayed and is not written yet.
    #[must_use]
    pub fn below(&self) -> &D {
        &self.device
    }

    /// Gives the device below back. What was replayed and is not written yet is lost.
    #[must_use]
    pub fn into_below(self) -> D {
        self.device
    }

    /// What was replayed; `None` if nothing had to be, or if it could not be.
    #[must_use]
    pub fn replay(&self) -> Option<&ReplayReport> {
        self.log.report.as_ref()
    }

    /// Why the log cannot be replayed, as a clause; `None` if it was, need not be, or was not to be.
    #[must_use]
    pub fn replay_failure(&self) -> Option<&str> {
        self.log.failure.as_deref()
    }

    /// Whether the log was found closed, or empty.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.log.report.is_none() && self.log.failure.is_none()
    }

    /// Whether replayed blocks are not on the device yet.
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        !self.log.overlay.is_empty()
    }
}

impl<D: VolumeRead> Overlaid<D> {
    /// Replays the log of the volume on `device`, in memory, if it is not closed and `choice` allows it. A log that cannot
    /// be replayed is not an error: [`replay_failure`](Self::replay_failure) tells why.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn open(device: D, choice: Replay) -> Result<Self> {
        Self::open_shared(device, &choice.into())
    }

    /// Like [`open`](Self::open), with a replay that is made once for all who open the volume.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn open_shared(device: D, replay: &SharedReplay) -> Result<Self> {
        let log = replay.outcome(&device)?;
        Ok(Self { device, log })
    }
}

impl<D: VolumeWrite> Overlaid<D> {
    /// Writes the replayed blocks to the device.
    ///
    /// # Errors
    /// When the device does; then the blocks stay in memory, too, and readers see all of them.
    pub(super) fn write_replay(&mut self) -> Result<()> {
        for (offset, bytes) in self.log.overlay.writes() {
            self.device.write_at(offset, bytes)?;
        }
        self.log.overlay = Arc::new(Overlay::default());
        Ok(())
    }
}

impl<D: VolumeRead> VolumeRead for Overlaid<D> {
    fn len(&self) -> u64 {
        self.device.len()
    }

    fn image_offset(&self) -> u64 {
        self.device.image_offset()
    }

    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.device.read_at(offset, buf)?;
        if !self.log.overlay.is_empty() {
            self.log.overlay.patch(offset, buf);
        }
        Ok(())
    }
}

impl<D: VolumeWrite> VolumeWrite for Overlaid<D> {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        if self.has_unwritten() {
            return Err(Error::bug(Layer::Ntfs, "a volume is edited before the replay of its log is written"));
        }
        self.device.write_at(offset, data)
    }
}
