//! Images to images, their places shared out over the threads.

use super::{Grid, Image, Results, Stage, Values};
use crate::kernels::{self, Function, Pointwise, Pooling, RowsMut, Slide};
use crate::operators::{Machine, Scratch};

impl Machine {
    /// Runs `grid` on an image `x` of that shape; `other` is its residual or its factors. What
    /// [`Grid::output`] and [`Grid::is_rounded`] say was checked; only convolutions in int8 take u8.
    pub(crate) fn grid(
        &self,
        grid: &Grid,
        (x, shape): (Values<'_>, &[usize]),
        other: Option<&[f32]>,
        scratch: &mut Scratch,
        out: Results<'_>,
    ) {
        let channels = shape.last().copied().unwrap_or(1);
        match (grid, x, out) {
            (Grid::Conv(conv), x, out) => {
                if let Some(job) = Job::of(grid, shape) {
                    self.conv(conv, &job, x, other, scratch, out);
                }
            }
            (Grid::Pool(pooling, _), Values::F32(x), Results::F32(out)) => {
                if let Some(job) = Job::of(grid, shape) {
                    self.pool(*pooling, &job, x, out);
                }
            }
            (Grid::Pointwise(stage), Values::F32(x), Results::F32(out)) => {
                let (stage, rows) = (self.stage(stage), x.len() / channels);
                self.threads.split(rows, 1, RowsMut::new(out, channels), |rows, out| {
                    out.copy_from_slice(&x[rows.start * channels..rows.end * channels]);
                    kernels::pointwise(self.cpu, stage, channels, out);
                });
            }
            (Grid::Scale, Values::F32(x), Results::F32(out)) => {
                self.scale(x, other.unwrap_or_default(), shape[0], channels, out);
            }
            _ => unreachable!("only convolutions take or give u8"),
        }
    }

    pub(super) fn stage(&self, stage: &Stage) -> Pointwise<'_> {
        match stage.slopes {
            None => stage.pointwise,
            Some(slopes) => {
                Pointwise { function: Function::Prelu(self.values(slopes)), ..stage.pointwise }
            }
        }
    }

    fn pool(&self, pooling: Pooling, job: &Job, x: &[f32], out: &mut [f32]) {
        let channels = job.image.channels;
        self.threads.split(job.rows(), 1, RowsMut::new(out, channels), |rows, out| {
            let mut out = out;
            for part in job.parts(rows) {
                let (now, later) =
                    std::mem::take(&mut out).split_at_mut(part.places.len() * channels);
                let (x, slide) = (&x[part.cells], &job.slide);
                kernels::pool(self.cpu, pooling, x, slide, channels, part.places, now);
                out = later;
            }
        });
    }

    fn scale(&self, x: &[f32], factors: &[f32], batch: usize, channels: usize, out: &mut [f32]) {
        let rows = x.len() / channels;
        self.threads.split(rows, 1, RowsMut::new(out, channels), |range, out| {
            for (row, out) in range.zip(out.chunks_exact_mut(channels)) {
                let image = row * batch / rows;
                let factors = &factors[image * channels..][..channels];
                out.copy_from_slice(&x[row * channels..][..channels]);
                kernels::multiply(self.cpu, out, factors);
            }
        });
    }
}

/// A window over each image of a batch.
#[derive(Clone, Copy)]
pub(super) struct Job {
    pub(super) image: Image,
    pub(super) slide: Slide,
}

/// The places of one image that some rows of the result are.
pub(super) struct Part {
    /// Elements of the image within those of the batch.
    pub(super) cells: std::ops::Range<usize>,
    pub(super) places: std::ops::Range<usize>,
    /// Rows of the result.
    pub(super) rows: std::ops::Range<usize>,
}

impl Job {
    fn of(grid: &Grid, shape: &[usize]) -> Option<Job> {
        Some(Job { image: Image::of(shape)?, slide: grid.slide(shape)? })
    }

    /// Places of one image.
    fn places(&self) -> usize {
        let [rows, columns] = self.slide.places();
        rows * columns
    }

    /// Places of all images: the rows of the result.
    pub(super) fn rows(&self) -> usize {
        self.image.batch * self.places()
    }

    /// `rows` of the result, image by image.
    pub(super) fn parts(&self, rows: std::ops::Range<usize>) -> impl Iterator<Item = Part> {
        let (places, size) = (self.places(), self.slide.cells() * self.image.channels);
        (rows.start / places..rows.end.div_ceil(places)).map(move |image| {
            let first = image * places;
            let (start, end) = (rows.start.max(first), rows.end.min(first + places));
            Part {
                cells: image * size..(image + 1) * size,
                places: start - first..end - first,
                rows: start..end,
            }
        })
    }
}
