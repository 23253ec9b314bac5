//! Convolutions and pooling against sums in f64 that are written down as ONNX has them, and alike on every
//! class of CPU.

use super::super::pack::{column_sums, pack_f32, pack_i8, pad_columns};
use super::super::pointwise::{Function, Pointwise, pointwise};
use super::super::quantize::round_image;
use super::super::same_bits::{Numbers, bits, same};
use super::super::{Padding, Pooling, SIGMOID_ERROR, Slide, Window, pool};
use super::*;

/// Rows and columns of the image, channels, results, groups, and the window.
type Case = ([usize; 2], usize, usize, usize, Window);

fn window(kernel: [usize; 2], strides: [usize; 2], dilations: [usize; 2], pad: usize) -> Window {
    let padding = Padding::Fixed { before: [pad; 2], after: [pad; 2] };
    Window { kernel, strides, dilations, padding }
}

fn cases() -> Vec<Case> {
    let plain = Window::CELL;
    let same = |kernel, padding| Window { kernel, strides: [2; 2], dilations: [1; 2], padding };
    vec![
        ([1, 1], 1, 1, 1, plain),
        ([3, 5], 4, 33, 1, plain),
        ([7, 13], 40, 64, 1, plain),
        ([5, 4], 3, 8, 1, window([3, 3], [1; 2], [1; 2], 1)),
        ([9, 11], 5, 7, 1, window([3, 2], [2, 1], [1; 2], 1)),
        ([8, 8], 6, 10, 2, window([3, 3], [1; 2], [2; 2], 2)),
        ([4, 6], 6, 6, 3, plain),
        // Groups narrower than a vector, and results as wide as one.
        ([4, 6], 6, 8, 2, plain),
        ([1, 30], 16, 20, 1, window([1, 5], [1, 2], [1, 3], 0)),
        ([24, 24], 3, 28, 1, same([3, 3], Padding::SameUpper)),
        ([23, 22], 2, 4, 1, same([3, 3], Padding::SameLower)),
        ([2, 2], 2, 3, 1, window([5, 5], [1; 2], [1; 2], 2)),
        ([4, 29], 2, 37, 1, window([5, 5], [1; 2], [1; 2], 2)),
        ([7, 41], 3, 20, 1, window([5, 5], [2, 2], [1; 2], 2)),
        ([3, 35], 2, 11, 1, window([3, 3], [1, 2], [1; 2], 0)),
        ([6, 5], 8, 40, 1, window([1, 1], [2, 2], [1; 2], 0)),
        // More columns than are finished together.
        ([3, 10], 2, 150, 1, window([3, 3], [1; 2], [1; 2], 1)),
    ]
}

/// Cells under the window, by tap: `None` beside the grid.
fn cells(slide: &Slide, place: usize) -> Vec<Option<usize>> {
    let Window { kernel, strides, dilations, padding } = *slide.window();
    let [rows, columns] = slide.grid();
    let [_, across] = slide.places();
    let before = match padding {
        Padding::Fixed { before, .. } => before,
        padding => [0, 1].map(|axis| {
            let reach = (kernel[axis] - 1) * dilations[axis] + 1;
            let wanted = (slide.places()[axis] - 1) * strides[axis] + reach;
            let missing = wanted.saturating_sub(slide.grid()[axis]);
            if padding == Padding::SameUpper { missing / 2 } else { missing.div_ceil(2) }
        }),
    };
    let taps = (0..kernel[0]).flat_map(|row| (0..kernel[1]).map(move |column| (row, column)));
    taps.map(|(row, column)| {
        let row = (place / across * strides[0] + row * dilations[0]).checked_sub(before[0])?;
        let column =
            (place % across * strides[1] + column * dilations[1]).checked_sub(before[1])?;
        (row < rows && column < columns).then_some(row * columns + column)
    })
    .collect()
}

fn places(slide: &Slide) -> usize {
    slide.places()[0] * slide.places()[1]
}

#[test]
fn dense_convolutions_are_the_same_and_right() {
    let mut numbers = Numbers(11);
    for (grid, channels, n, groups, window) in cases() {
        let slide = window.over(grid).expect("the window fits");
        let (inputs, outputs) = (channels / groups, n / groups);
        let terms = window.taps() * inputs;
        let x = numbers.floats(slide.cells() * channels, 1.0);
        let weights: Vec<Vec<f32>> =
            (0..groups).map(|_| numbers.floats(terms * outputs, 1.0)).collect();
        let (bias, terms_added) = (numbers.floats(n, 1.0), numbers.floats(places(&slide) * n, 1.0));
        let factors = numbers.floats(n, 1.0);
        let result = same((grid, channels, n, groups, window), |cpu| {
            let mut out = vec![f32::NAN; places(&slide) * n];
            for (group, weights) in weights.iter().enumerate() {
                let panels = pack_f32(weights, terms, outputs);
                let bias = pad_columns(&bias[group * outputs..][..outputs]);
                let packed = PackedF32::new(&panels, &bias, terms, outputs).expect("panels");
                let view = View {
                    x: &x,
                    channels,
                    group: group * inputs..(group + 1) * inputs,
                    slide: &slide,
                    places: 0..places(&slide),
                };
                let finish = Finish {
                    pointwise: Pointwise::NONE,
                    residual: Residual::After(&terms_added),
                    factors: Some(&factors),
                    width: n,
                    first: group * outputs,
                };
                let mut scratch = vec![f32::NAN; patch_len(terms)];
                conv_f32(cpu, &view, &packed, finish, &mut scratch, Target::F32(&mut out));
            }
            bits(&out)
        });
        for place in 0..places(&slide) {
            let cells = cells(&slide, place);
            for output in 0..n {
                let group = output / outputs;
                let mut sum = f64::from(bias[output]);
                for (tap, cell) in cells.iter().enumerate() {
                    for input in 0..inputs {
                        let Some(cell) = cell else { continue };
                        let weight =
                            weights[group][(tap * inputs + input) * outputs + output % outputs];
                        let x = x[cell * channels + group * inputs + input];
                        sum += f64::from(x) * f64::from(weight);
                    }
                }
                sum += f64::from(terms_added[place * n + output]);
                sum *= f64::from(factors[output]);
                let got = f64::from(f32::from_bits(result[place * n + output]));
                // At most 75 products below one.
                assert!((got - sum).abs() < 2e-5, "{window:?} at {place}, {output}: {got} {sum}");
            }
        }
    }
}

#[test]
fn int8_convolutions_are_the_same_and_exact() {
    let mut numbers = Numbers(14);
    let range = RowScale { scale: 0.02, zero_point: 117 };
    let rounded = RowScale { scale: 0.5, zero_point: 9 };
    for (grid, channels, n, _, window) in cases() {
        let slide = window.over(grid).expect("the window fits");
        let terms = window.taps() * channels;
        let x: Vec<u8> =
            numbers.int8(slide.cells() * channels).iter().map(|&it| it as u8).collect();
        let weights = numbers.int8(terms * n);
        let (scales, bias) = (vec![0.01; n], numbers.floats(n, 1.0));
        let (panels, sums) =
            (pack_i8(&weights, terms, n).unwrap(), column_sums(&weights, terms, n));
        let (padded, padded_bias) = (pad_columns(&scales), pad_columns(&bias));
        let packed = PackedI8::new(&panels, &sums, &padded, &padded_bias, terms, n).unwrap();
        let view =
            View { x: &x, channels, group: 0..channels, slide: &slide, places: 0..places(&slide) };
        let pointwise =
            Pointwise { function: Function::Clip { least: -3.0, most: 40.0 }, ..Pointwise::NONE };
        // Powers of two, so that the product is exact.
        let factor = |column: usize| [0.5, 4.0, 1.0][column % 3];
        let factors: Vec<f32> = (0..n).map(factor).collect();
        let (residual, factors) = (Residual::None, Some(&factors[..]));
        let finish = Finish { pointwise, residual, factors, width: n, first: 0 };
        let floats = same((grid, channels, n, window), |cpu| {
            let mut out = vec![f32::NAN; places(&slide) * n];
            let mut scratch = vec![7; patch_len(quantized_width(terms))];
            conv_i8(cpu, &view, range, &packed, finish, &mut scratch, Target::F32(&mut out));
            bits(&out)
        });
        let bytes = same((grid, channels, n, window, "rounded"), |cpu| {
            let mut out = vec![7; places(&slide) * n];
            let mut scratch = vec![7; patch_len(quantized_width(terms))];
            conv_i8(
                cpu,
                &view,
                range,
                &packed,
                finish,
                &mut scratch,
                Target::U8(&mut out, rounded),
            );
            out
        });
        for (place, (float, byte)) in floats.into_iter().zip(bytes).enumerate() {
            let (cells, output) = (cells(&slide, place / n), place % n);
            let product = |(tap, cell): (usize, &Option<usize>)| -> i32 {
                let Some(cell) = *cell else { return 0 };
                let input = |input: usize| {
                    let x = i32::from(x[cell * channels + input]) - i32::from(range.zero_point);
                    x * i32::from(weights[(tap * channels + input) * n + output])
                };
                (0..channels).map(input).sum()
            };
            let sum: i32 = cells.iter().enumerate().map(product).sum();
            let expected = (sum as f32).mul_add(range.scale * scales[output], bias[output]);
            let expected = expected.clamp(-3.0, 40.0) * factor(output);
            assert_eq!(f32::from_bits(float), expected, "{window:?} at {place}");
            let expected = (expected / rounded.scale).round_ties_even() + 9.0;
            assert_eq!(byte, expected.clamp(0.0, 255.0) as u8, "{window:?} at {place}");
        }
    }
}

#[test]
fn depthwise_convolutions_and_pooling_are_the_same_and_right() {
    let mut numbers = Numbers(12);
    for (grid, _, channels, _, window) in cases() {
        let slide = window.over(grid).expect("the window fits");
        let x = numbers.floats(slide.cells() * channels, 1.0);
        let weights = numbers.floats(window.taps() * channels, 1.0);
        let bias = numbers.floats(channels, 1.0);
        let factors = numbers.floats(channels, 1.0);
        let length = places(&slide) * channels;
        let sums = same((grid, channels, window), |cpu| {
            let mut out = vec![f32::NAN; length];
            let kernel = DepthwiseF32 { weights: &weights, bias: &bias };
            let finish = Finish {
                pointwise: Pointwise::NONE,
                residual: Residual::None,
                factors: Some(&factors),
                width: channels,
                first: 0,
            };
            let target = Target::F32(&mut out);
            depthwise_f32(cpu, &x, &slide, kernel, 0..places(&slide), finish, target);
            bits(&out)
        });
        let pooled = [Pooling::Max, Pooling::Mean, Pooling::MeanOfAll].map(|pooling| {
            same((grid, channels, window, pooling), |cpu| {
                let mut out = vec![f32::NAN; length];
                pool(cpu, pooling, &x, &slide, channels, 0..places(&slide), &mut out);
                bits(&out)
            })
        });
        for place in 0..length {
            let (cells, channel) = (cells(&slide, place / channels), place % channels);
            let at = |cell: usize| f64::from(x[cell * channels + channel]);
            let terms = cells.iter().enumerate().filter_map(|(tap, cell)| {
                Some(at((*cell)?) * f64::from(weights[tap * channels + channel]))
            });
            let on_grid: Vec<f64> = cells.iter().flatten().map(|&cell| at(cell)).collect();
            let sum: f64 = on_grid.iter().sum();
            let expected = [
                (f64::from(bias[channel]) + terms.sum::<f64>()) * f64::from(factors[channel]),
                on_grid.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                sum / on_grid.len() as f64,
                sum / cells.len() as f64,
            ];
            let [most, mean, mean_of_all] = &pooled;
            let got = [&sums, most, mean, mean_of_all].map(|result| f32::from_bits(result[place]));
            for (got, expected) in got.into_iter().zip(expected) {
                // At most 25 products below one.
                assert!((f64::from(got) - expected).abs() < 1e-5, "{window:?}: {got} {expected}");
            }
        }
    }
}

#[test]
fn int8_depthwise_convolutions_are_the_same_and_exact() {
    let mut numbers = Numbers(15);
    let range = RowScale { scale: 0.02, zero_point: 200 };
    // The first and the last places of this one lie beyond the grid.
    let beyond = ([2, 3], 2, 16, 1, window([3, 3], [1; 2], [1; 2], 9));
    for (grid, _, channels, _, window) in cases().into_iter().chain([beyond]) {
        let slide = window.over(grid).expect("the window fits");
        let mut x: Vec<u8> =
            numbers.int8(slide.cells() * channels).iter().map(|&it| it as u8).collect();
        let mut weights = numbers.int8(window.taps() * channels);
        // The largest products of either sign.
        (x[0], weights[0]) = (0, 127);
        let (scales, bias) = (vec![0.01; channels], numbers.floats(channels, 1.0));
        let factors = numbers.floats(channels, 1.0);
        let result = same((grid, channels, window), |cpu| {
            let mut out = vec![f32::NAN; places(&slide) * channels];
            let kernel = DepthwiseI8 { weights: &weights, range, scales: &scales, bias: &bias };
            let finish = Finish {
                pointwise: Pointwise::NONE,
                residual: Residual::None,
                factors: Some(&factors),
                width: channels,
                first: 0,
            };
            let all = 0..places(&slide);
            depthwise_i8(cpu, &x, &slide, kernel, all, finish, Target::F32(&mut out));
            bits(&out)
        });
        for (place, got) in result.into_iter().enumerate() {
            let (cells, channel) = (cells(&slide, place / channels), place % channels);
            let product = |(tap, cell): (usize, &Option<usize>)| {
                let x = cell.map_or(200, |cell| i32::from(x[cell * channels + channel]));
                (x - 200) * i32::from(weights[tap * channels + channel])
            };
            let sum: i32 = cells.iter().enumerate().map(product).sum();
            let expected = (sum as f32).mul_add(range.scale * scales[channel], bias[channel]);
            let expected = expected * factors[channel];
            assert_eq!(f32::from_bits(got), expected, "{window:?} at {place}");
        }
    }
}

#[test]
fn depthwise_convolutions_in_parts_are_those_of_the_whole() {
    let mut numbers = Numbers(16);
    for (grid, _, channels, _, window) in cases() {
        let slide = window.over(grid).expect("the window fits");
        let x = numbers.floats(slide.cells() * channels, 1.0);
        let weights = numbers.floats(window.taps() * channels, 1.0);
        let bias = numbers.floats(channels, 1.0);
        let terms = numbers.floats(places(&slide) * channels, 1.0);
        let kernel = DepthwiseF32 { weights: &weights, bias: &bias };
        let range = RowScale { scale: 0.05, zero_point: 128 };
        let part = |places: std::ops::Range<usize>, rounded: bool| {
            let finish = Finish {
                pointwise: Pointwise::NONE,
                residual: Residual::After(&terms[places.start * channels..]),
                factors: None,
                width: channels,
                first: 0,
            };
            let length = places.len() * channels;
            let (mut floats, mut bytes) = (vec![f32::NAN; length], vec![7; length]);
            let out = match rounded {
                true => Target::U8(&mut bytes, range),
                false => Target::F32(&mut floats),
            };
            depthwise_f32(Cpu::detect(), &x, &slide, kernel, places, finish, out);
            (bits(&floats), bytes)
        };
        let all = places(&slide);
        let floats: Vec<f32> = part(0..all, false).0.into_iter().map(f32::from_bits).collect();
        let mut bytes = vec![0; floats.len()];
        round_image(Cpu::scalar(), &floats, range, &mut bytes);
        assert_eq!(part(0..all, true).1, bytes, "{window:?} of {channels}");
        for rounded in [false, true] {
            let (floats, bytes) = part(0..all, rounded);
            for length in [1, 5, 12, 31] {
                for start in (0..all).step_by(length) {
                    let end = all.min(start + length);
                    let own = start * channels..end * channels;
                    let expected = (floats[own.clone()].to_vec(), bytes[own].to_vec());
                    assert_eq!(part(start..end, rounded), expected, "{window:?}, {start}..{end}");
                }
            }
        }
    }
}

#[test]
fn more_taps_than_floats_sum_exactly_are_summed_as_integers() {
    let (taps, channels) = (600, 9);
    let slide = window([1, taps], [1; 2], [1; 2], 0).over([1, taps]).expect("the window fits");
    let mut x = vec![255; taps * channels];
    // A sum that is odd and above 2^24, of which f32 keeps the nearest even one.
    x[0] = 254;
    let weights = vec![127; taps * channels];
    let sums = same("many taps", |cpu| {
        let range = RowScale { scale: 1.0, zero_point: 0 };
        let kernel = DepthwiseI8 { weights: &weights, range, scales: &[1.0; 9], bias: &[0.0; 9] };
        let (pointwise, residual) = (Pointwise::NONE, Residual::None);
        let finish = Finish { pointwise, residual, factors: None, width: channels, first: 0 };
        let mut out = [f32::NAN; 9];
        depthwise_i8(cpu, &x, &slide, kernel, 0..1, finish, Target::F32(&mut out));
        bits(&out)
    });
    let sum = (taps * 255 * 127) as i32;
    assert_eq!(f32::from_bits(sums[0]), (sum - 127) as f32);
    assert_eq!(f32::from_bits(sums[8]), sum as f32);
}

/// A function of a number in a column, in f64.
type Plain<'a> = Box<dyn Fn(f64, usize) -> f64 + 'a>;

/// Every function, and what it gives.
fn functions(slopes: &[f32]) -> Vec<(Function<'_>, Plain<'_>)> {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let hard = |x: f64| (x / 6.0 + 0.5).clamp(0.0, 1.0);
    let (alpha, beta) = (1.0 / 6.0, 0.5);
    vec![
        (Function::Identity, Box::new(|x, _| x)),
        (Function::Clip { least: -0.5, most: 6.0 }, Box::new(|x, _| x.clamp(-0.5, 6.0))),
        (Function::LeakyRelu(0.25), Box::new(|x, _| if x < 0.0 { x / 4.0 } else { x })),
        (
            Function::Prelu(slopes),
            Box::new(|x, column| if x < 0.0 { x * f64::from(slopes[column]) } else { x }),
        ),
        (Function::HardSigmoid { alpha, beta }, Box::new(move |x, _| hard(x))),
        (Function::HardSwish { alpha, beta }, Box::new(move |x, _| x * hard(x))),
        (Function::Sigmoid, Box::new(move |x, _| sigmoid(x))),
        (Function::Silu, Box::new(move |x, _| x * sigmoid(x))),
        (Function::Tanh, Box::new(|x, _| x.tanh())),
        (
            Function::GeluTanh,
            Box::new(|x, _| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }),
        ),
    ]
}

#[test]
fn functions_are_the_same_and_right() {
    let (columns, mut numbers) = (37, Numbers(13));
    let slopes = numbers.floats(columns, 1.0);
    let mut x = numbers.floats(columns * 2000, 20.0);
    x[..8].copy_from_slice(&[0.0, -0.0, 1e-30, -1e-30, 88.0, -88.0, 100.0, -100.0]);
    for (function, expected) in functions(&slopes) {
        for (scale, shift) in [(1.0, 0.0), (0.5, -2.0)] {
            let result = same(function, |cpu| {
                let mut values = x.clone();
                pointwise(cpu, Pointwise { function, scale, shift }, columns, &mut values);
                bits(&values)
            });
            for (place, (&x, got)) in x.iter().zip(result).enumerate() {
                let expected = expected(f64::from(x), place % columns);
                let expected = expected * f64::from(scale) + f64::from(shift);
                let error = (f64::from(f32::from_bits(got)) - expected).abs();
                // Rounding of results of that size, and the stated errors of sigmoid and tanh.
                let bound = match (function, scale == 1.0) {
                    (Function::Sigmoid, true) => f64::from(SIGMOID_ERROR),
                    _ => 1e-6 + 3e-7 * expected.abs().max(f64::from(x).abs()),
                };
                assert!(error <= bound, "{function:?} of {x}: off by {error:e}");
            }
        }
    }
}
