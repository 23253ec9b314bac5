//! Front ends: raw numbers -> maps `[batch, channels, height, width]`, inside the network, so that
//! whoever runs it gives what the sensor gives.

use burn::module::{Module, Param};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::interface::Dataset;
use crate::signals::examples::Signals;
use crate::weights::Array;

/// Added to the power before the logarithm: about the power of one step of 16-bit sound.
pub(crate) const POWER_FLOOR: f32 = 1e-6;

/// What a network is given, and how it becomes maps. All maps are then standardized, channel by
/// channel, by the training examples' mean and deviation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Front {
    /// `[samples, channels]`, as a sensor gives them: a map of height 1 a channel.
    Windows {
        /// Samples of a window.
        samples: usize,
        /// Numbers of a sample.
        channels: usize,
    },
    /// `[samples]` of sound in `[-1, 1]`: a map of height 1 a band, whose values are the logarithms of
    /// the power in that band of one frame (Davis and Mermelstein 1980).
    Sound {
        /// Samples of a recording.
        samples: usize,
        /// Samples a second.
        rate_hz: usize,
        /// Samples of a frame, which a Hann window weighs.
        frame: usize,
        /// Samples from one frame to the next.
        hop: usize,
        /// Triangular bands, equally wide on the mel scale, from 0 to half the rate.
        bands: usize,
    },
    /// `[height, width]` of an image in grey: one map.
    Image {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

/// The extents of maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Maps {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Front {
    /// The shape of one example.
    pub fn input(&self) -> Vec<usize> {
        match *self {
            Front::Windows { samples, channels } => vec![samples, channels],
            Front::Sound { samples, .. } => vec![samples],
            Front::Image { height, width } => vec![height, width],
        }
    }

    /// The extents of the maps that it gives.
    pub(crate) fn maps(&self) -> Maps {
        match *self {
            Front::Windows { samples, channels } => Maps { channels, height: 1, width: samples },
            Front::Sound { samples, frame, hop, bands, .. } => {
                Maps { channels: bands, height: 1, width: (samples - frame) / hop + 1 }
            }
            Front::Image { height, width } => Maps { channels: 1, height, width },
        }
    }

    /// The kernels of the two convolutions that turn sound into the power of its bands: cosines and
    /// sines under a Hann window, `[2 * frequencies, 1, 1, frame]`, and the bands as sums over the
    /// squares of both, `[bands, 2 * frequencies, 1, 1]`.
    pub(crate) fn spectrum(rate_hz: usize, frame: usize, bands: usize) -> [Array; 2] {
        let frequencies = frame / 2 + 1;
        let hann = |n: usize| {
            let angle = std::f64::consts::TAU * n as f64 / frame as f64;
            0.5 - 0.5 * angle.cos()
        };
        let wave = |row: usize| {
            (0..frame).map(move |n| {
                let turns = (row % frequencies) * n % frame;
                let angle = std::f64::consts::TAU * turns as f64 / frame as f64;
                let wave = if row < frequencies { angle.cos() } else { angle.sin() };
                (wave * hann(n)) as f32
            })
        };
        let waves = (0..2 * frequencies).flat_map(wave).collect();
        let band = |band: usize| {
            let hertz = move |row: usize| (row % frequencies * rate_hz) as f64 / frame as f64;
            let [from, peak, to] = [0, 1, 2].map(|edge| band_edge(band + edge, bands, rate_hz));
            (0..2 * frequencies).map(move |row| {
                let (rise, fall) =
                    ((hertz(row) - from) / (peak - from), (to - hertz(row)) / (to - peak));
                rise.min(fall).max(0.0) as f32
            })
        };
        [
            Array { shape: vec![2 * frequencies, 1, 1, frame], values: waves },
            Array {
                shape: vec![bands, 2 * frequencies, 1, 1],
                values: (0..bands).flat_map(band).collect(),
            },
        ]
    }
}

/// Edge `edge` of `bands` overlapping bands in hertz, on the mel scale of O'Shaughnessy 1987.
fn band_edge(edge: usize, bands: usize, rate_hz: usize) -> f64 {
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let highest = mel(rate_hz as f64 / 2.0);
    let at = highest * edge as f64 / (bands + 1) as f64;
    700.0 * (10_f64.powf(at / 2595.0) - 1.0)
}

/// Mean and deviation of each channel of maps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Moments {
    pub(crate) mean: Vec<f32>,
    pub(crate) deviation: Vec<f32>,
}

impl Moments {
    /// Over the maps that `front` makes of `examples`, a channel without variation counting as one with
    /// deviation 1.
    pub(crate) fn of(front: &Front, examples: &Signals) -> Moments {
        let (device, channels) = (Device::flex(), front.maps().channels);
        let param =
            |value: f32| Param::from_data(TensorData::from(&vec![value; channels][..]), &device);
        let end = FrontEnd::new(front, param(1.0), param(0.0), &device);
        let (mut sums, mut squares, mut count) = (vec![0.0; channels], vec![0.0; channels], 0);
        for rows in examples.in_turn() {
            let maps = end.forward(&examples.batch(&rows), &device);
            let [_, _, height, width] = maps.dims();
            let values: Vec<f32> = maps.into_data().try_to_vec().expect("maps are f32");
            for (index, map) in values.chunks(height * width).enumerate() {
                let values = map.iter().map(|value| f64::from(*value));
                sums[index % channels] += values.clone().sum::<f64>();
                squares[index % channels] += values.map(|value| value * value).sum::<f64>();
            }
            count += rows.len() * height * width;
        }
        let mean: Vec<f64> = sums.iter().map(|sum| sum / count as f64).collect();
        let deviation = squares.iter().zip(&mean).map(|(square, mean)| {
            match (square / count as f64 - mean * mean).max(0.0).sqrt() {
                deviation if deviation > 1e-9 => deviation as f32,
                _ => 1.0,
            }
        });
        Moments {
            deviation: deviation.collect(),
            mean: mean.iter().map(|mean| *mean as f32).collect(),
        }
    }
}

/// A front end on a device. Nothing of it is trained.
#[derive(Module, Debug)]
pub(crate) struct FrontEnd {
    scale: Param<Tensor<1>>,
    shift: Param<Tensor<1>>,
    sound: Option<Sound>,
    #[module(skip)]
    front: Front,
}

/// The kernels of [`Front::spectrum`].
#[derive(Module, Debug)]
struct Sound {
    waves: Tensor<4>,
    bands: Tensor<4>,
    #[module(skip)]
    hop: usize,
}

impl FrontEnd {
    /// The front end `front` that multiplies each channel by `scale` and adds `shift`.
    pub(crate) fn new(
        front: &Front,
        scale: Param<Tensor<1>>,
        shift: Param<Tensor<1>>,
        device: &Device,
    ) -> FrontEnd {
        let sound = match *front {
            Front::Sound { rate_hz, frame, hop, bands, .. } => {
                let [waves, bands] = Front::spectrum(rate_hz, frame, bands).map(|kernel| {
                    Tensor::<4>::from_data(TensorData::new(kernel.values, kernel.shape), device)
                });
                Some(Sound { waves, bands, hop })
            }
            Front::Windows { .. } | Front::Image { .. } => None,
        };
        let (scale, shift) = (scale.no_grad(), shift.no_grad());
        FrontEnd { scale, shift, sound, front: front.clone() }
    }

    /// The standardized maps of `batch`, `[rows, ...]` with the shape of an example behind the rows.
    pub(crate) fn forward(&self, batch: &Array, device: &Device) -> Tensor<4> {
        let rows = batch.shape[0];
        let Maps { channels, height, width } = self.front.maps();
        let values = batch.values.clone();
        let maps = match self.front {
            Front::Windows { samples, channels } => {
                let data = TensorData::new(values, [rows, samples, channels]);
                let windows = Tensor::<3>::from_data(data, device);
                windows.swap_dims(1, 2).reshape([rows, channels, 1, samples])
            }
            Front::Sound { samples, .. } => {
                let data = TensorData::new(values, [rows, 1, 1, samples]);
                let sound = self.sound.as_ref().expect("a front end for sound has its kernels");
                sound.forward(Tensor::<4>::from_data(data, device))
            }
            Front::Image { .. } => {
                Tensor::<4>::from_data(TensorData::new(values, [rows, 1, height, width]), device)
            }
        };
        let channel = |param: &Param<Tensor<1>>| param.val().reshape([1, channels, 1, 1]);
        debug_assert_eq!(maps.dims(), [rows, channels, height, width]);
        maps * channel(&self.scale) + channel(&self.shift)
    }
}

impl Sound {
    fn forward(&self, sound: Tensor<4>) -> Tensor<4> {
        let hop = ConvOptions::new([1, self.hop], [0, 0], [1, 1], 1);
        let waves = conv2d(sound, self.waves.clone(), None, hop);
        let once = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
        let power = conv2d(waves.clone() * waves, self.bands.clone(), None, once);
        power.add_scalar(POWER_FLOOR).log()
    }
}
