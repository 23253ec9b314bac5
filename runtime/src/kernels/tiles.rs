//! `a x b` on tiles of twelve rows by thirty-two columns: the one thing that is written with
//! intrinsics, once per class of CPU. Everything else in `kernels` reaches it through three safe functions.
//!
//! What a tile promises, whichever CPU runs it:
//! - f32: each element of `c` takes one fused multiply-add per step of `k`, in ascending order of `k`.
//! - int8: each element of `c` gains the exact sum of `u8 x i8` products, modulo 2^32.
#![allow(unsafe_code)]

use super::block::Strided;
use super::cpu::{Cpu, Level};
use super::pack::PANEL;
#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
use std::ops::Range;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// Rows of the largest tile.
pub(super) const TILE_ROWS: usize = 12;

/// The elements of the largest tile, on cache lines of their own: half of all vectors would straddle two.
#[repr(align(64))]
pub(super) struct Tile<T>(pub(super) [[T; PANEL]; TILE_ROWS]);

/// `(k, a, a_stride, right, c, c_stride)`: `c [R, 32] = start [32] + a [R, k] x panel [k, 32]`.
///
/// # Safety
/// The CPU belongs to the class that the function was compiled for; `a` may be read and `c` written in each of R
/// rows, and the right side be read.
type TileF32 = unsafe fn(usize, *const f32, usize, Right, *mut f32, usize);

/// The right side of an f32 tile.
#[derive(Clone, Copy)]
struct Right {
    panel: *const f32,
    start: *const f32,
    part: Part,
}

/// What of a panel is asked for.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// How many of its columns; what a tile leaves in those after them is not told.
    pub(super) columns: usize,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(super) ahead: Ahead,
}

/// What a tile may bring nearer while it computes, and never reads: with each step the line that lies another
/// `stride` bytes on. Any address does. Only the tiles of x86-64 do.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) struct Ahead {
    at: *const u8,
    stride: usize,
}

impl From<Ahead> for Part {
    /// All columns.
    fn from(ahead: Ahead) -> Part {
        Part { columns: PANEL, ahead }
    }
}

/// Which of the tiles that compute with a panel a tile is. Together they bring the next panel nearer: the first to need
/// it would otherwise wait for all of it.
#[derive(Clone, Copy)]
pub(super) struct Share {
    tile: usize,
    /// The bytes that each of the tiles brings with a step.
    stride: usize,
}

impl Share {
    /// What a step reads of a panel: 32 floats, or 32 quads of bytes.
    const STEP_BYTES: usize = 4 * PANEL;

    /// That of the only tile.
    pub(super) const ALL: Share = Share { tile: 0, stride: Share::STEP_BYTES };

    /// Its part of what lies behind `panel`, which is read after it.
    pub(super) fn after<T>(self, panel: &[T]) -> Ahead {
        let before = size_of_val(panel) / Share::STEP_BYTES * self.stride * self.tile;
        let at = panel.as_ptr_range().end.cast::<u8>().wrapping_add(before);
        Ahead { at, stride: self.stride }
    }
}

impl Ahead {
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn line(self, step: usize) -> *const i8 {
        self.at.wrapping_add(step * self.stride).cast()
    }
}

/// `(k, a, b, c)`: `c [R, 32] = a [R, k] x b [k, 32]`, where `a` lies transposed: its steps of `k` are as far apart
/// as those of `b`, and the rows of `c` follow each other.
///
/// # Safety
/// As for [`TileF32`].
type TurnedF32 = unsafe fn(usize, *const f32, *const f32, *mut f32);

/// `(quads, a, a_stride, b, c, part)`: `c [R, 32] = a [R, 4 quads] x b [quads, 32, 4]`. Where `a` lies transposed,
/// its quads are as far apart as those of `b`, and `a_stride` says nothing.
///
/// # Safety
/// As for [`TileF32`]; the rows of `c` follow each other.
type TileI8 = unsafe fn(usize, *const u8, usize, *const i8, *mut i32, Part);

/// `c [rows, 32] = start + a [rows, k] x b [k, 32]`. The rows of `c` lie `c_stride` apart, `k` is the width of `a`; `part`
/// says which columns.
pub(super) fn multiply_f32(
    cpu: Cpu,
    rows: usize,
    a: Strided<'_, f32>,
    b: &[f32],
    start: &[f32; PANEL],
    (c, c_stride): (&mut [f32], usize),
    part: impl Into<Part>,
) {
    let k = a.width;
    assert!(a.holds(rows), "the left side holds every row");
    assert!(b.len() >= k * PANEL, "a panel holds a row for every step of k");
    assert!(c.len() >= (rows - 1) * c_stride + PANEL, "the result holds every row");
    let right = Right { panel: b.as_ptr(), start: start.as_ptr(), part: part.into() };
    let tiles = tiles_f32(cpu);
    for_each_tile(rows, tiles.len(), |row, count| {
        let (a_row, c_row) = (&a.values[row * a.stride..], &mut c[row * c_stride..]);
        // SAFETY: the lengths are asserted above, and the table is of the class that `cpu` proves.
        unsafe {
            tiles[count - 1](k, a_row.as_ptr(), a.stride, right, c_row.as_mut_ptr(), c_stride)
        }
    });
}

/// `c [rows, 32] = a [rows, k] x b [k, 32]`, where `a` lies transposed, `[k, 32]`, of whose columns the first `rows`
/// are read. Each sum starts from zero.
pub(super) fn multiply_turned_f32(
    cpu: Cpu,
    a: &[[f32; PANEL]],
    b: &[[f32; PANEL]],
    c: &mut [[f32; PANEL]],
) {
    assert_eq!(a.len(), b.len(), "both sides have the same steps of k");
    let (k, rows) = (a.len(), c.len());
    assert!(rows <= PANEL, "a step of the left side holds every row");
    let tiles = turned_f32(cpu);
    for_each_tile(rows, tiles.len(), |row, count| {
        let a_row = a.as_flattened().get(row..).unwrap_or_default();
        let c_rows = &mut c[row..row + count];
        // SAFETY: the lengths are asserted above, and the table is of the class that `cpu` proves.
        unsafe {
            tiles[count - 1](k, a_row.as_ptr(), b.as_ptr().cast(), c_rows.as_mut_ptr().cast())
        }
    });
}

/// `c [rows, 32] = (a - i8_offset(cpu)) [rows, 4 quads] x b [quads, 32, 4]`, exact modulo 2^32; `part` says which columns.
pub(super) fn multiply_i8(
    cpu: Cpu,
    a: Strided<'_, u8>,
    b: &[i8],
    c: &mut [[i32; PANEL]],
    part: impl Into<Part>,
) {
    let part = part.into();
    let quads = a.width / 4;
    let rows = c.len();
    assert!(a.width.is_multiple_of(4), "a quantized row is padded to whole quads");
    assert!(a.holds(rows), "the left side holds every row");
    assert!(b.len() >= quads * PANEL * 4, "a panel holds four rows for every quad");
    let tiles = tiles_i8(cpu);
    for_each_tile(rows, tiles.len(), |row, count| {
        let (a_row, c_rows) = (&a.values[row * a.stride..], &mut c[row..row + count]);
        // SAFETY: the lengths are asserted above, and the table is of the class that `cpu` proves.
        unsafe {
            tiles[count - 1](
                quads,
                a_row.as_ptr(),
                a.stride,
                b.as_ptr(),
                c_rows.as_mut_ptr().cast(),
                part,
            )
        }
    });
}

/// `c [rows, 32] = (a - i8_offset(cpu)) [rows, 4 quads] x b [quads, 32, 4]`, exact modulo 2^32, where `a` lies
/// transposed, `[quads, 32, 4]`, of whose columns the first `rows` are read. A quad is four bytes in the order of
/// memory: unsigned ones of `a`, of `b` signed ones from -127 on.
pub(super) fn multiply_turned_i8(
    cpu: Cpu,
    a: &[[u32; PANEL]],
    b: &[[u32; PANEL]],
    c: &mut [[i32; PANEL]],
) {
    assert_eq!(a.len(), b.len(), "both sides have the same quads");
    let (quads, rows) = (a.len(), c.len());
    assert!(rows <= PANEL, "a quad of the left side holds every row");
    let tiles = turned_i8(cpu);
    let part = Part::from(Share::ALL.after(b));
    for_each_tile(rows, tiles.len(), |row, count| {
        let a_row = a.as_flattened().get(row..).unwrap_or_default();
        let c_rows = &mut c[row..row + count];
        // SAFETY: the lengths are asserted above, and the table is of the class that `cpu` proves.
        unsafe {
            tiles[count - 1](
                quads,
                a_row.as_ptr().cast(),
                0,
                b.as_ptr().cast(),
                c_rows.as_mut_ptr().cast(),
                part,
            )
        }
    });
}

/// What [`multiply_i8`] takes off each activation before it multiplies: 128 where the CPU multiplies signed
/// bytes only, else 0. The caller makes up for it as for a zero point.
pub(super) fn i8_offset(cpu: Cpu) -> i32 {
    match cpu.level() {
        Level::Scalar => 0,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2Vnni | Level::Avx512Vnni => 0,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => 128,
        #[cfg(target_arch = "aarch64")]
        Level::Neon | Level::NeonDotprod | Level::NeonI8mm => 128,
    }
}

/// Calls `tile(rows, panel, share)` for at most twelve of `rows` at a time and each panel of `n` columns, panels outermost.
#[inline(always)]
pub(super) fn for_each_of_panels(
    rows: Range<usize>,
    n: usize,
    mut tile: impl FnMut(Range<usize>, usize, Share),
) {
    let tiles = evenly(rows, TILE_ROWS);
    let stride = Share::STEP_BYTES.div_ceil(tiles.len().max(1));
    for panel in 0..n.div_ceil(PANEL) {
        for (index, rows) in tiles.clone().enumerate() {
            tile(rows, panel, Share { tile: index, stride });
        }
    }
}

#[inline(always)]
fn for_each_tile(rows: usize, most: usize, mut tile: impl FnMut(usize, usize)) {
    if (1..=most).contains(&rows) {
        // The usual case, without a division.
        return tile(0, rows);
    }
    for rows in evenly(0..rows, most) {
        tile(rows.start, rows.len());
    }
}

/// The least distance of the rows that [`multiply_f32`] writes, where so many columns are asked for.
pub(super) fn least_stride(columns: usize) -> usize {
    // Others write whole panels.
    if cfg!(target_arch = "aarch64") { columns.next_multiple_of(8) } else { PANEL }
}

/// Cuts `rows` into tiles of at most `most` rows that differ by one row at most: a last tile of one row
/// would run at a fraction of the speed.
#[inline(always)]
fn evenly(rows: Range<usize>, most: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let tiles = rows.len().div_ceil(most);
    let (least, longer) = (rows.len() / tiles.max(1), rows.len() % tiles.max(1));
    (0..tiles).map(move |tile| {
        let start = rows.start + tile * least + tile.min(longer);
        start..start + least + usize::from(tile < longer)
    })
}

/// The tiles of 1, 2, ... rows.
fn tiles_f32(cpu: Cpu) -> &'static [TileF32] {
    match cpu.level() {
        Level::Scalar => &[scalar_f32],
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        level => arch::tiles_f32(level),
    }
}

fn turned_f32(cpu: Cpu) -> &'static [TurnedF32] {
    match cpu.level() {
        Level::Scalar => &[scalar_turned_f32],
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        level => arch::turned_f32(level),
    }
}

fn tiles_i8(cpu: Cpu) -> &'static [TileI8] {
    match cpu.level() {
        Level::Scalar => &[scalar_i8::<false>],
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        level => arch::tiles_i8(level),
    }
}

fn turned_i8(cpu: Cpu) -> &'static [TileI8] {
    match cpu.level() {
        Level::Scalar => &[scalar_i8::<true>],
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        level => arch::turned_i8(level),
    }
}

/// The quads between two of a row of the left side.
const fn quads_apart(turned: bool) -> usize {
    if turned { PANEL } else { 1 }
}

/// Columns that [`scalar_f32`] works on together.
const SCALAR_COLUMNS: usize = 16;

/// Defines the result of every f32 tile, one row at a time.
///
/// # Safety
/// See [`TileF32`].
unsafe fn scalar_f32(
    k: usize,
    a: *const f32,
    _a_stride: usize,
    right: Right,
    c: *mut f32,
    _c_stride: usize,
) {
    // SAFETY: the caller vouches for one row of `a` and `c`, for all of the right side, and that they do not overlap.
    let (a, b, c) = unsafe {
        let b = std::slice::from_raw_parts(right.panel.cast(), k);
        let c = &mut *c.cast::<[f32; PANEL]>();
        *c = *right.start.cast();
        (std::slice::from_raw_parts(a, k), b, c)
    };
    // As many sums at a time as stay in the registers of the smallest machine.
    let (columns, _) = c.as_chunks_mut::<SCALAR_COLUMNS>();
    for (column, c) in columns.iter_mut().enumerate() {
        let mut sums = *c;
        for (&left, right) in a.iter().zip::<&[[f32; PANEL]]>(b) {
            let right = &right.as_chunks::<SCALAR_COLUMNS>().0[column];
            for (sum, &weight) in sums.iter_mut().zip(right) {
                *sum = left.mul_add(weight, *sum);
            }
        }
        *c = sums;
    }
}

/// Defines the result of every tile with a transposed left side, one row at a time.
///
/// # Safety
/// See [`TurnedF32`].
unsafe fn scalar_turned_f32(k: usize, a: *const f32, b: *const f32, c: *mut f32) {
    // SAFETY: the caller vouches for all steps of `b`, for a row of `c`, and that they do not overlap.
    let (b, c) = unsafe {
        (std::slice::from_raw_parts(b.cast::<[f32; PANEL]>(), k), &mut *c.cast::<[f32; PANEL]>())
    };
    let (columns, _) = c.as_chunks_mut::<SCALAR_COLUMNS>();
    for (column, c) in columns.iter_mut().enumerate() {
        let mut sums = [0.0; SCALAR_COLUMNS];
        for (step, right) in b.iter().enumerate() {
            // SAFETY: the caller vouches for a float in each of `k` steps.
            let left = unsafe { *a.add(step * PANEL) };
            let right = &right.as_chunks::<SCALAR_COLUMNS>().0[column];
            for (sum, &weight) in sums.iter_mut().zip(right) {
                *sum = left.mul_add(weight, *sum);
            }
        }
        *c = sums;
    }
}

/// Defines the result of every int8 tile, one row at a time.
///
/// # Safety
/// See [`TileI8`].
unsafe fn scalar_i8<const TURNED: bool>(
    quads: usize,
    a: *const u8,
    _a_stride: usize,
    b: *const i8,
    c: *mut i32,
    _part: Part,
) {
    // SAFETY: the caller vouches for one row of `c`, for all of `b`, and that they do not overlap.
    let (b, c) = unsafe {
        let b = std::slice::from_raw_parts(b.cast::<[[i8; 4]; PANEL]>(), quads);
        (b, &mut *c.cast::<[i32; PANEL]>())
    };
    let a = a.cast::<[u8; 4]>();
    c.fill(0);
    for (quad, right) in b.iter().enumerate() {
        // SAFETY: the caller vouches for a row of `quads` quads.
        let left = unsafe { *a.add(quad * quads_apart(TURNED)) };
        // Through 16 bits, and four products at once: so the compiler finds the vectors of 32-bit ARM.
        let left = left.map(i16::from);
        for (sum, weights) in c.iter_mut().zip(right) {
            let weights = weights.map(i16::from);
            let product = |step: usize| i32::from(left[step]) * i32::from(weights[step]);
            *sum = sum.wrapping_add(product(0) + product(1) + product(2) + product(3));
        }
    }
}
