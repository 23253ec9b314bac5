//! Recordings from a folder of WAV files named `{label}_{speaker}_{index}.wav`.

use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavReader};

use super::{Part, Recorded};
use crate::error::{Error, Result};
use crate::signals::recipe::Sound;

/// The recordings of `folder` in the order of their names, in `[-1, 1)`: cut to the recipe's length,
/// or filled up with silence.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::Signals`] with the first file that is no mono
/// recording of 16 bits at the recipe's rate, or whose name does not say what it is.
pub(super) fn recordings(folder: &Path, recipe: &Sound) -> Result<Vec<Recorded>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.extension().is_some_and(|it| it == "wav") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| recording(path, recipe)).collect()
}

fn recording(path: &PathBuf, recipe: &Sound) -> Result<Recorded> {
    let refuse = |expected: &str, got: String| Error::Signals {
        path: path.clone(),
        expected: expected.to_owned(),
        got,
    };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let named = stem.rsplit_once('_').and_then(|(rest, index)| {
        let (label, _) = rest.rsplit_once('_')?;
        let label = recipe.labels.iter().position(|it| it == label)?;
        Some((label, index.parse::<usize>().ok()?))
    });
    let expected = "a name `{label}_{speaker}_{index}.wav` with a label of the recipe";
    let (label, index) = named.ok_or_else(|| refuse(expected, format!("`{stem}`")))?;
    let broken = |error: hound::Error| refuse("a WAV file", error.to_string());
    let mut reader = WavReader::open(path).map_err(broken)?;
    let spec = reader.spec();
    let given =
        (spec.channels, spec.bits_per_sample, spec.sample_format, spec.sample_rate as usize);
    if given != (1, 16, SampleFormat::Int, recipe.rate_hz) {
        let expected = format!("one channel of 16-bit integers at {} Hz", recipe.rate_hz);
        return Err(refuse(&expected, format!("{given:?}")));
    }
    let samples = reader.samples::<i16>().take(recipe.samples);
    let samples: Result<Vec<f32>, _> =
        samples.map(|sample| sample.map(|it| f32::from(it) / 32_768.0)).collect();
    let mut values = samples.map_err(broken)?;
    values.resize(recipe.samples, 0.0);
    let [from, to] = recipe.validation_indices;
    let part = if (from..=to).contains(&index) { Part::Validation } else { Part::Train };
    Ok(Recorded { values, label, part })
}
