//! Inputs to run a model on: texts, tensors from files, or generated ones.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::evaluate::{Examples, Row, Table};
use crate::npy;
use crate::session::Session;
use crate::tensor::Tensor;

/// Inputs without what they should give.
#[derive(Clone, Debug)]
pub enum Samples {
    /// Texts, which the model's tokenizer turns into ids.
    Texts(Vec<String>),
    /// The graph's inputs by name, each with a leading batch of one.
    Tensors(Vec<BTreeMap<String, Tensor>>),
    /// What goes into a model with one input, each with a leading batch of one.
    Windows(Vec<Tensor>),
    /// The session's own example for each planned length.
    Generated,
}

impl From<Examples> for Samples {
    /// What goes in, in order; of a pair of texts one after the other.
    fn from(examples: Examples) -> Samples {
        match examples {
            Examples::Labelled(examples) => {
                Samples::Texts(examples.into_iter().map(|(text, _)| text).collect())
            }
            Examples::Pairs(examples) => {
                let texts = examples.into_iter().flat_map(|(first, second, _)| [first, second]);
                Samples::Texts(texts.collect())
            }
            Examples::Tensors(examples) => {
                Samples::Windows(examples.into_iter().map(|(window, _)| window).collect())
            }
        }
    }
}

impl Samples {
    /// Reads the rows of a `.npy` `[examples, ..]`; or the texts of a table with a column `text`, or
    /// `sentence1` and `sentence2`; or a folder with one file `NAME.npy` for each input, `[examples, ..]`.
    /// Labels, where there are any, are not looked at.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where a file does not read, or the files of a folder hold
    /// different numbers of examples.
    pub fn read(path: &Path) -> Result<Samples> {
        if !path.is_dir() {
            return match path.extension().is_some_and(|extension| extension == "npy") {
                true => Ok(Samples::Windows(rows(&npy::read(path)?)?)),
                false => Samples::read_table(path),
            };
        }
        let mut samples: Option<Vec<BTreeMap<String, Tensor>>> = None;
        for entry in std::fs::read_dir(path).map_err(Error::io("read", path))? {
            let file = entry.map_err(Error::io("read", path))?.path();
            let Some(name) = file.file_stem().and_then(|name| name.to_str()) else { continue };
            if file.extension().is_none_or(|extension| extension != "npy") {
                continue;
            }
            let rows = rows(&npy::read(&file)?)?;
            let samples = samples.get_or_insert_with(|| vec![BTreeMap::new(); rows.len()]);
            if samples.len() != rows.len() {
                return Err(Error::Data {
                    path: file.clone(),
                    place: "first axis".to_owned(),
                    expected: format!("{} examples, as in the files beside it", samples.len()),
                    got: rows.len().to_string(),
                });
            }
            samples.iter_mut().zip(rows).for_each(|(sample, row)| {
                sample.insert(name.to_owned(), row);
            });
        }
        match samples.filter(|samples| !samples.is_empty()) {
            Some(samples) => Ok(Samples::Tensors(samples)),
            None => Err(Error::Data {
                path: path.to_owned(),
                place: "folder".to_owned(),
                expected: "a file `NAME.npy` for each input".to_owned(),
                got: "none with an example".to_owned(),
            }),
        }
    }

    fn read_table(path: &Path) -> Result<Samples> {
        let table = Table::read(path)?;
        let columns = [table.column("text"), table.column("sentence1"), table.column("sentence2")];
        let texts = match columns {
            [Some(text), ..] => vec![text],
            [None, Some(first), Some(second)] => vec![first, second],
            _ => {
                let expected = "a column `text`, or `sentence1` and `sentence2`";
                return Err(table.refuse(0, expected, "others"));
            }
        };
        let of_row =
            |row: &Row| texts.iter().map(|&text| row.fields[text].clone()).collect::<Vec<_>>();
        Ok(Samples::Texts(table.rows.iter().flat_map(of_row).collect()))
    }

    /// At most `most` inputs for the model of `session`.
    ///
    /// # Errors
    /// [`Error::Missing`] where texts are given and the model has no tokenizer, or inputs are to be
    /// generated and it has no planned shape; [`Error::Tokenizer`].
    pub(crate) fn inputs(
        &self,
        session: &Session,
        most: usize,
    ) -> Result<Vec<BTreeMap<String, Tensor>>> {
        match self {
            Samples::Texts(texts) => {
                let inputs = texts.iter().take(most).map(|text| session.text_inputs(text));
                inputs.map(|inputs| Ok(inputs?.into_iter().collect())).collect()
            }
            Samples::Tensors(samples) => Ok(samples.iter().take(most).cloned().collect()),
            Samples::Windows(windows) => {
                let [input] = session.inputs() else {
                    return Err(Error::Missing {
                        what: "name for each input",
                        next: "give a folder with a file `NAME.npy` for each input of the model",
                    });
                };
                let sample = |window: &Tensor| [(input.name.clone(), window.clone())].into();
                Ok(windows.iter().take(most).map(sample).collect())
            }
            Samples::Generated if !session.has_example() => Err(Error::Missing {
                what: "planned shape",
                next: "give it data, or pack it with `--shape`",
            }),
            Samples::Generated => {
                let lengths = match &session.manifest().sequences[..] {
                    [] => &[1][..],
                    lengths => lengths,
                };
                Ok(lengths.iter().take(most).map(|&length| session.example(length)).collect())
            }
        }
    }
}

/// Each element of the first axis as a tensor with a leading one.
fn rows(tensor: &Tensor) -> Result<Vec<Tensor>> {
    let Some((&count, rest)) = tensor.shape().split_first().filter(|_| !tensor.is_empty()) else {
        return Ok(Vec::new());
    };
    let shape: Vec<usize> = std::iter::once(1).chain(rest.iter().copied()).collect();
    let rows = tensor.bytes().chunks_exact(tensor.bytes().len() / count);
    rows.map(|row| Tensor::from_bytes(tensor.dtype(), &shape, row.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_a_file_for_each_input_and_a_row_for_each_example() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, shape: &[usize], values: &[f32]| {
            npy::write(&folder.path().join(name), &Tensor::from_f32(shape, values)).unwrap();
        };
        assert!(Samples::read(folder.path()).is_err(), "an empty folder");
        write("a.npy", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        write("b.npy", &[2], &[7.0, 8.0]);
        let Samples::Tensors(samples) = Samples::read(folder.path()).unwrap() else { panic!() };
        assert_eq!(samples[1]["a"], Tensor::from_f32(&[1, 3], &[4.0, 5.0, 6.0]));
        assert_eq!(samples[0]["b"], Tensor::from_f32(&[1], &[7.0]));
        write("c.npy", &[1], &[9.0]);
        assert!(Samples::read(folder.path()).is_err(), "another number of examples");
    }
}
