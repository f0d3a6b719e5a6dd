//! What ends a copy early.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::cancel::Cancel;
use crate::error::{Error, Layer, Result};

/// Flags that end a copy before it is complete.
#[derive(Clone, Copy, Default)]
pub(super) struct Interrupt<'a> {
    /// Set when this copy is not wanted any more.
    pub(super) stop: Option<&'a AtomicBool>,
    /// Set when the whole job is to stop.
    pub(super) cancel: Option<&'a Cancel>,
}

impl Interrupt<'_> {
    /// Whether one of them is set.
    pub(super) fn is_set(self) -> bool {
        self.is_stopped() || self.cancel.is_some_and(Cancel::is_requested)
    }

    fn is_stopped(self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Fails when the copy was interrupted.
    pub(super) fn check(self) -> Result<()> {
        self.cancel.map_or(Ok(()), Cancel::check)?;
        if self.is_stopped() { Err(Error::bug(Layer::Block, "a stopped copy is used")) } else { Ok(()) }
    }
}
