//! What is refused, by name, and the remedy for each.

use super::metadata::Metadata;
use super::offer::Offer;
use super::protector::{Protector, ProtectorKind};
use super::secret::Secret;
use super::state::{State, Variant};
use crate::error::{Error, ErrorCode, Layer};

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

    /// The refusal when nothing of `offer` opens the volume.
    pub(super) fn locked(&self, offer: &Offer<'_>, exhausted: bool) -> Error {
        let secrets = || offer.secrets.iter().map(|offered| offered.secret);
        let protectors: Vec<String> = self.protectors.iter().map(ToString::to_string).collect();
        let list = if protectors.is_empty() { "none".to_owned() } else { protectors.join(", ") };
        let mut kinds: Vec<&str> = Vec::new();
        for kind in secrets().map(Secret::kind) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let has_clear_key = self.protectors.iter().any(|protector| protector.kind == ProtectorKind::ClearKey);
        let state = if has_clear_key { "its clear key does not open it" } else { "it is encrypted with BitLocker" };
        let unknown = offer.unknown_ids.join(", ");
        let no_protector = format!("no protector of it has the ID {unknown}");
        let why = match (kinds.is_empty(), exhausted) {
            (true, _) if unknown.is_empty() => format!("{state}, and no key was given"),
            (true, _) => format!("{state}, and {no_protector}"),
            (_, true) => "too many protectors were tried with the same secret".to_owned(),
            _ if unknown.is_empty() => format!("the given {} does not open it", kinds.join(" or ")),
            _ => format!("the given {} does not open it, and {no_protector}", kinds.join(" or ")),
        };
        let others = secrets().find_map(|secret| match secret {
            Secret::StartupKey(key) if self.protectors.iter().all(|p| p.id != key.protector) => Some(key.protector),
            _ => None,
        });
        let other =
            others.map(|id| format!("; the startup key belongs to protector {id}, which is not on this volume"));
        let text = format!("cannot open the volume: {why}{} (protectors: {list})", other.unwrap_or_default());
        Error::refused(Layer::BitLocker, text).with_code(ErrorCode::BitLockerLocked).hint(self.hint_to_open())
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
    Error::refused(Layer::BitLocker, text).with_code(ErrorCode::BitLockerState).hint(hint)
}

/// What the plain view shows that forbids writing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The volume goes on beyond the end of the partition.
    CutOff,
    /// The file system goes on beyond what is encrypted.
    PartlyEncrypted {
        /// Bytes that are encrypted.
        encrypted: u64,
        /// Bytes of the volume.
        all: u64,
    },
    /// A bare volume key, and the master file table does not begin where it should.
    KeyNotProven,
}

impl Doubt {
    /// The error of a write.
    pub(super) fn refusal(self) -> Error {
        let (why, hint) = match self {
            Self::CutOff => (
                "the image ends before the volume does".to_owned(),
                "compare the image's size with the original's, and copy or export it again",
            ),
            Self::PartlyEncrypted { encrypted, all } => {
                (format!("its metadata say that it is encrypted up to {encrypted} of {all} bytes"), FINISH)
            }
            Self::KeyNotProven => (
                "the volume key is not proven: the master file table does not begin in the plain view".to_owned(),
                "use the recovery password or a key file of the volume instead",
            ),
        };
        refuse(format!("cannot write to the volume: {why}"), hint)
    }
}
