//! A bounded cache of parts of L2 tables and of decompressed clusters.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::units::HostOffset;

/// Content by its host offset; a full cache evicts what was inserted first.
#[derive(Debug)]
pub(super) struct Cache<T> {
    inner: Mutex<Inner<T>>,
    count_max: usize,
}

#[derive(Debug)]
struct Inner<T> {
    cached: HashMap<HostOffset, Arc<[T]>>,
    /// From the oldest to the newest.
    order: VecDeque<HostOffset>,
}

impl<T> Cache<T> {
    pub fn new(count_max: usize) -> Self {
        Self {
            inner: Mutex::new(Inner { cached: HashMap::new(), order: VecDeque::new() }),
            count_max: count_max.max(1),
        }
    }

    pub fn get(&self, at: HostOffset) -> Option<Arc<[T]>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).cached.get(&at).cloned()
    }

    pub fn insert(&self, at: HostOffset, content: Arc<[T]>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.cached.insert(at, content).is_some() {
            return;
        }
        inner.order.push_back(at);
        while inner.order.len() > self.count_max {
            if let Some(oldest) = inner.order.pop_front() {
                inner.cached.remove(&oldest);
            }
        }
    }
}
