//! The one file that a device needs: manifest, graph, weights, tokenizer, digest.
//!
//! `bundle.md` at the top of the repository specifies it rule by rule. [`write()`] makes one whole or
//! not at all; [`Bundle::open`] checks every rule before anything is used, and then hands out views
//! of the mapped file: weights are never copied.

mod map;
mod read;
mod write;

use std::path::Path;

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::manifest::{Extent, Manifest};
use crate::tensor::DType;

pub use write::{Parts, image, write};

/// First bytes of every bundle.
pub(crate) const MAGIC: [u8; 4] = *b"dram";
/// Version of the format; another one is refused.
pub(crate) const VERSION: u32 = 1;
/// Bytes before the manifest.
pub(crate) const HEADER_BYTES: usize = 64;
/// Sections begin at multiples of this, a cache line and the widest vector register.
pub(crate) const ALIGNMENT: usize = 64;
/// The digest's place in the header.
pub(crate) const DIGEST: std::ops::Range<usize> = 24..56;

/// An opened, wholly checked bundle.
#[derive(Debug)]
pub struct Bundle {
    bytes: map::Bytes,
    manifest: Manifest,
}

impl Bundle {
    /// Maps the file at `path` and checks all of it.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Bundle`] with the first rule that it breaks.
    pub fn open(path: &Path) -> Result<Bundle> {
        let bytes = map::Bytes::map(path)?;
        let manifest = read::manifest(&bytes, path)?;
        Ok(Bundle { bytes, manifest })
    }

    /// Opens a bundle that lies in memory, as [`image`] makes it.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn from_image(image: &[u8]) -> Result<Bundle> {
        let bytes = map::Bytes::copy(image)?;
        let manifest = read::manifest(&bytes, Path::new("memory"))?;
        Ok(Bundle { bytes, manifest })
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Length of the whole file in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never true: a bundle has a header at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The graph, without its constants.
    ///
    /// # Errors
    /// [`Error::NotOnnx`] or [`Error::Graph`] where the section does not hold one.
    pub fn graph(&self) -> Result<Graph> {
        Graph::from_onnx_without_constants(
            self.section(self.manifest.graph),
            self.manifest.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
        )
    }

    /// The text of `tokenizer.json`.
    pub fn tokenizer(&self) -> Option<&[u8]> {
        self.manifest.tokenizer.map(|extent| self.section(extent))
    }

    /// The bytes of a section; its extent was checked when the bundle was opened.
    pub(crate) fn section(&self, extent: Extent) -> &[u8] {
        &self.bytes[extent.offset as usize..][..extent.bytes as usize]
    }

    /// Where the values of the constant `name` lie, and its shape.
    ///
    /// # Errors
    /// [`Error::Graph`] where there is no such constant or it is of another type.
    pub(crate) fn constant(&self, name: &str, dtype: DType) -> Result<(Extent, &[usize])> {
        let place = || format!("constant `{name}`");
        let entry = self.manifest.tensors.iter().find(|tensor| tensor.name == name);
        let entry = entry.ok_or_else(|| Error::graph(place(), "a section of that name", "none"))?;
        if entry.dtype != dtype {
            return Err(Error::graph(place(), dtype.name(), entry.dtype.name()));
        }
        Ok((entry.extent(), &entry.shape))
    }

    /// Whether the file begins as a bundle does.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read.
    pub fn is_bundle(path: &Path) -> Result<bool> {
        use std::io::Read;
        let mut start = Vec::new();
        let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        file.take(4).read_to_end(&mut start).map_err(Error::io("read", path))?;
        Ok(start == MAGIC)
    }
}
