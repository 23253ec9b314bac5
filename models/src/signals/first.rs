//! The weights that a network over signals starts from.
//!
//! Convolutions are `[output, input, height, width]`, the head is `[input, output]`.

use crate::interface::Sizes;
use crate::seed::Random;
use crate::signals::front::Moments;
use crate::signals::sizes::Convolutional;
use crate::weights::{Array, Weights};

/// Weights to start from: convolutions after He et al. 2015, which keeps the size of signals from
/// layer to layer, normalizations that change nothing, and a front end that standardizes its maps
/// by `moments`. `who` learns has random numbers of its own under the same `seed`.
pub(crate) fn first(
    sizes: &Convolutional,
    moments: &Moments,
    who: &str,
    seed: u64,
) -> Weights<Convolutional> {
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
