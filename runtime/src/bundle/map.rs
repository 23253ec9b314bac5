//! The bytes of a bundle at the start of a page: mapped from a file, or copied into anonymous memory.

use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

use crate::error::{Error, Result};

/// Read-only bytes whose first lies at the start of a page.
#[derive(Debug)]
pub(super) struct Bytes(Mmap);

impl Bytes {
    pub(super) fn map(path: &Path) -> Result<Bytes> {
        let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        // SAFETY: the map is private and read-only. Bundles are replaced by rename, never written in
        // place; whoever overwrites the file of a running session breaks that agreement, and what
        // is read then is other numbers, not other types: every view is of plain integers and floats.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) };
        map.map(Bytes).map_err(Error::io("map", path))
    }

    pub(super) fn copy(bytes: &[u8]) -> Result<Bytes> {
        let copied = MmapMut::map_anon(bytes.len().max(1)).and_then(|mut map| {
            map[..bytes.len()].copy_from_slice(bytes);
            map.make_read_only()
        });
        copied.map(Bytes).map_err(Error::io("map", Path::new("memory")))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A part of a map, which it keeps alive.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    map: Arc<Bytes>,
    range: Range<usize>,
}

impl Section {
    /// The bytes of `map` in `range`, which lies within it.
    pub(super) fn new(map: &Arc<Bytes>, range: Range<usize>) -> Section {
        Section { map: Arc::clone(map), range }
    }

    /// A section that is all of a map of its own.
    pub(crate) fn copy(bytes: &[u8]) -> Result<Section> {
        let map = Bytes::copy(bytes)?;
        Ok(Section { map: Arc::new(map), range: 0..bytes.len() })
    }
}

impl Deref for Section {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}
