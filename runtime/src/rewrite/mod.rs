//! Graph to graph: what tract cannot take as it is, in operators that it can.
//!
//! Each pass is one file and one function, which returns how many rewrites it made; inputs and outputs
//! stay. They work on a graph whose input shapes are known, because what they rewrite often hinges on
//! a shape: which branch of an `If` runs, or what rank its result has.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::graph::{Graph, Node};
use crate::shapes::Fact;
use crate::tensor::Tensor;

mod branches;
mod cum_sum;
mod known_inputs;
mod lstm;
pub(crate) mod operators;
#[cfg(test)]
mod properties;

/// Whether `node`, which tract does not know, is one that a pass here takes.
pub(crate) fn takes(node: &Node) -> bool {
    lstm::is_quantized(node)
}

/// What the only output of a graph is for all inputs of these types and shapes; `None` where that hangs on
/// their values.
pub(crate) type Constant<'a> = &'a dyn Fn(&Graph, &[Fact]) -> Option<Tensor>;

/// Positions of the inputs whose values, not only their shapes, must be known to compile `graph`.
pub(crate) fn controls(graph: &Graph) -> Vec<usize> {
    let controls = branches::controls(graph).into_iter().chain(known_inputs::deciding(graph));
    controls.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Refuses `facts` of the inputs of `graph` that leave out a value without which it cannot be compiled.
///
/// # Errors
/// [`Error::Input`] with the first such input.
pub(crate) fn decided(graph: &Graph, facts: &[Fact]) -> Result<()> {
    match controls(graph).into_iter().find(|&input| facts[input].value.is_none()) {
        None => Ok(()),
        Some(input) => {
            let input = &graph.inputs[input];
            Err(Error::Input {
                name: input.name.clone(),
                expected: format!("{input}, whose value decides how the model computes"),
                got: format!("none to plan for; give it with `--value {}=...`", input.name),
            })
        }
    }
}

/// `graph` as tract takes it for inputs of these types, shapes and known values; `constant` computes what hangs
/// on shapes alone. Borrowed where there is nothing to rewrite.
///
/// # Errors
/// [`Error::Unsupported`] with the nodes that a pass should take and could not.
pub(crate) fn specialize<'a>(
    graph: &'a Graph,
    facts: &[Fact],
    constant: Constant,
) -> Result<Cow<'a, Graph>> {
    let graph = known_inputs::fix(graph, facts);
    if !graph.nodes.iter().any(|node| node.is("If") || node.is("CumSum") || takes(node)) {
        return Ok(graph);
    }
    let mut graph = graph.into_owned();
    // Branches first: what they hold is the other passes' work too.
    branches::run(&mut graph, facts, constant);
    cum_sum::run(&mut graph);
    lstm::run(&mut graph);
    graph.remove_dead();
    let left = graph.nodes.iter().filter(|node| takes(node));
    let findings: Vec<String> =
        left.map(|node| format!("{}: {}", node.place(), lstm::REFUSED)).collect();
    if findings.is_empty() {
        return Ok(Cow::Owned(graph));
    }
    Err(Error::Unsupported { model: graph.name.clone(), findings })
}
