//! The ciphers of the sectors against OpenSSL's AES, and against themselves.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use winject::internals::bitlocker::{Cipher, Sector, SectorCipher};
use winject::internals::hex;
use winject::internals::random::Random;

use crate::support;

const METHODS: [u16; 6] = [0x8000, 0x8001, 0x8002, 0x8003, 0x8004, 0x8005];

struct Case {
    method: u16,
    key: Vec<u8>,
    sector: Sector,
    offset: u64,
    data: Vec<u8>,
}

impl Case {
    fn cipher(&self) -> SectorCipher {
        SectorCipher::new(Cipher::of(self.method).unwrap(), &self.key).unwrap()
    }
}

fn random_case(random: &mut Random, n: usize) -> Case {
    let method = METHODS[n % METHODS.len()];
    let sector = if (n / METHODS.len()).is_multiple_of(2) { Sector::Bytes512 } else { Sector::Bytes4096 };
    let size = sector.bytes() as u64;
    let sectors = 1 + random.index(19);
    let mut data = random.bytes(sectors * sector.bytes());
    // runs of zeros, too
    if n.is_multiple_of(5) {
        data.fill(0);
    }
    let limit = [1 << 10, 1 << 32, 1 << 50][random.index(3)];
    let key = random.bytes(Cipher::of(method).unwrap().key_length());
    Case { method, key, sector, offset: random.below(limit) * size, data }
}

fn ciphertexts_are_those_of_openssl() {
    let Some(python) = support::judge_python() else { return };
    let mut random = Random::new(16);
    let cases: Vec<Case> = (0..support::rounds(120, 180) as usize).map(|n| random_case(&mut random, n)).collect();
    let mut input = String::new();
    for case in &cases {
        let (key, data) = (hex::encode(&case.key), hex::encode(&case.data));
        writeln!(input, "{} {key} {} {} {data}", case.method, case.sector.bytes(), case.offset).unwrap();
    }
    let script = support::root().join("tests/judges/bitlocker/sectors.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), cases.len());
    for (case, expected) in cases.iter().zip(text.lines()) {
        let mut data = case.data.clone();
        case.cipher().encrypt(case.sector, case.offset, &mut data);
        assert!(hex::encode(&data) == expected, "{:#06x} {:?} at {}", case.method, case.sector, case.offset);
        case.cipher().decrypt(case.sector, case.offset, &mut data);
        assert!(data == case.data);
    }
}

/// A long run is the same as its sectors one by one, and bytes after the last whole sector stay.
fn a_run_of_sectors_is_its_sectors() {
    let mut random = Random::new(17);
    for n in 0..60 {
        let case = random_case(&mut random, n);
        let (cipher, size) = (case.cipher(), case.sector.bytes());
        let mut run = case.data.clone();
        run.extend([0x5A; 100]);
        cipher.encrypt(case.sector, case.offset, &mut run);
        assert_eq!(run[case.data.len()..], [0x5A; 100]);
        for (i, sector) in case.data.chunks(size).enumerate() {
            let mut one = sector.to_vec();
            let offset = case.offset + (i * size) as u64;
            cipher.encrypt(case.sector, offset, &mut one);
            assert!(run[i * size..(i + 1) * size] == one);
            cipher.decrypt(case.sector, offset, &mut one);
            assert!(one == sector);
        }
    }
}

fn a_key_of_another_length_is_refused() {
    for method in METHODS {
        let cipher = Cipher::of(method).unwrap();
        for length in 0..130 {
            assert_eq!(SectorCipher::new(cipher, &vec![1; length]).is_some(), length == cipher.key_length());
        }
    }
    assert!(Cipher::of(0x7FFF).is_none() && Cipher::of(0x8006).is_none());
}

tests![ciphertexts_are_those_of_openssl, a_run_of_sectors_is_its_sectors, a_key_of_another_length_is_refused];
