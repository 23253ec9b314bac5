//! How fast the kernels are on this machine, beside what its core can do at most: the layers of all-MiniLM-L6-v2 one by
//! one, as the table that `docs/benchmarks.md` shows.
//!
//! `cargo run --release --example kernels [CPU [TOKENS]]`: one thread, the least of many calls, for the detected class of
//! CPU or the one named, on 128 tokens or as many as said; then the CPU time of threads that have nothing to do.

use dram_runtime::kernels::*;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Columns of a hidden state, and of the layer in between.
const HIDDEN: usize = 384;
const INNER: usize = 4 * HIDDEN;
const HEADS: Heads = Heads { heads: 12, head_width: 32 };

/// Layers of the model. Their weights take turns, as in an inference: they come from as far away.
const LAYERS: usize = 6;

/// Name, inputs, outputs, activation and whether a residual is added.
const LINEAR: [(&str, usize, usize, Activation, bool); 4] = [
    ("384 x 1152", HIDDEN, 3 * HIDDEN, Activation::None, false),
    ("384 x 384, residual", HIDDEN, HIDDEN, Activation::None, true),
    ("384 x 1536, GELU", HIDDEN, INNER, Activation::Gelu, false),
    ("1536 x 384, residual", INNER, HIDDEN, Activation::None, true),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let cpu = match arguments.next() {
        None => Cpu::detect(),
        Some(name) => Cpu::available()
            .find(|cpu| cpu.name() == name)
            .unwrap_or_else(|| panic!("`{name}` is none of this machine's classes of CPU")),
    };
    let tokens = arguments.next().map_or(128, |tokens| tokens.parse().expect("a number of tokens"));
    let peak = Peak::of(cpu);
    println!(
        "{cpu}, {tokens} tokens. Tiles whose weights stay in the first-level cache: f32 {:.0} GFLOP/s, int8 {:.0} GOP/s\n",
        peak.f32 / 1e9,
        peak.int8 / 1e9
    );
    linear_layers(cpu, tokens, &peak);
    the_rest(cpu, tokens, &peak);
    idle_threads();
}

/// Operations per second, two a multiply-accumulate, of tiles whose weights stay in the first-level cache.
struct Peak {
    f32: f64,
    int8: f64,
}

impl Peak {
    fn of(cpu: Cpu) -> Peak {
        // Panels of 32 KiB, as long as the cache allows, for what surrounds a tile to count least; and enough tiles
        // for what they fetch beyond the panel to count nothing.
        let (rows, k_f32, k_int8, calls) = (132, 256, 1024, 20);
        let (f32_layer, int8_layer) = (LayerF32::new(k_f32, 32), LayerI8::new(k_int8, 32));
        let (x, mut out) = (floats(rows * k_f32), vec![0.0; rows * 32]);
        let f32_seconds = least(|| {
            for _ in 0..calls {
                f32_layer.run(cpu, black_box(&x), Epilogue::default(), &mut out);
            }
        });
        let (bytes, scales) = (vec![3; rows * k_int8], vec![RowScale::default(); rows]);
        let int8_seconds = least(|| {
            for _ in 0..calls {
                int8_layer.run(cpu, black_box(&bytes), &scales, Epilogue::default(), &mut out);
            }
        });
        let operations = |k: usize| (calls * 2 * rows * k * 32) as f64;
        Peak { f32: operations(k_f32) / f32_seconds, int8: operations(k_int8) / int8_seconds }
    }
}

fn linear_layers(cpu: Cpu, tokens: usize, peak: &Peak) {
    println!(
        "| layer | f32, µs | of the peak | int8, µs | of the peak | quantizing its rows, µs |"
    );
    println!("|---|---|---|---|---|---|");
    let mut all = Row::default();
    for (name, k, n, activation, adds) in LINEAR {
        let (x, terms, mut out) = (floats(tokens * k), floats(tokens * n), vec![0.0; tokens * n]);
        let epilogue = Epilogue { activation, residual: adds.then_some(Strided::new(&terms, n)) };
        let layers: [LayerF32; LAYERS] = std::array::from_fn(|_| LayerF32::new(k, n));
        let f32_seconds = least(|| {
            layers.iter().for_each(|layer| layer.run(cpu, black_box(&x), epilogue, &mut out));
        });
        let mut bytes = vec![0; tokens * quantized_width(k)];
        let mut scales = vec![RowScale::default(); tokens];
        let quantize_seconds =
            least(|| quantize_rows(cpu, black_box(&x), k, &mut bytes, &mut scales));
        let epilogue = match activation {
            Activation::Gelu => Epilogue { activation: Activation::GeluPolynomial, ..epilogue },
            _ => epilogue,
        };
        let layers: [LayerI8; LAYERS] = std::array::from_fn(|_| LayerI8::new(k, n));
        let int8_seconds = least(|| {
            let run =
                |layer: &LayerI8| layer.run(cpu, black_box(&bytes), &scales, epilogue, &mut out);
            layers.iter().for_each(run);
        });
        let row = Row {
            operations: (2 * tokens * k * n) as f64,
            f32_seconds: f32_seconds / LAYERS as f64,
            int8_seconds: int8_seconds / LAYERS as f64,
            quantize_seconds,
        };
        row.print(name, peak);
        all = all.plus(&row);
    }
    all.print("together", peak);
    let both = all.int8_seconds + all.quantize_seconds;
    println!(
        "\nWith the quantization of the rows int8 reaches {:.0} %.",
        100.0 * all.operations / both / peak.int8
    );
}

#[derive(Default)]
struct Row {
    operations: f64,
    f32_seconds: f64,
    int8_seconds: f64,
    quantize_seconds: f64,
}

impl Row {
    fn plus(&self, other: &Row) -> Row {
        Row {
            operations: self.operations + other.operations,
            f32_seconds: self.f32_seconds + other.f32_seconds,
            int8_seconds: self.int8_seconds + other.int8_seconds,
            quantize_seconds: self.quantize_seconds + other.quantize_seconds,
        }
    }

    fn print(&self, name: &str, peak: &Peak) {
        let share = |seconds: f64, peak: f64| 100.0 * self.operations / seconds / peak;
        println!(
            "| {name} | {:.0} | {:.0} % | {:.0} | {:.0} % | {:.1} |",
            self.f32_seconds * 1e6,
            share(self.f32_seconds, peak.f32),
            self.int8_seconds * 1e6,
            share(self.int8_seconds, peak.int8),
            self.quantize_seconds * 1e6,
        );
    }
}

/// What a layer does besides.
fn the_rest(cpu: Cpu, tokens: usize, peak: &Peak) {
    let (qkv, mask) = (floats(tokens * 3 * HIDDEN), vec![1; tokens]);
    let mut out = vec![0.0; tokens * HIDDEN];
    let mut scratch = vec![0.0; HEADS.scratch_len(tokens)];
    let attend = least(|| {
        let target = Block::new(&mut out, HIDDEN);
        attention(cpu, HEADS, 0..HEADS.heads, (black_box(&qkv), &mask), &mut scratch, target);
    });
    let mut scratch = vec![0.0; HEADS.scratch_len_i8(tokens)];
    let attend_i8 = least(|| {
        let target = Block::new(&mut out, HIDDEN);
        attention_i8(cpu, HEADS, 0..HEADS.heads, (black_box(&qkv), &mask), &mut scratch, target);
    });
    let share =
        |seconds: f64, peak: f64| 100.0 * (4 * tokens * tokens * HIDDEN) as f64 / seconds / peak;
    let x = floats(tokens * HIDDEN);
    let norm = LayerNorm { gamma: &x[..HIDDEN], beta: &x[..HIDDEN], epsilon: 1e-12 };
    let normalize = least(|| layer_norm(cpu, black_box(&x), norm, &mut out));
    println!(
        "Attention: {:.0} µs in f32, {:.0} % of the peak; {:.0} µs in int8, {:.0} %. A normalization: {:.1} µs.",
        attend * 1e6,
        share(attend, peak.f32),
        attend_i8 * 1e6,
        share(attend_i8, peak.int8),
        normalize * 1e6,
    );
}

/// Threads that wait for work use no processor.
fn idle_threads() {
    let threads = Threads::new(4).expect("threads start");
    threads.split(4, 1, RowsMut::new(&mut [0; 4], 1), |_, _| {});
    let start = cpu_seconds();
    std::thread::sleep(Duration::from_secs(1));
    let idle = start.zip(cpu_seconds()).map(|(start, end)| (end - start) * 1e3);
    let told = idle.map_or("an unknown time".to_owned(), |idle| format!("{idle:.0} ms"));
    println!("Four threads that wait for a second take {told} of the processor.");
}

struct LayerF32 {
    panels: Vec<f32>,
    bias: Vec<f32>,
    k: usize,
    n: usize,
}

impl LayerF32 {
    fn new(k: usize, n: usize) -> LayerF32 {
        LayerF32 { panels: pack_f32(&floats(k * n), k, n), bias: pad_columns(&floats(n)), k, n }
    }

    fn run(&self, cpu: Cpu, x: &[f32], epilogue: Epilogue<'_>, out: &mut [f32]) {
        let LayerF32 { panels, bias, k, n } = self;
        let weights = PackedF32::new(panels, bias, *k, *n).expect("packed for k and n");
        linear_f32(cpu, x, &weights, epilogue, Block::new(out, *n));
    }
}

struct LayerI8 {
    panels: Vec<i8>,
    sums: Vec<i32>,
    scales: Vec<f32>,
    bias: Vec<f32>,
    k: usize,
    n: usize,
}

impl LayerI8 {
    fn new(k: usize, n: usize) -> LayerI8 {
        let (weights, scales) = quantize_columns(&floats(k * n), k, n);
        let panels = pack_i8(&weights, k, n).expect("quantized symmetrically");
        let (sums, scales) = (column_sums(&weights, k, n), pad_columns(&scales));
        LayerI8 { panels, sums, scales, bias: pad_columns(&floats(n)), k, n }
    }

    fn run(&self, cpu: Cpu, x: &[u8], rows: &[RowScale], epilogue: Epilogue<'_>, out: &mut [f32]) {
        let LayerI8 { panels, sums, scales, bias, k, n } = self;
        let weights =
            PackedI8::new(panels, sums, scales, bias, *k, *n).expect("packed for k and n");
        linear_i8(cpu, x, rows, &weights, epilogue, Block::new(out, *n));
    }
}

fn floats(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// Seconds of the quickest call in half a second: what other processes take away is not the kernel's.
fn least(mut call: impl FnMut()) -> f64 {
    call();
    let (begin, mut least) = (Instant::now(), f64::INFINITY);
    while begin.elapsed() < Duration::from_millis(500) {
        let start = Instant::now();
        call();
        least = least.min(start.elapsed().as_secs_f64());
    }
    least
}

/// User and system time of this process, in the kernel's steps of 10 ms (proc(5), fields 14 and 15).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}
