//! The cells under a window, place after place, as the rows of a matrix: what makes a product of a
//! convolution.

use std::ops::Range;

use super::super::block::Strided;
use super::super::tiles::TILE_ROWS;
use super::super::window::{Slide, Taps, Window};

/// Places whose cells are gathered before they are multiplied: they should stay in the second-level cache
/// beside a panel.
const MOST_ROWS: usize = 8 * TILE_ROWS;

/// Elements that are gathered at most, unless one tile has more.
const MOST_ELEMENTS: usize = 1 << 15;

/// Some places of a window over one image `[rows, columns, channels]`.
#[derive(Clone, Debug)]
pub struct View<'a, T> {
    /// The image.
    pub x: &'a [T],
    /// Channels of the image.
    pub channels: usize,
    /// Those of them that are read.
    pub group: Range<usize>,
    /// The window on its grid.
    pub slide: &'a Slide,
    /// Places by number, row by row.
    pub places: Range<usize>,
}

impl<T: Copy> View<'_, T> {
    /// Elements under the window.
    pub fn width(&self) -> usize {
        self.slide.window().taps() * self.group.len()
    }

    /// Whether the cells under each place lie together already, `width` apart.
    fn is_plain(&self, width: usize) -> bool {
        self.slide.is_plain() && self.group == (0..self.channels) && width == self.channels
    }

    /// Calls `block(first, rows, left)` for some places at a time, counted from the first: `left` has the
    /// cells under each in a row of `width`, in the order rows, columns, channels; `pad` stands where there
    /// is no cell, and anything past the cells. `scratch` is as [`patch_len`] says.
    pub(super) fn blocks(
        &self,
        width: usize,
        pad: T,
        scratch: &mut [T],
        mut block: impl FnMut(usize, usize, Strided<'_, T>),
    ) {
        let (count, plain) = (self.places.len(), self.is_plain(width));
        let most = if plain { MOST_ROWS } else { patch_rows(width) };
        for first in (0..count).step_by(most) {
            let rows = most.min(count - first);
            let start = self.places.start + first;
            if plain {
                let values = &self.x[start * self.channels..];
                block(first, rows, Strided { values, stride: self.channels, width });
            } else {
                self.gather(start..start + rows, width, pad, scratch);
                block(first, rows, Strided { values: scratch, stride: width, width });
            }
        }
    }

    /// The cells under each of `places`, in rows of `width`.
    fn gather(&self, places: Range<usize>, width: usize, pad: T, rows: &mut [T]) {
        let columns = self.slide.places()[1];
        let inside = self.slide.inside(1);
        let (mut place, mut rows) = (places.start, rows);
        while place < places.end {
            let (row, first) = (place / columns, place % columns);
            let end = columns.min(first + places.end - place);
            let down = self.slide.taps(0, row);
            let (now, later) = rows.split_at_mut((end - first) * width);
            for column in first..end {
                let out = &mut now[(column - first) * width..];
                let whole = inside.contains(&column);
                match whole && down.taps.len() == self.slide.window().kernel[0] {
                    true => self.gather_inside(down.cell, column, out),
                    false => self.gather_at_edge(&down, column, pad, &mut out[..width]),
                }
            }
            (place, rows) = (place + end - first, later);
        }
    }

    /// The cells under a place from which no tap reaches over the edge; what follows them in `out` may be
    /// overwritten, as it is gathered later.
    fn gather_inside(&self, row: usize, column: usize, out: &mut [T]) {
        let Window { kernel, strides, dilations, .. } = *self.slide.window();
        let (channels, group) = (self.channels, self.group.len());
        let cell = column * strides[1] - self.slide.before(1);
        let whole = group == channels && (dilations[1] == 1 || kernel[1] == 1);
        // Of a whole group, the cells of a line lie together.
        let (pieces, piece) = if whole { (1, kernel[1] * group) } else { (kernel[1], group) };
        for down in 0..kernel[0] {
            let line = (row + down * dilations[0]) * self.slide.grid()[1];
            for across in 0..pieces {
                let from = (line + cell + across * dilations[1]) * channels + self.group.start;
                let to = (down * kernel[1] + across) * group;
                copy_short(&self.x[from..], &mut out[to..], piece);
            }
        }
    }

    /// The same where some taps may reach over the edge: `pad` stands for these.
    fn gather_at_edge(&self, down: &Taps, column: usize, pad: T, row: &mut [T]) {
        let Window { kernel, dilations, .. } = *self.slide.window();
        let (channels, group) = (self.channels, self.group.len());
        let across = self.slide.taps(1, column);
        row.fill(pad);
        for (index, tap) in down.taps.clone().enumerate() {
            let line = (down.cell + index * dilations[0]) * self.slide.grid()[1];
            for (index, column) in across.taps.clone().enumerate() {
                let cell = line + across.cell + index * dilations[1];
                let from = cell * channels + self.group.start;
                let to = (tap * kernel[1] + column) * group;
                row[to..to + group].copy_from_slice(&self.x[from..from + group]);
            }
        }
    }
}

/// Copies `count` elements, and perhaps some more: whole blocks as long as there is room for them, because
/// pieces of a few elements are too short for a call.
#[inline(always)]
fn copy_short<T: Copy>(from: &[T], to: &mut [T], count: usize) {
    const BLOCK: usize = 16;
    let mut at = 0;
    while at < count {
        match (from[at..].first_chunk::<BLOCK>(), to[at..].first_chunk_mut::<BLOCK>()) {
            (Some(from), Some(to)) => *to = *from,
            _ => {
                to[at..count].copy_from_slice(&from[at..count]);
                return;
            }
        }
        at += BLOCK;
    }
}

/// Elements of scratch that gathering rows of `width` takes, for one thread.
pub fn patch_len(width: usize) -> usize {
    patch_rows(width) * width
}

/// Places that are gathered at once: whole tiles.
fn patch_rows(width: usize) -> usize {
    (MOST_ELEMENTS / width / TILE_ROWS * TILE_ROWS).clamp(TILE_ROWS, MOST_ROWS)
}
