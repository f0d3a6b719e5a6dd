//! The replay of a volume's log, made once and shared by all who open the volume.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::log::{LOG_FILE, LogPosition, Overlay, ReplayReport, Replayed, find_position, replay};
use crate::error::{Kind, Layer, Result};
use crate::io::VolumeRead;

/// Whether the log of a volume that was not dismounted cleanly is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// Replay it in memory, as Windows would at its next start. Where that is not possible, reading shows the volume as it
    /// lies on the device, and editing is refused.
    #[default]
    WhereOpen,
    /// Leave it alone: reading shows the volume as it lies on the device, and editing is refused.
    Never,
}

/// Whether the log of one volume of a disk is replayed, and the replay once it was made. Clones share it: a job reads an
/// open log once, however often it opens the volume.
///
/// The replay counts for as long as the restart pages of the log are those that it was made from. Every edit of the volume
/// closes or empties the log first, so that what opens it afterwards never gets an older state.
#[derive(Clone, Default)]
pub struct SharedReplay {
    choice: Replay,
    made: Arc<Mutex<Option<Made>>>,
}

/// The replay of an open log.
struct Made {
    identity: Identity,
    outcome: Outcome,
}

/// The volume and the log that a replay was made from: offset and length of the volume, and the log's restart pages.
#[derive(PartialEq, Eq)]
struct Identity(u64, u64, LogPosition);

/// What became of the log of a volume.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// The replayed blocks.
    pub overlay: Arc<Overlay>,
    /// What was replayed; `None` if nothing had to be, or if it could not be.
    pub report: Option<ReplayReport>,
    /// Why the log cannot be replayed, as a clause.
    pub failure: Option<String>,
}

impl From<Replay> for SharedReplay {
    fn from(choice: Replay) -> Self {
        Self { choice, made: Arc::default() }
    }
}

impl fmt::Debug for SharedReplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedReplay").field(&self.choice).finish()
    }
}

/// Two are equal when the same choice was made; whether the replay was made yet does not count.
impl PartialEq for SharedReplay {
    fn eq(&self, other: &Self) -> bool {
        self.choice == other.choice
    }
}

impl Eq for SharedReplay {}

impl SharedReplay {
    /// Replays the log of the volume on `device`, unless that was done already.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub(super) fn outcome<D: VolumeRead>(&self, device: &D) -> Result<Outcome> {
        if self.choice == Replay::Never {
            return Ok(Outcome::default());
        }
        // Where no log can be found, the replay says why.
        let identity = || find_position(device).ok().map(|at| Identity(device.image_offset(), device.len(), at));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref()
            && Some(&made.identity) == identity().as_ref()
        {
            return Ok(made.outcome.clone());
        }
        let outcome = Outcome::of(device)?;
        // A closed log is looked at again by the next one, which costs no more than a comparison, and must not displace the
        // replay of the volume as it was.
        if (outcome.report.is_some() || outcome.failure.is_some())
            && let Some(identity) = identity()
        {
            *made = Some(Made { identity, outcome: outcome.clone() });
        }
        Ok(outcome)
    }
}

impl Outcome {
    /// Replays the log of the volume on `device` in memory, if it is not closed.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn of<D: VolumeRead>(device: &D) -> Result<Self> {
        match replay(device) {
            Ok(None) => Ok(Self::default()),
            Ok(Some(Replayed { overlay, report })) => {
                Ok(Self { overlay: Arc::new(overlay), report: Some(report), failure: None })
            }
            Err(error) if matches!(error.kind(), Kind::Refused | Kind::Unsupported | Kind::Damaged) => {
                Ok(Self { failure: Some(error.text_within(Layer::Ntfs, LOG_FILE)), ..Self::default() })
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::io::{MemoryVolume, VolumeWrite};
    use crate::ntfs::Overlaid;
    use crate::units::VolumeOffset;

    /// A volume that counts the bytes that are read of it.
    struct Counting(MemoryVolume, AtomicU64);

    impl Counting {
        fn new(volume: MemoryVolume) -> Self {
            Self(volume, AtomicU64::new(0))
        }

        fn count(&self) -> u64 {
            self.1.swap(0, Ordering::Relaxed)
        }
    }

    impl VolumeRead for Counting {
        fn len(&self) -> u64 {
            self.0.len()
        }

        fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
            self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
            self.0.read_at(offset, buf)
        }
    }

    /// The packed volume with an open log.
    fn unclean() -> MemoryVolume {
        let packed = std::fs::File::open("test-images/ntfs/unclean.img.gz").unwrap();
        let mut image = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut image).unwrap();
        MemoryVolume(image)
    }

    fn content(volume: &impl VolumeRead) -> Vec<u8> {
        let mut bytes = vec![0; volume.len() as usize];
        volume.read_at(VolumeOffset(0), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_log_is_replayed_once_for_all_who_open_the_volume() {
        let device = Counting::new(unclean());
        let shared = SharedReplay::default();
        let first = Overlaid::open_shared(&device, &shared).unwrap();
        let read_first = device.count();
        let second = Overlaid::open_shared(&device, &shared.clone()).unwrap();
        let read_second = device.count();
        assert!(read_second * 20 < read_first, "{read_second} of {read_first} bytes");
        assert!(first.has_unwritten() && first.replay() == second.replay());
        assert_eq!(content(&first), content(&second));
    }

    #[test]
    fn a_replay_counts_for_the_log_alone_that_it_was_made_from() {
        let device = unclean();
        let shared = SharedReplay::default();
        let before = Overlaid::open_shared(&device, &shared).unwrap();
        let replayed = MemoryVolume(content(&before));
        let after = Overlaid::open_shared(&replayed, &shared).unwrap();
        assert!(after.is_closed() && !after.has_unwritten(), "the log is closed now");
        assert_eq!(content(&after), replayed.0);
        // the replay of the volume as it was is still there
        let counting = Counting::new(device.clone());
        Overlaid::open_shared(&counting, &shared).unwrap();
        let read_shared = counting.count();
        Overlaid::open(&counting, Replay::WhereOpen).unwrap();
        assert!(read_shared * 20 < counting.count(), "{read_shared} bytes");
        // the same log at another moment: one of its restart pages differs
        let mut other = device.clone();
        let at = (0..other.0.len()).step_by(512).find(|&at| other.0[at..].starts_with(b"RSTR")).unwrap();
        other.write_at(VolumeOffset(at as u64), &[0; 4]).unwrap();
        let alone = Overlaid::open(&other, Replay::WhereOpen).unwrap();
        let through_shared = Overlaid::open_shared(&other, &shared).unwrap();
        assert_eq!(content(&alone), content(&through_shared));
    }

    #[test]
    fn a_log_that_is_not_to_be_replayed_is_not_read() {
        let device = Counting::new(unclean());
        let volume = Overlaid::open_shared(&device, &Replay::Never.into()).unwrap();
        assert_eq!(device.count(), 0);
        assert!(!volume.has_unwritten() && volume.replay().is_none() && volume.replay_failure().is_none());
    }
}
