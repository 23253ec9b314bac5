//! Vectors and matrices -> vectors and matrices, faster than a general operator: linear layers in f32 and
//! int8 with what follows them fused in, convolutions and pooling of images, attention, layer
//! normalization, embedding, pooling of rows.
//!
//! **Every kernel gives the same bits on every CPU.** The scalar form ([`Cpu::scalar`]) defines the
//! result; AVX2, AVX-512 and NEON forms repeat its operations in its order:
//! - a float sum over `k` takes one fused multiply-add a term, in order, and is never split;
//! - an int8 sum is exact in 32 bits;
//! - a sum along a row goes through thirty-two lanes and a fixed tree;
//! - exp, log, GELU and tanh are polynomials of IEEE operations, with their largest error stated.
//!
//! Not promised: the payload bits of a NaN, and anything about time.
//!
//! Kernels are safe functions on slices. A [`Cpu`] exists only for a class of processors that this machine
//! belongs to; all `unsafe` code of the crate's arithmetic stands behind that proof, in this folder.
//! Lengths that do not belong together are a broken invariant of the caller, and panic.

mod attention;
mod block;
mod conv;
mod cpu;
mod embed;
mod grid;
mod lanes;
mod linear;
mod math;
mod norm;
mod pack;
mod pointwise;
mod pool;
mod quantize;
mod threads;
mod tiles;
mod widen;
mod window;

pub use attention::{Heads, MOST_INT8_TOKENS, attention, attention_i8};
pub use block::{Block, ColumnsMut, Strided};
pub use conv::{
    DepthwiseF32, DepthwiseI8, Finish, Residual, Target, View, conv_f32, conv_i8, depthwise_f32,
    depthwise_i8, patch_len,
};
pub use cpu::Cpu;
pub use embed::{Embeddings, NoEmbedding, WordTable, embed, gather_row};
pub use grid::{Pooling, pool};
pub use linear::{Activation, Epilogue, linear_f32, linear_i8};
pub use math::{
    EXP_ERROR, GELU_ERROR, GELU_POLYNOMIAL_ERROR, LOG_ERROR, TANH_ERROR, add, gelu,
    gelu_polynomial, log, multiply, tanh,
};
pub use norm::{LayerNorm, l2_normalize, layer_norm, masked_mean, softmax};
pub use pack::{
    MOST_INT8_INPUTS, PANEL, PackedF32, PackedI8, column_sums, pack_f32, pack_i8, pad_columns,
    quantized_width,
};
pub use pointwise::{Function, Pointwise, SIGMOID_ERROR, pointwise};
pub use quantize::{
    RowScale, quantize_columns, quantize_rows, quantize_with, range_of_tensor, round_image,
    step_of_weights,
};
pub use threads::{PerThread, Rows, RowsMut, Threads};
pub use widen::{
    GROUPS, Groups, MOST_MULTIPLIER, pack_groups, quantize_groups, to_f16, widen_f16, widen_i4,
    widened_steps,
};
pub use window::{Padding, Slide, Window};

#[cfg(test)]
mod same_bits;
