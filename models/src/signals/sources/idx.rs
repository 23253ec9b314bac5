//! Images from the gzipped IDX files that MNIST came in, and its kin after it.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use super::{Part, Recorded};
use crate::error::{Error, Result};
use crate::signals::recipe::Images;

/// The images of `train-images-idx3-ubyte.gz` and `train-labels-idx1-ubyte.gz` in `folder`, in `[0, 1]`.
/// The last ones are measured on.
///
/// # Errors
/// [`Error::Io`] where a file cannot be read, [`Error::Signals`] where it is no such file.
pub(super) fn images(folder: &Path, recipe: &Images) -> Result<Vec<Recorded>> {
    let path = folder.join("train-images-idx3-ubyte.gz");
    let (shape, pixels) = idx(&path)?;
    let count = match shape[..] {
        [count, height, width] if [height, width] == [recipe.height, recipe.width] => count,
        _ => {
            let expected = format!("[count, {}, {}]", recipe.height, recipe.width);
            return Err(Error::Signals { path, expected, got: format!("{shape:?}") });
        }
    };
    let path = folder.join("train-labels-idx1-ubyte.gz");
    let (shape, labels) = idx(&path)?;
    let classes = recipe.labels.len();
    if shape != [count] || labels.iter().any(|&label| usize::from(label) >= classes) {
        let expected = format!("{count} labels below {classes}");
        let got = format!("{shape:?} up to {}", labels.iter().max().unwrap_or(&0));
        return Err(Error::Signals { path, expected, got });
    }
    let train = count.saturating_sub(recipe.validation_images);
    let each = pixels.chunks(recipe.height * recipe.width).zip(labels).enumerate();
    let recorded = each.map(|(index, (pixels, label))| Recorded {
        values: pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect(),
        label: usize::from(label),
        part: if index < train { Part::Train } else { Part::Validation },
    });
    Ok(recorded.collect())
}

/// Shape and bytes of an IDX file of unsigned bytes: two zeros, the type 8, the rank, the extents as
/// big-endian words of four bytes, the elements.
fn idx(path: &Path) -> Result<(Vec<usize>, Vec<u8>)> {
    let refuse = |expected: &str, got: String| Error::Signals {
        path: path.to_owned(),
        expected: expected.to_owned(),
        got,
    };
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).map_err(Error::io("decompress", path))?;
    let rank = match bytes[..] {
        [0, 0, 8, rank, ..] => usize::from(rank),
        _ => {
            let got = format!("it starts with {:?}", &bytes[..bytes.len().min(4)]);
            return Err(refuse("an IDX file of unsigned bytes", got));
        }
    };
    let start = 4 + 4 * rank;
    let header = bytes.get(4..start).unwrap_or_default().chunks_exact(4);
    let extent = |word: &[u8]| word.iter().fold(0, |value, &byte| value << 8 | usize::from(byte));
    let shape: Vec<usize> = header.map(extent).collect();
    let elements = bytes.get(start..).unwrap_or_default();
    let product = shape.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent));
    if shape.len() != rank || product != Some(elements.len()) {
        let got = format!("{} bytes for {shape:?}", elements.len());
        return Err(refuse("as many elements as its extents say", got));
    }
    Ok((shape, elements.to_vec()))
}
