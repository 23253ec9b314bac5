//! Where the time of a run goes, operator by operator.

use std::time::{Duration, Instant};

use crate::graph::Node;
use crate::operators::Work;

/// An operator in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The value that it writes, the first of several.
    pub value: String,
    /// What it is: ONNX's name, tract's, or with `dram.` before it that of a stored node (`dram.LinearInt8`).
    pub operator: String,
    /// What it multiplies; by an operator of tract's, as tract counts it.
    pub work: Work,
    /// When it began, from the start of the run.
    pub start: Duration,
    /// How long it took.
    pub duration: Duration,
}

/// Notes the operators of a run as they come.
#[derive(Debug)]
pub(crate) struct Profile {
    begin: Instant,
    spans: Vec<Span>,
}

impl Profile {
    /// The run begins now.
    pub(crate) fn begin() -> Profile {
        Profile { begin: Instant::now(), spans: Vec::new() }
    }

    /// Does `compute`, which is what `operator` does for `value`.
    pub(crate) fn time<T>(
        &mut self,
        (value, operator): (&str, String),
        work: Work,
        compute: impl FnOnce() -> T,
    ) -> T {
        let start = self.begin.elapsed();
        let result = compute();
        let duration = self.begin.elapsed() - start;
        self.spans.push(Span { value: value.to_owned(), operator, work, start, duration });
        result
    }

    /// Does `compute`, which is what `node` says.
    pub(crate) fn node<T>(&mut self, node: &Node, work: Work, compute: impl FnOnce() -> T) -> T {
        self.time((node.output(), node.kind()), work, compute)
    }

    /// The operators in the order in which they ran.
    pub(crate) fn into_spans(self) -> Vec<Span> {
        self.spans
    }
}
