//! Losses and scores of every pass as a picture, in plain SVG.

use std::fmt::Write;

use crate::checkpoint::Epoch;
use crate::exam::Measure;

/// Size of one plot, and the room around it, in pixels.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 220.0;
const ROOM: f64 = 48.0;

/// Colours that can be told apart by everybody (Okabe and Ito 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// Two plots side by side, the mean loss and the score of each pass, with a line for each of `trainings`.
pub(crate) fn svg(trainings: &[(String, &[Epoch])], measure: Measure) -> String {
    let (width, height) = (2.0 * (WIDTH + ROOM) + ROOM, HEIGHT + 2.0 * ROOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    plot(&mut svg, ROOM, "mean loss", trainings, |epoch| epoch.loss);
    plot(&mut svg, 2.0 * ROOM + WIDTH, measure.name(), trainings, |epoch| epoch.score);
    svg += "</svg>\n";
    svg
}

fn plot(
    svg: &mut String,
    left: f64,
    title: &str,
    trainings: &[(String, &[Epoch])],
    value: impl Fn(&Epoch) -> f32,
) {
    let values: Vec<Vec<f64>> = trainings
        .iter()
        .map(|(_, history)| history.iter().map(|epoch| f64::from(value(epoch))).collect())
        .collect();
    let all = || values.iter().flatten().copied();
    let (least, most) =
        (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let (least, most) = if least < most { (least, most) } else { (least - 0.5, least + 0.5) };
    let passes = values.iter().map(Vec::len).max().unwrap_or(0);
    let x = |pass: usize| left + WIDTH * pass as f64 / passes.saturating_sub(1).max(1) as f64;
    let y = |value: f64| ROOM + HEIGHT * (most - value) / (most - least);
    let (right, bottom) = (left + WIDTH, ROOM + HEIGHT);
    let _ = writeln!(
        svg,
        "<path d=\"M{left} {ROOM}V{bottom}H{right}\" fill=\"none\" stroke=\"#999\"/>\n\
         <text x=\"{left}\" y=\"{}\">{title}</text>\n\
         <text x=\"{}\" y=\"{ROOM}\" text-anchor=\"end\">{most:.3}</text>\n\
         <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">{least:.3}</text>\n\
         <text x=\"{left}\" y=\"{}\">pass 1</text>\n\
         <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{passes}</text>",
        ROOM - 16.0,
        left - 4.0,
        left - 4.0,
        bottom + 16.0,
        bottom + 16.0,
    );
    for (line, (values, (name, _))) in values.iter().zip(trainings).enumerate() {
        let colour = COLOURS[line % COLOURS.len()];
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(pass, &value)| format!("{:.1},{:.1}", x(pass), y(value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            left + 90.0 * line as f64,
            bottom + 34.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_is_a_point_between_the_edges() {
        let history = [(2.0, 0.5), (1.0, 0.75)].map(|(loss, score)| Epoch { loss, score });
        let svg = svg(&[("student".to_owned(), &history)], Measure::Accuracy);
        // The loss falls from the top to the bottom of the left plot, the accuracy rises in the right one.
        assert!(svg.contains("<polyline points=\"48.0,48.0 408.0,268.0\""), "{svg}");
        assert!(svg.contains("<polyline points=\"456.0,268.0 816.0,48.0\""), "{svg}");
        assert!(svg.contains(">accuracy</text>") && svg.contains(">2.000</text>"), "{svg}");
    }

    #[test]
    fn a_single_pass_or_none_is_drawn_too() {
        let one = [Epoch { loss: 1.0, score: 0.5 }];
        for history in [&one[..], &[]] {
            let svg = svg(&[("student".to_owned(), history)], Measure::Spearman);
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
        }
    }
}
