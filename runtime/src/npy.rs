//! NumPy's `.npy` files, version 1 to 3 (NEP 1): one tensor a file.

use std::path::Path;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads the tensor at `path`: little-endian, in C order.
///
/// # Errors
/// [`Error::Io`], or [`Error::Data`] where the file is no such array.
pub fn read(path: &Path) -> Result<Tensor> {
    from_bytes(&std::fs::read(path).map_err(Error::io("read", path))?, path)
}

/// The tensor that the bytes of the file at `path` hold.
///
/// # Errors
/// [`Error::Data`] where they are no such array.
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Tensor> {
    parse(bytes).map_err(|(place, expected, got)| Error::Data {
        path: path.to_owned(),
        place: place.to_owned(),
        expected: expected.to_owned(),
        got,
    })
}

/// Writes `tensor` to `path`.
///
/// # Errors
/// [`Error::Io`].
pub fn write(path: &Path, tensor: &Tensor) -> Result<()> {
    std::fs::write(path, to_bytes(tensor)).map_err(Error::io("write", path))
}

type Refusal = (&'static str, &'static str, String);

fn parse(bytes: &[u8]) -> std::result::Result<Tensor, Refusal> {
    let refuse = |expected: &'static str, got: &str| ("header", expected, format!("`{got}`"));
    let cut = || ("header", "the whole of it", format!("{} bytes", bytes.len()));
    if !bytes.starts_with(MAGIC) {
        return Err(("start", "an array that `numpy.save` wrote", "another file".to_owned()));
    }
    // Version 1 has a header length of two bytes, later ones of four.
    let wide = bytes.get(6).ok_or_else(cut)? > &1;
    let start = if wide { 12 } else { 10 };
    let length = bytes.get(8..start).ok_or_else(cut)?;
    let length = length.iter().rev().fold(0_usize, |value, &byte| value << 8 | usize::from(byte));
    let header = bytes.get(start..start + length).ok_or_else(cut)?;
    let header = String::from_utf8_lossy(header);
    let field =
        |name: &str| header.split_once(&format!("'{name}':")).map(|(_, rest)| rest.trim_start());
    let descr = field("descr").and_then(|rest| rest.split('\'').nth(1)).unwrap_or("none");
    let dtype = dtype(descr).ok_or_else(|| {
        refuse("an element type of float32, float64, float16, int8..64, uint8..64 or bool", descr)
    })?;
    if !field("fortran_order").is_some_and(|rest| rest.starts_with("False")) {
        return Err(refuse("C order; save it with `numpy.ascontiguousarray`", "Fortran order"));
    }
    let shape = field("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let (shape, _) = shape.ok_or_else(|| refuse("a shape", &header))?;
    let extents = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let extents: Option<Vec<usize>> = extents.map(|extent| extent.parse().ok()).collect();
    let extents = extents.ok_or_else(|| refuse("whole numbers as shape", shape))?;
    let values = bytes[start + length..].to_vec();
    let found = values.len();
    Tensor::from_bytes(dtype, &extents, values).map_err(|_| {
        ("values", "as many as the shape says", format!("{found} bytes for {dtype} {extents:?}"))
    })
}

/// `tensor` as the bytes of a file of version 1.
pub fn to_bytes(tensor: &Tensor) -> Vec<u8> {
    let extents: Vec<String> = tensor.shape().iter().map(|extent| format!("{extent},")).collect();
    let descr = descr(tensor.dtype());
    let mut header = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}",
        extents.join(" ")
    );
    // The values begin at a multiple of 64; the header ends in a line break.
    let padded = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64) - MAGIC.len() - 4;
    header.extend(std::iter::repeat_n(' ', padded - 1 - header.len()));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(tensor.bytes());
    bytes
}

const DESCRIPTIONS: [(&str, DType); 12] = [
    ("<f4", DType::F32),
    ("<f8", DType::F64),
    ("<f2", DType::F16),
    ("|i1", DType::I8),
    ("|u1", DType::U8),
    ("<i2", DType::I16),
    ("<u2", DType::U16),
    ("<i4", DType::I32),
    ("<u4", DType::U32),
    ("<i8", DType::I64),
    ("<u8", DType::U64),
    ("|b1", DType::Bool),
];

fn dtype(descr: &str) -> Option<DType> {
    DESCRIPTIONS.iter().find(|(name, _)| *name == descr).map(|(_, dtype)| *dtype)
}

fn descr(dtype: DType) -> &'static str {
    // NumPy has no bfloat16; its bits travel as u16.
    DESCRIPTIONS.iter().find(|(_, known)| *known == dtype).map_or("<u2", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for tensor in [
            Tensor::from_f32(&[2, 3], &[1.0, -2.5, 0.0, 4.0, 5.0, 6.0]),
            Tensor::from_i64(&[], &[7]),
            Tensor::from_i8(&[0, 4], &[]),
        ] {
            assert_eq!(parse(&to_bytes(&tensor)).unwrap(), tensor);
        }
    }

    #[test]
    fn a_file_that_numpy_wrote_reads() {
        // numpy.save of numpy.array([[1, 2]], dtype="int64"), NumPy 2.
        let mut bytes = b"\x93NUMPY\x01\x00v\x00".to_vec();
        let header = "{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), }";
        bytes.extend(format!("{header:<117}\n").as_bytes());
        bytes.extend([1_i64, 2].iter().flat_map(|value| value.to_le_bytes()));
        assert_eq!(parse(&bytes).unwrap(), Tensor::from_i64(&[1, 2], &[1, 2]));
    }

    #[test]
    fn every_cut_is_refused() {
        let bytes = to_bytes(&Tensor::from_f32(&[4], &[0.0; 4]));
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
