//! `dram fit` and `dram doctor --calibrate`: which bundle on which board, and what a script reads of it.

use serde_json::Value;
use tempfile::tempdir;

use crate::dram::{Outcome, dram, intents, text, tiny_bundle};

/// What `dram fit` says of the zoo under `goals`.
fn fit(goals: &[&str]) -> Outcome {
    dram(&[&["fit", &intents(), "--json"], goals].concat())
}

fn candidates(document: &Value) -> &[Value] {
    document["candidates"].as_array().expect("a list")
}

#[test]
fn what_meets_the_goals_comes_first_and_the_fastest_of_it() {
    let goals = ["--ram", "64MiB", "--p95", "30ms", "--min-accuracy", "0.93"];
    let document = fit(&goals).expect(0).json();
    let candidates = candidates(&document);
    assert!(candidates.len() >= 10 && document["fits"] == true, "{document}");
    let order = candidates.iter().map(|it| (it["fits"] == false, it["predicted_ms"].as_f64()));
    assert!(order.is_sorted(), "{document}");
    for candidate in candidates {
        let number = |key: &str| candidate[key].as_f64().expect("a number");
        assert!(number("predicted_p95_ms") > number("predicted_ms"), "{candidate}");
        let meets = number("predicted_p95_ms") <= 30.0
            && number("planned_peak_bytes") <= number("ram_allowed_bytes")
            && number("accuracy") >= 0.93;
        assert_eq!(candidate["fits"], meets, "{candidate}");
        assert_eq!(candidate["misses"].as_array().map(Vec::is_empty), Some(meets), "{candidate}");
    }
}

#[test]
fn a_shorter_text_is_the_way_into_a_tight_goal() {
    let tokens = |goal: &str| {
        let document = fit(&["--board", "rpi-zero-2w", "--p95", goal]).json();
        candidates(&document)[0]["seq"].as_u64().expect("tokens")
    };
    assert_eq!(tokens("10s"), 128);
    assert!(tokens("40ms") < 128);
    // Where even the shortest is too slow, it is the shortest that is shown.
    assert_eq!(tokens("0.001ms"), 16);
}

#[test]
fn where_none_fits_each_goal_that_is_missed_is_named() {
    let goals = ["--ram", "2MiB", "--p95", "0.001ms", "--min-accuracy", "0.999"];
    let document = fit(&goals).expect(1).json();
    assert_eq!(document["fits"], false);
    let misses = candidates(&document)[0]["misses"].to_string();
    for goal in
        ["RAM: planned ", "allowed 2.0 MiB", "p95: predicted ", "accuracy: ", "wanted 99.90 %"]
    {
        assert!(misses.contains(goal), "{goal} is not in {misses}");
    }
    // Nobody measured this one, so it cannot be said to be accurate.
    let folder = tempdir().expect("a folder");
    let tiny = tiny_bundle(folder.path());
    let outcome = dram(&["fit", &tiny, "--min-accuracy", "0"]).expect(1);
    assert!(outcome.stdout.contains("accuracy: not known"), "{outcome:?}");
}

#[test]
fn a_calibration_goes_from_doctor_to_fit() {
    let folder = tempdir().expect("a folder");
    let calibration = dram(&["doctor", "--calibrate", "--json"]).expect(0);
    let measured = calibration.json();
    let shares = ["f32", "int8", "attention", "attention_int8"];
    for share in shares.map(|kind| format!("{kind}_efficiency")) {
        // Above one would mean that a layer outruns the tile that it is made of.
        let share = measured[share].as_f64().expect("a share");
        assert!(share > 0.0 && share < 1.1, "{measured}");
    }
    let file = text(&folder.path().join("here.json"));
    std::fs::write(&file, &calibration.stdout).expect("a file");
    let document = dram(&["fit", &intents(), "--calibration", &file, "--json"]).expect(0).json();
    assert_eq!(document["calibration"], measured);
    assert!(candidates(&document).iter().any(|it| it["board"] == "calibrated"), "{document}");
    std::fs::write(&file, "{}").expect("a file");
    let outcome = dram(&["fit", &intents(), "--calibration", &file]).expect(2);
    assert!(outcome.stderr.contains("is not what `dram doctor --calibrate --json` writes"));
}

#[test]
fn goals_that_make_no_sense_are_usage_errors() {
    for goal in [["--p95", "30"], ["--p95", "-1ms"], ["--min-accuracy", "93"], ["--ram", "much"]] {
        fit(&goal).expect(2);
    }
    fit(&["--board", "rpi-1000"]).expect(2);
}
