//! What a linear layer or convolution reads on a calibration input, as rows: for each of some places the numbers
//! that its weights meet, in the order in which ONNX stores the weights of one output.

use crate::error::Result;
use crate::graph::{Graph, Node};
use crate::kernels::Window;
use crate::operators::grid::window_of;
use crate::tensor::Tensor;

/// How the rows of one layer lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Patches {
    /// `None` for a linear layer, whose rows lie as they are.
    window: Option<Window>,
    /// Parts of the channels, each of which has outputs of its own.
    pub(super) groups: usize,
    /// Numbers that an output reads.
    pub(super) k: usize,
    /// Outputs.
    pub(super) n: usize,
}

impl Patches {
    /// Those of a `dram.Linear` or `dram.Conv`; `None` for other nodes, and weights of other ranks.
    ///
    /// # Errors
    /// [`crate::Error::Graph`] where the window of a convolution does not read.
    pub(super) fn of(graph: &Graph, node: &Node) -> Result<Option<Patches>> {
        let weight = node.input(1).and_then(|name| graph.initializers.get(name));
        let shape = weight.map(Tensor::shape).unwrap_or_default();
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(0);
        Ok(match *shape {
            [k, n] if node.is_fused("Linear") => Some(Patches { window: None, groups: 1, k, n }),
            [n, inputs, rows, columns]
                if node.is_fused("Conv") && groups > 0 && n.is_multiple_of(groups) =>
            {
                let window = Some(window_of(node)?);
                Some(Patches { window, groups, k: inputs * rows * columns, n })
            }
            _ => None,
        })
    }

    /// Numbers of a row: those of all groups, one after the other.
    pub(super) fn width(&self) -> usize {
        self.groups * self.k
    }

    /// At most `most` rows of `x`, evenly spread over its places, appended to `rows`.
    pub(super) fn gather(&self, x: &Tensor, most: usize, rows: &mut Vec<f32>) {
        let (Some(values), shape) = (x.to_f32(), x.shape()) else { return };
        let Some(window) = self.window else {
            for row in spread(values.len() / self.k.max(1), most) {
                rows.extend(&values[row * self.k..][..self.k]);
            }
            return;
        };
        let (images, grid, channels) = match *shape {
            [images, rows, columns, channels] => (images, [rows, columns], channels),
            [images, columns, channels] => (images, [1, columns], channels),
            _ => return,
        };
        let taps = window.taps();
        let Some(slide) = window.over(grid).filter(|_| channels * taps == self.width()) else {
            return;
        };
        let [down, across] = slide.places();
        for place in spread(images * down * across, most) {
            let (image, place) = (place / (down * across), place % (down * across));
            let place = [place / across, place % across];
            let image = &values[image * slide.cells() * channels..][..slide.cells() * channels];
            let cells = (0..taps)
                .map(|tap| slide.cell(place, [tap / window.kernel[1], tap % window.kernel[1]]));
            let cells: Vec<Option<usize>> = cells.collect();
            for channel in 0..channels {
                let number = |cell: &Option<usize>| {
                    cell.map_or(0.0, |cell| image[cell * channels + channel])
                };
                rows.extend(cells.iter().map(number));
            }
        }
    }
}

/// At most `most` of `count` places: all of them, or some at the steps of the golden ratio, which fall in with
/// no width of an image.
fn spread(count: usize, most: usize) -> impl Iterator<Item = usize> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let place = move |index: usize| match count <= most {
        true => index,
        false => ((index as f64 * GOLDEN).fract() * count as f64) as usize % count,
    };
    (0..count.min(most)).map(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attribute;

    fn layer(node: Node, shape: &[usize]) -> Patches {
        let count = shape.iter().product();
        let weight = Tensor::from_f32(shape, &vec![1.0; count]);
        let graph = Graph { initializers: [("w".to_owned(), weight)].into(), ..Graph::default() };
        Patches::of(&graph, &node).unwrap().unwrap()
    }

    #[test]
    fn a_convolution_reads_what_lies_under_its_window_and_zero_beyond_the_edge() {
        let conv = Node::fused("Conv", &["x", "w"], &["y"])
            .with("kernel", Attribute::Ints(vec![1, 2]))
            .with("strides", Attribute::Ints(vec![1, 1]))
            .with("dilations", Attribute::Ints(vec![1, 1]))
            .with("pads", Attribute::Ints(vec![0, 1, 0, 0]));
        let patches = layer(conv.clone(), &[3, 2, 1, 2]);
        // Two channels of one row of two cells: 1 10, 2 20.
        let image = Tensor::from_f32(&[1, 1, 2, 2], &[1.0, 10.0, 2.0, 20.0]);
        let mut rows = Vec::new();
        patches.gather(&image, 9, &mut rows);
        assert_eq!(rows, [0.0, 1.0, 0.0, 10.0, 1.0, 2.0, 10.0, 20.0]);
        let depthwise = layer(conv.with("group", Attribute::Int(2)), &[2, 1, 1, 2]);
        assert_eq!((depthwise.groups, depthwise.k, depthwise.width()), (2, 2, 4));
        let mut again = Vec::new();
        depthwise.gather(&image, 9, &mut again);
        assert_eq!(again, rows, "the taps of one group after those of the other");
    }

    #[test]
    fn places_are_spread_and_never_more_than_there_are() {
        let linear = layer(Node::fused("Linear", &["x", "w"], &["y"]), &[2, 5]);
        let x = Tensor::from_f32(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let mut rows = Vec::new();
        linear.gather(&x, 9, &mut rows);
        assert_eq!(rows, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let some: Vec<usize> = spread(1000, 10).collect();
        assert!(some.len() == 10 && some.iter().all(|&place| place < 1000));
        let mut tenths: Vec<usize> = some.iter().map(|place| place / 125).collect();
        tenths.sort_unstable();
        tenths.dedup();
        assert!(tenths.len() >= 7, "{some:?}");
    }
}
