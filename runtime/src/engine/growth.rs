//! What a graph's constants grow to is known before tract computes them: a file of a thousand bytes may
//! ask for an `Expand` to a terabyte.
//!
//! tract evaluates what depends on constants alone while it infers shapes. Here each node's shapes are
//! inferred first, and what its outputs would take is counted, in the bodies of `Loop`, `Scan` and `If` too.

use std::collections::HashMap;

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::InferenceFact;

use super::{Parsed, parsed};
use crate::graph::{Graph, Node};

/// All that constants may grow to beside what the file holds: eight times more than any model that we
/// know of needs, and what even a small board can address.
const GROWTH_BYTES: u64 = 256 << 20;

/// Refuses `model`, which was read from `graph` with its values at `outlets`, where its constants would
/// evaluate to more than [`GROWTH_BYTES`] beside those that it holds.
///
/// # Errors
/// The node at which they pass that.
pub(super) fn admit(
    model: &mut InferenceModel,
    graph: &Graph,
    outlets: &HashMap<String, OutletId>,
) -> TractResult<()> {
    // As many again for a copy of each in another layout or type.
    let limit = GROWTH_BYTES.saturating_add(held_bytes(graph).saturating_mul(4));
    Growth { limit, total: 0 }.add(model, graph, outlets)
}

/// Bytes of the constants of `graph` and its subgraphs.
fn held_bytes(graph: &Graph) -> u64 {
    let own: u64 = graph.initializers.values().map(|tensor| tensor.bytes().len() as u64).sum();
    let nodes = graph.nodes.iter().flat_map(|node| node.subgraphs());
    own + nodes.map(held_bytes).sum::<u64>()
}

struct Growth {
    limit: u64,
    total: u64,
}

impl Growth {
    fn add(
        &mut self,
        model: &mut InferenceModel,
        graph: &Graph,
        outlets: &HashMap<String, OutletId>,
    ) -> TractResult<()> {
        let with_bodies = graph.nodes.iter().filter(|node| node.subgraphs().next().is_some());
        let with_bodies: HashMap<usize, &Node> =
            with_bodies.filter_map(|node| Some((outlets.get(node.output())?.node, node))).collect();
        for id in model.eval_order()? {
            // tract infers a body with the node that it belongs to, and computes in it.
            if let Some(node) = with_bodies.get(&id) {
                for body in node.subgraphs() {
                    self.add_body(model, graph, body, outlets)?;
                }
            }
            let Ok((inputs, outputs)) = model.node_facts(id) else { continue };
            let (inputs, outputs): (TVec<_>, TVec<_>) =
                (inputs.into_iter().cloned().collect(), outputs.into_iter().cloned().collect());
            let mut op = model.node(id).op.clone();
            if !inputs.is_empty() && inputs.iter().all(|fact| fact.value.is_concrete()) {
                let facts =
                    op.infer_facts(inputs.iter().collect(), outputs.iter().collect(), tvec!());
                let grown = facts.map_or(0, |(_, outputs, _)| {
                    outputs.iter().map(bytes).fold(0, u64::saturating_add)
                });
                let grown = if has_vast_extent(&op.name(), &inputs) { u64::MAX } else { grown };
                self.total = self.total.saturating_add(grown);
            }
            if self.total > self.limit {
                return Err(TractError::msg(format!(
                    "node `{}`: the constants up to here evaluate to {} bytes, the limit is {}; \
                     export the model with smaller constant shapes",
                    model.node(id).name,
                    self.total,
                    self.limit
                )));
            }
            // What is wrong with a node is reported by the analysis of the whole.
            let facts = op.infer(inputs.iter().collect(), outputs.iter().collect(), tvec!());
            for (slot, fact) in facts.into_iter().flat_map(|(_, outputs, _)| outputs).enumerate() {
                model.set_outlet_fact(OutletId::new(id, slot), fact)?;
            }
        }
        Ok(())
    }

    /// What the nodes of `body`, a subgraph of `graph`, make of their constants and of those around them.
    fn add_body(
        &mut self,
        model: &InferenceModel,
        graph: &Graph,
        body: &Graph,
        outlets: &HashMap<String, OutletId>,
    ) -> TractResult<()> {
        // What is wrong with a body is reported by the analysis of the whole, too.
        let body = Graph { opsets: graph.opsets.clone(), ..body.clone() };
        let Ok(Parsed { model: mut inner, outlets: within }) = parsed(&body) else { return Ok(()) };
        for (name, outlet) in &within {
            if let Some(fact) = outlets.get(name).filter(|_| !body.binds(name)) {
                inner.set_outlet_fact(*outlet, model.outlet_fact(*fact)?.clone())?;
            }
        }
        // Most exporters leave to inference what a body takes, and that reads like a scalar.
        let unsaid = body.inputs.iter().filter(|input| input.shape.is_empty());
        for outlet in unsaid.filter_map(|input| within.get(&input.name)) {
            inner.set_outlet_fact(*outlet, InferenceFact::default())?;
        }
        self.add(&mut inner, &body, &within)
    }
}

/// Bytes of a value of this fact; an extent that is not known counts as one.
fn bytes(fact: &InferenceFact) -> u64 {
    let width = fact.datum_type.concretize().map_or(1, |it| it.size_of() as u64);
    let extents = fact.shape.dims().filter_map(|dim| dim.concretize()?.to_i64().ok());
    extents.fold(width, |bytes, extent| bytes.saturating_mul(extent.max(0) as u64))
}

/// Whether `operator`, which takes extents as values, takes one that does not fit 32 bits: tract infers
/// the shape of a `Pad` with the lower half of it, and pads with all of it.
fn has_vast_extent(operator: &str, inputs: &[InferenceFact]) -> bool {
    let vast = |fact: &InferenceFact| {
        let Some(value) = fact.value.concretize() else { return false };
        let integer = value.datum_type().is_integer() || value.datum_type() == TDim::datum_type();
        let Some(extents) = integer.then(|| value.cast_to::<i64>().ok()).flatten() else {
            return false;
        };
        let bytes = extents.as_bytes().chunks_exact(size_of::<i64>());
        bytes
            .filter_map(|bytes| bytes.try_into().ok().map(i64::from_ne_bytes))
            .any(|extent| i32::try_from(extent).is_err())
    };
    // The data come first.
    matches!(operator, "Pad" | "Tile" | "MultiBroadcastTo" | "Expand")
        && inputs.iter().skip(1).any(vast)
}
