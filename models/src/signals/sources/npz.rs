//! Windows from NumPy's `.npz`: a zip archive with one `.npy` an array (APPNOTE 6.3.10, sections 4.3
//! and 4.4). Read are stored and deflated entries; encrypted archives and those of more than 4 GiB are
//! refused.

use std::io::Read;
use std::path::Path;

use dram_runtime::tensor::{DType, Tensor};
use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::{Part, Recorded};
use crate::error::{Error, Result};
use crate::signals::recipe::Windows;

/// The windows of the archive at `path`: `windows` f32 `[count, samples, channels]`, `labels` u8
/// `[count]`, `subjects` u8 `[count]`.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::Signals`] where it is no such archive.
pub(super) fn windows(path: &Path, recipe: &Windows) -> Result<Vec<Recorded>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let refuse = |expected: &str, got: String| Error::Signals {
        path: path.to_owned(),
        expected: expected.to_owned(),
        got,
    };
    let array = |name: &str| array(&bytes, name, path);
    let (windows, labels, subjects) = (array("windows")?, array("labels")?, array("subjects")?);
    let shape = format!("`windows` f32 [count, {}, {}]", recipe.samples, recipe.channels);
    let (count, values) = match (windows.shape(), windows.to_f32()) {
        (&[count, samples, channels], Some(values))
            if [samples, channels] == [recipe.samples, recipe.channels] =>
        {
            (count, values)
        }
        (got, _) => return Err(refuse(&shape, format!("{} {got:?}", windows.dtype()))),
    };
    for (name, array) in [("labels", &labels), ("subjects", &subjects)] {
        if array.dtype() != DType::U8 || array.shape() != [count] {
            let got = format!("{} {:?}", array.dtype(), array.shape());
            return Err(refuse(&format!("`{name}` u8 [{count}]"), got));
        }
    }
    if let Some(label) = labels.bytes().iter().find(|&&it| usize::from(it) >= recipe.labels.len()) {
        let expected = format!("labels below {}, one for each name", recipe.labels.len());
        return Err(refuse(&expected, label.to_string()));
    }
    let each = values.chunks(recipe.samples * recipe.channels).zip(labels.bytes());
    let recorded = each.zip(subjects.bytes()).map(|((window, label), subject)| Recorded {
        values: window.to_vec(),
        label: usize::from(*label),
        part: match recipe.validation_subjects.contains(subject) {
            true => Part::Validation,
            false => Part::Train,
        },
    });
    Ok(recorded.collect())
}

/// The array `name` of the archive `bytes`, which lies at `path`.
fn array(bytes: &[u8], name: &str, path: &Path) -> Result<Tensor> {
    let refuse = |(expected, got): Refusal| Error::Signals {
        path: path.to_owned(),
        expected: expected.to_owned(),
        got,
    };
    let array = entry(bytes, &format!("{name}.npy")).map_err(refuse)?;
    dram_runtime::npy::from_bytes(&array, path)
        .map_err(|error| refuse(("an array that `numpy.save` wrote", error.to_string())))
}

type Refusal = (&'static str, String);

/// The contents of the entry `name`.
fn entry(archive: &[u8], name: &str) -> Result<Vec<u8>, Refusal> {
    let cut = || ("the whole of a zip archive", format!("{} bytes", archive.len()));
    let word = |at: usize| le(archive, at, 2).ok_or_else(cut);
    let double = |at: usize| le(archive, at, 4).ok_or_else(cut);
    // The end record has 22 bytes and a comment of at most 65,535.
    let last = archive.len().checked_sub(22).ok_or_else(cut)?;
    let end = (last.saturating_sub(65_535)..=last)
        .rev()
        .find(|&at| archive[at..].starts_with(b"PK\x05\x06"))
        .ok_or(("a zip archive, as `numpy.savez` writes it", "another file".to_owned()))?;
    let mut at = double(end + 16)?;
    for _ in 0..word(end + 10)? {
        if !archive.get(at..).is_some_and(|rest| rest.starts_with(b"PK\x01\x02")) {
            return Err(("an entry of the archive's directory", format!("none at byte {at}")));
        }
        let [name_len, extra_len, comment_len] = [word(at + 28)?, word(at + 30)?, word(at + 32)?];
        if archive.get(at + 46..at + 46 + name_len) == Some(name.as_bytes()) {
            let header = Header {
                flags: word(at + 8)?,
                method: word(at + 10)?,
                crc: double(at + 16)?,
                packed: double(at + 20)?,
                size: double(at + 24)?,
            };
            let local = double(at + 42)?;
            let start = local + 30 + word(local + 26)? + word(local + 28)?;
            let packed = archive.get(start..start + header.packed).ok_or_else(cut)?;
            return header.unpack(packed);
        }
        at += 46 + name_len + extra_len + comment_len;
    }
    Err(("arrays `windows`, `labels` and `subjects`", format!("none named `{name}`")))
}

/// What the directory says about an entry.
struct Header {
    flags: usize,
    method: usize,
    crc: usize,
    packed: usize,
    size: usize,
}

impl Header {
    fn unpack(&self, packed: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut contents = Vec::new();
        // One byte more than said is enough to know that there are more.
        let limit = self.size as u64 + 1;
        let read = match (self.flags & 1, self.method) {
            (0, 0) => packed.take(limit).read_to_end(&mut contents),
            (0, 8) => DeflateDecoder::new(packed).take(limit).read_to_end(&mut contents),
            (flags, method) => {
                let got = format!("compression method {method}, encryption {flags}");
                return Err(("a stored or deflated entry in the clear", got));
            }
        };
        read.map_err(|error| ("a whole deflated entry", error.to_string()))?;
        let mut crc = Crc::new();
        crc.update(&contents);
        if contents.len() != self.size || crc.sum() as usize != self.crc {
            let got = format!("{} bytes with CRC {:08x}", contents.len(), crc.sum());
            return Err(("the bytes and the CRC that the archive's directory names", got));
        }
        Ok(contents)
    }
}

/// The little-endian number of `count` bytes at `at`; `None` beyond the end.
fn le(bytes: &[u8], at: usize, count: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(count)?)?;
    Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::tiny;

    #[test]
    fn a_cut_or_altered_archive_is_refused_at_every_byte() {
        let archive = tiny::zip(&[("a.npy", b"twelve bytes".to_vec()), ("b.npy", vec![7; 9])]);
        assert_eq!(entry(&archive, "b.npy").expect("a whole archive"), [7; 9]);
        for end in 0..archive.len() {
            assert!(entry(&archive[..end], "a.npy").is_err(), "cut at byte {end}");
        }
        let place = archive.windows(6).position(|it| it == b"twelve").expect("stored");
        let altered = [&archive[..place], b"t", &archive[place + 1..]].concat();
        assert!(entry(&altered, "a.npy").is_ok(), "the same byte again");
        let altered = [&archive[..place], b"x", &archive[place + 1..]].concat();
        let (_, got) = entry(&altered, "a.npy").expect_err("another byte");
        assert!(got.contains("CRC"), "{got}");
        let (_, got) = entry(&archive, "c.npy").expect_err("no such entry");
        assert!(got.contains("c.npy"), "{got}");
    }
}
