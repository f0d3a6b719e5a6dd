//! What is wrong with results as a whole.

use crate::fleet::item::items;

/// Ids, and shards, that are named of those that are missing or double.
pub(super) const NAMED_MAX: usize = 100;

/// Ids of which a number is known, and the first by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub named: Vec<String>,
}

impl Ids {
    pub(super) fn add(&mut self, id: &str) {
        self.count = self.count.saturating_add(1);
        if self.named.len() < NAMED_MAX {
            self.named.push(id.to_owned());
        }
    }
}

/// What is wrong with the results as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Shards of which no folder has results, counted from 0.
    pub missing_shards: Vec<u32>,
    /// Items of which no attempt has ended.
    pub missing: Ids,
    /// Items that are missing, and whose ids are not known: those of missing shards, and of runs that were killed before they
    /// had named their items.
    pub missing_unnamed: u64,
    /// Items that two shards or batches have.
    pub double: Ids,
    /// What does not belong together, a sentence each.
    pub disagreements: Vec<String>,
}

impl Faults {
    /// Whether every item is there once.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many items are missing.
    #[must_use]
    pub fn missing_items(&self) -> u64 {
        self.missing.count.saturating_add(self.missing_unnamed)
    }

    /// A sentence for each fault.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut out = self.disagreements.clone();
        let list = |names: &[String], all: u64| {
            let more = all.saturating_sub(names.len() as u64);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}", names.join(", "))
        };
        if !self.missing_shards.is_empty() {
            let shards: Vec<String> = self.missing_shards.iter().map(ToString::to_string).collect();
            out.push(format!("no results of shard {}", shards.join(", ")));
        }
        if self.missing.count > 0 {
            out.push(format!(
                "{} without a result: {}",
                items(self.missing.count),
                list(&self.missing.named, self.missing.count)
            ));
        }
        if self.missing_unnamed > 0 {
            out.push(format!("{} missing, whose ids are not in the results", items(self.missing_unnamed)));
        }
        if self.double.count > 0 {
            let named = list(&self.double.named, self.double.count);
            out.push(format!("{} in the results of two shards or batches: {named}", items(self.double.count)));
        }
        out
    }
}
