//! A server that does what a test says, on a Unix socket: it can lie, stall and drop connections.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use winject::internals::block::StorageExt;
use winject::internals::nbd::{NbdOptions, NbdStorage};

/// Size of the disk.
pub const SIZE: u64 = 1 << 20;
const HAS_FLAGS: u16 = 1;

/// A request as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub kind: u16,
    pub cookie: u64,
    pub offset: u64,
    pub length: u32,
}

/// What the disk holds.
pub fn content(offset: u64, length: u32) -> Vec<u8> {
    (offset..offset + u64::from(length)).map(|at| (at % 251) as u8).collect()
}

pub fn chunk(flags: u16, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = 0x668E_33EF_u32.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out
}

pub fn data(flags: u16, cookie: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    chunk(flags, 1, cookie, &[&offset.to_be_bytes(), bytes].concat())
}

pub fn good(request: Request) -> Vec<u8> {
    data(1, request.cookie, request.offset, &content(request.offset, request.length))
}

pub fn extents(request: Request, list: &[(u32, u32)]) -> Vec<u8> {
    extents_in(7, request, list)
}

/// The answer to a question for extents; all else is answered with the bytes.
pub fn status(request: Request, list: &[(u32, u32)]) -> Vec<u8> {
    if request.kind == 7 { extents(request, list) } else { good(request) }
}

/// Extents in the context of another number.
pub fn extents_in(context: u32, request: Request, list: &[(u32, u32)]) -> Vec<u8> {
    let list = list.iter().flat_map(|(length, flags)| [length.to_be_bytes(), flags.to_be_bytes()].concat());
    chunk(1, 5, request.cookie, &context.to_be_bytes().into_iter().chain(list).collect::<Vec<u8>>())
}

/// Answers a request; an empty answer sends nothing, `None` ends the connection.
type Script = dyn Fn(usize, Request) -> Option<Vec<u8>> + Send + Sync;

pub struct Scripted {
    socket: PathBuf,
    pub connections: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Scripted {
    /// A server whose handshake is good, and whose answers are those of the script: by the number of the connection.
    pub fn new(script: impl Fn(usize, Request) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::offering(|_| Offer::default(), script)
    }

    /// The same with other offers in the handshake.
    pub fn offering(
        offer: impl Fn(usize) -> Offer + Send + Sync + 'static,
        script: impl Fn(usize, Request) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let script: Arc<Script> = Arc::new(script);
        Self::listen(move |number, mut stream| {
            handshake(&mut stream, &offer(number))?;
            while let Some(request) = next(&mut stream)? {
                match script(number, request) {
                    Some(answer) => stream.write_all(&answer)?,
                    None => return Ok(()),
                }
            }
            Ok(())
        })
    }

    /// A server that does with each connection what `serve` says: by the number of the connection.
    pub fn listen(serve: impl Fn(usize, UnixStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away in the middle is what many tests want.
                let Ok(stream) = stream else { return };
                let (serve, number) = (Arc::clone(&serve), counted.fetch_add(1, Ordering::Relaxed));
                std::thread::spawn(move || drop(serve(number, stream)));
            }
        });
        Self { socket, connections, _folder: folder }
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///e?socket={}", self.socket.display())
    }

    /// Three attempts without waits, and little patience.
    pub fn options() -> NbdOptions {
        let retries = vec![Duration::ZERO; 3];
        NbdOptions { patience: Duration::from_millis(600), retries, ..NbdOptions::default() }
    }

    pub fn open(&self) -> winject::Result<NbdStorage> {
        self.open_with(Self::options())
    }

    pub fn open_with(&self, options: NbdOptions) -> winject::Result<NbdStorage> {
        NbdStorage::open(self.uri().as_ref(), options)
    }

    /// The error of reading the beginning of the disk.
    pub fn read_error(&self) -> String {
        let mut buf = vec![0xAA; 1000];
        self.open().unwrap().read_exact_at(10, &mut buf).unwrap_err().to_string()
    }
}

pub fn take<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub fn reply(option: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = 0x0003_E889_0455_65A9_u64.to_be_bytes().to_vec();
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out
}

/// What a server says of its export.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    pub size: u64,
    /// Smallest and largest request.
    pub block_size: Option<(u32, u32)>,
    /// Number of the context of holes.
    pub context: u32,
}

impl Default for Offer {
    fn default() -> Self {
        Self { size: SIZE, block_size: None, context: 7 }
    }
}

pub fn handshake(stream: &mut UnixStream, offer: &Offer) -> io::Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
    take::<4>(stream)?;
    loop {
        take::<8>(stream)?;
        let option = u32::from_be_bytes(take(stream)?);
        let length = u32::from_be_bytes(take(stream)?);
        stream.read_exact(&mut vec![0; length as usize])?;
        match option {
            8 => stream.write_all(&reply(option, 1, &[]))?,
            10 => {
                let context = [&offer.context.to_be_bytes()[..], b"base:allocation"].concat();
                stream.write_all(&[reply(option, 4, &context), reply(option, 1, &[])].concat())?;
            }
            _ => {
                let info = [&[0, 0][..], &offer.size.to_be_bytes(), &HAS_FLAGS.to_be_bytes()].concat();
                let sizes = offer.block_size.map(|(least, most)| [least, most, most].map(u32::to_be_bytes).concat());
                let sizes = sizes.map(|sizes| reply(option, 3, &[&[0, 3][..], &sizes].concat())).unwrap_or_default();
                stream.write_all(&[reply(option, 3, &info), sizes, reply(option, 1, &[])].concat())?;
                return Ok(());
            }
        }
    }
}

pub fn next(stream: &mut UnixStream) -> io::Result<Option<Request>> {
    take::<6>(stream)?;
    let kind = u16::from_be_bytes(take(stream)?);
    let (cookie, offset) = (u64::from_be_bytes(take(stream)?), u64::from_be_bytes(take(stream)?));
    let length = u32::from_be_bytes(take(stream)?);
    Ok((kind != 2).then_some(Request { kind, cookie, offset, length }))
}
