//! The boards we know, as plain numbers: what a model has to fit into, and how each number is known.
//!
//! Peaks are ceilings that no program passes, not promises: they bound the best time from below
//! ([`Peaks::least_nanoseconds`]) and say which arithmetic a core is good at. Measure before you
//! promise a latency.

mod cores;
mod table;

use core::fmt;

pub use cores::{Core, Feature};

/// A computer that a student may run on. One board with one amount of RAM; where it is sold with
/// several, the row names the one it stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Board {
    /// Unique, lower case, with hyphens: `rpi-zero-2w`.
    pub id: &'static str,
    /// As its maker writes it.
    pub name: &'static str,
    /// The Rust target triple of a program for it, under the 64-bit system its maker offers.
    pub target_triple: &'static str,
    /// The kind of processor core that runs the model.
    pub core: &'static Core,
    /// Physical cores of that kind; hyper-threads do not count.
    pub cores: Figure<u32>,
    /// Highest clock that all cores hold together while they stay cool.
    pub clock_mhz: Figure<u32>,
    /// RAM that is soldered on, or sold with the machine.
    pub ram_bytes: Figure<u64>,
    /// RAM that an application may take on an idle headless system: what the kernel reports as
    /// `MemTotal` (RAM less firmware, graphics and kernel image) less what the resting system uses,
    /// rounded down. A desktop, a camera or other services take from it.
    pub ram_usable_bytes: Figure<u64>,
    /// Theoretical memory bandwidth: transfers per second times bus width. A single core reaches a
    /// third to two thirds of it.
    pub memory_bytes_per_second: Figure<u64>,
}

/// A number together with the way it became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure<T> {
    /// The number, in the unit that the field's name states.
    pub value: T,
    /// How far to trust it.
    pub known: Known,
    /// Where it comes from: a document, or the arithmetic in words.
    pub source: &'static str,
}

/// How a figure is known, the most trustworthy first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Known {
    /// The maker's own document states it.
    Datasheet,
    /// Someone measured it on the thing itself and published the measurement.
    Published,
    /// Follows by arithmetic from figures of the kinds above; the source shows how.
    Derived,
    /// A judgement that nobody has checked. Measure before relying on it.
    Estimated,
}

/// Ceilings of a machine: of one core, and of the memory that all cores share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peaks {
    /// Multiply-accumulates in f32 that one core does in a second.
    pub f32_macs_per_second: u64,
    /// Those of int8 by int8 into i32.
    pub int8_macs_per_second: u64,
    /// Bytes that memory gives in a second, to all cores together.
    pub memory_bytes_per_second: u64,
    /// Cores that can work at once; zero counts as one.
    pub cores: u32,
}

/// What one inference asks of a machine; the input of [`Peaks::least_nanoseconds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Multiply-accumulates in f32.
    pub f32_macs: u64,
    /// Multiply-accumulates of int8 by int8 into i32.
    pub int8_macs: u64,
    /// Bytes that come from memory and not from a cache, usually the weights.
    pub bytes_read: u64,
}

/// Every board, in a fixed order: the small ones first.
pub fn boards() -> &'static [Board] {
    &table::BOARDS
}

/// The board with exactly this id; `None` where there is none.
pub fn find(id: &str) -> Option<&'static Board> {
    boards().iter().find(|board| board.id == id)
}

impl Board {
    /// What a program may reach on it at the very best.
    pub fn peaks(&self) -> Peaks {
        let per_second =
            |macs: Figure<u32>| u64::from(macs.value) * u64::from(self.clock_mhz.value) * 1_000_000;
        Peaks {
            f32_macs_per_second: per_second(self.core.f32_macs_per_cycle),
            int8_macs_per_second: per_second(self.core.int8_macs_per_cycle),
            memory_bytes_per_second: self.memory_bytes_per_second.value,
            cores: self.cores.value,
        }
    }
}

impl Peaks {
    /// No program does `work` in fewer nanoseconds: the slower of its arithmetic at peak and its memory
    /// traffic at full bandwidth (the roofline of Williams et al., 2009).
    ///
    /// `threads` beyond the number of cores, and zero, count as the nearest possible number; a rate of
    /// zero counts as one a second. The result saturates at [`u64::MAX`].
    ///
    /// ```
    /// use dram_targets::boards::{find, Work};
    /// let pi4 = find("rpi-4").unwrap().peaks();
    /// // 6,000 MACs at 4 a cycle are 1,500 cycles, at 1.5 GHz a microsecond.
    /// let work = Work { f32_macs: 6_000, ..Work::default() };
    /// assert_eq!(pi4.least_nanoseconds(&work, 1), 1_000);
    /// ```
    pub fn least_nanoseconds(&self, work: &Work, threads: u32) -> u64 {
        let threads = u128::from(threads.clamp(1, self.cores.max(1)));
        let nanoseconds = |count: u64, per_second: u64, threads: u128| {
            (u128::from(count) * 1_000_000_000).div_ceil(u128::from(per_second.max(1)) * threads)
        };
        let computing = nanoseconds(work.f32_macs, self.f32_macs_per_second, threads)
            + nanoseconds(work.int8_macs, self.int8_macs_per_second, threads);
        let reading = nanoseconds(work.bytes_read, self.memory_bytes_per_second, 1);
        u64::try_from(computing.max(reading)).unwrap_or(u64::MAX)
    }
}

impl Known {
    /// One lower-case word, for tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Datasheet => "datasheet",
            Self::Published => "published",
            Self::Derived => "derived",
            Self::Estimated => "estimated",
        }
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const fn datasheet<T: Copy>(value: T, source: &'static str) -> Figure<T> {
    Figure { value, known: Known::Datasheet, source }
}

const fn published<T: Copy>(value: T, source: &'static str) -> Figure<T> {
    Figure { value, known: Known::Published, source }
}

const fn derived<T: Copy>(value: T, source: &'static str) -> Figure<T> {
    Figure { value, known: Known::Derived, source }
}

const fn estimated<T: Copy>(value: T, source: &'static str) -> Figure<T> {
    Figure { value, known: Known::Estimated, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_unique_and_found() {
        for (index, board) in boards().iter().enumerate() {
            assert_eq!(find(board.id), Some(board), "{}", board.id);
            assert!(
                boards()[..index].iter().all(|other| other.id != board.id),
                "{} twice",
                board.id
            );
            assert!(
                board.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{} is no id",
                board.id
            );
        }
        assert_eq!(find("rpi-1000"), None);
        assert_eq!(find(""), None);
    }

    #[test]
    fn usable_ram_leaves_room_for_a_system() {
        for board in boards() {
            let (all, usable) = (board.ram_bytes.value, board.ram_usable_bytes.value);
            assert!(usable < all, "{}: {usable} of {all}", board.id);
            assert!(usable > all / 2, "{}: {usable} of {all}", board.id);
        }
    }

    #[test]
    fn every_figure_says_where_it_comes_from() {
        for board in boards() {
            for source in [
                board.cores.source,
                board.clock_mhz.source,
                board.ram_bytes.source,
                board.ram_usable_bytes.source,
                board.memory_bytes_per_second.source,
                board.core.f32_macs_per_cycle.source,
                board.core.int8_macs_per_cycle.source,
            ] {
                assert!(source.len() > 8, "{}: `{source}`", board.id);
            }
        }
    }

    #[test]
    fn features_belong_to_the_triple_and_bound_the_peaks() {
        for board in boards() {
            let arm = board.target_triple.starts_with("aarch64-");
            let has = |feature| board.core.has(feature);
            assert_eq!(has(Feature::Neon), arm, "{}", board.id);
            assert_eq!(has(Feature::Avx2), !arm, "{}", board.id);
            let dot = [Feature::Dotprod, Feature::I8mm, Feature::AvxVnni, Feature::Avx512Vnni];
            // With an int8 dot product, four products fit where one f32 did; without, two at best.
            let gain = board.core.int8_macs_per_cycle.value / board.core.f32_macs_per_cycle.value;
            assert_eq!(dot.into_iter().any(has), gain >= 4, "{}: gain {gain}", board.id);
        }
    }

    #[test]
    fn the_slower_of_arithmetic_and_memory_bounds_the_time() {
        let zero = find("rpi-zero-2w").unwrap().peaks(); // 4 f32 and 8 int8 MACs a cycle at 1 GHz, 3.6 GB/s
        let work = |f32_macs, int8_macs, bytes_read| Work { f32_macs, int8_macs, bytes_read };
        for (work, threads, expected) in [
            (work(0, 0, 0), 1, 0),
            (work(4_000, 0, 0), 1, 1_000),
            (work(0, 8_000, 0), 1, 1_000),
            (work(4_000, 8_000, 0), 1, 2_000),
            (work(4_000, 8_000, 0), 2, 1_000),
            (work(4_000, 8_000, 0), 4, 500),
            (work(4_000, 8_000, 0), 400, 500),
            (work(4_000, 0, 0), 0, 1_000),
            (work(4_000, 0, 3_600), 1, 1_000),
            (work(4_000, 0, 7_200), 1, 2_000),
            (work(1, 0, 0), 1, 1),
            (work(u64::MAX, u64::MAX, u64::MAX), 1, 6_917_529_027_641_081_856),
        ] {
            assert_eq!(zero.least_nanoseconds(&work, threads), expected, "{work:?} on {threads}");
        }
    }
}
