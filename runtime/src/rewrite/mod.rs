//! Graph to graph: what tract cannot take as it is, in operators that it can.
//!
//! Each pass is one file. They work on a graph whose input shapes are known, because what they
//! rewrite often hinges on a shape: which branch of an `If` runs, how many steps a recurrence has.

use std::borrow::Cow;

use crate::engine::Fact;
use crate::error::Result;
use crate::graph::Graph;
use crate::tensor::Tensor;

pub(crate) fn controls(_graph: &Graph) -> Vec<usize> {
    Vec::new()
}

pub(crate) fn specialize<'a>(
    graph: &'a Graph,
    _facts: &[Fact],
    _known: &[(usize, Tensor)],
) -> Result<Cow<'a, Graph>> {
    Ok(Cow::Borrowed(graph))
}
