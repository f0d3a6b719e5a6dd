//! Counters for the references to host clusters, which the check compares with the stored refcounts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::cluster::HostCluster;
use crate::error::{Error, Layer, Result};

/// Counters of one page.
const PAGE: u64 = 4096;
/// At most this much memory for counters: enough for a file of 8 TiB with the usual clusters.
const PAGES_MAX: usize = (512 << 20) / (PAGE as usize * 4);

/// How often each host cluster is referred to. Memory grows with the clusters in use, not with the file's length.
#[derive(Debug, Default)]
pub(super) struct ReferenceCounts {
    pages: BTreeMap<u64, Box<[u32]>>,
}

impl ReferenceCounts {
    /// ReferenceCounts `times` more references to `cluster`.
    pub fn add(&mut self, HostCluster(cluster): HostCluster, times: u32) -> Result<()> {
        let count = self.pages.len();
        let page = match self.pages.entry(cluster / PAGE) {
            Entry::Occupied(page) => page.into_mut(),
            Entry::Vacant(_) if count >= PAGES_MAX => {
                return Err(Error::unsupported(Layer::Block, "the image has too many clusters to be checked")
                    .hint("convert it to larger clusters: qemu-img convert -O qcow2"));
            }
            Entry::Vacant(page) => page.insert(vec![0; usize::try_from(PAGE).unwrap_or(0)].into()),
        };
        if let Some(counter) = usize::try_from(cluster % PAGE).ok().and_then(|i| page.get_mut(i)) {
            *counter = counter.saturating_add(times);
        }
        Ok(())
    }

    /// How often `cluster` is referred to.
    pub fn get(&self, HostCluster(cluster): HostCluster) -> u32 {
        let page = self.pages.get(&(cluster / PAGE));
        page.and_then(|p| p.get(usize::try_from(cluster % PAGE).ok()?)).copied().unwrap_or(0)
    }

    /// All clusters that are referred to, ascending, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (HostCluster, u32)> + '_ {
        self.pages.iter().flat_map(|(page, counters)| {
            let clusters = (page * PAGE..).map(HostCluster);
            clusters.zip(counters.iter().copied()).filter(|(_, count)| *count > 0)
        })
    }

    /// The first cluster beyond all that are referred to.
    pub fn end(&self) -> HostCluster {
        HostCluster(self.iter().last().map_or(0, |(cluster, _)| cluster.0 + 1))
    }
}
