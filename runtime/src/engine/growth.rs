//! What a graph's constants grow to is known before tract computes them: a file of a thousand bytes may
//! ask for an `Expand` to a terabyte.
//!
//! tract evaluates what depends on constants alone while it infers shapes. Here each node's shapes are
//! inferred first, and what its outputs would take is counted.

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::InferenceFact;

/// All that constants may grow to beside what the file holds: eight times more than any model that we
/// know of needs, and what even a small board can address.
const GROWTH_BYTES: u64 = 256 << 20;

/// Refuses `model` where its constants would evaluate to more than [`GROWTH_BYTES`] beside `held_bytes`,
/// those that it holds.
///
/// # Errors
/// The node at which they pass that.
pub(super) fn admit(model: &mut InferenceModel, held_bytes: u64) -> TractResult<()> {
    // As many again for a copy of each in another layout or type.
    let limit = GROWTH_BYTES.saturating_add(held_bytes.saturating_mul(4));
    let mut total: u64 = 0;
    for id in model.eval_order()? {
        let Ok((inputs, outputs)) = model.node_facts(id) else { continue };
        let (inputs, outputs): (TVec<_>, TVec<_>) =
            (inputs.into_iter().cloned().collect(), outputs.into_iter().cloned().collect());
        let mut op = model.node(id).op.clone();
        if !inputs.is_empty() && inputs.iter().all(|fact| fact.value.is_concrete()) {
            let facts = op.infer_facts(inputs.iter().collect(), outputs.iter().collect(), tvec!());
            let grown = facts.map_or(0, |(_, outputs, _)| {
                outputs.iter().map(bytes).fold(0, u64::saturating_add)
            });
            let grown = if has_vast_extent(&op.name(), &inputs) { u64::MAX } else { grown };
            total = total.saturating_add(grown);
        }
        if total > limit {
            return Err(TractError::msg(format!(
                "node `{}`: the constants up to here evaluate to {total} bytes, the limit is {limit}; \
                 export the model with smaller constant shapes",
                model.node(id).name
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
