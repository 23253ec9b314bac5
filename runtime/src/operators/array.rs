//! Operators of ONNX's own that stand between ours in a network over signals: they move numbers, or take one
//! step of arithmetic each.

use super::{Machine, parse::Stored};
use crate::bundle::Bundle;
use crate::graph::Node;
use crate::kernels::{self, Function, Pointwise};
use crate::manifest::Extent;

/// A node over f32 arrays.
#[derive(Clone, Debug)]
pub(crate) enum Array {
    /// The same elements under another shape.
    View(View),
    /// The axes in this order.
    Transpose(Vec<usize>),
    /// Two arrays element by element; an extent of one is repeated along the other's.
    Binary(Arithmetic, [Operand; 2]),
    /// Each element by itself.
    Function(Pointwise<'static>),
    /// The natural logarithm of each element.
    Log,
    /// Along this axis, which must be the last, shares of one.
    Softmax(i64),
}

/// How a shape becomes another of as many elements.
#[derive(Clone, Debug)]
pub(crate) enum View {
    /// It stays.
    Identity,
    /// Two axes: those before this one together, and the others.
    Flatten(i64),
    /// These axes, which are one long, are left out.
    Squeeze(Vec<i64>),
    /// Axes that are one long come in at these places of the result.
    Unsqueeze(Vec<i64>),
    /// Its axes; 0 stands for the extent that was there, -1 for what is left.
    Reshape(Vec<i64>),
}

/// One step of arithmetic.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    /// The first; what of it is negative, times the second.
    PRelu,
}

/// What an operator of two arrays reads.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    /// A computed value.
    Value,
    /// A constant of that shape.
    Constant(Extent, Vec<usize>),
}

impl Array {
    /// The operator that `node` of a graph of that opset is; `None` for what is not one of them.
    pub(crate) fn of(bundle: &Bundle, node: &Node, opset: i64) -> Option<Array> {
        if !node.is_onnx() {
            return None;
        }
        let stored = Stored { bundle, node };
        Some(match node.op.as_str() {
            "Identity" => Array::View(View::Identity),
            "Flatten" => Array::View(View::Flatten(node.int("axis", 1))),
            // Without axes it leaves out what is one long, be it the batch.
            "Squeeze" => Array::View(View::Squeeze(stored.axes()?)),
            "Unsqueeze" => Array::View(View::Unsqueeze(stored.axes()?)),
            "Reshape" if node.int("allowzero", 0) == 0 => {
                Array::View(View::Reshape(stored.integers(1)?))
            }
            "Transpose" => {
                let order = node.ints("perm")?.iter().map(|&axis| usize::try_from(axis).ok());
                Array::Transpose(order.collect::<Option<_>>()?)
            }
            // Before opset 7 they were told by attributes how to broadcast.
            "Add" | "Sub" | "Mul" | "Div" | "PRelu" if opset >= 7 => {
                let arithmetic = match node.op.as_str() {
                    "Add" => Arithmetic::Add,
                    "Sub" => Arithmetic::Sub,
                    "Mul" => Arithmetic::Mul,
                    "PRelu" => Arithmetic::PRelu,
                    _ => Arithmetic::Div,
                };
                Array::Binary(arithmetic, [stored.operand(0)?, stored.operand(1)?])
            }
            "Relu" => Array::function(Function::Clip { least: 0.0, most: f32::INFINITY }),
            "Sigmoid" => Array::function(Function::Sigmoid),
            "Tanh" => Array::function(Function::Tanh),
            "Log" => Array::Log,
            // Before opset 13 it took all axes from this one on, by default the second.
            "Softmax" => Array::Softmax(node.int("axis", if opset >= 13 { -1 } else { 1 })),
            _ => return None,
        })
    }

    fn function(function: Function<'static>) -> Array {
        Array::Function(Pointwise { function, ..Pointwise::NONE })
    }

    /// The names of the values among the inputs of `node`, which this operator was made of.
    pub(crate) fn values<'a>(&self, node: &'a Node) -> Vec<&'a str> {
        let computed = |index: usize| match self {
            Array::Binary(_, operands) => matches!(operands[index], Operand::Value),
            _ => index == 0,
        };
        let count = if matches!(self, Array::Binary(..)) { 2 } else { 1 };
        (0..count).filter(|&index| computed(index)).filter_map(|index| node.input(index)).collect()
    }

    /// The shape of the result for values of these shapes; `None` where they do not belong together. Where the
    /// outermost axis is one of a batch that is run one by one (`batched`), also where it would not stay so.
    pub(crate) fn output(&self, shapes: &[&[usize]], batched: bool) -> Option<Vec<usize>> {
        let x = *shapes.first()?;
        let shape = match self {
            Array::View(view) => view.output(x, batched)?,
            Array::Transpose(order) => transposed(x, order)?,
            Array::Binary(_, operands) => {
                let [a, b] = pair(operands, shapes)?;
                // A shorter value would meet the batch with another axis of its own.
                let met = shapes.iter().all(|shape| shape.len() == a.len().max(b.len()));
                (met || !batched).then(|| broadcast(a, b)).flatten()?
            }
            Array::Softmax(axis) if place(*axis, x.len())? + 1 != x.len() => return None,
            Array::Function(_) | Array::Log | Array::Softmax(_) => x.to_vec(),
        };
        let keeps = match self {
            Array::Transpose(order) => order.first() == Some(&0),
            Array::Softmax(_) => x.len() > 1,
            _ => shape.first() == Some(&1),
        };
        (!batched || keeps).then_some(shape)
    }

    /// Whether the result has the elements of its value in their order.
    pub(crate) fn is_view(&self, x: &[usize]) -> bool {
        match self {
            Array::View(_) => true,
            // What is one long may stand anywhere.
            Array::Transpose(order) => order.iter().filter(|&&axis| x[axis] > 1).is_sorted(),
            _ => false,
        }
    }
}

impl View {
    fn output(&self, x: &[usize], batched: bool) -> Option<Vec<usize>> {
        let places = |axes: &[i64], rank: usize| {
            axes.iter().map(|&axis| place(axis, rank)).collect::<Option<Vec<usize>>>()
        };
        Some(match self {
            View::Identity => x.to_vec(),
            View::Flatten(axis) => {
                // From the back it counts axes, from the front the places between them (ONNX: `Flatten`).
                let places = x.len() + usize::from(*axis >= 0);
                let (before, after) = x.split_at_checked(place(*axis, places)?)?;
                vec![before.iter().product(), after.iter().product()]
            }
            View::Squeeze(axes) => {
                let left_out = places(axes, x.len())?;
                if left_out.iter().any(|&axis| x[axis] != 1 || (batched && axis == 0)) {
                    return None;
                }
                let kept = x.iter().enumerate().filter(|(axis, _)| !left_out.contains(axis));
                kept.map(|(_, &extent)| extent).collect()
            }
            View::Unsqueeze(axes) => {
                let rank = x.len().checked_add(axes.len())?;
                let new = places(axes, rank)?;
                let mut sorted = new.clone();
                sorted.sort_unstable();
                sorted.dedup();
                if sorted.len() != new.len() || (batched && new.contains(&0)) {
                    return None;
                }
                let mut old = x.iter();
                let extent = |axis| if new.contains(&axis) { Some(&1) } else { old.next() };
                (0..rank).map(extent).map(Option::<&usize>::cloned).collect::<Option<_>>()?
            }
            View::Reshape(extents) => reshaped(x, extents, batched)?,
        })
    }
}

/// The axis that ONNX numbers `axis` of so many, from the end where that is negative.
fn place(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

fn reshaped(x: &[usize], extents: &[i64], batched: bool) -> Option<Vec<usize>> {
    // A batch of one that is written down as one would be no batch of two.
    if batched && !matches!(extents.first(), Some(0 | -1)) {
        return None;
    }
    let count: usize = x.iter().product();
    let known = |(axis, &extent): (usize, &i64)| match extent {
        0 => x.get(axis).copied(),
        -1 => Some(1),
        _ => usize::try_from(extent).ok(),
    };
    let mut shape: Vec<usize> =
        extents.iter().enumerate().map(known).collect::<Option<Vec<usize>>>()?;
    let product = shape.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent))?;
    let mut open = extents.iter().enumerate().filter(|(_, extent)| **extent == -1);
    match (open.next(), open.next()) {
        (Some((axis, _)), None) if product > 0 && count.is_multiple_of(product) => {
            shape[axis] = count / product;
            Some(shape)
        }
        (None, _) if product == count => Some(shape),
        _ => None,
    }
}

fn transposed(x: &[usize], order: &[usize]) -> Option<Vec<usize>> {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..x.len()).then(|| order.iter().map(|&axis| x[axis]).collect())
}

/// The shapes of both operands, of which `values` are those that are computed.
fn pair<'a>(operands: &'a [Operand; 2], values: &[&'a [usize]]) -> Option<[&'a [usize]; 2]> {
    let mut values = values.iter();
    let mut shape = |operand: &'a Operand| match operand {
        Operand::Value => values.next().copied(),
        Operand::Constant(_, shape) => Some(&shape[..]),
    };
    Some([shape(&operands[0])?, shape(&operands[1])?])
}

/// The shape that both are repeated to (ONNX: multidirectional broadcasting).
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let extent = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis])
    };
    let both = |axis| match (extent(a, axis), extent(b, axis)) {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    };
    (0..rank).map(both).collect()
}

/// For each axis of `shape`, how far apart in an array of shape `x`, which is repeated to it, its
/// elements lie.
fn strides(x: &[usize], shape: &[usize]) -> Vec<usize> {
    let mut stride = 1;
    let mut strides = vec![0; shape.len()];
    for (out, &extent) in strides.iter_mut().rev().zip(x.iter().rev()) {
        *out = if extent == 1 { 0 } else { stride };
        stride *= extent;
    }
    strides
}

/// Calls `row` for each row of the last axis of `shape`, in order, with where it begins in each array.
fn rows<const N: usize>(
    shape: &[usize],
    strides: &[Vec<usize>; N],
    mut row: impl FnMut(usize, [usize; N]),
) {
    let outer = &shape[..shape.len().saturating_sub(1)];
    for index in 0..outer.iter().product() {
        let (mut rest, mut starts) = (index, [0; N]);
        for (axis, &extent) in outer.iter().enumerate().rev() {
            for (start, strides) in starts.iter_mut().zip(strides) {
                *start += rest % extent * strides[axis];
            }
            rest /= extent;
        }
        row(index, starts);
    }
}

impl Machine {
    /// Runs `array` on values of these shapes, to `out` of that shape, as [`Array::output`] says; not on a view.
    pub(crate) fn array(
        &self,
        array: &Array,
        values: &[(&[f32], &[usize])],
        (out, shape): (&mut [f32], &[usize]),
    ) {
        let width = shape.last().copied().unwrap_or(1);
        if out.is_empty() {
            return;
        }
        let (x, x_shape) = values.first().copied().unwrap_or_default();
        match array {
            Array::View(_) => out.copy_from_slice(x),
            Array::Transpose(order) => {
                let own = strides(x_shape, x_shape);
                let strides = order.iter().map(|&axis| own[axis]).collect::<Vec<_>>();
                let step = strides.last().copied().unwrap_or(0);
                rows(shape, &[strides], |row, [start]| {
                    let out = &mut out[row * width..][..width];
                    for (index, out) in out.iter_mut().enumerate() {
                        *out = x[start + index * step];
                    }
                });
            }
            Array::Binary(arithmetic, operands) => {
                let mut values = values.iter().copied();
                let mut read = |operand| match operand {
                    &Operand::Value => values.next().unwrap_or_default(),
                    Operand::Constant(extent, shape) => (self.values(*extent), &shape[..]),
                };
                let [(a, a_shape), (b, b_shape)] = operands.each_ref().map(&mut read);
                let strides = [strides(a_shape, shape), strides(b_shape, shape)];
                let [a_step, b_step] =
                    [0, 1].map(|index| strides[index].last().copied().unwrap_or(0));
                rows(shape, &strides, |row, [a_start, b_start]| {
                    let a = Along::of(a, a_start, a_step, width);
                    let b = Along::of(b, b_start, b_step, width);
                    arithmetic.row(a, b, &mut out[row * width..][..width]);
                });
            }
            Array::Function(pointwise) => {
                out.copy_from_slice(x);
                kernels::pointwise(self.cpu, *pointwise, width, out);
            }
            Array::Log => {
                out.copy_from_slice(x);
                kernels::log(self.cpu, out);
            }
            Array::Softmax(_) => {
                out.copy_from_slice(x);
                kernels::softmax(self.cpu, out, width);
            }
        }
    }
}

impl Arithmetic {
    /// One row of results; an operand of one element is repeated along it.
    fn row(self, a: Along<'_>, b: Along<'_>, out: &mut [f32]) {
        match self {
            Arithmetic::Add => each(a, b, out, |a, b| a + b),
            Arithmetic::Sub => each(a, b, out, |a, b| a - b),
            Arithmetic::Mul => each(a, b, out, |a, b| a * b),
            Arithmetic::Div => each(a, b, out, |a, b| a / b),
            Arithmetic::PRelu => each(a, b, out, |a, b| if a < 0.0 { a * b } else { a }),
        }
    }
}

/// What a row of results reads of an operand.
#[derive(Clone, Copy)]
enum Along<'a> {
    /// One element for all of it.
    One(f32),
    /// An element for each.
    Row(&'a [f32]),
}

impl<'a> Along<'a> {
    /// The row of `width` that begins at `start`, where the last axis is `stride` apart.
    fn of(x: &'a [f32], start: usize, stride: usize, width: usize) -> Along<'a> {
        if stride == 0 { Along::One(x[start]) } else { Along::Row(&x[start..][..width]) }
    }
}

fn each(a: Along<'_>, b: Along<'_>, out: &mut [f32], step: impl Fn(f32, f32) -> f32) {
    match (a, b) {
        (Along::One(a), Along::One(b)) => out.fill(step(a, b)),
        (Along::Row(a), Along::One(b)) => {
            out.iter_mut().zip(a).for_each(|(out, &a)| *out = step(a, b));
        }
        (Along::One(a), Along::Row(b)) => {
            out.iter_mut().zip(b).for_each(|(out, &b)| *out = step(a, b));
        }
        (Along::Row(a), Along::Row(b)) => {
            out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (&a, &b))| *out = step(a, b));
        }
    }
}
