//! A bounded cache of pieces of L2 tables and of decompressed clusters.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Pieces by their place in the file; the oldest goes first when the budget is used up.
#[derive(Debug)]
pub(super) struct Cache<T> {
    inner: Mutex<Inner<T>>,
    count_max: usize,
}

#[derive(Debug)]
struct Inner<T> {
    pieces: HashMap<u64, Arc<[T]>>,
    order: VecDeque<u64>,
}

impl<T> Cache<T> {
    pub fn new(count_max: usize) -> Self {
        Self {
            inner: Mutex::new(Inner { pieces: HashMap::new(), order: VecDeque::new() }),
            count_max: count_max.max(1),
        }
    }

    pub fn get(&self, key: u64) -> Option<Arc<[T]>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).pieces.get(&key).cloned()
    }

    pub fn insert(&self, key: u64, piece: Arc<[T]>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.pieces.insert(key, piece).is_some() {
            return;
        }
        inner.order.push_back(key);
        while inner.order.len() > self.count_max {
            if let Some(oldest) = inner.order.pop_front() {
                inner.pieces.remove(&oldest);
            }
        }
    }
}
