//! The secrets that are offered to a volume, each with the protectors that it is for.

use super::secret::Secret;
use crate::guid::Guid;

/// A secret, and the protectors that it is tried on.
#[derive(Clone)]
pub(crate) struct Offered<'a> {
    pub secret: &'a Secret,
    /// The protectors; `None`: all of its kind.
    pub only: Option<Vec<Guid>>,
}

impl Offered<'_> {
    /// Whether the secret is for this protector.
    pub fn is_for(&self, protector: &Guid) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(protector))
    }
}

/// All that is offered to a volume.
#[derive(Clone, Default)]
pub(crate) struct Offer<'a> {
    /// In the order in which they are tried.
    pub secrets: Vec<Offered<'a>>,
    /// IDs that came with other secrets, and that nothing on this volume has.
    pub unknown_ids: Vec<String>,
}

impl<'a> Offer<'a> {
    /// Secrets that are tried on every protector of their kind.
    pub fn for_all(secrets: &'a [Secret]) -> Self {
        Self { secrets: secrets.iter().map(|secret| Offered { secret, only: None }).collect(), unknown_ids: Vec::new() }
    }
}
