//! What the model said to a line.

use serde::Serialize;

use super::Reply;
use super::request::Id;
use crate::decode::Scored;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// What a reply says beside its id.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Labels(Vec<Scored>),
    Embedding(Vec<f32>),
    Outputs(Vec<Output>),
    Error(String),
}

/// A tensor as numbers, in row-major order.
#[derive(Debug, Serialize)]
pub(super) struct Output {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    values: Values,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Signed(Vec<i64>),
    Unsigned(Vec<u64>),
}

impl Answer {
    pub(super) fn error(error: &Error) -> Answer {
        Answer::Error(error.to_string())
    }
}

pub(super) fn reply(id: Option<&Id>, answer: &Answer) -> Reply {
    #[derive(Serialize)]
    struct Written<'a> {
        id: Option<&'a Id>,
        #[serde(flatten)]
        answer: &'a Answer,
    }
    let mut line = serde_json::to_vec(&Written { id, answer }).expect("keys are strings");
    line.push(b'\n');
    Reply { line, answered: !matches!(answer, Answer::Error(_)) }
}

/// The answer that holds all of `outputs`.
///
/// # Errors
/// [`Error::Graph`] where one is of a type that JSON has no numbers for.
pub(super) fn outputs(outputs: &[(String, Tensor)]) -> Result<Answer> {
    let output = |(name, tensor): &(String, Tensor)| {
        let values = values(tensor).ok_or_else(|| {
            let place = format!("output `{name}`");
            Error::graph(place, "numbers that JSON can hold", tensor.dtype().name())
        })?;
        let (name, dtype) = (name.clone(), tensor.dtype().name());
        Ok(Output { name, dtype, shape: tensor.shape().to_vec(), values })
    };
    outputs.iter().map(output).collect::<Result<_>>().map(Answer::Outputs)
}

fn values(tensor: &Tensor) -> Option<Values> {
    fn each<const N: usize, T>(tensor: &Tensor, value: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (elements, _) = tensor.bytes().as_chunks();
        elements.iter().map(|&element| value(element)).collect()
    }
    Some(match tensor.dtype() {
        DType::F32 => Values::F32(each(tensor, f32::from_le_bytes)),
        DType::F64 => Values::F64(each(tensor, f64::from_le_bytes)),
        DType::I64 => Values::Signed(each(tensor, i64::from_le_bytes)),
        DType::I32 => Values::Signed(each(tensor, |it| i32::from_le_bytes(it).into())),
        DType::I16 => Values::Signed(each(tensor, |it| i16::from_le_bytes(it).into())),
        DType::I8 => Values::Signed(each(tensor, |it| i8::from_le_bytes(it).into())),
        DType::U64 => Values::Unsigned(each(tensor, u64::from_le_bytes)),
        DType::U32 => Values::Unsigned(each(tensor, |it| u32::from_le_bytes(it).into())),
        DType::U16 => Values::Unsigned(each(tensor, |it| u16::from_le_bytes(it).into())),
        DType::U8 | DType::Bool => Values::Unsigned(each(tensor, |[it]| it.into())),
        DType::F16 | DType::Bf16 => return None,
    })
}
