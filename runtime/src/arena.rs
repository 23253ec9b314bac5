//! Where each value of a graph lies in the arena of its activations, so that values that live at the same time
//! do not overlap and the arena is small.

/// Floats that a slot is rounded up to: a cache line.
const LINE: usize = 16;

/// A place in the arena for one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Its floats.
    pub(crate) length: usize,
    /// The step that writes it and the last step that reads it.
    pub(crate) live: (usize, usize),
}

/// Offsets of the slots, and the length of the arena, in floats.
///
/// First fit over the slots from the largest to the smallest (Pisarchyk and Lee 2020, "Efficient
/// memory management for deep neural net inference", greedy by size).
pub(crate) fn place(slots: &[Slot]) -> (Vec<usize>, usize) {
    let length = |slot: &Slot| slot.length.next_multiple_of(LINE);
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
    use super::*;

    #[test]
    fn what_lives_together_lies_apart_and_the_rest_is_reused() {
        let slot = |length, from, to| Slot { length, live: (from, to) };
        // A residual (0) spans a wide layer (2) whose input (1) is dead when its output (3) comes.
        let slots =
            [slot(160, 0, 4), slot(480, 1, 2), slot(640, 2, 3), slot(160, 3, 5), slot(160, 5, 6)];
        let (offsets, length) = place(&slots);
        assert_eq!(length, 160 + 480 + 640);
        for (i, a) in slots.iter().enumerate() {
            for (j, b) in slots.iter().enumerate().skip(i + 1) {
                let together = a.live.0 <= b.live.1 && b.live.0 <= a.live.1;
                let apart =
                    offsets[i] + a.length <= offsets[j] || offsets[j] + b.length <= offsets[i];
                assert!(!together || apart, "slots {i} and {j} overlap");
            }
        }
    }
}
