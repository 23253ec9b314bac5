//! The bytes of a connection, as they come, to lines of bounded length.

use std::io;

/// What stood on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Its bytes, without the line feed.
    Whole(Vec<u8>),
    /// More bytes than are allowed; they were not kept.
    TooLong,
}

/// Cuts bytes into lines. Holds at most the longest allowed line and its line feed.
#[derive(Debug)]
pub struct Lines {
    longest: usize,
    buffer: Vec<u8>,
    /// Whether the rest of a line that was too long is still to come.
    skipping: bool,
}

impl Lines {
    /// For lines of up to `longest` bytes.
    pub fn new(longest: usize) -> Lines {
        Lines { longest, buffer: Vec::new(), skipping: false }
    }

    /// Whether bytes can be taken: always, once [`Lines::next`] has given `None`.
    pub fn has_room(&self) -> bool {
        self.buffer.len() <= self.longest
    }

    /// Whether nothing is kept that may become a line.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Lets `read` fill a part of `chunk`, no more than there is room for, and keeps what it read. Gives
    /// the number of bytes, 0 at the end of the connection.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn fill(
        &mut self,
        chunk: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let room = (self.longest + 1 - self.buffer.len().min(self.longest)).min(chunk.len());
        let count = read(&mut chunk[..room])?;
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// The next line that is complete, or certain to be too long; blank lines are passed over.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Line> {
        loop {
            let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') else {
                return self.unfinished();
            };
            let line = self.buffer[..end].to_vec();
            self.buffer.drain(..=end);
            if std::mem::take(&mut self.skipping) || line.trim_ascii().is_empty() {
                continue;
            }
            return Some(Line::Whole(line));
        }
    }

    /// What the connection ended with, where that was no line feed.
    pub fn last(&mut self) -> Option<Line> {
        let line = std::mem::take(&mut self.buffer);
        (!self.skipping && !line.trim_ascii().is_empty()).then_some(Line::Whole(line))
    }

    /// The start of a line that has no end yet: kept while it may become one.
    fn unfinished(&mut self) -> Option<Line> {
        let too_long = self.buffer.len() > self.longest;
        if self.skipping || too_long {
            self.buffer.clear();
        }
        (too_long && !std::mem::replace(&mut self.skipping, true)).then_some(Line::TooLong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of `bytes`, which arrive `step` at a time.
    fn lines(bytes: &[u8], longest: usize, step: usize) -> Vec<Line> {
        let (mut lines, mut found, mut rest) = (Lines::new(longest), Vec::new(), bytes);
        while !rest.is_empty() {
            let mut chunk = vec![0; step];
            let read = |chunk: &mut [u8]| {
                let count = chunk.len().min(rest.len());
                chunk[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                Ok(count)
            };
            lines.fill(&mut chunk, read).unwrap();
            found.extend(std::iter::from_fn(|| lines.next()));
            assert!(lines.buffer.len() <= longest && lines.has_room());
        }
        found.extend(lines.last());
        found
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let whole = |text: &str| Line::Whole(text.into());
        for (bytes, expected) in [
            ("", vec![]),
            ("one\ntwo\n", vec![whole("one"), whole("two")]),
            ("\n \r\none", vec![whole("one")]),
            ("12345\n", vec![whole("12345")]),
            ("123456\nafter\n", vec![Line::TooLong, whole("after")]),
            ("12345678901234567890", vec![Line::TooLong]),
            ("12345678901234567890\n\nafter", vec![Line::TooLong, whole("after")]),
        ] {
            for step in 1..=24 {
                assert_eq!(lines(bytes.as_bytes(), 5, step), expected, "{bytes:?} by {step}");
            }
        }
    }
}
