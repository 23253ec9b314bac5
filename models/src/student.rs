//! The student before training: layers, heads, neurons and word pieces chosen from the teacher.

use std::collections::BTreeMap;

use burn::tensor::Device;

use crate::batches::Examples;
use crate::encoder::Encoder;
use crate::interface::{Dataset, Mode, Student};
use crate::losses;
use crate::recipe::{self, Layers};
use crate::teacher::new_head;
use crate::weights::{Architecture, Array, Weights};

/// Examples that layers are weighed on.
const WEIGHED_ON: usize = 256;

/// The student of `recipe`, cut out of `teacher`, starting from its layers `layers`; `kept` are the rows of
/// its word embeddings. New heads of early exits are drawn by `seed`.
///
/// A neuron of a feed-forward block matters by the length of its incoming weights times that of
/// its outgoing ones: what it can contribute at most, up to the length of the input. An attention head
/// matters likewise by its values and what becomes of them.
///
/// # Errors
/// The first part that the teacher does not have, in words.
pub(crate) fn cut(
    teacher: &Weights,
    recipe: &recipe::Student,
    layers: &[usize],
    kept: &[usize],
    seed: u64,
) -> Result<Weights, String> {
    let from = teacher.architecture();
    let to = Architecture {
        vocabulary: kept.len(),
        positions: recipe.positions,
        layers: layers.len(),
        heads: recipe.heads.unwrap_or(from.heads),
        feed_forward: recipe.feed_forward,
        exits: if recipe.exits.is_some() { layers.len() - 1 } else { 0 },
        ..from
    };
    check(from, to, layers)?;
    let mut arrays = BTreeMap::new();
    for name in ["norm.gamma", "norm.beta"] {
        arrays.insert(name.to_owned(), teacher.get(name).clone());
    }
    if to.labels > 0 {
        for name in ["head.weight", "head.bias"] {
            arrays.insert(name.to_owned(), teacher.get(name).clone());
        }
        arrays.extend((0..to.exits).flat_map(|exit| new_head(&format!("exits.{exit}"), to, seed)));
    }
    let positions: Vec<usize> = (0..to.positions).collect();
    arrays.insert("words.weight".to_owned(), teacher.get("words.weight").rows(kept));
    arrays.insert("positions.weight".to_owned(), teacher.get("positions.weight").rows(&positions));
    for (layer, &source) in layers.iter().enumerate() {
        for (part, array) in layer_parts(teacher, source, to) {
            arrays.insert(format!("layers.{layer}.{part}"), array);
        }
    }
    Weights::new(to, arrays)
}

/// The whole teacher with the word pieces `kept` alone: it then reads what the student reads.
///
/// # Errors
/// As [`cut`].
pub(crate) fn same_words(teacher: &Weights, kept: &[usize]) -> Result<Weights, String> {
    let architecture = Architecture { vocabulary: kept.len(), ..teacher.architecture() };
    let mut arrays = teacher.arrays().clone();
    arrays.insert("words.weight".to_owned(), teacher.get("words.weight").rows(kept));
    Weights::new(architecture, arrays)
}

/// The layers of `teacher` that `layers` names, in ascending order. Where it names a number, the layer whose
/// absence turns the embeddings of `examples` least is left out, again and again, until so many are left.
///
/// # Errors
/// Where more layers are asked for than there are, in words.
pub(crate) fn layers(
    teacher: &Weights,
    layers: &Layers,
    examples: &Examples,
) -> Result<Vec<usize>, String> {
    let count = match layers {
        Layers::These(layers) => return Ok(layers.clone()),
        Layers::Chosen(chosen) => chosen.most_important,
    };
    let depth = teacher.architecture().layers;
    if count > depth {
        return Err(format!("`student.layers` {count} is above {depth}"));
    }
    let device = Device::flex();
    let rows: Vec<usize> =
        (0..examples.len()).step_by(examples.len().div_ceil(WEIGHED_ON)).collect();
    let batch = examples.batch(&rows);
    let says = |encoder: &Encoder| encoder.forward(&batch, &device, Mode::default()).embeddings;
    let mut encoder = Encoder::new(teacher, &device);
    let whole = says(&encoder);
    let mut left: Vec<usize> = (0..depth).collect();
    while left.len() > count {
        let turned = |place: usize| -> f32 {
            losses::cosine(says(&encoder.clone().without(place)), whole.clone()).into_scalar()
        };
        let harm: Vec<f32> = (0..left.len()).map(turned).collect();
        let least = (0..left.len()).min_by(|&a, &b| harm[a].total_cmp(&harm[b]));
        let least = least.expect("there are layers left");
        encoder = encoder.without(least);
        left.remove(least);
    }
    Ok(left)
}

fn check(from: Architecture, to: Architecture, layers: &[usize]) -> Result<(), String> {
    let last = layers.last().copied().unwrap_or(0);
    let limits = [
        ("student.layers", last, from.layers.saturating_sub(1)),
        ("student.heads", to.heads, from.heads),
        ("student.feed_forward", to.feed_forward, from.feed_forward),
        ("student.positions", to.positions, from.positions),
    ];
    match limits.into_iter().find(|(_, asked, limit)| asked > limit) {
        Some((field, asked, limit)) => Err(format!("`{field}` {asked} is above {limit}")),
        None => Ok(()),
    }
}

/// The parameters of the teacher's layer `source` by name within the layer, its heads and the feed-forward
/// block cut to the sizes `to`.
fn layer_parts(teacher: &Weights, source: usize, to: Architecture) -> Vec<(String, Array)> {
    let prefix = format!("layers.{source}.");
    let get = |part: &str| teacher.get(&format!("{prefix}{part}"));
    let neurons = strongest(get("expand.weight"), get("contract.weight"), 1, to.feed_forward);
    let width = to.head_width;
    let heads = strongest(get("value.weight"), get("attended.weight"), width, to.heads);
    let columns: Vec<usize> =
        heads.iter().flat_map(|head| head * width..(head + 1) * width).collect();
    let parts = teacher.arrays().iter().filter_map(|(name, array)| {
        let part = name.strip_prefix(&prefix)?;
        let array = match part {
            "expand.weight" => array.transposed().rows(&neurons).transposed(),
            "expand.bias" | "contract.weight" => array.rows(&neurons),
            "query.weight" | "key.weight" | "value.weight" => {
                array.transposed().rows(&columns).transposed()
            }
            "query.bias" | "key.bias" | "value.bias" | "attended.weight" => array.rows(&columns),
            _ => array.clone(),
        };
        Some((part.to_owned(), array))
    });
    parts.collect()
}

/// Of the groups of `width` neighbours between two linear layers the `count` that matter most, ascending.
fn strongest(incoming: &Array, outgoing: &Array, width: usize, count: usize) -> Vec<usize> {
    let squared = |row: &[f32]| row.iter().map(|w| w * w).sum::<f32>();
    let incoming = incoming.transposed();
    let groups = |array: &Array| -> Vec<f32> {
        array.values.chunks(array.shape[1] * width).map(squared).collect()
    };
    let strength: Vec<f32> =
        groups(&incoming).iter().zip(groups(outgoing)).map(|(a, b)| a * b).collect();
    let mut chosen: Vec<usize> = (0..strength.len()).collect();
    chosen.sort_by(|&a, &b| strength[b].total_cmp(&strength[a]));
    chosen.truncate(count);
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::MostImportant;
    use crate::tiny;

    #[test]
    fn the_strongest_neurons_and_heads_are_kept_in_order() {
        // Three neurons of strengths 1*9, 4*1 and 4*4, as squares.
        let incoming = Array { shape: vec![1, 3], values: vec![1.0, 2.0, 2.0] };
        let outgoing = Array { shape: vec![3, 1], values: vec![3.0, 1.0, 2.0] };
        assert_eq!(strongest(&incoming, &outgoing, 1, 2), [0, 2]);
        // Two heads of width 2: (1 + 1) * (4 + 4) against (4 + 1) * (1 + 1).
        let values = Array { shape: vec![1, 4], values: vec![1.0, 1.0, 2.0, 1.0] };
        let attended = Array { shape: vec![4, 1], values: vec![2.0, 2.0, 1.0, 1.0] };
        assert_eq!(strongest(&values, &attended, 2, 1), [0]);
    }

    #[test]
    fn the_layer_that_does_nothing_goes_first() {
        let mut arrays = tiny::weights(tiny::ARCHITECTURE, 4).arrays().clone();
        for part in ["attended.weight", "attended.bias", "contract.weight", "contract.bias"] {
            let array = arrays.get_mut(&format!("layers.1.{part}")).expect("of the layout");
            array.values.fill(0.0);
        }
        for norm in ["attention_norm", "feed_forward_norm"] {
            for (part, value) in [("gamma", 1.0), ("beta", 0.0)] {
                let array = arrays.get_mut(&format!("layers.1.{norm}.{part}")).expect("of it");
                array.values.fill(value);
            }
        }
        // The layer before ends in a norm of its own, so a second one of gain 1 changes little.
        let weights = Weights::new(tiny::ARCHITECTURE, arrays).expect("the same layout");
        let rows = (0..20).map(|n| vec![3, 7 + n, 9 + n, 4]).collect();
        let examples = Examples { rows, labels: Vec::new() };
        let wanted = Layers::Chosen(MostImportant { most_important: 2 });
        assert_eq!(layers(&weights, &wanted, &examples), Ok(vec![0, 2]));
        let wanted = Layers::Chosen(MostImportant { most_important: 4 });
        assert!(
            layers(&weights, &wanted, &examples).expect_err("three layers").contains("above 3")
        );
    }
}
