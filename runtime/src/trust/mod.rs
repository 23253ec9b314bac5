//! Who may have made a bundle: digests, Ed25519 keys and signatures, and the policy that asks for them.
//!
//! A signature covers the bundle's digest, and the digest all that the bundle says. Signing therefore
//! moves no section, and a signature can be taken off or replaced without packing again.

mod keys;

use std::path::Path;

use ed25519_dalek::{Signature, VerifyingKey};

use crate::bundle;
use crate::error::{Error, Result};

pub use keys::{PrivateKey, keygen};

/// What stands before the digest in the signed message, so that a signature made for anything else with
/// the same key is none for a bundle.
const SIGNED_PREFIX: &[u8] = b"dram bundle digest\n";

/// BLAKE3 of a bundle without its digest, key and signature; prints as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// An Ed25519 public key (RFC 8032); prints as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// Which bundles may be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TrustPolicy {
    /// Sound ones, whoever made them; ONNX files too.
    #[default]
    AnyBundle,
    /// Sound ones with a signature by one of these keys; nothing where there is none.
    SignedBy(Vec<PublicKey>),
}

impl TrustPolicy {
    /// Lets a file pass whose checked signature is `signer`'s, or that carries none.
    ///
    /// # Errors
    /// [`Error::Untrusted`] where the policy asks for another signer.
    pub(crate) fn admit(&self, signer: Option<&PublicKey>, path: &Path) -> Result<()> {
        let TrustPolicy::SignedBy(keys) = self else { return Ok(()) };
        let reason = match signer {
            Some(signer) if keys.contains(signer) => return Ok(()),
            Some(signer) => format!("it is signed by {signer}, expected {}", any_of(keys)),
            None => format!("it is not signed, expected a signature by {}", any_of(keys)),
        };
        let next = "have it signed with `dram sign`, or trust its signer's public key";
        Err(Error::Untrusted { path: path.to_owned(), reason, next })
    }
}

fn any_of(keys: &[PublicKey]) -> String {
    let names: Vec<String> = keys.iter().map(PublicKey::to_string).collect();
    if names.is_empty() {
        "a trusted key, and there is none".to_owned()
    } else {
        names.join(" or ")
    }
}

impl PublicKey {
    /// Reads a public key file, as [`keygen`] writes it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where the file is no public key.
    pub fn read(path: &Path) -> Result<PublicKey> {
        let key = PublicKey(keys::read(path, keys::PUBLIC)?);
        match key.is_sound() {
            true => Ok(key),
            false => {
                Err(keys::refuse(path, "line 2", "an Ed25519 public key", "32 bytes that are none"))
            }
        }
    }

    /// Whether it is a point of the curve, and none of the few that sign anything.
    fn is_sound(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|point| !point.is_weak())
    }

    /// Whether `signature` is this key's for `digest`. Weak keys and signatures that could be written
    /// in two ways (RFC 8032, 5.1.7 without cofactor) count as none.
    pub(crate) fn signed(&self, digest: &Digest, signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        let key = VerifyingKey::from_bytes(&self.0);
        key.is_ok_and(|key| key.verify_strict(&message(digest), &signature).is_ok())
    }
}

/// Signs the bundle at `path` with the private key of the file `key`; an earlier signature goes. Only
/// the header's signature changes, and the file is replaced whole or not at all.
///
/// # Errors
/// Those of [`Bundle::open`](crate::bundle::Bundle::open), but for a signature that does not match;
/// [`Error::Data`] where `key` is no private key; [`Error::Io`].
pub fn sign(path: &Path, key: &Path) -> Result<PublicKey> {
    let key = PrivateKey::read(key)?;
    bundle::sign(path, &key)?;
    Ok(key.public())
}

fn message(digest: &Digest) -> Vec<u8> {
    [SIGNED_PREFIX, &digest.0].concat()
}

/// `bytes` as two digits each.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 32 bytes of 64 lower-case hexadecimal digits; `None` for any other text.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Parses the 64 hexadecimal digits that a public key prints as.
///
/// # Errors
/// The sentence to print, where they are not there or are no key.
impl std::str::FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<PublicKey, String> {
        let key = unhex(text).map(PublicKey).filter(PublicKey::is_sound);
        key.ok_or_else(|| format!("`{text}` is no public key; give its 64 hexadecimal digits"))
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}
