//! Pieces of a slice at equal distances, whose bounds are looked at once for all of them: beside a few multiplications
//! of vectors, looking each time takes longer than they do.
#![allow(unsafe_code)]

/// `count` pieces of `L` elements, of which each begins `stride` elements after the one before it.
#[derive(Clone, Copy)]
pub(super) struct Runs<'a, X, const L: usize> {
    /// Holds `L` elements from `stride * index` on for each index below `count`.
    values: &'a [X],
    stride: usize,
    count: usize,
}

impl<'a, X, const L: usize> Runs<'a, X, L> {
    /// Those that begin with the first of `values`.
    ///
    /// # Panics
    /// When the last of them reaches beyond `values`.
    #[inline(always)]
    pub(super) fn new(values: &'a [X], stride: usize, count: usize) -> Runs<'a, X, L> {
        let last = count.saturating_sub(1).checked_mul(stride);
        let end = last.and_then(|last| last.checked_add(L));
        assert!(count == 0 || end.is_some_and(|end| end <= values.len()), "all pieces are there");
        Runs { values, stride, count }
    }

    /// Piece number `index`.
    ///
    /// # Panics
    /// When there are no more than `index`.
    #[inline(always)]
    pub(super) fn get(&self, index: usize) -> &'a [X; L] {
        assert!(index < self.count, "a piece");
        // SAFETY: `L` elements from there on are within `values`, as `new` saw; the product does not overflow, since that of
        // the last index does not.
        unsafe { &*self.values.as_ptr().add(index * self.stride).cast() }
    }
}

/// As [`Runs`], to be written.
pub(super) struct RunsMut<'a, X, const L: usize> {
    values: &'a mut [X],
    stride: usize,
    count: usize,
}

impl<'a, X, const L: usize> RunsMut<'a, X, L> {
    /// Those that begin with the first of `values`.
    ///
    /// # Panics
    /// When the last of them reaches beyond `values`.
    #[inline(always)]
    pub(super) fn new(values: &'a mut [X], stride: usize, count: usize) -> RunsMut<'a, X, L> {
        Runs::<X, L>::new(values, stride, count);
        RunsMut { values, stride, count }
    }

    /// Writes piece number `index`.
    ///
    /// # Panics
    /// When there are no more than `index`.
    #[inline(always)]
    pub(super) fn set(&mut self, index: usize, piece: [X; L]) {
        assert!(index < self.count, "a piece");
        // SAFETY: as for `Runs::get`; the slice is borrowed to be written.
        unsafe { *self.values.as_mut_ptr().add(index * self.stride).cast() = piece }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_those_of_the_slice() {
        let values: Vec<u8> = (0..23).collect();
        let runs = Runs::<u8, 3>::new(&values, 5, 5);
        for (index, piece) in values.chunks(5).enumerate() {
            assert_eq!(runs.get(index)[..], piece[..3]);
        }
        assert_eq!(Runs::<u8, 30>::new(&values, 5, 0).count, 0);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut values = [0; 23];
        RunsMut::<u8, 3>::new(&mut values, 5, 5).set(4, [1, 2, 3]);
        assert_eq!(Runs::<u8, 3>::new(&values, 5, 5).get(4), &[1, 2, 3]);
        assert_eq!(values.iter().filter(|&&value| value != 0).count(), 3);
    }

    #[test]
    #[should_panic(expected = "all pieces are there")]
    fn a_last_piece_that_is_cut_off_is_refused() {
        Runs::<u8, 4>::new(&[0; 23], 5, 5);
    }

    #[test]
    #[should_panic(expected = "all pieces are there")]
    fn a_distance_that_overflows_is_refused() {
        Runs::<u8, 1>::new(&[0; 23], usize::MAX / 2, 4);
    }

    #[test]
    #[should_panic(expected = "a piece")]
    fn a_piece_after_the_last_is_refused() {
        Runs::<u8, 3>::new(&[0; 23], 5, 4).get(4);
    }
}
