//! `dram verify`: whether a bundle is sound, signed, and computes here what it did when it was packed.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::trust::PublicKey;
use dram_runtime::verify::{Verification, verify};
use dram_runtime::{Error, TrustPolicy};
use serde_json::{Value, json};

use crate::Answer;
use crate::arguments::{Limits, public_key};
use crate::output::Output;

/// Check a bundle's digest and signature, and compare its golden examples with what it computes here
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The bundle
    bundle: PathBuf,

    /// Accept only this signer: a public key file, or its 64 digits
    #[arg(long, value_name = "PUBKEY", value_parser = public_key, conflicts_with = "require_signature")]
    key: Option<PublicKey>,

    #[command(flatten)]
    limits: Limits,
}

impl Verify {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let mut options = self.limits.options();
        let _opening = self.limits.begin(&self.bundle)?;
        if let Some(key) = self.key {
            options.trust = TrustPolicy::SignedBy(vec![key]);
        }
        let bundle = self.bundle.display();
        match verify(&self.bundle, &options) {
            Ok(verification) => {
                let mut document = json!({ "verified": true });
                merge(&mut document, describe(&verification));
                output.result(
                    &format_args!("`{bundle}` is verified\n{}", text(&verification)),
                    &document,
                )?;
                Ok(Answer::Yes)
            }
            Err(error) => refused("verified", error, output),
        }
    }
}

/// The answer "no" where `error` says that a bundle is not what it should be; other errors stay errors.
/// `what` is the JSON key of that answer.
pub(crate) fn refused(what: &str, error: Error, output: &Output) -> Result<Answer> {
    use Error::{Bundle, Gate, Missing, OverBudget, Untrusted};
    match error {
        Bundle { .. } | Untrusted { .. } | Gate { .. } | Missing { .. } | OverBudget(_) => {
            let document = json!({ what: false, "reason": error.to_string() });
            output.result(&format_args!("not {}: {error}\n", what.replace('_', " ")), &document)?;
            Ok(Answer::No)
        }
        other => Err(other.into()),
    }
}

/// What was verified, for people.
pub(crate) fn text(verification: &Verification) -> String {
    let golden = &verification.golden;
    let same = match golden.worst_difference {
        0.0 => "the same bits".to_owned(),
        worst => format!("within {worst:.0e} of the largest value"),
    };
    let skipped = match golden.skipped {
        0 => String::new(),
        skipped => format!(", {skipped} too long for this `--seq`"),
    };
    format!(
        "digest     {}\nsigned by  {}\ngolden     {} examples on {}: {same}{skipped}\n",
        verification.digest,
        verification.signed_by.map_or("nobody".to_owned(), |signer| signer.to_string()),
        golden.examples,
        verification.executor,
    )
}

/// The same as JSON.
pub(crate) fn describe(verification: &Verification) -> Value {
    json!({
        "digest": verification.digest.to_string(),
        "signed_by": verification.signed_by.map(|signer| signer.to_string()),
        "executor": verification.executor,
        "golden": verification.golden,
    })
}

/// Adds the keys of `more` to those of `document`; both are objects.
pub(crate) fn merge(document: &mut Value, more: Value) {
    if let (Value::Object(document), Value::Object(more)) = (document, more) {
        document.extend(more);
    }
}
