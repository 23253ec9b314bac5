//! Some columns of a matrix: [`Strided`] to read, [`Block`] to write while other threads write other columns.
#![allow(unsafe_code)]

use super::threads::Rows;
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of a matrix that lie `stride` elements apart, each `width` long.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a, T> {
    /// From the first element of the first row on.
    pub values: &'a [T],
    /// From the start of a row to that of the next.
    pub stride: usize,
    /// Elements of a row.
    pub width: usize,
}

impl<'a, T> Strided<'a, T> {
    /// All of `values`, which is `[_, width]`.
    pub fn new(values: &'a [T], width: usize) -> Strided<'a, T> {
        Strided { values, stride: width, width }
    }

    /// Whether so many rows lie in it.
    pub fn holds(&self, rows: usize) -> bool {
        let before = rows.saturating_sub(1).checked_mul(self.stride);
        let needed = before.and_then(|before| before.checked_add(self.width));
        rows == 0 || needed.is_some_and(|needed| needed <= self.values.len())
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [T] {
        &self.values[row * self.stride..][..self.width]
    }
}

/// A rectangle of a matrix: `rows` rows of `width` elements, wherever the next row begins.
#[derive(Debug)]
pub struct Block<'a, T> {
    start: *mut T,
    rows: usize,
    stride: usize,
    width: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<'a, T> Block<'a, T> {
    /// All of `values`, which is `[rows, width]`.
    ///
    /// # Panics
    /// When `values` holds no whole rows, or `width` is zero.
    pub fn new(values: &'a mut [T], width: usize) -> Block<'a, T> {
        assert!(values.len().is_multiple_of(width), "a matrix holds whole rows");
        let rows = values.len() / width;
        Block { start: values.as_mut_ptr(), rows, stride: width, width, borrow: PhantomData }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "a block has the row that is asked for");
        // SAFETY: the row is one of the block's, all of which are borrowed by it alone, and `self` by the result.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.width) }
    }
}

/// A matrix whose columns are shared out: a thread gets those of its range, of every row.
#[derive(Debug)]
pub struct ColumnsMut<'a, T> {
    whole: Block<'a, T>,
}

impl<'a, T> ColumnsMut<'a, T> {
    /// `values` is `[rows, width]`.
    ///
    /// # Panics
    /// When `values` holds no whole rows, or `width` is zero.
    pub fn new(values: &'a mut [T], width: usize) -> ColumnsMut<'a, T> {
        ColumnsMut { whole: Block::new(values, width) }
    }
}

// SAFETY: it stands for a `&mut [T]` that is cut up and sent to other threads piece by piece.
unsafe impl<T: Send> Sync for ColumnsMut<'_, T> {}

// SAFETY: a part is the columns of its range in each row, and columns do not overlap.
unsafe impl<'a, T: Send> Rows for ColumnsMut<'a, T> {
    type Part = Block<'a, T>;

    fn check(&self, columns: usize, _threads: usize) {
        assert_eq!(columns, self.whole.width, "a shared matrix has the columns that are split");
    }

    unsafe fn part(&self, _worker: usize, columns: Range<usize>) -> Block<'a, T> {
        let Block { start, rows, stride, .. } = self.whole;
        // SAFETY: `check` puts the range within a row, and the caller takes no overlapping one.
        let start = unsafe { start.add(columns.start) };
        Block { start, rows, stride, width: columns.len(), borrow: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::super::threads::Threads;
    use super::*;

    #[test]
    fn every_column_of_every_row_goes_to_one_thread() {
        for (count, width, align) in [(1, 5, 2), (2, 64, 32), (3, 65, 32), (4, 2, 1), (3, 7, 7)] {
            let mut matrix = vec![0; 4 * width];
            let threads = Threads::new(count).expect("threads start");
            threads.split(width, align, ColumnsMut::new(&mut matrix, width), |range, mut part| {
                assert_eq!((part.rows(), part.width()), (4, range.len()));
                for row in 0..part.rows() {
                    for (value, column) in part.row(row).iter_mut().zip(range.clone()) {
                        *value += row * width + column;
                    }
                }
            });
            assert!(
                matrix.iter().enumerate().all(|(place, &value)| value == place),
                "{count} {width}"
            );
        }
    }

    #[test]
    #[should_panic(expected = "a block has the row that is asked for")]
    fn a_row_beyond_the_last_is_refused() {
        Block::new(&mut [0; 6], 3).row(2);
    }
}
