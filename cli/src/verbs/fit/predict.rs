//! Latency from arithmetic: the roofline of a board, at the shares of its peaks that our kernels reach.

use std::num::NonZeroUsize;
use std::path::Path;

use dram_runtime::bundle::Bundle;
use dram_runtime::plan::Plan;
use dram_runtime::{NetworkWork, Options, Result, Session, session};
use dram_targets::boards::{self, Board, Core, Feature, Peaks};

use crate::calibration::{Calibration, NetworkRates};

/// Largest share by which answers took longer than predicted, of models that took no part in the calibration, on the
/// machine that was calibrated: docs/fit.md has the table.
pub(crate) const HELD_OUT_ERROR: f64 = 0.4;

/// What `dram doctor --calibrate` found on a server processor, one thread: the shares of peak that boards
/// are given where nobody has calibrated on one.
pub(crate) fn default_calibration() -> Calibration {
    Calibration {
        machine: "AMD EPYC".to_owned(),
        kernels: "avx512-vnni".to_owned(),
        cores: 2,
        ram_available_bytes: 20 << 30,
        cache_bytes: 32 << 20,
        f32_macs_per_second: 129.2e9,
        int8_macs_per_second: 429.7e9,
        memory_bytes_per_second: 38.2e9,
        f32_efficiency: 0.937,
        int8_efficiency: 0.964,
        attention_efficiency: 0.549,
        attention_int8_efficiency: 0.23,
        call_nanoseconds: 60.6,
        network_nanoseconds: NetworkRates {
            f32_mac: 0.00828,
            int8_mac: 0.00233,
            f32_depthwise_mac: 0.0411,
            int8_depthwise_mac: 0.025,
            gathered: 0.00846,
            gathered_piece: 4.39,
            f32_value: 0.0346,
            int8_value: 0.0796,
            pooled: 0.219,
            array_value: 0.359,
            weight_byte: 0.0055,
            layer: 142.0,
            step: 26.6,
            answer: 773.0,
        },
    }
}

/// Share of the bandwidth on its data sheet that one core of a board reads with: a third to two thirds.
const MEMORY_EFFICIENCY: f64 = 0.5;

/// Share of the table's int8 peak that our kernels can reach on a core: they do not use all that every core
/// has.
fn int8_share(core: &Core) -> f64 {
    let has = |feature| core.has(feature);
    if has(Feature::I8mm) {
        // The peak counts `SMMLA`. How near our tiles come to it was never timed: what `SDOT` would do.
        0.5
    } else if [Feature::Dotprod, Feature::AvxVnni, Feature::Avx512Vnni].into_iter().any(has) {
        1.0
    } else if has(Feature::Avx512) {
        // Without VNNI we multiply in vectors of 256 bits, and the peak counts 512.
        0.5
    } else {
        // Every third instruction is a `SADALP` that adds up pairs, which the peak leaves out.
        2.0 / 3.0
    }
}

/// What one answer takes, in parts that run at different shares of the peaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Multiply-accumulates of linear layers in f32.
    pub(crate) f32_macs: u64,
    /// Those in int8.
    pub(crate) int8_macs: u64,
    /// Those of attention in f32.
    pub(crate) attention_macs: u64,
    /// Those in int8.
    pub(crate) attention_int8_macs: u64,
    /// All that a network over signals or images does; `None` of an encoder.
    pub(crate) network: Option<NetworkWork>,
    /// Weights that are read once, without the table of words, of which a text reads few rows.
    pub(crate) bytes_read: u64,
    /// Kernels that an encoder calls.
    pub(crate) calls: u64,
}

/// A bundle, as far as it decides what an answer costs.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) accuracy: Option<f64>,
    /// The planned lengths, the longest first.
    pub(crate) lengths: Vec<Length>,
}

/// A model at one length of its input.
#[derive(Debug)]
pub(crate) struct Length {
    pub(crate) plan: Plan,
    /// `None` where not all of it runs on our kernels: nothing here knows what the rest takes.
    pub(crate) work: Option<Work>,
}

impl Model {
    /// Reads the bundle at `path`.
    ///
    /// # Errors
    /// Those of [`Session::open`].
    pub(crate) fn open(
        path: &Path,
        threads: NonZeroUsize,
        sequence: Option<NonZeroUsize>,
    ) -> Result<Model> {
        let sequence = sequence.map(NonZeroUsize::get);
        let options = Options { threads, sequence, ..Options::default() };
        let mut plans = session::plans(path, &options)?;
        if sequence.is_some() {
            plans.truncate(1);
        }
        let bundle = Bundle::open(path)?;
        let graph = bundle.graph()?;
        // Of the tables of words and positions a text reads few rows.
        let tables: Vec<&String> = graph
            .nodes
            .iter()
            .filter(|node| node.op.starts_with("Embed"))
            .flat_map(|node| &node.inputs)
            .collect();
        let read =
            bundle.manifest().tensors.iter().filter(|tensor| !tables.contains(&&tensor.name));
        let bytes_read = read.map(|tensor| tensor.bytes).sum();
        let session = Session::from_bundle(bundle, &options)?;
        let calls = session.operators().kernels as u64;
        let manifest = session.manifest();
        let score = manifest.metrics.get(&format!("{}_score", manifest.precision)).copied();
        let work = |plan: &Plan| {
            let work = session.work(plan.sequence.unwrap_or_default());
            let network = Some(work.network).filter(|network| network.steps > 0);
            if network.is_some() {
                return Work { bytes_read, network, ..Work::default() };
            }
            let attention_f32_macs = work.attention_macs - work.int8_attention_macs;
            Work {
                f32_macs: work.macs - work.int8_macs - attention_f32_macs,
                int8_macs: work.int8_macs - work.int8_attention_macs,
                attention_macs: attention_f32_macs,
                attention_int8_macs: work.int8_attention_macs,
                bytes_read,
                calls,
                network,
            }
        };
        let ours = session.executor() == "kernels";
        let length = |plan: Plan| Length { plan, work: ours.then(|| work(&plan)) };
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Model { name, accuracy: score, lengths: plans.into_iter().map(length).collect() })
    }
}

/// A machine that an answer may be predicted for.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) id: &'static str,
    pub(crate) ram_usable_bytes: u64,
    /// Weights up to this size stay in a cache from one answer to the next.
    cache_bytes: u64,
    /// At what our kernels reach in int8, and at the bandwidth that one core reads with.
    peaks: Peaks,
}

impl Machine {
    /// A board of the table.
    pub(crate) fn board(board: &Board) -> Machine {
        let peaks = board.peaks();
        Machine {
            id: board.id,
            ram_usable_bytes: board.ram_usable_bytes.value,
            // Its caches are not in the table: few hold a model, and what else runs has a part of them.
            cache_bytes: 0,
            peaks: Peaks {
                int8_macs_per_second: scaled(peaks.int8_macs_per_second, int8_share(board.core)),
                memory_bytes_per_second: scaled(peaks.memory_bytes_per_second, MEMORY_EFFICIENCY),
                ..peaks
            },
        }
    }

    /// The very machine that was measured.
    pub(crate) fn calibrated(calibration: &Calibration) -> Machine {
        Machine {
            id: "calibrated",
            ram_usable_bytes: calibration.ram_available_bytes,
            cache_bytes: calibration.cache_bytes,
            peaks: Peaks {
                f32_macs_per_second: calibration.f32_macs_per_second as u64,
                int8_macs_per_second: calibration.int8_macs_per_second as u64,
                memory_bytes_per_second: calibration.memory_bytes_per_second as u64,
                cores: calibration.cores,
            },
        }
    }

    /// Milliseconds of one answer, by the roofline over what a calibration found our kernels to reach.
    pub(crate) fn predict_ms(&self, work: &Work, threads: usize, shares: &Calibration) -> f64 {
        let at = |count: u64, share: f64| scaled(count, 1.0 / share);
        let slowed = boards::Work {
            f32_macs: at(work.f32_macs, shares.f32_efficiency)
                + at(work.attention_macs, shares.attention_efficiency),
            int8_macs: at(work.int8_macs, shares.int8_efficiency)
                + at(work.attention_int8_macs, shares.attention_int8_efficiency),
            bytes_read: if work.bytes_read > self.cache_bytes { work.bytes_read } else { 0 },
        };
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        let calls = work.calls as f64 * shares.call_nanoseconds;
        let network =
            work.network.map_or(0.0, |work| self.network_nanoseconds(&work, threads, shares));
        (self.peaks.least_nanoseconds(&slowed, threads) as f64 + calls + network) / 1e6
    }

    /// What a network takes: as much longer than where it was measured as the peak in f32 is
    /// lower, and products in int8 as theirs is.
    fn network_nanoseconds(&self, work: &NetworkWork, threads: u32, shares: &Calibration) -> f64 {
        let slower = |measured: f64, peak: u64| measured / peak.max(1) as f64;
        let f32 = slower(shares.f32_macs_per_second, self.peaks.f32_macs_per_second);
        let int8 = slower(shares.int8_macs_per_second, self.peaks.int8_macs_per_second);
        let of = |work: &NetworkWork| shares.network_nanoseconds.nanoseconds(work);
        let int8_panel_macs = work.int8_panel_macs;
        let (products, _) = of(&NetworkWork { int8_panel_macs, ..NetworkWork::default() });
        let (rest, alone) = of(&NetworkWork { int8_panel_macs: 0, ..*work });
        let threads = f64::from(threads.clamp(1, self.peaks.cores.max(1)));
        (products * int8 + rest * f32) / threads + alone * f32
    }
}

fn scaled(count: u64, factor: f64) -> u64 {
    (count as f64 * factor) as u64
}
