//! Bytes that stay where they are while something reads them: a mapped file, or memory of its own.

use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

use crate::error::{Error, Result};

/// The first byte lies at a multiple of this, a cache line and the widest vector register.
const ALIGNMENT: usize = 64;

/// Read-only bytes, the first of them aligned.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// Pages of a file, shared with every process that maps it.
    File(Mmap),
    /// Memory of the heap, so that whoever counts the heap counts it.
    Memory {
        /// The bytes, and fewer than [`ALIGNMENT`] before them.
        bytes: Vec<u8>,
        /// Where they begin.
        start: usize,
    },
}

impl Bytes {
    /// The bytes of the file at `path`, which are read when they are looked at.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn map(path: &Path) -> Result<Bytes> {
        let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        // SAFETY: the map is private and read-only. Bundles are replaced by rename, never written in
        // place; whoever overwrites the file of a running session breaks that agreement, and what
        // is read then is other numbers, not other types: every view is of plain integers and floats.
        #[allow(unsafe_code)]
        let map = unsafe { MmapOptions::new().map(&file) };
        map.map(Bytes::File).map_err(Error::io("map", path))
    }

    /// `bytes`, moved within their own allocation to where they are aligned.
    pub(crate) fn of(mut bytes: Vec<u8>) -> Bytes {
        let length = bytes.len();
        bytes.reserve_exact(ALIGNMENT);
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        bytes.resize(length + start, 0);
        bytes.copy_within(..length, start);
        Bytes::Memory { bytes, start }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::File(map) => map,
            Bytes::Memory { bytes, start } => &bytes[*start..],
        }
    }
}

/// A part of some [`Bytes`], which it keeps alive; copying one copies no bytes.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    map: Arc<Bytes>,
    range: Range<usize>,
}

impl Section {
    /// The bytes of `map` in `range`, which lies within it.
    pub(crate) fn new(map: &Arc<Bytes>, range: Range<usize>) -> Section {
        Section { map: Arc::clone(map), range }
    }

    /// A section that is all of `bytes`.
    pub(crate) fn of(bytes: Vec<u8>) -> Section {
        let range = 0..bytes.len();
        Section { map: Arc::new(Bytes::of(bytes)), range }
    }

    /// Gives the pages back that this process holds of a mapped file; whoever looks at them again reads them again.
    /// Memory of its own stays.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        if let Bytes::File(map) = &*self.map {
            let Range { start, end } = self.range;
            // SAFETY: the map is private and read-only, so what comes back from the file is what was there.
            #[allow(unsafe_code)]
            // Pages that stay are no harm.
            let _ = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
            };
        }
    }
}

impl Deref for Section {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..100_000).map(|index| (index % 251) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let map = Arc::new(Bytes::map(file.path()).unwrap());
        let section = Section::new(&map, 5000..90_000);
        assert_eq!(*section, bytes[5000..90_000]);
        section.release();
        assert_eq!(*section, bytes[5000..90_000]);
        assert_eq!(**map, bytes);
    }

    #[test]
    fn bytes_in_memory_are_aligned_and_the_same() {
        for length in [0, 1, 63, 64, 65, 4097] {
            let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let section = Section::of(bytes.clone());
            assert_eq!(*section, bytes[..]);
            assert_eq!(section.as_ptr().align_offset(ALIGNMENT), 0, "{length} bytes");
        }
    }
}
