//! Windows: a stream of samples turned into overlapping blocks of fixed length.

use crate::sensor::Sample;
use heapless::Vec;

/// The last `LEN` samples of `CHANNELS` values each, given out every `HOP` samples.
///
/// The first window is due with the `LEN`-th sample, every further one `HOP` samples after the one
/// before: windows overlap where `HOP < LEN`, and skip samples where `HOP > LEN`. A window always
/// ends in a sample that was measured: one that falls due among samples made up by [`OnGap`] waits
/// for the measured one behind them, and hops count from there.
///
/// Takes `LEN * CHANNELS` f32 and a few words, wherever the owner puts it.
#[derive(Debug, Clone)]
pub struct Window<const CHANNELS: usize, const LEN: usize, const HOP: usize> {
    /// Grows to `LEN`, then is a ring. Not a `heapless::Deque`: up to 0.9.3 its `make_contiguous` leaves
    /// a full deque with its end out of bounds (rust-embedded/heapless#676).
    samples: Vec<[f32; CHANNELS], LEN>,
    /// Index of the oldest sample once the ring is full, 0 before.
    oldest: usize,
    /// Samples still to come until a window is due, at least 1.
    due_in: usize,
    on_gap: OnGap,
}

/// What becomes of a window when samples are missing in the middle of it.
///
/// Gaps of `LEN` samples or more always reset: nothing from before them is left to bridge from. A gap is
/// as long as [`Sample::lost`] says, which for some sensors is the least that it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnGap {
    /// Forget what came before the gap; the next window is due `LEN` samples after it. No window
    /// ever holds a gap, and after a gap there is no decision for a while.
    Reset,
    /// Repeat the last sample before the gap in place of each missing one; reset where more than
    /// `at_most` are missing.
    Hold {
        /// The longest gap to bridge, in samples.
        at_most: u32,
    },
    /// Draw a straight line through the missing samples, channel by channel; reset where more than
    /// `at_most` are missing.
    Interpolate {
        /// The longest gap to bridge, in samples.
        at_most: u32,
    },
}

impl<const CHANNELS: usize, const LEN: usize, const HOP: usize> Window<CHANNELS, LEN, HOP> {
    /// An empty window. `CHANNELS`, `LEN` and `HOP` of zero do not compile.
    ///
    /// ```compile_fail,E0080
    /// use dram_targets::window::{OnGap, Window};
    /// Window::<6, 128, 0>::new(OnGap::Reset);
    /// ```
    pub fn new(on_gap: OnGap) -> Self {
        const { assert!(CHANNELS > 0 && LEN > 0 && HOP > 0, "a window dimension is zero") };
        Self { samples: Vec::new(), oldest: 0, due_in: LEN, on_gap }
    }

    /// Takes one sample; gives the window `[LEN, CHANNELS]`, oldest sample first, where one is due.
    ///
    /// ```
    /// use dram_targets::window::{OnGap, Window};
    /// let mut window = Window::<1, 3, 2>::new(OnGap::Reset);
    /// assert_eq!(window.push([1.0].into()), None);
    /// assert_eq!(window.push([2.0].into()), None);
    /// assert_eq!(window.push([3.0].into()), Some(&[[1.0], [2.0], [3.0]]));
    /// assert_eq!(window.push([4.0].into()), None);
    /// assert_eq!(window.push([5.0].into()), Some(&[[3.0], [4.0], [5.0]]));
    /// ```
    pub fn push(&mut self, sample: Sample<CHANNELS>) -> Option<&[[f32; CHANNELS]; LEN]> {
        self.bridge(&sample);
        self.append(sample.values);
        if self.due_in > 0 {
            return None;
        }
        self.due_in = HOP;
        self.samples.rotate_left(self.oldest);
        self.oldest = 0;
        // Full here: `LEN` samples were due when it was last empty, so the conversion holds.
        <&[_; LEN]>::try_from(self.samples.as_slice()).ok()
    }

    /// Forgets every sample; the next window is due `LEN` samples from now.
    pub fn reset(&mut self) {
        self.samples.clear();
        self.oldest = 0;
        self.due_in = LEN;
    }

    /// Fills the gap before `sample`, or resets.
    fn bridge(&mut self, sample: &Sample<CHANNELS>) {
        let Some(before) = self.newest() else {
            return;
        };
        let lost = sample.lost;
        let fits =
            |at_most: u32| lost <= at_most && usize::try_from(lost).is_ok_and(|lost| lost < LEN);
        match self.on_gap {
            _ if lost == 0 => {}
            OnGap::Hold { at_most } if fits(at_most) => {
                (0..lost).for_each(|_| self.append(before));
            }
            OnGap::Interpolate { at_most } if fits(at_most) => {
                for step in 1..=lost {
                    let share = step as f32 / (lost + 1) as f32;
                    self.append(core::array::from_fn(|channel| {
                        before[channel] + (sample.values[channel] - before[channel]) * share
                    }));
                }
            }
            OnGap::Reset | OnGap::Hold { .. } | OnGap::Interpolate { .. } => self.reset(),
        }
    }

    fn newest(&self) -> Option<[f32; CHANNELS]> {
        // In a full ring the newest stands just before the oldest, or at the end.
        self.samples[..self.oldest].last().or(self.samples.last()).copied()
    }

    fn append(&mut self, values: [f32; CHANNELS]) {
        // Only a full ring refuses the push.
        if self.samples.push(values).is_err() {
            self.samples[self.oldest] = values;
            self.oldest = (self.oldest + 1) % LEN;
        }
        self.due_in = self.due_in.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    /// Pushes samples numbered from 1, each with the losses before it, where a lost sample takes its
    /// number along; gives each window as the last number before it and its values.
    fn windows<const LEN: usize, const HOP: usize>(
        on_gap: OnGap,
        losses: &[u32],
    ) -> Vec<(u32, Vec<f32>)> {
        let mut window = Window::<1, LEN, HOP>::new(on_gap);
        let mut number = 0;
        let mut all = vec![];
        for &lost in losses {
            number += lost + 1;
            if let Some(window) = window.push(Sample { values: [number as f32], lost }) {
                all.push((number, window.as_flattened().to_vec()));
            }
        }
        all
    }

    #[test]
    fn every_length_and_hop_gives_the_windows_that_slicing_gives() {
        fn check<const LEN: usize, const HOP: usize>() {
            let stream: Vec<f32> = (1..=200).map(|number| number as f32).collect();
            let expected: Vec<_> = (0..)
                .map(|index| index * HOP)
                .take_while(|start| start + LEN <= stream.len())
                .map(|start| ((start + LEN) as u32, stream[start..start + LEN].to_vec()))
                .collect();
            assert_eq!(windows::<LEN, HOP>(OnGap::Reset, &[0; 200]), expected, "{LEN} by {HOP}");
        }
        check::<1, 1>();
        check::<1, 3>();
        check::<2, 1>();
        check::<3, 2>();
        check::<4, 4>();
        check::<4, 7>();
        check::<5, 3>();
        check::<7, 1>();
        check::<16, 5>();
        check::<128, 64>();
        check::<200, 1>();
        check::<201, 1>();
    }

    #[test]
    fn a_sample_keeps_its_channels_together() {
        let mut window = Window::<2, 2, 1>::new(OnGap::Reset);
        assert_eq!(window.push([1.0, -1.0].into()), None);
        assert_eq!(window.push([2.0, -2.0].into()), Some(&[[1.0, -1.0], [2.0, -2.0]]));
        assert_eq!(window.push([3.0, -3.0].into()), Some(&[[2.0, -2.0], [3.0, -3.0]]));
    }

    #[test]
    fn gaps_reset_or_are_bridged() {
        use OnGap::{Hold, Interpolate, Reset};
        type Case = (OnGap, &'static [u32], &'static [(u32, [f32; 4])]);
        let cases: &[Case] = &[
            // (policy, lost before each sample, windows of 4 every 2)
            (Reset, &[0, 0, 0, 0, 0, 0], &[(4, [1., 2., 3., 4.]), (6, [3., 4., 5., 6.])]),
            (Reset, &[0, 0, 0, 1, 0, 0, 0], &[(8, [5., 6., 7., 8.])]),
            (Reset, &[0, 0, 0, 0, 1, 0, 0, 0], &[(4, [1., 2., 3., 4.]), (9, [6., 7., 8., 9.])]),
            // Nothing comes before the first sample, so nothing is made up for it.
            (Hold { at_most: 9 }, &[5, 0, 0, 0], &[(9, [6., 7., 8., 9.])]),
            (Hold { at_most: 1 }, &[0, 1, 0], &[(4, [1., 1., 3., 4.])]),
            (Hold { at_most: 2 }, &[0, 2], &[(4, [1., 1., 1., 4.])]),
            // Due with sample 4, which is made up: given with 5, and the next one 2 after that.
            (
                Hold { at_most: 2 },
                &[0, 0, 2, 0, 0],
                &[(5, [2., 2., 2., 5.]), (7, [2., 5., 6., 7.])],
            ),
            (Interpolate { at_most: 2 }, &[0, 0, 2], &[(5, [2., 3., 4., 5.])]),
            (Interpolate { at_most: 2 }, &[0, 2], &[(4, [1., 2., 3., 4.])]),
            // Longer than allowed, and as long as the window.
            (Hold { at_most: 1 }, &[0, 2, 0, 0, 0], &[(7, [4., 5., 6., 7.])]),
            (Interpolate { at_most: 9 }, &[0, 4, 0, 0, 0], &[(9, [6., 7., 8., 9.])]),
            (Hold { at_most: u32::MAX }, &[0, 100, 0, 0, 0], &[(105, [102., 103., 104., 105.])]),
        ];
        for (on_gap, losses, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(at, w)| (*at, w.to_vec())).collect();
            assert_eq!(windows::<4, 2>(*on_gap, losses), expected, "{on_gap:?}, {losses:?}");
        }
    }

    #[test]
    fn the_largest_possible_loss_resets() {
        let mut window = Window::<1, 2, 1>::new(OnGap::Interpolate { at_most: u32::MAX });
        assert_eq!(window.push([1.0].into()), None);
        assert_eq!(window.push(Sample { values: [2.0], lost: u32::MAX }), None);
        assert_eq!(window.push([3.0].into()), Some(&[[2.0], [3.0]]));
    }

    #[test]
    fn reset_starts_over() {
        let mut window = Window::<1, 2, 1>::new(OnGap::Reset);
        window.push([1.0].into());
        window.reset();
        assert_eq!(window.push([2.0].into()), None);
        assert_eq!(window.push([3.0].into()), Some(&[[2.0], [3.0]]));
    }
}
