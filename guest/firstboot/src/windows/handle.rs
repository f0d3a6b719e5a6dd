//! A handle that closes itself.

use super::ffi;

/// An open handle of the kernel.
pub struct OwnedHandle(ffi::Handle);

impl OwnedHandle {
    /// Takes a handle over; `None` when it is not one.
    pub(super) fn new(handle: ffi::Handle) -> Option<Self> {
        // INVALID_HANDLE_VALUE
        (!handle.is_null() && handle.addr() != usize::MAX).then_some(Self(handle))
    }

    pub(super) fn raw(&self) -> ffi::Handle {
        self.0
    }
}

impl Drop for OwnedHandle {
    fn drop(&mut self) {
        unsafe { ffi::CloseHandle(self.0) };
    }
}
