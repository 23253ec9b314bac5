//! What holds a rounded model to the accuracy of f32, and puts nodes back until it does.

use std::path::Path;

use crate::agreement::Agreement;
use crate::error::{Error, Result};
use crate::evaluate::{self, Examples};
use crate::graph::Graph;
use crate::optimize::PassReport;
use crate::pack::Belongings;
use crate::prepare::{self, Prepared};
use crate::quantize::{self, Precision, Scheme};
use crate::repair::{self, Noise, Repair, Round};
use crate::samples::Samples;
use crate::session::Session;

/// What a model is measured by.
pub(crate) enum Yardstick {
    /// Labels or scores that people gave.
    Labelled(Examples),
    /// What f32 answers, where there are no labels.
    Agreement(Agreement),
}

impl Yardstick {
    /// Reads `data`: labelled where it holds labels and `reference`, the model in f32, has such; else the
    /// answers of `reference` are what is right.
    pub(crate) fn read(data: &Path, reference: &Session) -> Result<Yardstick> {
        if Examples::are_labelled(data)? && !reference.is_raw() {
            return Ok(Yardstick::Labelled(Examples::read(data)?));
        }
        Ok(Yardstick::Agreement(Agreement::with(reference, Samples::read(data)?)?))
    }

    /// What its score says.
    pub(crate) fn measure(&self) -> &'static str {
        match self {
            Yardstick::Labelled(Examples::Pairs(_)) => "correlation",
            Yardstick::Labelled(_) => "accuracy",
            Yardstick::Agreement(_) => "agreement",
        }
    }

    /// Accuracy, correlation or agreement, 0 to 1.
    pub(crate) fn score(&self, session: &Session) -> Result<f64> {
        match self {
            Yardstick::Labelled(examples) => {
                Ok(evaluate::evaluate(session, examples, &mut |_| {})?.score())
            }
            Yardstick::Agreement(agreement) => agreement.score(session),
        }
    }

    fn samples(&self) -> Samples {
        match self {
            Yardstick::Labelled(examples) => examples.clone().into(),
            Yardstick::Agreement(agreement) => agreement.samples().clone(),
        }
    }
}

/// A model in the form that will be written, opened.
pub(crate) struct Packed {
    pub(crate) prepared: Prepared,
    pub(crate) session: Session,
    pub(crate) score: Option<f64>,
    pub(crate) repair: Option<Repair>,
}

/// What holds a rounded model to f32.
pub(crate) struct Gate<'a> {
    /// What to measure by, and what f32 reaches; without it nothing is measured.
    pub(crate) reference: Option<(&'a Yardstick, f64)>,
    /// Most that may be lost, in points.
    pub(crate) max_drop: f64,
    pub(crate) belongings: &'a Belongings,
    /// The optimized graph, before it is packed.
    pub(crate) fused: &'a Graph,
    pub(crate) passes: &'a [PassReport],
}

impl Gate<'_> {
    /// The model by `scheme`, with as many of its noisiest nodes put back as the gate demands: first to the next
    /// finer precision, as far as that helps, then to the one after it. At least one stays rounded.
    ///
    /// # Errors
    /// [`Error::Gate`] where that is not enough; those of packing and running.
    pub(crate) fn hold(
        &self,
        mut scheme: Scheme,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Packed> {
        let mut repair = Repair::default();
        let asked = scheme.precision;
        let mut packed = self.attempt(&scheme, (0, asked), &mut repair, progress)?;
        let Some((yardstick, f32_score)) = self.reference else { return Ok(packed) };
        if self.holds(&packed) {
            return Ok(packed);
        }
        let mut from = asked;
        while let Some(to) = from.finer() {
            progress("measuring the noise of each node");
            let mut nodes = self.noise(&scheme, from, &yardstick.samples())?;
            let most =
                if to == Precision::F32 { nodes.len().saturating_sub(1) } else { nodes.len() };
            let before = scheme.exceptions.clone();
            let (mut back, mut best) = (0, (packed.score, 0));
            while let Some(more) = repair::next(back, most) {
                back = more;
                for noise in &mut nodes[..back] {
                    noise.stored_as = to;
                    scheme.exceptions.insert(noise.node.clone(), to);
                }
                repair.nodes.clone_from(&nodes);
                packed = self.attempt(&scheme, (back, to), &mut repair, progress)?;
                if self.holds(&packed) {
                    return Ok(Packed { repair: Some(repair), ..packed });
                }
                if packed.score > best.0 {
                    best = (packed.score, back);
                }
            }
            // Finer ranges are not better everywhere: only what helped most stays.
            let kept = nodes[..best.1].iter().map(|noise| (noise.node.clone(), to));
            scheme.exceptions = before.into_iter().chain(kept).collect();
            packed.score = best.0;
            from = to;
        }
        Err(self.refuse(asked, f32_score, packed.score.unwrap_or_default()))
    }

    fn attempt(
        &self,
        scheme: &Scheme,
        (put_back, to): (usize, Precision),
        repair: &mut Repair,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Packed> {
        progress("quantizing");
        let prepared = prepare::pack(self.fused, self.passes, scheme)?;
        let session = self.belongings.open(&prepared, scheme.precision)?;
        let Some((yardstick, _)) = self.reference else {
            return Ok(Packed { prepared, session, score: None, repair: None });
        };
        progress("evaluating");
        let score = yardstick.score(&session)?;
        let int8_mac_share = session.int8_mac_share(self.belongings.longest());
        repair.rounds.push(Round { put_back, to, score, int8_mac_share });
        Ok(Packed { prepared, session, score: Some(score), repair: None })
    }

    fn holds(&self, packed: &Packed) -> bool {
        match (self.reference, packed.score) {
            (Some((_, f32_score)), Some(score)) => (f32_score - score) * 100.0 <= self.max_drop,
            _ => true,
        }
    }

    /// The noise of the nodes that have a form in `from`, as `scheme` has them.
    fn noise(&self, scheme: &Scheme, from: Precision, samples: &Samples) -> Result<Vec<Noise>> {
        let mut names = quantize::with_form_in(self.fused, from);
        let stored = |name: &str| *scheme.exceptions.get(name).unwrap_or(&scheme.precision);
        // What was never rounded brings no noise.
        names.retain(|name| stored(name) != Precision::F32);
        let twins = repair::with_twins(self.fused, &names);
        let forms =
            |name: &String| [(name.clone(), Precision::F32), (repair::twin_of(name), stored(name))];
        let of_twins = Scheme {
            precision: from,
            exceptions: names.iter().flat_map(forms).collect(),
            ranges: scheme.ranges.clone(),
            fitted: scheme
                .fitted
                .iter()
                .map(|(name, fit)| (repair::twin_of(name), fit.clone()))
                .collect(),
        };
        let prepared = prepare::pack(&twins, &[], &of_twins)?;
        let session = self.belongings.open_raw(&prepared, from)?;
        let mut nodes = repair::noise(&session, &names, from, samples)?;
        nodes.iter_mut().for_each(|noise| noise.stored_as = stored(&noise.node));
        Ok(nodes)
    }

    fn refuse(&self, asked: Precision, f32_score: f64, score: f64) -> Error {
        let [percent, f32_percent] = [score, f32_score].map(|score| score * 100.0);
        let drop = f32_percent - percent;
        Error::Gate {
            what: format!("{asked}, the noisiest nodes put back to f32"),
            measured: format!(
                "{percent:.2} % where f32 has {f32_percent:.2} %, {drop:.2} points less"
            ),
            allowed: format!("{} points", self.max_drop),
            next: "pack it with `--precision f32`, or allow more with `--max-drop`",
        }
    }
}
