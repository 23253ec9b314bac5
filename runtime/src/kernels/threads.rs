//! Rows of matrices -> shares of rows, one for each thread: [`Threads::split`] hands every thread the part
//! of each buffer that belongs to its rows.
#![allow(unsafe_code)]

use super::pool::Pool;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;

/// A few threads that share work by rows. They sleep while there is none; dropping this ends them.
#[derive(Debug)]
pub struct Threads {
    pool: Pool,
}

impl Threads {
    /// `count` threads, of which the one that calls [`Threads::split`] is the first: one starts none, and
    /// zero counts as one.
    ///
    /// # Errors
    /// Where the system refuses another thread.
    pub fn new(count: usize) -> io::Result<Threads> {
        Ok(Threads { pool: Pool::new(count)? })
    }

    /// Threads that take part, the caller included.
    pub fn count(&self) -> usize {
        self.pool.threads()
    }

    /// Cuts `0..rows` into a range for each thread, every cut at a multiple of `align`, and calls
    /// `work(range, parts)` for those that are not empty: `parts` are the pieces of `buffers` that belong
    /// to the range. Returns when all calls have.
    ///
    /// Ranges depend on `rows`, `align` and the number of threads alone; where there are fewer ranges than threads, the
    /// first threads get them. Called from two threads at once,
    /// or from inside `work`, the second call does all of its work itself.
    ///
    /// # Panics
    /// When a buffer holds another number of rows (or a [`PerThread`] too few parts for the threads that get ranges), or `align` is zero;
    /// and with the panic of `work`, after all calls have ended.
    pub fn split<R: Rows>(
        &self,
        rows: usize,
        align: usize,
        buffers: R,
        work: impl Fn(Range<usize>, R::Part) + Sync,
    ) {
        let units = rows.div_ceil(align);
        let busy = self.count().min(units);
        buffers.check(rows, busy);
        let cut = |worker: usize| (units * worker.min(busy) / busy.max(1) * align).min(rows);
        self.pool.run(&|worker| {
            let range = cut(worker)..cut(worker + 1);
            if !range.is_empty() {
                // SAFETY: `check` has passed; `run` names each worker once, and their ranges are disjoint.
                work(range.clone(), unsafe { buffers.part(worker, range) });
            }
        });
    }
}

/// Buffers that can be cut between rows: [`RowsMut`], [`PerThread`], and tuples of them.
///
/// # Safety
/// Parts of different workers with disjoint ranges do not overlap.
pub unsafe trait Rows: Sync {
    /// What one thread gets.
    type Part;

    /// Panics where the buffer does not hold `rows` rows or not a part for each of the first `threads`.
    fn check(&self, rows: usize, threads: usize);

    /// The part of one thread.
    ///
    /// # Safety
    /// [`Rows::check`] passed for a number of rows that holds `rows` and of threads that exceeds `worker`.
    /// While a part lives, no other is taken for the same worker or an overlapping range.
    unsafe fn part(&self, worker: usize, rows: Range<usize>) -> Self::Part;
}

/// A matrix whose rows are shared out: a thread gets those of its range.
#[derive(Debug)]
pub struct RowsMut<'a, T> {
    start: *mut T,
    len: usize,
    width: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<'a, T> RowsMut<'a, T> {
    /// `values` is `[rows, width]`.
    pub fn new(values: &'a mut [T], width: usize) -> RowsMut<'a, T> {
        RowsMut { start: values.as_mut_ptr(), len: values.len(), width, borrow: PhantomData }
    }
}

// SAFETY: it stands for a `&mut [T]` that is cut up and sent to other threads piece by piece.
unsafe impl<T: Send> Sync for RowsMut<'_, T> {}

// SAFETY: a part is the rows of its range, and rows do not overlap.
unsafe impl<'a, T: Send> Rows for RowsMut<'a, T> {
    type Part = &'a mut [T];

    fn check(&self, rows: usize, _threads: usize) {
        assert_eq!(
            rows.checked_mul(self.width),
            Some(self.len),
            "a shared matrix has the rows that are split"
        );
    }

    unsafe fn part(&self, _worker: usize, rows: Range<usize>) -> &'a mut [T] {
        // SAFETY: `check` puts the range within the slice, and the caller takes no overlapping one.
        unsafe {
            let start = self.start.add(rows.start * self.width);
            std::slice::from_raw_parts_mut(start, rows.len() * self.width)
        }
    }
}

/// Scratch that is not shared: each thread gets a part of `width` elements, whatever its range.
#[derive(Debug)]
pub struct PerThread<'a, T> {
    parts: RowsMut<'a, T>,
}

impl<'a, T> PerThread<'a, T> {
    /// `values` is `[threads, width]`, or longer.
    pub fn new(values: &'a mut [T], width: usize) -> PerThread<'a, T> {
        PerThread { parts: RowsMut::new(values, width) }
    }
}

// SAFETY: a part belongs to one worker, and workers differ.
unsafe impl<'a, T: Send> Rows for PerThread<'a, T> {
    type Part = &'a mut [T];

    fn check(&self, _rows: usize, threads: usize) {
        let needed = threads.checked_mul(self.parts.width);
        assert!(
            needed.is_some_and(|needed| needed <= self.parts.len),
            "there is scratch for every thread"
        );
    }

    unsafe fn part(&self, worker: usize, _rows: Range<usize>) -> &'a mut [T] {
        // SAFETY: `check` puts the worker's part within the slice, and the caller takes it once.
        unsafe { self.parts.part(worker, worker..worker + 1) }
    }
}

macro_rules! rows_of_tuples {
    ($($rows:ident $index:tt),*) => {
        // SAFETY: each element keeps its own parts apart, and elements are different buffers.
        unsafe impl<$($rows: Rows),*> Rows for ($($rows,)*) {
            type Part = ($($rows::Part,)*);

            fn check(&self, rows: usize, threads: usize) {
                $(self.$index.check(rows, threads);)*
            }

            unsafe fn part(&self, worker: usize, rows: Range<usize>) -> Self::Part {
                // SAFETY: the caller's promise holds for each element.
                unsafe { ($(self.$index.part(worker, rows.clone()),)*) }
            }
        }
    };
}
rows_of_tuples!(A 0, B 1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn every_row_is_worked_on_once_and_cuts_are_aligned() {
        for (count, rows, align) in
            [(1, 7, 4), (2, 7, 4), (3, 100, 32), (4, 3, 1), (4, 0, 1), (5, 64, 12)]
        {
            let threads = Threads::new(count).unwrap();
            let (mut matrix, mut scratch) = (vec![0usize; rows * 3], vec![0usize; count * 2]);
            for _ in 0..50 {
                let buffers = (RowsMut::new(&mut matrix, 3), PerThread::new(&mut scratch, 2));
                threads.split(rows, align, buffers, |range, (part, scratch)| {
                    assert_eq!((part.len(), scratch.len()), (range.len() * 3, 2));
                    assert!(range.start.is_multiple_of(align));
                    part.iter_mut().for_each(|value| *value += 1);
                    scratch[0] += range.len();
                });
            }
            assert!(
                matrix.iter().all(|&value| value == 50),
                "{count} threads, {rows} rows, align {align}"
            );
            assert_eq!(scratch.iter().sum::<usize>(), rows * 50);
        }
    }

    #[test]
    fn a_panic_of_any_thread_reaches_the_caller_and_the_pool_lives_on() {
        let threads = Threads::new(3).unwrap();
        for culprit in 0..3 {
            let mut values = [0; 3];
            let panic = catch_unwind(AssertUnwindSafe(|| {
                threads.split(3, 1, RowsMut::new(&mut values, 1), |range, part| {
                    assert!(range.start != culprit, "row {culprit}");
                    part[0] = 1;
                });
            }));
            let message = *panic.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(message, format!("row {culprit}"));
            assert_eq!(values.iter().sum::<i32>(), 2, "the other rows are done");
        }
    }

    #[test]
    fn a_split_within_a_split_is_done_by_its_own_thread() {
        let threads = Threads::new(2).unwrap();
        let mut values = [0; 8];
        threads.split(2, 1, RowsMut::new(&mut values, 4), |_, part| {
            threads.split(4, 1, RowsMut::new(part, 1), |_, part| {
                part.iter_mut().for_each(|value| *value += 1);
            });
        });
        assert_eq!(values, [1; 8]);
    }

    #[test]
    #[should_panic(expected = "a shared matrix has the rows that are split")]
    fn a_matrix_of_other_rows_is_refused() {
        let mut values = [0; 8];
        Threads::new(1).unwrap().split(3, 1, RowsMut::new(&mut values, 4), |_, _| {});
    }
}
