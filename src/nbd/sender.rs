//! Blocks on their way to an export, several requests in flight.

use std::collections::VecDeque;

use super::connection::Connection;
use super::failure::Failure;
use super::sequence::BlockSink;
use super::ticket::Ticket;
use super::writer::{ExportWriter, done};
use crate::host::Storage;

/// Requests that are in flight at once.
pub(super) const IN_FLIGHT: usize = 8;

/// What is written next, and what was not answered.
#[derive(Default)]
pub(super) struct Pending {
    /// Data: offset and bytes.
    data: (u64, Vec<u8>),
    /// Zeros: start and end.
    zeros: (u64, u64),
    in_flight: VecDeque<Ticket>,
}

/// Sends blocks, joined to long requests.
pub(super) struct Sender<'a> {
    pub(super) writer: &'a ExportWriter,
    pub(super) connection: &'a Connection,
    pub(super) pending: &'a mut Pending,
}

impl Sender<'_> {
    /// Sends what was joined so far.
    pub(super) fn send_pending(&mut self) -> std::result::Result<(), Failure> {
        let (start, end) = std::mem::take(&mut self.pending.zeros);
        self.send_zeros(start, end)?;
        let (offset, mut data) = std::mem::take(&mut self.pending.data);
        self.send_data(offset, &data)?;
        data.clear();
        self.pending.data.1 = data;
        Ok(())
    }

    /// Sends data in pieces of whole units; of a unit that the disk ends in, the rest stays as it is.
    fn send_data(&mut self, offset: u64, data: &[u8]) -> std::result::Result<(), Failure> {
        let mut at = offset;
        let unit = u64::from(self.connection.export.minimum);
        let whole = data.len() as u64 / unit * unit;
        let (whole, rest) = data.split_at(usize::try_from(whole).unwrap_or(data.len()).min(data.len()));
        for piece in whole.chunks(self.writer.piece() as usize) {
            self.wait_until(IN_FLIGHT - 1)?;
            self.pending.in_flight.push_back(self.connection.write(at, piece)?);
            at += piece.len() as u64;
        }
        self.send_rest(at, rest)
    }

    fn send_zeros(&mut self, start: u64, end: u64) -> std::result::Result<(), Failure> {
        let export = self.connection.export;
        let unit = u64::from(export.minimum);
        let whole_end = end / unit * unit;
        let limit = if export.can_write_zeroes() { u64::from(export.maximum) } else { self.writer.piece() };
        let zeros = vec![0; if export.can_write_zeroes() { 0 } else { limit.min(end - start) as usize }];
        let mut at = start;
        while at < whole_end {
            let length = limit.min(whole_end - at);
            self.wait_until(IN_FLIGHT - 1)?;
            let ticket = match zeros.get(..length as usize) {
                Some(zeros) => self.connection.write(at, zeros)?,
                None => self.connection.write_zeroes(at, length as u32)?,
            };
            self.pending.in_flight.push_back(ticket);
            at += length;
        }
        let rest = vec![0; (end - at) as usize];
        self.send_rest(at, &rest)
    }

    fn send_rest(&mut self, at: u64, rest: &[u8]) -> std::result::Result<(), Failure> {
        if rest.is_empty() { Ok(()) } else { self.writer.write_at(at, rest).map_err(|e| Failure::lost(&e)) }
    }

    /// Waits for the oldest requests, until so many are in flight.
    pub(super) fn wait_until(&mut self, in_flight: usize) -> std::result::Result<(), Failure> {
        while self.pending.in_flight.len() > in_flight {
            let Some(ticket) = self.pending.in_flight.pop_front() else { break };
            done(ticket)?;
        }
        Ok(())
    }
}

impl BlockSink for Sender<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> std::result::Result<(), Failure> {
        let (start, data) = &self.pending.data;
        if data.is_empty() || start + data.len() as u64 != offset {
            self.send_pending()?;
            self.pending.data.0 = offset;
        }
        self.pending.data.1.extend_from_slice(bytes);
        if self.pending.data.1.len() as u64 >= self.writer.piece() { self.send_pending() } else { Ok(()) }
    }

    fn zeros(&mut self, offset: u64, length: u64) -> std::result::Result<(), Failure> {
        if self.pending.zeros.1 != offset || self.pending.zeros.0 == self.pending.zeros.1 {
            self.send_pending()?;
            self.pending.zeros = (offset, offset);
        }
        self.pending.zeros.1 += length;
        Ok(())
    }
}
