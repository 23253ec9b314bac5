//! `OptionalHasElement` and `OptionalGetElement` of what is a tensor, or is left out.

use super::body::Body;
use crate::tensor::{DType, Tensor};

pub(super) fn write_has(body: &mut Body) -> Option<()> {
    let there = u8::from(body.node.input(0).is_some());
    let answer = Tensor::from_bytes(DType::Bool, &[], vec![there]).ok()?;
    let answer = body.constant(answer);
    body.give(0, &answer);
    Some(())
}

pub(super) fn write_get(body: &mut Body) -> Option<()> {
    body.give(0, body.node.input(0)?);
    Some(())
}
