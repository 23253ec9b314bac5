//! An allocator that counts, and that refuses what would pass a limit.
//!
//! A program that wants the budget enforced, not only planned, makes it the global allocator:
//! ```
//! use dram_runtime::allocator::CountingAllocator;
//!
//! #[global_allocator]
//! static ALLOCATOR: CountingAllocator = CountingAllocator::new();
//! # fn main() {
//! let kept = vec![0_u8; 4096];
//! assert!(ALLOCATOR.current_bytes() >= kept.len() as u64);
//! # }
//! ```
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The system's allocator with a count of live bytes, their peak, and a limit.
#[derive(Debug)]
pub struct CountingAllocator {
    current: AtomicU64,
    peak: AtomicU64,
    limit: AtomicU64,
    refused: fn(Refusal),
}

/// What the allocator would not give.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// Bytes that were asked for.
    pub wanted_bytes: u64,
    /// Bytes that were live.
    pub current_bytes: u64,
    /// The most that may be; `u64::MAX` where it was the system that had no more.
    pub limit_bytes: u64,
}

impl CountingAllocator {
    /// An allocator with no limit.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> CountingAllocator {
        CountingAllocator::refusing(|_| ())
    }

    /// An allocator with no limit yet, that calls `refused` where it, or the system, will refuse: a program may say there
    /// what happened and end in order. It must not allocate, unless it lifts the limit first.
    pub const fn refusing(refused: fn(Refusal)) -> CountingAllocator {
        CountingAllocator {
            refused,
            current: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
        }
    }

    /// Bytes that are allocated now.
    pub fn current_bytes(&self) -> u64 {
        self.current.load(Relaxed)
    }

    /// The most bytes that were allocated at one time.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Forgets the peak: from now on it is that of what is allocated now and later.
    pub fn restart_peak(&self) {
        self.peak.store(self.current_bytes(), Relaxed);
    }

    /// From now on refuses what would make the live bytes exceed `bytes`. Rust's collections abort the
    /// process when that happens, unless what [`CountingAllocator::refusing`] was given ends it before.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Relaxed);
    }

    /// Counts `bytes` more, unless that passes the limit.
    fn take(&self, bytes: usize) -> bool {
        let taken = self.current.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        let limit = self.limit.load(Relaxed);
        if taken > limit {
            self.refuse(bytes, limit);
            return false;
        }
        self.peak.fetch_max(taken, Relaxed);
        true
    }

    fn give(&self, bytes: usize) {
        self.current.fetch_sub(bytes as u64, Relaxed);
    }

    /// Gives back `bytes` that were counted, and says that they cannot be had.
    fn refuse(&self, bytes: usize, limit_bytes: u64) {
        self.give(bytes);
        let (wanted_bytes, current_bytes) = (bytes as u64, self.current_bytes());
        (self.refused)(Refusal { wanted_bytes, current_bytes, limit_bytes });
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged, or answered with null, which
// the trait defines as "no memory".
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !self.take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises about `layout` are the system's conditions.
        let start = unsafe { System.alloc(layout) };
        if start.is_null() {
            self.refuse(layout.size(), u64::MAX);
        }
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: `start` came from the system's allocator with this layout.
        unsafe { System.dealloc(start, layout) };
        self.give(layout.size());
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !self.take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as for `alloc`.
        let start = unsafe { System.alloc_zeroed(layout) };
        if start.is_null() {
            self.refuse(layout.size(), u64::MAX);
        }
        start
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks may exist while the system moves one to the other, but it does not say when;
        // the difference is what lasts.
        let grown = size.saturating_sub(layout.size());
        if !self.take(grown) {
            return std::ptr::null_mut();
        }
        // SAFETY: `start` came from the system's allocator with this layout; `size` is the caller's promise.
        let moved = unsafe { System.realloc(start, layout, size) };
        if moved.is_null() {
            self.refuse(grown, u64::MAX);
        } else {
            self.give(layout.size().saturating_sub(size));
        }
        moved
    }
}
