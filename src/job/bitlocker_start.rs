//! What BitLocker does at the first start on another machine.

use serde::Serialize;

use crate::bitlocker::{OpenedBy, Protector, ProtectorKind, State};
use crate::partition::Encryption;

/// A BitLocker volume with Windows, as people should know it before the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct BitLockerStart {
    /// Cipher, state and what opened the volume: `AES-XTS-128, encrypted, opened by its clear key`.
    pub volume: String,
    /// Whether the first start stops and asks for a recovery key.
    pub asks_for_key: bool,
    /// Key IDs of the recovery keys that it takes, as Windows shows them.
    pub key_ids: Vec<String>,
    /// The same in words, with what to do about it.
    pub first_start: String,
}

impl BitLockerStart {
    /// What follows from the metadata; `None` if they cannot be read.
    #[must_use]
    pub fn of(encryption: &Encryption) -> Option<Self> {
        let metadata = encryption.metadata.as_ref()?;
        let has = |fits: fn(ProtectorKind) -> bool| metadata.protectors.iter().any(|protector| fits(protector.kind));
        let of_kind = |kind: ProtectorKind| metadata.protectors.iter().filter(move |protector| protector.kind == kind);
        let key_ids: Vec<String> = of_kind(ProtectorKind::RecoveryPassword).map(Protector::key_id).collect();
        let keys = match key_ids.as_slice() {
            [] => "it has no recovery key".to_owned(),
            [one] => format!("the recovery key with the ID {one}"),
            several => format!("the recovery key with one of the IDs {}", several.join(", ")),
        };
        let is_clear_key = |protector: &Protector| protector.kind == ProtectorKind::ClearKey;
        let has_clear_key = has(|kind| kind == ProtectorKind::ClearKey);
        // It is tried first, so that it is damaged if another key has opened the volume.
        let by_another = match &encryption.opened_by {
            Some(OpenedBy::Protector(by)) => !is_clear_key(by),
            Some(OpenedBy::VolumeKey) => true,
            Some(OpenedBy::Nothing) | None => false,
        };
        let is_clear = has_clear_key && !by_another;
        let needs_tpm =
            has(|kind| matches!(kind, ProtectorKind::Tpm | ProtectorKind::TpmPin | ProtectorKind::TpmStartupKey));
        let first_start = if is_clear && metadata.protectors.len() == 1 {
            "device encryption waits for its activation: no key is needed, and the first start asks for none".to_owned()
        } else if is_clear {
            format!(
                "protection is suspended: the first start asks for no key. Windows then resumes protection, at once or after \
                 the number of restarts that was set, and seals to the TPM of the new machine if it has one. Keep at hand: {keys}"
            )
        } else if needs_tpm {
            let have = if key_ids.is_empty() {
                "and the volume has none: add one in the guest first (manage-bde -protectors -add C: -RecoveryPassword)"
                    .to_owned()
            } else {
                format!("have at hand: {keys}")
            };
            format!(
                "the first start on the new machine stops and asks for a recovery key, because the TPM of the old one cannot \
                 be moved; {have}. Give the machine a TPM (TPM 2.0, UEFI), to which Windows then seals, or it asks at every \
                 start. To be asked for nothing, suspend BitLocker on the source before it is shut down: manage-bde \
                 -protectors -disable C: -RebootCount 0"
            )
        } else {
            let others = metadata.protectors.iter().filter(|protector| !is_clear_key(protector));
            let kinds: Vec<String> = others.map(ToString::to_string).collect();
            format!("the first start asks for what it asked for before: {}", kinds.join(", "))
        };
        let first_start = if has_clear_key && !is_clear {
            format!("it has a clear key that does not open it, so protection counts as active: {first_start}")
        } else {
            first_start
        };
        Some(Self { volume: describe(encryption), asks_for_key: needs_tpm && !is_clear, key_ids, first_start })
    }
}

/// Cipher, state and what opened the volume.
#[must_use]
pub fn describe(encryption: &Encryption) -> String {
    let Some(metadata) = &encryption.metadata else { return "the metadata cannot be read".to_owned() };
    let cipher = metadata.cipher.map_or_else(|| "no known cipher".to_owned(), |cipher| cipher.to_string());
    let state = match metadata.state {
        State::Encrypted => "encrypted",
        State::Decrypted => "decrypted",
        State::Interrupted => "conversion interrupted",
        State::Paused => "conversion paused",
        State::EncryptOnWrite => "encryption still running",
        State::Unknown => "unknown state",
    };
    let opened = match &encryption.opened_by {
        Some(OpenedBy::Protector(protector)) if protector.kind == ProtectorKind::ClearKey => {
            "opened by its clear key".to_owned()
        }
        Some(OpenedBy::Protector(protector)) => format!("opened by its {protector}"),
        Some(OpenedBy::Nothing) => "readable without a key".to_owned(),
        Some(OpenedBy::VolumeKey) => "opened by the volume key".to_owned(),
        None => "locked".to_owned(),
    };
    format!("{cipher}, {state}, {opened}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitlocker::sample::Sample;
    use crate::partition::{BitLockerKeys, MemoryDisk};

    #[test]
    fn only_a_clear_key_that_opens_means_suspended() {
        for (opens, words) in [(true, "protection is suspended"), (false, "a clear key that does not open it")] {
            let volume = Sample { clear_key: Some(opens), ..Sample::default() }.volume();
            let keys = BitLockerKeys::new([(None, Sample::startup_key(1))]);
            let table = keys.read_partitions(&MemoryDisk(volume.0)).unwrap();
            let start = BitLockerStart::of(table.partitions[0].bitlocker.as_ref().unwrap()).unwrap();
            assert!(start.first_start.contains(words), "{}", start.first_start);
            assert_eq!(start.first_start.contains("asks for no key"), opens, "{}", start.first_start);
        }
    }
}
