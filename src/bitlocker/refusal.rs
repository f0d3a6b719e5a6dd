//! What is refused, by name, and the remedy for each.

use super::metadata::Metadata;
use super::protector::{Protector, ProtectorKind};
use super::secret::Secret;
use super::state::{State, Variant};
use crate::error::{Error, Layer};

/// The remedy for all that Windows has to finish first.
const FINISH: &str = "start the guest, wait until `manage-bde -status` shows the conversion as finished, shut it down, and \
                      export the disk again";
/// The remedy for forms that are only read.
const TURN_OFF: &str =
    "turn BitLocker off in the guest (manage-bde -off), wait for decryption, and export the disk again";
/// The remedy without any secret.
const SUSPEND: &str = "in the guest, suspend BitLocker (manage-bde -protectors -disable C: -RebootCount 0), shut down, and \
                       export the disk again: it opens without a key then";

impl Metadata {
    /// Why the data of the volume cannot be read, whatever secrets there are; `None` when they can.
    #[must_use]
    pub fn read_refusal(&self) -> Option<Error> {
        let refused = |why: String, hint: &str| Some(refuse(format!("cannot read the volume: {why}"), hint));
        match self.state {
            State::EncryptOnWrite => refused("its encryption is still running (encrypt on write)".into(), FINISH),
            State::Interrupted => refused("BitLocker's conversion of it was interrupted".into(), FINISH),
            State::Unknown => {
                let (current, next) = self.content.block.states();
                refused(format!("BitLocker's state {current}, {next} is not known"), FINISH)
            }
            State::Decrypted => None,
            State::Encrypted | State::Paused if self.cipher.is_none() => {
                let text = format!("cannot read the volume: BitLocker's cipher {:#06x} is not known", self.method());
                Some(Error::unsupported(Layer::BitLocker, text).hint(TURN_OFF))
            }
            State::Encrypted | State::Paused => None,
        }
    }

    /// Why the volume must not be written, whatever secrets there are; `None` when it may.
    #[must_use]
    pub fn write_refusal(&self) -> Option<Error> {
        let refused = |why: String, hint: &str| Some(refuse(format!("cannot write to the volume: {why}"), hint));
        if let Some(error) = self.read_refusal() {
            return Some(error);
        }
        match self.variant {
            Variant::Vista => return refused("BitLocker of Windows Vista is only read".into(), TURN_OFF),
            Variant::ToGo => return refused("BitLocker To Go is only read".into(), TURN_OFF),
            Variant::Fixed => {}
        }
        if self.state == State::Decrypted {
            return refused("it is decrypted, but BitLocker's header is still present".into(), TURN_OFF);
        }
        if self.state == State::Paused {
            let (done, all) = (self.encrypted_size, self.volume_size);
            return refused(format!("BitLocker's conversion of it is paused at {done} of {all} bytes"), FINISH);
        }
        if self.content.block.state_size() != 0 {
            return refused("it has a conversion log of BitLocker".into(), FINISH);
        }
        if self.content.ambiguous {
            let why = "the three copies of BitLocker's metadata differ: an update by Windows was interrupted";
            return refused(why.into(), "start the guest and shut it down cleanly, then export the disk again");
        }
        if self.content.layout.cut_off {
            return Some(Doubt::CutOff.refusal());
        }
        None
    }

    /// The refusal when none of `secrets` opens the volume.
    pub(super) fn locked(&self, secrets: &[Secret], exhausted: bool) -> Error {
        let protectors: Vec<String> = self.protectors.iter().map(ToString::to_string).collect();
        let list = if protectors.is_empty() { "none".to_owned() } else { protectors.join(", ") };
        let mut kinds: Vec<&str> = secrets.iter().map(Secret::kind).collect();
        kinds.dedup();
        let why = match (secrets.len(), exhausted) {
            (0, _) => "it is encrypted with BitLocker, and no key was given".to_owned(),
            (_, true) => "too many protectors were tried with the same secret".to_owned(),
            _ => format!("the given {} does not open it", kinds.join(" or ")),
        };
        let others = secrets.iter().find_map(|secret| match secret {
            Secret::StartupKey(key) if self.protectors.iter().all(|p| p.id != key.protector) => Some(key.protector),
            _ => None,
        });
        let other =
            others.map(|id| format!("; the startup key belongs to protector {id}, which is not on this volume"));
        let text = format!("cannot open the volume: {why}{} (protectors: {list})", other.unwrap_or_default());
        refuse(text, &self.hint_to_open())
    }

    /// Which options open the volume.
    fn hint_to_open(&self) -> String {
        let way = |protector: &Protector| {
            let id = protector.key_id();
            match protector.kind {
                ProtectorKind::RecoveryPassword => Some(format!("--bitlocker-recovery-key {id}=FILE (or {id}=ask)")),
                ProtectorKind::Password => Some(format!("--bitlocker-password {id}=FILE (or {id}=ask)")),
                ProtectorKind::StartupKey => Some(format!("--bitlocker-startup-key {}.BEK", protector.id)),
                _ => None,
            }
        };
        let ways: Vec<String> = self.protectors.iter().filter_map(way).collect();
        if ways.is_empty() {
            format!("no key file opens it; {SUSPEND}")
        } else {
            format!("open it with {}", ways.join(", or "))
        }
    }
}

pub(super) fn refuse(text: String, hint: &str) -> Error {
    Error::refused(Layer::BitLocker, text).hint(hint)
}

/// What the plain view shows that forbids writing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The volume goes on beyond the end of the partition.
    CutOff,
    /// A bare volume key, and the master file table does not begin where it should.
    KeyNotProven,
}

impl Doubt {
    /// The error of a write.
    pub(super) fn refusal(self) -> Error {
        let (why, hint) = match self {
            Self::CutOff => (
                "the image ends before the volume does",
                "compare the image's size with the original's, and copy or export it again",
            ),
            Self::KeyNotProven => (
                "the volume key is not proven: the master file table does not begin in the plain view",
                "use the recovery password or a key file of the volume instead",
            ),
        };
        refuse(format!("cannot write to the volume: {why}"), hint)
    }
}
