//! Percentile: the range that all but a share of the numbers lie in, half of that share on either side.

use super::Histogram;

/// The range in which `share` (0 to 1) of the numbers lies, to the edges of bins, and no wider than the
/// extremes.
pub(super) fn range(histogram: &Histogram, share: f64) -> (f32, f32) {
    let counts = histogram.counts();
    let cut = (histogram.len() as f64 * (1.0 - share) / 2.0) as u64;
    let (lower, upper) =
        (passed(counts, 0..counts.len(), cut), passed(counts, (0..counts.len()).rev(), cut));
    let (least, most) = histogram.extremes();
    let lower = lower.map_or(least, |bin| histogram.edge(bin));
    let upper = upper.map_or(most, |bin| histogram.edge(bin + 1));
    (lower.max(least), upper.min(most))
}

/// The bin with which more than `cut` numbers have been passed.
fn passed(counts: &[u64], mut bins: impl Iterator<Item = usize>, cut: u64) -> Option<usize> {
    let mut seen = 0;
    bins.find(|&bin| {
        seen += counts[bin];
        seen > cut
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_cut_at_both_ends() {
        let mut histogram = Histogram::default();
        // -500 to 499, each once.
        let numbers: Vec<f32> = (-500..500).map(|number| number as f32).collect();
        histogram.add(&numbers);
        assert_eq!(range(&histogram, 1.0), (-500.0, 499.0));
        let (least, most) = range(&histogram, 0.98);
        // Ten numbers go at each end; edges of bins are an eighth apart at most.
        assert!((least + 490.0).abs() <= 0.25 && (most - 489.0).abs() <= 0.25, "{least} {most}");
    }

    #[test]
    fn rare_outliers_go_and_the_common_stays() {
        let mut histogram = Histogram::default();
        histogram.add(&vec![1.0; 100_000]);
        histogram.add(&[50.0]);
        let (least, most) = range(&histogram, 0.9999);
        assert!(least >= 0.0 && (1.0..1.1).contains(&most), "{least} {most}");
    }
}
