//! The shapes of a graph's inputs, and the values of those that decide how it computes, as a caller plans for
//! them.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, ValueSpec};
use crate::tensor::{DType, Tensor};

/// What is planned for, by the names of a graph's inputs.
pub type Shapes = BTreeMap<String, Planned>;

/// What is planned for an input.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Planned {
    /// This shape, whatever the values.
    Shape(Vec<usize>),
    /// These values, outermost axis first: for an input that decides which branch of the model runs, or how
    /// long what it gives is. They fill the input's shape, of which they make the last open extent.
    Values {
        /// Whole numbers where the input takes such; 0 or 1 for a truth value.
        values: Vec<f64>,
    },
}

impl From<Vec<usize>> for Planned {
    fn from(shape: Vec<usize>) -> Planned {
        Planned::Shape(shape)
    }
}

/// Element type and concrete shape of a value, and the value itself where it is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fact {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) value: Option<Tensor>,
}

impl Fact {
    /// Of any value of this type and shape.
    pub(crate) fn new(dtype: DType, shape: &[usize]) -> Fact {
        Fact { dtype, shape: shape.to_vec(), value: None }
    }

    /// Of any value of the type and shape of `tensor`.
    pub(crate) fn of(tensor: &Tensor) -> Fact {
        Fact::new(tensor.dtype(), tensor.shape())
    }

    /// Whether `tensor` has this type and shape.
    pub(crate) fn is_shaped_like(&self, tensor: &Tensor) -> bool {
        self.dtype == tensor.dtype() && self.shape == tensor.shape()
    }

    /// Whether it holds for `tensor`.
    pub(crate) fn holds_for(&self, tensor: &Tensor) -> bool {
        self.is_shaped_like(tensor) && self.value.as_ref().is_none_or(|value| value == tensor)
    }

    /// The value; where it is not known, one that is the same on every machine: small integers, or floats
    /// within ±1 from a linear congruential sequence (Knuth, MMIX).
    pub(crate) fn pattern(&self) -> Tensor {
        if let Some(value) = &self.value {
            return value.clone();
        }
        let count: usize = self.shape.iter().product();
        let mut state = 1_u64;
        let floats: Vec<f32> = (0..count)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        match self.dtype {
            DType::F32 => Tensor::from_f32(&self.shape, &floats),
            DType::I64 => Tensor::from_i64(&self.shape, &vec![1; count]),
            dtype => {
                let bytes = vec![0; count * dtype.size()];
                Tensor::from_bytes(dtype, &self.shape, bytes)
                    .expect("as many bytes as the shape needs")
            }
        }
    }
}

/// Types and shapes of `inputs`, and the values of those at the positions of `controls`.
pub(crate) fn known(inputs: &[Tensor], controls: &[usize]) -> Vec<Fact> {
    let fact = |(input, tensor): (usize, &Tensor)| Fact {
        value: controls.contains(&input).then(|| tensor.clone()),
        ..Fact::of(tensor)
    };
    inputs.iter().enumerate().map(fact).collect()
}

/// Types and shapes of all inputs of `graph`, and the values that are given, where `shapes` gives some of them: a
/// symbol that they leave open is 1 where it is the outermost axis.
///
/// # Errors
/// [`Error::Input`] where `shapes` names no input of the graph, does not fit one, gives two extents to one
/// symbol, or leaves one open; where a value is none of the input's type.
pub(crate) fn facts(graph: &Graph, shapes: &Shapes) -> Result<Vec<Fact>> {
    let extents = extents(graph, shapes)?;
    let fact = |input: &ValueSpec| {
        let extent = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(extent) => Ok(*extent),
            Dim::Symbol(name) => match extents.get(name) {
                Some(&extent) => Ok(extent),
                None if axis == 0 => Ok(1),
                None => Err(Error::Input {
                    name: input.name.clone(),
                    expected: input.to_string(),
                    got: format!(
                        "no extent for `{name}`; give one with `--shape {}=...`",
                        input.name
                    ),
                }),
            },
        };
        let shape: Vec<usize> =
            input.shape.iter().enumerate().map(extent).collect::<Result<_>>()?;
        let value = match shapes.get(&input.name) {
            Some(Planned::Values { values }) => Some(value(input, &shape, values)?),
            Some(Planned::Shape(_)) | None => None,
        };
        Ok(Fact { dtype: input.dtype, shape, value })
    };
    graph.inputs.iter().map(fact).collect()
}

/// What `shapes` makes of the symbols of `graph`.
fn extents(graph: &Graph, shapes: &Shapes) -> Result<BTreeMap<String, usize>> {
    let mut extents = BTreeMap::new();
    for (name, planned) in shapes {
        let refuse = |expected: String| Error::Input {
            name: name.clone(),
            expected,
            got: match planned {
                Planned::Shape(shape) => format!("the shape {shape:?}"),
                Planned::Values { values } => format!("{} values", values.len()),
            },
        };
        let Some(input) = graph.inputs.iter().find(|input| input.name == *name) else {
            let names: Vec<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
            return Err(refuse(format!("one of the inputs {}", names.join(", "))));
        };
        let shape = match planned {
            Planned::Shape(shape) => Some(shape.clone()),
            Planned::Values { values } => filled(input, values.len()),
        };
        let fits = |(dim, &extent): (&Dim, &usize)| {
            extent > 0
                && match dim {
                    Dim::Fixed(fixed) => *fixed == extent,
                    Dim::Symbol(symbol) => {
                        *extents.entry(symbol.clone()).or_insert(extent) == extent
                    }
                }
        };
        let fits = shape.is_some_and(|shape| {
            input.shape.len() == shape.len() && input.shape.iter().zip(&shape).all(fits)
        });
        if !fits {
            return Err(refuse(input.to_string()));
        }
    }
    Ok(extents)
}

/// The shape of `input` where its last open extent holds `count` values with the others, which are 1 where they
/// are open; `None` where so many do not fill it.
fn filled(input: &ValueSpec, count: usize) -> Option<Vec<usize>> {
    let least = |dim: &Dim| if let Dim::Fixed(extent) = dim { *extent } else { 1 };
    let mut shape: Vec<usize> = input.shape.iter().map(least).collect();
    let open = input.shape.iter().rposition(|dim| matches!(dim, Dim::Symbol(_)));
    if let (Some(open), Some(others)) = (open, self::count(&shape)) {
        shape[open] = count / others.max(1);
    }
    (self::count(&shape) == Some(count)).then_some(shape)
}

/// Elements of a tensor of that shape; `None` where no machine counts so far.
fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent))
}

/// `values` in the type of `input`.
fn value(input: &ValueSpec, shape: &[usize], values: &[f64]) -> Result<Tensor> {
    let refuse = |value: f64| Error::Input {
        name: input.name.clone(),
        expected: format!("values of {}", input.dtype),
        got: format!("{value}"),
    };
    // Beyond these a number of 64 bits is not told from its neighbours.
    let is_whole = |value: f64| value.fract() == 0.0 && value.abs() <= (1_u64 << 53) as f64;
    match input.dtype {
        DType::F32 => {
            let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            Ok(Tensor::from_f32(shape, &values))
        }
        DType::I64 => match values.iter().find(|&&value| !is_whole(value)) {
            Some(&value) => Err(refuse(value)),
            None => {
                let values: Vec<i64> = values.iter().map(|&value| value as i64).collect();
                Ok(Tensor::from_i64(shape, &values))
            }
        },
        DType::I32 => match values.iter().find(|&&value| f64::from(value as i32) != value) {
            Some(&value) => Err(refuse(value)),
            None => {
                let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
                Ok(Tensor::from_i32(shape, &values))
            }
        },
        DType::Bool => match values.iter().find(|&&value| value != 0.0 && value != 1.0) {
            Some(&value) => Err(refuse(value)),
            None => {
                let bytes = values.iter().map(|&value| u8::from(value == 1.0)).collect();
                Tensor::from_bytes(DType::Bool, shape, bytes)
            }
        },
        other => Err(Error::Input {
            name: input.name.clone(),
            expected: "an input of f32, i64, i32 or bool".to_owned(),
            got: format!("values for one of {other}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn graph() -> Graph {
        let symbol = |name: &str| Dim::Symbol(name.to_owned());
        let image = [symbol("batch"), Dim::Fixed(3), symbol("height"), symbol("width")];
        let boxes = [symbol("batch"), symbol("height")];
        let inputs = vec![
            ValueSpec::new("image", DType::F32, &image),
            ValueSpec::new("boxes", DType::F32, &boxes),
        ];
        Graph { inputs, ..Graph::default() }
    }

    #[test]
    fn equal_symbols_are_equal_extents() {
        let shapes = Shapes::from([("image".to_owned(), vec![2, 3, 48, 320].into())]);
        let facts = facts(&graph(), &shapes).expect("all symbols are given");
        assert_eq!(facts[1].shape, [2, 48]);
    }

    #[test]
    fn shapes_that_fit_no_input_are_refused() {
        for (shapes, message) in [
            (vec![("picture", vec![1])], "image, boxes"),
            (vec![("image", vec![1, 4, 48, 320])], "[batch, 3, height, width]"),
            (vec![("image", vec![1, 3, 48])], "[batch, 3, height, width]"),
            (vec![("image", vec![1, 3, 48, 0])], "[1, 3, 48, 0]"),
            (
                vec![("boxes", vec![1, 2]), ("image", vec![1, 3, 48, 320])],
                "[batch, 3, height, width]",
            ),
            (vec![("boxes", vec![1, 2])], "no extent for `width`"),
        ] {
            let named = |(name, shape): (&str, Vec<usize>)| (name.to_owned(), shape.into());
            let shapes = shapes.into_iter().map(named).collect();
            let error = facts(&graph(), &shapes).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn values_make_the_shape_of_their_input() {
        let rate = ValueSpec::new("rate", DType::I64, &[]);
        let axes = [Dim::Symbol("batch".to_owned()), Dim::Symbol("length".to_owned())];
        let ids = ValueSpec::new("ids", DType::I64, &axes);
        let graph = Graph { inputs: vec![rate, ids], ..Graph::default() };
        let plan = |rate: &[f64], ids: &[f64]| {
            let values = |values: &[f64]| Planned::Values { values: values.to_vec() };
            let named = [("rate".to_owned(), values(rate)), ("ids".to_owned(), values(ids))];
            facts(&graph, &named.into())
        };
        let facts = plan(&[16_000.0], &[3.0, 4.0, 5.0]).expect("whole numbers");
        assert_eq!(facts[0].value, Some(Tensor::from_i64(&[], &[16_000])));
        assert_eq!(facts[1].pattern(), Tensor::from_i64(&[1, 3], &[3, 4, 5]));
        assert!(facts[1].is_shaped_like(&Tensor::from_i64(&[1, 3], &[0; 3])));
        assert!(!facts[1].holds_for(&Tensor::from_i64(&[1, 3], &[0; 3])));
        for (rate, ids, message) in [
            (&[0.5][..], &[1.0][..], "0.5"),
            (&[f64::INFINITY], &[1.0], "inf"),
            (&[1.0, 2.0], &[1.0], "2 values"),
            (&[1.0], &[], "0 values"),
        ] {
            let error = plan(rate, ids).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
