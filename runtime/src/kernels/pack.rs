//! Weights `[k, n]` -> panels of 32 columns, the one layout that the tiles of every CPU read. A bundle
//! stores panels as they are here and maps them back in place.

use std::ops::Range;

/// Columns of a panel. Bias, scales and sums are padded with zeros to a multiple of it.
pub const PANEL: usize = 32;

/// The longest inner dimension whose int8 products cannot overflow an `i32`: 255 * 127 * 65,536 < 2^31.
pub const MOST_INT8_INPUTS: usize = 65_536;

/// The weights of an f32 linear layer, borrowed from wherever they lie; 64-byte alignment is fastest.
#[derive(Clone, Copy, Debug)]
pub struct PackedF32<'a> {
    panels: &'a [f32],
    bias: &'a [f32],
    k: usize,
    n: usize,
}

impl<'a> PackedF32<'a> {
    /// Panels `[ceil(n/32), k, 32]` as [`pack_f32`] gives them, and a bias padded by [`pad_columns`].
    /// `None` where the lengths do not belong to a layer of `k` inputs and `n` outputs, or either is zero.
    pub fn new(panels: &'a [f32], bias: &'a [f32], k: usize, n: usize) -> Option<PackedF32<'a>> {
        let columns = padded_columns(n)?;
        let fits = k > 0 && panels.len() == columns.checked_mul(k)? && bias.len() == columns;
        fits.then_some(PackedF32 { panels, bias, k, n })
    }

    /// Inputs of the layer.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Outputs of the layer.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The layer that computes some of the columns: `columns` starts with a panel, and ends with one or with the last.
    ///
    /// # Panics
    /// When it does not.
    pub fn columns(&self, columns: Range<usize>) -> PackedF32<'a> {
        let panels = panels_of(&columns, self.n);
        PackedF32 {
            panels: &self.panels[panels.start * self.k * PANEL..panels.end * self.k * PANEL],
            bias: &self.bias[panels.start * PANEL..panels.end * PANEL],
            k: self.k,
            n: columns.len(),
        }
    }

    pub(super) fn panel(&self, index: usize) -> &'a [f32] {
        &self.panels[index * self.k * PANEL..][..self.k * PANEL]
    }

    pub(super) fn bias(&self, panel: usize) -> &'a [f32; PANEL] {
        columns_of(self.bias, panel)
    }
}

/// The weights of an int8 linear layer, borrowed from wherever they lie; 64-byte alignment is fastest.
#[derive(Clone, Copy, Debug)]
pub struct PackedI8<'a> {
    panels: &'a [i8],
    column_sums: &'a [i32],
    scales: &'a [f32],
    bias: &'a [f32],
    k: usize,
    n: usize,
}

impl<'a> PackedI8<'a> {
    /// Panels `[ceil(n/32), ceil(k/4), 32, 4]` as [`pack_i8`] gives them, [`column_sums`], and scales and
    /// bias padded by [`pad_columns`]. `None` where the lengths do not belong to a layer of `k` inputs and
    /// `n` outputs, either is zero, or `k` exceeds [`MOST_INT8_INPUTS`].
    ///
    /// The contents are taken as they come: a weight of -128, which [`pack_i8`] refuses, gives wrong sums
    /// on some CPUs.
    pub fn new(
        panels: &'a [i8],
        column_sums: &'a [i32],
        scales: &'a [f32],
        bias: &'a [f32],
        k: usize,
        n: usize,
    ) -> Option<PackedI8<'a>> {
        let columns = padded_columns(n)?;
        let fits = (1..=MOST_INT8_INPUTS).contains(&k)
            && panels.len() == columns.checked_mul(quantized_width(k))?
            && [column_sums.len(), scales.len(), bias.len()] == [columns; 3];
        fits.then_some(PackedI8 { panels, column_sums, scales, bias, k, n })
    }

    /// Inputs of the layer.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Outputs of the layer.
    pub fn n(&self) -> usize {
        self.n
    }

    /// As [`PackedF32::columns`].
    ///
    /// # Panics
    /// As [`PackedF32::columns`].
    pub fn columns(&self, columns: Range<usize>) -> PackedI8<'a> {
        let panels = panels_of(&columns, self.n);
        let length = quantized_width(self.k) * PANEL;
        let padded = panels.start * PANEL..panels.end * PANEL;
        PackedI8 {
            panels: &self.panels[panels.start * length..panels.end * length],
            column_sums: &self.column_sums[padded.clone()],
            scales: &self.scales[padded.clone()],
            bias: &self.bias[padded],
            k: self.k,
            n: columns.len(),
        }
    }

    pub(super) fn panel(&self, index: usize) -> &'a [i8] {
        let length = quantized_width(self.k) * PANEL;
        &self.panels[index * length..][..length]
    }

    pub(super) fn column_sums(&self, panel: usize) -> &'a [i32; PANEL] {
        columns_of(self.column_sums, panel)
    }

    pub(super) fn scales(&self, panel: usize) -> &'a [f32; PANEL] {
        columns_of(self.scales, panel)
    }

    pub(super) fn bias(&self, panel: usize) -> &'a [f32; PANEL] {
        columns_of(self.bias, panel)
    }
}

/// Bytes of a quantized row of `k` values: `k` rounded up to whole quads.
pub const fn quantized_width(k: usize) -> usize {
    k.next_multiple_of(4)
}

/// Panels `[ceil(n/32), k, 32]` of `weights [k, n]`; columns past `n` are zero.
///
/// # Panics
/// When `weights` is not `k * n` long.
pub fn pack_f32(weights: &[f32], k: usize, n: usize) -> Vec<f32> {
    assert_eq!(weights.len(), k * n, "the weights are [k, n]");
    let mut panels = Vec::with_capacity(n.next_multiple_of(PANEL) * k);
    for first in (0..n).step_by(PANEL) {
        let width = PANEL.min(n - first);
        for row in 0..k {
            panels.extend_from_slice(&weights[row * n + first..][..width]);
            panels.resize(panels.len() + PANEL - width, 0.0);
        }
    }
    panels
}

/// Panels `[ceil(n/32), ceil(k/4), 32, 4]` of `weights [k, n]`: four steps of `k` lie together, so that
/// one dot-product instruction takes them. What pads `k` and `n` is zero. `None` where a weight is -128:
/// products with it overflow the 16-bit sums of CPUs without a dot-product instruction.
///
/// # Panics
/// When `weights` is not `k * n` long.
pub fn pack_i8(weights: &[i8], k: usize, n: usize) -> Option<Vec<i8>> {
    assert_eq!(weights.len(), k * n, "the weights are [k, n]");
    if weights.contains(&i8::MIN) {
        return None;
    }
    let length = quantized_width(k) * PANEL;
    let mut panels = vec![0; n.div_ceil(PANEL) * length];
    for row in 0..k {
        for column in 0..n {
            let within = (row / 4 * PANEL + column % PANEL) * 4 + row % 4;
            panels[column / PANEL * length + within] = weights[row * n + column];
        }
    }
    Some(panels)
}

/// The sum of each column of `weights [k, n]`, padded to whole panels: what a zero point of the
/// activations is multiplied with.
///
/// # Panics
/// When `weights` is not `k * n` long, or a column can overflow (`k` beyond [`MOST_INT8_INPUTS`]).
pub fn column_sums(weights: &[i8], k: usize, n: usize) -> Vec<i32> {
    assert_eq!(weights.len(), k * n, "the weights are [k, n]");
    assert!(k <= MOST_INT8_INPUTS, "sums of columns fit an i32");
    let mut sums = vec![0; n.next_multiple_of(PANEL)];
    for row in weights.chunks_exact(n) {
        for (sum, &weight) in sums.iter_mut().zip(row) {
            *sum += i32::from(weight);
        }
    }
    sums
}

/// `values [n]` padded with zeros to whole panels.
pub fn pad_columns(values: &[f32]) -> Vec<f32> {
    let mut padded = values.to_vec();
    padded.resize(values.len().next_multiple_of(PANEL), 0.0);
    padded
}

fn padded_columns(n: usize) -> Option<usize> {
    n.checked_next_multiple_of(PANEL).filter(|&columns| columns > 0)
}

fn panels_of(columns: &Range<usize>, n: usize) -> Range<usize> {
    let ends = columns.end == n || columns.end.is_multiple_of(PANEL) && columns.end < n;
    assert!(columns.start.is_multiple_of(PANEL) && ends, "columns are those of whole panels");
    columns.start / PANEL..columns.end.div_ceil(PANEL)
}

fn columns_of<T>(values: &[T], panel: usize) -> &[T; PANEL] {
    &values.as_chunks::<PANEL>().0[panel]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_columns_together_and_pad_with_zero() {
        let weights: Vec<f32> = (0..2 * 33).map(|i| i as f32).collect();
        let panels = pack_f32(&weights, 2, 33);
        assert_eq!(panels.len(), 2 * 2 * 32);
        assert_eq!(panels[..32], weights[..32]);
        assert_eq!(panels[32..64], weights[33..65]);
        assert_eq!((panels[64], panels[65], panels[96]), (32.0, 0.0, 65.0));
    }

    #[test]
    fn int8_panels_hold_four_steps_of_k_together() {
        let weights: Vec<i8> = (0..5 * 2).map(|i| i as i8).collect();
        let panels = pack_i8(&weights, 5, 2).unwrap();
        assert_eq!(panels.len(), 2 * 32 * 4);
        assert_eq!(panels[..8], [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(panels[128..136], [8, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(column_sums(&weights, 5, 2)[..3], [20, 25, 0]);
        assert_eq!(pack_i8(&[i8::MIN], 1, 1), None);
    }

    #[test]
    fn layers_of_other_lengths_are_refused() {
        let (panels, bias) = (vec![0.0; 3 * 64], vec![0.0; 64]);
        for (k, n, fits) in
            [(3, 33, true), (3, 64, true), (3, 65, false), (4, 33, false), (0, 0, false)]
        {
            assert_eq!(PackedF32::new(&panels, &bias, k, n).is_some(), fits, "k {k}, n {n}");
        }
        assert!(PackedF32::new(&panels, &bias, usize::MAX, 33).is_none());
        assert!(PackedF32::new(&panels, &bias, 3, usize::MAX).is_none());
    }
}
