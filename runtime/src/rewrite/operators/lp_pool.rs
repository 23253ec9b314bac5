//! `LpPool`: the root of the mean of powers, times the size of the window.
//!
//! Refused: windows that stick out at the end (`ceil_mode`), of which a mean counts another part.

use super::body::Body;
use crate::graph::Attribute;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let input = node.input(0)?;
    if node.int("ceil_mode", 0) != 0 {
        return None;
    }
    let size: i64 = node.ints("kernel_shape")?.iter().product();
    let power = node.int("p", 2) as f32;
    let mut attributes = vec![("count_include_pad", Attribute::Int(1))];
    for name in ["auto_pad", "dilations", "kernel_shape", "pads", "strides"] {
        attributes.extend(node.attributes.get(name).map(|value| (name, value.clone())));
    }
    let [power, root, size] = [power, power.recip(), size as f32].map(|value| {
        let value = body.float(value);
        body.op("CastLike", &[&value, input])
    });
    let absolute = body.op("Abs", &[input]);
    let powers = body.op("Pow", &[&absolute, &power]);
    let mean = body.with("AveragePool", &[&powers], &attributes);
    let sum = body.op("Mul", &[&mean, &size]);
    let norm = body.op("Pow", &[&sum, &root]);
    body.give(0, &norm);
    Some(())
}
