//! Every kernel on every class of CPU that this machine has, against the scalar form, bit for bit; and the
//! scalar form against a plain reckoning in f64.

use super::*;
use std::fmt::Debug;

/// Numbers in -1..1 that look random and are the same in every run.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(super) fn floats(&mut self, len: usize, size: f32) -> Vec<f32> {
        (0..len).map(|_| self.next() * size).collect()
    }

    pub(super) fn int8(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| (self.next() * 127.4) as i8).collect()
    }
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Runs `kernel` for every class and returns what the scalar one gave.
pub(super) fn same<T: PartialEq + Debug>(case: impl Debug, kernel: impl Fn(Cpu) -> T) -> T {
    let expected = kernel(Cpu::scalar());
    for cpu in Cpu::available() {
        assert!(kernel(cpu) == expected, "{cpu} differs from scalar: {case:?}");
    }
    expected
}

/// Rows, inputs and outputs: every remainder of the tiles, of the quads and of the panels.
fn shapes() -> impl Iterator<Item = (usize, usize, usize)> {
    let every_m = (1..=40).map(|m| (m, 37, 33));
    let odd =
        [(1, 1, 1), (5, 2, 31), (7, 3, 32), (13, 4, 63), (25, 5, 64), (3, 129, 65), (128, 64, 96)];
    every_m.chain(odd).chain([(97, 384, 40), (12, 1536, 33)])
}

const EPILOGUES: [(Activation, bool); 6] = [
    (Activation::None, false),
    (Activation::None, true),
    (Activation::Relu, true),
    (Activation::Gelu, false),
    (Activation::GeluPolynomial, true),
    (Activation::Tanh, true),
];

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => f64::from(math::gelu_of(x as f32)),
        Activation::GeluPolynomial => f64::from(math::gelu_polynomial_of(x as f32)),
        Activation::Tanh => x.tanh(),
    }
}

#[test]
fn f32_linear_layers_are_the_same_and_right() {
    let mut numbers = Numbers(1);
    for (index, (m, k, n)) in shapes().enumerate() {
        let (x, weights) = (numbers.floats(m * k, 2.0), numbers.floats(k * n, 1.0));
        let (bias, terms) = (numbers.floats(n, 1.0), numbers.floats(m * n, 1.0));
        let (panels, padded) = (pack_f32(&weights, k, n), pad_columns(&bias));
        let packed = PackedF32::new(&panels, &padded, k, n).unwrap();
        let (activation, with_terms) = EPILOGUES[index % EPILOGUES.len()];
        let residual = with_terms.then_some(Strided::new(&terms, n));
        let result = same((m, k, n, activation), |cpu| {
            let mut out = vec![f32::NAN; m * n];
            linear_f32(
                cpu,
                &x,
                &packed,
                Epilogue { activation, residual },
                Block::new(&mut out, n),
            );
            bits(&out)
        });
        for (place, &result) in result.iter().enumerate() {
            let (row, column) = (place / n, place % n);
            let products =
                (0..k).map(|i| f64::from(x[row * k + i]) * f64::from(weights[i * n + column]));
            let sum = products.sum::<f64>() + f64::from(bias[column]);
            let expected = activate(activation, sum)
                + f64::from(residual.map_or(0.0, |terms| terms.values[place]));
            // k + 1 roundings of sums no larger than 2 k + 1, and the error of the activation.
            let bound = (k + 2) as f64 * (2 * k + 2) as f64 * f64::from(f32::EPSILON) / 2.0 + 2e-6;
            let error = (f64::from(f32::from_bits(result)) - expected).abs();
            assert!(error <= bound, "{m}x{k}x{n} at {row},{column}: {error} > {bound}");
        }
    }
}

#[test]
fn int8_linear_layers_are_the_same_and_exact() {
    let mut numbers = Numbers(2);
    for (index, (m, k, n)) in shapes().enumerate() {
        let (x, weights) = (numbers.floats(m * k, 3.0), numbers.int8(k * n));
        let scales: Vec<f32> = (0..n).map(|column| 0.01 + column as f32 * 1e-4).collect();
        let (bias, terms) = (numbers.floats(n, 1.0), numbers.floats(m * n, 1.0));
        let panels = pack_i8(&weights, k, n).unwrap();
        let sums = column_sums(&weights, k, n);
        let (padded_scales, padded_bias) = (pad_columns(&scales), pad_columns(&bias));
        let packed = PackedI8::new(&panels, &sums, &padded_scales, &padded_bias, k, n).unwrap();
        let (activation, with_terms) = EPILOGUES[index % EPILOGUES.len()];
        let residual = with_terms.then_some(Strided::new(&terms, n));
        let (quantized, rows) = quantized(&x, k);
        let result = same((m, k, n, activation), |cpu| {
            let mut out = vec![f32::NAN; m * n];
            linear_i8(
                cpu,
                &quantized,
                &rows,
                &packed,
                Epilogue { activation, residual },
                Block::new(&mut out, n),
            );
            bits(&out)
        });
        if activation != Activation::None {
            continue;
        }
        for (place, &result) in result.iter().enumerate() {
            let (row, column) = (place / n, place % n);
            let exact = |i: usize| {
                let left = i32::from(quantized[row * quantized_width(k) + i]);
                (left - i32::from(rows[row].zero_point)) * i32::from(weights[i * n + column])
            };
            let sum = (0..k).map(exact).sum::<i32>();
            let value = (sum as f32).mul_add(rows[row].scale * scales[column], bias[column]);
            let expected = residual.map_or(value, |terms| value + terms.values[place]);
            assert_eq!(f32::from_bits(result), expected, "{m}x{k}x{n} at {row},{column}");
        }
    }
}

fn quantized(x: &[f32], k: usize) -> (Vec<u8>, Vec<RowScale>) {
    same(k, |cpu| {
        let m = x.len() / k;
        let (mut quantized, mut rows) =
            (vec![7; m * quantized_width(k)], vec![RowScale::default(); m]);
        quantize_rows(cpu, x, k, &mut quantized, &mut rows);
        (quantized, rows)
    })
}

#[test]
fn int8_sums_do_not_saturate_at_full_range() {
    let (k, n) = (4096, 32);
    for (weight, byte) in
        [(127i8, 255u8), (-127, 255), (127, 0), (-127, 0), (127, 128), (-127, 127)]
    {
        let panels = pack_i8(&vec![weight; k * n], k, n).unwrap();
        let sums = column_sums(&vec![weight; k * n], k, n);
        let (ones, zeros) = ([1.0; 32], [0.0; 32]);
        let packed = PackedI8::new(&panels, &sums, &ones, &zeros, k, n).unwrap();
        let row = RowScale { scale: 1.0, zero_point: 3 };
        let result = same((weight, byte), |cpu| {
            let mut out = vec![0.0; n];
            linear_i8(
                cpu,
                &vec![byte; k],
                &[row],
                &packed,
                Epilogue::default(),
                Block::new(&mut out, n),
            );
            bits(&out)
        });
        let expected = (i32::from(byte) - 3) * i32::from(weight) * k as i32;
        assert_eq!(f32::from_bits(result[0]), expected as f32, "weight {weight}, byte {byte}");
    }
}

#[test]
fn rows_quantize_by_the_rule_of_onnx() {
    // The worked example of the ONNX page of DynamicQuantizeLinear, and its edges.
    let (quantized_rows, rows) = quantized(&[0.0, 2.0, -3.0, -2.5, 1.34, 0.5], 6);
    assert_eq!((&quantized_rows[..6], rows[0].zero_point), (&[153, 255, 0, 26, 221, 179][..], 153));
    assert!((rows[0].scale - 0.019_607_844).abs() < 1e-9);
    let (quantized_rows, rows) = quantized(&[-1.0, -2.1, -1.3, -2.5, -3.34, -4.0], 6);
    assert_eq!((&quantized_rows[..6], rows[0].zero_point), (&[191, 121, 172, 96, 42, 0][..], 255));
    let (zeros, rows) = quantized(&[0.0; 5], 5);
    assert_eq!((&zeros[..], rows[0]), (&[0; 8][..], RowScale { scale: 1.0, zero_point: 0 }));
    for wild in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45] {
        quantized(&[wild, 1e-45, 0.0, wild, -wild, 1e-40, 2.0], 7);
    }
}

#[test]
fn numbers_out_of_range_and_no_numbers_quantize_alike_wherever_they_stand() {
    let signalling = f32::from_bits(0x7f80_0001);
    let wild =
        [f32::NAN, signalling, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 70_000.0, -0.0];
    for (k, value) in [7, 16, 21, 40].into_iter().flat_map(|k| wild.map(|value| (k, value))) {
        for place in 0..k {
            let mut x = Numbers(5).floats(k, 2.0);
            x[place] = value;
            quantized(&x, k);
            for zero_point in [0, 3, 128, 255] {
                let range = RowScale { scale: 0.01, zero_point };
                let image = same((k, value, place), |cpu| {
                    let mut rows = vec![7; quantized_width(k)];
                    quantize_with(cpu, &x, k, range, &mut rows);
                    let mut image = vec![7; k];
                    round_image(cpu, &x, range, &mut image);
                    assert_eq!(image, rows[..k]);
                    (image, range_of_tensor(cpu, &x))
                });
                // What is no number counts as the least.
                let quotient = if value.is_nan() { f32::NEG_INFINITY } else { value / 0.01 };
                let expected = quotient.round_ties_even() + f32::from(zero_point);
                // Of an infinity the remainder of its division is no number.
                let expected = if value.is_infinite() { 0.0 } else { expected };
                assert_eq!(image.0[place], expected.clamp(0.0, 255.0) as u8, "{value}");
            }
        }
    }
}

#[test]
fn rows_quantize_alike_whatever_their_length_and_size() {
    let mut numbers = Numbers(3);
    for k in (1..70).chain([384, 1536]) {
        for size in [1e-30, 1e-3, 1.0, 1e6, 1e38] {
            let x = numbers.floats(3 * k, size);
            let (bytes, rows) = quantized(&x, k);
            let expected = |place: usize| {
                let row = rows[place / k];
                let rounded = (x[place] / row.scale).round_ties_even() + f32::from(row.zero_point);
                rounded.clamp(0.0, 255.0) as u8
            };
            for place in 0..x.len() {
                let byte = bytes[place / k * quantized_width(k) + place % k];
                assert_eq!(byte, expected(place), "{} of {k}, size {size}", x[place]);
            }
            same((k, size), |cpu| {
                let mut bytes = vec![7; 3 * quantized_width(k)];
                quantize_with(cpu, &x, k, rows[0], &mut bytes);
                bytes
            });
        }
    }
}

#[test]
fn columns_quantize_symmetrically() {
    let (quantized, scales) = quantize_columns(&[127.0, 0.0, -63.5, 0.0, 2.5, f32::NAN], 3, 2);
    assert_eq!((quantized, scales), (vec![127, 0, -64, 0, 2, 0], vec![1.0, 1.0]));
}

/// Attention of the first `queries` by the heads `which`, in f32 or on integers.
fn attended(
    cpu: Cpu,
    heads: Heads,
    (qkv, mask): (&[f32], &[u8]),
    which: std::ops::Range<usize>,
    queries: usize,
    int8: bool,
) -> Vec<f32> {
    let columns = which.len() * heads.head_width;
    let mut out = vec![f32::NAN; queries * columns];
    let target = Block::new(&mut out, columns);
    if int8 {
        let mut scratch = vec![f32::NAN; heads.scratch_len_i8(mask.len())];
        attention_i8(cpu, heads, which, (qkv, mask), &mut scratch, target);
    } else {
        let mut scratch = vec![f32::NAN; heads.scratch_len(mask.len())];
        attention(cpu, heads, which, (qkv, mask), &mut scratch, target);
    }
    out
}

#[test]
fn attention_is_the_same_and_right() {
    let mut numbers = Numbers(4);
    for (tokens, heads, head_width) in [
        (1, 1, 1),
        (5, 2, 8),
        (16, 12, 32),
        (31, 3, 26),
        (32, 2, 32),
        (33, 2, 64),
        (70, 4, 33),
        (128, 1, 20),
    ] {
        let heads = Heads { heads, head_width };
        let mut mask = vec![0; tokens];
        // Weights sum to one and values are below the size; scores of 64 terms carry the error. That of integers
        // grows with the scores, which lose a part of their size.
        for (int8, size, allowed) in [(false, 1.5, 2e-5), (true, 1.0, 0.025)] {
            let qkv = numbers.floats(tokens * 3 * heads.hidden(), size);
            for all_excluded in [false, true] {
                mask.iter_mut().enumerate().for_each(|(token, keep)| {
                    *keep = u8::from(!all_excluded && token % 5 != 4);
                });
                let case = (tokens, heads, int8, all_excluded);
                let result = same(case, |cpu| {
                    bits(&attended(cpu, heads, (&qkv, &mask), 0..heads.heads, tokens, int8))
                });
                let expected = plain_attention(heads, &qkv, &mask);
                for (value, expected) in result.iter().zip(expected) {
                    let error = (f64::from(f32::from_bits(*value)) - expected).abs();
                    assert!(error < allowed, "{case:?}: {error}");
                }
            }
        }
    }
}

/// What the mask excludes decides nothing, not even how values are rounded.
#[test]
fn excluded_tokens_leave_no_trace_on_integers() {
    let (heads, tokens, kept) = (Heads { heads: 2, head_width: 8 }, 70, 61);
    let mut qkv = Numbers(8).floats(tokens * 3 * heads.hidden(), 1.0);
    let whole = vec![1; kept];
    let first = &qkv[..kept * 3 * heads.hidden()];
    let alone = attended(Cpu::detect(), heads, (first, &whole), 0..2, kept, true);
    qkv[kept * 3 * heads.hidden()..].fill(50.0);
    let mask: Vec<u8> = (0..tokens).map(|token| u8::from(token < kept)).collect();
    let beside = attended(Cpu::detect(), heads, (&qkv, &mask), 0..2, kept, true);
    assert_eq!(bits(&alone), bits(&beside));
}

fn plain_attention(heads: Heads, qkv: &[f32], mask: &[u8]) -> Vec<f64> {
    let (hidden, width, tokens) = (heads.hidden(), heads.head_width, mask.len());
    let at = |token: usize, column: usize| f64::from(qkv[token * 3 * hidden + column]);
    let mut out = vec![0.0; tokens * hidden];
    for (query, head) in
        (0..tokens).flat_map(|query| (0..heads.heads).map(move |head| (query, head)))
    {
        let dot = |key: usize| -> f64 {
            (head * width..(head + 1) * width).map(|i| at(query, i) * at(key, hidden + i)).sum()
        };
        let none = mask.iter().all(|&keep| keep == 0);
        let weight = |key: usize| match (none, mask[key]) {
            (true, _) => 1.0,
            (false, 0) => 0.0,
            (false, _) => dot(key).exp(),
        };
        let weights: Vec<f64> = (0..tokens).map(weight).collect();
        let total: f64 = weights.iter().sum();
        for column in head * width..(head + 1) * width {
            let sum: f64 = (0..tokens).map(|key| weights[key] * at(key, 2 * hidden + column)).sum();
            out[query * hidden + column] = sum / total;
        }
    }
    out
}

#[test]
fn heads_attended_one_by_one_and_first_queries_are_those_attended_at_once() {
    let (heads, tokens) = (Heads { heads: 3, head_width: 5 }, 70);
    let (qkv, mask) = (Numbers(5).floats(tokens * 3 * heads.hidden(), 1.0), vec![1; tokens]);
    for int8 in [false, true] {
        let whole = attended(Cpu::detect(), heads, (&qkv, &mask), 0..3, tokens, int8);
        for queries in [1, 33] {
            let first = attended(Cpu::detect(), heads, (&qkv, &mask), 0..3, queries, int8);
            assert_eq!(bits(&first), bits(&whole)[..queries * heads.hidden()]);
        }
        let parts = [0..1, 1..3]
            .map(|which| attended(Cpu::detect(), heads, (&qkv, &mask), which, tokens, int8));
        let joined: Vec<f32> = (0..tokens)
            .flat_map(|token| [&parts[0][token * 5..][..5], &parts[1][token * 10..][..10]].concat())
            .collect();
        assert_eq!(bits(&whole), bits(&joined));
    }
}

#[test]
fn functions_of_rows_are_the_same() {
    let mut numbers = Numbers(6);
    for width in (1..70).chain([384, 1536]) {
        let x = numbers.floats(3 * width, 4.0);
        let (gamma, beta) = (numbers.floats(width, 1.0), numbers.floats(width, 1.0));
        let on_a_copy = |kernel: &dyn Fn(Cpu, &mut [f32])| {
            same(width, |cpu| {
                let mut x = x.clone();
                kernel(cpu, &mut x);
                bits(&x)
            });
        };
        let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-5 };
        on_a_copy(&|cpu, out| layer_norm(cpu, &x, norm, out));
        on_a_copy(&|cpu, x| softmax(cpu, x, width));
        on_a_copy(&|cpu, x| l2_normalize(cpu, x, width, 1e-12));
        on_a_copy(&|cpu, out| masked_mean(cpu, &x, &[1, 0, 1], &mut out[..width]));
        on_a_copy(&|cpu, x| gelu(cpu, x));
        on_a_copy(&|cpu, x| gelu_polynomial(cpu, x));
        on_a_copy(&|cpu, x| tanh(cpu, x));
        on_a_copy(&|cpu, x| log(cpu, x));
        on_a_copy(&|cpu, x| add(cpu, x, &gamma.repeat(3)));
        let bytes = numbers.int8(width * 2);
        on_a_copy(&|cpu, out| {
            let words = WordTable::I8 { rows: &bytes, scales: &[0.1, 0.2] };
            let tables = Embeddings { words, segments: &gamma, positions: &x, width };
            embed(cpu, &[1, 0, 1], &[0; 3], &tables, out).unwrap();
        });
    }
}

/// Every float of a stride of bit patterns, both signs.
fn floats_across(limit: f32, step: usize) -> Vec<f32> {
    let magnitudes = (0..limit.to_bits()).step_by(step).map(f32::from_bits);
    magnitudes.flat_map(|value| [value, -value]).collect()
}

#[test]
fn activations_keep_to_their_stated_errors_and_are_the_same() {
    let wild =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0, 5.6, -5.6, 9.0];
    let mut x = floats_across(100.0, 997);
    x.extend(wild);
    let finite = |values: &[f32]| {
        values.iter().map(|v| (!v.is_nan()).then_some(v.to_bits())).collect::<Vec<_>>()
    };
    for kernel in [gelu, gelu_polynomial, tanh] {
        same("activation", |cpu| {
            let mut x = x.clone();
            kernel(cpu, &mut x);
            finite(&x)
        });
    }
    let mut worst = [0.0f64; 3];
    for &x in x.iter().filter(|x| x.is_finite()) {
        let exact = f64::from(x);
        let in_range = f64::from(x.abs() <= 100.0);
        let off = |value: f32| (f64::from(value) - gelu_in_f64(exact)).abs() * in_range;
        let tanh_error =
            (f64::from(math::tanh_of(x)) - exact.tanh()).abs() / exact.tanh().abs().max(1e-38);
        let errors = [off(math::gelu_of(x)), off(math::gelu_polynomial_of(x)), tanh_error];
        worst = std::array::from_fn(|of| worst[of].max(errors[of]));
    }
    println!(
        "largest errors: gelu {:e}, its polynomial {:e}, tanh {:e}",
        worst[0], worst[1], worst[2]
    );
    let stated = [GELU_ERROR, GELU_POLYNOMIAL_ERROR, TANH_ERROR].map(f64::from);
    assert!(worst.iter().zip(stated).all(|(worst, stated)| *worst <= stated), "{worst:?}");
    // Beyond its edges the polynomial is the number itself, or zero.
    let mut far = [4.0, 1e30, f32::INFINITY, -4.0, -1e30];
    gelu_polynomial(Cpu::scalar(), &mut far);
    assert_eq!(far, [4.0, 1e30, f32::INFINITY, 0.0, 0.0]);
}

#[test]
fn exp_keeps_to_its_stated_error() {
    let mut worst = 0.0f64;
    for x in floats_across(88.7, 499) {
        let (value, exact) = (f64::from(math::exp_of(x)), f64::from(x).exp());
        if exact >= f64::from(f32::MIN_POSITIVE) {
            worst = worst.max((value - exact).abs() / exact);
        } else {
            assert!(value <= f64::from(f32::MIN_POSITIVE) * 1.000_001, "{x}: {value}");
        }
    }
    println!("largest error of exp: {worst:e}");
    assert!(worst <= f64::from(EXP_ERROR), "{worst:e}");
    let below = |x: f32| math::exp_below(x).to_bits() == math::exp_of(x).to_bits();
    assert!(floats_across(200.0, 97).into_iter().filter(|x| *x <= 0.0).all(below));
    assert!(below(f32::NEG_INFINITY) && math::exp_below(f32::NAN).is_nan());
    assert_eq!([math::exp_of(100.0), math::exp_of(f32::INFINITY)], [f32::INFINITY; 2]);
    assert_eq!([math::exp_of(-100.0), math::exp_of(f32::NEG_INFINITY)], [0.0; 2]);
    assert!(math::exp_of(f32::NAN).is_nan());
    assert_eq!(math::exp_of(0.0), 1.0);
}

/// `x * erfc(-x / sqrt 2) / 2`: the series of erf near zero, the continued fraction of erfc beyond
/// (Abramowitz and Stegun 7.1.6 and 7.1.14).
fn gelu_in_f64(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let tail = if z < 2.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..60 {
            term *= 2.0 * z * z / f64::from(2 * n + 1);
            sum += term;
        }
        1.0 - 2.0 / std::f64::consts::PI.sqrt() * (-z * z).exp() * sum
    } else {
        let fraction = (1..120).rev().fold(z, |rest, n| z + f64::from(n) / 2.0 / rest);
        (-z * z).exp() / std::f64::consts::PI.sqrt() / fraction
    };
    if x > 0.0 { x * (1.0 - tail / 2.0) } else { x * tail / 2.0 }
}

/// FNV-1a over the bits of a layer, an int8 layer, attentions and their like.
#[test]
fn every_machine_gives_these_bits() {
    let (m, k, n, mut numbers) = (29, 70, 45, Numbers(7));
    let (x, weights) = (numbers.floats(m * k, 2.0), numbers.floats(k * n, 1.0));
    let (panels, bias) = (pack_f32(&weights, k, n), pad_columns(&numbers.floats(n, 1.0)));
    let (int8, scales) = quantize_columns(&weights, k, n);
    let (bytes, sums) = (pack_i8(&int8, k, n).unwrap(), column_sums(&int8, k, n));
    let scales = pad_columns(&scales);
    let heads = Heads { heads: 3, head_width: 24 };
    let qkv = numbers.floats(m * 3 * heads.hidden(), 2.0);
    let result = same("all", |cpu| {
        let gelu = Epilogue { activation: Activation::Gelu, residual: None };
        let mut out = [const { Vec::new() }; 4];
        out[0].resize(m * n, 0.0);
        linear_f32(
            cpu,
            &x,
            &PackedF32::new(&panels, &bias, k, n).unwrap(),
            gelu,
            Block::new(&mut out[0], n),
        );
        let residual = Some(Strided::new(&out[0], n));
        let tanh = Epilogue { activation: Activation::Tanh, residual };
        let (quantized, rows) = quantized(&x, k);
        let packed = PackedI8::new(&bytes, &sums, &scales, &bias, k, n).unwrap();
        let mut int8 = vec![0.0; m * n];
        linear_i8(cpu, &quantized, &rows, &packed, tanh, Block::new(&mut int8, n));
        let norm = LayerNorm { gamma: &bias[..n], beta: &scales[..n], epsilon: 1e-5 };
        out[1] = vec![0.0; m * n];
        layer_norm(cpu, &int8, norm, &mut out[1]);
        out[2] = attended(cpu, heads, (&qkv, &vec![1; m]), 0..heads.heads, m, false);
        l2_normalize(cpu, &mut out[2], heads.hidden(), 1e-12);
        out[3] = attended(cpu, heads, (&qkv, &vec![1; m]), 0..heads.heads, m, true);
        let bytes = out.iter().flatten().flat_map(|value| value.to_bits().to_le_bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    });
    // Not a reference for the values, which other tests hold to f64, but for their being the same: x86-64
    // and AArch64 must both arrive at it.
    assert_eq!(result, 0xf584_93ce_ee01_cfb4, "{result:#x}");
}
