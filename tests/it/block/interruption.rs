//! What is left of a run's operations when the process is killed, or the power goes.

use super::made::Random;
use super::virtual_host::{Op, folder_of};

/// The process is killed: everything up to `end` has happened, in order; of the last write perhaps only a part.
pub fn stopped(log: &[Op], end: usize, is_torn: bool) -> Vec<Op> {
    let mut ops = log[..end].to_vec();
    if let Some(Op::Write(_, _, data)) = ops.last_mut().filter(|_| is_torn) {
        data.truncate(data.len() / 2 / 512 * 512);
    }
    ops
}

/// Whether the operation `number` survives a power cut after `end` operations whatever happens.
fn is_durable(log: &[Op], number: usize, end: usize) -> bool {
    match &log[number] {
        Op::Write(path, ..) | Op::SetLen(path, _) | Op::Reserve(path, ..) | Op::Punch(path, ..) => {
            // The next flush decides: what a failed one lost, no later one brings back.
            let mut flushes = log[number..end].iter().filter_map(|op| match op {
                Op::Flush(flushed) if flushed == path => Some(true),
                Op::LostFlush(flushed) if flushed == path => Some(false),
                _ => None,
            });
            flushes.next().unwrap_or(false)
        }
        Op::Create(path) | Op::CreateFolder(path) | Op::Remove(path) | Op::Rename(path, _) => {
            let folder = folder_of(path);
            log[number..end].iter().any(|op| matches!(op, Op::SyncFolder(synced) if *synced == folder))
        }
        Op::Flush(_) | Op::LostFlush(_) | Op::SyncFolder(_) => true,
    }
}

/// Power is cut after `end` operations: what was not flushed has happened or not, writes perhaps in single sectors; with
/// a `chance` of 0 none of it has.
pub fn survivors(log: &[Op], end: usize, random: &mut Random, chance: u64) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut is_folder_lost = false;
    let mut luck = |of: u64| chance > 0 && random.below(of) == 0;
    for (number, op) in log[..end].iter().enumerate() {
        if is_durable(log, number, end) {
            ops.push(op.clone());
            continue;
        }
        match op {
            // Changes of a folder happen in order: after the first lost one, all are lost.
            Op::Create(_) | Op::CreateFolder(_) | Op::Remove(_) | Op::Rename(..) => {
                is_folder_lost |= !luck(2);
                if !is_folder_lost {
                    ops.push(op.clone());
                }
            }
            Op::Write(path, offset, data) => {
                let (is_kept, is_torn) = (luck(3), luck(2));
                for (index, sector) in data.chunks(512).enumerate() {
                    if is_kept || (is_torn && luck(2)) {
                        ops.push(Op::Write(path.clone(), offset + index as u64 * 512, sector.to_vec()));
                    }
                }
            }
            _ if luck(2) => ops.push(op.clone()),
            _ => {}
        }
    }
    ops
}
