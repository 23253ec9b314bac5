//! Random numbers that depend on a seed alone, on every machine.

/// SplitMix64 (Steele, Lea and Flood 2014): one word of state, equidistributed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator of its own for each `name` and `number` under the same seed.
    pub(crate) fn new(seed: u64, name: &str, number: usize) -> Random {
        let hash = blake3::hash(format!("{seed}/{name}/{number}").as_bytes());
        let (word, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        Random(u64::from_le_bytes(*word))
    }

    /// Uniform over all 64-bit words.
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform between 0 and 1, both excluded.
    pub(crate) fn uniform(&mut self) -> f64 {
        // The top 53 bits, moved off zero, where a logarithm has no value.
        ((self.word() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Uniform between -1 and 1.
    pub(crate) fn signed(&mut self) -> f32 {
        (2.0 * self.uniform() - 1.0) as f32
    }

    /// Uniform over the numbers below `limit`, which is above 0. The bias of the remainder is below
    /// `limit / 2^64`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.word() % limit as u64) as usize
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f32 {
        let (radius, angle) = (self.uniform(), self.uniform());
        ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
    }

    /// Puts `items` into random order (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let chosen = self.below(last + 1);
            items.swap(last, chosen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_reference_implementation() {
        // Vigna's splitmix64.c, seed 1234567.
        let mut random = Random(1_234_567);
        let words = [random.word(), random.word(), random.word()];
        assert_eq!(
            words,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn normals_have_mean_zero_and_deviation_one() {
        let mut random = Random(3);
        let draws: Vec<f64> = (0..20_000).map(|_| f64::from(random.normal())).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        // Four standard errors: 1/sqrt(20000) and sqrt(2/20000).
        assert!(mean.abs() < 0.0283, "{mean}");
        assert!((variance - 1.0).abs() < 0.04, "{variance}");
    }
}
