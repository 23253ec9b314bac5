//! Features: a window turned into a handful of numbers for each channel, for students that are too
//! small to read raw samples.

/// What one channel did during a window, in the channel's own unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Features {
    /// Arithmetic mean.
    pub mean: f32,
    /// Standard deviation of the window itself (divided by its length, not by one less).
    pub standard_deviation: f32,
    /// Least value.
    pub min: f32,
    /// Greatest value.
    pub max: f32,
    /// Root of the mean square.
    pub rms: f32,
}

/// The features of each channel of `window`, which is `[LEN, CHANNELS]`; the result `[CHANNELS]`.
///
/// Sums run in f64, oldest sample first, and each result is rounded to f32 once: the same bits on
/// every machine. Where a channel holds a NaN its mean, standard deviation and rms are NaN, while
/// min and max pass over it (and are infinite where there is nothing else). A window of no samples does not compile.
///
/// ```
/// use dram_targets::features::features;
/// let [x, y] = features(&[[1.0, -2.0], [3.0, -2.0]]);
/// assert_eq!((x.mean, x.standard_deviation, x.min, x.max), (2.0, 1.0, 1.0, 3.0));
/// assert_eq!(y.rms, 2.0);
/// // As the flat input of a model, `[CHANNELS * 5]`:
/// let input = [x.to_array(), y.to_array()];
/// assert_eq!(input.as_flattened().len(), 10);
/// ```
pub fn features<const CHANNELS: usize, const LEN: usize>(
    window: &[[f32; CHANNELS]; LEN],
) -> [Features; CHANNELS] {
    const { assert!(LEN > 0, "a window of no samples has no features") };
    core::array::from_fn(|channel| {
        let values = || window.iter().map(|sample| sample[channel]);
        let mean_of = |f: &dyn Fn(f64) -> f64| {
            values().map(|value| f(f64::from(value))).sum::<f64>() / LEN as f64
        };
        let mean = mean_of(&|value| value);
        // Two passes: the difference of mean square and squared mean would cancel under gravity.
        let variance = mean_of(&|value| (value - mean) * (value - mean));
        Features {
            mean: mean as f32,
            standard_deviation: square_root(variance),
            // Not `f32::min`: which of 0.0 and -0.0 it gives is up to the machine.
            min: values().fold(f32::INFINITY, |min, x| if x < min { x } else { min }),
            max: values().fold(f32::NEG_INFINITY, |max, x| if x > max { x } else { max }),
            rms: square_root(mean_of(&|value| value * value)),
        }
    })
}

impl Features {
    /// Mean, standard deviation, min, max, rms: the order in which they are stated above.
    pub fn to_array(self) -> [f32; 5] {
        [self.mean, self.standard_deviation, self.min, self.max, self.rms]
    }
}

/// The square root, correctly rounded to f32, of an `x` that is no negative number; NaN of NaN.
///
/// `core` has no square root in stable Rust. The integer square root of the significand, with one
/// bit more than an f32 holds and a sticky bit below it, rounds exactly as IEEE 754 asks.
fn square_root(x: f64) -> f32 {
    if x == 0.0 || !x.is_finite() {
        return x as f32;
    }
    const FRACTION: u32 = f64::MANTISSA_DIGITS - 1;
    // Subnormals are scaled up first; 2^-54 under the root is 2^-27 outside.
    let (x, scale) = if x.is_normal() { (x, 0) } else { (x * (1u64 << 54) as f64, 54) };
    let significand = x.to_bits() & ((1 << FRACTION) - 1) | 1 << FRACTION;
    let exponent = (x.to_bits() >> FRACTION) as i32 - 1_075 - scale;
    // x = significand * 2^exponent; make the exponent even, the significand 54 to 55 bits long.
    let (significand, exponent) = match exponent % 2 {
        0 => (significand << 2, exponent - 2),
        _ => (significand << 1, exponent - 1),
    };
    let root = significand.isqrt();
    let sticky = u64::from(root * root != significand);
    // 27 or 28 bits and a sticky one: exact as f64, and rounded to f32 once, in the last step.
    let scaled = (root << 1 | sticky) as f64 * power_of_two(exponent / 2 - 1);
    scaled as f32
}

/// 2 to the power of `exponent`, which is one that f64 holds as a normal number.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1_023) as u64) << (f64::MANTISSA_DIGITS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_small_windows_by_hand() {
        let [x, y] = features(&[[1.0, 0.0], [-1.0, 3.0], [1.0, 0.0], [-1.0, 3.0]]);
        assert_eq!(x.to_array(), [0.0, 1.0, -1.0, 1.0, 1.0]);
        assert_eq!(y.to_array(), [1.5, 1.5, 0.0, 3.0, 4.5_f32.sqrt()]);
        let [one] = features(&[[7.5]]);
        assert_eq!(one.to_array(), [7.5, 0.0, 7.5, 7.5, 7.5]);
    }

    #[test]
    fn a_small_motion_shows_beside_a_large_offset() {
        // One part in 4,096 on top of 1,000: f32 sums of squares would lose it entirely.
        let step = 1.0 / 4_096.0;
        let [x] = features(&[[1_000.0 - step], [1_000.0 + step]]);
        assert_eq!(x.standard_deviation, step);
    }

    #[test]
    fn a_nan_shows_in_the_means_and_leaves_the_extremes() {
        let [x] = features(&[[1.0], [f32::NAN], [2.0]]);
        assert!(x.mean.is_nan() && x.standard_deviation.is_nan() && x.rms.is_nan());
        assert_eq!((x.min, x.max), (1.0, 2.0));
    }

    #[test]
    fn of_equal_extremes_the_first_counts_zeros_included() {
        for [first, second] in [[0.0, -0.0], [-0.0, 0.0_f32]] {
            let [x] = features(&[[first], [second]]);
            assert_eq!([x.min, x.max].map(f32::to_bits), [first.to_bits(); 2]);
        }
    }

    /// f64's root has 53 bits, more than twice 24 plus 2, so rounding it again to f32 gives the
    /// correctly rounded root of any `x` that is an f32 (Figueroa, 1995). Of another `x` the two
    /// roundings may differ; there the square of the middle between them decides.
    fn check(x: f64) {
        let (ours, theirs) = (square_root(x), x.sqrt() as f32);
        if ours.to_bits() != theirs.to_bits() {
            assert!(f64::from(x as f32) != x, "root of {x:e}: {ours:e} is not {theirs:e}");
            let middle = (f64::from(ours) + f64::from(theirs)) / 2.0;
            let above = middle * middle > x; // exact: the middle has 25 bits
            assert_eq!(above, ours < theirs, "root of {x:e}: {ours:e} is not {theirs:e}");
        }
    }

    #[test]
    fn square_root_rounds_as_the_standard_librarys() {
        for x in [0.0, 1.0, 2.0, 3.0, 4.0, 0.25, 1e-300, 1e300, f64::MIN_POSITIVE, 5e-324, f64::MAX]
        {
            check(x);
        }
        // Primes as strides: they meet every exponent and the whole range of significands.
        for bits in (0..f32::INFINITY.to_bits()).step_by(997) {
            check(f64::from(f32::from_bits(bits)));
        }
        for bits in (0..f64::INFINITY.to_bits()).step_by(9_007_199_254_741) {
            check(f64::from_bits(bits));
        }
        assert!(square_root(f64::NAN).is_nan());
        assert_eq!(square_root(f64::INFINITY), f32::INFINITY);
    }

    #[test]
    #[ignore = "every f32 that is no negative number: half a minute in a release build"]
    fn square_root_of_every_f32() {
        (0..f32::INFINITY.to_bits()).for_each(|bits| check(f64::from(f32::from_bits(bits))));
    }
}
