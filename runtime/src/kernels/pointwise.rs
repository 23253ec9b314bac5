//! Functions of one number, as convolutional networks have them between their layers: fused into a layer, or
//! on their own.

use super::cpu::{Cpu, per_cpu};
use super::math;

/// `function(x) * scale + shift`, with two roundings where `scale` is not one and `shift` not zero: one of
/// the function, one of a fused multiply-add.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pointwise<'a> {
    /// What comes first.
    pub function: Function<'a>,
    /// What its result is multiplied with.
    pub scale: f32,
    /// What is added last.
    pub shift: f32,
}

impl Pointwise<'_> {
    /// The number itself.
    pub const NONE: Pointwise<'static> =
        Pointwise { function: Function::Identity, scale: 1.0, shift: 0.0 };
}

/// A function of one number; of a row of them, where each column has a slope of its own.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Function<'a> {
    /// The number itself.
    Identity,
    /// The nearest number in a range; NaN stays.
    Clip {
        /// Its lower end.
        least: f32,
        /// Its upper end.
        most: f32,
    },
    /// What is negative, times this.
    LeakyRelu(f32),
    /// What is negative, times the slope of its column.
    Prelu(&'a [f32]),
    /// `alpha * x + beta` within 0..1.
    HardSigmoid {
        /// Its slope.
        alpha: f32,
        /// Its value at zero.
        beta: f32,
    },
    /// `x` times the hard sigmoid of it.
    HardSwish {
        /// The slope of the hard sigmoid.
        alpha: f32,
        /// Its value at zero.
        beta: f32,
    },
    /// `1 / (1 + exp(-x))`, within [`SIGMOID_ERROR`].
    Sigmoid,
    /// `x` times the sigmoid of it.
    Silu,
    /// As [`gelu`](super::gelu).
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))` (ONNX: `Gelu`, `approximate = tanh`).
    GeluTanh,
    /// As [`tanh`](super::tanh).
    Tanh,
}

/// Largest absolute error of the sigmoid, measured at every 997th float up to 100.
pub const SIGMOID_ERROR: f32 = 1.2e-7;

/// Applies `pointwise` to `values [.., columns]`, in place.
///
/// # Panics
/// When the slopes of a `Prelu` are not `columns` long, or `values` holds no whole rows.
pub fn pointwise(cpu: Cpu, pointwise: Pointwise<'_>, columns: usize, values: &mut [f32]) {
    assert!(values.len().is_multiple_of(columns), "values are [.., columns]");
    if let Function::Prelu(slopes) = pointwise.function {
        assert_eq!(slopes.len(), columns, "a slope a column");
    }
    #[inline(always)]
    fn body(pointwise: Pointwise<'_>, columns: usize, values: &mut [f32]) {
        apply(pointwise, columns, values);
    }
    per_cpu!(cpu, body(pointwise: Pointwise<'_>, columns: usize, values: &mut [f32]))
}

/// [`pointwise`] within a function that is compiled for a class of processors.
#[inline(always)]
pub(super) fn apply(pointwise: Pointwise<'_>, columns: usize, values: &mut [f32]) {
    let Pointwise { function, scale, shift } = pointwise;
    let affine = (scale != 1.0 || shift != 0.0).then_some((scale, shift));
    match function {
        Function::Identity => each(values, affine, |x| x),
        Function::Clip { least, most } => each(values, affine, |x| clip(x, least, most)),
        Function::LeakyRelu(slope) => each(values, affine, |x| leaky(x, slope)),
        Function::Prelu(slopes) => {
            for row in values.chunks_exact_mut(columns) {
                for (x, &slope) in row.iter_mut().zip(slopes) {
                    *x = leaky(*x, slope);
                }
            }
            if affine.is_some() {
                each(values, affine, |x| x);
            }
        }
        Function::HardSigmoid { alpha, beta } => {
            each(values, affine, |x| hard_sigmoid(x, alpha, beta));
        }
        Function::HardSwish { alpha, beta } => {
            each(values, affine, |x| x * hard_sigmoid(x, alpha, beta));
        }
        Function::Sigmoid => each(values, affine, sigmoid),
        Function::Silu => each(values, affine, |x| x * sigmoid(x)),
        Function::Gelu => each(values, affine, math::gelu_of),
        Function::GeluTanh => each(values, affine, gelu_tanh),
        Function::Tanh => each(values, affine, math::tanh_of),
    }
}

// Loops, not `for_each`: that may become a function of its own, which is compiled for any processor.
#[inline(always)]
fn each(values: &mut [f32], affine: Option<(f32, f32)>, function: impl Fn(f32) -> f32) {
    match affine {
        None => {
            for x in values {
                *x = function(*x);
            }
        }
        Some((scale, shift)) => {
            for x in values {
                *x = function(*x).mul_add(scale, shift);
            }
        }
    }
}

/// Written as choices because those are one instruction everywhere, and let NaN pass.
#[inline(always)]
fn clip(x: f32, least: f32, most: f32) -> f32 {
    let x = if x < least { least } else { x };
    if x > most { most } else { x }
}

#[inline(always)]
fn leaky(x: f32, slope: f32) -> f32 {
    if x < 0.0 { x * slope } else { x }
}

#[inline(always)]
fn hard_sigmoid(x: f32, alpha: f32, beta: f32) -> f32 {
    clip(x.mul_add(alpha, beta), 0.0, 1.0)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + math::exp_of(-x))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const ROOT: f32 = 0.797_884_6;
    let bent = math::tanh_of(ROOT * (x * x * x).mul_add(0.044_715, x));
    0.5 * x * (1.0 + bent)
}
