//! Numbers as they come, to counts in bins of equal width: what a calibration looks at.

/// Bins on either side of zero. After a doubling half of them are in use, which is still eight bins to a
/// step of 255.
const SIDE: usize = 4096;

/// Counts of numbers in bins whose width doubles whenever a number lies outside, so that one pass suffices
/// and the order of the numbers does not matter. Zero is the edge of two bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// A power of two.
    width: f32,
    counts: Vec<u64>,
    least: f32,
    most: f32,
}

impl Default for Histogram {
    fn default() -> Histogram {
        // Far below any activation that matters; wide enough that doubling reaches every f32.
        let width = 2.0_f32.powi(-60);
        Histogram { width, counts: vec![0; 2 * SIDE], least: 0.0, most: 0.0 }
    }
}

impl Histogram {
    /// Counts the finite ones of `values`; others have no place on a scale.
    pub fn add(&mut self, values: &[f32]) {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        self.least = finite().fold(self.least, f32::min);
        self.most = finite().fold(self.most, f32::max);
        while !(self.bin(self.least).is_some() && self.bin(self.most).is_some()) {
            self.double();
        }
        for value in finite() {
            if let Some(bin) = self.bin(value) {
                self.counts[bin] += 1;
            }
        }
    }

    /// The least and the largest number, and zero if it lies beyond them.
    pub fn extremes(&self) -> (f32, f32) {
        (self.least, self.most)
    }

    /// How many were counted.
    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width of a bin.
    pub(super) fn width(&self) -> f32 {
        self.width
    }

    /// The counts; bin `SIDE` is the first one from zero upwards.
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The lower edge of `bin`; that of the last bin but one is the upper edge of the last.
    pub(super) fn edge(&self, bin: usize) -> f32 {
        (bin as f32 - SIDE as f32) * self.width
    }

    /// How many bins away from zero the farthest number lies, on either side.
    pub(super) fn reach(&self) -> usize {
        let occupied = |bin: &usize| self.counts[*bin] > 0;
        let below = (0..SIDE).find(occupied).map_or(0, |bin| SIDE - bin);
        let above = (SIDE..2 * SIDE).rfind(occupied).map_or(0, |bin| bin + 1 - SIDE);
        below.max(above).max(1)
    }

    /// The bins up to `reach` bins away from zero, as far as there is anything on that side.
    pub(super) fn within(&self, reach: usize) -> std::ops::Range<usize> {
        let below = if self.least < 0.0 { reach } else { 0 };
        let above = if self.most > 0.0 { reach } else { 0 };
        SIDE - below..SIDE + above
    }

    fn bin(&self, value: f32) -> Option<usize> {
        // A power of two divides exactly.
        let bin = (value / self.width).floor() + SIDE as f32;
        (0.0..2.0 * SIDE as f32).contains(&bin).then_some(bin as usize)
    }

    fn double(&mut self) {
        self.width *= 2.0;
        let mut counts = vec![0; 2 * SIDE];
        for (pair, sum) in self.counts.chunks_exact(2).zip(&mut counts[SIDE / 2..]) {
            *sum = pair[0] + pair[1];
        }
        self.counts = counts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_where_they_lie_whatever_comes_first() {
        let numbers = [1.0_f32, -3.0, 0.001, 0.0, 2.5, -1e-20, 100.0];
        let (mut together, mut apart) = (Histogram::default(), Histogram::default());
        together.add(&numbers);
        numbers.iter().rev().for_each(|&number| apart.add(&[number]));
        assert_eq!(together, apart);
        assert_eq!(together.extremes(), (-3.0, 100.0));
        assert_eq!(together.len(), numbers.len() as u64);
        for number in numbers {
            let bin = together.bin(number).unwrap();
            let (from, to) = (together.edge(bin), together.edge(bin + 1));
            assert!(from <= number && number < to && together.counts()[bin] > 0, "{number}");
        }
        assert!(together.width() <= 100.0 / (SIDE / 2) as f32);
        assert_eq!(together.reach(), (100.0 / together.width()) as usize + 1);
    }

    #[test]
    fn what_is_not_finite_has_no_place() {
        let mut histogram = Histogram::default();
        histogram.add(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        assert!(histogram.is_empty());
        histogram.add(&[f32::MAX, f32::MIN]);
        assert_eq!((histogram.len(), histogram.extremes()), (2, (f32::MIN, f32::MAX)));
    }
}
