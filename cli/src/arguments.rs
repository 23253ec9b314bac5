//! The command line, as typed; each verb's own flags stand in the verb's file.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use dram_runtime::bundle::Bundle;
use dram_runtime::install::{self, Start, Started};
use dram_runtime::trust::PublicKey;
use dram_runtime::{Budget, Options, Planned, Session, Shapes, TrustPolicy};

use crate::opening::{Opening, Patience};
use crate::output::Output;
use crate::{ALLOCATOR, Answer, HEAP, malloc, verbs};

/// Turns a large model into a compact student, and runs the student inside a RAM budget.
#[derive(Debug, Parser)]
#[command(name = "dram", version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Print the result as one JSON document on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const AFTER_HELP: &str = "\
Results go to stdout; progress, warnings and errors to stderr.
Exit codes: 0 yes, 1 no (does not fit, gate missed, findings), 2 error.";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[cfg(feature = "tract")]
    Inspect(verbs::inspect::Inspect),
    #[cfg(feature = "tract")]
    Check(verbs::check::Check),
    #[cfg(feature = "tract")]
    Pack(verbs::pack::Pack),
    Plan(verbs::plan::Plan),
    Run(verbs::run::Run),
    Bench(verbs::bench::Bench),
    Profile(verbs::profile::Profile),
    #[cfg(feature = "tract")]
    Compare(verbs::compare::Compare),
    Eval(verbs::eval::Eval),
    Serve(verbs::serve::Serve),
    #[cfg(feature = "tract")]
    Distill(verbs::distill::Distill),
    Keygen(verbs::keygen::Keygen),
    Sign(verbs::sign::Sign),
    Verify(verbs::verify::Verify),
    Install(verbs::install::Install),
    Rollback(verbs::rollback::Rollback),
    Boards(verbs::boards::Boards),
    Fit(verbs::fit::Fit),
    Doctor(verbs::doctor::Doctor),
}

impl Verb {
    /// Does what was asked and prints the result.
    pub(crate) fn call(&self, output: &Output) -> anyhow::Result<Answer> {
        match self {
            #[cfg(feature = "tract")]
            Verb::Inspect(inspect) => inspect.call(output),
            #[cfg(feature = "tract")]
            Verb::Check(check) => check.call(output),
            #[cfg(feature = "tract")]
            Verb::Pack(pack) => pack.call(output),
            Verb::Plan(plan) => plan.call(output),
            Verb::Run(run) => run.call(output),
            Verb::Bench(bench) => bench.call(output),
            Verb::Profile(profile) => profile.call(output),
            #[cfg(feature = "tract")]
            Verb::Compare(compare) => compare.call(output),
            Verb::Eval(eval) => eval.call(output),
            Verb::Serve(serve) => serve.call(output),
            #[cfg(feature = "tract")]
            Verb::Distill(distill) => distill.call(output),
            Verb::Keygen(keygen) => keygen.call(output),
            Verb::Sign(sign) => sign.call(output),
            Verb::Verify(verify) => verify.call(output),
            Verb::Install(install) => install.call(output),
            Verb::Rollback(rollback) => rollback.call(output),
            Verb::Boards(boards) => boards.call(output),
            Verb::Fit(fit) => fit.call(output),
            Verb::Doctor(doctor) => doctor.call(output),
        }
    }
}

/// How a session is opened.
#[derive(Clone, Debug, Args)]
pub(crate) struct Limits {
    /// Refuse to take more RAM than this, mapped weights included: `64MiB`, `512KiB`
    #[arg(long, value_name = "SIZE")]
    pub(crate) ram: Option<Budget>,

    /// Threads that compute
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZeroUsize,

    /// Longest sequence, in tokens; a longer text is cut
    #[arg(long, value_name = "N")]
    pub(crate) seq: Option<NonZeroUsize>,

    /// Shape of an input to plan for instead of the model's own, `x=1x3x48x320`; the second one for the
    /// same input is of a second plan
    #[arg(long, value_name = "NAME=1x3x...", value_parser = named_shape)]
    pub(crate) shape: Vec<(String, Planned)>,

    /// Values of an input to plan for, `sr=16000` or `ids=3,7,4`: where they decide how the model computes
    #[arg(long, value_name = "NAME=V,V...", value_parser = named_values)]
    pub(crate) value: Vec<(String, Planned)>,

    /// Refuse what this key did not sign: a public key file, or its 64 digits; may be repeated
    #[arg(long, value_name = "PUBKEY", value_parser = public_key)]
    pub(crate) require_signature: Vec<PublicKey>,

    #[command(flatten)]
    patience: Patience,
}

/// How early a classifier with exits may answer.
#[derive(Clone, Debug, Args)]
pub(crate) struct EarlyExits {
    /// Take the first early exit that is this certain, 0 to 1; 1 takes none [default: what the bundle was
    /// calibrated to]
    #[arg(long, value_name = "P", value_parser = probability)]
    exit_threshold: Option<f32>,
}

impl EarlyExits {
    /// `session`, with the threshold that was asked for.
    ///
    /// # Errors
    /// Those of [`Session::with_exit_threshold`].
    pub(crate) fn apply(&self, session: Session) -> dram_runtime::Result<Session> {
        match self.exit_threshold {
            Some(threshold) => session.with_exit_threshold(threshold),
            None => Ok(session),
        }
    }
}

/// A number from 0 to 1.
fn probability(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "give a number from 0 to 1: 0.9".to_owned())
}

impl Limits {
    /// Opens the model at `path`, or the running one of the slot folder there, within these limits. Where
    /// `--ram` is given, the heap is held to it from the first byte on: to what the budget leaves beside the
    /// mapped bundle. A bundle on trial is confirmed at once: it has passed its golden examples within these
    /// limits.
    ///
    /// # Errors
    /// Those of [`Session::open`].
    pub(crate) fn open(&self, path: &Path) -> dram_runtime::Result<Session> {
        let (session, trial) = self.open_on_trial(path)?;
        trial.map_or(Ok(()), Trial::confirm)?;
        Ok(session)
    }

    /// As [`Limits::open`], but leaves it to the caller to confirm a bundle that is on trial: unless that
    /// is done, the next start returns to the bundle before.
    pub(crate) fn open_on_trial(
        &self,
        path: &Path,
    ) -> dram_runtime::Result<(Session, Option<Trial>)> {
        let opening = self.begin(path)?;
        let (session, path, trial) = match path.is_dir() {
            true => self.start(path)?,
            false => (Session::open(path, &self.options())?, path.to_owned(), None),
        };
        drop(opening);
        if session.executor() != "kernels" {
            // Our kernels take their memory once; tract takes it for every operator of every run.
            malloc::keep_freed_memory();
        }
        if let Some(budget) = self.ram {
            ALLOCATOR.set_limit(budget.ram_bytes().saturating_sub(mapped_bytes(&path)?));
        }
        Ok((session, trial))
    }

    /// Bounds what opening the model or the slot folder at `path` takes, until the result is dropped.
    ///
    /// # Errors
    /// Where the file cannot be read, or the system refuses another thread.
    pub(crate) fn begin(&self, path: &Path) -> dram_runtime::Result<Opening> {
        let running = if path.is_dir() { install::status(path)? } else { None };
        let file = running.map_or(path.to_owned(), |it| install::bundle_path(path, it.running));
        let mapped = if file.is_file() { mapped_bytes(&file)? } else { 0 };
        let ram = self.ram.map(|budget| (budget, mapped));
        self.patience.begin(&[&file], ram).map_err(|source| dram_runtime::Error::Io {
            action: "start",
            path: "a thread".into(),
            source,
        })
    }

    /// The same, as the library wants it.
    pub(crate) fn options(&self) -> Options {
        Options {
            budget: self.ram.unwrap_or(Budget::UNLIMITED),
            threads: self.threads,
            sequence: self.seq.map(NonZeroUsize::get),
            shapes: shapes(&self.shape, &self.value),
            trust: match &self.require_signature[..] {
                [] => TrustPolicy::AnyBundle,
                keys => TrustPolicy::SignedBy(keys.to_vec()),
            },
            heap: Some(HEAP),
        }
    }

    /// Opens the running bundle of a slot folder. Gives the bundle's file too, and its trial where it is
    /// on one.
    fn start(&self, slots: &Path) -> dram_runtime::Result<(Session, PathBuf, Option<Trial>)> {
        let Started { session, start } = install::open_current(slots, &self.options())?;
        let trial = match start {
            Start::Confirmed => None,
            Start::Trial => Some(Trial { slots: slots.to_owned() }),
            Start::Returned { from, why } => {
                // Nobody may be reading stderr; that is no reason to stop.
                let _ = writeln!(
                    std::io::stderr(),
                    "dram: {from} failed, back to the bundle before: {why}"
                );
                None
            }
        };
        let path = install::bundle_path(slots, session.digest());
        Ok((session, path, trial))
    }
}

/// The first start of a new bundle of a slot folder.
#[derive(Debug)]
#[must_use = "a trial that is not confirmed has failed"]
pub(crate) struct Trial {
    slots: PathBuf,
}

impl Trial {
    /// Ends it: the bundle has worked.
    ///
    /// # Errors
    /// Those of [`install::confirm`].
    pub(crate) fn confirm(self) -> dram_runtime::Result<()> {
        install::confirm(&self.slots)
    }
}

/// An input's name and its shape, from `NAME=1x3x48x320`.
///
/// # Errors
/// The sentence to print where it is not that.
pub(crate) fn named_shape(text: &str) -> Result<(String, Planned), String> {
    let named = text.rsplit_once('=').and_then(|(name, shape)| {
        let extents: Result<Vec<usize>, _> = shape.split('x').map(str::parse).collect();
        extents.ok().map(|extents| (name.to_owned(), Planned::Shape(extents)))
    });
    named.ok_or_else(|| "write the input's name and its extents: `x=1x3x48x320`".to_owned())
}

/// An input's name and its values, from `NAME=3,7,4`.
///
/// # Errors
/// The sentence to print where it is not that.
pub(crate) fn named_values(text: &str) -> Result<(String, Planned), String> {
    let named = text.rsplit_once('=').and_then(|(name, values)| {
        let values: Result<Vec<f64>, _> = values.split(',').map(str::parse).collect();
        values.ok().map(|values| (name.to_owned(), Planned::Values { values }))
    });
    named.ok_or_else(|| {
        "write the input's name and its values: `sr=16000` or `ids=3,7,4`".to_owned()
    })
}

/// What is planned for inputs, one after the other, as plans: a name that comes again begins the next one.
pub(crate) fn shapes(shape: &[(String, Planned)], value: &[(String, Planned)]) -> Vec<Shapes> {
    let mut plans: Vec<Shapes> = Vec::new();
    for (name, planned) in shape.iter().chain(value) {
        let open = plans.iter_mut().find(|plan| !plan.contains_key(name));
        match open {
            Some(plan) => drop(plan.insert(name.clone(), planned.clone())),
            None => plans.push(Shapes::from([(name.clone(), planned.clone())])),
        }
    }
    plans
}

/// A public key from its 64 digits, or from the file that `dram keygen` wrote.
///
/// # Errors
/// The sentence to print where it is neither.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, String> {
    text.parse().or_else(|_| PublicKey::read(Path::new(text)).map_err(|error| error.to_string()))
}

/// How much of the model at `path` a session maps instead of copying it to the heap: all of a
/// bundle, nothing of an ONNX file.
///
/// # Errors
/// Where the file cannot be read.
pub(crate) fn mapped_bytes(path: &Path) -> dram_runtime::Result<u64> {
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    Ok(if Bundle::is_bundle(path)? { bytes } else { 0 })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_shape_that_comes_again_is_of_the_next_plan() {
        let named = ["x=1x3", "y=2", "x=4x3"].map(|text| named_shape(text).expect("a shape"));
        let values = ["rate=16000", "rate=8000"].map(|text| named_values(text).expect("values"));
        let plans = shapes(&named, &values);
        assert_eq!(plans.len(), 2);
        let expected = (Planned::Shape(vec![2]), Planned::Shape(vec![4, 3]));
        assert_eq!((&plans[0]["y"], &plans[1]["x"]), (&expected.0, &expected.1));
        assert_eq!(plans[1]["rate"], Planned::Values { values: vec![8000.0] });
        for text in ["x", "x=", "x=1x", "x=-1"] {
            assert!(named_shape(text).is_err(), "{text}");
        }
        for text in ["x", "x=", "x=1,", "x=a"] {
            assert!(named_values(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_free_of_contradictions() {
        Arguments::command().debug_assert();
    }
}
