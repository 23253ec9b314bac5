//! Key files: two lines of text, what it is and 64 hexadecimal digits.
//!
//! ```text
//! dram public key (Ed25519)
//! d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer, SigningKey};

use super::{Digest, PublicKey, hex, message, unhex};
use crate::error::{Error, Result};

/// First line of a public key file.
pub(super) const PUBLIC: &str = "dram public key (Ed25519)";
/// First line of a private key file; the second is the seed of RFC 8032.
const PRIVATE: &str = "dram private key (Ed25519)";

/// An Ed25519 private key. Its memory is overwritten when it goes; it does not print.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// Reads a private key file, as [`keygen`] writes it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where the file is no private key.
    pub fn read(path: &Path) -> Result<PrivateKey> {
        read(path, PRIVATE).map(|seed| PrivateKey(SigningKey::from_bytes(&seed)))
    }

    /// The key that others check its signatures with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, digest: &Digest) -> [u8; 64] {
        self.0.sign(&message(digest)).to_bytes()
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey of {}", self.public())
    }
}

/// Makes a key from the system's randomness. The private key goes to `path`, which only its owner can
/// read (mode 0600 on Unix), the public one beside it with `.pub` added to the name; gives its path.
///
/// # Errors
/// [`Error::Io`], also where either file exists: a key is never overwritten.
pub fn keygen(path: &Path) -> Result<(PathBuf, PublicKey)> {
    let mut public_path = path.as_os_str().to_owned();
    public_path.push(".pub");
    let public_path = PathBuf::from(public_path);
    if public_path.exists() {
        return Err(Error::io("write", &public_path)(std::io::ErrorKind::AlreadyExists.into()));
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Error::io("draw random bytes for", path)(error.into()))?;
    let key = PrivateKey(SigningKey::from_bytes(&seed));
    create(path, PRIVATE, &seed, 0o600)?;
    create(&public_path, PUBLIC, &key.public().0, 0o644)?;
    Ok((public_path, key.public()))
}

/// Writes a key file that does not exist yet, and flushes it to the disk.
fn create(path: &Path, header: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written = options.open(path).and_then(|mut file| {
        writeln!(file, "{header}\n{}", hex(bytes))?;
        file.sync_all()
    });
    written.map_err(Error::io("write", path))
}

/// The 32 bytes of a key file that begins with `header`.
pub(super) fn read(path: &Path, header: &str) -> Result<[u8; 32]> {
    /// More than any key file has: what is longer is another file.
    const LONGEST: usize = 256;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let mut start = std::io::Read::take(file, LONGEST as u64);
    std::io::Read::read_to_end(&mut start, &mut bytes).map_err(Error::io("read", path))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    if lines.next() != Some(header) {
        let other = if header == PUBLIC { PRIVATE } else { PUBLIC };
        let got = if text.starts_with(other) { other } else { "something else" };
        return Err(refuse(path, "line 1", &format!("`{header}`"), got));
    }
    // What a private key file holds is never part of a message.
    let key = lines.next().and_then(unhex).filter(|_| lines.next().is_none());
    key.ok_or_else(|| {
        refuse(path, "line 2", "64 hexadecimal digits, then the end", "something else")
    })
}

pub(super) fn refuse(path: &Path, place: &str, expected: &str, got: &str) -> Error {
    Error::Data {
        path: path.to_owned(),
        place: place.to_owned(),
        expected: expected.to_owned(),
        got: got.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_signs_as_rfc_8032_says() {
        // RFC 8032, 7.1, test 1: seed and public key.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let key = PrivateKey(SigningKey::from_bytes(&unhex(seed).unwrap()));
        assert_eq!(key.public().to_string(), public);
        // The same test's signature, of the empty message.
        let signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155";
        assert_eq!(hex(&key.0.sign(b"").to_bytes()[..32]), signature);
    }

    #[test]
    fn a_signature_is_for_one_digest_and_one_key() {
        let key = PrivateKey(SigningKey::from_bytes(&[7; 32]));
        let signature = key.sign(&Digest([1; 32]));
        assert!(key.public().signed(&Digest([1; 32]), &signature));
        assert!(!key.public().signed(&Digest([2; 32]), &signature));
        let other = PrivateKey(SigningKey::from_bytes(&[8; 32])).public();
        assert!(!other.signed(&Digest([1; 32]), &signature));
        // A signature over the bare digest was made for something else.
        assert!(!key.public().signed(&Digest([1; 32]), &key.0.sign(&[1; 32]).to_bytes()));
    }

    #[test]
    fn a_key_of_low_order_signs_nothing() {
        // The neutral point, for which zeros would otherwise verify.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!PublicKey(neutral).signed(&Digest([0; 32]), &signature));
    }

    #[test]
    fn keys_are_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (public_path, public) = keygen(&path).unwrap();
        assert_eq!(PrivateKey::read(&path).unwrap().public(), public);
        assert_eq!(PublicKey::read(&public_path).unwrap(), public);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(keygen(&path).is_err(), "both exist");
        std::fs::remove_file(&public_path).unwrap();
        assert!(keygen(&path).is_err(), "the private one exists");
        assert_eq!(PrivateKey::read(&path).unwrap().public(), public);
        assert!(!public_path.exists());
        assert!(
            matches!(PublicKey::read(&path), Err(Error::Data { .. })),
            "a private key for a public one"
        );
    }

    #[test]
    fn other_files_are_no_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let digits = "0".repeat(64);
        for text in [
            String::new(),
            digits.clone(),
            PUBLIC.to_owned(),
            format!("{PUBLIC}\n{}", &digits[1..]),
            format!("{PUBLIC}\n{digits}\nmore"),
            format!("{PUBLIC}\n{}ä", &digits[2..]),
            format!("{PUBLIC}\n{}", digits.replace('0', "G")),
            // The point of order two is a point, and no key.
            format!("{PUBLIC}\necffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
            "x".repeat(1 << 20),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = PublicKey::read(&path).unwrap_err().to_string();
            assert!(error.contains("expected") && error.len() < 300, "{error}");
        }
    }
}
