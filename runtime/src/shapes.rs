//! The shapes of a graph's inputs, as a caller plans for them.

use std::collections::BTreeMap;

use crate::engine::Fact;
use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, ValueSpec};

/// Concrete shapes by the names of a graph's inputs.
pub type Shapes = BTreeMap<String, Vec<usize>>;

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
