//! The request to stop, and waits that end when it comes.

use super::ffi;
use super::handle::OwnedHandle;

/// The service manager, or the end of Windows, has asked the program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// The event that a stop request sets.
pub struct StopEvent(OwnedHandle);

impl StopEvent {
    /// A new event, not set; `None` when Windows has no memory for it.
    #[must_use]
    pub fn new() -> Option<Self> {
        let event = unsafe { ffi::CreateEventW(core::ptr::null_mut(), 1, 0, core::ptr::null()) };
        OwnedHandle::new(event).map(Self)
    }

    pub(super) fn raw(&self) -> ffi::Handle {
        self.0.raw()
    }

    /// Waits for some milliseconds.
    ///
    /// # Errors
    /// As soon as the program has to stop.
    pub fn wait(&self, milliseconds: u32) -> Result<(), Stopped> {
        /// `WAIT_OBJECT_0`
        const SET: u32 = 0;
        if unsafe { ffi::WaitForSingleObject(self.raw(), milliseconds) } == SET { Err(Stopped) } else { Ok(()) }
    }

    /// Fails if the program has to stop.
    ///
    /// # Errors
    /// When it has to.
    pub fn check(&self) -> Result<(), Stopped> {
        self.wait(0)
    }
}

/// A point in time that a wait ends at.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(u64);

impl Deadline {
    /// In so many seconds.
    #[must_use]
    pub fn after(seconds: u32) -> Self {
        Self(unsafe { ffi::GetTickCount64() } + u64::from(seconds) * 1000)
    }

    /// Milliseconds until then; 0 when it has passed.
    #[must_use]
    pub fn remaining(self) -> u32 {
        u32::try_from(self.0.saturating_sub(unsafe { ffi::GetTickCount64() })).unwrap_or(u32::MAX - 1)
    }
}
