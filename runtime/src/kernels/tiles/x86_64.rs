//! The tiles of x86-64: AVX-512 (24 accumulators of 16 lanes), AVX2 with FMA (12 of 8 lanes, a panel read
//! in halves), and for int8 `vpdpbusd` where there is VNNI.
//!
//! Without VNNI, `vpmaddubsw` adds two products in 16 bits and would saturate at full range. It is exact
//! on `|a - 128| x (b with the sign of a - 128)`: at most 2 * 128 * 127 = 32,512 while weights keep to
//! -127..127.

use super::{Level, PANEL, Part, Right, TileF32, TileI8, TurnedF32, quads_apart};
use std::arch::x86_64::*;

/// The function of each number of rows, as a table.
macro_rules! table {
    ($tile:ident: $($rows:literal)*) => { &[$($tile::<$rows>),*] };
    ($tile:ident turned $turned:literal: $($rows:literal)*) => { &[$($tile::<$rows, $turned>),*] };
}

pub(super) fn tiles_f32(level: Level) -> &'static [TileF32] {
    match level {
        Level::Avx512 | Level::Avx512Vnni => table!(avx512_f32: 1 2 3 4 5 6 7 8 9 10 11 12),
        _ => table!(avx2_f32: 1 2 3 4 5 6),
    }
}

pub(super) fn turned_f32(level: Level) -> &'static [TurnedF32] {
    match level {
        Level::Avx512 | Level::Avx512Vnni => table!(avx512_turned: 1 2 3 4 5 6 7 8 9 10 11 12),
        _ => table!(avx2_turned: 1 2 3 4 5 6),
    }
}

pub(super) fn tiles_i8(level: Level) -> &'static [TileI8] {
    match level {
        Level::Avx512Vnni => table!(avx512_vnni_i8 turned false: 1 2 3 4 5 6 7 8 9 10 11 12),
        Level::Avx2Vnni => table!(avx_vnni_i8 turned false: 1 2 3 4 5 6),
        _ => table!(avx2_i8 turned false: 1 2 3 4),
    }
}

pub(super) fn turned_i8(level: Level) -> &'static [TileI8] {
    match level {
        Level::Avx512Vnni => table!(avx512_vnni_i8 turned true: 1 2 3 4 5 6 7 8 9 10 11 12),
        Level::Avx2Vnni => table!(avx_vnni_i8 turned true: 1 2 3 4 5 6),
        _ => table!(avx2_i8 turned true: 1 2 3 4),
    }
}

/// # Safety
/// See [`TileF32`].
#[target_feature(enable = "avx512f")]
unsafe fn avx512_f32<const R: usize>(
    k: usize,
    a: *const f32,
    a_stride: usize,
    right: Right,
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: the caller vouches for it.
    unsafe {
        match right.part.columns <= 16 {
            true => avx512_f32_of::<R, 1>(k, a, a_stride, right, c, c_stride),
            false => avx512_f32_of::<R, 2>(k, a, a_stride, right, c, c_stride),
        }
    }
}

/// The first V registers of each row.
///
/// # Safety
/// See [`TileF32`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn avx512_f32_of<const R: usize, const V: usize>(
    k: usize,
    a: *const f32,
    a_stride: usize,
    right: Right,
    c: *mut f32,
    c_stride: usize,
) {
    let Right { panel: b, start, part } = right;
    // SAFETY: every address is in row 0..R of `a` or `c`, in `start`, or in row 0..k of `b`.
    unsafe {
        let mut starts = [_mm512_setzero_ps(); V];
        for (at, start_of) in starts.iter_mut().enumerate() {
            *start_of = _mm512_loadu_ps(start.add(16 * at));
        }
        let mut sums = [starts; R];
        for step in 0..k {
            // Weights in f32 outgrow the caches of many machines; spread out, the requests wait for nobody.
            _mm_prefetch::<_MM_HINT_T1>(part.ahead.line(step));
            let mut right = [_mm512_setzero_ps(); V];
            for (at, right) in right.iter_mut().enumerate() {
                *right = _mm512_loadu_ps(b.add(step * PANEL + 16 * at));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let left = _mm512_set1_ps(*a.add(row * a_stride + step));
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm512_fmadd_ps(left, right, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (at, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(c.add(row * c_stride + 16 * at), *sum);
            }
        }
    }
}

/// # Safety
/// See [`TileF32`].
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_f32<const R: usize>(
    k: usize,
    a: *const f32,
    a_stride: usize,
    right: Right,
    c: *mut f32,
    c_stride: usize,
) {
    let Right { panel: b, start, part } = right;
    for column in (0..part.columns.min(PANEL)).step_by(16) {
        // SAFETY: every address is in row 0..R of `a` or `c`, in `start`, or in row 0..k of `b`.
        unsafe {
            let (b, start, c) = (b.add(column), start.add(column), c.add(column));
            let mut sums = [[_mm256_loadu_ps(start), _mm256_loadu_ps(start.add(8))]; R];
            for step in 0..k {
                let b_low = _mm256_loadu_ps(b.add(step * PANEL));
                let b_high = _mm256_loadu_ps(b.add(step * PANEL + 8));
                for (row, [low, high]) in sums.iter_mut().enumerate() {
                    let left = _mm256_set1_ps(*a.add(row * a_stride + step));
                    *low = _mm256_fmadd_ps(left, b_low, *low);
                    *high = _mm256_fmadd_ps(left, b_high, *high);
                }
            }
            for (row, [low, high]) in sums.iter().enumerate() {
                _mm256_storeu_ps(c.add(row * c_stride), *low);
                _mm256_storeu_ps(c.add(row * c_stride + 8), *high);
            }
        }
    }
}

/// # Safety
/// See [`TurnedF32`].
#[target_feature(enable = "avx512f")]
unsafe fn avx512_turned<const R: usize>(k: usize, a: *const f32, b: *const f32, c: *mut f32) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: every address is in row 0..R of `c`, or in step 0..k of `a` or `b`.
    unsafe {
        for step in 0..k {
            let b_low = _mm512_loadu_ps(b.add(step * PANEL));
            let b_high = _mm512_loadu_ps(b.add(step * PANEL + 16));
            for (row, [low, high]) in sums.iter_mut().enumerate() {
                let left = _mm512_set1_ps(*a.add(step * PANEL + row));
                *low = _mm512_fmadd_ps(left, b_low, *low);
                *high = _mm512_fmadd_ps(left, b_high, *high);
            }
        }
        for (row, [low, high]) in sums.iter().enumerate() {
            _mm512_storeu_ps(c.add(row * PANEL), *low);
            _mm512_storeu_ps(c.add(row * PANEL + 16), *high);
        }
    }
}

/// # Safety
/// See [`TurnedF32`].
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_turned<const R: usize>(k: usize, a: *const f32, b: *const f32, c: *mut f32) {
    for column in [0, 16] {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        // SAFETY: every address is in row 0..R of `c`, or in step 0..k of `a` or `b`.
        unsafe {
            let (b, c) = (b.add(column), c.add(column));
            for step in 0..k {
                let b_low = _mm256_loadu_ps(b.add(step * PANEL));
                let b_high = _mm256_loadu_ps(b.add(step * PANEL + 8));
                for (row, [low, high]) in sums.iter_mut().enumerate() {
                    let left = _mm256_set1_ps(*a.add(step * PANEL + row));
                    *low = _mm256_fmadd_ps(left, b_low, *low);
                    *high = _mm256_fmadd_ps(left, b_high, *high);
                }
            }
            for (row, [low, high]) in sums.iter().enumerate() {
                _mm256_storeu_ps(c.add(row * PANEL), *low);
                _mm256_storeu_ps(c.add(row * PANEL + 8), *high);
            }
        }
    }
}

/// # Safety
/// See [`TileI8`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn avx512_vnni_i8<const R: usize, const TURNED: bool>(
    quads: usize,
    a: *const u8,
    a_stride: usize,
    b: *const i8,
    c: *mut i32,
    part: Part,
) {
    // SAFETY: the caller vouches for it.
    unsafe {
        match part.columns <= 16 {
            true => avx512_vnni_i8_of::<R, 1, TURNED>(quads, a, a_stride, b, c, part),
            false => avx512_vnni_i8_of::<R, 2, TURNED>(quads, a, a_stride, b, c, part),
        }
    }
}

/// The first V registers of each row.
///
/// # Safety
/// See [`TileI8`].
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
unsafe fn avx512_vnni_i8_of<const R: usize, const V: usize, const TURNED: bool>(
    quads: usize,
    a: *const u8,
    a_stride: usize,
    b: *const i8,
    c: *mut i32,
    part: Part,
) {
    let mut sums = [[_mm512_setzero_si512(); V]; R];
    // SAFETY: every address is in row 0..R of `a` or `c`, or in quad 0..quads of `b`.
    unsafe {
        for quad in 0..quads {
            if !TURNED {
                _mm_prefetch::<_MM_HINT_T1>(part.ahead.line(quad));
            }
            let mut right = [_mm512_setzero_si512(); V];
            for (at, right) in right.iter_mut().enumerate() {
                *right = _mm512_loadu_si512(b.add(quad * 4 * PANEL + 64 * at).cast());
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let left = _mm512_set1_epi32(quad_of::<TURNED>(a, a_stride, row, quad));
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm512_dpbusd_epi32(*sum, left, right);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (at, sum) in sums.iter().enumerate() {
                _mm512_storeu_si512(c.add(row * PANEL + 16 * at).cast(), *sum);
            }
        }
    }
}

/// An int8 tile of 8 lanes: `$step(sum, four bytes of a row in every lane, weights)` adds one quad.
macro_rules! narrow_i8_tile {
    ($name:ident, $features:literal, $step:expr) => {
        /// # Safety
        /// See [`TileI8`].
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const TURNED: bool>(
            quads: usize,
            a: *const u8,
            a_stride: usize,
            b: *const i8,
            c: *mut i32,
            part: Part,
        ) {
            for column in (0..part.columns.min(PANEL)).step_by(16) {
                let mut sums = [[_mm256_setzero_si256(); 2]; R];
                // SAFETY: every address is in row 0..R of `a` or `c`, or in quad 0..quads of `b`.
                unsafe {
                    let (b, c) = (b.add(column * 4), c.add(column));
                    for quad in 0..quads {
                        let b_low = _mm256_loadu_si256(b.add(quad * 4 * PANEL).cast());
                        let b_high = _mm256_loadu_si256(b.add(quad * 4 * PANEL + 32).cast());
                        for (row, [low, high]) in sums.iter_mut().enumerate() {
                            let left = _mm256_set1_epi32(quad_of::<TURNED>(a, a_stride, row, quad));
                            *low = $step(*low, left, b_low);
                            *high = $step(*high, left, b_high);
                        }
                    }
                    for (row, [low, high]) in sums.iter().enumerate() {
                        _mm256_storeu_si256(c.add(row * PANEL).cast(), *low);
                        _mm256_storeu_si256(c.add(row * PANEL + 8).cast(), *high);
                    }
                }
            }
        }
    };
}

narrow_i8_tile!(avx_vnni_i8, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);
narrow_i8_tile!(avx2_i8, "avx2", add_quad);
// The 256-bit form of AVX-512 computes the same and stands in for AVX-VNNI where a test machine lacks it.
#[cfg(test)]
narrow_i8_tile!(avx512vl_vnni_i8, "avx2,avx512vl,avx512vnni", _mm256_dpbusd_epi32);

/// `sum + (a - 128) . b` over the four bytes of each lane.
#[target_feature(enable = "avx2")]
#[inline]
fn add_quad(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // Flipping the top bit of `a` reads it as `a - 128` in two's complement.
    let a = _mm256_xor_si256(a, _mm256_set1_epi8(i8::MIN));
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// One quad of one row of the left side.
///
/// # Safety
/// It may be read.
#[inline(always)]
unsafe fn quad_of<const TURNED: bool>(
    a: *const u8,
    a_stride: usize,
    row: usize,
    quad: usize,
) -> i32 {
    let row = if TURNED { row * 4 } else { row * a_stride };
    // SAFETY: the caller vouches for the four bytes; no alignment is asked of them.
    unsafe { a.add(row + quad * quads_apart(TURNED) * 4).cast::<i32>().read_unaligned() }
}

#[cfg(test)]
mod tests {
    use super::super::Share;
    use super::*;

    #[test]
    fn the_256_bit_vnni_tile_agrees_with_the_512_bit_one() {
        if !Level::Avx512Vnni.runs_here() {
            return;
        }
        let (quads, stride) = (37, 150);
        let a: Vec<u8> = (0..6 * stride).map(|i| (i * 89 % 251) as u8).collect();
        let b: Vec<i8> = (0..quads * 128).map(|i| ((i * 57 % 255) as i32 - 127) as i8).collect();
        let (mut wide, mut narrow) = ([[7i32; PANEL]; 6], [[7i32; PANEL]; 6]);
        // SAFETY: the feature is detected above, and `a`, `b` and `c` hold 6 rows of 37 quads.
        unsafe {
            let (left, right) = (a.as_ptr(), b.as_ptr());
            let part = Part { columns: PANEL, ahead: Share::ALL.after(&b) };
            avx512_vnni_i8::<6, false>(quads, left, stride, right, wide.as_mut_ptr().cast(), part);
            avx512vl_vnni_i8::<6, false>(
                quads,
                left,
                stride,
                right,
                narrow.as_mut_ptr().cast(),
                part,
            );
        }
        assert_eq!(wide, narrow);
    }
}
