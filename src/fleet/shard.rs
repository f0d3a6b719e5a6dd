//! Shards: which items a run works on, if the items are divided over several runs.

use sha2::{Digest, Sha256};

use super::record::Shard;

/// Most shards.
const COUNT_MAX: u32 = 1 << 20;

impl Shard {
    /// Parses `i/n`, counted from 0.
    ///
    /// # Errors
    /// What is expected, for any other text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
        let parts = text.split_once('/').and_then(|(index, count)| Some((number(index)?, number(count)?)));
        let (index, count) = parts.ok_or("use INDEX/COUNT, such as 0/4 for the first of four")?;
        Self::new(index, count)
    }

    /// The shard of this number.
    ///
    /// # Errors
    /// What is expected, for a number that is not below the count.
    pub fn new(index: u32, count: u32) -> Result<Self, String> {
        match count {
            0 => Err("the number of shards is 0: use 0/1 for all items".to_owned()),
            count if count > COUNT_MAX => Err(format!("use at most {COUNT_MAX} shards")),
            count if index >= count => {
                Err(format!("shards are counted from 0: use 0/{count} to {}/{count}", count - 1))
            }
            _ => Ok(Self { index, count }),
        }
    }

    /// Whether an item of this id belongs to the shard.
    #[must_use]
    pub fn has(self, id: &str) -> bool {
        shard_of(id, self.count) == self.index
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// The shard of an id: Lamping and Veach's jump consistent hash (arXiv:1406.2294) over the first eight bytes of its SHA-256. It
/// depends on the id alone, so that further items move none; of `n` shards, one more takes 1/(n+1) of the items from all of them.
#[must_use]
pub fn shard_of(id: &str, count: u32) -> u32 {
    let sum = Sha256::digest(id.as_bytes());
    let mut key = sum.iter().take(8).fold(0u64, |key, byte| key << 8 | u64::from(*byte));
    let (mut bucket, mut next) = (0, 0u64);
    // Each round doubles `next` on average.
    while next < u64::from(count) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // (bucket + 1) · 2³¹ / ((key >> 33) + 1), in integers so that every machine agrees.
        next = ((u128::from(bucket) + 1) << 31)
            .checked_div(u128::from(key >> 33) + 1)
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or(u64::MAX);
    }
    u32::try_from(bucket).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_one_shard_and_few_move() {
        let ids: Vec<String> = (0..10_000).map(|i| format!("vms/guest-{i}.qcow2")).collect();
        for count in [1, 2, 3, 7, 16, 100] {
            let mut sizes = vec![0u32; count as usize];
            for id in &ids {
                let homes: Vec<u32> = (0..count).filter(|&index| Shard { index, count }.has(id)).collect();
                assert_eq!(homes.len(), 1);
                sizes[homes[0] as usize] += 1;
            }
            let mean = 10_000 / count;
            assert!(sizes.iter().all(|size| *size > mean / 2 && *size < mean * 2), "{count}: {sizes:?}");
            let moved: Vec<_> = ids.iter().filter(|id| shard_of(id, count) != shard_of(id, count + 1)).collect();
            assert!(moved.iter().all(|id| shard_of(id, count + 1) == count));
            assert!(moved.len() < 2 * ids.len() / (count as usize + 1), "{count}: {}", moved.len());
        }
    }

    /// The division is a promise: shards of different versions work on one fleet.
    #[test]
    fn the_division_stays() {
        let found: Vec<u32> = ["a", "b", "vm-1", "x/y.qcow2"].iter().map(|id| shard_of(id, 8)).collect();
        assert_eq!(found, [1, 5, 6, 0]);
    }

    #[test]
    fn a_shard_is_written_from_zero() {
        assert_eq!(Shard::parse("3/4"), Ok(Shard { index: 3, count: 4 }));
        for text in ["4/4", "1/0", "-1/4", "1", "1/", "/", "+1/4", "1/4/4", "0/99999999"] {
            assert!(Shard::parse(text).is_err(), "{text}");
        }
    }
}
