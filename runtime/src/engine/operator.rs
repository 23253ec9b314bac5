//! Our operators as operators of tract: a plan of tract's calls our kernels, with the weights where they
//! lie in the bundle.

use std::sync::Arc;

use tract_core::broadcast::multi_broadcast;
use tract_core::internal::*;
use tract_core::ops::cast::cast;
use tract_core::ops::math::add;
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::infer::rules::{InferenceResult, Solver};
use tract_onnx::tract_hir::internal::{Expansion, TensorProxy, expand};

use crate::operators::{Element, Machine, Matrix, Needs, Operator, Scratch, Work};

/// One operator on its machine. Two are equal where they are the same one.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    operator: Arc<Operator>,
    machine: Arc<Machine>,
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Kernel) -> bool {
        Arc::ptr_eq(&self.operator, &other.operator)
    }
}

impl Eq for Kernel {}

impl Kernel {
    /// The operator as a node of a graph whose shapes are not inferred yet.
    pub(super) fn expansion(
        operator: Arc<Operator>,
        machine: Arc<Machine>,
    ) -> Box<dyn InferenceOp> {
        expand(Kernel { operator, machine })
    }

    /// Another operator on the same machine.
    pub(super) fn with(&self, operator: Operator) -> Kernel {
        Kernel { operator: Arc::new(operator), machine: self.machine.clone() }
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The arithmetic of one run on inputs of these types and shapes.
    pub(super) fn work(&self, inputs: &[&TypedFact]) -> Work {
        if let Operator::Grid(grid) = &*self.operator {
            let Some((x, shape)) = inputs.first().and_then(|x| Some((x, x.shape.as_concrete()?)))
            else {
                return Work::default();
            };
            let is_rounded = x.datum_type.unquantized() == DatumType::U8;
            return grid.work(shape, if is_rounded { Element::U8 } else { Element::F32 });
        }
        self.matrix_of(inputs).map_or(Work::default(), |x| self.operator.work(x))
    }

    /// The scratch of one run.
    pub(super) fn needs(&self, inputs: &[&TypedFact]) -> Needs {
        if let Operator::Grid(grid) = &*self.operator {
            let shape = inputs.first().and_then(|x| x.shape.as_concrete());
            let threads = self.machine.threads.count();
            return shape.map_or(Needs::default(), |shape| grid.needs(shape, threads));
        }
        let x = self.matrix_of(inputs);
        x.map_or(Needs::default(), |x| self.operator.needs(x, self.machine.threads.count()))
    }

    fn matrix_of(&self, inputs: &[&TypedFact]) -> Option<Matrix> {
        let shape = inputs.first()?.shape.as_concrete()?;
        Some(self.matrix(shape))
    }

    /// The first input as rows. For what reads ids or indices, each is a row.
    fn matrix(&self, shape: &[usize]) -> Matrix {
        let (width, rows) = match *self.operator {
            Operator::Embed(_) | Operator::Gather(_) => (1, shape),
            _ => (shape.last().copied().unwrap_or(1), &shape[..shape.len().saturating_sub(1)]),
        };
        let tokens = rows.last().copied().unwrap_or(1);
        Matrix { rows: rows.iter().product(), tokens, width }
    }

    /// The shape of the result, before a residual of another shape is added.
    fn shape<D: Clone + From<usize>>(
        &self,
        x: &[D],
        thirds: impl Fn(&D) -> D,
    ) -> TractResult<TVec<D>> {
        let rank = x.len();
        let leading = |keep: usize| TVec::from(&x[..keep]);
        let last = |width: D| {
            let mut shape = leading(rank.saturating_sub(1));
            shape.push(width);
            shape
        };
        let least = match *self.operator {
            Operator::Gather(_) => 0,
            Operator::Attention(_) | Operator::MeanPool | Operator::FirstToken => 2,
            _ => 1,
        };
        ensure!(rank >= least, "an input of rank {least} at least, got rank {rank}");
        Ok(match &*self.operator {
            Operator::Embed(embedding) => {
                let mut shape = leading(rank);
                shape.push(embedding.words.width.into());
                shape
            }
            Operator::Gather(table) => {
                let mut shape = leading(rank);
                shape.push(table.width.into());
                shape
            }
            Operator::Linear(layer) => last(layer.n.into()),
            Operator::Attention(_) => last(thirds(&x[rank - 1])),
            Operator::MeanPool | Operator::FirstToken => {
                let mut shape = leading(rank - 2);
                shape.push(x[rank - 1].clone());
                shape
            }
            Operator::LayerNorm(_) | Operator::Gelu | Operator::L2Normalize => leading(rank),
            Operator::Grid(_) => bail!("an operator over rows, got one over images"),
        })
    }

    /// The width that the first input must have, where the constants say so.
    fn width(&self) -> Option<usize> {
        match &*self.operator {
            Operator::Linear(layer) => Some(layer.k),
            Operator::LayerNorm(norm) => Some(norm.width),
            _ => None,
        }
    }

    fn compute(&self, inputs: &[TValue], out: &mut Tensor) -> TractResult<()> {
        let x = &inputs[0];
        let Matrix { rows, tokens, width } = self.matrix(x.shape());
        ensure!(
            self.width().is_none_or(|expected| expected == width),
            "an input {:?} wide, got {width}",
            self.width()
        );
        let machine = &*self.machine;
        let needs = self.operator.needs(Matrix { rows, tokens, width }, machine.threads.count());
        let mut scratch = Scratch::new(needs);
        let mut out = out.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<f32>()?;
        if out.is_empty() {
            return Ok(());
        }
        match &*self.operator {
            Operator::Embed(embedding) => {
                // What is out of range for the table is out of range for `u32` too, or found there.
                let id = |&id: &i64| u32::try_from(id).unwrap_or(u32::MAX);
                let ids: Vec<u32> = plain::<i64>(x)?.iter().map(id).collect();
                let sequences = out.chunks_exact_mut(tokens * embedding.words.width);
                for (ids, out) in ids.chunks_exact(tokens).zip(sequences) {
                    let found = machine.embed(embedding, ids, &scratch, out);
                    found.map_err(|missing| format_err!("no embedding for {missing:?}"))?;
                }
            }
            Operator::Gather(table) => machine
                .gather(table, plain::<i64>(x)?, out)
                .map_err(|index| format_err!("index {index} chooses no row of the table"))?,
            Operator::LayerNorm(norm) => machine.layer_norm(norm, plain(x)?, out),
            Operator::Linear(layer) => {
                let residual = inputs.get(1).map(plain::<f32>).transpose()?;
                machine.linear(layer, plain(x)?, residual, &mut scratch, out);
            }
            Operator::Attention(attention) => {
                let heads = attention.heads;
                ensure!(width % (3 * heads) == 0, "columns for {heads} heads, got {width}");
                for (qkv, (mask, out)) in sequences(x, &inputs[1], tokens, width, out)? {
                    machine.attention(*attention, qkv, &mask, &mut scratch, out);
                }
            }
            Operator::MeanPool => {
                for (hidden, (mask, out)) in sequences(x, &inputs[1], tokens, width, out)? {
                    machine.mean_pool(hidden, &mask, out);
                }
            }
            Operator::FirstToken => {
                let rows = plain::<f32>(x)?.chunks_exact(tokens * width);
                rows.zip(out.chunks_exact_mut(width))
                    .for_each(|(rows, out)| out.copy_from_slice(&rows[..width]));
            }
            Operator::Gelu => machine.gelu(width, plain(x)?, out),
            Operator::L2Normalize => machine.l2_normalize(width, plain(x)?, out),
            Operator::Grid(_) => bail!("an operator over rows, got one over images"),
        }
        Ok(())
    }
}

pub(super) fn plain<T: Datum>(value: &TValue) -> TractResult<&[T]> {
    value.try_as_plain_ram()?.as_slice::<T>()
}

type Sequence<'a> = (&'a [f32], (Vec<u8>, &'a mut [f32]));

/// Each sequence of `x` `[.., tokens, width]` with its mask and its part of the result.
fn sequences<'a>(
    x: &'a TValue,
    mask: &TValue,
    tokens: usize,
    width: usize,
    out: &'a mut [f32],
) -> TractResult<Vec<Sequence<'a>>> {
    let (x, mask) = (plain::<f32>(x)?, plain::<i64>(mask)?);
    ensure!(mask.len() * width == x.len(), "a mask value a token, got {}", mask.len());
    let count = x.len() / (tokens * width);
    let masks = mask.chunks_exact(tokens);
    let masks = masks.map(|mask| mask.iter().map(|&keep| u8::from(keep != 0)).collect());
    let parts = masks.zip(out.chunks_exact_mut(out.len() / count));
    Ok(x.chunks_exact(tokens * width).zip(parts).collect())
}

impl Op for Kernel {
    fn name(&self) -> StaticName {
        "Kernel".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("{:?}", self.operator)])
    }

    op_as_typed_op!();
}

impl EvalOp for Kernel {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        if let Operator::Grid(grid) = &*self.operator {
            return Ok(tvec!(self.grid_eval(grid, &inputs)?));
        }
        let shape = self.shape(inputs[0].shape(), |width| width / 3)?;
        let mut out = Tensor::zero::<f32>(&shape)?;
        self.compute(&inputs, &mut out)?;
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for Kernel {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        if let Operator::Grid(grid) = &*self.operator {
            let shape = self.grid_shape(grid, &inputs[0].shape)?;
            return Ok(tvec!(Kernel::grid_type(grid).fact(&*shape)));
        }
        let shape = self.shape(&inputs[0].shape, |width: &TDim| width.clone() / 3)?;
        Ok(tvec!(f32::fact(&*shape)))
    }

    as_op!();
}

impl Expansion for Kernel {
    fn name(&self) -> StaticName {
        "Kernel".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        if let Operator::Grid(grid) = &*self.operator {
            solver.equals(&outputs[0].datum_type, Kernel::grid_type(grid))?;
            return self.grid_rules(grid, solver, inputs, outputs);
        }
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        let thirds = |width: &TDim| width.clone() / 3;
        match (&*self.operator, inputs) {
            (Operator::Linear(_), [x, residual]) => {
                solver.given_2(&x.shape, &residual.shape, move |solver, x, residual| {
                    let shape = multi_broadcast(&[self.shape(&x, thirds)?, residual])?;
                    solver.equals(&outputs[0].shape, shape)
                })
            }
            _ => solver.given(&inputs[0].shape, move |solver, x| {
                solver.equals(&outputs[0].shape, self.shape(&x, thirds)?)
            }),
        }
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        if let Operator::Grid(grid) = &*self.operator {
            return self.grid_wire(grid, prefix, model, inputs);
        }
        let mut inputs: TVec<OutletId> = inputs.into();
        // tract keeps integers that come of shapes in a type of its own.
        let integers = match *self.operator {
            Operator::Embed(_) | Operator::Gather(_) => Some(0),
            Operator::Attention(_) | Operator::MeanPool => Some(1),
            _ => None,
        };
        if let Some(index) = integers {
            let name = format!("{prefix}.indices");
            inputs[index] = model.wire_node(name, cast(i64::datum_type()), &[inputs[index]])?[0];
        }
        let (Operator::Linear(_), &[x, residual]) = (&*self.operator, &inputs[..]) else {
            return model.wire_node(prefix, self.clone(), &inputs);
        };
        let shape = self.shape(&model.outlet_fact(x)?.shape, |width: &TDim| width.clone())?;
        if model.outlet_fact(residual)?.shape.to_tvec() == shape {
            return model.wire_node(prefix, self.clone(), &inputs);
        }
        let sums = model.wire_node(format!("{prefix}.linear"), self.clone(), &[x])?[0];
        let terms = wire_rank_broadcast(prefix, model, &[sums, residual])?;
        model.wire_node(prefix, add(), &terms)
    }
}
