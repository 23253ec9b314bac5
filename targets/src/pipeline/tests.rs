use super::*;
use crate::decision::Rule;
use crate::sensor::{
    Sample,
    replay::{Ended, Replay},
};
use crate::window::OnGap;
use core::convert::Infallible;
use std::{string::ToString, vec, vec::Vec};

const ALL_OF_TWO: Rule = Rule { votes_needed: 2, enter_probability: 0.5, keep_probability: 0.5 };

/// A sensor that gives what the list says, one entry a poll.
struct Script(std::vec::IntoIter<Result<Option<Sample<1>>, &'static str>>);

impl Sensor<1> for Script {
    type Error = &'static str;

    fn sample(&mut self) -> Result<Option<Sample<1>>, &'static str> {
        self.0.next().unwrap_or(Err("the script has ended"))
    }

    fn channels(&self) -> [&'static str; 1] {
        ["x_g"]
    }
}

/// Label 1 where the last value of the window is positive, label 0 otherwise; an error at NaN.
fn sign(window: &[[f32; 1]; 2]) -> Result<Vote, &'static str> {
    let [_, [last]] = *window;
    if last.is_nan() {
        return Err("not a number");
    }
    Ok(Vote { label: usize::from(last > 0.0), probability: 1.0 })
}

type Scripted = Pipeline<Script, fn(&[[f32; 1]; 2]) -> Result<Vote, &'static str>, 1, 2, 1, 2>;

fn scripted(script: Vec<Result<Option<Sample<1>>, &'static str>>) -> Scripted {
    Pipeline::new(
        Script(script.into_iter()),
        Window::new(OnGap::Reset),
        sign,
        Decision::new(ALL_OF_TWO).unwrap(),
    )
}

fn measured(value: f32) -> Result<Option<Sample<1>>, &'static str> {
    Ok(Some([value].into()))
}

fn predicted(label: usize, change: Option<(Option<usize>, Option<usize>)>) -> Step {
    Step::Predicted {
        vote: Vote { label, probability: 1.0 },
        change: change.map(|(from, to)| Change { from, to }),
    }
}

#[test]
fn a_step_polls_once_and_goes_as_far_as_the_sample_leads() {
    let mut pipeline =
        scripted(vec![measured(1.0), Ok(None), measured(2.0), measured(3.0), measured(-1.0)]);
    assert_eq!(pipeline.step(), Ok(Step::Sampled));
    assert_eq!(pipeline.step(), Ok(Step::Idle));
    assert_eq!(pipeline.step(), Ok(predicted(1, None)));
    assert_eq!(pipeline.label(), None);
    assert_eq!(pipeline.step(), Ok(predicted(1, Some((None, Some(1))))));
    assert_eq!(pipeline.label(), Some(1));
    assert_eq!(pipeline.step(), Ok(predicted(0, Some((Some(1), None)))));
    let expected = Counts { samples: 4, windows: 3, ..Counts::default() };
    assert_eq!(pipeline.counts(), expected);
}

#[test]
fn errors_are_given_out_counted_and_survived() {
    let mut pipeline = scripted(vec![
        measured(1.0),
        Err("nack"),
        measured(2.0),
        Err("nack"),
        Err("arbitration lost"),
        measured(f32::NAN),
        measured(3.0),
    ]);
    assert_eq!(pipeline.step(), Ok(Step::Sampled));
    assert_eq!(pipeline.step(), Err(Error::Sensor("nack")));
    assert_eq!(pipeline.step(), Ok(predicted(1, None)));
    assert_eq!(pipeline.step(), Err(Error::Sensor("nack")));
    assert_eq!(pipeline.step(), Err(Error::Sensor("arbitration lost")));
    assert_eq!(pipeline.step(), Err(Error::Predict("not a number")));
    // The failed prediction cast no vote: this is the second for label 1.
    assert_eq!(pipeline.step(), Ok(predicted(1, Some((None, Some(1))))));
    let expected = Counts { samples: 4, lost: 0, windows: 3, sensor_errors: 3, predict_errors: 1 };
    assert_eq!(pipeline.counts(), expected);
}

#[test]
fn losses_of_sensor_and_caller_reset_the_window_and_keep_the_decision() {
    let mut pipeline = scripted(vec![
        measured(1.0),
        measured(1.0),
        measured(1.0),
        Ok(Some(Sample { values: [1.0], lost: 3 })),
        measured(1.0),
        Ok(None),
        measured(1.0),
        measured(1.0),
    ]);
    for _ in 0..3 {
        assert!(pipeline.step().is_ok());
    }
    assert_eq!(pipeline.label(), Some(1));
    assert_eq!(pipeline.step(), Ok(Step::Sampled));
    assert_eq!(pipeline.step(), Ok(predicted(1, None)));
    pipeline.note_lost(1);
    assert_eq!(pipeline.step(), Ok(Step::Idle));
    pipeline.note_lost(u32::MAX);
    assert_eq!(pipeline.step(), Ok(Step::Sampled));
    assert_eq!(pipeline.step(), Ok(predicted(1, None)));
    assert_eq!(pipeline.label(), Some(1));
    assert_eq!(pipeline.counts().lost, 3 + u64::from(u32::MAX));
}

#[test]
fn reset_forgets_samples_and_votes_and_goes_on_counting() {
    let mut pipeline = scripted((0..6).map(|_| measured(1.0)).collect());
    for _ in 0..3 {
        assert!(pipeline.step().is_ok());
    }
    assert_eq!(pipeline.label(), Some(1));
    pipeline.note_lost(9);
    pipeline.reset();
    assert_eq!(pipeline.label(), None);
    assert_eq!(pipeline.step(), Ok(Step::Sampled));
    assert_eq!(pipeline.step(), Ok(predicted(1, None)));
    assert_eq!(pipeline.step(), Ok(predicted(1, Some((None, Some(1))))));
    let expected = Counts { samples: 6, windows: 4, ..Counts::default() };
    assert_eq!(pipeline.counts(), expected);
}

#[test]
fn a_driver_on_a_failing_bus_runs_through_to_a_decision() {
    use crate::sensor::Error as SensorError;
    use crate::sensor::mpu6050::{Address, Config, Mpu6050};
    use embedded_hal::i2c::{ErrorKind, NoAcknowledgeSource};
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

    let nack = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data);
    let ready = || Transaction::write_read(0x68, vec![0x3a], vec![1]);
    let data = || {
        let mut bytes = vec![0; 14];
        bytes[4] = 0x20; // z: 8,192 steps, 1 g at the range of ±4 g
        Transaction::write_read(0x68, vec![0x3b], bytes)
    };
    let transactions = [
        ready(),
        data(),
        ready().with_error(nack),
        ready(),
        data().with_error(nack),
        ready(),
        data(),
    ];
    let sensor = Mpu6050::new(Mock::new(&transactions), Address::Ad0Low, Config::default());
    let upright = |window: &[[f32; 6]; 3]| {
        let up = window.iter().all(|sample| sample[2] == 1.0);
        Ok::<_, Infallible>(Vote { label: usize::from(up), probability: 1.0 })
    };
    let rule = Rule { votes_needed: 1, ..ALL_OF_TWO };
    let mut pipeline = Pipeline::new(
        sensor,
        Window::<6, 3, 1>::new(OnGap::Hold { at_most: 1 }),
        upright,
        Decision::<1>::new(rule).unwrap(),
    );
    assert_eq!(pipeline.step(), Ok(Step::Sampled));
    assert_eq!(pipeline.step(), Err(Error::Sensor(SensorError::Bus(nack))));
    assert_eq!(pipeline.step(), Err(Error::Sensor(SensorError::Bus(nack))));
    // One sample fell to the second error; it is held, so three are together.
    assert_eq!(pipeline.step(), Ok(predicted(1, Some((None, Some(1))))));
    let expected = Counts { samples: 2, lost: 1, windows: 1, sensor_errors: 2, predict_errors: 0 };
    assert_eq!(pipeline.counts(), expected);
    pipeline.release().release().done();
}

#[test]
fn a_replay_ends_in_an_error_that_stays() {
    let sensor = Replay::new([[1.0], [1.0]], ["x_g"]);
    let window = Window::<1, 2, 1>::new(OnGap::Reset);
    let decision = Decision::<2>::new(ALL_OF_TWO).unwrap();
    let mut pipeline = Pipeline::new(sensor, window, sign, decision);
    assert_eq!(pipeline.step(), Ok(Step::Sampled));
    assert_eq!(pipeline.step(), Ok(predicted(1, None)));
    assert_eq!(pipeline.step(), Err(Error::Sensor(Ended)));
    assert_eq!(pipeline.step(), Err(Error::Sensor(Ended)));
    assert_eq!(Error::<_, Ended>::Sensor(Ended).to_string(), "no sample: the recording has ended");
}
