//! What an allocator that counts says of the process's heap, and a peak that was measured as it is planned.

use crate::error::Result;

/// What an allocator that counts says of the process's heap, as
/// [`CountingAllocator`](crate::allocator::CountingAllocator) does.
#[derive(Clone, Copy, Debug)]
pub struct HeapCounter {
    /// Bytes that are allocated now.
    pub current_bytes: fn() -> u64,
    /// The most bytes that were allocated at one time since the peak was last restarted.
    pub peak_bytes: fn() -> u64,
    /// Forgets the peak.
    pub restart_peak: fn(),
}

impl HeapCounter {
    /// What `work` gives, and the bytes at the peak while it ran, beside what was held before.
    pub(crate) fn around<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
        let before = (self.current_bytes)();
        (self.restart_peak)();
        let done = work()?;
        Ok((done, (self.peak_bytes)().saturating_sub(before)))
    }
}

/// A measured peak as it is planned: one part in 32 more, for a processor whose kernels pack otherwise, and
/// what a process needs beside the session, rounded up so that packing twice gives the same bytes.
pub(crate) fn with_margin(peak: u64) -> u64 {
    const BESIDE: u64 = 80 * 1024;
    let bytes = peak + peak / 32 + BESIDE;
    bytes.next_multiple_of((bytes.next_power_of_two() / 64).max(1))
}
