//! Connections to a server, with limits of time.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::uri::Address;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;
/// How often a reader that waits looks at the clock.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// A connected socket.
#[derive(Debug)]
pub(super) enum Stream {
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
    pub(super) fn connect(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Unix(path) => Self::Unix(UnixStream::connect(path)?),
            Address::Tcp(host, port) => {
                let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                let mut connected = None;
                for address in addresses_of(host, *port)? {
                    match TcpStream::connect_timeout(&address, CONNECT) {
                        Ok(stream) => {
                            connected = Some(stream);
                            break;
                        }
                        Err(error) => failed = error,
                    }
                }
                let stream = connected.ok_or(failed)?;
                // Requests are small, and each is waited for.
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
        };
        stream.set_timeouts()?;
        Ok(stream)
    }

    fn set_timeouts(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(TICK))?;
                stream.set_write_timeout(Some(CONNECT))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(TICK))?;
                stream.set_write_timeout(Some(CONNECT))
            }
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }

    /// Ends the connection in both directions; a reader of it wakes up.
    pub(super) fn shut_down(&self) {
        // An end that is shut down already is what is wanted.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).read(buf),
            Stream::Unix(stream) => (&*stream).read(buf),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).write(buf),
            Stream::Unix(stream) => (&*stream).write(buf),
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
            match self.stream.read(buf) {
                Err(error) if is_tick(&error) && Instant::now() < self.deadline => {}
                Err(error) if is_tick(&error) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the server did not finish the handshake in time",
                    ));
                }
                Ok(_) if Instant::now() >= self.deadline => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the server did not finish the handshake in time",
                    ));
                }
                result => return result,
            }
        }
    }
}

impl Write for UntilDeadline<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
