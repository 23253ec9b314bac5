//! An encoder as plain numbers: what a checkpoint holds, what pruning cuts, what the exporter writes.
//!
//! Linear layers are `[input, output]`, so that `y = x W + b`; embeddings are `[entries, hidden]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::interface::Sizes;

/// Added to the variance in every layer norm, as in the original BERT.
pub(crate) const NORM_EPSILON: f64 = 1e-12;

/// The sizes of an encoder, with a classification head where there are labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architecture {
    /// Word pieces.
    pub vocabulary: usize,
    /// Longest input, in tokens.
    pub positions: usize,
    /// Width of a token's vector.
    pub hidden: usize,
    /// Attention heads a layer.
    pub heads: usize,
    /// Width of an attention head.
    pub head_width: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Width between the two linear layers of a feed-forward block.
    pub feed_forward: usize,
    /// Classes; 0 where the answer is the embedding itself.
    pub labels: usize,
    /// Layers, from the first on, after which there is an answer besides the last one's.
    pub exits: usize,
}

/// Values in row-major order under a shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// Every parameter of a network by name: exactly those of the layout that its sizes give.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weights<S = Architecture> {
    sizes: S,
    arrays: BTreeMap<String, Array>,
}

impl Sizes for Architecture {
    fn layout(&self) -> Vec<(String, Vec<usize>)> {
        let Architecture { vocabulary, positions, hidden, feed_forward, labels, .. } = *self;
        let attention = self.heads * self.head_width;
        let mut layout = vec![
            ("words.weight".to_owned(), vec![vocabulary, hidden]),
            ("positions.weight".to_owned(), vec![positions, hidden]),
        ];
        layout.extend(norm("norm", hidden));
        for layer in 0..self.layers {
            for part in ["query", "key", "value"] {
                layout.extend(linear(&format!("layers.{layer}.{part}"), hidden, attention));
            }
            layout.extend(linear(&format!("layers.{layer}.attended"), attention, hidden));
            layout.extend(norm(&format!("layers.{layer}.attention_norm"), hidden));
            layout.extend(linear(&format!("layers.{layer}.expand"), hidden, feed_forward));
            layout.extend(linear(&format!("layers.{layer}.contract"), feed_forward, hidden));
            layout.extend(norm(&format!("layers.{layer}.feed_forward_norm"), hidden));
        }
        if labels > 0 {
            layout.extend(linear("head", hidden, labels));
            let exits = 0..self.exits;
            layout.extend(exits.flat_map(|exit| linear(&format!("exits.{exit}"), hidden, labels)));
        }
        layout
    }

    fn work(&self) -> f64 {
        self.encoder_parameters() as f64
    }

    fn width(&self) -> usize {
        self.hidden
    }
}

impl Architecture {
    /// Parameters of the transformer layers alone: no embeddings, no head.
    pub fn encoder_parameters(&self) -> usize {
        self.count(|name| name.starts_with("layers."))
    }

    /// All parameters.
    pub fn parameters(&self) -> usize {
        self.count(|_| true)
    }

    fn count(&self, of: impl Fn(&str) -> bool) -> usize {
        let sizes = self.layout().into_iter().filter(|(name, _)| of(name));
        sizes.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

impl Array {
    /// `rows` of a matrix, in the order given.
    pub(crate) fn rows(&self, rows: &[usize]) -> Array {
        let width: usize = self.shape[1..].iter().product();
        let row = |&row: &usize| &self.values[row * width..(row + 1) * width];
        let shape = [&[rows.len()], &self.shape[1..]].concat();
        Array { shape, values: rows.iter().flat_map(row).copied().collect() }
    }

    /// A matrix with its two axes exchanged.
    pub(crate) fn transposed(&self) -> Array {
        let (rows, columns) = (self.shape[0], self.shape[1]);
        let column = |column| (0..rows).map(move |row| self.values[row * columns + column]);
        Array { shape: vec![columns, rows], values: (0..columns).flat_map(column).collect() }
    }
}

impl<S: Sizes> Weights<S> {
    /// `arrays` as the parameters of a network of `sizes`; what does not belong to it is dropped.
    ///
    /// # Errors
    /// The first parameter that is missing or has another shape, in words.
    pub(crate) fn new(sizes: S, mut arrays: BTreeMap<String, Array>) -> Result<Weights<S>, String> {
        let mut kept = BTreeMap::new();
        for (name, shape) in sizes.layout() {
            match arrays.remove(&name) {
                Some(array) if array.shape == shape => kept.insert(name, array),
                Some(array) => {
                    return Err(format!("`{name}` is {:?}, expected {shape:?}", array.shape));
                }
                None => return Err(format!("`{name}` {shape:?} is missing")),
            };
        }
        Ok(Weights { sizes, arrays: kept })
    }

    pub(crate) fn sizes(&self) -> &S {
        &self.sizes
    }

    /// The parameter `name` of the layout.
    ///
    /// # Panics
    /// Where the layout has no such name.
    pub(crate) fn get(&self, name: &str) -> &Array {
        let array = self.arrays.get(name);
        array.unwrap_or_else(|| panic!("the layout has `{name}`"))
    }

    /// Moves every parameter to `keep` of itself and the rest of `other`, which has the same layout.
    pub(crate) fn move_towards(&mut self, other: &Weights<S>, keep: f64) {
        let keep = keep as f32;
        for (own, other) in self.arrays.values_mut().zip(other.arrays.values()) {
            for (own, other) in own.values.iter_mut().zip(&other.values) {
                *own = keep * *own + (1.0 - keep) * other;
            }
        }
    }

    /// What its values are, as bytes, parameter by parameter.
    pub(crate) fn parts(&self) -> Vec<&[u8]> {
        self.arrays.values().map(|array| bytemuck::cast_slice(&array.values)).collect()
    }

    /// All parameters by name.
    pub(crate) fn arrays(&self) -> &BTreeMap<String, Array> {
        &self.arrays
    }
}

impl Weights {
    pub(crate) fn architecture(&self) -> Architecture {
        self.sizes
    }

    /// The encoder that ends at early exit `exit`, counted from 0.
    ///
    /// # Panics
    /// Where it has no such exit.
    pub(crate) fn until_exit(&self, exit: usize) -> Weights {
        let architecture = Architecture { layers: exit + 1, exits: 0, ..self.sizes };
        let mut arrays = self.arrays.clone();
        for kind in ["weight", "bias"] {
            arrays
                .insert(format!("head.{kind}"), self.get(&format!("exits.{exit}.{kind}")).clone());
        }
        Weights::new(architecture, arrays).expect("a part of the layout")
    }
}

/// A safetensors file over `tensors` with one metadata entry.
pub(crate) fn serialize<'a>(
    tensors: impl Iterator<Item = (String, safetensors::tensor::TensorView<'a>)>,
    key: &str,
    value: String,
) -> Vec<u8> {
    let metadata = std::collections::HashMap::from([(key.to_owned(), value)]);
    safetensors::serialize(tensors, Some(metadata)).expect("shapes fit their values")
}

/// `array` as safetensors sees it.
pub(crate) fn view(array: &Array) -> safetensors::tensor::TensorView<'_> {
    let bytes = bytemuck::cast_slice(&array.values);
    safetensors::tensor::TensorView::new(safetensors::Dtype::F32, array.shape.clone(), bytes)
        .expect("an array's shape fits its values")
}

/// One metadata entry of a safetensors file.
pub(crate) fn metadata(bytes: &[u8], key: &str) -> Result<String, String> {
    let (_, header) =
        safetensors::SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let entries = header.metadata().as_ref();
    entries.and_then(|entries| entries.get(key).cloned()).ok_or(format!("no metadata `{key}`"))
}

/// The f32 tensors of a safetensors file whose names start with `prefix`, without it.
pub(crate) fn arrays(bytes: &[u8], prefix: &str) -> Result<BTreeMap<String, Array>, String> {
    let file = safetensors::SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut arrays = BTreeMap::new();
    for (name, tensor) in file.iter() {
        let Some(name) = name.strip_prefix(prefix) else { continue };
        if tensor.dtype() == safetensors::Dtype::F32 {
            let values = bytemuck::pod_collect_to_vec(tensor.data());
            arrays.insert(name.to_owned(), Array { shape: tensor.shape().to_vec(), values });
        }
    }
    Ok(arrays)
}

fn linear(name: &str, input: usize, output: usize) -> [(String, Vec<usize>); 2] {
    [(format!("{name}.weight"), vec![input, output]), (format!("{name}.bias"), vec![output])]
}

fn norm(name: &str, width: usize) -> [(String, Vec<usize>); 2] {
    [(format!("{name}.gamma"), vec![width]), (format!("{name}.beta"), vec![width])]
}
