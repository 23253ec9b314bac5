//! Terms of depthwise sums, and floats of products, by NEON, eight channels at a time: left to itself the compiler widens
//! integers anew for every product, and takes vectors apart where sums of several places meet.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::super::pack::PANEL;
use super::Column;

/// `x` less `zero_point`; `None` where they are not eight.
#[inline(always)]
pub(super) fn cells<const L: usize>(x: &[u8; L], zero_point: u8) -> Option<[i16; L]> {
    let x = x.first_chunk::<8>().filter(|_| L == 8)?;
    let mut cells = [0; L];
    // SAFETY: both are eight long; NEON is part of the architecture.
    unsafe {
        let differences = vsubl_u8(vld1_u8(x.as_ptr()), vdup_n_u8(zero_point));
        vst1q_s16(cells.as_mut_ptr(), vreinterpretq_s16_u16(differences));
    }
    Some(cells)
}

/// `weights` in 16 bits; `None` where they are not eight.
#[inline(always)]
pub(super) fn taps<const L: usize>(weights: &[i8; L]) -> Option<[i16; L]> {
    let weights = weights.first_chunk::<8>().filter(|_| L == 8)?;
    let mut taps = [0; L];
    // SAFETY: both are eight long; NEON is part of the architecture.
    unsafe { vst1q_s16(taps.as_mut_ptr(), vmovl_s8(vld1_s8(weights.as_ptr()))) };
    Some(taps)
}

/// `sums + cells * taps`; does nothing and says so where they are not eight.
#[inline(always)]
pub(super) fn add<const L: usize>(sums: &mut [i32; L], cells: &[i16; L], taps: &[i16; L]) -> bool {
    if L != 8 {
        return false;
    }
    // SAFETY: each is eight long; NEON is part of the architecture.
    unsafe {
        let (cells, taps) = (vld1q_s16(cells.as_ptr()), vld1q_s16(taps.as_ptr()));
        let (low, high) = (vld1q_s32(sums.as_ptr()), vld1q_s32(sums.as_ptr().add(4)));
        let low = vmlal_s16(low, vget_low_s16(cells), vget_low_s16(taps));
        vst1q_s32(sums.as_mut_ptr(), low);
        vst1q_s32(sums.as_mut_ptr().add(4), vmlal_high_s16(high, cells, taps));
    }
    true
}

/// The same of floats, by one fused multiply-add each.
#[inline(always)]
pub(super) fn add_floats<const L: usize>(
    sums: &mut [f32; L],
    cells: &[f32; L],
    taps: &[f32; L],
) -> bool {
    if L != 8 {
        return false;
    }
    for half in [0, 4] {
        // SAFETY: each is eight long; NEON is part of the architecture.
        unsafe {
            let (cells, taps) =
                (vld1q_f32(cells.as_ptr().add(half)), vld1q_f32(taps.as_ptr().add(half)));
            let sums = sums.as_mut_ptr().add(half);
            vst1q_f32(sums, vfmaq_f32(vld1q_f32(sums), cells, taps));
        }
    }
    true
}

/// As [`super::floats`], into rows of `sums` that are `width` wide, a multiple of eight.
pub(super) fn floats(
    products: &[[i32; PANEL]],
    column: Column<'_>,
    sums: &mut [f32],
    width: usize,
) {
    assert!(width.is_multiple_of(8) && width <= PANEL, "columns of one panel in whole eights");
    assert!(sums.len() >= products.len() * width, "a row of sums for each of products");
    for first in (0..width).step_by(8) {
        let [low, high] = [first, first + 4].map(|first| Four::of(column, first));
        for (row, products) in products.iter().enumerate() {
            // SAFETY: eight columns of a row of either, whose lengths are asserted above.
            unsafe {
                let (products, sums) =
                    (products.as_ptr().add(first), sums.as_mut_ptr().add(row * width + first));
                let floats =
                    (low.floats(vld1q_s32(products)), high.floats(vld1q_s32(products.add(4))));
                vst1q_f32(sums, floats.0);
                vst1q_f32(sums.add(4), floats.1);
            }
        }
    }
}

/// What makes floats of the products of four columns.
struct Four {
    less: int32x4_t,
    scale: float32x4_t,
    bias: float32x4_t,
}

impl Four {
    #[inline(always)]
    fn of(column: Column<'_>, first: usize) -> Four {
        assert!(first + 4 <= PANEL, "four columns of a panel");
        // SAFETY: so many columns follow the first; NEON is part of the architecture.
        unsafe {
            Four {
                less: vmulq_n_s32(vld1q_s32(column.sums.as_ptr().add(first)), column.factor),
                scale: vmulq_n_f32(vld1q_f32(column.scales.as_ptr().add(first)), column.scale),
                bias: vld1q_f32(column.bias.as_ptr().add(first)),
            }
        }
    }

    #[inline(always)]
    fn floats(&self, products: int32x4_t) -> float32x4_t {
        // SAFETY: NEON is part of the architecture.
        unsafe { vfmaq_f32(self.bias, vcvtq_f32_s32(vaddq_s32(products, self.less)), self.scale) }
    }
}
