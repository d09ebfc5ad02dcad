//! An object as something to read, a window at a time.

use std::io::{self, Read, Seek, SeekFrom};

use object_store::ObjectMeta;

use super::connection::Connection;

/// Bytes that are asked for at once, and in memory.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// The same at the beginning of an object, of which often the header alone is read.
const FIRST_WINDOW_BYTES: u64 = 4 * 1024;

/// One object. All that is read of it is of the one that was found, even when another takes its name meanwhile.
#[derive(Debug)]
pub(super) struct Object {
    connection: Connection,
    found: ObjectMeta,
    at: u64,
    window_at: u64,
    window: Vec<u8>,
}

impl Object {
    pub(super) fn new(connection: Connection, found: ObjectMeta) -> Self {
        Self { connection, found, at: 0, window_at: 0, window: Vec::new() }
    }

    /// What is known of it from where the next byte is read.
    fn known(&self) -> Option<&[u8]> {
        let from = usize::try_from(self.at.checked_sub(self.window_at)?).ok()?;
        self.window.get(from..).filter(|known| !known.is_empty())
    }

    fn fetch(&mut self) -> io::Result<()> {
        let length = if self.at == 0 { FIRST_WINDOW_BYTES } else { WINDOW_BYTES };
        let end = self.at.saturating_add(length).min(self.found.size);
        let (key, e_tag) = (self.found.location.clone(), self.found.e_tag.clone());
        self.window = self.connection.wait(self.connection.bytes(key, e_tag, self.at..end))?;
        self.window_at = self.at;
        Ok(())
    }
}

impl Read for Object {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.found.size || buffer.is_empty() {
            return Ok(0);
        }
        if self.known().is_none() {
            self.fetch()?;
        }
        // Nothing, though something was asked for: the object ends before its length.
        let known = self.known().unwrap_or_default();
        let count = known.len().min(buffer.len());
        buffer[..count].copy_from_slice(&known[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Object {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.found.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "before the first byte");
        self.at = target.ok_or_else(before)?;
        Ok(self.at)
    }
}
