//! A network over signals as plain numbers: what a checkpoint holds and the exporter writes.
//!
//! Convolutions are `[output, input, height, width]`, the head is `[input, output]`.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;

use crate::seed::Random;
use crate::signals::front::Moments;
use crate::signals::network::Convolutional;
use crate::weights::{self, Array};

/// Every parameter of a network by name: exactly those of its layout.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weights {
    sizes: Convolutional,
    arrays: BTreeMap<String, Array>,
}

impl Weights {
    /// `arrays` as the parameters of a network of `sizes`; what does not belong to it is dropped.
    ///
    /// # Errors
    /// The first parameter that is missing or has another shape, in words.
    pub(crate) fn new(
        sizes: Convolutional,
        mut arrays: BTreeMap<String, Array>,
    ) -> Result<Weights, String> {
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

    /// Weights to start from: convolutions after He et al. 2015, which keeps the size of signals from
    /// layer to layer, normalizations that change nothing, and a front end that standardizes its maps
    /// by `moments`. `who` learns has random numbers of its own under the same `seed`.
    pub(crate) fn first(sizes: &Convolutional, moments: &Moments, who: &str, seed: u64) -> Weights {
        let Moments { mean, deviation } = moments;
        let arrays = sizes.layout().into_iter().map(|(name, shape)| {
            let (fan_in, gain) = match name.as_str() {
                "head.weight" => (shape[0], 1.0),
                _ => (shape[1..].iter().product(), 2.0),
            };
            let mut random = Random::new(seed, &format!("{who} {name}"), 0);
            let count = shape.iter().product::<usize>();
            let values = match name.rsplit_once('.').map_or("", |(_, part)| part) {
                "weight" => {
                    let size = (gain / fan_in as f32).sqrt();
                    (0..count).map(|_| size * random.normal()).collect()
                }
                "gamma" | "running_var" => vec![1.0; count],
                "scale" => deviation.iter().map(|deviation| 1.0 / deviation).collect(),
                "shift" => mean.iter().zip(deviation).map(|(mean, by)| -mean / by).collect(),
                _ => vec![0.0; count],
            };
            (name, Array { shape, values })
        });
        Weights::new(sizes.clone(), arrays.collect()).expect("its own layout")
    }

    pub(crate) fn sizes(&self) -> &Convolutional {
        &self.sizes
    }

    /// The parameter `name` of the layout.
    ///
    /// # Panics
    /// Where the layout has no such name.
    pub(crate) fn get(&self, name: &str) -> &Array {
        let array = self.arrays.get(name);
        array.unwrap_or_else(|| panic!("the layout of a network has `{name}`"))
    }

    /// All parameters by name.
    pub(crate) fn arrays(&self) -> &BTreeMap<String, Array> {
        &self.arrays
    }

    /// The parameters as tensors of a file, their names behind `prefix`.
    pub(crate) fn tensors<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (String, TensorView<'a>)> {
        let named = move |(name, array)| (format!("{prefix}{name}"), weights::view(array));
        self.arrays.iter().map(named)
    }
}
