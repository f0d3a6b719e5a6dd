//! The speed of BitLocker's ciphers on one core, and of reading and writing the plain view's sectors with them.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use winject::internals::bitlocker::{Cipher, Sector, SectorCipher};
use winject::internals::random::Random;

const ROUNDS: usize = 40;
const LENGTH: usize = 1 << 20;

fn megabytes_a_second(time: Duration) -> f64 {
    LENGTH as f64 / 1e6 / time.as_secs_f64()
}

fn main() {
    let mut random = Random::new(22);
    println!("{:<22} {:>6}  {:>12} {:>12}", "cipher", "sector", "read MB/s", "write MB/s");
    for method in [0x8004, 0x8005, 0x8002, 0x8003, 0x8000, 0x8001] {
        let name = Cipher::of(method).unwrap();
        let cipher = SectorCipher::new(name, &random.bytes(name.key_length())).unwrap();
        for sector in [Sector::Bytes512, Sector::Bytes4096] {
            let mut data = random.bytes(LENGTH);
            let (mut read, mut write) = (Duration::MAX, Duration::MAX);
            for _ in 0..ROUNDS {
                let start = Instant::now();
                cipher.decrypt(sector, 1 << 30, &mut data);
                read = read.min(start.elapsed());
                let start = Instant::now();
                cipher.encrypt(sector, 1 << 30, &mut data);
                write = write.min(start.elapsed());
            }
            let (read, write) = (megabytes_a_second(read), megabytes_a_second(write));
            println!("{:<22} {:>6}  {read:>12.0} {write:>12.0}", name.to_string(), sector.bytes());
        }
    }
}
