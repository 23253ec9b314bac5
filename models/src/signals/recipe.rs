//! A recipe for signals, as one TOML file; `[data] kind` says which.
//!
//! As in recipes for texts, paths are relative to the recipe's own folder, a field that is not listed
//! here is an error, and there are no defaults.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::{self, Losses, Soft, Training};
use crate::seed::Random;
use crate::signals::front::Front;
use crate::signals::sizes::{Block, Convolutional};
use crate::signals::vary::{Motion, Picture, Speech};

/// A parsed and checked recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the student, for its graph and its report.
    pub name: String,
    /// Decides every random choice: first weights, varied copies, the order of the examples.
    pub seed: u64,
    /// What is taught.
    pub data: Data,
    /// How many varied copies of it.
    pub copies: Copies,
    /// Who teaches.
    pub teacher: Learner,
    /// Who learns.
    pub student: Learner,
    /// What the student is held to.
    pub losses: Targets,
    /// The file it was read from; relative paths start at its folder.
    #[serde(skip)]
    pub path: PathBuf,
}

/// Labelled signals, and how they may vary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Data {
    /// Windows of a sensor, from NumPy's `.npz`.
    Windows(Windows),
    /// Sound, from a folder of WAV files.
    Sound(Sound),
    /// Images in grey, from IDX files.
    Images(Images),
}

/// `windows` f32 `[count, samples, channels]`, `labels` u8 and `subjects` u8 of one archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// The archive.
    pub file: PathBuf,
    /// Whose work it is and under which licence, for the report.
    pub licence: String,
    /// The names of the labels, in their order.
    pub labels: Vec<String>,
    /// Samples of a window.
    pub samples: usize,
    /// Numbers of a sample.
    pub channels: usize,
    /// Whose windows are measured on and never learned from.
    pub validation_subjects: Vec<u8>,
    /// How copies vary.
    pub vary: Motion,
}

/// Files `{label}_{speaker}_{index}.wav` of one folder, 16 bits, mono.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sound {
    /// The folder.
    pub folder: PathBuf,
    /// Whose work it is and under which licence, for the report.
    pub licence: String,
    /// The names of the labels, in the order of the logits.
    pub labels: Vec<String>,
    /// Samples a second.
    pub rate_hz: usize,
    /// Samples of a recording: longer ones are cut, shorter ones end in silence.
    pub samples: usize,
    /// Samples of a frame of the spectrum.
    pub frame: usize,
    /// Samples from one frame to the next.
    pub hop: usize,
    /// Bands of the spectrum.
    pub bands: usize,
    /// The first and the last index that are measured on and never learned from.
    pub validation_indices: [usize; 2],
    /// How copies vary.
    pub vary: Speech,
}

/// `train-images-idx3-ubyte.gz` and `train-labels-idx1-ubyte.gz` of one folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// The folder.
    pub folder: PathBuf,
    /// Whose work it is and under which licence, for the report.
    pub licence: String,
    /// The names of the labels, in their order.
    pub labels: Vec<String>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// How many of the images, the last ones, are measured on and never learned from.
    pub validation_images: usize,
    /// How copies vary.
    pub vary: Picture,
}

/// Copies of every training example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copies {
    /// Varied copies with the label of their original, for teacher and student.
    pub labelled: usize,
    /// Mixtures of two varied examples, for the student alone: only the teacher knows what they are.
    pub mixed: usize,
}

/// A network and how it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learner {
    /// Its blocks, in order; the front end and the head follow from the data.
    pub blocks: Vec<Block>,
    /// How it is trained.
    pub training: Training,
}

/// Weights of the two terms of the student's loss, and the temperature of the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Divides both sides' logits before the softmax.
    pub temperature: f64,
    /// Weight of the divergence from the teacher's softened distribution.
    pub soft: f64,
    /// Weight of the cross-entropy with the label, for examples that have one.
    pub hard: f64,
}

impl Targets {
    /// The same in the words of recipes for texts.
    pub(crate) fn terms(self) -> Losses {
        let soft = Soft { weight: self.soft, temperature: self.temperature };
        Losses { soft: Some(soft), hard: Some(self.hard), ..Losses::default() }
    }
}

impl Data {
    /// The names of the labels in the order of the logits.
    pub fn labels(&self) -> &[String] {
        match self {
            Data::Windows(Windows { labels, .. })
            | Data::Sound(Sound { labels, .. })
            | Data::Images(Images { labels, .. }) => labels,
        }
    }

    /// Whose work it is and under which licence.
    pub fn licence(&self) -> &str {
        match self {
            Data::Windows(Windows { licence, .. })
            | Data::Sound(Sound { licence, .. })
            | Data::Images(Images { licence, .. }) => licence,
        }
    }

    /// The file or folder that it comes from.
    pub fn place(&self) -> &PathBuf {
        match self {
            Data::Windows(Windows { file, .. }) => file,
            Data::Sound(Sound { folder, .. }) | Data::Images(Images { folder, .. }) => folder,
        }
    }

    /// The front end that a network needs for it.
    pub fn front(&self) -> Front {
        match *self {
            Data::Windows(Windows { samples, channels, .. }) => {
                Front::Windows { samples, channels }
            }
            Data::Sound(Sound { samples, rate_hz, frame, hop, bands, .. }) => {
                Front::Sound { samples, rate_hz, frame, hop, bands }
            }
            Data::Images(Images { height, width, .. }) => Front::Image { height, width },
        }
    }

    /// A varied copy of one example.
    pub(crate) fn vary(&self, example: &[f32], random: &mut Random) -> Vec<f32> {
        match self {
            Data::Windows(Windows { vary, channels, .. }) => vary.vary(example, *channels, random),
            Data::Sound(Sound { vary, .. }) => vary.vary(example, random),
            Data::Images(Images { vary, width, .. }) => vary.vary(example, *width, random),
        }
    }

    /// The first extent out of its range: its field, what is expected, what is there.
    fn fault(&self) -> Option<(&'static str, String, usize)> {
        let extents: Vec<(&'static str, usize, usize, usize)> = match *self {
            Data::Windows(Windows { samples, channels, .. }) => {
                vec![("data.samples", samples, 1, 65_536), ("data.channels", channels, 1, 4096)]
            }
            Data::Sound(Sound { rate_hz, samples, frame, hop, bands, .. }) => vec![
                ("data.rate_hz", rate_hz, 1000, 192_000),
                ("data.samples", samples, 16, 10_000_000),
                ("data.frame", frame, 16, samples.min(16_384)),
                ("data.hop", hop, 1, frame),
                ("data.bands", bands, 1, frame / 2),
            ],
            Data::Images(Images { height, width, .. }) => {
                vec![("data.height", height, 1, 4096), ("data.width", width, 1, 4096)]
            }
        };
        let labels = ("data.labels", self.labels().len(), 2, 255);
        let (field, got, least, most) = std::iter::once(labels)
            .chain(extents)
            .find(|(_, got, least, most)| !(least..=most).contains(&got))?;
        Some((field, format!("{least} to {most}"), got))
    }
}

impl Recipe {
    /// Parses `text` as the recipe that stands at `path`.
    ///
    /// # Errors
    /// [`Error::Recipe`] with line, field and the allowed fields where it does not parse,
    /// [`Error::RecipeValue`] where a value is out of range.
    pub fn parse(text: &str, path: &Path) -> Result<Recipe> {
        let recipe = Recipe { path: path.to_owned(), ..recipe::from_toml(text, path)? };
        recipe.check()?;
        Ok(recipe)
    }

    /// Where a path of the recipe lies, seen from the working directory.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// The sizes of the network that `learner` describes.
    pub(crate) fn sizes(&self, learner: &Learner) -> Convolutional {
        Convolutional {
            front: self.data.front(),
            blocks: learner.blocks.clone(),
            labels: self.data.labels().len(),
        }
    }

    fn check(&self) -> Result<()> {
        let fault = |field, expected: &str, got: String| {
            let (path, expected) = (self.path.clone(), expected.to_owned());
            Err(Error::RecipeValue { path, field, expected, got })
        };
        if let Some((field, expected, got)) = self.data.fault() {
            return fault(field, &expected, got.to_string());
        }
        for (field, learner) in
            [("teacher.blocks", &self.teacher), ("student.blocks", &self.student)]
        {
            if let Some(block) = learner.blocks.iter().find(|block| !block.is_sound()) {
                let expected =
                    "blocks of 1 to 4096 `channels`, odd `kernel` up to 31, `stride` of 1 to 8";
                return fault(field, expected, format!("{block:?}"));
            }
        }
        for (field, learner) in
            [("teacher.training", &self.teacher), ("student.training", &self.student)]
        {
            if let Some((expected, got)) = learner.training.fault() {
                return fault(field, expected, got);
            }
        }
        let Copies { labelled, mixed } = self.copies;
        if labelled > 1000 || mixed > 1000 {
            return fault("copies", "at most 1000 of each", format!("{labelled} and {mixed}"));
        }
        let Targets { temperature, soft, hard } = self.losses;
        if !(0.1..=100.0).contains(&temperature) {
            return fault("losses.temperature", "0.1 to 100", temperature.to_string());
        }
        let sound = [soft, hard].iter().all(|weight| (0.0..=1e6).contains(weight));
        if !sound || soft <= 0.0 {
            let expected = "weights of at least 0, `soft` above it";
            return fault("losses", expected, format!("{soft} and {hard}"));
        }
        Ok(())
    }
}

impl Block {
    fn is_sound(&self) -> bool {
        (1..=4096).contains(&self.channels)
            && self.kernel.iter().all(|extent| extent % 2 == 1 && *extent <= 31)
            && self.stride.iter().all(|step| (1..=8).contains(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> (String, PathBuf) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("recipes/{name}.toml"));
        (std::fs::read_to_string(&path).expect("the recipe is part of the crate"), path)
    }

    #[test]
    fn in_every_recipe_that_comes_along_the_teacher_is_eight_times_as_large() {
        for name in ["activity", "digits", "fashion"] {
            let (text, path) = text(name);
            let recipe = Recipe::parse(&text, &path).expect(name);
            let [teacher, student] = [&recipe.teacher, &recipe.student]
                .map(|learner| recipe.sizes(learner).parameters());
            assert!(teacher >= 8 * student, "{name}: {teacher} and {student}");
            assert!(student < 60_000, "{name}: {student}");
        }
    }

    #[test]
    fn what_is_misspelt_or_out_of_range_is_named() {
        let (text, path) = text("activity");
        for (from, to, expected) in [
            ("rotate_degrees", "rotate_degree", "rotate_degree"),
            ("kernel = [1, 9]", "kernel = [1, 8]", "odd `kernel`"),
            ("channels = 20,", "channels = 0,", "student.blocks"),
            ("samples = 128", "samples = 0", "`data.samples` is 0, expected 1 to 65536"),
            ("soft = 1.0", "soft = 0.0", "`soft` above it"),
            ("temperature = 2.0", "temperature = 0.0", "losses.temperature"),
            ("kind = \"windows\"", "kind = \"smells\"", "smells"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = Recipe::parse(&text.replace(from, to), &path).expect_err(to).to_string();
            assert!(error.contains(expected) && error.contains("activity.toml"), "{to}: {error}");
        }
    }
}
