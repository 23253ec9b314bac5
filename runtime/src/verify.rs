//! A bundle's whole self-test: sound, trusted, within the budget, and computing what it did when packed.

use std::path::Path;

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::golden::{self, Replay};
use crate::session::{Options, Session};
use crate::trust::{Digest, PublicKey};

/// What was verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// The bundle's digest.
    pub digest: Digest,
    /// Whose valid signature it carries.
    pub signed_by: Option<PublicKey>,
    /// What runs its graph: `kernels` or `tract`.
    pub executor: &'static str,
    /// How its golden examples went.
    pub golden: Replay,
}

/// Opens the bundle at `path` under `options` and replays its golden examples.
///
/// # Errors
/// [`Error::Bundle`] where it is damaged or altered; [`Error::Untrusted`] where its signature is wrong or
/// not one that `options.trust` asks for; [`Error::OverBudget`]; [`Error::Gate`] where it computes
/// otherwise than when it was packed; [`Error::Missing`] where it has no golden examples.
pub fn verify(path: &Path, options: &Options) -> Result<Verification> {
    if !Bundle::is_bundle(path)? {
        return Err(Error::Bundle {
            path: path.to_owned(),
            reason: "it does not begin with `dram`".to_owned(),
            next: "give a file that `dram pack` wrote",
        });
    }
    self_test(&Session::open(path, options)?)
}

/// The last part of [`verify`]: replays the golden examples of an open session.
///
/// # Errors
/// [`Error::Gate`] and [`Error::Missing`], as there.
pub fn self_test(session: &Session) -> Result<Verification> {
    Ok(Verification {
        golden: golden::replay(session)?,
        digest: session.digest(),
        signed_by: session.signed_by().copied(),
        executor: session.executor(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::bundle::tests::{small_claiming, small_with_golden};
    use crate::trust::{TrustPolicy, keygen, sign};

    fn signed_by(keys: &[PublicKey]) -> Options {
        Options { trust: TrustPolicy::SignedBy(keys.to_vec()), ..Options::default() }
    }

    #[test]
    fn only_the_right_signature_opens_under_a_policy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.dram");
        std::fs::write(&path, small_with_golden(1)).unwrap();
        let (_, author) = keygen(&folder.path().join("author")).unwrap();
        let (_, other) = keygen(&folder.path().join("other")).unwrap();
        let refusal = |keys: &[PublicKey]| match verify(&path, &signed_by(keys)) {
            Err(Error::Untrusted { reason, .. }) => reason,
            got => panic!("expected a refusal, got {got:?}"),
        };
        assert!(refusal(&[author]).contains("it is not signed"), "unsigned");
        assert_eq!(verify(&path, &Options::default()).unwrap().signed_by, None);

        sign(&path, &folder.path().join("author")).unwrap();
        assert_eq!(verify(&path, &signed_by(&[author])).unwrap().signed_by, Some(author));
        assert!(verify(&path, &signed_by(&[other, author])).is_ok());
        assert!(refusal(&[other]).contains(&format!("it is signed by {author}, expected {other}")));
        assert!(refusal(&[]).contains("there is none"), "no key is nobody, not anybody");

        sign(&path, &folder.path().join("other")).unwrap();
        assert!(refusal(&[author]).contains("signed by"), "the later signature counts");
    }

    #[test]
    fn signing_moves_nothing_and_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.dram");
        let before = small_with_golden(1);
        std::fs::write(&path, &before).unwrap();
        let key = folder.path().join("key");
        keygen(&key).unwrap();
        sign(&path, &key).unwrap();
        let once = std::fs::read(&path).unwrap();
        assert_eq!((&once[..64], &once[160..]), (&before[..64], &before[160..]));
        sign(&path, &key).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), once, "Ed25519 signatures are deterministic");
    }

    #[test]
    fn an_altered_bundle_cannot_be_signed_and_a_replaced_one_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.dram");
        let key = folder.path().join("key");
        let (_, public) = keygen(&key).unwrap();
        let mut bytes = small_with_golden(1);
        let end = bytes.len() - 1;
        bytes[end] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(sign(&path, &key), Err(Error::Bundle { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "the file is left as it was");

        // The signature of one bundle in the header of another.
        std::fs::write(&path, small_with_golden(1)).unwrap();
        sign(&path, &key).unwrap();
        let signed = std::fs::read(&path).unwrap();
        let mut other = small_with_golden(2);
        other[64..160].copy_from_slice(&signed[64..160]);
        std::fs::write(&path, &other).unwrap();
        for options in [Options::default(), signed_by(&[public])] {
            assert!(matches!(verify(&path, &options), Err(Error::Untrusted { .. })));
        }
    }

    #[test]
    fn an_onnx_file_carries_no_signature() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny.onnx");
        let refused = Session::open(&model, &signed_by(&[]));
        assert!(matches!(refused, Err(Error::Untrusted { .. })), "{refused:?}");
        assert!(matches!(verify(&model, &Options::default()), Err(Error::Bundle { .. })));
    }

    #[test]
    fn what_computes_otherwise_or_does_not_fit_is_not_verified() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.dram");
        std::fs::write(&path, small_claiming(1, &[0.0; 3])).unwrap();
        assert!(matches!(verify(&path, &Options::default()), Err(Error::Gate { .. })));
        let tight = Options { budget: Budget::bytes(1000), ..Options::default() };
        assert!(matches!(verify(&path, &tight), Err(Error::OverBudget(_))));
    }
}
