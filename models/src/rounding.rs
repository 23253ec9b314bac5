//! The rounding of an int8 bundle inside of a forward pass: the values are those that the runtime
//! multiplies, the gradients those of the numbers before they were rounded (the straight-through estimator:
//! Bengio, Léonard and Courville 2013; Jacob et al. 2018).
//!
//! `dram_runtime::kernels` defines the rounding: weights per output channel, symmetric in ±127;
//! activations row by row in 0 to 255 with a zero point (`quantize_columns`, `quantize_rows`); word
//! embeddings row by row in ±127; attention as `attention_i8` says.

use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

/// In what numbers a forward pass multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Arithmetic {
    /// 32-bit floating point.
    #[default]
    F32,
    /// What an int8 bundle multiplies.
    Int8,
}

impl Arithmetic {
    /// `layer` applied to `x` `[rows, input]`.
    pub(crate) fn linear(self, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        if self == Arithmetic::F32 {
            return layer.forward(x);
        }
        let product = asymmetric(x).matmul(symmetric(layer.weight.val(), 0));
        match &layer.bias {
            Some(bias) => product + bias.val().unsqueeze::<2>(),
            None => product,
        }
    }

    /// `queries . keys`, of `[batch, heads, tokens, width]` each: `[batch, heads, tokens, tokens]`.
    pub(crate) fn scores(self, queries: Tensor<4>, keys: Tensor<4>) -> Tensor<4> {
        let [queries, keys] = match self {
            Arithmetic::F32 => [queries, keys],
            Arithmetic::Int8 => [queries, keys].map(|x| symmetric(x, 3)),
        };
        queries.matmul(keys.swap_dims(2, 3))
    }

    /// `softmax(scores + bias) . values`, of `[batch, heads, tokens, width]`. `bias` is `[batch, 1, 1, tokens]`, zero for the
    /// tokens that are attended to.
    pub(crate) fn attended(
        self,
        scores: Tensor<4>,
        bias: Tensor<4>,
        values: Tensor<4>,
    ) -> Tensor<4> {
        if self == Arithmetic::F32 {
            return softmax(scores + bias, 3).matmul(values);
        }
        let kept = bias.clone().equal_elem(0.0).float().swap_dims(2, 3);
        shares(scores + bias).matmul(symmetric(values * kept, 2))
    }
}

/// The softmax along the last axis, of 255ths of its largest share.
fn shares(scores: Tensor<4>) -> Tensor<4> {
    let plain = scores.clone().detach();
    let powers = (plain.clone() - plain.max_dim(3)).exp().mul_scalar(255.0).round();
    through(powers.clone() / powers.sum_dim(3), softmax(scores, 3))
}

/// `x` in ±127 steps, the largest magnitude along `axis` being 127.
pub(crate) fn symmetric<const D: usize>(x: Tensor<D>, axis: usize) -> Tensor<D> {
    let plain = x.clone().detach();
    let step = step(plain.clone().abs().max_dim(axis).div_scalar(127.0));
    let rounded = (plain / step.clone()).round().clamp(-127.0, 127.0) * step;
    through(rounded, x)
}

/// Each row of `x` in 255 steps over its own range, which is widened to hold zero.
fn asymmetric(x: Tensor<2>) -> Tensor<2> {
    let plain = x.clone().detach();
    let least = plain.clone().min_dim(1).clamp_max(0.0);
    let most = plain.clone().max_dim(1).clamp_min(0.0);
    let step = step((most - least.clone()).div_scalar(255.0));
    let zero = (least.neg() / step.clone()).round().clamp(0.0, 255.0);
    let steps = ((plain / step.clone()).round() + zero.clone()).clamp(0.0, 255.0);
    through((steps - zero) * step, x)
}

/// The step itself, or one where it is zero.
fn step<const D: usize>(step: Tensor<D>) -> Tensor<D> {
    let none = step.clone().equal_elem(0.0).float();
    step + none
}

/// The values of `rounded` with the gradients of `x`: the difference added is exactly zero.
fn through<const D: usize>(rounded: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
    rounded + (x.clone() - x.detach())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use dram_runtime::kernels::*;

    use super::*;
    use crate::seed::Random;

    fn numbers(count: usize) -> Vec<f32> {
        let mut random = Random::new(5, "rounding", 0);
        (0..count).map(|_| random.normal()).collect()
    }

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_to_vec().expect("f32")
    }

    #[test]
    fn weights_are_rounded_as_the_runtime_rounds_them() {
        let (k, n) = (33, 7);
        let mut weights = numbers(k * n);
        // A column of zeros, and one whose numbers fall between two steps.
        weights.iter_mut().skip(2).step_by(n).for_each(|weight| *weight = 0.0);
        for (row, weight) in weights.iter_mut().skip(3).step_by(n).enumerate() {
            *weight = if row == 0 { 127.0 } else { row as f32 + 0.5 };
        }
        let (steps, scales) = quantize_columns(&weights, k, n);
        let expected: Vec<f32> =
            steps.iter().enumerate().map(|(i, &q)| f32::from(q) * scales[i % n]).collect();
        let tensor = Tensor::<2>::from_data(TensorData::new(weights, [k, n]), &Device::flex());
        assert_eq!(values(symmetric(tensor, 0)), expected);
    }

    #[test]
    fn activations_are_rounded_as_the_runtime_rounds_them() {
        let (m, k) = (40, 24);
        let mut x = numbers(m * k);
        x[..k].fill(0.0);
        x[k..2 * k].iter_mut().for_each(|x| *x = x.abs() + 1.0);
        let mut steps = vec![0; m * quantized_width(k)];
        let mut rows = vec![RowScale::default(); m];
        quantize_rows(Cpu::detect(), &x, k, &mut steps, &mut rows);
        let back = |(row, RowScale { scale, zero_point }): (usize, &RowScale)| {
            let steps = &steps[row * quantized_width(k)..][..k];
            let value = |&q: &u8| (f32::from(q) - f32::from(*zero_point)) * scale;
            steps.iter().map(value).collect::<Vec<f32>>()
        };
        let expected: Vec<f32> = rows.iter().enumerate().flat_map(back).collect();
        let tensor = Tensor::<2>::from_data(TensorData::new(x, [m, k]), &Device::flex());
        assert_eq!(values(asymmetric(tensor)), expected);
    }

    #[test]
    fn attention_is_rounded_as_the_runtime_rounds_it() {
        let (tokens, heads) = (40, Heads { heads: 3, head_width: 8 });
        let qkv = numbers(tokens * 3 * heads.hidden());
        let mask: Vec<u8> = (0..tokens).map(|token| u8::from(token % 7 != 6)).collect();
        let mut expected = vec![0.0; tokens * heads.hidden()];
        let mut scratch = vec![0.0; heads.scratch_len_i8(tokens)];
        let out = Block::new(&mut expected, heads.hidden());
        attention_i8(Cpu::detect(), heads, 0..3, (&qkv, &mask), &mut scratch, out);
        let device = Device::flex();
        let all = Tensor::<2>::from_data(TensorData::new(qkv, [tokens, 72]), &device);
        let part = |part: usize| {
            let columns = all.clone().slice([0..tokens, part * 24..(part + 1) * 24]);
            columns.reshape([1, tokens, 3, 8]).swap_dims(1, 2)
        };
        let bias: Vec<f32> = mask.iter().map(|&keep| if keep == 0 { -1e9 } else { 0.0 }).collect();
        let bias = Tensor::<4>::from_data(TensorData::new(bias, [1, 1, 1, tokens]), &device);
        let scores = Arithmetic::Int8.scores(part(0), part(1));
        let own = Arithmetic::Int8.attended(scores, bias, part(2));
        let own = values(own.swap_dims(1, 2).reshape([tokens, 24]));
        // Where a number lies between two steps, one may round up and the other down.
        let apart = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
        let mean = own.iter().zip(&expected).map(apart).sum::<f64>() / own.len() as f64;
        assert!(mean < 1e-4, "apart by {mean} in the mean");
    }

    #[test]
    fn gradients_pass_as_if_nothing_were_rounded() {
        let device = Device::flex().autodiff();
        let x = Tensor::<2>::from_data([[0.3, -1.0], [0.7, 0.2]], &device).require_grad();
        let loss = (symmetric(x.clone(), 0) * asymmetric(x.clone())).sum();
        let gradient = x.grad(&loss.backward()).expect("x takes part");
        // The derivative of a·b by x where both a and b pass gradients on: a + b.
        let expected = values(symmetric(x.clone().inner(), 0) + asymmetric(x.inner()));
        assert_eq!(values(gradient), expected);
    }
}
