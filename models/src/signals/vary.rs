//! Varied copies of signals: what could as well have been recorded.
//!
//! Amounts are the largest that occur; each copy draws its own, uniformly up to them.

use serde::{Deserialize, Serialize};

use crate::seed::Random;

/// How windows of motion are varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Motion {
    /// The device sits differently: every three channels, as one vector, turned about a random axis.
    pub rotate_degrees: f32,
    /// Stronger or weaker, as a share.
    pub scale: f32,
    /// Slower or faster about the middle, as a share.
    pub warp: f32,
    /// Deviation of normal noise on each number, in its unit.
    pub noise: f32,
}

/// How recordings of sound are varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speech {
    /// Later or earlier, in samples; what is left open is silence.
    pub shift: usize,
    /// Louder or softer, as a share.
    pub scale: f32,
    /// Slower or faster, as a share.
    pub warp: f32,
    /// Deviation of normal noise on each sample.
    pub noise: f32,
}

/// How images are varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// Moved in each direction, in pixels; what is left open is black.
    pub shift: usize,
    /// Brighter or darker, as a share.
    pub scale: f32,
    /// Whether every other copy is mirrored, left to right.
    pub mirror: bool,
}

impl Motion {
    /// A copy of `window`, `[samples, channels]`.
    pub(crate) fn vary(&self, window: &[f32], channels: usize, random: &mut Random) -> Vec<f32> {
        let turn = rotation(self.rotate_degrees.to_radians() * random.signed(), random);
        let scale = 1.0 + self.scale * random.signed();
        let speed = 1.0 + self.warp * random.signed();
        let samples = window.len() / channels;
        let middle = (samples - 1) as f32 / 2.0;
        let mut copy = Vec::with_capacity(window.len());
        for sample in 0..samples {
            let place = middle + (sample as f32 - middle) * speed;
            let at = |channel| between(window, place, channels, channel);
            let now: Vec<f32> = (0..channels).map(at).collect();
            for vector in now.chunks(3) {
                match *vector {
                    [x, y, z] => copy.extend(turn.map(|[a, b, c]| scale * (a * x + b * y + c * z))),
                    _ => copy.extend(vector.iter().map(|value| scale * value)),
                }
            }
        }
        noisy(copy, self.noise, random)
    }
}

impl Speech {
    /// A copy of `recording`.
    pub(crate) fn vary(&self, recording: &[f32], random: &mut Random) -> Vec<f32> {
        let scale = 1.0 + self.scale * random.signed();
        let speed = 1.0 + self.warp * random.signed();
        let shift = self.shift as f32 * random.signed();
        let last = (recording.len() - 1) as f32;
        let sample = |index: usize| match (index as f32 - shift) * speed {
            place if (0.0..=last).contains(&place) => scale * between(recording, place, 1, 0),
            _ => 0.0,
        };
        noisy((0..recording.len()).map(sample).collect(), self.noise, random)
    }
}

impl Picture {
    /// A copy of `image`, `[height, width]`.
    pub(crate) fn vary(&self, image: &[f32], width: usize, random: &mut Random) -> Vec<f32> {
        let scale = 1.0 + self.scale * random.signed();
        let mirrored = self.mirror && random.below(2) == 1;
        let shifts = 2 * self.shift + 1;
        let [down, right] = [(); 2].map(|()| random.below(shifts) as isize - self.shift as isize);
        let height = image.len() / width;
        let pixel = |index: usize| {
            let row = (index / width).checked_add_signed(-down).filter(|row| *row < height)?;
            let column =
                (index % width).checked_add_signed(-right).filter(|column| *column < width)?;
            let column = if mirrored { width - 1 - column } else { column };
            Some(scale * image[row * width + column])
        };
        (0..image.len()).map(|index| pixel(index).unwrap_or(0.0)).collect()
    }
}

/// The value of `channel` at `place`, between two samples in proportion; the first or last beyond.
fn between(signal: &[f32], place: f32, channels: usize, channel: usize) -> f32 {
    let last = signal.len() / channels - 1;
    let place = place.clamp(0.0, last as f32);
    let (before, share) = (place as usize, place.fract());
    let value = |sample: usize| signal[sample.min(last) * channels + channel];
    value(before) + share * (value(before + 1) - value(before))
}

fn noisy(mut signal: Vec<f32>, deviation: f32, random: &mut Random) -> Vec<f32> {
    if deviation > 0.0 {
        signal.iter_mut().for_each(|value| *value += deviation * random.normal());
    }
    signal
}

/// The matrix that turns by `angle` about a random axis (Rodrigues 1840).
fn rotation(angle: f32, random: &mut Random) -> [[f32; 3]; 3] {
    let axis = [(); 3].map(|()| random.normal());
    let length = axis.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    let [x, y, z] = axis.map(|part| part / length);
    let (sin, cos) = angle.sin_cos();
    let rest = 1.0 - cos;
    [
        [cos + rest * x * x, rest * x * y - sin * z, rest * x * z + sin * y],
        [rest * x * y + sin * z, cos + rest * y * y, rest * y * z - sin * x],
        [rest * x * z - sin * y, rest * y * z + sin * x, cos + rest * z * z],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_keeps_lengths_and_a_copy_without_amounts_changes_nothing() {
        let mut random = Random::new(1, "test", 0);
        let window: Vec<f32> = (0..24).map(|n| (n as f32 * 0.7).sin()).collect();
        let still = Motion { rotate_degrees: 0.0, scale: 0.0, warp: 0.0, noise: 0.0 };
        assert_eq!(still.vary(&window, 6, &mut random), window);
        let turned = Motion { rotate_degrees: 90.0, ..still }.vary(&window, 6, &mut random);
        let length = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        for (before, after) in window.chunks(3).zip(turned.chunks(3)) {
            assert!((length(before) - length(after)).abs() < 1e-5, "{before:?} became {after:?}");
        }
        assert_ne!(turned, window);
    }

    #[test]
    fn an_image_moves_and_is_mirrored_whole() {
        let picture = Picture { shift: 1, scale: 0.0, mirror: true };
        let image = [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0];
        for number in 0..20 {
            let copy = picture.vary(&image, 3, &mut Random::new(1, "test", number));
            let ones = copy.iter().position(|pixel| *pixel == 1.0);
            let twos = copy.iter().position(|pixel| *pixel == 2.0);
            if let (Some(one), Some(two)) = (ones, twos) {
                assert_eq!(one.abs_diff(two), 1, "{copy:?}");
            }
        }
    }

    #[test]
    fn sound_that_moves_leaves_silence() {
        let speech = Speech { shift: 4, scale: 0.0, warp: 0.0, noise: 0.0 };
        let copy = speech.vary(&[1.0; 8], &mut Random::new(2, "test", 0));
        assert!(copy.iter().all(|sample| *sample == 0.0 || *sample == 1.0), "{copy:?}");
        assert!(copy.contains(&0.0), "{copy:?}");
    }
}
