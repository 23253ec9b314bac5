//! What a distillation over signals leaves in its folder.

use burn::tensor::Device;
use dram_runtime::tensor::Tensor;

use super::{Learned, Run, Trained};
use crate::alarms::alarms;
use crate::artefacts::{asked, lines, metrics, terms, trainings};
use crate::curves;
use crate::error::{Error, Result};
use crate::files;
use crate::interface::{Dataset, Student};
use crate::progress::Stage;
use crate::signals::examples::Signals;
use crate::signals::golden::Golden;
use crate::signals::network::Network;
use crate::signals::report::{Data, Model, Report, Seconds};
use crate::stages::json;
use crate::weights::Array;

/// Training recordings that are written out for whoever quantizes the student.
const CALIBRATION: usize = 256;

impl Run<'_> {
    /// Writes every artefact, each whole or not at all.
    ///
    /// # Errors
    /// [`Error::Export`] where the runtime does not give the trainer's logits: then nothing is written.
    pub(super) fn write(&self, learned: &Learned) -> Result<Report> {
        let weights = &learned.student.weights;
        let output = self.stages.output;
        let validation = self.exam.examples();
        let golden = Golden::new(&Network::new(weights, &Device::flex()), validation);
        let onnx = Network::graph(&self.recipe.name, weights, &self.metadata()).to_onnx();
        let path = output.join("checkpoints/student.onnx");
        files::write(&path, &onnx)?;
        golden.check(&path)?;
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        let report = self.report(learned, onnx.len());
        let trainings = trainings([
            (Stage::Teacher, Some(&learned.teacher)),
            (Stage::Student, Some(&learned.student)),
            (Stage::Baseline, learned.baseline.as_ref()),
        ]);
        let measure = self.exam.measure();
        for (name, bytes) in [
            ("student.onnx", onnx),
            ("labels.txt", lines(self.recipe.data.labels())),
            ("golden.json", json(&golden).into_bytes()),
            ("validation.npy", npy(validation, validation.len(), Column::Signals)),
            ("validation.labels.npy", npy(validation, validation.len(), Column::Labels)),
            ("calibration.npy", npy(&self.labelled, CALIBRATION, Column::Signals)),
            ("calibration.labels.npy", npy(&self.labelled, CALIBRATION, Column::Labels)),
            ("metrics.jsonl", metrics(&trainings, measure)),
            ("curves.svg", curves::svg(&trainings, measure).into_bytes()),
            ("report.json", json(&report).into_bytes()),
            ("report.md", report.to_markdown().into_bytes()),
        ] {
            files::write(&output.join(name), &bytes)?;
        }
        Ok(report)
    }

    /// The properties that the model carries with it.
    fn metadata(&self) -> [(&'static str, String); 5] {
        [
            ("dram.recipe", self.recipe.name.clone()),
            ("dram.seed", self.recipe.seed.to_string()),
            ("dram.teacher", "trained by the same recipe, on the same data".to_owned()),
            ("dram.data", self.recipe.data.licence().to_owned()),
            ("dram.losses", terms(&self.recipe.losses.terms())),
        ]
    }

    fn report(&self, learned: &Learned, onnx_bytes: usize) -> Report {
        let model = |trained: &Trained| {
            let sizes = trained.weights.sizes();
            let validation = self.exam.examples();
            let said = asked(&Network::new(&trained.weights, &Device::flex()), validation);
            Model {
                parameters: sizes.parameters(),
                multiply_adds: sizes.multiply_adds(),
                validation: said.accuracy(validation.labels()),
                architecture: sizes.clone(),
            }
        };
        let (teacher, student) = (model(&learned.teacher), model(&learned.student));
        let baseline = learned.baseline.as_ref().map(model);
        let score = student.validation.accuracy;
        let alone = baseline.as_ref().map(|baseline| baseline.validation.accuracy);
        Report {
            recipe: self.recipe.clone(),
            retention: score / teacher.validation.accuracy,
            alarms: alarms(&learned.student.history, score, alone),
            teacher,
            student,
            baseline,
            onnx_bytes,
            data: Data {
                train_examples: self.labelled.recordings(),
                train_blake3: self.train_blake3.clone(),
                validation_examples: self.exam.examples().len(),
                validation_blake3: self.validation_blake3.clone(),
            },
            device: self.options.device,
            seconds: Seconds {
                teacher: learned.teacher.seconds,
                answers: learned.asking,
                student: learned.student.seconds,
                baseline: learned.baseline.as_ref().map(|trained| trained.seconds),
            },
        }
    }
}

/// What an `.npy` file holds of examples.
#[derive(Clone, Copy)]
enum Column {
    Signals,
    Labels,
}

/// So many recordings of `examples`, spread evenly over them, or their labels, as an `.npy` file.
fn npy(examples: &Signals, count: usize, column: Column) -> Vec<u8> {
    let count = count.min(examples.recordings());
    let rows: Vec<usize> = (0..count).map(|row| row * examples.recordings() / count).collect();
    let tensor = match column {
        Column::Signals => {
            let Array { shape, values } = examples.batch(&rows);
            Tensor::from_f32(&shape, &values)
        }
        Column::Labels => {
            let labels: Vec<i64> = rows.iter().map(|&row| examples.labels()[row] as i64).collect();
            Tensor::from_i64(&[count], &labels)
        }
    };
    dram_runtime::npy::to_bytes(&tensor)
}
