//! A line to what is asked.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::{Dim, ValueSpec};
use crate::tensor::{DType, Tensor};

/// Longest id in bytes: it comes back with the reply, whose length is bounded.
const LONGEST_ID: usize = 128;

/// What a reply is known by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "an id is a number or a string")]
pub(super) enum Id {
    Number(serde_json::Number),
    Text(String),
}

/// A tensor as numbers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Numbers {
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// What the model is asked.
#[derive(Debug)]
pub(super) enum Asked<'a> {
    Text(Cow<'a, str>),
    Inputs(BTreeMap<String, Numbers>),
}

/// A request, as understood.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) id: Option<Id>,
    pub(super) asked: Asked<'a>,
}

/// A request, as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    id: Option<Id>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    inputs: Option<BTreeMap<String, Numbers>>,
}

impl Request<'_> {
    /// The request on `line`; otherwise the sentence that says what is wrong with it.
    pub(super) fn parse(line: &[u8]) -> Result<Request<'_>, String> {
        if is_array(line) {
            return Err("no request: expected an object, got an array".to_owned());
        }
        let written: Written =
            serde_json::from_slice(line).map_err(|error| format!("no request: {error}"))?;
        if written.id.as_ref().is_some_and(Id::is_too_long) {
            return Err(format!("an id has at most {LONGEST_ID} bytes"));
        }
        let asked = match (written.text, written.inputs) {
            (Some(text), None) => Asked::Text(text),
            (None, Some(inputs)) => Asked::Inputs(inputs),
            _ => return Err("no request: expected one of `text` or `inputs`".to_owned()),
        };
        Ok(Request { id: written.id, asked })
    }
}

impl Id {
    fn is_too_long(&self) -> bool {
        matches!(self, Id::Text(text) if text.len() > LONGEST_ID)
    }
}

/// The id of a line that is no request, or that nobody will answer, where it has a sound one.
pub(super) fn id_of(line: &[u8]) -> Option<Id> {
    #[derive(Deserialize)]
    struct WithId {
        id: Option<Id>,
    }
    if is_array(line) {
        return None;
    }
    let found: WithId = serde_json::from_slice(line).ok()?;
    found.id.filter(|id| !id.is_too_long())
}

/// serde takes an array for an object's fields in order; nobody means that.
fn is_array(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"[")
}

/// `inputs` as tensors of the types that the model declares in `specs`, with a batch of one: so a reply
/// is as long as the model makes it, whoever asks.
///
/// # Errors
/// [`Error::Input`] where a value does not fit its type; whatever else is wrong, running the model says.
pub(super) fn tensors(
    specs: &[ValueSpec],
    inputs: &BTreeMap<String, Numbers>,
) -> Result<BTreeMap<String, Tensor>> {
    let tensor = |(name, numbers): (&String, &Numbers)| {
        let spec = specs.iter().find(|spec| spec.name == *name);
        let tensor = match spec {
            Some(spec) => numbers.tensor(spec),
            // The model has no such input, and says so with the names of those that it has.
            None => Some(Tensor::from_f32(&[0], &[])),
        };
        let refuse = || Error::Input {
            name: name.clone(),
            expected: spec.map_or(String::new(), |spec| {
                format!("{spec}, a batch of one, each value one of that type")
            }),
            got: format!("{} values for {:?}", numbers.values.len(), numbers.shape),
        };
        Ok((name.clone(), tensor.ok_or_else(refuse)?))
    };
    inputs.iter().map(tensor).collect()
}

impl Numbers {
    /// `None` where the values do not fit the shape or the type, or the batch is not one.
    fn tensor(&self, spec: &ValueSpec) -> Option<Tensor> {
        let open_batch = matches!(spec.shape.first(), Some(Dim::Symbol(_)));
        if open_batch && self.shape.first() != Some(&1) {
            return None;
        }
        let bytes = match spec.dtype {
            DType::F32 => self.bytes(|value| {
                Some(value as f32).filter(|narrow| narrow.is_finite()).map(f32::to_le_bytes)
            }),
            DType::F64 => self.bytes(|value| Some(value.to_le_bytes())),
            DType::I64 => self.bytes(|value| whole(value).map(i64::to_le_bytes)),
            DType::U64 => {
                self.bytes(|value| Some(u64::try_from(whole(value)?).ok()?.to_le_bytes()))
            }
            DType::I32 => {
                self.bytes(|value| Some(i32::try_from(whole(value)?).ok()?.to_le_bytes()))
            }
            DType::U32 => {
                self.bytes(|value| Some(u32::try_from(whole(value)?).ok()?.to_le_bytes()))
            }
            DType::I16 => {
                self.bytes(|value| Some(i16::try_from(whole(value)?).ok()?.to_le_bytes()))
            }
            DType::U16 => {
                self.bytes(|value| Some(u16::try_from(whole(value)?).ok()?.to_le_bytes()))
            }
            DType::I8 => self.bytes(|value| Some(i8::try_from(whole(value)?).ok()?.to_le_bytes())),
            DType::U8 => self.bytes(|value| Some(u8::try_from(whole(value)?).ok()?.to_le_bytes())),
            DType::Bool => self.bytes(|value| {
                whole(value).filter(|bit| (0..=1).contains(bit)).map(|bit| [bit as u8])
            }),
            // JSON has no half precision, and rounding to it is the caller's decision.
            DType::F16 | DType::Bf16 => None,
        };
        Tensor::from_bytes(spec.dtype, &self.shape, bytes?).ok()
    }

    fn bytes<const N: usize>(&self, value: impl Fn(f64) -> Option<[u8; N]>) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.values.len() * N);
        for &number in &self.values {
            bytes.extend_from_slice(&value(number)?);
        }
        Some(bytes)
    }
}

/// `value` as a whole number, where it is one that an f64 holds exactly.
fn whole(value: f64) -> Option<i64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}
