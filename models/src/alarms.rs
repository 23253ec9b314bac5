//! Signs that a distillation was not worth it, or went wrong without ending.

use crate::checkpoint::Epoch;

/// A loss this many times the best one so far has left where it had come to.
const DIVERGING: f32 = 3.0;

/// What the passes of the student give reason to doubt; `baseline` is the score of the same student without
/// a teacher, where it was trained.
pub(crate) fn alarms(history: &[Epoch], score: f64, baseline: Option<f64>) -> Vec<String> {
    let mut alarms = Vec::new();
    let mut least = f32::INFINITY;
    for (pass, epoch) in history.iter().enumerate() {
        if epoch.loss > DIVERGING * least {
            let from = format!("{least:.4} to {:.4}", epoch.loss);
            alarms.push(format!(
                "diverging: the mean loss rose from {from} in pass {}; lower `learning_rate`",
                pass + 1
            ));
        }
        least = least.min(epoch.loss);
    }
    match baseline {
        Some(baseline) if score <= baseline => alarms.push(format!(
            "no gain: the student scores {:.2} %, the same one trained without a teacher {:.2} %",
            100.0 * score,
            100.0 * baseline
        )),
        _ => {}
    }
    let best = history.iter().map(|epoch| epoch.score).fold(f32::NEG_INFINITY, f32::max);
    if history.len() > 2 && history[0].score >= best {
        alarms.push(format!("no gain: none of {} passes was better than the first", history.len()));
    }
    alarms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(passes: &[(f32, f32)]) -> Vec<Epoch> {
        passes.iter().map(|&(loss, score)| Epoch { loss, score }).collect()
    }

    #[test]
    fn alarms_name_what_is_wrong_and_good_runs_have_none() {
        let good = history(&[(2.0, 0.5), (1.0, 0.8), (1.1, 0.9)]);
        assert!(alarms(&good, 0.9, Some(0.8)).is_empty());
        assert!(
            alarms(&good, 0.9, Some(0.9))[0].starts_with("no gain: the student scores 90.00 %")
        );
        let rising = history(&[(1.0, 0.1), (0.5, 0.4), (1.6, 0.5)]);
        assert!(alarms(&rising, 0.5, None)[0].contains("in pass 3"));
        let stuck = history(&[(1.0, 0.4), (0.9, 0.4), (0.8, 0.3)]);
        assert!(alarms(&stuck, 0.4, None)[0].contains("none of 3 passes"));
    }
}
