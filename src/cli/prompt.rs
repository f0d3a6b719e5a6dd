//! A secret that is typed at the terminal, without an echo.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Layer, Result};

/// Longest line that is taken, in bytes.
const LINE_BYTES_MAX: usize = 4096;

/// The terminal, and its settings before the echo was turned off.
static ECHO_OFF: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Asks for a secret at the terminal, whatever standard input is.
///
/// # Errors
/// [`Kind::Usage`] when the process has no terminal, or the line is too long or ends early.
pub(super) fn ask(question: &str) -> Result<Zeroizing<Vec<u8>>> {
    let asked = || -> io::Result<Zeroizing<Vec<u8>>> {
        let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        *ECHO_OFF.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal.try_clone()?, before));
        let line = tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(io::Error::from).and_then(|()| {
            write!(terminal, "{question}: ")?;
            read_line(&mut terminal)
        });
        restore();
        line
    };
    asked().map_err(|error| {
        Error::new(Kind::Usage, Layer::Cli, "cannot ask for the key at the terminal")
            .source_error(error)
            .hint("without a terminal, name a file, env:NAME, or - for standard input in place of ask")
    })
}

/// Turns the echo on again, if it was turned off: also called when a signal ends the process.
pub(super) fn restore() {
    if let Some((terminal, before)) = ECHO_OFF.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Nothing else could be done about it.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}

/// Reads a line without its end. Byte by byte: what follows it is not taken.
pub(super) fn read_line(input: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // It never grows, so that no copy of it is left in memory.
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
    let mut byte = Zeroizing::new([0]);
    loop {
        if input.read(&mut *byte)? == 0 {
            break if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) };
        }
        match byte[0] {
            b'\n' => {
                line.pop_if(|last| *last == b'\r');
                break Ok(line);
            }
            _ if line.len() == LINE_BYTES_MAX => break Err(io::ErrorKind::InvalidData.into()),
            other => line.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_its_end_and_leaves_the_next() {
        let mut input = &b"one\r\ntwo\n\nlast"[..];
        let mut next = || read_line(&mut input).map(|line| line.to_vec());
        assert_eq!(next().unwrap(), b"one");
        assert_eq!(next().unwrap(), b"two");
        assert_eq!(next().unwrap(), b"");
        assert_eq!(next().unwrap(), b"last");
        assert!(next().is_err());
        assert!(read_line(&mut &vec![b'x'; LINE_BYTES_MAX + 1][..]).is_err());
    }
}
