//! Records for the tests of this folder.

use super::outcome::Outcome;
use super::record::{Finished, Shard};

/// A result of an item of the image `/vms/ID.qcow2`.
pub(super) fn finished(id: &str, outcome: Outcome) -> Finished {
    Finished {
        id: id.to_owned(),
        image: format!("/vms/{id}.qcow2"),
        job: "inject".to_owned(),
        time: "2026-01-01T00:00:00Z".to_owned(),
        attempt: 1,
        shard: Shard::default(),
        outcome,
        code: Some(u8::from(!outcome.is_done())),
        signal: None,
        reason: (!outcome.is_done()).then(|| "hibernated".to_owned()),
        message: format!("the outcome is {outcome}"),
        hint: None,
        retryable: outcome.is_retryable(None),
        seconds: 0.5,
        cpu_seconds: Some(0.25),
        memory: Some(1 << 24),
        bytes_read: 4096,
        bytes_written: 512,
        warnings: Vec::new(),
        output: None,
        report: Some(format!("items/{id}.json")),
    }
}
