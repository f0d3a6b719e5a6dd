//! What a C runtime would bring: the heap, the end after a panic, and the functions that the compiler calls for copies
//! and comparisons of memory.

use core::alloc::{GlobalAlloc, Layout};

use super::ffi;

/// The alignment that `HeapAlloc` promises.
const ALIGNMENT: usize = if cfg!(target_pointer_width = "64") { 16 } else { 8 };

struct ProcessHeap;

// SAFETY: the heap's functions may be called from any thread; larger alignments, which the program has not, are refused.
unsafe impl GlobalAlloc for ProcessHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNMENT {
            return core::ptr::null_mut();
        }
        unsafe { ffi::HeapAlloc(ffi::GetProcessHeap(), 0, layout.size()) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        unsafe { ffi::HeapFree(ffi::GetProcessHeap(), 0, memory) };
    }

    unsafe fn realloc(&self, memory: *mut u8, _: Layout, size: usize) -> *mut u8 {
        unsafe { ffi::HeapReAlloc(ffi::GetProcessHeap(), 0, memory, size) }
    }
}

#[global_allocator]
static HEAP: ProcessHeap = ProcessHeap;

/// A fault of the program ends the service, and nothing else.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe { ffi::ExitProcess(super::EXIT_PANIC) }
}

// The loops are volatile: otherwise the compiler turns them into calls of themselves.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    for at in 0..length {
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if to.cast_const() <= from {
        return unsafe { memcpy(to, from, length) };
    }
    for at in (0..length).rev() {
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    for at in 0..length {
        unsafe { to.add(at).write_volatile(value.to_le_bytes()[0]) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    for at in 0..length {
        let (a, b) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// The precompiled standard crates name it for unwinding, which this program does not do.
#[unsafe(no_mangle)]
extern "C" fn __CxxFrameHandler3() -> ! {
    unsafe { ffi::ExitProcess(super::EXIT_PANIC) }
}
