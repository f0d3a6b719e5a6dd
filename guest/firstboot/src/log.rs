//! The log, for people: UTF-8 with CR LF, a time before each line, what programs printed indented below.

use crate::text::{decimal, join};
use crate::windows::file::{self, File};
use crate::windows::{system, wide};

/// Most bytes of a program's output that are read.
const OUTPUT_MAX: usize = 256 << 10;

/// The open log. Without one the job runs all the same: the result file tells the essentials.
pub struct Log(Option<File>);

impl Log {
    /// Opens the log for appending; `own` is the account that the program runs as.
    pub fn open(path: &str, own: &[u8]) -> Self {
        Self(File::append_trusted(path, own).ok())
    }

    /// Appends a line with the time.
    pub fn line(&self, parts: &[&str]) {
        self.append(&join(&[&system::timestamp(), " ", &join(parts), "\r\n"]));
    }

    /// Appends what a program has written into a file.
    pub fn output(&self, path: &str) {
        let bytes = file::read(path, OUTPUT_MAX).unwrap_or_default();
        // some programs print UTF-16, which looks like text with zeros
        for line in wide::decode_output(&bytes).replace('\0', "").lines().filter(|line| !line.trim().is_empty()) {
            self.append(&join(&["    ", line.trim_end(), "\r\n"]));
        }
        if bytes.len() == OUTPUT_MAX {
            self.append(&join(&["    (only the first ", &decimal(256), " KiB)\r\n"]));
        }
    }

    fn append(&self, text: &str) {
        if let Some(file) = &self.0 {
            let _ = file.write(text.as_bytes());
        }
    }
}
