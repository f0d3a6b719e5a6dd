//! A server that lies, stalls and drops connections: errors, never bytes that were not sent, never an endless loop.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use winject::internals::block::{Storage, StorageExt};
use winject::internals::nbd::{NbdOptions, NbdStorage};

const SIZE: u64 = 1 << 20;
const HAS_FLAGS: u16 = 1;

/// A request as it arrived.
#[derive(Debug, Clone, Copy)]
struct Request {
    kind: u16,
    cookie: u64,
    offset: u64,
    length: u32,
}

/// What the disk holds.
fn content(offset: u64, length: u32) -> Vec<u8> {
    (offset..offset + u64::from(length)).map(|at| (at % 251) as u8).collect()
}

fn chunk(flags: u16, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = 0x668E_33EF_u32.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out
}

fn data(flags: u16, cookie: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    chunk(flags, 1, cookie, &[&offset.to_be_bytes(), bytes].concat())
}

fn good(request: Request) -> Vec<u8> {
    data(1, request.cookie, request.offset, &content(request.offset, request.length))
}

fn extents(request: Request, list: &[(u32, u32)]) -> Vec<u8> {
    let list = list.iter().flat_map(|(length, flags)| [length.to_be_bytes(), flags.to_be_bytes()].concat());
    chunk(1, 5, request.cookie, &7_u32.to_be_bytes().into_iter().chain(list).collect::<Vec<u8>>())
}

/// Answers a request; an empty answer sends nothing, `None` ends the connection.
type Script = dyn Fn(usize, Request) -> Option<Vec<u8>> + Send + Sync;

struct Scripted {
    socket: PathBuf,
    connections: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Scripted {
    /// A server whose handshake is good, and whose answers are those of the script: by the number of the connection.
    fn new(script: impl Fn(usize, Request) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::with_size(|_| SIZE, script)
    }

    fn with_size(
        size: impl Fn(usize) -> u64 + Send + 'static,
        script: impl Fn(usize, Request) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let script: Arc<Script> = Arc::new(script);
        Self::listen(move |number, mut stream| {
            handshake(&mut stream, size(number))?;
            while let Some(request) = next(&mut stream)? {
                match script(number, request) {
                    Some(answer) => stream.write_all(&answer)?,
                    None => return Ok(()),
                }
            }
            Ok(())
        })
    }

    fn listen(serve: impl Fn(usize, UnixStream) -> io::Result<()> + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away in the middle is what many tests want.
                let Ok(stream) = stream else { return };
                let _ = serve(counted.fetch_add(1, Ordering::Relaxed), stream);
            }
        });
        Self { socket, connections, _folder: folder }
    }

    fn open(&self) -> winject::Result<NbdStorage> {
        let options = NbdOptions {
            patience: Duration::from_millis(600),
            retries: vec![Duration::ZERO; 3],
            ..NbdOptions::default()
        };
        let uri = format!("nbd+unix:///e?socket={}", self.socket.display());
        NbdStorage::open(uri.as_ref(), options)
    }

    /// The error of reading the beginning of the disk.
    fn read_error(&self) -> String {
        let mut buf = vec![0xAA; 1000];
        self.open().unwrap().read_exact_at(10, &mut buf).unwrap_err().to_string()
    }
}

fn take<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn reply(option: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = 0x0003_E889_0455_65A9_u64.to_be_bytes().to_vec();
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out
}

fn handshake(stream: &mut UnixStream, size: u64) -> io::Result<()> {
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
                let context = [&7_u32.to_be_bytes()[..], b"base:allocation"].concat();
                stream.write_all(&[reply(option, 4, &context), reply(option, 1, &[])].concat())?;
            }
            _ => {
                let info = [&[0, 0][..], &size.to_be_bytes(), &HAS_FLAGS.to_be_bytes()].concat();
                stream.write_all(&[reply(option, 3, &info), reply(option, 1, &[])].concat())?;
                return Ok(());
            }
        }
    }
}

fn next(stream: &mut UnixStream) -> io::Result<Option<Request>> {
    take::<6>(stream)?;
    let kind = u16::from_be_bytes(take(stream)?);
    let (cookie, offset) = (u64::from_be_bytes(take(stream)?), u64::from_be_bytes(take(stream)?));
    let length = u32::from_be_bytes(take(stream)?);
    Ok((kind != 2).then_some(Request { kind, cookie, offset, length }))
}

fn good_answers_are_read() {
    let server = Scripted::new(|_, request| Some(good(request)));
    let mut buf = vec![0; 300_000];
    server.open().unwrap().read_exact_at(77, &mut buf).unwrap();
    assert!(buf == content(77, 300_000));
}

/// Chunks in any order, with holes, are put together; each of these answers is an error instead.
fn lies_are_errors() {
    let split = Scripted::new(|_, request| {
        let Request { cookie, offset, length, .. } = request;
        let hole = [(offset + 100).to_be_bytes().to_vec(), 50_u32.to_be_bytes().to_vec()].concat();
        Some(
            [
                data(0, cookie, offset + 150, &content(offset + 150, length - 150)),
                chunk(0, 2, cookie, &hole),
                data(1, cookie, offset, &content(offset, 100)),
            ]
            .concat(),
        )
    });
    let mut buf = vec![0xAA; 1000];
    split.open().unwrap().read_exact_at(0, &mut buf).unwrap();
    let mut expected = content(0, 1000);
    expected[100..150].fill(0);
    assert!(buf == expected);

    type Lie = fn(Request) -> Vec<u8>;
    let lies: &[(&str, Lie)] = &[
        ("DONE before all is sent", |r| data(1, r.cookie, r.offset, &content(r.offset, r.length - 1))),
        ("nothing but DONE", |r| chunk(1, 0, r.cookie, &[])),
        ("a chunk that overlaps", |r| {
            let bytes = content(r.offset, r.length);
            [data(0, r.cookie, r.offset, &bytes), data(1, r.cookie, r.offset + 1, &bytes[..1])].concat()
        }),
        ("a chunk before the request", |r| data(1, r.cookie, r.offset.wrapping_sub(1), &content(0, r.length))),
        ("a chunk beyond the request", |r| data(1, r.cookie, r.offset + 1, &content(0, r.length))),
        ("an enormous chunk", |r| {
            let mut bytes = data(1, r.cookie, r.offset, &[0; 16]);
            bytes[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
            bytes
        }),
        ("a hole beyond the request", |r| {
            chunk(1, 2, r.cookie, &[r.offset.to_be_bytes().to_vec(), u32::MAX.to_be_bytes().to_vec()].concat())
        }),
        ("another cookie", |r| data(1, r.cookie + 1, r.offset, &content(r.offset, r.length))),
        ("another magic number", |_| vec![0x55; 100]),
        ("an unknown chunk", |r| chunk(1, 99, r.cookie, &[])),
        ("a simple reply", |r| [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &r.cookie.to_be_bytes()].concat()),
        ("extents", |r| extents(r, &[(512, 0)])),
        ("an error with a wrong length", |r| chunk(1, 0x8001, r.cookie, &[0, 0, 0, 5, 0xFF, 0xFF])),
    ];
    for (name, lie) in lies {
        let server = Scripted::new(move |_, request| Some(lie(request)));
        let error = server.read_error();
        assert!(error.contains("breaks the protocol"), "{name}: {error}");
        assert_eq!(server.connections.load(Ordering::Relaxed), 1, "{name}: a liar is not asked again");
    }
    let refuses = |code: u32, text: &[u8]| {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend((text.len() as u16).to_be_bytes());
        payload.extend(text);
        Scripted::new(move |_, request| Some(chunk(1, 0x8001, request.cookie, &payload)))
    };
    let error = refuses(5, b"a \x1b[31mred\x07 disk").read_error();
    assert!(error.contains("input/output error") && !error.contains('\x1b') && !error.contains('\x07'), "{error:?}");
}

fn wrong_extents_are_errors_and_end() {
    for list in [&[(0, 0)][..], &[], &[(512, 0), (0, 2)]] {
        let list = list.to_vec();
        let server = Scripted::new(move |_, request| Some(extents(request, &list)));
        let error = server.open().unwrap().run_at(0).unwrap_err().to_string();
        assert!(error.contains("breaks the protocol"), "{error}");
    }
    // Longer than what was asked for: cut.
    let server = Scripted::new(|_, request| Some(extents(request, &[(u32::MAX, 3)])));
    let run = server.open().unwrap().run_at(0).unwrap();
    assert_eq!((run.length, run.is_data), (SIZE, false));
    // A hole that is not zero is data.
    let server = Scripted::new(|_, request| Some(extents(request, &[(512, 1), (u32::MAX, 2)])));
    let storage = server.open().unwrap();
    assert_eq!((storage.run_at(0).unwrap().length, storage.run_at(0).unwrap().is_data), (512, true));
    assert!(!storage.run_at(512).unwrap().is_data);
    // No answer to the question is an answer: all is read.
    let server = Scripted::new(|_, r| Some(chunk(1, 0x8001, r.cookie, &[0, 0, 0, 95, 0, 0])));
    assert!(server.open().unwrap().run_at(0).unwrap().is_data);
}

fn a_stalled_server_is_given_up() {
    let server = Scripted::new(|_, _| Some(Vec::new()));
    let error = server.read_error();
    assert!(error.contains("no answer for"), "{error}");
    // Stalled in the middle of an answer.
    let server = Scripted::new(|_, request| Some(good(request)[..100].to_vec()));
    assert!(server.read_error().contains("no answer for"));
}

fn a_dropped_connection_is_made_again_for_reading() {
    let server = Scripted::new(|number, request| (number >= 2).then(|| good(request)));
    let mut buf = vec![0; 600_000];
    server.open().unwrap().read_exact_at(3, &mut buf).unwrap();
    assert!(buf == content(3, 600_000));
    assert_eq!(server.connections.load(Ordering::Relaxed), 3);
    // Dropped in the middle of an answer, always.
    let server = Scripted::new(|_, request| Some(good(request)[..100].to_vec()).filter(|_| request.kind != 0));
    assert!(server.read_error().contains("connection to the NBD server lost"));
    // Another disk under the same name.
    let server = Scripted::with_size(|number| SIZE + number as u64 * 512, |_, _| None);
    let error = server.read_error();
    assert!(error.contains("another disk"), "{error}");
}

fn handshakes_that_make_no_sense_are_errors() {
    let hello = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    let after_hello = |bytes: Vec<u8>| [hello.clone(), bytes].concat();
    let cases = [
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "not an NBD server"),
        (b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53".to_vec(), "oldstyle"),
        (b"NBDMAGICIHAVEOPT\0\0".to_vec(), "perhaps it has no export"),
        (after_hello(vec![0; 20]), "magic number"),
        (after_hello(reply(7, 1, &[])), "another option"),
        (after_hello(reply(8, 0x8000_0005, &[])), "TLS"),
        (after_hello([&reply(8, 1, &[])[..16], &u32::MAX.to_be_bytes()].concat()), "4294967295 bytes"),
        (after_hello([reply(8, 1, &[]), reply(10, 4, b"xx").repeat(1001)].concat()), "endless"),
        (after_hello([reply(8, 0x8000_0001, &[]), reply(7, 1, &[])].concat()), "no size"),
        (after_hello([reply(8, 0x8000_0001, &[]), reply(7, 3, &[0])].concat()), "short information"),
        (after_hello([reply(8, 0x8000_0001, &[]), reply(7, 0x8000_0006, b"who?")].concat()), "no export \"e\" (who?)"),
        (
            after_hello([reply(8, 0x8000_0001, &[]), reply(7, 3, &[&[0, 0][..], &[0xFF; 10]].concat())].concat()),
            "18446744073709551615 bytes",
        ),
        (
            after_hello(
                [
                    reply(8, 0x8000_0001, &[]),
                    reply(7, 3, &[0, 3, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 3]),
                    reply(7, 3, &[0; 12]),
                    reply(7, 1, &[]),
                ]
                .concat(),
            ),
            "block sizes",
        ),
        (Vec::new(), "closed the connection"),
    ];
    for (sent, expected) in cases {
        let server = Scripted::listen(move |_, mut stream| {
            stream.write_all(&sent)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            // Whatever the client says is taken.
            io::copy(&mut stream, &mut io::sink()).map(drop)
        });
        let error = server.open().unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// Bytes of any kind in place of replies: the read ends, and what it returns was sent.
fn any_bytes_end_in_an_error() {
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(crate::support::rounds(24, 200) as u32));
    let pieces = proptest::collection::vec(
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            (
                any::<u16>(),
                prop_oneof![Just(0_u16), Just(1), Just(2), Just(5), Just(0x8001), any::<u16>()],
                0_u64..4,
                proptest::collection::vec(any::<u8>(), 0..60)
            )
                .prop_map(|(flags, kind, cookie, payload)| chunk(flags, kind, cookie, &payload)),
            (0_u64..70_000, 1_usize..2000).prop_map(|(at, length)| data(0, 1, at, &content(at, length as u32))),
        ],
        0..12,
    );
    runner
        .run(&pieces, |pieces| {
            let bytes = pieces.concat();
            let server = Scripted::listen(move |_, mut stream| {
                handshake(&mut stream, SIZE)?;
                next(&mut stream)?;
                stream.write_all(&bytes)?;
                stream.shutdown(std::net::Shutdown::Both)
            });
            let mut buf = vec![0; 1000];
            let read = server.open().unwrap().read_exact_at(0, &mut buf);
            prop_assert!(read.is_err() || buf == content(0, 1000));
            Ok(())
        })
        .unwrap();
}

tests![
    good_answers_are_read,
    lies_are_errors,
    wrong_extents_are_errors_and_end,
    a_stalled_server_is_given_up,
    a_dropped_connection_is_made_again_for_reading,
    handshakes_that_make_no_sense_are_errors,
    any_bytes_end_in_an_error,
];
