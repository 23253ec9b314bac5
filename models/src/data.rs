//! Labelled texts from a TSV file.

use std::path::Path;

use crate::error::{Error, Result};

/// Texts and the label of each, in file order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Labelled {
    pub(crate) texts: Vec<String>,
    pub(crate) labels: Vec<String>,
}

/// Reads the TSV at `path`: the header `text<TAB>label`, then one example a line.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::Data`] with the first line that is no example.
pub(crate) fn read(path: &Path) -> Result<Labelled> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let fault = |line: usize, expected: &str, got: &str| Error::Data {
        path: path.to_owned(),
        line,
        expected: expected.to_owned(),
        got: format!("`{got}`"),
    };
    let mut lines = text.lines().enumerate();
    match lines.next() {
        Some((_, "text\tlabel")) => {}
        header => {
            let got = header.map_or("", |(_, line)| line);
            return Err(fault(1, "the header `text<TAB>label`", got));
        }
    }
    let mut examples = Labelled::default();
    for (index, line) in lines {
        match line.split_once('\t') {
            Some((text, label)) if !label.is_empty() && !label.contains('\t') => {
                examples.texts.push(text.to_owned());
                examples.labels.push(label.to_owned());
            }
            _ => return Err(fault(index + 1, "a text, a tab and a label", line)),
        }
    }
    match examples.texts.len() {
        0 => Err(fault(2, "at least one example", "")),
        _ => Ok(examples),
    }
}

/// The distinct labels in byte order: the order of the logits.
pub(crate) fn label_names(examples: &Labelled) -> Vec<String> {
    let mut names = examples.labels.clone();
    names.sort_unstable();
    names.dedup();
    names
}

/// The position of each example's label in `names`, which is sorted.
///
/// # Errors
/// [`Error::Data`] with the first label that `names` lacks; `path` is where `examples` came from.
pub(crate) fn label_indices(
    examples: &Labelled,
    names: &[String],
    path: &Path,
) -> Result<Vec<usize>> {
    let index = |(row, label): (usize, &String)| {
        names.binary_search(label).map_err(|_| Error::Data {
            path: path.to_owned(),
            line: row + 2,
            expected: "a label that the training data has".to_owned(),
            got: format!("`{label}`"),
        })
    };
    examples.labels.iter().enumerate().map(index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Labelled> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("data.tsv");
        std::fs::write(&path, text).expect("a writable folder");
        read(&path)
    }

    #[test]
    fn labels_are_numbered_in_byte_order() {
        let examples = read_text("text\tlabel\nhi\tgreet\nbye\tbid\nhello\tgreet\n").expect("good");
        let names = label_names(&examples);
        assert_eq!(names, ["bid", "greet"]);
        let indices = label_indices(&examples, &names, Path::new("x")).expect("all known");
        assert_eq!(indices, [1, 0, 1]);
    }

    #[test]
    fn every_malformed_line_is_refused_with_its_number() {
        for (text, line) in [
            ("", 1),
            ("label\ttext\nx\ty\n", 1),
            ("text\tlabel\n", 2),
            ("text\tlabel\nno tab\n", 2),
            ("text\tlabel\na\tb\nc\t\n", 3),
            ("text\tlabel\na\tb\tc\n", 2),
        ] {
            let message = read_text(text).expect_err(text).to_string();
            assert!(message.contains(&format!("line {line}:")), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_validation_label_without_training_examples_is_refused() {
        let examples = read_text("text\tlabel\nhi\tgreet\n").expect("good");
        let error = label_indices(&examples, &["bid".to_owned()], Path::new("val.tsv"));
        assert!(error.expect_err("unknown").to_string().contains("`greet`"));
    }
}
