//! Which cases are not about inference.

use dram_runtime::Graph;
use dram_runtime::graph::Node;

/// Decided by the reader of graphs: it has no form for these.
pub(super) const VALUES: &str = "values that are no tensors (sequence, optional), or tensors of \
                                 strings, 8-bit floats, or 2- and 4-bit numbers";
const TRAINING: &str = "training: optimizers, losses, and operators in training mode";
const CLASSICAL: &str = "domain `ai.onnx.ml`: classical machine learning";
const PREVIEW: &str = "domain `ai.onnx.preview`: in no released operator set";
const RANDOM: &str = "random numbers: no two runtimes draw the same";
const IMAGES: &str = "decoding of image files";

/// Why the case of `graph` is left out; `None` where it counts.
pub(super) fn left_out(graph: &Graph) -> Option<&'static str> {
    graph.nodes.iter().find_map(node_left_out)
}

fn node_left_out(node: &Node) -> Option<&'static str> {
    let why = match (node.domain.as_str(), node.op.as_str()) {
        ("ai.onnx.preview.training", _) => Some(TRAINING),
        ("ai.onnx.preview", _) => Some(PREVIEW),
        ("ai.onnx.ml", _) => Some(CLASSICAL),
        (_, "SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss") => Some(TRAINING),
        (_, "BatchNormalization") if node.int("training_mode", 0) == 1 => Some(TRAINING),
        // Its third input says whether to drop.
        (_, "Dropout") if node.input(2).is_some() => Some(TRAINING),
        (_, "Bernoulli" | "Multinomial") => Some(RANDOM),
        (_, op) if op.starts_with("Random") => Some(RANDOM),
        (_, "ImageDecoder") => Some(IMAGES),
        _ => None,
    };
    why.or_else(|| node.subgraphs().find_map(left_out))
}
