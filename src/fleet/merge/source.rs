//! The events of a results folder, line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Layer, Result};
use crate::fleet::record::EVENTS_FILE;

/// Longest line that is read, in bytes; a longer one counts as cut off.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Where a line begins, and its text without the line break; `None` for one that is too long, cut off or not UTF-8.
pub(super) type Line = (u64, Option<String>);

/// A results folder.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) folder: PathBuf,
    events: BufReader<File>,
}

impl Source {
    pub(super) fn new(folder: &Path, events: File) -> Self {
        Self { folder: folder.to_owned(), events: BufReader::new(events) }
    }

    /// The line at `offset`, which is moved to the next; `None` at the end.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub(super) fn line(&mut self, offset: &mut u64) -> Result<Option<Line>> {
        self.read_line(offset).map_err(|error| {
            let path = self.folder.join(EVENTS_FILE).display().to_string();
            Error::io(Layer::Host, "cannot read the results", error).path(path)
        })
    }

    fn read_line(&mut self, offset: &mut u64) -> io::Result<Option<Line>> {
        let start = *offset;
        // What is buffered stays when the next line follows.
        if self.events.stream_position()? != start {
            self.events.seek(SeekFrom::Start(start))?;
        }
        let mut line = Vec::new();
        let mut end = start.saturating_add(self.read_to_break(&mut line)?);
        if end == start {
            return Ok(None);
        }
        let is_whole = line.pop_if(|last| *last == b'\n').is_some();
        let mut is_ended = is_whole;
        while !is_ended {
            // The rest of a line that is too long.
            let mut rest = Vec::new();
            let length = self.read_to_break(&mut rest)?;
            end = end.saturating_add(length);
            is_ended = length == 0 || rest.last() == Some(&b'\n');
        }
        *offset = end;
        Ok(Some((start, String::from_utf8(line).ok().filter(|_| is_whole))))
    }

    /// Reads up to the next line break, or as much as a line may have; returns the number of bytes.
    fn read_to_break(&mut self, line: &mut Vec<u8>) -> io::Result<u64> {
        let length = self.events.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)?;
        Ok(length as u64)
    }
}
