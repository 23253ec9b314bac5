//! Sums of a tile -> elements of the result: residual, function, factors, rounding.

use super::super::cpu::{Cpu, per_cpu};
use super::super::pack::PANEL;
use super::super::pointwise::{Function, Pointwise, apply};
use super::super::quantize::{RowScale, round_columns};

/// What a convolution does to its sums before it stores them, and where.
#[derive(Clone, Copy, Debug)]
pub struct Finish<'a> {
    /// The function that each sum passes through.
    pub pointwise: Pointwise<'a>,
    /// Added to each sum.
    pub residual: Residual<'a>,
    /// What each column of the result is multiplied with last.
    pub factors: Option<&'a [f32]>,
    /// Columns of a row of the result.
    pub width: usize,
    /// The first of them that is written.
    pub first: usize,
}

/// A tensor like the result that is added to it.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// None is.
    None,
    /// Before the function.
    Before(&'a [f32]),
    /// After the function.
    After(&'a [f32]),
}

/// Rows of the result, each as wide as [`Finish::width`] says.
#[derive(Debug)]
pub enum Target<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// Rounded in one range (ONNX: `QuantizeLinear`).
    U8(&'a mut [u8], RowScale),
}

impl Target<'_> {
    /// The same rows, to write some of their columns now and others later.
    pub fn again(&mut self) -> Target<'_> {
        match self {
            Target::F32(out) => Target::F32(out),
            Target::U8(out, range) => Target::U8(out, *range),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Target::F32(out) => out.len(),
            Target::U8(out, _) => out.len(),
        }
    }
}

impl<'a> Residual<'a> {
    /// That of the rows from `row` on, which are `width` wide.
    fn from(self, row: usize, width: usize) -> Residual<'a> {
        match self {
            Residual::None => Residual::None,
            Residual::Before(terms) => Residual::Before(&terms[row * width..]),
            Residual::After(terms) => Residual::After(&terms[row * width..]),
        }
    }
}

/// Columns that are finished together at most. A panel has fewer; where each channel stands alone, more at a time are fewer
/// calls.
pub(super) const WIDEST: usize = 4 * PANEL;

/// Sums of some rows by some columns, [`WIDEST`] at most: `[rows, width]`.
#[derive(Debug)]
pub(super) struct Sums<'a> {
    values: &'a mut [f32],
    /// As [`Sums::width_of`] the columns: rows of a narrow panel lie close together, so that none passes through a function
    /// that is not asked for.
    width: usize,
}

impl<'a> Sums<'a> {
    /// Where so many rows of `columns` go; `values` has room for them.
    pub(super) fn new(values: &'a mut [f32], rows: usize, columns: usize) -> Sums<'a> {
        let width = Sums::width_of(columns);
        Sums { values: &mut values[..rows * width], width }
    }

    /// Those in so many rows that lie `stride` apart, moved closer together where that is farther than they need.
    pub(super) fn of_rows(
        values: &'a mut [f32],
        stride: usize,
        rows: usize,
        columns: usize,
    ) -> Sums<'a> {
        let width = Sums::width_of(columns);
        if width < stride {
            for row in 1..rows {
                for column in (0..width).step_by(8) {
                    let eight: [f32; 8] =
                        *values[row * stride + column..].first_chunk().expect("eight columns");
                    values[row * width + column..][..8].copy_from_slice(&eight);
                }
            }
        }
        Sums::new(values, rows, columns)
    }

    /// The sums, and the width of a row of them.
    pub(super) fn values(&mut self) -> (&mut [f32], usize) {
        (self.values, self.width)
    }

    /// Columns in whole vectors.
    pub(super) fn width_of(columns: usize) -> usize {
        columns.next_multiple_of(8)
    }
}

/// The columns of a row that sums are of.
#[derive(Clone, Copy)]
struct Columns {
    width: usize,
    first: usize,
    count: usize,
}

impl Columns {
    fn of(self, row: usize) -> std::ops::Range<usize> {
        row * self.width + self.first..row * self.width + self.first + self.count
    }
}

impl Finish<'_> {
    /// Columns that [`Finish::store`] takes at a time: a panel's, where each has a slope or a factor of its own.
    pub(super) fn widest(&self) -> usize {
        match (self.pointwise.function, self.factors) {
            (Function::Prelu(_), _) | (_, Some(_)) => PANEL,
            _ => WIDEST,
        }
    }

    /// Stores the first `count` columns of each row of `sums`, which are those from the one `first` of these sums on, into
    /// the rows of `out` from `row` on.
    pub(super) fn store(
        self,
        cpu: Cpu,
        mut sums: Sums<'_>,
        (first, count): (usize, usize),
        row: usize,
        out: &mut Target<'_>,
    ) {
        let first = self.first + first;
        let pointwise = match self.pointwise.function {
            Function::Prelu(slopes) => {
                let function = Function::Prelu(&slopes[first..][..count]);
                Pointwise { function, ..self.pointwise }
            }
            _ => self.pointwise,
        };
        let columns = Columns { width: self.width, first, count };
        let residual = self.residual.from(row, self.width);
        let last = Last { pointwise, residual, columns };
        let last = match self.factors {
            None => last,
            Some(factors) => {
                multiply(cpu, &mut sums, last, &factors[first..][..count]);
                Last { pointwise: Pointwise::NONE, residual: Residual::None, columns }
            }
        };
        match out {
            Target::F32(out) => store_f32(cpu, sums, last, &mut out[row * self.width..]),
            Target::U8(out, range) => {
                store_u8(cpu, sums, last, *range, &mut out[row * self.width..]);
            }
        }
    }
}

impl Finish<'_> {
    /// Residual, function and factors of whole rows, from `row` of the result on, in place.
    pub(super) fn rows(self, cpu: Cpu, row: usize, out: &mut [f32]) {
        #[inline(always)]
        fn body(finish: Finish<'_>, out: &mut [f32]) {
            if let Residual::Before(terms) = finish.residual {
                add_all(out, terms);
            }
            apply(finish.pointwise, finish.width, out);
            if let Residual::After(terms) = finish.residual {
                add_all(out, terms);
            }
            if let Some(factors) = finish.factors {
                out.chunks_exact_mut(finish.width).for_each(|row| multiply_all(row, factors));
            }
        }
        let finish = Finish { residual: self.residual.from(row, self.width), ..self };
        per_cpu!(cpu, body(finish: Finish<'_>, out: &mut [f32]))
    }
}

/// What [`Finish`] does to some columns.
#[derive(Clone, Copy)]
struct Last<'a> {
    pointwise: Pointwise<'a>,
    residual: Residual<'a>,
    columns: Columns,
}

fn store_f32(cpu: Cpu, sums: Sums<'_>, last: Last<'_>, out: &mut [f32]) {
    #[inline(always)]
    fn body(sums: Sums<'_>, last: Last<'_>, out: &mut [f32]) {
        let mut sums = sums;
        finished(&mut sums, last);
        let Columns { width, count, .. } = last.columns;
        if count == width && sums.width == width {
            // All columns, with nothing between the rows.
            return out[..sums.values.len()].copy_from_slice(sums.values);
        }
        for (row, sums) in sums.values.chunks_exact(sums.width).enumerate() {
            let out = &mut out[last.columns.of(row)];
            // Only the last panel is ragged; the others have a length that the compiler knows.
            match (<&mut [f32; PANEL]>::try_from(&mut *out), <&[f32; PANEL]>::try_from(sums)) {
                (Ok(out), Ok(sums)) => *out = *sums,
                _ => {
                    for (out, &sum) in out.iter_mut().zip(sums) {
                        *out = sum;
                    }
                }
            }
        }
    }
    per_cpu!(cpu, body(sums: Sums<'_>, last: Last<'_>, out: &mut [f32]))
}

fn store_u8(cpu: Cpu, sums: Sums<'_>, last: Last<'_>, range: RowScale, out: &mut [u8]) {
    #[inline(always)]
    fn body(cpu: Cpu, sums: Sums<'_>, last: Last<'_>, range: RowScale, out: &mut [u8]) {
        let mut sums = sums;
        finished(&mut sums, last);
        let Columns { width, first, count } = last.columns;
        let out = (&mut out[first..], width);
        round_columns(cpu, (sums.values, sums.width), count, range, out);
    }
    per_cpu!(cpu, body(
        cpu: Cpu,
        sums: Sums<'_>,
        last: Last<'_>,
        range: RowScale,
        out: &mut [u8],
    ))
}

/// Residual, function and factors of a tile, in place. On its own, so that what has no factors is compiled as if there
/// were none.
fn multiply(cpu: Cpu, sums: &mut Sums<'_>, last: Last<'_>, factors: &[f32]) {
    #[inline(always)]
    fn body(sums: &mut Sums<'_>, last: Last<'_>, factors: &[f32]) {
        finished(sums, last);
        let own = padded(factors, 1.0);
        for row in sums.values.chunks_exact_mut(sums.width) {
            match <&mut [f32; PANEL]>::try_from(&mut *row) {
                Ok(row) => multiply_all(row, &own),
                Err(_) => multiply_all(row, &own),
            }
        }
    }
    per_cpu!(cpu, body(sums: &mut Sums<'_>, last: Last<'_>, factors: &[f32]))
}

/// Residual and function of a tile, in place.
#[inline(always)]
fn finished(sums: &mut Sums<'_>, last: Last<'_>) {
    let Last { pointwise, residual, columns } = last;
    if let Residual::Before(terms) = residual {
        add(sums, terms, columns);
    }
    match pointwise.function {
        Function::Prelu(slopes) => {
            let own = padded(slopes, 0.0);
            let function = Function::Prelu(&own[..sums.width]);
            apply(Pointwise { function, ..pointwise }, sums.width, sums.values);
        }
        _ => apply(pointwise, sums.width, sums.values),
    }
    if let Residual::After(terms) = residual {
        add(sums, terms, columns);
    }
}

/// What each column has, with `rest` after it; in memory of our own, or each sum that is written could be one of them.
#[inline(always)]
fn padded(of_columns: &[f32], rest: f32) -> [f32; PANEL] {
    let mut own = [rest; PANEL];
    own[..of_columns.len()].copy_from_slice(of_columns);
    own
}

#[inline(always)]
fn multiply_all(row: &mut [f32], factors: &[f32]) {
    for (value, factor) in row.iter_mut().zip(factors) {
        *value *= factor;
    }
}

#[inline(always)]
fn add(sums: &mut Sums<'_>, terms: &[f32], columns: Columns) {
    for (row, sums) in sums.values.chunks_exact_mut(sums.width).enumerate() {
        let terms = &terms[columns.of(row)];
        match (<&mut [f32; PANEL]>::try_from(&mut *sums), <&[f32; PANEL]>::try_from(terms)) {
            // Read before any is written, which could be one of them.
            (Ok(sums), Ok(&terms)) => add_all(sums, &terms),
            _ => add_all(sums, terms),
        }
    }
}

#[inline(always)]
fn add_all(sums: &mut [f32], terms: &[f32]) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum += term;
    }
}
