//! Connections to a server, with limits of time.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::handshake::Denied;
use super::uri::Address;
use crate::cancel::Cancel;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;
/// How long a server may take to take bytes: one that writes to a busy disk takes its time.
const SEND: Duration = Duration::from_secs(60);
/// How often a wait looks at the clock and at the cancellation of the job.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// A connected socket. Its reads and writes fail when the job is asked to stop.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    cancel: Cancel,
    /// Set when what was begun has to be finished or taken back: the cancellation is not obeyed then.
    is_held: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The addresses of hosts and ports.
type Resolved = Mutex<HashMap<(String, u16), Vec<SocketAddr>>>;

/// The addresses of host names that were looked up. A process that gives up its rights looks them up before.
fn resolved() -> &'static Resolved {
    static RESOLVED: OnceLock<Resolved> = OnceLock::new();
    RESOLVED.get_or_init(Mutex::default)
}

/// Looks the host of an address up and remembers the answer for the connections that follow. An error is reported by them.
pub(crate) fn resolve_now(address: &Address) {
    if let Address::Tcp(host, port) = address {
        drop(addresses_of(host, *port));
    }
}

fn addresses_of(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let key = (host.to_owned(), port);
    if let Some(known) = resolved().lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(known.clone());
    }
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.take(ADDRESSES_MAX).collect();
    resolved().lock().unwrap_or_else(PoisonError::into_inner).insert(key, found.clone());
    Ok(found)
}

impl Stream {
    /// Connects; waits no longer than [`CONNECT`], and no longer than the job is wanted.
    pub(super) fn connect(address: &Address, cancel: &Cancel) -> Result<Self, Denied> {
        let (sender, receiver) = mpsc::channel();
        let of_thread = address.clone();
        // Neither the look-up of a host nor a Unix socket with a full backlog has a time limit: the thread is left to itself then.
        let connect = move || drop(sender.send(Socket::connect(&of_thread)));
        std::thread::Builder::new().name("nbd-connect".into()).spawn(connect)?;
        let deadline = Instant::now() + CONNECT;
        let socket = loop {
            if cancel.is_requested() {
                return Err(Failure::Cancelled.into());
            }
            match receiver.recv_timeout(TICK) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Denied::Refused("permission denied".to_owned()));
                }
                Ok(connected) => break connected?,
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => {
                    let text = format!("the server did not accept the connection in {} s", CONNECT.as_secs());
                    return Err(Failure::Lost(text).into());
                }
            }
        };
        socket.set_timeouts()?;
        Ok(Self { socket, cancel: cancel.clone(), is_held: Arc::default() })
    }

    /// From now on this stream, and its clones, do not obey the cancellation.
    pub(super) fn hold(&self) {
        self.is_held.store(true, Ordering::SeqCst);
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let socket = match &self.socket {
            Socket::Tcp(stream) => Socket::Tcp(stream.try_clone()?),
            Socket::Unix(stream) => Socket::Unix(stream.try_clone()?),
        };
        Ok(Self { socket, cancel: self.cancel.clone(), is_held: Arc::clone(&self.is_held) })
    }

    /// Ends the connection in both directions; a reader of it wakes up.
    pub(super) fn shut_down(&self) {
        // An end that is shut down already is what is wanted.
        let _ = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn check_cancel(&self) -> io::Result<()> {
        let is_held = self.is_held.load(Ordering::SeqCst);
        if self.cancel.is_requested() && !is_held { Err(Failure::Cancelled.into()) } else { Ok(()) }
    }
}

impl Socket {
    fn connect(address: &Address) -> io::Result<Self> {
        let (host, port) = match address {
            Address::Unix(path) => return Ok(Self::Unix(UnixStream::connect(path)?)),
            Address::Tcp(host, port) => (host, *port),
        };
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        let addresses = addresses_of(host, port)?;
        // One that does not answer leaves time for the others.
        let share = CONNECT / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        for address in addresses {
            match TcpStream::connect_timeout(&address, share) {
                Ok(stream) => {
                    // Requests are small, and each is waited for.
                    stream.set_nodelay(true)?;
                    return Ok(Self::Tcp(stream));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn set_timeouts(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(TICK))?;
                stream.set_write_timeout(Some(TICK))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(TICK))?;
                stream.set_write_timeout(Some(TICK))
            }
        }
    }

    fn write_once(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write(buf),
            Self::Unix(stream) => (&*stream).write(buf),
        }
    }
}

/// A read ends after [`TICK`] without a byte, too, see [`is_tick`].
impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.check_cancel()?;
        match &self.socket {
            Socket::Tcp(stream) => (&*stream).read(buf),
            Socket::Unix(stream) => (&*stream).read(buf),
        }
    }
}

/// A write waits for [`SEND`] at most until the server takes a byte.
impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let deadline = Instant::now() + SEND;
        loop {
            self.check_cancel()?;
            match self.socket.write_once(buf) {
                Err(error) if is_tick(&error) && Instant::now() < deadline => {}
                Err(error) if is_tick(&error) => {
                    let text = format!("the server took no bytes for {} s", SEND.as_secs());
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text));
                }
                result => return result,
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a read ended because [`TICK`] passed.
pub(super) fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// A stream that has to be done with at some time, however slowly the server sends.
pub(super) struct UntilDeadline<'a> {
    pub stream: &'a Stream,
    pub deadline: Instant,
}

impl Read for UntilDeadline<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let is_late = Instant::now() >= self.deadline;
            match self.stream.read(buf) {
                Err(error) if is_tick(&error) && !is_late => {}
                Ok(1..) if is_late => return Err(late()),
                Err(error) if is_tick(&error) => return Err(late()),
                result => return result,
            }
        }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server did not finish the handshake in time")
}

impl Write for UntilDeadline<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
