//! Stored nodes to operators: what a node of the domain `dram` and its constants say, checked once, and
//! computed by [`crate::kernels`] with the weights where they lie in the bundle.
//!
//! All executors stand on this: `program` and `network` walk operators over an arena, `engine` puts them into a
//! plan of tract's.

pub(crate) mod array;
mod compute;
pub(crate) mod grid;
mod parse;
pub(crate) mod surplus;

use crate::kernels::{Activation, Heads, MOST_INT8_TOKENS, PANEL, RowScale, quantized_width};
use crate::manifest::Extent;

pub(crate) use compute::{Machine, Scratch};
pub(crate) use grid::Grid;

/// A node that our kernels compute; extents lie in the bundle.
#[derive(Clone, Debug)]
pub(crate) enum Operator {
    /// Ids `[.., tokens]` to `[.., tokens, width]`: word and position vectors added.
    Embed(Embedding),
    /// Indices of any shape to the rows they choose, `[.., width]`.
    Gather(Table),
    /// Each row of the last axis normalized.
    LayerNorm(Norm),
    /// Rows `[.., k]`, and perhaps a residual `[.., n]`, to `[.., n]`.
    Linear(Linear),
    /// Queries, keys and values `[.., tokens, 3 · hidden]` and a mask `[.., tokens]` to
    /// `[.., tokens, hidden]`.
    Attention(Attention),
    /// Each element by itself.
    Gelu,
    /// Hidden states `[.., tokens, width]` and a mask `[.., tokens]` to `[.., width]`.
    MeanPool,
    /// Hidden states `[.., tokens, width]` to `[.., width]`.
    FirstToken,
    /// Each row of the last axis divided by its Euclidean norm.
    L2Normalize,
    /// An operator over images.
    Grid(Grid),
}

/// The tables of a token embedding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Embedding {
    pub(crate) words: Table,
    pub(crate) positions: Extent,
    /// Rows of the position table.
    pub(crate) longest: usize,
}

/// Vectors of `width`, one a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) rows: Extent,
    /// A scale for each row of int8; none where the rows are f32.
    pub(crate) scales: Option<Extent>,
    pub(crate) width: usize,
}

/// The constants of a layer normalization.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    pub(crate) gamma: Extent,
    pub(crate) beta: Extent,
    pub(crate) epsilon: f32,
    pub(crate) width: usize,
}

/// A multi-head attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    /// Whether its products are to be on integers.
    pub(crate) int8: bool,
}

impl Attention {
    /// Whether they are, for so many tokens.
    fn rounds(self, tokens: usize) -> bool {
        self.int8 && tokens <= MOST_INT8_TOKENS
    }

    /// The heads of queries, keys and values that are `width` wide together.
    fn shape(self, width: usize) -> Heads {
        Heads { heads: self.heads, head_width: width / (3 * self.heads) }
    }

    /// Floats of scratch of each thread, for tokens of that width.
    fn scratch_len(self, tokens: usize, width: usize) -> usize {
        let heads = self.shape(width);
        match self.rounds(tokens) {
            true => heads.scratch_len_i8(tokens),
            false => heads.scratch_len(tokens),
        }
    }
}

/// The packed weights of a linear layer and what it does to its sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) panels: Extent,
    pub(crate) bias: Extent,
    /// What int8 panels need besides.
    pub(crate) int8: Option<Int8>,
    /// Where panels are stored in half the bytes, what widens them.
    pub(crate) narrow: Option<Narrow>,
    pub(crate) activation: Activation,
}

/// Panels that are widened before their product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Narrow {
    /// f16 to f32.
    F16,
    /// Steps of four bits, by these multipliers, to int8; so many inputs share a multiplier.
    Int4(Extent, usize),
}

/// What stands beside int8 panels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Int8 {
    pub(crate) column_sums: Extent,
    pub(crate) scales: Extent,
    pub(crate) rows: Rows,
}

/// In what range the rows of an input are rounded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rows {
    /// Each in its own.
    Each,
    /// All in theirs together.
    Together,
    /// All in one that was calibrated.
    Calibrated(RowScale),
}

/// How the numbers of an image lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// As they are.
    F32,
    /// Rounded.
    U8,
}

/// Arithmetic of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Multiply-accumulates of matrix products, convolutions and attention.
    pub macs: u64,
    /// Those of them that run on int8 numbers.
    pub int8_macs: u64,
    /// Those of attention.
    pub attention_macs: u64,
    /// Those of attention that run on int8 numbers.
    pub int8_attention_macs: u64,
    /// Those of our convolutions.
    pub conv_macs: u64,
    /// Those of our convolutions that run on int8 numbers.
    pub int8_conv_macs: u64,
    /// Instructions that linear layers and convolutions in int8 take more than they would in f32 on a core that multiplies
    /// bytes without a dot product; less than none where they take fewer. A prediction, by what was counted on an emulated
    /// Cortex-A53.
    pub surplus: i64,
    /// What there is in a network over signals or images, by what takes its time there.
    pub network: NetworkWork,
}

/// What the kernels of a network over signals and images do, in parts that each take their own time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkWork {
    /// Multiply-accumulates in f32 of linear layers and of convolutions but for depthwise ones; outputs count in whole
    /// panels.
    pub f32_panel_macs: u64,
    /// Those in int8.
    pub int8_panel_macs: u64,
    /// Multiply-accumulates of depthwise convolutions in f32.
    pub f32_depthwise_macs: u64,
    /// Those in int8.
    pub int8_depthwise_macs: u64,
    /// Numbers under windows that are copied before they are multiplied.
    pub gathered: u64,
    /// Pieces that they are copied in: lines of windows.
    pub gathered_pieces: u64,
    /// Numbers that layers in f32 write, and functions of one number read and write.
    pub f32_values: u64,
    /// Numbers that layers in int8 round and write.
    pub int8_values: u64,
    /// Numbers under the windows of pooling.
    pub pooled: u64,
    /// Numbers that operators of ONNX's own read and write.
    pub array_values: u64,
    /// Bytes of weights that linear layers read, once for each twelve rows.
    pub weight_bytes: u64,
    /// Linear layers and convolutions.
    pub layers: u64,
    /// Kernels that are called, those of layers among them.
    pub steps: u64,
}

impl Work {
    /// Share of the multiply-accumulates that run in int8, 0 to 1.
    pub fn int8_mac_share(&self) -> f64 {
        if self.macs == 0 { 0.0 } else { self.int8_macs as f64 / self.macs as f64 }
    }
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.macs += other.macs;
        self.int8_macs += other.int8_macs;
        self.attention_macs += other.attention_macs;
        self.int8_attention_macs += other.int8_attention_macs;
        self.conv_macs += other.conv_macs;
        self.int8_conv_macs += other.int8_conv_macs;
        self.surplus += other.surplus;
        self.network += other.network;
    }
}

impl std::ops::AddAssign for NetworkWork {
    fn add_assign(&mut self, other: NetworkWork) {
        self.f32_panel_macs += other.f32_panel_macs;
        self.int8_panel_macs += other.int8_panel_macs;
        self.f32_depthwise_macs += other.f32_depthwise_macs;
        self.int8_depthwise_macs += other.int8_depthwise_macs;
        self.gathered += other.gathered;
        self.gathered_pieces += other.gathered_pieces;
        self.f32_values += other.f32_values;
        self.int8_values += other.int8_values;
        self.pooled += other.pooled;
        self.array_values += other.array_values;
        self.weight_bytes += other.weight_bytes;
        self.layers += other.layers;
        self.steps += other.steps;
    }
}

/// The first input of an operator as a matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    /// Rows of one sequence.
    pub(crate) tokens: usize,
    pub(crate) width: usize,
}

impl Operator {
    /// The arithmetic of a run on `x`.
    pub(crate) fn work(&self, x: Matrix) -> Work {
        match self {
            Operator::Linear(layer) => {
                let macs = (x.rows * layer.k * layer.n) as u64;
                let Some(_) = layer.int8 else { return Work { macs, ..Work::default() } };
                let surplus = x.rows as i64 * surplus::of_row(layer.k, layer.n);
                Work { macs, int8_macs: macs, surplus, ..Work::default() }
            }
            Operator::Attention(attention) => {
                let macs = 2 * (x.rows * x.tokens * (x.width / 3)) as u64;
                let int8_macs = if attention.rounds(x.tokens) { macs } else { 0 };
                Work {
                    macs,
                    int8_macs,
                    attention_macs: macs,
                    int8_attention_macs: int8_macs,
                    ..Work::default()
                }
            }
            _ => Work::default(),
        }
    }

    /// The scratch of a run on `x` by `threads`.
    pub(crate) fn needs(&self, x: Matrix, threads: usize) -> Needs {
        match self {
            Operator::Embed(Embedding { words, .. }) => {
                Needs { width: words.width, rows: x.rows, ..Needs::default() }
            }
            Operator::Attention(attention) => {
                let each = attention.scratch_len(x.tokens, x.width);
                Needs { attention: each * threads.min(attention.heads), ..Needs::default() }
            }
            Operator::Linear(Linear { k, n, int8, narrow, .. }) => {
                let columns = n.next_multiple_of(PANEL);
                let wide = match narrow {
                    None => 0,
                    Some(Narrow::F16) => columns * k * size_of::<f32>(),
                    Some(Narrow::Int4(..)) => columns * quantized_width(*k),
                };
                let rows = if int8.is_some() { x.rows } else { 0 };
                let wide = wide.div_ceil(size_of::<f32>());
                Needs { quantized: rows * quantized_width(*k), rows, wide, ..Needs::default() }
            }
            _ => Needs::default(),
        }
    }
}

/// Scratch of operators, in elements of its buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    quantized: usize,
    rows: usize,
    attention: usize,
    width: usize,
    wide: usize,
    patch: usize,
    patch_bytes: usize,
}

impl Needs {
    /// What serves either, one after the other.
    pub(crate) fn either(self, other: Needs) -> Needs {
        Needs {
            quantized: self.quantized.max(other.quantized),
            rows: self.rows.max(other.rows),
            attention: self.attention.max(other.attention),
            width: self.width.max(other.width),
            wide: self.wide.max(other.wide),
            patch: self.patch.max(other.patch),
            patch_bytes: self.patch_bytes.max(other.patch_bytes),
        }
    }

    pub(crate) fn bytes(self) -> u64 {
        let per_row = size_of::<RowScale>() + size_of::<u32>();
        let floats = (self.attention + self.wide + self.width + self.patch) * size_of::<f32>();
        (floats + self.quantized + self.patch_bytes + self.rows * per_row) as u64
    }
}
