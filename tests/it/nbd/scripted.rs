//! A server that lies: errors, never bytes that were not sent, never an endless loop.

use std::io::{self, Write};
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use winject::internals::block::{Storage, StorageExt};

use super::liar::{
    Offer, Request, SIZE, Scripted, chunk, content, data, extents, good, handshake, next, reply, status,
};

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
        let server = Scripted::new(move |_, request| Some(status(request, &list)));
        let error = server.open().unwrap().run_at(0).unwrap_err().to_string();
        assert!(error.contains("breaks the protocol"), "{error}");
    }
    // Longer than what was asked for: cut.
    let server = Scripted::new(|_, request| Some(status(request, &[(u32::MAX, 3)])));
    let run = server.open().unwrap().run_at(0).unwrap();
    assert_eq!((run.length, run.is_data), (SIZE, false));
    // A hole that is not zero is data.
    let server = Scripted::new(|_, request| Some(status(request, &[(512, 1), (u32::MAX, 2)])));
    let storage = server.open().unwrap();
    assert_eq!((storage.run_at(0).unwrap().length, storage.run_at(0).unwrap().is_data), (512, true));
    assert!(!storage.run_at(512).unwrap().is_data);
    // No answer to the question is an answer: all is read.
    let server = Scripted::new(|_, r| {
        Some(if r.kind == 7 { chunk(1, 0x8001, r.cookie, &[0, 0, 0, 95, 0, 0]) } else { good(r) })
    });
    assert!(server.open().unwrap().run_at(0).unwrap().is_data);
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
        (
            after_hello(
                [
                    reply(8, 0x8000_0001, &[]),
                    reply(7, 3, &[0, 0, 0, 0, 0, 0, 0, 0, 0x24, 0, 0, 1]),
                    reply(7, 3, &[0, 3, 0, 0, 0x10, 0, 0, 0, 0x10, 0, 0, 0, 0x10, 0]),
                    reply(7, 1, &[]),
                ]
                .concat(),
            ),
            "its size of 9216 bytes is not a multiple of its block size of 4096 bytes",
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
                handshake(&mut stream, &Offer::default())?;
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
    handshakes_that_make_no_sense_are_errors,
    any_bytes_end_in_an_error,
];
