//! Our operators over images as operators of tract, beside those over rows.

use tract_core::broadcast::multi_broadcast;
use tract_core::internal::*;
use tract_core::ops::math::add;
use tract_onnx::tract_hir::infer::rules::{InferenceResult, Solver};
use tract_onnx::tract_hir::internal::{TensorProxy, wire_rank_broadcast};

use super::operator::{Kernel, plain};
use crate::operators::grid::{Conv, Results, Stage, Values};
use crate::operators::{Grid, Operator, Scratch};

impl Kernel {
    /// The shape of the result of an operator over images, before a residual of another shape is added.
    pub(super) fn grid_shape(&self, grid: &Grid, x: &[TDim]) -> TractResult<TVec<usize>> {
        let shape = x.iter().map(|extent| Ok(extent.to_usize()?));
        let shape: TVec<usize> = shape.collect::<TractResult<_>>()?;
        let output = grid.output(&shape);
        let output =
            output.ok_or_else(|| format_err!("an image that fits {grid:?}, got {shape:?}"))?;
        Ok(output.into())
    }

    pub(super) fn grid_rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        grid: &'s Grid,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let shape = move |x: &[TDim]| -> TractResult<TVec<TDim>> {
            Ok(self.grid_shape(grid, x)?.iter().map(|&extent| extent.to_dim()).collect())
        };
        match (grid, inputs) {
            (Grid::Conv(_), [x, residual]) => {
                solver.given_2(&x.shape, &residual.shape, move |solver, x, residual| {
                    let shape = multi_broadcast(&[shape(&x)?, residual])?;
                    solver.equals(&outputs[0].shape, shape)
                })
            }
            _ => solver.given(&inputs[0].shape, move |solver, x| {
                solver.equals(&outputs[0].shape, shape(&x)?)
            }),
        }
    }

    /// Wires an operator over images; a residual that must be broadcast is added by tract, and the function
    /// after it is a node of its own.
    pub(super) fn grid_wire(
        &self,
        grid: &Grid,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let (Grid::Conv(conv), &[x, residual]) = (grid, inputs) else {
            return model.wire_node(prefix, self.clone(), inputs);
        };
        let shape = self.grid_shape(grid, &model.outlet_fact(x)?.shape)?;
        if model.outlet_fact(residual)?.shape.as_concrete() == Some(&shape) {
            return model.wire_node(prefix, self.clone(), inputs);
        }
        ensure!(conv.y.is_none(), "a residual of shape {shape:?} where the result is rounded");
        let (now, later) = match conv.residual_first {
            true => {
                let now = Conv { stage: Stage::NONE, ..*conv };
                (now, Some(Grid::Pointwise(conv.stage)))
            }
            false => (*conv, None),
        };
        let sums = self.with(Operator::Grid(Grid::Conv(now)));
        let sums = model.wire_node(format!("{prefix}.conv"), sums, &[x])?[0];
        let terms = wire_rank_broadcast(prefix, model, &[sums, residual])?;
        match later {
            None => model.wire_node(prefix, add(), &terms),
            Some(later) => {
                let sums = model.wire_node(format!("{prefix}.sum"), add(), &terms)?;
                model.wire_node(prefix, self.with(Operator::Grid(later)), &sums)
            }
        }
    }

    /// The type of the result.
    pub(super) fn grid_type(grid: &Grid) -> DatumType {
        if grid.is_rounded() { u8::datum_type() } else { f32::datum_type() }
    }

    pub(super) fn grid_eval(&self, grid: &Grid, inputs: &[TValue]) -> TractResult<TValue> {
        let x = &inputs[0];
        let dims: TVec<TDim> = x.shape().iter().map(ToDim::to_dim).collect();
        let shape = self.grid_shape(grid, &dims)?;
        let mut out = Tensor::zero_dt(Kernel::grid_type(grid), &shape)?;
        let other = inputs.get(1).map(plain::<f32>).transpose()?;
        check(grid, x, other, out.len())?;
        if out.len() > 0 {
            let machine = self.machine();
            let mut scratch = Scratch::new(grid.needs(x.shape(), machine.threads.count()));
            let values = match x.datum_type() == u8::datum_type() {
                true => Values::U8(plain(x)?),
                false => Values::F32(plain(x)?),
            };
            let rounded = grid.is_rounded();
            let mut out = out.try_as_plain_ram_mut()?;
            let out = match rounded {
                true => Results::U8(out.as_slice_mut()?),
                false => Results::F32(out.as_slice_mut()?),
            };
            machine.grid(grid, (values, x.shape()), other, &mut scratch, out);
        }
        Ok(out.into_tvalue())
    }
}

/// Refuses a second input of another length than the operator's, and u8 where it takes f32.
fn check(grid: &Grid, x: &TValue, other: Option<&[f32]>, results: usize) -> TractResult<()> {
    let shape = x.shape();
    let expected = match grid {
        Grid::Scale => Some(shape[0] * shape[shape.len() - 1]),
        _ => other.map(|_| results),
    };
    let got = other.map(<[f32]>::len);
    ensure!(got == expected, "{expected:?} elements beside the image, got {got:?}");
    let ranged = matches!(grid, Grid::Conv(conv) if conv.int8.is_some_and(|int8| int8.x.is_some()));
    ensure!(ranged || x.datum_type() == f32::datum_type(), "an f32 image");
    Ok(())
}
