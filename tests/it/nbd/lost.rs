//! Connections that stall, end and are made again: to the same disk only, and not for ever.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use winject::internals::block::{Storage, StorageExt};
use winject::internals::error::{Error, ErrorCode, Kind, Layer};
use winject::internals::nbd::{NbdOptions, NbdStorage, StatusHook};

use super::liar::{Offer, Request, SIZE, Scripted, content, data, extents_in, good, handshake, next, status};

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
}

/// Bytes that come one by one are not progress.
fn a_server_that_drips_is_given_up() {
    let server = Scripted::listen(|_, mut stream| {
        handshake(&mut stream, &Offer::default())?;
        while let Some(request) = next(&mut stream)? {
            for byte in good(request) {
                stream.write_all(&[byte])?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    });
    let begun = Instant::now();
    let error = server.read_error();
    assert!(error.contains("no answer for") && error.contains("bytes of one"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(server.connections.load(Ordering::Relaxed), 1 + 3);
}

/// Slow is not stalled: the answers come one after the other, each within the limit, all together beyond it.
fn a_slow_server_is_waited_for() {
    let offer = Offer { block_size: Some((1, 128 << 10)), ..Offer::default() };
    let server = Scripted::offering(
        move |_| offer,
        |_, request| {
            std::thread::sleep(Duration::from_millis(200));
            Some(good(request))
        },
    );
    let mut buf = vec![0; SIZE as usize];
    server.open().unwrap().read_exact_at(0, &mut buf).unwrap();
    assert!(buf == content(0, SIZE as u32));
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

/// A server that accepts and drops is given up after the attempts in the list, with their waits; each is told.
fn attempts_without_an_answer_are_bounded() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let texts = Arc::clone(&told);
    let status = StatusHook::new(move |text| texts.lock().unwrap().push(text.map(str::to_owned)));
    let server = Scripted::new(|_, _| None);
    let retries = [0, 100, 200].map(Duration::from_millis).to_vec();
    let storage = server.open_with(NbdOptions { retries, status, ..Scripted::options() }).unwrap();
    let begun = Instant::now();
    let read = || storage.read_exact_at(0, &mut [0; 100]).unwrap_err();
    let error = read().to_string();
    assert!(error.contains("connection to the NBD server lost"), "{error}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(server.connections.load(Ordering::Relaxed), 1 + 3);
    // What was given up stays given up.
    read();
    assert_eq!(server.connections.load(Ordering::Relaxed), 1 + 3);
    let told = told.lock().unwrap();
    let attempts = |text: &str| told.iter().flatten().filter(|told| told.contains(text)).count();
    assert_eq!([1, 2, 3].map(|n| attempts(&format!("attempt {n} of 3"))), [1; 3], "{told:?}");
    assert_eq!(told.last(), Some(&None));
}

/// Losses with answers between them are not counted together.
fn an_answer_begins_the_attempts_anew() {
    // Each connection answers one read, apart from that of the beginning by which the disk is recognised.
    let server = Scripted::listen(|_, mut stream| {
        handshake(&mut stream, &Offer::default())?;
        let mut has_answered = false;
        while let Some(request) = next(&mut stream)? {
            if request.offset > 0 && std::mem::replace(&mut has_answered, true) {
                return Ok(());
            }
            stream.write_all(&good(request))?;
        }
        Ok(())
    });
    let storage = server.open().unwrap();
    let mut buf = vec![0; 100];
    storage.read_exact_at(0, &mut buf).unwrap();
    for block in (1..16).rev() {
        storage.read_exact_at(block * 65536, &mut buf).unwrap();
        assert!(buf == content(block * 65536, 100), "{block}");
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 15);
}

/// Another disk under the same name is not read on, whatever gives it away.
fn another_disk_is_noticed() {
    let sizes = Some((512, 1 << 20));
    let offers: [fn(usize) -> Offer; 3] = [
        |number| Offer { size: SIZE + number as u64 * 512, ..Offer::default() },
        |number| Offer { block_size: Some((512 << number, 1 << 20)), ..Offer::default() },
        |number| Offer { block_size: Some((512, 1 << (20 + number))), ..Offer::default() },
    ];
    for offer in offers {
        let error = Scripted::offering(offer, |_, _| None).read_error();
        assert!(error.contains("another disk under this name (its"), "{error}");
    }
    // The same in all that the handshake says.
    let other = |number: usize, request: Request| {
        let mut bytes = content(request.offset, request.length);
        if number > 0 && request.offset == 0 {
            bytes[440] ^= 1;
        }
        (number > 0 || request.offset == 0).then(|| data(1, request.cookie, request.offset, &bytes))
    };
    let server = Scripted::offering(move |_| Offer { block_size: sizes, ..Offer::default() }, other);
    let storage = server.open().unwrap();
    storage.read_exact_at(0, &mut [0; 512]).unwrap();
    for _ in 0..2 {
        let error = storage.read_exact_at(SIZE / 2, &mut [0; 512]).unwrap_err().to_string();
        assert!(error.contains("another disk under this name (its first 64 KiB"), "{error}");
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 2);
}

/// Before the holes of a disk are asked for, it is known by its beginning.
fn holes_of_one_disk_are_not_used_for_another() {
    let server = Scripted::new(|number, request| match (request.kind, number) {
        (7, 0) => None,
        (7, _) => Some(extents_in(7, request, &[(1 << 20, 3)])),
        (_, 0) => Some(good(request)),
        _ => Some(data(1, request.cookie, request.offset, &vec![0; request.length as usize])),
    });
    let error = server.open().unwrap().run_at(SIZE / 2).unwrap_err().to_string();
    assert!(error.contains("another disk under this name (its first 64 KiB"), "{error}");
}

/// The numbers that a connection agrees on are its own.
fn the_context_of_the_new_connection_is_used() {
    let offer = |number| Offer { context: 7 + number as u32, ..Offer::default() };
    let server = Scripted::offering(offer, |number, request| {
        let context = 7 + number as u32;
        (number > 0)
            .then(|| if request.kind == 7 { extents_in(context, request, &[(1 << 20, 3)]) } else { good(request) })
    });
    assert!(!server.open().unwrap().run_at(0).unwrap().is_data);
}

/// Where holes are told in small pieces, nothing more is asked, and all is read.
fn small_extents_are_not_asked_for_to_the_end() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let size = 1 << 40;
    let server = Scripted::offering(
        move |_| Offer { size, ..Offer::default() },
        move |_, request| {
            count.fetch_add(1, Ordering::Relaxed);
            Some(status(request, &[(512, 0), (512, 3)].repeat(1000)))
        },
    );
    let storage = server.open().unwrap();
    let mut at = 0;
    let mut runs = 0;
    while at < size {
        let run = storage.run_at(at).unwrap();
        assert!(run.length > 0 && run.is_data == (at % 1024 == 0));
        at += run.length;
        runs += 1;
    }
    assert!(runs < 3000 && asked.load(Ordering::Relaxed) < 4, "{runs} runs");
}

/// Wherever the server stalls, the read ends soon after the job is cancelled.
fn a_cancelled_read_ends_at_once() {
    type Ask = fn(&dyn Storage) -> io::Result<()>;
    let asks: [Ask; 2] = [|storage| storage.read_exact_at(0, &mut [0; 100]), |storage| storage.run_at(0).map(drop)];
    let drop_first = |stream: &mut UnixStream| {
        handshake(stream, &Offer::default())?;
        next(stream).map(drop)
    };
    let never = Duration::from_secs(3600);
    for ask in asks {
        let stalls = [
            ("without an answer", Scripted::new(|_, _| Some(Vec::new()))),
            ("in the head of an answer", Scripted::new(|_, request| Some(good(request)[..10].to_vec()))),
            (
                "in the handshake of the second connection",
                Scripted::listen(move |number, mut stream| match number {
                    0 => drop_first(&mut stream),
                    _ => next(&mut stream).map(drop),
                }),
            ),
            (
                "between two attempts",
                Scripted::listen(move |number, mut stream| match number {
                    0 => drop_first(&mut stream),
                    _ => Ok(()),
                }),
            ),
        ];
        for (stall, server) in stalls {
            let options = NbdOptions { patience: never, retries: vec![Duration::ZERO, never], ..NbdOptions::default() };
            let cancel = options.cancel.clone();
            let storage = server.open_with(options).unwrap();
            let (error, time) = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| ask(&storage).unwrap_err());
                std::thread::sleep(Duration::from_millis(400));
                assert!(!waiting.is_finished(), "{stall}: it waits");
                let begun = Instant::now();
                let _ = cancel.request();
                (waiting.join().unwrap(), begun.elapsed())
            });
            assert!(time < Duration::from_secs(1), "{stall}: {time:?}");
            let error = Error::io(Layer::Block, "cannot read the file", error);
            assert_eq!(error.kind(), Kind::Cancelled, "{stall}: {error}");
        }
    }
}

/// A server that does not answer can be tried again; one that answers with nonsense cannot.
fn errors_tell_whether_another_attempt_helps() {
    let code = |server: &Scripted| server.open().unwrap_err().code();
    let closed = Scripted::listen(|_, _| Ok(()));
    assert_eq!(code(&closed), ErrorCode::NbdUnreachable);
    let nonsense = Scripted::listen(|_, mut stream| stream.write_all(&[b'x'; 100]));
    assert_eq!(code(&nonsense), ErrorCode::NbdServer);
    let gone = NbdOptions::default();
    let error = NbdStorage::open("nbd+unix:///?socket=/not/there".as_ref(), gone).unwrap_err();
    assert_eq!(error.code(), ErrorCode::NbdUnreachable);
}

tests![
    a_stalled_server_is_given_up,
    a_dropped_connection_is_made_again_for_reading,
    a_server_that_drips_is_given_up,
    a_slow_server_is_waited_for,
    attempts_without_an_answer_are_bounded,
    an_answer_begins_the_attempts_anew,
    another_disk_is_noticed,
    holes_of_one_disk_are_not_used_for_another,
    the_context_of_the_new_connection_is_used,
    small_extents_are_not_asked_for_to_the_end,
    a_cancelled_read_ends_at_once,
    errors_tell_whether_another_attempt_helps,
];
