//! Published volumes: each opens with each of its published secrets, and its plain view is the published one.

use sha2::{Digest, Sha256};
use winject::internals::bitlocker::{Metadata, OpenedBy, Secret, State, Unlocked, Variant};
use winject::internals::error::Result;
use winject::internals::io::{VolumeRead, VolumeWrite};
use winject::internals::units::VolumeOffset;

use super::{FileVolume, unpack};
use crate::support;

/// Larger volumes are not read to their end.
const SIZE_MAX: u64 = 256 << 20;
/// Bytes that are read, or encrypted again, at once.
const CHUNK: usize = 1 << 16;

/// A line of the corpus' catalogue.
struct Listed {
    name: String,
    state: String,
    /// Kinds and values.
    secrets: Vec<(&'static str, String)>,
    volume_key: Option<String>,
    /// First digits of the SHA-256 of the plain view.
    view: Option<String>,
}

fn catalogue() -> Option<Vec<Listed>> {
    let index = std::fs::read_to_string(support::corpus("bitlocker/INDEX.md")?).unwrap();
    let keys: Vec<(&str, &str)> = index
        .lines()
        .filter_map(|line| line.strip_prefix("- ")?.split_once(": "))
        .map(|(name, key)| (name, key.trim_matches('`')))
        .collect();
    let rows = index.lines().filter(|line| line.starts_with("| c-") || line.starts_with("| d-"));
    let listed = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let secrets = cells[10].split("; ").filter_map(|secret| {
            let value = secret.split('`').nth(1).or_else(|| secret.split_whitespace().nth(1))?.to_owned();
            let kind = ["recovery", "password", "BEK"].into_iter().find(|kind| secret.starts_with(kind))?;
            Some((kind, value))
        });
        let key = keys.iter().find(|(name, _)| *name == cells[1]).map(|(_, key)| (*key).to_owned());
        Listed {
            name: cells[1].to_owned(),
            state: cells[8].to_owned(),
            secrets: secrets.collect(),
            volume_key: key,
            view: Some(cells[12].to_owned()).filter(|view| view.len() == 12),
        }
    });
    Some(listed.collect())
}

fn secret(kind: &str, value: &str) -> Secret {
    match kind {
        "recovery" => Secret::recovery_password(value).unwrap(),
        "password" => Secret::password(value).unwrap(),
        _ => {
            let file = support::corpus(&format!("bitlocker/{value}")).unwrap();
            Secret::startup_key(&std::fs::read(file).unwrap()).unwrap()
        }
    }
}

fn packed_name(name: &str) -> String {
    format!("{name}.img.{}", if name.starts_with("c-") { "xz" } else { "gz" })
}

/// The first digits of the SHA-256 of the whole view.
fn hash_of_view(device: &FileVolume, unlocked: &Unlocked) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; CHUNK];
    let mut offset = 0;
    while offset < unlocked.len() {
        let length = buf.len().min((unlocked.len() - offset) as usize);
        unlocked.read(device, VolumeOffset(offset), &mut buf[..length]).unwrap();
        hash.update(&buf[..length]);
        offset += length as u64;
    }
    format!("{:x}", hash.finalize())[..12].to_owned()
}

/// A device that takes the writes that change nothing.
struct Unchanged<'a>(&'a FileVolume, u64);

impl VolumeRead for Unchanged<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buf)
    }
}

impl VolumeWrite for Unchanged<'_> {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        let mut there = vec![0; data.len()];
        self.0.read_at(offset, &mut there)?;
        assert!(there == data, "a sector from {offset} on is encrypted to something else");
        self.1 += data.len() as u64;
        Ok(())
    }
}

/// Writes every `stride`th chunk of the view back as it was read. Returns how many bytes were encrypted and how many were
/// refused.
fn write_back(device: &FileVolume, unlocked: &Unlocked, sector: usize, stride: u64) -> (u64, u64) {
    let mut target = Unchanged(device, 0);
    let mut refused = 0;
    let mut buf = vec![0; CHUNK];
    let mut offset = 0;
    while offset < unlocked.len() {
        let length = buf.len().min((unlocked.len() - offset) as usize);
        unlocked.read(device, VolumeOffset(offset), &mut buf[..length]).unwrap();
        if unlocked.write(&mut target, VolumeOffset(offset), &buf[..length]).is_err() {
            for (n, one) in buf[..length].chunks(sector).enumerate() {
                let place = VolumeOffset(offset + (n * sector) as u64);
                match unlocked.write(&mut target, place, one) {
                    Ok(()) => {}
                    // a reserved area reads as zeros
                    Err(_) => {
                        assert!(one.iter().all(|b| *b == 0));
                        refused += one.len() as u64;
                    }
                }
            }
        }
        offset += stride * CHUNK as u64;
    }
    (target.1, refused)
}

/// `WINJECT_CAMPAIGN=1` writes back every sector; the suite does it with one chunk of 16.
fn published_volumes_open_by_each_secret_and_their_views_are_the_published_ones() {
    let Some(catalogue) = catalogue() else { return };
    let folder = tempfile::tempdir().unwrap();
    let stride = if support::rounds(16, 16) == 16 { 16 } else { 1 };
    let (mut views, mut written_volumes) = (0, 0);
    for listed in catalogue {
        let path = folder.path().join("volume");
        if unpack(&packed_name(&listed.name), &path).is_none() {
            return;
        }
        let device = FileVolume::open(&path);
        let name = &listed.name;
        let metadata = Metadata::read(&device).unwrap_or_else(|e| panic!("{name}: {e}"));
        let state = match listed.state.as_str() {
            "4/4" => State::Encrypted,
            "4/4 EOW" => State::EncryptOnWrite,
            "1/1 EOW" => State::Decrypted,
            "3/1" => State::Paused,
            other => panic!("{name}: {other}"),
        };
        assert_eq!(metadata.state, state, "{name}");
        let may_write = name.starts_with("c-") && state == State::Encrypted && metadata.variant == Variant::Fixed;
        if state == State::EncryptOnWrite {
            let error = metadata.unlock(&device, &[]).map(drop).unwrap_err().to_string();
            assert!(error.contains("still running"), "{name}: {error}");
            continue;
        }
        let mut secrets: Vec<Secret> = listed.secrets.iter().map(|(kind, value)| secret(kind, value)).collect();
        if state == State::Encrypted {
            secrets.extend(listed.volume_key.iter().map(|key| Secret::volume_key(key.as_bytes()).unwrap()));
        }
        let mut first = None;
        for secret in secrets {
            let kind = secret.kind();
            let (unlocked, by) = metadata.unlock(&device, &[secret]).unwrap_or_else(|e| panic!("{name}, {kind}: {e}"));
            match &by {
                OpenedBy::Protector(protector) if protector.kind.to_string() != "clear key" => {
                    assert_eq!(protector.kind.to_string(), kind, "{name}");
                }
                _ => assert!(
                    kind == "volume key" || metadata.protectors.iter().any(|p| p.kind.to_string() == "clear key")
                ),
            }
            let mut start = vec![0; 1 << 20];
            unlocked.read(&device, VolumeOffset(0), &mut start).unwrap();
            let (seen, _) = first.get_or_insert((start.clone(), unlocked));
            assert!(*seen == start, "{name}: {kind} gives another view");
        }
        let unlocked = match first {
            Some((_, unlocked)) => unlocked,
            None => metadata.unlock(&device, &[]).unwrap_or_else(|e| panic!("{name}: {e}")).0,
        };
        if device.len() <= SIZE_MAX {
            let view = hash_of_view(&device, &unlocked);
            if let Some(published) = listed.view {
                assert_eq!(view, published, "{name}");
                views += 1;
            }
        }
        if may_write {
            assert!(unlocked.write_refusal().is_none(), "{name}");
            let (written, refused) = write_back(&device, &unlocked, metadata.sector_size as usize, stride);
            assert!(written > 0);
            // three copies of the metadata, and the relocated start
            assert_eq!(if stride == 1 { refused } else { 3 * 65536 + 8192 }, 3 * 65536 + 8192, "{name}");
            written_volumes += 1;
        } else {
            assert!(unlocked.write_refusal().is_some(), "{name}");
        }
    }
    assert!(views >= 11 && written_volumes >= 10, "{views} views, {written_volumes} written");
}

tests![published_volumes_open_by_each_secret_and_their_views_are_the_published_ones];
