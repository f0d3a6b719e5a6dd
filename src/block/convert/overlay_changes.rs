//! Writes staged changes over a finished copy of the image.
//!
//! Planning the changes takes time, and they touch little of the disk: so the whole image is copied meanwhile, and the
//! changes are written over the copy afterwards. Where the copy has no cluster, one is appended to the file, in the
//! order of the disk. The result does not depend on the number of threads.

use super::layout::{Layout, write_at};
use crate::block::{Stage, Storage, is_zero};
use crate::error::{Error, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// Writes what `stage` changed into the finished copy of its image, of which `unit` bytes are stored or left out
/// together. Returns how many bytes were written, or `None` when the layout has no room for all of them.
pub(super) fn write(stage: &Stage, file: &dyn Storage, layout: &mut dyn Layout, unit: u64) -> Result<Option<u64>> {
    let mut written = 0;
    let mut buf = vec![0; unit as usize];
    for (offset, length) in stage.dirty_ranges() {
        let (mut at, end) = (offset.0, offset.0 + length);
        while at < end {
            let first = at / unit * unit;
            let next = end.min(first + unit);
            if let Some(place) = layout.locate(file, ImageOffset(first))? {
                let changed = prefix(&mut buf, next - at)?;
                stage.read_at(ImageOffset(at), changed)?;
                write_at(file, changed, HostOffset(place.0 + (at - first)))?;
                written += changed.len() as u64;
            } else {
                // As in a window, the last cluster is written whole.
                buf.fill(0);
                stage.read_at(ImageOffset(first), prefix(&mut buf, unit.min(stage.len() - first))?)?;
                if !is_zero(&buf) {
                    let Some(place) = layout.append(file, ImageOffset(first))? else { return Ok(None) };
                    write_at(file, &buf, place)?;
                    written += unit;
                }
            }
            at = next;
        }
    }
    Ok(Some(written))
}

fn prefix(buf: &mut [u8], length: u64) -> Result<&mut [u8]> {
    let prefix = usize::try_from(length).ok().and_then(|length| buf.get_mut(..length));
    prefix.ok_or_else(|| Error::bug(Layer::Block, "a change outside its unit"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::block::convert::conversion::Conversion;
    use crate::block::convert::pipeline::Hooks;
    use crate::block::convert::{ConvertOptions, convert};
    use crate::block::{Format, Image, OpenOptions, Stage, StageOptions, open, qcow2};
    use crate::internals::random::Random;
    use crate::units::ImageOffset;

    /// A raw disk of data and holes, with changes staged over both: data over data and holes, zeros over data.
    fn staged(path: &Path, random: &mut Random) -> Stage {
        let size = (64 + random.below(4000)) * 512;
        let mut content = vec![0; size as usize];
        for _ in 0..random.below(6) {
            change(&mut content, random, 300_000);
        }
        std::fs::write(path, &content).unwrap();
        let mut stage = Stage::new(opened(path, Format::Raw), StageOptions::default());
        for _ in 0..1 + random.below(20) {
            let (at, length) = change(&mut content, random, 40_000);
            stage.write_at(ImageOffset(at as u64), &content[at..at + length]).unwrap();
        }
        stage.drop_unchanged().unwrap();
        stage
    }

    fn change(content: &mut [u8], random: &mut Random, most: u64) -> (usize, usize) {
        let at = random.below(content.len() as u64) as usize;
        let length = (random.below(most) as usize).min(content.len() - at);
        let value = random.below(4) as u8;
        content[at..at + length].fill(value);
        (at, length)
    }

    fn opened(path: &Path, format: Format) -> Box<dyn Image> {
        open(path, &OpenOptions { format: Some(format), ..OpenOptions::default() }).unwrap()
    }

    /// Copies the image with room for `appended_max` bytes, then writes the changes over the copy.
    fn copy_and_change(stage: &Stage, out: &Path, options: &ConvertOptions<'_>, appended_max: u64) {
        let image = stage.original();
        let mut conversion = Conversion::begin(&stage.image().files(), out, options).unwrap();
        conversion.copy(&image, appended_max, Hooks::default()).unwrap();
        let done = conversion.finish(stage, &|_| ()).unwrap();
        assert_eq!((done.virtual_size, done.file_length), (stage.len(), out.metadata().unwrap().len()));
    }

    #[test]
    fn changes_after_the_copy_give_the_changed_disk() {
        let folder = tempfile::tempdir().unwrap();
        for seed in 1..120 {
            let random = &mut Random::from_state(0x9E37_79B9_7F4A_7C15 ^ seed);
            let at = |name: &str| folder.path().join(format!("{seed}-{name}"));
            let stage = staged(&at("in"), random);
            let mut wanted = vec![0; stage.len() as usize];
            stage.read_at(ImageOffset(0), &mut wanted).unwrap();
            let (format, cluster_bits) =
                [(Format::Raw, 16), (Format::Qcow2, 9), (Format::Qcow2, 12), (Format::Qcow2, 16)][seed as usize % 4];
            // Without any room, clusters of 512 bytes make it begin anew now and then.
            let appended_max = if random.below(2) == 0 { 0 } else { 1 << 20 };
            let options = |threads| ConvertOptions { format, cluster_bits, threads, ..ConvertOptions::default() };
            copy_and_change(&stage, &at("one"), &options(Some(1)), appended_max);
            copy_and_change(&stage, &at("many"), &options(Some(5)), appended_max);
            let mut found = vec![0; wanted.len()];
            opened(&at("one"), format).read_at(ImageOffset(0), &mut found).unwrap();
            assert!(found == wanted, "seed {seed}: {format} {cluster_bits}");
            if format == Format::Qcow2 {
                assert!(qcow2::check(&at("one"), &OpenOptions::default()).unwrap().is_clean(), "seed {seed}");
            }
            let bytes = |name| std::fs::read(at(name)).unwrap();
            assert!(bytes("one") == bytes("many"), "seed {seed}: the threads make a difference");
        }
    }

    /// Small clusters have small refcount blocks: 256 clusters each.
    #[test]
    fn more_than_was_expected_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("in"), vec![0; 4 << 20]).unwrap();
        let mut stage = Stage::new(opened(&at("in"), Format::Raw), StageOptions::default());
        stage.write_at(ImageOffset(1 << 20), &vec![7; 1 << 20]).unwrap();
        let options = ConvertOptions { cluster_bits: 9, ..ConvertOptions::default() };
        copy_and_change(&stage, &at("anew"), &options, 0);
        convert(&stage, &at("known"), &options).unwrap();
        assert!(std::fs::read(at("anew")).unwrap() == std::fs::read(at("known")).unwrap());
        copy_and_change(&stage, &at("expected"), &options, 2 << 20);
        assert!(qcow2::check(&at("expected"), &OpenOptions::default()).unwrap().is_clean());
        assert!(std::fs::read(at("expected")).unwrap() != std::fs::read(at("known")).unwrap());
    }
}
