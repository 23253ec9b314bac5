//! The student before training: layers, neurons and word pieces chosen from the teacher.

use std::collections::BTreeMap;

use crate::recipe;
use crate::weights::{Architecture, Array, Weights};

/// The student of `recipe`, cut out of `teacher`; `kept` are the rows of its word embeddings.
///
/// A neuron of a feed-forward block matters by the length of its incoming weights times that of
/// its outgoing ones: what it can contribute at most, up to the length of the input.
///
/// # Errors
/// The first part that the teacher does not have, in words.
pub(crate) fn cut(
    teacher: &Weights,
    recipe: &recipe::Student,
    kept: &[usize],
) -> Result<Weights, String> {
    let from = teacher.architecture();
    let to = Architecture {
        vocabulary: kept.len(),
        positions: recipe.positions,
        layers: recipe.layers.len(),
        feed_forward: recipe.feed_forward,
        ..from
    };
    check(from, to, recipe)?;
    let mut arrays = BTreeMap::new();
    for name in ["norm.gamma", "norm.beta", "head.weight", "head.bias"] {
        arrays.insert(name.to_owned(), teacher.get(name).clone());
    }
    let positions: Vec<usize> = (0..to.positions).collect();
    arrays.insert("words.weight".to_owned(), teacher.get("words.weight").rows(kept));
    arrays.insert("positions.weight".to_owned(), teacher.get("positions.weight").rows(&positions));
    for (layer, &source) in recipe.layers.iter().enumerate() {
        for (part, array) in layer_parts(teacher, source, to.feed_forward) {
            arrays.insert(format!("layers.{layer}.{part}"), array);
        }
    }
    Weights::new(to, arrays)
}

fn check(from: Architecture, to: Architecture, recipe: &recipe::Student) -> Result<(), String> {
    let last = recipe.layers.last().copied().unwrap_or(0);
    let limits = [
        ("student.layers", last, from.layers.saturating_sub(1)),
        ("student.feed_forward", to.feed_forward, from.feed_forward),
        ("student.positions", to.positions, from.positions),
    ];
    match limits.into_iter().find(|(_, asked, limit)| asked > limit) {
        Some((field, asked, limit)) => Err(format!("`{field}` {asked} is above {limit}")),
        None => Ok(()),
    }
}

/// The parameters of the teacher's layer `source` by name within the layer, the feed-forward block
/// cut to `width` neurons.
fn layer_parts(teacher: &Weights, source: usize, width: usize) -> Vec<(String, Array)> {
    let prefix = format!("layers.{source}.");
    let kept = strongest(
        teacher.get(&format!("{prefix}expand.weight")),
        teacher.get(&format!("{prefix}contract.weight")),
        width,
    );
    let parts = teacher.arrays().iter().filter_map(|(name, array)| {
        let part = name.strip_prefix(&prefix)?;
        let array = match part {
            "expand.weight" => array.transposed().rows(&kept).transposed(),
            "expand.bias" | "contract.weight" => array.rows(&kept),
            _ => array.clone(),
        };
        Some((part.to_owned(), array))
    });
    parts.collect()
}

/// The `width` neurons that matter most, in ascending order.
fn strongest(expand: &Array, contract: &Array, width: usize) -> Vec<usize> {
    let squared = |row: &[f32]| row.iter().map(|w| w * w).sum::<f32>();
    let incoming = expand.transposed();
    let rows =
        |array: &Array| array.values.chunks(array.shape[1]).map(squared).collect::<Vec<f32>>();
    let strength: Vec<f32> =
        rows(&incoming).iter().zip(rows(contract)).map(|(a, b)| a * b).collect();
    let mut neurons: Vec<usize> = (0..strength.len()).collect();
    neurons.sort_by(|&a, &b| strength[b].total_cmp(&strength[a]));
    neurons.truncate(width);
    neurons.sort_unstable();
    neurons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_neurons_are_kept_in_order() {
        // Three neurons of strengths 1*9, 4*1 and 4*4, as squares.
        let expand = Array { shape: vec![1, 3], values: vec![1.0, 2.0, 2.0] };
        let contract = Array { shape: vec![3, 1], values: vec![3.0, 1.0, 2.0] };
        assert_eq!(strongest(&expand, &contract, 2), [0, 2]);
    }
}
