//! The shapes of a graph's inputs, as a caller plans for them.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, ValueSpec};
use crate::tensor::{DType, Tensor};

/// Concrete shapes by the names of a graph's inputs.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Element type and concrete shape of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
}

impl Fact {
    /// Those of `tensor`.
    pub(crate) fn of(tensor: &Tensor) -> Fact {
        Fact { dtype: tensor.dtype(), shape: tensor.shape().to_vec() }
    }

    /// Values that are the same on every machine: small integers, or floats within ±1 from a linear
    /// congruential sequence (Knuth, MMIX).
    pub(crate) fn pattern(&self) -> Tensor {
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

/// Types and shapes of all inputs of `graph`, where `shapes` gives some of them: a symbol that they leave
/// open is 1 where it is the outermost axis.
///
/// # Errors
/// [`Error::Input`] where `shapes` names no input of the graph, does not fit one, gives two extents to one
/// symbol, or leaves one open.
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
        let shape = input.shape.iter().enumerate().map(extent).collect::<Result<_>>()?;
        Ok(Fact { dtype: input.dtype, shape })
    };
    graph.inputs.iter().map(fact).collect()
}

/// What `shapes` makes of the symbols of `graph`.
fn extents(graph: &Graph, shapes: &Shapes) -> Result<BTreeMap<String, usize>> {
    let mut extents = BTreeMap::new();
    for (name, shape) in shapes {
        let refuse = |expected: String| Error::Input {
            name: name.clone(),
            expected,
            got: format!("the shape {shape:?}"),
        };
        let Some(input) = graph.inputs.iter().find(|input| input.name == *name) else {
            let names: Vec<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
            return Err(refuse(format!("one of the inputs {}", names.join(", "))));
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
        if input.shape.len() != shape.len() || !input.shape.iter().zip(shape).all(fits) {
            return Err(refuse(input.to_string()));
        }
    }
    Ok(extents)
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
        let shapes = Shapes::from([("image".to_owned(), vec![2, 3, 48, 320])]);
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
            let shapes = shapes.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect();
            let error = facts(&graph(), &shapes).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
