//! Gradients cut to a length.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// Scales the gradients of `module` so that their norm, taken over all parameters together, is at most `limit`
/// (Pascanu, Mikolov and Bengio 2013).
pub(crate) fn clip(
    gradients: GradientsParams,
    module: &impl Module,
    limit: f64,
) -> GradientsParams {
    let mut squares = Squares { gradients: &gradients, sums: Vec::new() };
    module.visit(&mut squares);
    let norm = squares.norm();
    if norm <= limit {
        return gradients;
    }
    let mut scale = Scale { gradients, factor: limit / norm };
    module.visit(&mut scale);
    scale.gradients
}

/// The squared length of each gradient, where it was computed.
struct Squares<'a> {
    gradients: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl Squares<'_> {
    /// The norm of all together. They are read at once: on a GPU each reading waits for all that is under way.
    fn norm(self) -> f64 {
        if self.sums.is_empty() {
            return 0.0;
        }
        let sums: Vec<f32> =
            Tensor::cat(self.sums, 0).into_data().try_to_vec().expect("gradients are f32");
        sums.into_iter().map(f64::from).sum::<f64>().sqrt()
    }
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.sums.push(gradient.square().sum());
        }
    }
}

struct Scale {
    gradients: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient.mul_scalar(self.factor));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;

    fn gradients(linear: &Linear, device: &Device) -> GradientsParams {
        let mut gradients = GradientsParams::new();
        let weight = Tensor::<2>::from_data([[2.0, 4.0]], device);
        gradients.register(linear.weight.id, weight);
        let bias = linear.bias.as_ref().expect("it has a bias");
        gradients.register(bias.id, Tensor::<1>::from_data([4.0, 0.0], device));
        gradients
    }

    #[test]
    fn the_norm_is_taken_over_all_parameters() {
        let device = Device::flex();
        let linear = LinearConfig::new(1, 2).init(&device);
        // The norm of (2, 4, 4, 0) is 6.
        for (limit, expected) in [(6.0, [2.0, 4.0]), (3.0, [1.0, 2.0])] {
            let clipped = clip(gradients(&linear, &device), &linear, limit);
            let weight = clipped.get::<2>(linear.weight.id).expect("registered");
            let values: Vec<f32> = weight.into_data().try_to_vec().expect("f32");
            assert_eq!(values, expected, "limit {limit}");
        }
    }
}
