//! The network adapters that Windows has now.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::ffi;
use super::wide::copy_wide;

/// `AF_UNSPEC`
const ANY_FAMILY: u32 = 0;
/// `GAA_FLAG_SKIP_UNICAST`, `_ANYCAST`, `_MULTICAST` and `_DNS_SERVER`: the adapters themselves are enough.
const FLAGS: u32 = 1 | 2 | 4 | 8;
/// `ERROR_BUFFER_OVERFLOW`
const TOO_SMALL: u32 = 111;
/// Largest answer, in bytes; most adapters.
const SIZE_MAX: u32 = 16 << 20;
const ADAPTERS_MAX: usize = 4096;
/// `IfOperStatusUp`
const UP: u32 = 1;

/// One adapter.
pub struct Adapter {
    /// Index of its IPv4 interface; 0 when it has none.
    pub index: u32,
    /// Index of its IPv6 interface; 0 when it has none.
    pub index6: u32,
    /// The connection's name.
    pub name: String,
    /// What the adapter is called.
    pub description: String,
    /// The hardware address.
    pub mac: Vec<u8>,
    /// Whether it is connected.
    pub is_up: bool,
}

/// All adapters; empty when Windows does not tell.
#[must_use]
pub fn list() -> Vec<Adapter> {
    let mut size = 16 << 10;
    // Adapters come and go between the calls.
    for _ in 0..4 {
        // in units of 8 bytes, for the alignment
        let mut buffer = vec![0u64; usize::try_from(size / 8 + 1).unwrap_or(0)];
        let first = buffer.as_mut_ptr().cast::<ffi::AdapterAddresses>();
        match unsafe { ffi::GetAdaptersAddresses(ANY_FAMILY, FLAGS, core::ptr::null_mut(), first, &raw mut size) } {
            // SAFETY: the call succeeded, so the list lies in the buffer, which lives on.
            0 => return unsafe { copy_list(first) },
            TOO_SMALL if size <= SIZE_MAX => {}
            _ => break,
        }
    }
    Vec::new()
}

/// # Safety
/// `first` is null or the first of a list as `GetAdaptersAddresses` makes it.
unsafe fn copy_list(first: *const ffi::AdapterAddresses) -> Vec<Adapter> {
    let mut adapters = Vec::new();
    let mut next = first;
    while let Some(found) = unsafe { next.as_ref() } {
        if adapters.len() == ADAPTERS_MAX {
            break;
        }
        let length = usize::try_from(found.physical_length).unwrap_or(0);
        adapters.push(Adapter {
            index: found.index,
            index6: found.index6,
            name: unsafe { copy_wide(found.friendly_name) },
            description: unsafe { copy_wide(found.description) },
            mac: found.physical.get(..length).unwrap_or_default().to_vec(),
            is_up: found.operational == UP,
        });
        next = found.next;
    }
    adapters
}
