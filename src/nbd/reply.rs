//! Replies of a server, put together for the request that they belong to.
//!
//! A read is good only if the chunks of its reply cover it exactly: a server that ends its reply early must not leave zeros in
//! place of data.

use std::collections::BTreeMap;
use std::io::Read;

use super::failure::Failure;

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668E_33EF;
const FLAG_DONE: u16 = 1;

const CHUNK_NONE: u16 = 0;
const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 0x8001;
const CHUNK_ERROR_OFFSET: u16 = 0x8002;
/// Types with this bit are errors, also those that are not known.
const CHUNK_IS_ERROR: u16 = 1 << 15;

/// Longest text of an error, in bytes.
const TEXT_MAX: u32 = 4096;
/// Most extents of a reply.
const EXTENTS_MAX: u32 = 1 << 20;
/// Most chunks of a reply.
const CHUNKS_MAX: u32 = 1 << 20;
/// Flag of an extent that reads as zeros.
const STATE_ZERO: u32 = 2;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The bytes of a range.
    Read {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        length: u32,
    },
    /// The extents of a range, in the context of this number.
    Status {
        /// Length of the range in bytes.
        length: u32,
        /// Number of the context.
        context: u32,
    },
    /// An effect: a write, a flush. The answer has no data.
    Effect,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The bytes that were asked for.
    Bytes(Vec<u8>),
    /// Extents from the beginning of the range on, inside it: length, and whether they read as zeros.
    Extents(Vec<(u64, bool)>),
    /// The request was carried out.
    Done,
}

/// A reply that is being received.
#[derive(Debug)]
pub struct Assembly {
    question: Question,
    bytes: Vec<u8>,
    /// Ranges of the request that have been received: start and end.
    covered: BTreeMap<u32, u32>,
    extents: Option<Vec<(u64, bool)>>,
    chunks: u32,
    error: Option<Failure>,
}

/// The head of a reply or of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The request that it belongs to.
    pub cookie: u64,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Simple { error: u32 },
    Chunk { flags: u16, kind: u16, length: u32 },
}

/// Reads the next head. `is_structured`: what was agreed on.
///
/// # Errors
/// When the connection ends, or this is not a reply.
pub fn read_head(stream: &mut impl Read, is_structured: bool) -> Result<Head, Failure> {
    let magic = read_u32(stream)?;
    match magic {
        SIMPLE_MAGIC => {
            let error = read_u32(stream)?;
            Ok(Head { cookie: read_u64(stream)?, form: Form::Simple { error } })
        }
        STRUCTURED_MAGIC if is_structured => {
            let [flags, kind] = [read_u16(stream)?, read_u16(stream)?];
            let cookie = read_u64(stream)?;
            Ok(Head { cookie, form: Form::Chunk { flags, kind, length: read_u32(stream)? } })
        }
        _ => Err(Failure::protocol("a reply without its magic number")),
    }
}

impl Assembly {
    /// Nothing of the reply has been received.
    #[must_use]
    pub fn new(question: Question) -> Self {
        Self::with_buffer(question, Vec::new())
    }

    /// The same; the bytes of the reply take the place of those in `buffer`.
    #[must_use]
    pub fn with_buffer(question: Question, buffer: Vec<u8>) -> Self {
        Self { question, bytes: buffer, covered: BTreeMap::new(), extents: None, chunks: 0, error: None }
    }

    /// Reads what follows a head of this request; `true` if the reply is complete then.
    ///
    /// # Errors
    /// When the connection ends, or the server does not keep to the protocol: the connection is of no more use.
    pub fn receive(&mut self, head: Head, is_structured: bool, stream: &mut impl Read) -> Result<bool, Failure> {
        match head.form {
            Form::Simple { error } => {
                self.receive_simple(error, is_structured, stream)?;
                Ok(true)
            }
            Form::Chunk { flags, kind, length } => {
                self.chunks += 1;
                if self.chunks > CHUNKS_MAX {
                    return Err(Failure::protocol("endless chunks"));
                }
                self.receive_chunk(flags & FLAG_DONE != 0, kind, length, stream)?;
                Ok(flags & FLAG_DONE != 0)
            }
        }
    }

    /// The answer of a complete reply.
    ///
    /// # Errors
    /// What the server reports; a reply that does not cover what was asked for.
    pub fn finish(self) -> Result<Answer, Failure> {
        if let Some(error) = self.error {
            return Err(error);
        }
        match self.question {
            Question::Read { length, .. } => {
                let covered: u64 = self.covered.iter().map(|(start, end)| u64::from(end - start)).sum();
                if covered == u64::from(length) {
                    Ok(Answer::Bytes(self.bytes))
                } else {
                    Err(Failure::protocol(format!("{covered} of {length} bytes in a complete reply")))
                }
            }
            Question::Status { .. } => {
                self.extents.map(Answer::Extents).ok_or_else(|| Failure::protocol("no extents in a complete reply"))
            }
            Question::Effect => Ok(Answer::Done),
        }
    }

    fn receive_simple(&mut self, error: u32, is_structured: bool, stream: &mut impl Read) -> Result<(), Failure> {
        if self.chunks > 0 {
            return Err(Failure::protocol("a simple reply after chunks"));
        }
        if error != 0 {
            self.error = Some(Failure::Refused(error, String::new()));
            return Ok(());
        }
        match self.question {
            Question::Read { length, .. } if !is_structured => self.receive_bytes(0, length, stream),
            // Only a read is always answered with chunks where these were agreed on.
            Question::Effect => Ok(()),
            _ => Err(Failure::protocol("a simple reply where chunks were agreed on")),
        }
    }

    fn receive_chunk(&mut self, is_last: bool, kind: u16, length: u32, stream: &mut impl Read) -> Result<(), Failure> {
        match (kind, self.question) {
            (CHUNK_NONE, _) if is_last && length == 0 => Ok(()),
            (CHUNK_DATA, Question::Read { offset, .. }) => {
                let length = length.checked_sub(8).filter(|length| *length > 0);
                let length = length.ok_or_else(|| Failure::protocol("a chunk without data"))?;
                let start = relative(read_u64(stream)?, offset)?;
                self.receive_bytes(start, length, stream)
            }
            (CHUNK_HOLE, Question::Read { offset, .. }) if length == 12 => {
                let start = relative(read_u64(stream)?, offset)?;
                let length = read_u32(stream)?;
                self.cover(start, length)?.fill(0);
                Ok(())
            }
            (CHUNK_STATUS, Question::Status { length: asked, context }) => {
                self.receive_extents(length, asked, context, stream)
            }
            (CHUNK_ERROR | CHUNK_ERROR_OFFSET, _) => self.receive_error(kind, length, stream),
            (kind, _) if kind & CHUNK_IS_ERROR != 0 && length <= TEXT_MAX => {
                skip(stream, length)?;
                self.error = Some(Failure::Refused(0, String::new()));
                Ok(())
            }
            (kind, _) => Err(Failure::protocol(format!("a chunk of type {kind:#x} and {length} bytes"))),
        }
    }

    fn receive_bytes(&mut self, start: u32, length: u32, stream: &mut impl Read) -> Result<(), Failure> {
        Ok(stream.read_exact(self.cover(start, length)?)?)
    }

    /// Notes that a range of the request is received; the place for its bytes. The memory is that of the request, whatever
    /// the server says.
    fn cover(&mut self, start: u32, length: u32) -> Result<&mut [u8], Failure> {
        let Question::Read { length: asked, .. } = self.question else {
            return Err(Failure::protocol("data in a reply that has none"));
        };
        let outside = || Failure::protocol("a chunk outside of its request, or over another one");
        let end = start.checked_add(length).filter(|end| length > 0 && *end <= asked).ok_or_else(outside)?;
        let is_free = self.covered.range(..end).next_back().is_none_or(|(_, last)| *last <= start);
        if !is_free {
            return Err(outside());
        }
        if self.covered.is_empty() {
            // Bytes of an older buffer are not given away: a complete reply covers all of them.
            self.bytes.resize(asked as usize, 0);
        }
        self.covered.insert(start, end);
        self.bytes.get_mut(start as usize..end as usize).ok_or_else(outside)
    }

    fn receive_extents(
        &mut self,
        length: u32,
        asked: u32,
        context: u32,
        stream: &mut impl Read,
    ) -> Result<(), Failure> {
        let count = length.checked_sub(4).filter(|rest| rest.is_multiple_of(8)).map(|rest| rest / 8);
        let count = count.filter(|count| (1..=EXTENTS_MAX).contains(count) && self.extents.is_none());
        let count = count.ok_or_else(|| Failure::protocol(format!("extents of {length} bytes")))?;
        if read_u32(stream)? != context {
            return Err(Failure::protocol("extents of another context"));
        }
        let mut rest = u64::from(asked);
        let mut extents: Vec<(u64, bool)> = Vec::new();
        for _ in 0..count {
            let [length, state] = [read_u32(stream)?, read_u32(stream)?];
            if length == 0 {
                return Err(Failure::protocol("an extent without length"));
            }
            // Only the last one may reach beyond what was asked for; what lies there is cut.
            let length = u64::from(length).min(rest);
            rest -= length;
            let is_zero = state & STATE_ZERO != 0;
            match extents.last_mut() {
                _ if length == 0 => {}
                Some((last, kind)) if *kind == is_zero => *last += length,
                _ => extents.push((length, is_zero)),
            }
        }
        self.extents = Some(extents);
        Ok(())
    }

    fn receive_error(&mut self, kind: u16, length: u32, stream: &mut impl Read) -> Result<(), Failure> {
        let wrong = || Failure::protocol("an error of a wrong length");
        let code = read_u32(stream)?;
        let text = u32::from(read_u16(stream)?);
        let tail = if kind == CHUNK_ERROR_OFFSET { 8 } else { 0 };
        if text > TEXT_MAX || length != 6 + text + tail {
            return Err(wrong());
        }
        let mut bytes = vec![0; text as usize];
        stream.read_exact(&mut bytes)?;
        skip(stream, tail)?;
        self.error.get_or_insert(Failure::Refused(code, String::from_utf8_lossy(&bytes).into_owned()));
        Ok(())
    }
}

/// An offset of a chunk from the beginning of its request.
fn relative(offset: u64, start: u64) -> Result<u32, Failure> {
    let relative = offset.checked_sub(start).and_then(|relative| u32::try_from(relative).ok());
    relative.ok_or_else(|| Failure::protocol("a chunk outside of its request"))
}

fn skip(stream: &mut impl Read, length: u32) -> Result<(), Failure> {
    // At most a text.
    Ok(stream.read_exact(&mut vec![0; length as usize])?)
}

fn read_u16(stream: &mut impl Read) -> Result<u16, Failure> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn read_u32(stream: &mut impl Read) -> Result<u32, Failure> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(stream: &mut impl Read) -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
