//! A window that slides over a grid of rows and columns -> the places that it takes, and the cells of the grid
//! under each. Convolution and pooling stand on it. Pairs are (rows, columns).

use std::ops::Range;

/// A window, before it is known over what grid it slides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Taps along each axis.
    pub kernel: [usize; 2],
    /// Cells from one place to the next.
    pub strides: [usize; 2],
    /// Cells from one tap to the next.
    pub dilations: [usize; 2],
    /// How far places reach over the edge.
    pub padding: Padding,
}

/// Cells that the grid is thought to be surrounded by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Padding {
    /// So many before and after the grid.
    Fixed {
        /// Above and to the left.
        before: [usize; 2],
        /// Below and to the right.
        after: [usize; 2],
    },
    /// As many as give a place for each stride begun; of an odd number the larger half comes after
    /// (ONNX: `SAME_UPPER`).
    SameUpper,
    /// The same, but the larger half comes before (ONNX: `SAME_LOWER`).
    SameLower,
}

impl Window {
    /// The window of one cell, which is everywhere.
    pub const CELL: Window = Window {
        kernel: [1; 2],
        strides: [1; 2],
        dilations: [1; 2],
        padding: Padding::Fixed { before: [0; 2], after: [0; 2] },
    };

    /// Its taps in all.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The window over a grid of that size; `None` where the padded grid is smaller than the window, or a
    /// number overflows.
    pub fn over(&self, grid: [usize; 2]) -> Option<Slide> {
        let axes = [self.along(0, grid[0])?, self.along(1, grid[1])?];
        Some(Slide {
            window: *self,
            grid,
            before: axes.map(|(before, _)| before),
            places: axes.map(|(_, places)| places),
        })
    }

    /// Padding before, and places, along one axis.
    fn along(&self, axis: usize, extent: usize) -> Option<(usize, usize)> {
        let stride = self.strides[axis];
        let reach = self.kernel[axis].checked_sub(1)?.checked_mul(self.dilations[axis])? + 1;
        let same = || {
            let places = extent.div_ceil(stride);
            let all = places.checked_sub(1)?.checked_mul(stride)?.checked_add(reach)?;
            Some((all.saturating_sub(extent), places))
        };
        match self.padding {
            Padding::Fixed { before, after } => {
                let padded = extent.checked_add(before[axis])?.checked_add(after[axis])?;
                Some((before[axis], padded.checked_sub(reach)? / stride + 1))
            }
            Padding::SameUpper => same().map(|(padding, places)| (padding / 2, places)),
            Padding::SameLower => same().map(|(padding, places)| (padding.div_ceil(2), places)),
        }
    }
}

/// A window and the grid that it slides over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slide {
    window: Window,
    grid: [usize; 2],
    before: [usize; 2],
    places: [usize; 2],
}

/// The taps of a window that lie on the grid, along one axis, and the cell under the first of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Taps {
    pub(super) taps: Range<usize>,
    pub(super) cell: usize,
}

impl Slide {
    /// The window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Rows and columns of the grid.
    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// Cells of the grid.
    pub fn cells(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Places of the window, in rows and columns.
    pub fn places(&self) -> [usize; 2] {
        self.places
    }

    /// The cell under `tap` of the window at `place`, by number, row by row; `None` where it lies beyond the grid.
    pub fn cell(&self, place: [usize; 2], tap: [usize; 2]) -> Option<usize> {
        let Window { strides, dilations, .. } = self.window;
        let along = |axis: usize| {
            let from_edge = place[axis] * strides[axis] + tap[axis] * dilations[axis];
            from_edge.checked_sub(self.before[axis]).filter(|&cell| cell < self.grid[axis])
        };
        Some(along(0)? * self.grid[1] + along(1)?)
    }

    /// Cells that the first place reaches over the edge along `axis`.
    pub(super) fn before(&self, axis: usize) -> usize {
        self.before[axis]
    }

    /// Whether each place is the cell of the same number.
    pub fn is_plain(&self) -> bool {
        self.window.kernel == [1; 2]
            && self.window.strides == [1; 2]
            && self.before == [0; 2]
            && self.places == self.grid
    }

    /// The places along `axis` from which no tap reaches over the edge.
    pub(super) fn inside(&self, axis: usize) -> Range<usize> {
        let (stride, before) = (self.window.strides[axis], self.before[axis]);
        let reach = (self.window.kernel[axis] - 1) * self.window.dilations[axis] + 1;
        let first = before.div_ceil(stride);
        let end = (self.grid[axis] + before).checked_sub(reach).map_or(0, |last| last / stride + 1);
        first.min(self.places[axis])..end.clamp(first, self.places[axis].max(first))
    }

    /// The taps on the grid along `axis` at `place`; none where all of the window lies beyond it.
    pub(super) fn taps(&self, axis: usize, place: usize) -> Taps {
        let Window { kernel, strides, dilations, .. } = self.window;
        let (start, dilation) = (place * strides[axis], dilations[axis]);
        let before = self.before[axis];
        let first = before.saturating_sub(start).div_ceil(dilation);
        let end = (self.grid[axis] + before).saturating_sub(start).div_ceil(dilation);
        let (first, end) = (first.min(kernel[axis]), end.min(kernel[axis]));
        Taps {
            taps: first..end.max(first),
            cell: (start + first * dilation).saturating_sub(before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kernel: usize, stride: usize, dilation: usize, padding: Padding) -> Window {
        let [kernel, strides, dilations] = [kernel, stride, dilation].map(|extent| [1, extent]);
        Window { kernel, strides, dilations, padding }
    }

    fn fixed(before: usize, after: usize) -> Padding {
        Padding::Fixed { before: [0, before], after: [0, after] }
    }

    #[test]
    fn places_and_taps_are_those_of_onnx() {
        // Extent, window; places; then taps and first cell at the first and the last place.
        let cases = [
            (5, line(3, 1, 1, fixed(0, 0)), 3, (0..3, 0), (0..3, 2)),
            (5, line(3, 1, 1, fixed(1, 1)), 5, (1..3, 0), (0..2, 3)),
            (6, line(3, 2, 1, fixed(1, 1)), 3, (1..3, 0), (0..3, 3)),
            (7, line(3, 1, 2, fixed(2, 2)), 7, (1..3, 0), (0..2, 4)),
            (24, line(3, 2, 1, Padding::SameUpper), 12, (0..3, 0), (0..2, 22)),
            (24, line(3, 2, 1, Padding::SameLower), 12, (1..3, 0), (0..3, 21)),
            (22, line(2, 2, 1, Padding::SameUpper), 11, (0..2, 0), (0..2, 20)),
            (1, line(2, 1, 1, fixed(3, 3)), 6, (2..2, 0), (0..0, 2)),
        ];
        for (extent, window, places, first, last) in cases {
            let slide = window.over([1, extent]).expect("the window fits");
            assert_eq!(slide.places(), [1, places], "{window:?}");
            for (place, (taps, cell)) in [(0, first), (places - 1, last)] {
                assert_eq!(slide.taps(1, place), Taps { taps, cell }, "{window:?} at {place}");
            }
            for place in 0..places {
                let whole = slide.taps(1, place).taps == (0..window.kernel[1]);
                assert_eq!(slide.inside(1).contains(&place), whole, "{window:?} at {place}");
            }
        }
        assert_eq!(line(3, 1, 2, fixed(1, 0)).over([1, 3]), None);
    }
}
