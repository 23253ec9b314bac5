//! What can go wrong, with the place, the fact and the next step.

use std::path::{Path, PathBuf};

/// Anything that keeps a model from being loaded, packed, opened or run.
///
/// Messages say where, what was expected, what was got and what to do next; they carry no line
/// breaks unless they list several findings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was attempted: "read", "write", "map" ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// The bytes are no ONNX model.
    #[error(
        "`{file}` is not an ONNX model: {reason}; export it again, or check that the download is whole"
    )]
    NotOnnx {
        /// The file, or a description of where the bytes came from.
        file: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The model uses something that will not run; all of it is listed.
    #[error("`{model}` cannot run here:{}", list(findings))]
    Unsupported {
        /// The graph's name or file.
        model: String,
        /// One line each: operator, opset, node, what to do.
        findings: Vec<String>,
    },

    /// A node or value of a graph contradicts its operator's definition.
    #[error("{place}: expected {expected}, got {got}")]
    Graph {
        /// Node, initializer or value.
        place: String,
        /// What its operator demands.
        expected: String,
        /// What the file says.
        got: String,
    },

    /// The engine below refused the model; `source` is its own report.
    #[error("{doing}: {}", causes(&**source))]
    Engine {
        /// What was being done.
        doing: String,
        /// tract's report, innermost cause last.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The graph needs tract, which this build leaves out.
    #[error(
        "this build runs on dram's kernels alone, and {reason}; use one with the feature `tract`, or pack \
         a model that `dram pack` reports as `kernels`"
    )]
    KernelsOnly {
        /// The first node that they do not run.
        reason: String,
    },

    /// The file is no bundle, or not a whole and unaltered one.
    #[error("`{}` is not a sound bundle: {reason}; {next}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// The rule of `bundle.md` that it breaks.
        reason: String,
        /// What to do about it.
        next: &'static str,
    },

    /// The bundle is not one that may be opened here: its signature is missing, wrong or another's.
    #[error("`{}` is not trusted: {reason}; {next}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with its signature.
        reason: String,
        /// What to do about it.
        next: &'static str,
    },

    /// The tokenizer file cannot be used.
    #[error("tokenizer: {reason}; {next}")]
    Tokenizer {
        /// What is wrong.
        reason: String,
        /// What to do about it.
        next: &'static str,
    },

    /// The labels do not fit the model.
    #[error(
        "{labels} labels, but the output `{output}` is {width} wide; give one label a line, in the order of the output"
    )]
    Labels {
        /// How many labels were given.
        labels: usize,
        /// The output they should name.
        output: String,
        /// Its width.
        width: usize,
    },

    /// The model does not have what was asked of it.
    #[error("this model has no {what}; {next}")]
    Missing {
        /// The missing part: "tokenizer", "labels" ...
        what: &'static str,
        /// What to do about it.
        next: &'static str,
    },

    /// An input does not have the shape or type that the model declares.
    #[error("input `{name}`: expected {expected}, got {got}")]
    Input {
        /// The input's name.
        name: String,
        /// Shape and type that the model declares.
        expected: String,
        /// Shape and type that were given.
        got: String,
    },

    /// The plan needs more than the budget allows.
    #[error("{0}")]
    OverBudget(Box<crate::budget::OverBudget>),

    /// The optimized or quantized model is not the same function any more.
    #[error("{what}: {measured}, allowed {allowed}; {next}")]
    Gate {
        /// What was compared.
        what: String,
        /// What was measured.
        measured: String,
        /// What would have passed.
        allowed: String,
        /// What to do about it.
        next: &'static str,
    },

    /// Something took longer than it was given.
    #[error(
        "not done within {time:?}: give it more time, or convert the model on a faster machine with `dram pack`"
    )]
    Deadline {
        /// What it was given.
        time: std::time::Duration,
    },

    /// A data file does not read as what it should be.
    #[error("`{}` {place}: expected {expected}, got {got}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// Line or field.
        place: String,
        /// What should stand there.
        expected: String,
        /// What stands there.
        got: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    pub(crate) fn graph(
        place: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Error {
        Error::Graph { place: place.into(), expected: expected.into(), got: got.into() }
    }

    pub(crate) fn engine<E>(doing: impl Into<String>) -> impl FnOnce(E) -> Error
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let doing = doing.into();
        move |source| Error::Engine { doing, source: source.into() }
    }
}

/// The result of everything that can fail in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A report and what caused it, innermost last.
fn causes(report: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(report), |report| report.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn list(findings: &[String]) -> String {
    findings.iter().map(|finding| format!("\n  - {finding}")).collect()
}
