//! Every rule of `bundle.md`, checked in the order in which the bytes lie.

use std::collections::BTreeSet;
use std::path::Path;

use super::{ALIGNMENT, DIGEST, HEADER_BYTES, KEY, MAGIC, RESERVED, SIGNATURE, VERSION};
use crate::error::{Error, Result};
use crate::manifest::{Extent, GoldenEntry, Manifest, TensorEntry};
use crate::trust::{Digest, PublicKey};

const AGAIN: &str = "copy it again, or pack it again with `dram pack`";

/// Checks that digest and signature belong to the bytes, whose digest is `digest`: whose signature the header carries; none
/// where key and signature are zeros.
pub(super) fn signer(bytes: &[u8], digest: &Digest, path: &Path) -> Result<Option<PublicKey>> {
    if bytes[DIGEST] != digest.0 {
        let reason = "its digest does not match its contents; it was altered".to_owned();
        return Err(Error::Bundle { path: path.to_owned(), reason, next: AGAIN });
    }
    if bytes[KEY.start..SIGNATURE.end].iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let key = PublicKey(bytes[KEY].try_into().expect("32 bytes"));
    match key.signed(digest, bytes[SIGNATURE].try_into().expect("64 bytes")) {
        true => Ok(Some(key)),
        false => Err(Error::Untrusted {
            path: path.to_owned(),
            reason: format!("its signature is not one of its contents by the key {key}"),
            next: "take it from its author again, or have it signed again with `dram sign`",
        }),
    }
}

/// The manifest of the bundle `bytes`, after everything it leads to has been checked.
pub(super) fn manifest(bytes: &[u8], manifest_bytes: usize, path: &Path) -> Result<Manifest> {
    let refuse = |reason: String| Error::Bundle { path: path.to_owned(), reason, next: AGAIN };
    let text = &bytes[HEADER_BYTES..HEADER_BYTES + manifest_bytes];
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|error| refuse(format!("manifest: {error}")))?;
    sections(&manifest, manifest_bytes, bytes).map_err(refuse)?;
    Ok(manifest)
}

/// Checks the header; gives the length of the manifest.
pub(super) fn header(bytes: &[u8], path: &Path) -> Result<usize> {
    let refuse = |reason: String, next| Error::Bundle { path: path.to_owned(), reason, next };
    if bytes.len() < HEADER_BYTES {
        let reason = format!("it has {} bytes, the header alone has {HEADER_BYTES}", bytes.len());
        return Err(refuse(reason, AGAIN));
    }
    if bytes[0..4] != MAGIC {
        let next = "give a file that `dram pack` wrote";
        return Err(refuse("it does not begin with `dram`".to_owned(), next));
    }
    let version = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
    if version != VERSION {
        let reason = format!("its format is version {version}, this program reads {VERSION}");
        return Err(refuse(reason, "use the program that packed it, or pack it again"));
    }
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (manifest_bytes, file_bytes) = (number(8), number(16));
    if file_bytes != bytes.len() as u64 {
        let reason = format!("it has {} bytes where its header says {file_bytes}", bytes.len());
        return Err(refuse(reason, AGAIN));
    }
    if manifest_bytes > file_bytes - HEADER_BYTES as u64 {
        let reason = format!("its manifest of {manifest_bytes} bytes reaches past its end");
        return Err(refuse(reason, AGAIN));
    }
    if RESERVED.iter().any(|range| bytes[range.clone()].iter().any(|&byte| byte != 0)) {
        return Err(refuse("the reserved bytes of its header are not zero".to_owned(), AGAIN));
    }
    Ok(manifest_bytes as usize)
}

/// Checks that the sequences ascend, that exits are taken at a probability, that the sections follow one another, each at the next aligned
/// offset, to the very end, and that each tensor's bytes are those of its shape.
fn sections(manifest: &Manifest, manifest_bytes: usize, bytes: &[u8]) -> Result<(), String> {
    if !manifest.sequences.is_sorted_by(|a, b| a < b) || manifest.sequences.first() == Some(&0) {
        return Err("its sequence lengths are not ascending from 1".to_owned());
    }
    if let Some(exits) = &manifest.exits
        && !(exits.threshold > 0.0 && exits.threshold <= 1.0)
    {
        return Err(format!("the threshold of its exits, {}, is not in 0..1", exits.threshold));
    }
    let mut end = HEADER_BYTES + manifest_bytes;
    let mut follow = |name: &str, extent: Extent| {
        let start = end.next_multiple_of(ALIGNMENT);
        let reach =
            extent.offset.checked_add(extent.bytes).filter(|&reach| reach <= bytes.len() as u64);
        let (Some(reach), true) = (reach, extent.offset == start as u64) else {
            return Err(format!(
                "section `{name}` is {} bytes at {}, expected at {start} within {}",
                extent.bytes,
                extent.offset,
                bytes.len()
            ));
        };
        if bytes[end..start].iter().any(|&byte| byte != 0) {
            return Err(format!("the padding before section `{name}` is not zero"));
        }
        end = reach as usize;
        Ok(())
    };
    follow("graph", manifest.graph)?;
    if let Some(tokenizer) = manifest.tokenizer {
        follow("tokenizer", tokenizer)?;
    }
    let mut names = BTreeSet::new();
    for tensor in &manifest.tensors {
        follow(&tensor.name, tensor.extent())?;
        holds_its_shape(tensor)?;
        if !names.insert(&tensor.name) {
            return Err(format!("tensor `{}` is there twice", tensor.name));
        }
    }
    for tensor in manifest.golden.iter().flat_map(GoldenEntry::tensors) {
        follow(&tensor.name, tensor.extent())?;
        holds_its_shape(tensor)?;
    }
    if end != bytes.len() {
        return Err(format!("{} bytes follow its last section", bytes.len() - end));
    }
    Ok(())
}

fn holds_its_shape(tensor: &TensorEntry) -> Result<(), String> {
    let needed = tensor.shape.iter().try_fold(tensor.dtype.size(), |n, &e| n.checked_mul(e));
    if needed.map(|needed| needed as u64) == Some(tensor.bytes) {
        return Ok(());
    }
    let TensorEntry { name, dtype, shape, bytes, .. } = tensor;
    Err(format!("tensor `{name}` {dtype} {shape:?} has {bytes} bytes"))
}
