//! Where each matrix of activations lies in the arena, so that matrices that live at the same time
//! do not overlap and the arena is small.

use super::Slot;

/// Floats that a matrix is rounded up to: a cache line.
const LINE: usize = 16;

/// Offsets of the slots, and the length of the arena, in floats, for sequences of `tokens`.
///
/// First fit over the slots from the largest to the smallest (Pisarchyk and Lee 2020, "Efficient
/// memory management for deep neural net inference", greedy by size).
pub(super) fn place(slots: &[Slot], tokens: usize) -> (Vec<usize>, usize) {
    let length = |slot: &Slot| (slot.rows.count(tokens) * slot.width).next_multiple_of(LINE);
    let mut order: Vec<usize> = (0..slots.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(length(&slots[index])));
    let mut offsets = vec![0; slots.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(slots.len());
    for index in order {
        let slot = &slots[index];
        let together = |other: &Slot| other.live.0 <= slot.live.1 && slot.live.0 <= other.live.1;
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&other| together(&slots[other]))
            .map(|&other| (offsets[other], offsets[other] + length(&slots[other])))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + length(slot) <= start {
                break;
            }
            offset = offset.max(end);
        }
        offsets[index] = offset;
        placed.push(index);
    }
    let end = slots.iter().zip(&offsets).map(|(slot, offset)| offset + length(slot)).max();
    (offsets, end.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::Rows;
    use super::*;

    #[test]
    fn what_lives_together_lies_apart_and_the_rest_is_reused() {
        let slot = |width, from, to| Slot { rows: Rows::Tokens, width, live: (from, to) };
        // A residual (0) spans a wide layer (2) whose input (1) is dead when its output (3) comes.
        let slots =
            [slot(16, 0, 4), slot(48, 1, 2), slot(64, 2, 3), slot(16, 3, 5), slot(16, 5, 6)];
        let (offsets, length) = place(&slots, 10);
        assert_eq!(length, 10 * (16 + 48 + 64));
        for (i, a) in slots.iter().enumerate() {
            for (j, b) in slots.iter().enumerate().skip(i + 1) {
                let together = a.live.0 <= b.live.1 && b.live.0 <= a.live.1;
                let apart = offsets[i] + 10 * a.width <= offsets[j]
                    || offsets[j] + 10 * b.width <= offsets[i];
                assert!(!together || apart, "slots {i} and {j} overlap");
            }
        }
    }
}
