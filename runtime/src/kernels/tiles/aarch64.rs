//! The tiles of AArch64, eight columns of a panel at a time: f32 by `fmla` (8 rows), int8 by `smmla` or `sdot` where
//! there is one (8 rows), else by `smull`, `smlal` and `sadalp` (4 rows).
//!
//! NEON multiplies signed bytes by signed bytes, so activations lose 128 first. Two products then add up
//! to 2 * 128 * 127 = 32,512 at most while weights keep to -127..127, and fit 16 bits.

use super::{Level, PANEL, Part, Right, TileF32, TileI8, TurnedF32};
use std::arch::aarch64::*;
use std::arch::asm;

/// Columns that are worked on together.
const COLUMNS: usize = 8;

/// The function of each number of rows, as a table.
macro_rules! table {
    ($tile:ident: $($rows:literal)*) => { &[$($tile::<$rows>),*] };
}

pub(super) fn tiles_f32(_level: Level) -> &'static [TileF32] {
    table!(neon_f32: 1 2 3 4 5 6 7 8)
}

pub(super) fn turned_f32(_level: Level) -> &'static [TurnedF32] {
    table!(neon_turned: 1 2 3 4 5 6 7 8)
}

pub(super) fn tiles_i8(level: Level) -> &'static [TileI8] {
    match level {
        Level::NeonI8mm => &[
            i8mm_i8::<1, 1>,
            i8mm_i8::<2, 1>,
            i8mm_i8::<3, 2>,
            i8mm_i8::<4, 2>,
            i8mm_i8::<5, 3>,
            i8mm_i8::<6, 3>,
            i8mm_i8::<7, 4>,
            i8mm_i8::<8, 4>,
        ],
        Level::NeonDotprod => table!(dotprod_i8: 1 2 3 4 5 6 7 8),
        _ => table!(neon_i8: 1 2 3 4),
    }
}

pub(super) fn turned_i8(level: Level) -> &'static [TileI8] {
    match level {
        // `smmla` wants eight bytes of a row side by side, and turned rows have four.
        Level::NeonI8mm | Level::NeonDotprod => table!(dotprod_turned_i8: 1 2 3 4 5 6 7 8),
        _ => table!(neon_turned_i8: 1 2 3 4),
    }
}

/// # Safety
/// See [`TileF32`].
#[target_feature(enable = "neon")]
unsafe fn neon_f32<const R: usize>(
    k: usize,
    a: *const f32,
    a_stride: usize,
    right: Right,
    c: *mut f32,
    c_stride: usize,
) {
    let Right { panel: b, start, part } = right;
    for column in (0..part.columns.min(PANEL)).step_by(COLUMNS) {
        // SAFETY: every address is in row 0..R of `a` or `c`, in `start`, or in row 0..k of `b`.
        unsafe {
            let (b, start, c) = (b.add(column), start.add(column), c.add(column));
            let mut sums = [[vld1q_f32(start), vld1q_f32(start.add(4))]; R];
            for step in (0..k - k % 4).step_by(4) {
                let left: [_; R] =
                    std::array::from_fn(|row| vld1q_f32(a.add(row * a_stride + step)));
                add_step::<R, 0>(&mut sums, left, b.add(step * PANEL));
                add_step::<R, 1>(&mut sums, left, b.add((step + 1) * PANEL));
                add_step::<R, 2>(&mut sums, left, b.add((step + 2) * PANEL));
                add_step::<R, 3>(&mut sums, left, b.add((step + 3) * PANEL));
            }
            for step in k - k % 4..k {
                let left = std::array::from_fn(|row| vdupq_n_f32(*a.add(row * a_stride + step)));
                add_step::<R, 0>(&mut sums, left, b.add(step * PANEL));
            }
            for (row, [low, high]) in sums.iter().enumerate() {
                vst1q_f32(c.add(row * c_stride), *low);
                vst1q_f32(c.add(row * c_stride + 4), *high);
            }
        }
    }
}

/// # Safety
/// See [`TurnedF32`].
#[target_feature(enable = "neon")]
unsafe fn neon_turned<const R: usize>(k: usize, a: *const f32, b: *const f32, c: *mut f32) {
    for column in (0..PANEL).step_by(COLUMNS) {
        let mut sums = [[vdupq_n_f32(0.0); 2]; R];
        // SAFETY: every address is in row 0..R of `c`, or in step 0..k of `a` or `b`.
        unsafe {
            let (b, c) = (b.add(column), c.add(column));
            for step in 0..k {
                let (a, b) = (a.add(step * PANEL), b.add(step * PANEL));
                let (b_low, b_high) = (vld1q_f32(b), vld1q_f32(b.add(4)));
                for (group, sums) in sums.chunks_mut(4).enumerate() {
                    let left = match sums.len() {
                        4 => vld1q_f32(a.add(4 * group)),
                        rows => {
                            let mut left = [0.0; 4];
                            left.as_mut_ptr().copy_from_nonoverlapping(a.add(4 * group), rows);
                            vld1q_f32(left.as_ptr())
                        }
                    };
                    for (row, [low, high]) in sums.iter_mut().enumerate() {
                        (*low, *high) = match row {
                            0 => add_row::<0>(*low, *high, b_low, b_high, left),
                            1 => add_row::<1>(*low, *high, b_low, b_high, left),
                            2 => add_row::<2>(*low, *high, b_low, b_high, left),
                            _ => add_row::<3>(*low, *high, b_low, b_high, left),
                        };
                    }
                }
            }
            for (row, [low, high]) in sums.iter().enumerate() {
                vst1q_f32(c.add(row * PANEL), *low);
                vst1q_f32(c.add(row * PANEL + 4), *high);
            }
        }
    }
}

/// Adds element LANE of `left` times a step of `b` to a row of sums.
#[target_feature(enable = "neon")]
#[inline]
fn add_row<const LANE: i32>(
    low: float32x4_t,
    high: float32x4_t,
    b_low: float32x4_t,
    b_high: float32x4_t,
    left: float32x4_t,
) -> (float32x4_t, float32x4_t) {
    (vfmaq_laneq_f32::<LANE>(low, b_low, left), vfmaq_laneq_f32::<LANE>(high, b_high, left))
}

/// Adds one step of `k`: element LANE of `left` times a row of `b`.
///
/// # Safety
/// Eight floats at `b` may be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn add_step<const R: usize, const LANE: i32>(
    sums: &mut [[float32x4_t; 2]; R],
    left: [float32x4_t; R],
    b: *const f32,
) {
    // SAFETY: the caller vouches for the eight floats.
    let (b_low, b_high) = unsafe { (vld1q_f32(b), vld1q_f32(b.add(4))) };
    for ([low, high], left) in sums.iter_mut().zip(left) {
        *low = vfmaq_laneq_f32::<LANE>(*low, b_low, left);
        *high = vfmaq_laneq_f32::<LANE>(*high, b_high, left);
    }
}

/// # Safety
/// See [`TileI8`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn dotprod_i8<const R: usize>(
    quads: usize,
    a: *const u8,
    a_stride: usize,
    b: *const i8,
    c: *mut i32,
    part: Part,
) {
    for column in (0..part.columns.min(PANEL)).step_by(COLUMNS) {
        let mut sums = [[vdupq_n_s32(0); 2]; R];
        // SAFETY: every address is in row 0..R of `a` or `c`, or in quad 0..quads of `b`.
        unsafe {
            let (b, c) = (b.add(column * 4), c.add(column));
            for quad in (0..quads - quads % 4).step_by(4) {
                let left: [_; R] =
                    std::array::from_fn(|row| less_128(vld1q_u8(a.add(row * a_stride + quad * 4))));
                add_quad::<R, 0>(&mut sums, left, b.add(quad * 4 * PANEL));
                add_quad::<R, 1>(&mut sums, left, b.add((quad + 1) * 4 * PANEL));
                add_quad::<R, 2>(&mut sums, left, b.add((quad + 2) * 4 * PANEL));
                add_quad::<R, 3>(&mut sums, left, b.add((quad + 3) * 4 * PANEL));
            }
            for quad in quads - quads % 4..quads {
                let left = std::array::from_fn(|row| four_bytes(a.add(row * a_stride + quad * 4)));
                add_quad::<R, 0>(&mut sums, left, b.add(quad * 4 * PANEL));
            }
            for (row, [low, high]) in sums.iter().enumerate() {
                vst1q_s32(c.add(row * PANEL), *low);
                vst1q_s32(c.add(row * PANEL + 4), *high);
            }
        }
    }
}

/// R rows as PAIRS of them; the last of an odd number is its own neighbour.
///
/// # Safety
/// See [`TileI8`].
#[target_feature(enable = "neon,i8mm")]
unsafe fn i8mm_i8<const R: usize, const PAIRS: usize>(
    quads: usize,
    a: *const u8,
    a_stride: usize,
    b: *const i8,
    c: *mut i32,
    part: Part,
) {
    let rows = |pair: usize| [2 * pair, (2 * pair + 1).min(R - 1)];
    for column in (0..part.columns.min(PANEL)).step_by(COLUMNS) {
        // Two rows and two columns to a register.
        let mut sums = [[vdupq_n_s32(0); 4]; PAIRS];
        // SAFETY: every address is in row 0..R of `a` or `c`, or in quad 0..quads of `b`.
        unsafe {
            let (b, c) = (b.add(column * 4), c.add(column));
            let whole = quads - quads % 4;
            for quad in (0..whole).step_by(4) {
                let left: [_; PAIRS] = std::array::from_fn(|pair| {
                    rows(pair).map(|row| less_128(vld1q_u8(a.add(row * a_stride + quad * 4))))
                });
                let b = b.add(quad * 4 * PANEL);
                let (first, second) = (columns(b), columns(b.add(4 * PANEL)));
                add_pairs(&mut sums, left.map(|[x, y]| low_halves(x, y)), first, second);
                let (first, second) = (columns(b.add(8 * PANEL)), columns(b.add(12 * PANEL)));
                add_pairs(&mut sums, left.map(|[x, y]| high_halves(x, y)), first, second);
            }
            if quads % 4 >= 2 {
                let left: [_; PAIRS] = std::array::from_fn(|pair| {
                    let [x, y] =
                        rows(pair).map(|row| eight_bytes(a.add(row * a_stride + whole * 4)));
                    low_halves(x, y)
                });
                let b = b.add(whole * 4 * PANEL);
                add_pairs(&mut sums, left, columns(b), columns(b.add(4 * PANEL)));
            }
            if quads % 2 == 1 {
                let last = quads - 1;
                let left: [_; PAIRS] = std::array::from_fn(|pair| {
                    let [x, y] = rows(pair).map(|row| four_bytes(a.add(row * a_stride + last * 4)));
                    low_halves(x, y)
                });
                add_pairs(&mut sums, left, columns(b.add(last * 4 * PANEL)), [vdupq_n_s8(0); 2]);
            }
            for (pair, sums) in sums.iter().enumerate() {
                let sums = sums.map(|it| vreinterpretq_s64_s32(it));
                for half in 0..2 {
                    let [x, y] = [sums[2 * half], sums[2 * half + 1]];
                    let c = c.add(4 * half);
                    // The neighbour of an odd last row is that row: written twice, the same.
                    let [upper, lower] = rows(pair).map(|row| c.add(row * PANEL));
                    vst1q_s32(upper, vreinterpretq_s32_s64(vzip1q_s64(x, y)));
                    if lower != upper {
                        vst1q_s32(lower, vreinterpretq_s32_s64(vzip2q_s64(x, y)));
                    }
                }
            }
        }
    }
}

/// Adds two quads, of which each register of `left` holds those of two rows, times eight columns of `b`.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn add_pairs<const PAIRS: usize>(
    sums: &mut [[int32x4_t; 4]; PAIRS],
    left: [int8x16_t; PAIRS],
    first: [int8x16_t; 2],
    second: [int8x16_t; 2],
) {
    let [first, second] = [first, second].map(|it| it.map(|it| vreinterpretq_s32_s8(it)));
    for half in 0..2 {
        // Two columns to a register, both quads of each side by side.
        let right = [vzip1q_s32(first[half], second[half]), vzip2q_s32(first[half], second[half])];
        for (sums, left) in sums.iter_mut().zip(left) {
            for (at, right) in right.into_iter().enumerate() {
                let sum = &mut sums[2 * half + at];
                *sum = multiply_pairs(*sum, left, vreinterpretq_s8_s32(right));
            }
        }
    }
}

/// `sum + a . b` of two rows by two columns, eight bytes each.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn multiply_pairs(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // The intrinsic is not stable yet.
    // SAFETY: one instruction of an extension that the function is compiled for, on registers alone.
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// The first eight bytes of either.
#[target_feature(enable = "neon")]
#[inline]
fn low_halves(x: int8x16_t, y: int8x16_t) -> int8x16_t {
    vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(x), vreinterpretq_s64_s8(y)))
}

/// The last eight bytes of either.
#[target_feature(enable = "neon")]
#[inline]
fn high_halves(x: int8x16_t, y: int8x16_t) -> int8x16_t {
    vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(x), vreinterpretq_s64_s8(y)))
}

/// # Safety
/// See [`TileI8`]; `a` lies transposed.
#[target_feature(enable = "neon,dotprod")]
unsafe fn dotprod_turned_i8<const R: usize>(
    quads: usize,
    a: *const u8,
    _a_stride: usize,
    b: *const i8,
    c: *mut i32,
    _part: Part,
) {
    for column in (0..PANEL).step_by(COLUMNS) {
        let mut sums = [[vdupq_n_s32(0); 2]; R];
        // SAFETY: every address is in row 0..R of `c`, or in quad 0..quads of `a` or `b`.
        unsafe {
            let (b, c) = (b.add(column * 4), c.add(column));
            for quad in 0..quads {
                let (a, b) = (a.add(quad * 4 * PANEL), b.add(quad * 4 * PANEL));
                let (b_low, b_high) = (vld1q_s8(b), vld1q_s8(b.add(16)));
                for (group, sums) in sums.chunks_mut(4).enumerate() {
                    let left = four_quads(a.add(16 * group), sums.len());
                    for (row, [low, high]) in sums.iter_mut().enumerate() {
                        (*low, *high) = match row {
                            0 => (dot::<0>(*low, b_low, left), dot::<0>(*high, b_high, left)),
                            1 => (dot::<1>(*low, b_low, left), dot::<1>(*high, b_high, left)),
                            2 => (dot::<2>(*low, b_low, left), dot::<2>(*high, b_high, left)),
                            _ => (dot::<3>(*low, b_low, left), dot::<3>(*high, b_high, left)),
                        };
                    }
                }
            }
            for (row, [low, high]) in sums.iter().enumerate() {
                vst1q_s32(c.add(row * PANEL), *low);
                vst1q_s32(c.add(row * PANEL + 4), *high);
            }
        }
    }
}

/// The first `count` of four quads less 128; the others are of no meaning.
///
/// # Safety
/// So many quads at `address` may be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn four_quads(address: *const u8, count: usize) -> int8x16_t {
    // SAFETY: the caller vouches for the quads.
    unsafe {
        if count == 4 {
            return less_128(vld1q_u8(address));
        }
        let mut bytes = [0; 16];
        bytes.as_mut_ptr().copy_from_nonoverlapping(address, 4 * count);
        less_128(vld1q_u8(bytes.as_ptr()))
    }
}

/// Adds one quad of `k`: bytes 4 LANE.. of `left` times four rows of `b`.
///
/// # Safety
/// Thirty-two bytes at `b` may be read.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn add_quad<const R: usize, const LANE: i32>(
    sums: &mut [[int32x4_t; 2]; R],
    left: [int8x16_t; R],
    b: *const i8,
) {
    // SAFETY: the caller vouches for the thirty-two bytes.
    let (b_low, b_high) = unsafe { (vld1q_s8(b), vld1q_s8(b.add(16))) };
    for ([low, high], left) in sums.iter_mut().zip(left) {
        *low = dot::<LANE>(*low, b_low, left);
        *high = dot::<LANE>(*high, b_high, left);
    }
}

/// `sum + b . (bytes 4 LANE.. of a)`, four bytes for each lane of the sum.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot<const LANE: i32>(mut sum: int32x4_t, b: int8x16_t, a: int8x16_t) -> int32x4_t {
    // The intrinsic is not stable yet.
    // SAFETY: one instruction of an extension that the function is compiled for, on registers alone.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]",
            sum = inout(vreg) sum,
            b = in(vreg) b,
            a = in(vreg) a,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// # Safety
/// See [`TileI8`].
#[target_feature(enable = "neon")]
unsafe fn neon_i8<const R: usize>(
    quads: usize,
    a: *const u8,
    a_stride: usize,
    b: *const i8,
    c: *mut i32,
    part: Part,
) {
    for column in (0..part.columns.min(PANEL)).step_by(COLUMNS) {
        // Two columns to a register, each in two halves.
        let mut sums = [[vdupq_n_s32(0); 4]; R];
        // SAFETY: every address is in row 0..R of `a` or `c`, or in quad 0..quads of `b`.
        unsafe {
            let (b, c) = (b.add(column * 4), c.add(column));
            // The last of them first: behind the loop they would take registers from it.
            let whole = quads - quads % 4;
            if quads % 4 >= 2 {
                let left =
                    std::array::from_fn(|row| eight_bytes(a.add(row * a_stride + whole * 4)));
                add_two_quads::<R, 0, 1>(&mut sums, left, b.add(whole * 4 * PANEL));
            }
            if quads % 2 == 1 {
                let last = quads - 1;
                let left = std::array::from_fn(|row| four_bytes(a.add(row * a_stride + last * 4)));
                add_last_quad(&mut sums, left, b.add(last * 4 * PANEL));
            }
            for quad in (0..whole).step_by(4) {
                let left: [_; R] =
                    std::array::from_fn(|row| less_128(vld1q_u8(a.add(row * a_stride + quad * 4))));
                add_two_quads::<R, 0, 1>(&mut sums, left, b.add(quad * 4 * PANEL));
                add_two_quads::<R, 2, 3>(&mut sums, left, b.add((quad + 2) * 4 * PANEL));
            }
            for (row, sums) in sums.iter().enumerate() {
                vst1q_s32(c.add(row * PANEL), vpaddq_s32(sums[0], sums[1]));
                vst1q_s32(c.add(row * PANEL + 4), vpaddq_s32(sums[2], sums[3]));
            }
        }
    }
}

/// # Safety
/// See [`TileI8`]; `a` lies transposed.
#[target_feature(enable = "neon")]
unsafe fn neon_turned_i8<const R: usize>(
    quads: usize,
    a: *const u8,
    _a_stride: usize,
    b: *const i8,
    c: *mut i32,
    _part: Part,
) {
    for column in (0..PANEL).step_by(COLUMNS) {
        // Two columns to a register, each in two halves.
        let mut sums = [[vdupq_n_s32(0); 4]; R];
        // SAFETY: every address is in row 0..R of `c`, or in quad 0..quads of `a` or `b`.
        unsafe {
            let (b, c) = (b.add(column * 4), c.add(column));
            for quad in (0..quads - quads % 2).step_by(2) {
                let (a, b) = (a.add(quad * 4 * PANEL), b.add(quad * 4 * PANEL));
                let (x, y) = (four_quads(a, R), four_quads(a.add(4 * PANEL), R));
                let (first, second) = (columns(b), columns(b.add(4 * PANEL)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    match row {
                        0 => add_two_to_row::<0, 0>(sums, (x, y), first, second),
                        1 => add_two_to_row::<1, 1>(sums, (x, y), first, second),
                        2 => add_two_to_row::<2, 2>(sums, (x, y), first, second),
                        _ => add_two_to_row::<3, 3>(sums, (x, y), first, second),
                    }
                }
            }
            for quad in quads - quads % 2..quads {
                let left = std::array::from_fn(|row| four_bytes(a.add((quad * PANEL + row) * 4)));
                add_last_quad::<R>(&mut sums, left, b.add(quad * 4 * PANEL));
            }
            for (row, sums) in sums.iter().enumerate() {
                vst1q_s32(c.add(row * PANEL), vpaddq_s32(sums[0], sums[1]));
                vst1q_s32(c.add(row * PANEL + 4), vpaddq_s32(sums[2], sums[3]));
            }
        }
    }
}

/// Adds two quads of `k`: bytes 4 FIRST.. and 4 SECOND.. of `left` times four rows of `b` each.
///
/// # Safety
/// Thirty-two bytes at `b`, and as many a row of the panel further on, may be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn add_two_quads<const R: usize, const FIRST: i32, const SECOND: i32>(
    sums: &mut [[int32x4_t; 4]; R],
    left: [int8x16_t; R],
    b: *const i8,
) {
    // SAFETY: the caller vouches for both places.
    let (first, second) = unsafe { (columns(b), columns(b.add(4 * PANEL))) };
    for (sums, left) in sums.iter_mut().zip(left) {
        add_two_to_row::<FIRST, SECOND>(sums, (left, left), first, second);
    }
}

/// Adds two quads, FIRST of `x` and SECOND of `y`, to the sums of one row.
#[target_feature(enable = "neon")]
#[inline]
fn add_two_to_row<const FIRST: i32, const SECOND: i32>(
    sums: &mut [int32x4_t; 4],
    (x, y): (int8x16_t, int8x16_t),
    first: [int8x16_t; 2],
    second: [int8x16_t; 2],
) {
    // Left to itself the compiler begins so many products at once that it has to put sums aside.
    // SAFETY: instructions that the function is compiled for, on registers alone.
    unsafe {
        asm!(
            "dup {u:v}.4s, {x:v}.s[{first}]",
            "dup {w:v}.4s, {y:v}.s[{second}]",
            "smull {a:v}.8h, {p:v}.8b, {u:v}.8b",
            "smull2 {b:v}.8h, {p:v}.16b, {u:v}.16b",
            "smull {c:v}.8h, {q:v}.8b, {u:v}.8b",
            "smull2 {d:v}.8h, {q:v}.16b, {u:v}.16b",
            "smlal {a:v}.8h, {r:v}.8b, {w:v}.8b",
            "smlal2 {b:v}.8h, {r:v}.16b, {w:v}.16b",
            "smlal {c:v}.8h, {s:v}.8b, {w:v}.8b",
            "smlal2 {d:v}.8h, {s:v}.16b, {w:v}.16b",
            "sadalp {e:v}.4s, {a:v}.8h",
            "sadalp {f:v}.4s, {b:v}.8h",
            "sadalp {g:v}.4s, {c:v}.8h",
            "sadalp {h:v}.4s, {d:v}.8h",
            a = out(vreg) _, b = out(vreg) _, c = out(vreg) _, d = out(vreg) _,
            u = out(vreg) _, w = out(vreg) _,
            x = in(vreg) x, y = in(vreg) y,
            first = const FIRST, second = const SECOND,
            p = in(vreg) first[0], q = in(vreg) first[1],
            r = in(vreg) second[0], s = in(vreg) second[1],
            e = inout(vreg) sums[0], f = inout(vreg) sums[1],
            g = inout(vreg) sums[2], h = inout(vreg) sums[3],
            options(nostack, preserves_flags)
        );
    }
}

/// Adds one quad of `k`, which is in every lane of `left`.
///
/// # Safety
/// Thirty-two bytes at `b` may be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn add_last_quad<const R: usize>(
    sums: &mut [[int32x4_t; 4]; R],
    left: [int8x16_t; R],
    b: *const i8,
) {
    // SAFETY: the caller vouches for the thirty-two bytes.
    let b = unsafe { columns(b) };
    for (sums, x) in sums.iter_mut().zip(left) {
        for half in 0..2 {
            let low = vmull_s8(vget_low_s8(x), vget_low_s8(b[half]));
            sums[2 * half] = vpadalq_s16(sums[2 * half], low);
            sums[2 * half + 1] = vpadalq_s16(sums[2 * half + 1], vmull_high_s8(x, b[half]));
        }
    }
}

/// One quad of eight columns.
///
/// # Safety
/// Thirty-two bytes at `b` may be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn columns(b: *const i8) -> [int8x16_t; 2] {
    // SAFETY: the caller vouches for the thirty-two bytes.
    unsafe { [vld1q_s8(b), vld1q_s8(b.add(16))] }
}

/// Eight activations less 128, and eight more of no meaning.
///
/// # Safety
/// Eight bytes at `address` may be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn eight_bytes(address: *const u8) -> int8x16_t {
    // SAFETY: the caller vouches for the eight bytes.
    let bytes = unsafe { vld1_u8(address) };
    less_128(vcombine_u8(bytes, bytes))
}

/// Four activations less 128, in every lane.
///
/// # Safety
/// Four bytes at `address` may be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn four_bytes(address: *const u8) -> int8x16_t {
    // SAFETY: the caller vouches for the four bytes; no alignment is asked of them.
    let bytes = unsafe { address.cast::<u32>().read_unaligned() };
    less_128(vreinterpretq_u8_u32(vdupq_n_u32(bytes)))
}

/// Flipping the top bit of `a` reads it as `a - 128` in two's complement.
#[target_feature(enable = "neon")]
#[inline]
fn less_128(a: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(veorq_u8(a, vdupq_n_u8(128)))
}
