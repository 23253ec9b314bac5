//! A whole recording of a person with a smartphone (UCI HAPT, 50 Hz, six channels) through sensor,
//! window, features, decision and pipeline, bit for bit against plain loops over slices.

use dram_targets::decision::{Decision, Rule, Vote};
use dram_targets::features::{Features, features};
use dram_targets::pipeline::{Error, Pipeline, Step};
use dram_targets::sensor::replay::{Ended, Replay};
use dram_targets::sensor::{ACCELEROMETER_AND_GYROSCOPE, Sample, Sensor};
use dram_targets::window::{OnGap, Window};
use std::convert::Infallible;
use std::fs;
use std::path::Path;

const LEN: usize = 128;
const HOP: usize = 64;
const VOTES: usize = 5;
const RULE: Rule = Rule { votes_needed: 3, enter_probability: 0.6, keep_probability: 0.5 };

type Row = [f32; 6];

#[test]
fn a_replayed_recording_gives_the_windows_of_plain_slices() {
    let Some((rows, _)) = recording("a_replayed_recording_gives_the_windows_of_plain_slices")
    else {
        return;
    };
    let mut expected = rows.windows(LEN).step_by(HOP);
    let mut sensor = Replay::new(rows.iter().copied(), ACCELEROMETER_AND_GYROSCOPE);
    let mut window = Window::<6, LEN, HOP>::new(OnGap::Reset);
    while let Ok(Some(sample)) = sensor.sample() {
        if let Some(window) = window.push(sample) {
            assert_eq!(bits(window), bits(expected.next().unwrap()));
        }
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn lost_samples_split_a_recording_into_runs() {
    let Some((rows, _)) = recording("lost_samples_split_a_recording_into_runs") else {
        return;
    };
    // Every 331st to 333rd row of 1,000 is lost, and the last one of 777.
    let is_lost = |index: usize| (331..334).contains(&(index % 1_000)) || index % 777 == 776;
    let runs = rows.iter().enumerate().collect::<Vec<_>>();
    let runs = runs.split(|(index, _)| is_lost(*index));
    let expected: Vec<_> = runs
        .map(|run| run.iter().map(|(_, row)| **row).collect::<Vec<Row>>())
        .flat_map(|run| run.windows(LEN).step_by(HOP).map(bits).collect::<Vec<_>>())
        .collect();

    let mut window = Window::<6, LEN, HOP>::new(OnGap::Reset);
    let mut lost = 0;
    let mut given = vec![];
    for (index, &values) in rows.iter().enumerate() {
        if is_lost(index) {
            lost += 1;
        } else {
            let sample = Sample { values, lost: std::mem::take(&mut lost) };
            given.extend(window.push(sample).map(|window| bits(window)));
        }
    }
    assert_eq!(given, expected);
    assert!(given.len() > 100, "{} windows", given.len());
}

#[test]
fn a_pipeline_decides_as_a_loop_over_the_whole_recording_does() {
    let Some((rows, labels)) =
        recording("a_pipeline_decides_as_a_loop_over_the_whole_recording_does")
    else {
        return;
    };
    let sensor = Replay::new(rows.iter().copied(), ACCELEROMETER_AND_GYROSCOPE);
    let window = Window::<6, LEN, HOP>::new(OnGap::Reset);
    let predict = |window: &[Row; LEN]| Ok::<_, Infallible>(is_moving(&features(window)));
    let mut pipeline =
        Pipeline::new(sensor, window, predict, Decision::<VOTES>::new(RULE).unwrap());
    let (mut votes, mut decisions) = (vec![], vec![]);
    loop {
        match pipeline.step() {
            Ok(Step::Predicted { vote, change }) => {
                if let Some(change) = change {
                    assert_eq!(change.from, decisions.last().copied().flatten());
                    assert_eq!(change.to, pipeline.label());
                }
                votes.push(vote);
                decisions.push(pipeline.label());
            }
            Ok(_) => {}
            Err(Error::Sensor(Ended)) => break,
            Err(error) => panic!("{error}"),
        }
    }

    let expected_votes: Vec<_> =
        rows.windows(LEN).step_by(HOP).map(|window| is_moving(&plain_features(window))).collect();
    assert_eq!(votes, expected_votes);
    assert_eq!(decisions, plain_decisions(&expected_votes));
    let counts = pipeline.counts();
    assert_eq!((counts.samples, counts.windows), (rows.len() as u64, votes.len() as u64));
    assert_eq!((counts.lost, counts.sensor_errors, counts.predict_errors), (0, 1, 0));

    // Whether the person moved is written beside the samples by those who recorded them: 1 to 3 are
    // ways of walking, 4 to 6 rest. Nobody walks without moving; who rests may shift now and then.
    let mut stirring = (0, 0);
    for (vote, labels) in votes.iter().zip(labels.windows(LEN).step_by(HOP)) {
        if labels.iter().all(|label| (1..=3).contains(label)) {
            assert_eq!(vote.label, 1, "a walking window");
        } else if labels.iter().all(|label| (4..=6).contains(label)) {
            stirring = (stirring.0 + vote.label, stirring.1 + 1);
        }
    }
    assert!(stirring.1 > 50 && stirring.0 * 10 < stirring.1, "{stirring:?} of resting windows");
}

/// Label 1, moving, where the accelerometer's deviations of all axes add up to more than 0.4 g.
fn is_moving(features: &[Features; 6]) -> Vote {
    let deviation: f32 = features[..3].iter().map(|axis| axis.standard_deviation).sum();
    let moving = deviation * deviation / (deviation * deviation + 0.4 * 0.4);
    Vote::of(&[1.0 - moving, moving]).unwrap()
}

fn plain_features(window: &[Row]) -> [Features; 6] {
    std::array::from_fn(|channel| {
        let column: Vec<f64> = window.iter().map(|row| f64::from(row[channel])).collect();
        let mean_of = |column: &[f64]| column.iter().sum::<f64>() / column.len() as f64;
        let mean = mean_of(&column);
        let squares: Vec<f64> = column.iter().map(|x| x * x).collect();
        let deviations: Vec<f64> = column.iter().map(|x| (x - mean) * (x - mean)).collect();
        Features {
            mean: mean as f32,
            standard_deviation: mean_of(&deviations).sqrt() as f32,
            min: column.iter().copied().reduce(f64::min).unwrap() as f32,
            max: column.iter().copied().reduce(f64::max).unwrap() as f32,
            rms: mean_of(&squares).sqrt() as f32,
        }
    })
}

/// The rule, read off its documentation, over the whole history again for every vote.
fn plain_decisions(votes: &[Vote]) -> Vec<Option<usize>> {
    let mut decisions = vec![];
    for end in 1..=votes.len() {
        let recent = &votes[end.saturating_sub(VOTES)..end];
        let present: Option<usize> = decisions.last().copied().flatten();
        let holds = |label: usize| {
            let keeps = present == Some(label);
            let least = if keeps { RULE.keep_probability } else { RULE.enter_probability };
            let enough = |vote: &Vote| vote.label == label && vote.probability >= least;
            recent.iter().copied().filter(enough).count() >= RULE.votes_needed
        };
        decisions.push((0..2).find(|&label| holds(label)));
    }
    decisions
}

fn bits(window: &[Row]) -> Vec<[u32; 6]> {
    window.iter().map(|row| row.map(f32::to_bits)).collect()
}

/// Samples and labels of the recording; `None`, said aloud in the name of `test`, where the data sets
/// do not lie beside this checkout.
fn recording(test: &str) -> Option<(Vec<Row>, Vec<i32>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/hapt/replay_u01.csv");
    let Ok(text) = fs::read_to_string(&path) else {
        eprintln!("SKIPPED {test}: no data set at {}", path.display());
        return None;
    };
    let mut lines = text.lines();
    let header = lines.next().unwrap();
    assert_eq!(header, format!("{},label", ACCELEROMETER_AND_GYROSCOPE.join(",")));
    let parse = |line: &str| {
        let (values, label) = line.rsplit_once(',').unwrap();
        let values: Vec<f32> = values.split(',').map(|value| value.parse().unwrap()).collect();
        (Row::try_from(values).unwrap(), label.parse::<i32>().unwrap())
    };
    Some(lines.map(parse).unzip())
}
