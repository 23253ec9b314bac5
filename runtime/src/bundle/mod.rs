//! The one file that a device needs: manifest, graph, tokenizer, weights, golden examples, digest,
//! signature.
//!
//! `bundle.md` at the top of the repository specifies it rule by rule. [`write()`] makes one whole or
//! not at all; [`Bundle::open`] checks every rule before anything is used, and then hands out views
//! of the mapped file: weights are never copied.

mod digest;
mod read;
#[cfg(test)]
pub(crate) mod tests;
mod write;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::golden::Example;
use crate::graph::Graph;
use crate::manifest::{Extent, GoldenEntry, Manifest, TensorEntry};
use crate::map::{Bytes, Section};
use crate::tensor::{DType, Tensor};
use crate::trust::{Digest, PublicKey, TrustPolicy};

pub(crate) use write::sign;
pub use write::{Parts, image, write};

/// First bytes of every bundle.
pub(crate) const MAGIC: [u8; 4] = *b"dram";
/// Version of the format; another one is refused.
pub(crate) const VERSION: u32 = 1;
/// Bytes before the manifest.
pub(crate) const HEADER_BYTES: usize = 192;
/// Sections begin at multiples of this, a cache line and the widest vector register.
pub(crate) const ALIGNMENT: usize = 64;
/// The digest's place in the header.
pub(crate) const DIGEST: Range<usize> = 24..56;
/// The signer's public key; zeros where nobody signed.
pub(crate) const KEY: Range<usize> = 64..96;
/// The signature of the digest; zeros where nobody signed.
pub(crate) const SIGNATURE: Range<usize> = 96..160;
/// What later versions may use; zeros until then.
pub(crate) const RESERVED: [Range<usize>; 2] = [56..64, 160..192];

/// An opened, wholly checked bundle.
#[derive(Debug)]
pub struct Bundle {
    bytes: Arc<Bytes>,
    manifest: Manifest,
    digest: Digest,
    signed_by: Option<PublicKey>,
    making_bytes: u64,
}

impl Bundle {
    /// Maps the file at `path` and checks all of it, whoever signed it or not.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Bundle`] with the first rule that it breaks.
    pub fn open(path: &Path) -> Result<Bundle> {
        Bundle::open_trusted(path, &TrustPolicy::AnyBundle)
    }

    /// As [`Bundle::open`], where `trust` has a say: it is asked before the manifest is read.
    ///
    /// # Errors
    /// As [`Bundle::open`]; [`Error::Untrusted`].
    pub fn open_trusted(path: &Path, trust: &TrustPolicy) -> Result<Bundle> {
        Bundle::checked(Bytes::map(path)?, path, trust)
    }

    /// Opens a bundle that lies in memory, as [`image`] makes it.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn from_image(image: &[u8]) -> Result<Bundle> {
        Bundle::in_memory(image.to_vec())
    }

    /// The bundle of `parts`, in memory.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub(crate) fn from_parts(parts: &Parts) -> Result<Bundle> {
        Bundle::in_memory(image(parts))
    }

    fn in_memory(image: Vec<u8>) -> Result<Bundle> {
        Bundle::checked(Bytes::of(image), Path::new("memory"), &TrustPolicy::AnyBundle)
    }

    fn checked(bytes: Bytes, path: &Path, trust: &TrustPolicy) -> Result<Bundle> {
        let bytes = Arc::new(bytes);
        let manifest_bytes = read::header(&bytes, path)?;
        let digest = digest::digest_of_shared(&bytes);
        let signed_by = read::signer(&bytes, &digest, path)?;
        trust.admit(signed_by.as_ref(), path)?;
        let manifest = read::manifest(&bytes, manifest_bytes, path)?;
        Ok(Bundle { bytes, manifest, digest, signed_by, making_bytes: 0 })
    }

    /// The same, which it took so many bytes to make in this process.
    pub(crate) fn made_of(self, making_bytes: u64) -> Bundle {
        Bundle { making_bytes, ..self }
    }

    /// What it took at most to make it in this process; 0 where it was packed before.
    pub(crate) fn making_bytes(&self) -> u64 {
        self.making_bytes
    }

    /// All bytes of the file.
    pub fn image(&self) -> &[u8] {
        &self.bytes
    }

    /// BLAKE3 of all that it says: two bundles with the same digest differ in their signature at most.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whose signature it carries; the signature was checked when it was opened.
    pub fn signed_by(&self) -> Option<&PublicKey> {
        self.signed_by.as_ref()
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
    /// [`Error::NotOnnx`] or [`Error::Graph`] where the section does not hold one, or holds constants.
    pub fn graph(&self) -> Result<Graph> {
        let names = self.manifest.tensors.iter().map(|tensor| tensor.name.clone()).collect();
        let graph = Graph::from_onnx_without_constants(self.section(self.manifest.graph), names)?;
        match graph.initializers.keys().next() {
            None => Ok(graph),
            Some(name) => {
                let place = format!("constant `{name}`");
                Err(Error::graph(place, "a section of its own", "one in the graph's section"))
            }
        }
    }

    /// The tokenizer, compiled or as the text of `tokenizer.json`.
    pub(crate) fn tokenizer(&self) -> Option<Section> {
        self.manifest.tokenizer.map(|extent| self.part(extent))
    }

    /// Inputs, and the outputs that the packed model gave for them.
    ///
    /// # Errors
    /// None of a bundle that opened; the tensors are views of it.
    pub fn golden(&self) -> Result<Vec<Example>> {
        let tensor = |entry: &TensorEntry| Ok((entry.name.clone(), self.tensor(entry)?));
        let tensors = |entries: &[TensorEntry]| entries.iter().map(tensor).collect::<Result<_>>();
        let example = |entry: &GoldenEntry| {
            let (inputs, outputs) = (tensors(&entry.inputs)?, tensors(&entry.outputs)?);
            Ok(Example { text: entry.text.clone(), inputs, outputs })
        };
        self.manifest.golden.iter().map(example).collect()
    }

    /// The bytes of a section; its extent was checked when the bundle was opened.
    pub(crate) fn section(&self, extent: Extent) -> &[u8] {
        &self.bytes[extent.offset as usize..][..extent.bytes as usize]
    }

    /// The tensor that `entry` places, as a view.
    pub(crate) fn tensor(&self, entry: &TensorEntry) -> Result<Tensor> {
        Tensor::from_section(entry.dtype, &entry.shape, self.part(entry.extent()))
    }

    /// As [`Bundle::section`], and keeps the bundle's bytes alive.
    fn part(&self, extent: Extent) -> Section {
        let start = extent.offset as usize;
        Section::new(&self.bytes, start..start + extent.bytes as usize)
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
