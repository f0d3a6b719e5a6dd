//! The decoders against what foreign compressors wrote (`test-images/compress`, made by wimlib and ntfs-3g).

use winject::internals::ntfs::compress::lznt1;
use winject::internals::ntfs::compress::wof::Algorithm;
use winject::internals::random::Random;

use crate::support::{root, rounds};

const STREAMS: [(&str, Algorithm); 4] = [
    ("xpress4k.bin", Algorithm::Xpress4k),
    ("xpress8k.bin", Algorithm::Xpress8k),
    ("xpress16k.bin", Algorithm::Xpress16k),
    ("lzx.bin", Algorithm::Lzx),
];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(root().join("test-images/compress").join(name)).unwrap()
}

fn read(stream: &[u8], algorithm: Algorithm, size: u64, offset: u64, buf: &mut [u8]) -> winject::Result<usize> {
    algorithm.content(size, stream.len() as u64)?.read_at(offset, buf, |at, out| {
        let at = usize::try_from(at).unwrap();
        out.copy_from_slice(&stream[at..at + out.len()]);
        Ok(())
    })
}

fn wof_streams_of_every_algorithm() {
    let plain = fixture("plain.bin");
    for (name, algorithm) in STREAMS {
        let stream = fixture(name);
        assert!(stream.len() < plain.len() / 2, "{name} is compressed");
        let mut all = vec![0xAA; plain.len()];
        assert_eq!(read(&stream, algorithm, plain.len() as u64, 0, &mut all).unwrap(), plain.len(), "{name}");
        assert!(all == plain, "{name}");
        for (offset, length) in [(1, 10), (4095, 4098), (32767, 2), (79_990, 20_000), (plain.len() - 3, 3)] {
            let mut part = vec![0xAA; length];
            assert_eq!(read(&stream, algorithm, plain.len() as u64, offset as u64, &mut part).unwrap(), length);
            assert!(part == plain[offset..offset + length], "{name} {offset}+{length}");
        }
    }
}

/// The fixture's units, each with its own length in front.
fn lznt1_units(stream: &[u8]) -> Vec<&[u8]> {
    let mut units = Vec::new();
    let mut rest = stream;
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (unit, tail) = tail.split_at(usize::try_from(u32::from_le_bytes(*length)).unwrap());
        units.push(unit);
        rest = tail;
    }
    units
}

fn lznt1_units_of_ntfs_3g() {
    let (plain, stream) = (fixture("plain.bin"), fixture("lznt1.bin"));
    let mut all = Vec::new();
    for unit in lznt1_units(&stream) {
        let mut out = vec![0xAA; 65536];
        match unit.len() {
            0 => out.fill(0),
            65536 => out.copy_from_slice(unit),
            _ => {
                lznt1::decompress(unit, &mut out).unwrap();
            }
        }
        all.extend(out);
    }
    assert!(all[..plain.len()] == plain);
}

fn mutated_streams_never_panic() {
    let size = fixture("plain.bin").len() as u64;
    let mut noise = Random::from_state(0x1234_5678_9ABC_DEF1);
    let mut refused = 0u64;
    let streams = STREAMS.map(|(name, algorithm)| (fixture(name), algorithm));
    let lznt1 = fixture("lznt1.bin");
    let units = lznt1_units(&lznt1);
    let total = rounds(4_000, 8_000);
    for _ in 0..total {
        let (stream, algorithm) = &streams[noise.index(streams.len())];
        let chunk = algorithm.chunk_size();
        let at = noise.index(usize::try_from(size).unwrap() / chunk) * chunk;
        let mut mutant = stream.clone();
        for _ in 0..=noise.index(4) {
            // the chunk table and the head of a chunk are where the decisions are
            let place = if noise.index(2) == 0 { noise.index(600) } else { noise.index(mutant.len()) };
            mutant[place] = u8::try_from(noise.index(256)).unwrap();
        }
        let mut buf = vec![0; chunk];
        refused += u64::from(read(&mutant, *algorithm, size, at as u64, &mut buf).is_err());

        let mut mutant = units[noise.index(units.len())].to_vec();
        if !mutant.is_empty() {
            for _ in 0..=noise.index(4) {
                let place = noise.index(mutant.len());
                mutant[place] = u8::try_from(noise.index(256)).unwrap();
            }
            refused += u64::from(lznt1::decompress(&mutant, &mut [0; 65536]).is_err());
        }
    }
    assert!(refused > 0, "of {total} mutants none was refused");
}

tests![wof_streams_of_every_algorithm, lznt1_units_of_ntfs_3g, mutated_streams_never_panic,];
