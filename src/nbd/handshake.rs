//! The handshake: fixed newstyle with `GO`, or (for old servers) newstyle with `EXPORT_NAME`.

use std::fmt;
use std::io::{Read, Write};

use super::export::Export;
use super::failure::Failure;

const MAGIC: &[u8; 8] = b"NBDMAGIC";
const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OLD_STYLE_MAGIC: [u8; 8] = [0, 0, 0x42, 2, 0x81, 0x86, 0x12, 0x53];
const REPLY_MAGIC: u64 = 0x0003_E889_0455_65A9;

const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;
/// Zeros that end the reply to `EXPORT_NAME` unless both sides agreed to leave them out.
const ZEROES: usize = 124;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
const OPT_SET_META_CONTEXT: u32 = 10;

const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_META_CONTEXT: u32 = 4;
const REP_ERROR: u32 = 1 << 31;
const REP_ERR_UNSUP: u32 = REP_ERROR | 1;
const REP_ERR_POLICY: u32 = REP_ERROR | 2;
const REP_ERR_TLS_REQD: u32 = REP_ERROR | 5;
const REP_ERR_UNKNOWN: u32 = REP_ERROR | 6;
const REP_ERR_SHUTDOWN: u32 = REP_ERROR | 7;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

const BASE_ALLOCATION: &[u8] = b"base:allocation";

/// Longest reply to an option, in bytes.
const REPLY_BYTES_MAX: u32 = 64 << 10;
/// Most replies to one option.
const REPLIES_MAX: usize = 1000;
/// Most bytes of a server's text that are shown.
const TEXT_MAX: usize = 4096;

/// Why an export cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denied {
    /// The server wants TLS.
    Tls,
    /// The server refuses, in its own words or ours.
    Refused(String),
    /// The size in bytes is not a multiple of the smallest unit of requests, so that the end of the disk cannot be read.
    PartialBlock {
        /// Size of the export.
        size: u64,
        /// Smallest unit of requests.
        minimum: u32,
    },
    /// The connection failed, or the server broke the protocol.
    Failed(Failure),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls => f.write_str("it demands TLS"),
            Self::Refused(reason) | Self::Failed(Failure::Lost(reason)) => f.write_str(reason),
            Self::PartialBlock { size, minimum } => {
                write!(f, "its size of {size} bytes is not a multiple of its block size of {minimum} bytes")
            }
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl<T: Into<Failure>> From<T> for Denied {
    fn from(failure: T) -> Self {
        Self::Failed(failure.into())
    }
}

/// Opens the export of this name.
pub(super) fn handshake<S: Read + Write>(stream: &mut S, export: &str) -> Result<Export, Denied> {
    if take::<8>(stream)? != *MAGIC {
        return Err(Failure::protocol("not an NBD server").into());
    }
    let second = take::<8>(stream)?;
    if second == OLD_STYLE_MAGIC {
        return Err(Denied::Refused("the server speaks the oldstyle handshake, which is not supported".to_owned()));
    }
    if second != *OPTION_MAGIC {
        return Err(Failure::protocol("an unknown handshake").into());
    }
    let offered = u16::from_be_bytes(take(stream)?);
    let agreed = offered & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    stream.write_all(&u32::from(agreed).to_be_bytes())?;
    if agreed & FLAG_FIXED_NEWSTYLE == 0 {
        // Such a server knows no other option, and answers none with an error.
        return by_export_name(stream, export, agreed & FLAG_NO_ZEROES == 0);
    }
    let is_structured = ask_for_structured_replies(stream)?;
    let context = if is_structured { ask_for_context(stream, export)? } else { None };
    let found = match go(stream, export)? {
        Some(found) => found,
        None => by_export_name(stream, export, agreed & FLAG_NO_ZEROES == 0)?,
    };
    Ok(Export { is_structured, context, ..found })
}

fn ask_for_structured_replies<S: Read + Write>(stream: &mut S) -> Result<bool, Denied> {
    send(stream, OPT_STRUCTURED_REPLY, &[])?;
    match receive(stream, OPT_STRUCTURED_REPLY)? {
        (REP_ACK, _) => Ok(true),
        (REP_ERR_TLS_REQD, _) => Err(abort(stream, Denied::Tls)),
        (kind, _) if kind & REP_ERROR != 0 => Ok(false),
        (kind, _) => Err(unexpected(kind)),
    }
}

/// The number of the context of holes; `None` if the server has none.
fn ask_for_context<S: Read + Write>(stream: &mut S, export: &str) -> Result<Option<u32>, Denied> {
    let mut data = with_length(export.as_bytes());
    data.extend(1_u32.to_be_bytes());
    data.extend(with_length(BASE_ALLOCATION));
    send(stream, OPT_SET_META_CONTEXT, &data)?;
    let mut context = None;
    for _ in 0..REPLIES_MAX {
        match receive(stream, OPT_SET_META_CONTEXT)? {
            (REP_ACK, _) => return Ok(context),
            (REP_META_CONTEXT, data) => {
                if let Some((number, name)) = data.split_first_chunk::<4>()
                    && name == BASE_ALLOCATION
                {
                    context = Some(u32::from_be_bytes(*number));
                }
            }
            (kind, _) if kind & REP_ERROR != 0 => return Ok(None),
            (kind, _) => return Err(unexpected(kind)),
        }
    }
    Err(Failure::protocol("endless replies to an option").into())
}

/// Begins the transmission; `None` if the server does not know `GO`.
fn go<S: Read + Write>(stream: &mut S, export: &str) -> Result<Option<Export>, Denied> {
    let mut data = with_length(export.as_bytes());
    data.extend(1_u16.to_be_bytes());
    data.extend(INFO_BLOCK_SIZE.to_be_bytes());
    send(stream, OPT_GO, &data)?;
    let (mut found, mut block_size) = (None, None);
    for _ in 0..REPLIES_MAX {
        match receive(stream, OPT_GO)? {
            (REP_ACK, _) => {
                let mut found: Export = found.ok_or_else(|| Failure::protocol("no size of the export"))?;
                if let Some((minimum, maximum)) = block_size {
                    found.set_block_size(minimum, maximum)?;
                    let size = found.size;
                    if !size.is_multiple_of(u64::from(minimum)) {
                        return Err(Denied::PartialBlock { size, minimum });
                    }
                }
                return Ok(Some(found));
            }
            (REP_INFO, data) => {
                let (kind, rest) = data.split_first_chunk::<2>().ok_or_else(short_info)?;
                match u16::from_be_bytes(*kind) {
                    INFO_EXPORT => {
                        let (size, rest) = rest.split_first_chunk::<8>().ok_or_else(short_info)?;
                        let (flags, _) = rest.split_first_chunk::<2>().ok_or_else(short_info)?;
                        found = Some(Export::new(u64::from_be_bytes(*size), u16::from_be_bytes(*flags))?);
                    }
                    INFO_BLOCK_SIZE => {
                        let [minimum, _, maximum] = words(rest).ok_or_else(short_info)?;
                        block_size = Some((minimum, maximum));
                    }
                    _ => {}
                }
            }
            (REP_ERR_UNSUP, _) => return Ok(None),
            (REP_ERR_TLS_REQD, _) => return Err(abort(stream, Denied::Tls)),
            (kind, text) if kind & REP_ERROR != 0 => {
                return Err(abort(stream, Denied::Refused(refusal(kind, &text, export))));
            }
            (kind, _) => return Err(unexpected(kind)),
        }
    }
    Err(Failure::protocol("endless replies to an option").into())
}

fn by_export_name<S: Read + Write>(stream: &mut S, export: &str, has_zeroes: bool) -> Result<Export, Denied> {
    send(stream, OPT_EXPORT_NAME, export.as_bytes())?;
    let size = match take(stream) {
        Ok(size) => u64::from_be_bytes(size),
        // The only way in which such a server can say that it does not have the export.
        Err(Failure::Lost(_)) => {
            return Err(Denied::Refused(format!(
                "the server closed the connection: perhaps it has no export {export:?}"
            )));
        }
        Err(failure) => return Err(failure.into()),
    };
    let flags = u16::from_be_bytes(take(stream)?);
    if has_zeroes {
        take::<ZEROES>(stream)?;
    }
    Ok(Export::new(size, flags)?)
}

fn send<S: Write>(stream: &mut S, option: u32, data: &[u8]) -> Result<(), Failure> {
    let mut message = OPTION_MAGIC.to_vec();
    message.extend(option.to_be_bytes());
    message.extend(with_length(data));
    Ok(stream.write_all(&message)?)
}

/// One reply to an option: its type and data.
fn receive<S: Read>(stream: &mut S, option: u32) -> Result<(u32, Vec<u8>), Failure> {
    if u64::from_be_bytes(take(stream)?) != REPLY_MAGIC {
        return Err(Failure::protocol("a reply to an option without its magic number"));
    }
    let [replied, kind, length] =
        words(&take::<12>(stream)?).ok_or_else(|| Failure::protocol("a short reply to an option"))?;
    if replied != option {
        return Err(Failure::protocol("a reply to another option"));
    }
    if length > REPLY_BYTES_MAX {
        return Err(Failure::protocol(format!("a reply of {length} bytes to an option")));
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data)?;
    Ok((kind, data))
}

/// Leaves politely; the reason stays the same whether the server hears it or not.
fn abort<S: Read + Write>(stream: &mut S, denied: Denied) -> Denied {
    let _ = send(stream, OPT_ABORT, &[]);
    denied
}

fn refusal(kind: u32, text: &[u8], export: &str) -> String {
    let text = String::from_utf8_lossy(text.get(..text.len().min(TEXT_MAX)).unwrap_or_default()).into_owned();
    let reason = match kind {
        REP_ERR_UNKNOWN => format!("it has no export {export:?}"),
        REP_ERR_POLICY => "not allowed".to_owned(),
        REP_ERR_SHUTDOWN => "it is shutting down".to_owned(),
        kind => format!("error {:#x}", kind & !REP_ERROR),
    };
    if text.is_empty() { reason } else { format!("{reason} ({text})") }
}

fn unexpected(kind: u32) -> Denied {
    Failure::protocol(format!("a reply of type {kind:#x} to an option")).into()
}

fn short_info() -> Failure {
    Failure::protocol("short information on the export")
}

fn with_length(data: &[u8]) -> Vec<u8> {
    // Names are at most 4096 bytes long.
    let mut message = (data.len() as u32).to_be_bytes().to_vec();
    message.extend(data);
    message
}

fn take<const N: usize>(stream: &mut impl Read) -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn words<const N: usize>(data: &[u8]) -> Option<[u32; N]> {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(data.chunks_exact(4)) {
        *word = u32::from_be_bytes(bytes.try_into().ok()?);
    }
    (data.len() >= N * 4).then_some(words)
}
