//! One case: a folder with a model, its inputs and the outputs that it should give.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use dram_runtime::{Error, Graph, Options, Session, Tensor};

use super::{close, scope};

pub(super) struct Case {
    name: String,
    folder: PathBuf,
}

/// What became of a case.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) name: String,
    /// The operator that it is about; empty where its model holds a kind of value that nothing here
    /// can read.
    pub(super) operator: String,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    LeftOut(&'static str),
    Passed,
    Refused(String),
    Wrong(String),
    Panicked(String),
}

impl Report {
    pub(super) fn in_scope(&self) -> bool {
        !matches!(self.outcome, Outcome::LeftOut(_))
    }

    pub(super) fn passed(&self) -> bool {
        matches!(self.outcome, Outcome::Passed)
    }

    /// What must never happen, where it did.
    pub(super) fn unsound(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Wrong(difference) => Some(format!("{}: {difference}", self.name)),
            Outcome::Panicked(text) => Some(format!("{} panicked: {text}", self.name)),
            _ => None,
        }
    }
}

/// The cases in `folder`, sorted by name.
pub(super) fn all(folder: &Path) -> Vec<Case> {
    let entries = std::fs::read_dir(folder).expect("the folder of the cases");
    let case = |entry: std::fs::DirEntry| Case {
        name: entry.file_name().to_string_lossy().into_owned(),
        folder: entry.path(),
    };
    let mut cases: Vec<Case> = entries.map(|entry| case(entry.expect("an entry"))).collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

impl Case {
    pub(super) fn report(&self) -> Report {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.outcome())).unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<String>().cloned();
            Outcome::Panicked(text.unwrap_or_else(|| "no text".to_owned()))
        });
        let plain = Graph::read_onnx(&self.plain_model());
        let operator = plain.iter().flat_map(|graph| &graph.nodes).next();
        let operator = operator.map_or(String::new(), |node| node.op.clone());
        Report { name: self.name.clone(), operator, outcome }
    }

    fn model(&self) -> PathBuf {
        self.folder.join("model.onnx")
    }

    /// The operator itself, where the case is its function body, written out.
    fn plain_model(&self) -> PathBuf {
        let plain = self.name.split("_expanded").next().unwrap_or_default();
        self.folder.with_file_name(plain).join("model.onnx")
    }

    fn outcome(&self) -> Outcome {
        for model in [self.plain_model(), self.model()] {
            match Graph::read_onnx(&model) {
                Ok(graph) => {
                    if let Some(why) = scope::left_out(&graph) {
                        return Outcome::LeftOut(why);
                    }
                }
                Err(Error::Unsupported { .. }) => return Outcome::LeftOut(scope::VALUES),
                Err(error) => return Outcome::Refused(message(&error)),
            }
        }
        match self.run() {
            Ok(None) => Outcome::Passed,
            Ok(Some(difference)) => Outcome::Wrong(difference),
            Err(error) => Outcome::Refused(message(&error)),
        }
    }

    /// How the outputs differ from the expected ones.
    fn run(&self) -> Result<Option<String>, Error> {
        let session = Session::open(&self.model(), &Options::default())?;
        let names = session.inputs().iter().map(|input| input.name.clone());
        let inputs = names.zip(self.tensors("input", session.inputs().len())).collect();
        let got = session.run(&inputs)?;
        let pairs = got.iter().zip(self.tensors("output", got.len()));
        let mut differences = pairs.filter_map(|((name, got), expected)| {
            Some(format!("`{name}`: {}", close::difference(&self.name, got, &expected)?))
        });
        Ok(differences.next())
    }

    fn tensors(&self, kind: &str, count: usize) -> Vec<Tensor> {
        let path = |index| self.folder.join(format!("test_data_set_0/{kind}_{index}.pb"));
        let read = |index| Tensor::read_onnx(&path(index)).expect("a tensor of the package");
        (0..count).map(read).collect()
    }
}

/// The innermost cause of `error`, or all findings, in one line.
fn message(error: &Error) -> String {
    let text = match error {
        Error::Unsupported { findings, .. } => findings.join("; "),
        other => {
            let mut cause: &dyn std::error::Error = other;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            cause.to_string()
        }
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
