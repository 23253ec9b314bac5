//! What somebody is doing: an activity student over an MPU-6050 on a Linux board, or over a recording.
//!
//! ```console
//! $ cargo run --release --example activity -- models/zoo/activity.dram --replay RECORDING.csv
//! $ cargo build --release -p dram-cli --features i2c --example activity
//! $ activity activity.dram --bus /dev/i2c-1
//! ```
//!
//! The second line builds it for a board (`--target` names which), the third runs it there. A recording
//! has a header with the six channels, then one sample a line, 50 a second. A column `label` behind them
//! numbers the activities from 1, in the order of the model's labels; any other number is none of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use dram_runtime::graph::Dim;
use dram_runtime::{Budget, DType, Options, Session, Tensor};
use dram_targets::decision::{Decision, Rule, Vote};
use dram_targets::pipeline::{Error, Pipeline, Step};
use dram_targets::sensor::ACCELEROMETER_AND_GYROSCOPE as CHANNELS;
use dram_targets::sensor::replay::{Ended, Replay};
use dram_targets::window::{OnGap, Window};

/// Samples a second, of the recording, of the sensor, and of what the student was trained on.
const RATE_HZ: f64 = 50.0;
/// Samples of a window, 2.56 s.
const LEN: usize = 128;
/// Samples from one window to the next.
const HOP: usize = LEN / 2;
/// Windows that a decision looks at.
const VOTES: usize = 3;

/// Say what somebody is doing, from the motion of a sensor or of a recording
#[derive(Debug, Parser)]
struct Arguments {
    /// A bundle that takes windows `[batch, 128, 6]` and gives labels
    student: PathBuf,

    /// Play this recording instead of reading a sensor
    #[arg(long, value_name = "FILE.csv")]
    replay: Option<PathBuf>,

    /// The I2C bus that an MPU-6050 is on, with its AD0 pin low
    #[arg(long, value_name = "DEVICE", default_value = "/dev/i2c-1")]
    bus: PathBuf,

    /// Refuse to take more RAM than this
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    ram: Budget,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let student = Student::open(&arguments.student, arguments.ram)?;
    match &arguments.replay {
        Some(recording) => replay(&Recording::read(recording)?, &student),
        None => watch(&arguments.bus, &student),
    }
}

/// Prints what each window of the recording was taken for, and at the end how often that was right.
fn replay(recording: &Recording, student: &Student) -> Result<()> {
    let sensor = Replay::new(recording.samples.iter().copied(), CHANNELS);
    let predict = |window: &_| student.vote(window);
    let mut pipeline = Pipeline::new(sensor, window(), predict, decision()?);
    let (mut known, mut right_votes, mut right_decisions) = (0, 0, 0);
    loop {
        match pipeline.step() {
            Ok(Step::Predicted { vote, .. }) => {
                let end = pipeline.counts().samples as usize;
                let truth = recording.activity(end - LEN..end);
                println!(
                    "{:7.2} s  {:<11}{:5.1} %  decided {:<11}{}",
                    end as f64 / RATE_HZ,
                    student.label(Some(vote.label)),
                    100.0 * vote.probability,
                    student.label(pipeline.label()),
                    truth.map_or(String::new(), |it| format!("truly {}", student.label(Some(it)))),
                );
                known += usize::from(truth.is_some());
                right_votes += usize::from(truth == Some(vote.label));
                right_decisions += usize::from(truth.is_some() && truth == pipeline.label());
            }
            Ok(Step::Idle | Step::Sampled) => {}
            Err(Error::Sensor(Ended)) => break,
            Err(error) => bail!("{error}"),
        }
    }
    let percent = |right: usize| 100.0 * right as f64 / known.max(1) as f64;
    println!("{known} of {} windows lie in one activity", pipeline.counts().windows);
    println!(
        "accuracy {:.1} %, of decisions {:.1} %",
        percent(right_votes),
        percent(right_decisions)
    );
    Ok(())
}

/// Prints each change of the decision, for as long as it runs.
#[cfg(feature = "i2c")]
fn watch(bus: &Path, student: &Student) -> Result<()> {
    use dram_targets::sensor::mpu6050::{Address, Config, Mpu6050};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    let period = Duration::from_secs_f64(1.0 / RATE_HZ);
    let i2c = linux_embedded_hal::I2cdev::new(bus);
    let i2c = i2c.with_context(|| format!("cannot open `{}`", bus.display()))?;
    let mut sensor = Mpu6050::new(i2c, Address::Ad0Low, Config::default());
    sensor.start()?;
    let predict = |window: &_| student.vote(window);
    let mut pipeline = Pipeline::new(sensor, window(), predict, decision()?);
    let mut polled = Instant::now();
    loop {
        // The sensor holds one sample: of those that came while nobody looked, all but the last are gone.
        let passed = polled.elapsed().as_nanos() / period.as_nanos();
        pipeline.note_lost(u32::try_from(passed.saturating_sub(1)).unwrap_or(u32::MAX));
        polled = Instant::now();
        match pipeline.step() {
            Ok(Step::Idle) => sleep(period / 10),
            Ok(Step::Sampled | Step::Predicted { change: None, .. }) => {}
            Ok(Step::Predicted { change: Some(change), .. }) => {
                println!("{}", student.label(change.to));
            }
            Err(error) => {
                eprintln!("{error}");
                sleep(Duration::from_secs(1));
                // A sensor that lost its power has lost its settings too. Where it does not answer yet,
                // the next step says so.
                let _ = pipeline.sensor_mut().start();
            }
        }
    }
}

#[cfg(not(feature = "i2c"))]
fn watch(_: &Path, _: &Student) -> Result<()> {
    bail!("built without I2C: give `--replay FILE.csv`, or build it with `--features i2c`")
}

/// Up to a tenth of a second of lost samples is bridged.
fn window() -> Window<6, LEN, HOP> {
    Window::new(OnGap::Interpolate { at_most: 5 })
}

/// Two of three windows must agree.
fn decision() -> Result<Decision<VOTES>> {
    Ok(Decision::new(Rule { votes_needed: 2, enter_probability: 0.6, keep_probability: 0.5 })?)
}

/// A session that takes windows.
struct Student {
    session: Session,
    input: String,
}

impl Student {
    fn open(path: &Path, budget: Budget) -> Result<Student> {
        let session = Session::open(path, &Options { budget, ..Options::default() })?;
        let input = match session.inputs() {
            [input] if input.dtype == DType::F32 => input.clone(),
            _ => bail!("`{}` does not take one tensor of f32", path.display()),
        };
        let shape = [Dim::Fixed(LEN), Dim::Fixed(CHANNELS.len())];
        ensure!(
            input.shape.len() == 3
                && input.shape[1..] == shape
                && !session.manifest().labels.is_empty(),
            "`{}` takes {input}, expected windows [batch, {LEN}, 6] and labels",
            path.display()
        );
        Ok(Student { session, input: input.name })
    }

    fn vote(&self, window: &[[f32; 6]; LEN]) -> Result<Vote> {
        let window = Tensor::from_f32(&[1, LEN, 6], window.as_flattened());
        let scores = self.session.scores_of(&BTreeMap::from([(self.input.clone(), window)]))?;
        Vote::of(&scores).context("the student gives no numbers for this window")
    }

    fn label(&self, label: Option<usize>) -> &str {
        let labels = &self.session.manifest().labels;
        label.and_then(|label| labels.get(label)).map_or("nothing", String::as_str)
    }
}

/// Samples, and beside each the activity it belongs to, where that is known.
struct Recording {
    samples: Vec<[f32; 6]>,
    activities: Vec<Option<usize>>,
}

impl Recording {
    fn read(path: &Path) -> Result<Recording> {
        let place = |line: usize| format!("`{}` line {line}", path.display());
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        let channels = CHANNELS.join(",");
        ensure!(
            header == channels || header == format!("{channels},label"),
            "{}: the header is `{header}`, expected `{channels}`, and `,label` where it is known",
            place(1)
        );
        let columns = header.split(',').count();
        let mut recording = Recording { samples: Vec::new(), activities: Vec::new() };
        for (index, line) in lines.enumerate() {
            let values: Result<Vec<f32>, _> = line.split(',').map(str::parse).collect();
            let values = values.with_context(|| place(index + 2))?;
            ensure!(values.len() == columns, "{}: expected {columns} columns", place(index + 2));
            let (sample, label) = values.split_at(CHANNELS.len());
            recording.samples.push(std::array::from_fn(|channel| sample[channel]));
            let label = label.first().filter(|label| **label >= 1.0);
            recording.activities.push(label.map(|label| *label as usize - 1));
        }
        Ok(recording)
    }

    /// The activity of all of `samples`; `None` where they differ.
    fn activity(&self, samples: Range<usize>) -> Option<usize> {
        let (first, rest) = self.activities[samples].split_first()?;
        rest.iter().all(|activity| activity == first).then_some(*first)?
    }
}
