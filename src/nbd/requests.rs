//! Requests on the wire.

const MAGIC: u32 = 0x2560_9513;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;

/// Bytes of a request.
pub(super) const BYTES: usize = 28;

pub(super) fn read(cookie: u64, offset: u64, length: u32) -> [u8; BYTES] {
    encode(READ, cookie, offset, length)
}

pub(super) fn block_status(cookie: u64, offset: u64, length: u32) -> [u8; BYTES] {
    encode(BLOCK_STATUS, cookie, offset, length)
}

/// The data follow.
pub(super) fn write(cookie: u64, offset: u64, length: u32) -> [u8; BYTES] {
    encode(WRITE, cookie, offset, length)
}

/// Without a flag: the server may make a hole of the range.
pub(super) fn write_zeroes(cookie: u64, offset: u64, length: u32) -> [u8; BYTES] {
    encode(WRITE_ZEROES, cookie, offset, length)
}

pub(super) fn flush(cookie: u64) -> [u8; BYTES] {
    encode(FLUSH, cookie, 0, 0)
}

pub(super) fn disconnect() -> [u8; BYTES] {
    encode(DISCONNECT, 0, 0, 0)
}

fn encode(kind: u16, cookie: u64, offset: u64, length: u32) -> [u8; BYTES] {
    let mut request = [0; BYTES];
    let flags = 0_u16;
    let fields = MAGIC.to_be_bytes().into_iter().chain(flags.to_be_bytes()).chain(kind.to_be_bytes());
    let fields = fields.chain(cookie.to_be_bytes()).chain(offset.to_be_bytes()).chain(length.to_be_bytes());
    request.iter_mut().zip(fields).for_each(|(byte, value)| *byte = value);
    request
}
