//! Texts from files: labelled ones, plain sentences, scored pairs.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::seed::Random;

/// Texts and the label of each, in file order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Labelled {
    pub(crate) texts: Vec<String>,
    pub(crate) labels: Vec<String>,
}

/// Pairs of sentences and how alike each is.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Pairs {
    pub(crate) first: Vec<String>,
    pub(crate) second: Vec<String>,
    pub(crate) scores: Vec<f32>,
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

/// `examples` as [`read`] takes them.
pub(crate) fn tsv(examples: &Labelled) -> Vec<u8> {
    let lines = examples.texts.iter().zip(&examples.labels);
    let lines = lines.map(|(text, label)| format!("{text}\t{label}\n"));
    std::iter::once("text\tlabel\n".to_owned()).chain(lines).collect::<String>().into_bytes()
}

/// Reads the scored pairs at `path`, as `dram eval` takes them.
///
/// # Errors
/// [`Error::Pairs`] where they do not read.
pub(crate) fn read_pairs(path: &Path) -> Result<Pairs> {
    use dram_runtime::evaluate::Examples;
    let fault = |reason: String| Error::Pairs { path: path.to_owned(), reason };
    match Examples::read(path).map_err(|error| fault(error.to_string()))? {
        Examples::Pairs(pairs) => {
            let mut read = Pairs::default();
            for (first, second, score) in pairs {
                read.first.push(first);
                read.second.push(second);
                read.scores.push(score);
            }
            Ok(read)
        }
        _ => Err(fault("it holds no columns `sentence1`, `sentence2` and `score`".to_owned())),
    }
}

/// The sentences of the file at `path`, in its order: its lines; or, where the first line is a header with
/// tabs, what stands in the columns `text`, `sentence`, `sentence1` and `sentence2`. Empty ones are left
/// out.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::Data`] where there is none.
pub(crate) fn sentences(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let header = text.lines().next().unwrap_or_default();
    let known = ["text", "sentence", "sentence1", "sentence2"];
    let columns: Vec<usize> = match header.contains('\t') {
        true => (0..).zip(header.split('\t')).filter(|(_, n)| known.contains(n)).map(|(i, _)| i),
        false => return some(path, text.lines().map(str::to_owned).collect()),
    }
    .collect();
    let cells = |line: &str| -> Vec<String> {
        let cells: Vec<&str> = line.split('\t').collect();
        columns.iter().filter_map(|&column| cells.get(column)).map(|s| (*s).to_owned()).collect()
    };
    some(path, text.lines().skip(1).flat_map(cells).collect())
}

fn some(path: &Path, mut sentences: Vec<String>) -> Result<Vec<String>> {
    sentences.retain(|sentence| !sentence.trim().is_empty());
    match sentences.is_empty() {
        false => Ok(sentences),
        true => Err(Error::Data {
            path: path.to_owned(),
            line: 1,
            expected: "sentences, one a line, or a column `text`, `sentence1` or `sentence2`"
                .to_owned(),
            got: "none".to_owned(),
        }),
    }
}

/// A sentence as it is compared with others: words alone, in lower case.
pub(crate) fn bare(sentence: &str) -> String {
    let words = sentence.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// `sentences` without those that are, bare, among `held_out`, or were there before; and how many were
/// held out.
pub(crate) fn without(
    sentences: Vec<String>,
    held_out: &BTreeSet<String>,
    seen: &mut BTreeSet<String>,
) -> (Vec<String>, usize) {
    let mut left_out = 0;
    let mut kept = sentences;
    kept.retain(|sentence| {
        let bare = bare(sentence);
        let held = held_out.contains(&bare);
        left_out += usize::from(held);
        !held && seen.insert(bare)
    });
    (kept, left_out)
}

/// Up to `count` of `items`, drawn by `random`, in the order in which they stood.
pub(crate) fn draw<T>(items: Vec<T>, count: usize, random: &mut Random) -> Vec<T> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    random.shuffle(&mut order);
    let chosen: BTreeSet<usize> = order.into_iter().take(count).collect();
    (0..).zip(items).filter(|(place, _)| chosen.contains(place)).map(|(_, item)| item).collect()
}

/// Holds `count` of `examples` out, drawn by the seed; the rest is what remains without any text that is a
/// part of a held-out one or has one as a part: data sets that hold phrases beside their sentences (SST-2)
/// would otherwise give the answers away.
pub(crate) fn hold_out(examples: Labelled, count: usize, random: &mut Random) -> [Labelled; 2] {
    let mut order: Vec<usize> = (0..examples.texts.len()).collect();
    random.shuffle(&mut order);
    // Whole sentences end in a full stop where phrases do not; the longest of two is the sentence.
    order.sort_by_key(|&row| !examples.texts[row].trim_end().ends_with('.'));
    let held: BTreeSet<usize> = order.into_iter().take(count).collect();
    let framed = |row: usize| format!(" {} ", bare(&examples.texts[row]));
    let held_texts: Vec<String> = held.iter().map(|&row| framed(row)).collect();
    let free = |row: &usize| {
        let text = framed(*row);
        !held.contains(row)
            && !held_texts.iter().any(|held| held.contains(&text) || text.contains(held.as_str()))
    };
    let rest: Vec<usize> = (0..examples.texts.len()).filter(free).collect();
    [rest, held.iter().copied().collect()].map(|rows| Labelled {
        texts: rows.iter().map(|&row| examples.texts[row].clone()).collect(),
        labels: rows.iter().map(|&row| examples.labels[row].clone()).collect(),
    })
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

    fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("data.tsv");
        std::fs::write(&path, text).expect("a writable folder");
        (folder, path)
    }

    fn read_text(text: &str) -> Result<Labelled> {
        let (_folder, path) = written(text);
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

    #[test]
    fn sentences_are_lines_or_the_text_columns_of_a_table() {
        for (text, expected) in [
            ("one\n\ntwo\n", &["one", "two"][..]),
            ("text\tlabel\na b\tx\nc\ty\n", &["a b", "c"]),
            ("score\tsentence1\tsentence2\n1\tp\tq\n2\tr\ts\n", &["p", "q", "r", "s"]),
        ] {
            let (_folder, path) = written(text);
            assert_eq!(sentences(&path).expect("sentences"), expected);
        }
        let (_folder, path) = written("a\tb\n1\t2\n");
        assert!(sentences(&path).expect_err("none").to_string().contains("column"));
    }

    #[test]
    fn held_out_sentences_and_repetitions_are_left_out_however_they_are_written() {
        let held = BTreeSet::from([bare("A cat sat.")]);
        let texts = ["a cat  sat", "A dog ran!", "a dog ran", "new"].map(str::to_owned).into();
        let (kept, left_out) = without(texts, &held, &mut BTreeSet::new());
        assert_eq!((kept, left_out), (vec!["A dog ran!".to_owned(), "new".to_owned()], 1));
    }

    #[test]
    fn parts_of_held_out_texts_are_not_learned_from() {
        let texts = ["a very good film .", "good film", "very bad", "film", "bad"];
        let labels = ["p", "p", "n", "n", "n"].map(str::to_owned).into();
        let examples = Labelled { texts: texts.map(str::to_owned).into(), labels };
        let [rest, held] = hold_out(examples, 1, &mut Random::new(1, "test", 0));
        assert_eq!(held.texts, ["a very good film ."]);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), tsv(&held)).expect("it is written");
        assert_eq!(read(file.path()).expect("as it was written"), held);
        assert_eq!(rest.texts, ["very bad", "bad"]);
        assert_eq!(rest.labels, ["n", "n"]);
    }

    #[test]
    fn a_draw_keeps_the_order_and_depends_on_the_seed() {
        let draw = |seed| draw((0..100).collect(), 10, &mut Random::new(seed, "test", 0));
        assert!(draw(1).is_sorted() && draw(1).len() == 10);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
