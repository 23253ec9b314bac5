//! How fast the kernels are on this machine, beside what its core can do at most.
//!
//! `cargo run --release --example kernels [CPU]`: medians of one thread, for every class of CPU or the
//! one named; then two threads, and the CPU time of threads that have nothing to do.

use dram_runtime::kernels::*;
use std::hint::black_box;
use std::time::Instant;

/// Rows, inputs and outputs of MiniLM-L6 at sequence length 128, and a short sequence.
const SHAPES: [(usize, usize, usize); 5] =
    [(128, 384, 1152), (128, 384, 1536), (128, 1536, 384), (128, 384, 384), (16, 384, 1536)];

fn main() {
    let wanted = std::env::args().nth(1);
    for cpu in
        Cpu::available().filter(|cpu| wanted.as_deref().is_none_or(|name| name == cpu.name()))
    {
        println!(
            "\n{cpu}: in the first-level cache f32 {:.0} GFLOP/s, int8 {:.0} GOP/s",
            cached_f32(cpu),
            cached_i8(cpu)
        );
        SHAPES.iter().for_each(|&shape| linear(cpu, shape));
        rows(cpu);
        attention_of_minilm(cpu);
    }
    layers_on_threads(Cpu::detect());
}

/// Median seconds of a call, over at least 40 calls and 0.2 s.
fn median(mut call: impl FnMut()) -> f64 {
    call();
    let mut seconds = Vec::new();
    while seconds.len() < 40 || seconds.iter().sum::<f64>() < 0.2 {
        let start = Instant::now();
        call();
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn floats(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// A layer whose operands stay in the first-level cache: what the memory beyond it takes is the difference.
fn cached_f32(cpu: Cpu) -> f64 {
    let layer = LayerF32::new(128, 32);
    let (x, mut out) = (floats(12 * 128), vec![0.0; 12 * 32]);
    let calls = 200;
    let seconds = median(|| {
        for _ in 0..calls {
            linear_f32(cpu, black_box(&x), &layer.packed(), Epilogue::default(), &mut out);
        }
    });
    (calls * 2 * 12 * 128 * 32) as f64 / seconds / 1e9
}

fn cached_i8(cpu: Cpu) -> f64 {
    let layer = LayerI8::new(512, 32);
    let (x, rows, mut out) = (vec![3; 12 * 512], [RowScale::default(); 12], vec![0.0; 12 * 32]);
    let calls = 200;
    let seconds = median(|| {
        for _ in 0..calls {
            linear_i8(cpu, black_box(&x), &rows, &layer.packed(), Epilogue::default(), &mut out);
        }
    });
    (calls * 2 * 12 * 512 * 32) as f64 / seconds / 1e9
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

    fn packed(&self) -> PackedF32<'_> {
        PackedF32::new(&self.panels, &self.bias, self.k, self.n).expect("packed for k and n")
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

    fn packed(&self) -> PackedI8<'_> {
        PackedI8::new(&self.panels, &self.sums, &self.scales, &self.bias, self.k, self.n)
            .expect("packed for k and n")
    }

    fn run(
        &self,
        cpu: Cpu,
        x: &[f32],
        (bytes, rows): (&mut [u8], &mut [RowScale]),
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        let bytes = &mut bytes[..x.len()];
        quantize_rows(cpu, x, self.k, bytes, rows);
        linear_i8(cpu, bytes, rows, &self.packed(), epilogue, out);
    }
}

/// Nothing but what stood there before is added to the sums.
fn add(residual: &[f32]) -> Epilogue<'_> {
    Epilogue { activation: Activation::None, residual: Some(residual) }
}

fn linear(cpu: Cpu, (m, k, n): (usize, usize, usize)) {
    let operations = (2 * m * k * n) as f64 / 1e9;
    let (x, mut out) = (floats(m * k), vec![0.0; m * n]);
    let (f32_layer, i8_layer) = (LayerF32::new(k, n), LayerI8::new(k, n));
    let (mut bytes, mut rows) = (vec![0; m * quantized_width(k)], vec![RowScale::default(); m]);
    quantize_rows(cpu, &x, k, &mut bytes, &mut rows);
    let gelu = Epilogue { activation: Activation::Gelu, residual: None };
    let f32_rate = |epilogue, out: &mut [f32]| {
        operations / median(|| linear_f32(cpu, &x, &f32_layer.packed(), epilogue, out))
    };
    let (plain, fused) = (f32_rate(Epilogue::default(), &mut out), f32_rate(gelu, &mut out));
    let mut i8_rate = |epilogue, quantize: bool| {
        operations
            / median(|| {
                if quantize {
                    quantize_rows(cpu, &x, k, &mut bytes, &mut rows);
                }
                linear_i8(cpu, &bytes, &rows, &i8_layer.packed(), epilogue, &mut out);
            })
    };
    println!(
        "{m:4} x {k:4} x {n:4}: f32 {plain:6.1} GFLOP/s (gelu {fused:6.1}); int8 {:6.1} GOP/s (gelu {:6.1}, rows quantized too {:6.1})",
        i8_rate(Epilogue::default(), false),
        i8_rate(gelu, false),
        i8_rate(Epilogue::default(), true),
    );
}

fn rows(cpu: Cpu) {
    let (m, width) = (128, 1536);
    let x = floats(m * width);
    let (mut bytes, mut ranges, mut y) =
        (vec![0; x.len()], vec![RowScale::default(); m], x.clone());
    let norm = LayerNorm { gamma: &x[..width], beta: &x[..width], epsilon: 1e-12 };
    let rate = |seconds: f64| x.len() as f64 / seconds / 1e9;
    println!(
        "values/ns of {m} x {width}: quantize {:.2}, gelu {:.2}, softmax {:.2}, layer norm {:.2}",
        rate(median(|| quantize_rows(cpu, &x, width, &mut bytes, &mut ranges))),
        rate(median(|| gelu(cpu, black_box(&mut y)))),
        rate(median(|| softmax(cpu, black_box(&mut y), width))),
        rate(median(|| layer_norm(cpu, &x, norm, &mut y))),
    );
}

fn attention_of_minilm(cpu: Cpu) {
    let (heads, tokens) = (Heads { heads: 12, head_width: 32 }, 128);
    let qkv = floats(tokens * 3 * heads.hidden());
    let mut packed = vec![0.0; heads.packed_len(tokens)];
    let (mut scratch, mask) = (vec![0.0; heads.scratch_len(tokens)], vec![1; tokens]);
    let mut out = vec![0.0; tokens * heads.hidden()];
    let pack = median(|| pack_keys_values(cpu, heads, &qkv, &mut packed));
    let keys_values = KeysValues { packed: &packed, mask: &mask };
    let attend = median(|| attention(cpu, heads, &qkv, keys_values, &mut scratch, &mut out));
    let operations = (4 * tokens * tokens * heads.hidden()) as f64 / 1e9;
    println!(
        "attention of 12 x 32 on 128 tokens: keys and values {:.1} us, the rest {:.1} us ({:.1} GFLOP/s)",
        pack * 1e6,
        attend * 1e6,
        operations / attend,
    );
}

/// One MiniLM layer in int8, as a session runs it: two splits, rows shared out.
fn layers_on_threads(cpu: Cpu) {
    let (heads, tokens, hidden, inner) = (Heads { heads: 12, head_width: 32 }, 128, 384, 1536);
    let (qkv_layer, out_layer) = (LayerI8::new(hidden, 3 * hidden), LayerI8::new(hidden, hidden));
    let (up, down) = (LayerI8::new(hidden, inner), LayerI8::new(inner, hidden));
    let (mut x, mut y) = (floats(tokens * hidden), vec![0.0; tokens * hidden]);
    let mut qkv = vec![0.0; tokens * 3 * hidden];
    let mut packed = vec![0.0; heads.packed_len(tokens)];
    let (mut context, mut wide) = (vec![0.0; tokens * hidden], vec![0.0; tokens * inner]);
    let (mut bytes, mut rows) = (vec![0; tokens * inner], vec![RowScale::default(); tokens]);
    let mask = vec![1; tokens];
    let ones = vec![1.0; hidden];
    let norm = LayerNorm { gamma: &ones, beta: &ones, epsilon: 1e-12 };
    println!();
    let mut first = 0.0;
    for count in [1, 2, 4] {
        let threads = Threads::new(count).expect("threads start");
        let mut scratch = vec![0.0; count * heads.scratch_len(tokens)];
        let mut layer = || {
            let buffers = (
                RowsMut::new(&mut x, hidden),
                RowsMut::new(&mut qkv, 3 * hidden),
                RowsMut::new(&mut bytes, inner),
                RowsMut::new(&mut rows, 1),
            );
            threads.split(tokens, Heads::GROUP, buffers, |_, (x, qkv, bytes, rows)| {
                qkv_layer.run(cpu, x, (bytes, rows), Epilogue::default(), qkv);
            });
            let groups = tokens / Heads::GROUP;
            threads.split(
                groups,
                1,
                RowsMut::new(&mut packed, heads.group_len()),
                |range, packed| {
                    let group = Heads::GROUP * 3 * hidden;
                    pack_keys_values(
                        cpu,
                        heads,
                        &qkv[range.start * group..range.end * group],
                        packed,
                    );
                },
            );
            let buffers = (
                RowsMut::new(&mut x, hidden),
                RowsMut::new(&mut y, hidden),
                RowsMut::new(&mut context, hidden),
                RowsMut::new(&mut wide, inner),
                RowsMut::new(&mut bytes, inner),
                RowsMut::new(&mut rows, 1),
                PerThread::new(&mut scratch, heads.scratch_len(tokens)),
            );
            threads.split(
                tokens,
                4,
                buffers,
                |range, (x, y, context, wide, bytes, rows, scratch)| {
                    let queries = &qkv[range.start * 3 * hidden..range.end * 3 * hidden];
                    let keys_values = KeysValues { packed: &packed, mask: &mask };
                    attention(cpu, heads, queries, keys_values, scratch, context);
                    out_layer.run(cpu, context, (bytes, rows), add(x), y);
                    layer_norm_in_place(cpu, y, norm);
                    let gelu = Epilogue { activation: Activation::Gelu, residual: None };
                    up.run(cpu, y, (bytes, rows), gelu, wide);
                    down.run(cpu, wide, (bytes, rows), add(y), x);
                    layer_norm_in_place(cpu, x, norm);
                },
            );
        };
        let seconds = median(&mut layer);
        first = if count == 1 { seconds } else { first };
        let start = cpu_seconds();
        std::thread::sleep(std::time::Duration::from_secs(1));
        let idle = start.zip(cpu_seconds()).map(|(start, end)| (end - start) * 1e3);
        println!(
            "{count} threads: an int8 MiniLM layer in {:.0} us, {:.2}x; idle for a second: {} ms of CPU time",
            seconds * 1e6,
            first / seconds,
            idle.map_or("unknown".to_owned(), |idle| format!("{idle:.0}")),
        );
    }
}

/// User and system time of this process, in the kernel's steps of 10 ms (proc(5), fields 14 and 15).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}
