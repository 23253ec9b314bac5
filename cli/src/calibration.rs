//! How near our kernels come to a machine's peaks: measured here, carried over to other machines.

mod networks;

use std::hint::black_box;
use std::thread::available_parallelism;

use dram_runtime::kernels::{
    Activation, Block, Cpu, Epilogue, Heads, LayerNorm, PackedF32, PackedI8, RowScale, attention,
    attention_i8, column_sums, layer_norm, linear_f32, linear_i8, pack_f32, pack_i8, pad_columns,
    quantize_columns, quantize_rows, quantized_width,
};
use serde::{Deserialize, Serialize};

use crate::machine;
use crate::process::cpu_time;
pub(crate) use networks::NetworkRates;

/// What one thread of a machine reached. Layers are those of an encoder of [`WIDTH`] on [`TOKENS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Calibration {
    /// The processor, as its system names it.
    pub(crate) machine: String,
    /// The class of kernels that it chose.
    pub(crate) kernels: String,
    /// Threads that can work at once.
    pub(crate) cores: u32,
    /// RAM that a program could take when it was measured.
    pub(crate) ram_available_bytes: u64,
    /// Peak in f32: multiply-accumulates per second of a tile that stays in the first-level cache.
    pub(crate) f32_macs_per_second: f64,
    /// The same in int8.
    pub(crate) int8_macs_per_second: f64,
    /// Size of the last cache before memory; 0 where the system does not say.
    pub(crate) cache_bytes: u64,
    /// What arrives from beyond the caches.
    pub(crate) memory_bytes_per_second: f64,
    /// Share of the f32 peak that linear layers reach, normalization and activation included.
    pub(crate) f32_efficiency: f64,
    /// Share of the int8 peak that they reach, their rows' quantization included too.
    pub(crate) int8_efficiency: f64,
    /// Share of the f32 peak that attention reaches, softmax included.
    pub(crate) attention_efficiency: f64,
    /// Share of the int8 peak that it reaches on integers, their rounding included.
    pub(crate) attention_int8_efficiency: f64,
    /// What a kernel of an encoder costs that computes next to nothing.
    pub(crate) call_nanoseconds: f64,
    /// What networks over signals and images take.
    pub(crate) network_nanoseconds: NetworkRates,
}

const TOKENS: usize = 64;
const WIDTH: usize = 384;
const INNER: usize = 4 * WIDTH;
const HEADS: Heads = Heads { heads: 12, head_width: WIDTH / 12 };

/// Encoder layers that take turns, each with weights of its own: as in a model, they come from further
/// away than the first caches.
const ENCODERS: usize = 3;

/// Inputs and outputs of the linear layers that an encoder layer has.
const LAYERS: [(usize, usize); 4] =
    [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, INNER), (INNER, WIDTH)];

/// What follows the sums of a layer with `n` outputs, where a GELU is computed as `gelu`.
fn epilogue(n: usize, gelu: Activation) -> Epilogue<'static> {
    Epilogue { activation: if n == INNER { gelu } else { Activation::None }, residual: None }
}

impl Calibration {
    /// Measures this machine, for about four seconds; other work on it shows as lower shares.
    pub(crate) fn measure() -> Calibration {
        let cpu = Cpu::detect();
        let (f32_peak, int8_peak) = (peak_f32(cpu), peak_int8(cpu));
        let macs = ENCODERS * LAYERS.iter().map(|(k, n)| TOKENS * k * n).sum::<usize>();
        let (f32_rate, int8_rate) =
            (macs as f64 / layers_f32_seconds(cpu), macs as f64 / layers_int8_seconds(cpu));
        let attention_macs = (2 * TOKENS * TOKENS * WIDTH) as f64;
        let [attention_f32, attention_int8] = attention_seconds(cpu);
        Calibration {
            machine: machine::processor().unwrap_or_else(|| "unknown".to_owned()),
            kernels: cpu.name().to_owned(),
            cores: available_parallelism().map_or(1, |cores| cores.get() as u32),
            // Where the system does not say, memory decides nothing.
            ram_available_bytes: machine::ram_available_bytes().unwrap_or(u64::MAX),
            f32_macs_per_second: f32_peak,
            int8_macs_per_second: int8_peak,
            cache_bytes: machine::cache_bytes().unwrap_or(0),
            memory_bytes_per_second: memory_rate(),
            f32_efficiency: f32_rate / f32_peak,
            int8_efficiency: int8_rate / int8_peak,
            attention_efficiency: attention_macs / attention_f32 / f32_peak,
            attention_int8_efficiency: attention_macs / attention_int8 / int8_peak,
            call_nanoseconds: call_seconds(cpu) * 1e9,
            network_nanoseconds: NetworkRates::measure([f32_peak, int8_peak]),
        }
    }
}

/// Twelve rows against one panel: the tile that the kernels are made of.
const TILE: (usize, usize, usize) = (12, 512, 32);

fn peak_f32(cpu: Cpu) -> f64 {
    let (m, k, n) = TILE;
    let (panels, bias) = (pack_f32(&floats(k * n), k, n), vec![0.0; n]);
    let weights = PackedF32::new(&panels, &bias, k, n).expect("packed for k and n");
    let (x, mut out) = (floats(m * k), vec![0.0; m * n]);
    let call =
        || linear_f32(cpu, black_box(&x), &weights, Epilogue::default(), Block::new(&mut out, n));
    (m * k * n) as f64 / least(call)
}

fn peak_int8(cpu: Cpu) -> f64 {
    let (m, k, n) = TILE;
    let layer = Int8Layer::new(k, n);
    let (x, rows, mut out) = (vec![3; m * k], vec![RowScale::default(); m], vec![0.0; m * n]);
    let call = || {
        let out = Block::new(&mut out, n);
        linear_i8(cpu, black_box(&x), &rows, &layer.packed(), Epilogue::default(), out);
    };
    (m * k * n) as f64 / least(call)
}

/// All layers one after the other, so that each finds its weights where the others have left them.
fn layers_f32_seconds(cpu: Cpu) -> f64 {
    let layer = |(k, n)| (pack_f32(&floats(k * n), k, n), pad_columns(&floats(n)));
    let encoders = [(); ENCODERS].map(|()| LAYERS.map(layer));
    let x = floats(TOKENS * INNER);
    let mut out = vec![0.0; TOKENS * INNER];
    let mut encode = |layers: &[(Vec<f32>, Vec<f32>); 4]| {
        for ((k, n), (panels, bias)) in LAYERS.into_iter().zip(layers) {
            let weights = PackedF32::new(panels, bias, k, n).expect("packed for k and n");
            let (x, out) = (&x[..TOKENS * k], Block::new(&mut out[..TOKENS * n], n));
            linear_f32(cpu, black_box(x), &weights, epilogue(n, Activation::Gelu), out);
        }
        normalize_twice(cpu, &mut out);
    };
    median(|| encoders.iter().for_each(&mut encode))
}

fn layers_int8_seconds(cpu: Cpu) -> f64 {
    let encoders = [(); ENCODERS].map(|()| LAYERS.map(|(k, n)| Int8Layer::new(k, n)));
    let x = floats(TOKENS * INNER);
    let mut out = vec![0.0; TOKENS * INNER];
    let mut bytes = vec![0; TOKENS * quantized_width(INNER)];
    let mut rows = vec![RowScale::default(); TOKENS];
    let mut encode = |layers: &[Int8Layer; 4]| {
        for ((k, n), layer) in LAYERS.into_iter().zip(layers) {
            let (x, out) = (&x[..TOKENS * k], Block::new(&mut out[..TOKENS * n], n));
            let bytes = &mut bytes[..TOKENS * quantized_width(k)];
            quantize_rows(cpu, black_box(x), k, bytes, &mut rows);
            let epilogue = epilogue(n, Activation::GeluPolynomial);
            linear_i8(cpu, bytes, &rows, &layer.packed(), epilogue, out);
        }
        normalize_twice(cpu, &mut out);
    };
    median(|| encoders.iter().for_each(&mut encode))
}

/// What an encoder layer does besides: there and back between the first two matrices `[TOKENS, WIDTH]` of `rows`.
fn normalize_twice(cpu: Cpu, rows: &mut [f32]) {
    let (x, other) = rows[..2 * TOKENS * WIDTH].split_at_mut(TOKENS * WIDTH);
    let ones = [1.0; WIDTH];
    let norm = LayerNorm { gamma: &ones, beta: &ones, epsilon: 1e-12 };
    layer_norm(cpu, x, norm, other);
    layer_norm(cpu, other, norm, x);
}

/// An int8 layer and the arrays that it borrows from.
struct Int8Layer {
    panels: Vec<i8>,
    sums: Vec<i32>,
    scales: Vec<f32>,
    bias: Vec<f32>,
    k: usize,
    n: usize,
}

impl Int8Layer {
    fn new(k: usize, n: usize) -> Int8Layer {
        let (weights, scales) = quantize_columns(&floats(k * n), k, n);
        let panels = pack_i8(&weights, k, n).expect("columns are quantized to -127..127");
        let (sums, scales) = (column_sums(&weights, k, n), pad_columns(&scales));
        Int8Layer { panels, sums, scales, bias: pad_columns(&floats(n)), k, n }
    }

    fn packed(&self) -> PackedI8<'_> {
        PackedI8::new(&self.panels, &self.sums, &self.scales, &self.bias, self.k, self.n)
            .expect("packed for k and n")
    }
}

/// In f32 and on integers.
fn attention_seconds(cpu: Cpu) -> [f64; 2] {
    let (qkv, mask) = (floats(TOKENS * 3 * WIDTH), vec![1; TOKENS]);
    let mut out = vec![0.0; TOKENS * WIDTH];
    let mut scratch = vec![0.0; HEADS.scratch_len(TOKENS)];
    let f32 = median(|| {
        let (inputs, out) = ((black_box(&qkv[..]), &mask[..]), Block::new(&mut out, WIDTH));
        attention(cpu, HEADS, 0..HEADS.heads, inputs, &mut scratch, out);
    });
    let mut scratch = vec![0.0; HEADS.scratch_len_i8(TOKENS)];
    let int8 = median(|| {
        let (inputs, out) = ((black_box(&qkv[..]), &mask[..]), Block::new(&mut out, WIDTH));
        attention_i8(cpu, HEADS, 0..HEADS.heads, inputs, &mut scratch, out);
    });
    [f32, int8]
}

fn call_seconds(cpu: Cpu) -> f64 {
    let (ones, x, mut out) = ([1.0; 32], [0.5; 32], [0.0; 32]);
    let norm = LayerNorm { gamma: &ones, beta: &ones, epsilon: 1e-12 };
    least(|| layer_norm(cpu, &x, norm, black_box(&mut out)))
}

/// Bytes per second of a sum over more than the caches hold.
fn memory_rate() -> f64 {
    let values = vec![1_u64; (64 << 20) / size_of::<u64>()];
    let pass = || {
        black_box(black_box(&values).iter().fold(0_u64, |sum, value| sum.wrapping_add(*value)));
    };
    size_of_val(&values[..]) as f64 / least_of(20, pass)
}

/// Values within ±1, the same on every machine.
fn floats(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// Seconds of a call: the middle of those in 0.3 s, and of twenty at least.
fn median(mut call: impl FnMut()) -> f64 {
    call();
    let mut times = Vec::new();
    while times.len() < 20 || times.iter().sum::<f64>() < 0.3 {
        times.push(seconds(&mut call));
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Seconds of a call that is too short for the clock.
fn least(mut call: impl FnMut()) -> f64 {
    const CALLS: u32 = 100;
    least_of(200, || (0..CALLS).for_each(|_| call())) / f64::from(CALLS)
}

/// The least seconds of so many calls.
fn least_of(calls: usize, mut call: impl FnMut()) -> f64 {
    (0..calls).map(|_| seconds(&mut call)).fold(f64::INFINITY, f64::min)
}

/// Processor time of a call: what else the machine does then counts as little as it can.
fn seconds(call: &mut impl FnMut()) -> f64 {
    let start = cpu_time();
    call();
    (cpu_time() - start).as_secs_f64()
}
