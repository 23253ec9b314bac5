//! Rounding that costs too much accuracy: which nodes bring the error, and how many of them have to be put
//! back to something finer.

use crate::error::Result;
use crate::graph::{Graph, ValueSpec};
use crate::quantize::Precision;
use crate::samples::Samples;
use crate::session::Session;
use crate::tensor::DType;

/// Samples that the noise of each node is measured on: means over that many texts stand still.
const SAMPLES: usize = 64;

/// The error that rounding brings into one node's output.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Noise {
    /// The value that the node writes.
    pub node: String,
    /// Power of the output over the power of its error, in dB, where the node reads the same in f32
    /// and rounded.
    pub signal_to_noise_db: f64,
    /// What it was packed in.
    pub stored_as: Precision,
}

/// One attempt to hold the gate.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Round {
    /// Nodes that were put back, the noisiest first,
    pub put_back: usize,
    /// to this; all others are in what was asked for, or what came before this.
    pub to: Precision,
    /// Accuracy, correlation or agreement, 0 to 1.
    pub score: f64,
    /// As [`Session::int8_mac_share`](crate::Session::int8_mac_share) says it of the longest sequence.
    pub int8_mac_share: Option<f64>,
}

/// What was done about the loss, and what it cost.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Repair {
    /// The attempts, in order; the last one was packed.
    pub rounds: Vec<Round>,
    /// Every node that could be put back in the last attempts, the noisiest first.
    pub nodes: Vec<Noise>,
}

/// How many nodes to put back after `back` were not enough: twice as many, at most `all`; `None` where
/// they are back already.
pub(crate) fn next(back: usize, all: usize) -> Option<usize> {
    let more = (2 * back).max(1).min(all);
    (more > back).then_some(more)
}

/// An optimized graph with a twin beside each node of `names`. The twin reads what the node reads; its
/// output, named by [`twin_of`], is to be rounded.
pub(crate) fn with_twins(graph: &Graph, names: &[String]) -> Graph {
    let mut twins = graph.clone();
    twins.nodes = Vec::with_capacity(graph.nodes.len() + names.len());
    for node in &graph.nodes {
        twins.nodes.push(node.clone());
        if names.iter().any(|name| name == node.output()) {
            let mut twin = node.clone();
            twin.outputs[0] = twin_of(node.output());
            twin.name.clone_from(&twin.outputs[0]);
            twins.nodes.push(twin);
        }
    }
    let outputs = names.iter().flat_map(|name| [name.clone(), twin_of(name)]);
    twins.outputs = outputs.map(|name| ValueSpec::new(&name, DType::F32, &[])).collect();
    twins
}

/// The value that the twin of `node` writes.
pub(crate) fn twin_of(node: &str) -> String {
    format!("{node}.twin")
}

/// The noise of each node of `session`, which runs a graph [`with_twins`] in `precision`, on the first
/// `samples`; the noisiest first.
///
/// # Errors
/// Those of running the model.
pub(crate) fn noise(
    session: &Session,
    names: &[String],
    precision: Precision,
    samples: &Samples,
) -> Result<Vec<Noise>> {
    // Per node: power of the signal, power of the error.
    let mut powers = vec![[0.0_f64; 2]; names.len()];
    for input in samples.inputs(session, SAMPLES)? {
        let outputs = session.run(&input)?;
        for (power, pair) in powers.iter_mut().zip(outputs.chunks_exact(2)) {
            let [exact, rounded] =
                [&pair[0].1, &pair[1].1].map(|it| it.to_f32().unwrap_or_default());
            for (exact, rounded) in exact.into_iter().zip(rounded) {
                power[0] += f64::from(exact).powi(2);
                power[1] += f64::from(exact - rounded).powi(2);
            }
        }
    }
    let noise = |(name, [signal, error]): (&String, [f64; 2])| Noise {
        node: name.clone(),
        signal_to_noise_db: 10.0
            * (signal.max(f64::MIN_POSITIVE) / error.max(f64::MIN_POSITIVE)).log10(),
        stored_as: precision,
    };
    let mut nodes: Vec<Noise> = names.iter().zip(powers).map(noise).collect();
    nodes.sort_by(|a, b| a.signal_to_noise_db.total_cmp(&b.signal_to_noise_db));
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_many_are_put_back_until_all_are() {
        let mut back = 0;
        let mut steps = Vec::new();
        while let Some(more) = next(back, 7) {
            back = more;
            steps.push(back);
        }
        assert_eq!(steps, [1, 2, 4, 7]);
        assert_eq!(next(0, 0), None);
    }
}
