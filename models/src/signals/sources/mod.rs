//! Labelled signals from the files that data sets come in.

mod idx;
mod npz;
mod wav;

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::signals::recipe::{Data, Recipe};
use crate::weights::Array;

/// Labelled signals, none varied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recordings {
    /// `[count, ...]`, the shape of an example behind the count.
    pub(crate) signals: Array,
    /// The index of the label of each.
    pub(crate) labels: Vec<usize>,
}

/// What a recipe's data holds.
pub(crate) struct Split {
    pub(crate) train: Recordings,
    pub(crate) validation: Recordings,
}

/// A recording, and whether the recipe measures on it.
struct Recorded {
    values: Vec<f32>,
    label: usize,
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Validation,
}

/// Reads what `recipe` names.
///
/// # Errors
/// [`Error::Io`] or [`Error::Signals`], each with the file.
pub(crate) fn read(recipe: &Recipe) -> Result<Split> {
    let path = |path: &PathBuf| recipe.resolve(path);
    let recorded = match &recipe.data {
        Data::Windows(windows) => npz::windows(&path(&windows.file), windows)?,
        Data::Sound(sound) => wav::recordings(&path(&sound.folder), sound)?,
        Data::Images(images) => idx::images(&path(&images.folder), images)?,
    };
    let shape = recipe.data.front().input();
    let (validation, train): (Vec<_>, Vec<_>) =
        recorded.into_iter().partition(|it| it.part == Part::Validation);
    let split = Split { train: gather(train, &shape), validation: gather(validation, &shape) };
    for (part, recordings) in [("train", &split.train), ("validation", &split.validation)] {
        if recordings.labels.is_empty() {
            return Err(Error::Signals {
                path: path(recipe.data.place()),
                expected: format!("examples for the {part} part that the recipe asks for"),
                got: "none".to_owned(),
            });
        }
    }
    Ok(split)
}

fn gather(recorded: Vec<Recorded>, shape: &[usize]) -> Recordings {
    let labels: Vec<usize> = recorded.iter().map(|it| it.label).collect();
    let values = recorded.into_iter().flat_map(|it| it.values).collect();
    let shape = [&[labels.len()], shape].concat();
    Recordings { signals: Array { shape, values }, labels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::tiny;

    /// Writes a workplace of `kind`, spoils it, and tries to read it.
    fn spoilt(kind: &str, spoil: impl Fn(&std::path::Path)) -> String {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = tiny::workplace(folder.path(), kind);
        let text = std::fs::read_to_string(&path).expect("just written");
        let recipe = Recipe::parse(&text, &path).expect("a good recipe");
        let split = read(&recipe).expect("good data");
        assert_eq!(split.train.labels.len() + split.validation.labels.len(), tiny::EXAMPLES);
        spoil(folder.path());
        read(&recipe).err().expect("spoilt data").to_string()
    }

    #[test]
    fn spoilt_data_of_every_kind_is_refused_with_its_file() {
        let write = |name: &'static str, bytes: &'static [u8]| {
            move |folder: &std::path::Path| {
                std::fs::write(folder.join(name), bytes).expect("a writable folder");
            }
        };
        let images = "train-images-idx3-ubyte.gz";
        for (kind, file, message) in [
            ("windows", "data.npz", spoilt("windows", write("data.npz", b"PK\x05\x06"))),
            ("sound", "low_me_0.wav", spoilt("sound", write("low_me_0.wav", b"RIFF"))),
            ("sound", "noise.wav", spoilt("sound", write("noise.wav", b"RIFF"))),
            ("images", images, spoilt("images", write("train-images-idx3-ubyte.gz", b"\x1f\x8b"))),
        ] {
            assert!(message.contains(file), "{kind}: {message}");
        }
    }
}
