//! Integers to the floats that they stand for: `(q - zero_point) * scale` (ONNX: DequantizeLinear).

use crate::tensor::{DType, Tensor};

/// How integers stand for floats, in constants.
#[derive(Clone, Copy)]
pub(super) struct Steps<'a> {
    /// One value, or one an element of `axis`, or one a block along it.
    pub(super) scale: &'a Tensor,
    /// As many, or one for all, of the type of the integers; zero where it is left out.
    pub(super) zero_point: Option<&'a Tensor>,
    /// Counted from the end where it is negative.
    pub(super) axis: i64,
    /// Elements of a block; 0 where there are none.
    pub(super) block: usize,
}

/// The floats of `integers`; `None` for other types, scales that are no f32, and shapes that do not belong
/// together.
pub(super) fn dequantized(integers: &Tensor, steps: Steps) -> Option<Tensor> {
    let shape = integers.shape();
    let scales = steps.scale.to_f32()?;
    let zeros = match steps.zero_point {
        None => vec![0],
        Some(zero_point) => whole(zero_point)?,
    };
    let fit = zeros.len() == 1 || zeros.len() == scales.len();
    if !fit || scales.iter().any(|scale| !scale.is_finite()) {
        return None;
    }
    let axis = steps.axis + if steps.axis < 0 { shape.len() as i64 } else { 0 };
    let axis = usize::try_from(axis).ok();
    let extent = axis.and_then(|axis| shape.get(axis)).copied();
    let inner: usize = axis.map_or(1, |axis| shape.iter().skip(axis + 1).product());
    // Of each element: which scale it has.
    let place = |index: usize| -> usize {
        let along = index / inner % extent.unwrap_or(1);
        match scales.len() {
            1 => 0,
            _ if steps.block == 0 => along,
            _ => {
                let extent = extent.unwrap_or(1);
                let blocks = extent.div_ceil(steps.block);
                (index / (inner * extent) * blocks + along / steps.block) * inner + index % inner
            }
        }
    };
    let expected = match steps.block {
        0 => extent,
        block => extent.map(|extent| integers.len() / extent.max(1) * extent.div_ceil(block)),
    };
    if scales.len() != 1 && Some(scales.len()) != expected {
        return None;
    }
    let value = |(index, integer): (usize, i32)| {
        let place = place(index);
        let zero = zeros[if zeros.len() == 1 { 0 } else { place }];
        (i64::from(integer) - i64::from(zero)) as f32 * scales[place]
    };
    let values: Vec<f32> = whole(integers)?.into_iter().enumerate().map(value).collect();
    Some(Tensor::from_f32(shape, &values))
}

/// The values of a tensor of integers of at most 32 bits.
pub(super) fn whole(tensor: &Tensor) -> Option<Vec<i32>> {
    let halves = || tensor.bytes().chunks_exact(2).map(|bytes| [bytes[0], bytes[1]]);
    Some(match tensor.dtype() {
        DType::U8 => tensor.bytes().iter().map(|&byte| byte.into()).collect(),
        DType::I8 => tensor.bytes().iter().map(|&byte| (byte as i8).into()).collect(),
        DType::U16 => halves().map(|bytes| u16::from_le_bytes(bytes).into()).collect(),
        DType::I16 => halves().map(|bytes| i16::from_le_bytes(bytes).into()).collect(),
        DType::I32 => tensor.to_i32()?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_belong_to_all_to_an_axis_or_to_blocks_of_it() {
        let integers = Tensor::from_i8(&[4, 2], &[1, 2, 3, 4, 5, 6, 7, 8]);
        let of = |scale: &Tensor, zero_point, axis, block| {
            let floats = dequantized(&integers, Steps { scale, zero_point, axis, block })?;
            floats.to_f32()
        };
        let one = Tensor::from_f32(&[], &[0.5]);
        let zero = Tensor::from_i8(&[], &[1]);
        assert_eq!(of(&one, Some(&zero), 1, 0).unwrap()[..3], [0.0, 0.5, 1.0]);
        let columns = Tensor::from_f32(&[2], &[1.0, 10.0]);
        for axis in [1, -1] {
            assert_eq!(of(&columns, None, axis, 0).unwrap()[..4], [1.0, 20.0, 3.0, 40.0]);
        }
        assert_eq!(of(&columns, None, 0, 0), None, "as many scales as rows");
        // Blocks of three rows: the second one has a single row.
        let blocks = Tensor::from_f32(&[2, 2], &[1.0, 10.0, 100.0, 1000.0]);
        let expected = [1.0, 20.0, 3.0, 40.0, 5.0, 60.0, 700.0, 8000.0];
        assert_eq!(of(&blocks, None, 0, 3).unwrap(), expected);
        assert_eq!(of(&Tensor::from_i64(&[1], &[1]), None, 0, 0), None, "a scale of integers");
    }
}
