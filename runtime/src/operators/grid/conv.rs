//! One convolution: its image rounded where it is int8, then its places shared out over the threads.

use std::ops::Range;

use super::compute::{Job, Part};
use super::{Conv, Int8, Results, Values, Weights};
use crate::kernels::{
    self, DepthwiseF32, DepthwiseI8, Finish, PackedF32, PackedI8, PerThread, Residual, RowScale,
    RowsMut, Target, View,
};
use crate::manifest::Extent;
use crate::operators::{Machine, Scratch};

/// Places that one thread works on at least: tiles stay whole.
const ALIGN: usize = 12;

/// Elements that one thread rounds at least.
const ROUNDED: usize = 4096;

impl Machine {
    pub(super) fn conv(
        &self,
        conv: &Conv,
        job: &Job,
        x: Values<'_>,
        residual: Option<&[f32]>,
        scratch: &mut Scratch,
        out: Results<'_>,
    ) {
        let Scratch { quantized, patch, patch_bytes, .. } = scratch;
        match (x, conv.int8) {
            (Values::F32(x), None) => {
                let patch = PerThread::new(patch, conv.patch());
                self.places(conv, job, residual, patch, out, |part, finish, patch, out| {
                    self.part_f32(conv, job, &x[part.cells.clone()], part, finish, patch, out);
                });
            }
            (x, Some(int8)) => {
                let (x, range) = self.rounded(x, int8, quantized);
                let patch = PerThread::new(patch_bytes, conv.patch());
                self.places(conv, job, residual, patch, out, |part, finish, patch, out| {
                    let layer = (int8, range);
                    self.part_i8(
                        conv,
                        layer,
                        job,
                        &x[part.cells.clone()],
                        part,
                        finish,
                        patch,
                        out,
                    );
                });
            }
            (Values::U8(_), None) => unreachable!("only int8 weights take u8"),
        }
    }

    /// Calls `part` for each image that a thread has places of.
    fn places<T: Send>(
        &self,
        conv: &Conv,
        job: &Job,
        residual: Option<&[f32]>,
        patch: PerThread<'_, T>,
        out: Results<'_>,
        part: impl Fn(&Part, Finish<'_>, &mut [T], Target<'_>) + Sync,
    ) {
        let rows = job.rows();
        match (out, conv.y) {
            (Results::F32(out), _) => {
                let out = RowsMut::new(out, conv.n);
                self.threads.split(rows, ALIGN, (out, patch), |rows, (out, patch)| {
                    for it in job.parts(rows.clone()) {
                        let own = own(&it, &rows, conv.n);
                        let finish = self.finish(conv, residual, &it);
                        part(&it, finish, patch, Target::F32(&mut out[own]));
                    }
                });
            }
            (Results::U8(out), Some(range)) => {
                let out = RowsMut::new(out, conv.n);
                self.threads.split(rows, ALIGN, (out, patch), |rows, (out, patch)| {
                    for it in job.parts(rows.clone()) {
                        let own = own(&it, &rows, conv.n);
                        let finish = self.finish(conv, residual, &it);
                        part(&it, finish, patch, Target::U8(&mut out[own], range));
                    }
                });
            }
            (Results::U8(_), None) => unreachable!("a result without a range is f32"),
        }
    }

    fn finish<'a>(&'a self, conv: &Conv, residual: Option<&'a [f32]>, part: &Part) -> Finish<'a> {
        let terms = residual.map(|terms| &terms[part.rows.start * conv.n..]);
        let residual = match terms {
            None => Residual::None,
            Some(terms) if conv.residual_first => Residual::Before(terms),
            Some(terms) => Residual::After(terms),
        };
        let factors = conv.factors.map(|factors| self.values(factors));
        Finish { pointwise: self.stage(&conv.stage), residual, factors, width: conv.n, first: 0 }
    }

    /// The image as u8, and the range that it was rounded in.
    fn rounded<'a>(
        &self,
        x: Values<'a>,
        int8: Int8,
        quantized: &'a mut [u8],
    ) -> (&'a [u8], RowScale) {
        match (x, int8.x) {
            (Values::U8(x), range) => (x, range.unwrap_or_default()),
            (Values::F32(x), range) => {
                let range = range.unwrap_or_else(|| kernels::range_of_tensor(self.cpu, x));
                let quantized = &mut quantized[..x.len()];
                let out = RowsMut::new(&mut *quantized, 1);
                self.threads.split(x.len(), ROUNDED, out, |elements, out| {
                    kernels::round_image(self.cpu, &x[elements], range, out);
                });
                (quantized, range)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one call, each used once")]
    fn part_f32(
        &self,
        conv: &Conv,
        job: &Job,
        x: &[f32],
        part: &Part,
        finish: Finish<'_>,
        patch: &mut [f32],
        mut out: Target<'_>,
    ) {
        let (places, bias) = (part.places.clone(), self.values(conv.bias));
        let Weights::Dense { panels, groups } = conv.weights else {
            let kernel = DepthwiseF32 { weights: self.values(conv.weights.extent()), bias };
            return kernels::depthwise_f32(self.cpu, x, &job.slide, kernel, places, finish, out);
        };
        let (k, n) = (conv.terms(), conv.n / groups);
        for group in 0..groups {
            let share = |extent: Extent| share(self.values::<f32>(extent), group, groups);
            let weights = PackedF32::new(share(panels), share(conv.bias), k, n)
                .expect("parsing checked the extents of all weights");
            let view = view(x, job, places.clone(), group, groups);
            let finish = Finish { first: group * n, ..finish };
            kernels::conv_f32(self.cpu, &view, &weights, finish, patch, out.again());
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one call, each used once")]
    fn part_i8(
        &self,
        conv: &Conv,
        (int8, range): (Int8, RowScale),
        job: &Job,
        x: &[u8],
        part: &Part,
        finish: Finish<'_>,
        patch: &mut [u8],
        mut out: Target<'_>,
    ) {
        let (cpu, places) = (self.cpu, part.places.clone());
        let (scales, bias) = (self.values(int8.scales), self.values(conv.bias));
        let (Weights::Dense { panels, groups }, Some(sums)) = (conv.weights, int8.column_sums)
        else {
            let weights = self.values(conv.weights.extent());
            let kernel = DepthwiseI8 { weights, range, scales, bias };
            return kernels::depthwise_i8(cpu, x, &job.slide, kernel, places, finish, out);
        };
        let (k, n) = (conv.terms(), conv.n / groups);
        for group in 0..groups {
            let panels = share(self.values::<i8>(panels), group, groups);
            let sums = share(self.values::<i32>(sums), group, groups);
            let (scales, bias) = (share(scales, group, groups), share(bias, group, groups));
            let weights = PackedI8::new(panels, sums, scales, bias, k, n)
                .expect("parsing checked the extents of all weights");
            let view = view(x, job, places.clone(), group, groups);
            let finish = Finish { first: group * n, ..finish };
            kernels::conv_i8(cpu, &view, range, &weights, finish, patch, out.again());
        }
    }
}

impl Weights {
    fn extent(self) -> Extent {
        match self {
            Weights::Dense { panels, .. } => panels,
            Weights::Depthwise(weights) => weights,
        }
    }
}

/// The elements of `part` among those of a thread that has `rows`, each `width` wide.
fn own(part: &Part, rows: &Range<usize>, width: usize) -> Range<usize> {
    (part.rows.start - rows.start) * width..(part.rows.end - rows.start) * width
}

/// The values of one of the groups.
fn share<T>(values: &[T], group: usize, groups: usize) -> &[T] {
    &values[values.len() / groups * group..][..values.len() / groups]
}

fn view<'a, T>(
    x: &'a [T],
    job: &'a Job,
    places: Range<usize>,
    group: usize,
    groups: usize,
) -> View<'a, T> {
    let channels = job.image.channels;
    let width = channels / groups;
    View { x, channels, group: group * width..(group + 1) * width, slide: &job.slide, places }
}
