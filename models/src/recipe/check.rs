//! What a recipe may say: ranges, and what goes with what.

use super::{Data, Distance, Layers, Losses, Recipe, Scheme, Training};
use crate::error::{Error, Result};

impl Recipe {
    pub(super) fn check(&self) -> Result<()> {
        let student = &self.student;
        self.within("max_tokens", self.max_tokens, 3, student.positions)?;
        self.within("student.positions", student.positions, 3, 512)?;
        self.within("student.vocabulary", student.vocabulary, 60, 1_000_000)?;
        self.within("student.feed_forward", student.feed_forward, 1, 65_536)?;
        self.within("student.heads", student.heads.unwrap_or(1), 1, 1024)?;
        self.check_layers("student.layers", &student.layers)?;
        if let Some(training) = &self.teacher.training {
            self.check_training("teacher.training", training)?;
        }
        self.check_training("student.training", &student.training)?;
        for further in &self.further_teachers {
            self.weight("further_teachers.weight", further.weight)?;
        }
        self.check_data()?;
        self.check_losses()?;
        self.check_exits()?;
        self.check_scheme()
    }

    fn check_layers(&self, field: &'static str, layers: &Layers) -> Result<()> {
        let ascending = match layers {
            Layers::These(layers) => layers.is_sorted_by(|a, b| a < b),
            Layers::Chosen(_) => true,
        };
        match layers.count() > 0 && ascending {
            true => Ok(()),
            false => Err(self.value(field, "at least one layer, ascending", format!("{layers:?}"))),
        }
    }

    fn check_training(&self, table: &'static str, training: &Training) -> Result<()> {
        match training.fault() {
            Some((expected, got)) => Err(self.value(table, expected, got)),
            None => Ok(()),
        }
    }

    fn check_data(&self) -> Result<()> {
        let labelled = match &self.data {
            Data::Labelled(labelled) => labelled,
            Data::Sentences(sentences) if sentences.from.is_empty() => {
                return Err(self.value("data.sentences.from", "at least one file", "none".into()));
            }
            Data::Sentences(_) => return Ok(()),
        };
        self.within("data.labelled.variations", labelled.variations, 0, 100)?;
        if labelled.validation.is_some() == labelled.hold_out.is_some() {
            let expected = "either `validation` or `hold_out`";
            return Err(self.value("data.labelled", expected, "both or neither".to_owned()));
        }
        self.within("data.labelled.hold_out", labelled.hold_out.unwrap_or(1), 1, 1_000_000)?;
        self.within("data.labelled.take", labelled.take.unwrap_or(2), 2, usize::MAX)
    }

    fn check_losses(&self) -> Result<()> {
        let Losses { soft, hard, embedding, similarity, hidden, attention, relations, words } =
            &self.losses;
        for (field, weight) in [
            ("losses.soft", soft.map(|term| term.weight)),
            ("losses.hard", *hard),
            ("losses.embedding", embedding.map(|term| term.weight)),
            ("losses.similarity", *similarity),
            ("losses.hidden", hidden.as_ref().map(|term| term.weight)),
            ("losses.attention", attention.as_ref().map(|term| term.weight)),
            ("losses.relations", relations.map(|term| term.weight)),
            ("losses.words", words.map(|term| term.hard)),
            ("losses.words", words.map(|term| term.soft)),
        ] {
            self.weight(field, weight.unwrap_or(0.0))?;
        }
        self.temperature("losses.soft", soft.map_or(1.0, |term| term.temperature))?;
        self.temperature("losses.words", words.map_or(1.0, |term| term.temperature))?;
        if words.is_some_and(|words| !(0.01..=0.9).contains(&words.share)) {
            let got = format!("{words:?}");
            return Err(self.value("losses.words", "a `share` from 0.01 to 0.9", got));
        }
        if hidden.as_ref().is_some_and(|hidden| hidden.distance == Distance::Relative) {
            let expected = "the distance `cosine` or `mean_squared`";
            return Err(self.value("losses.hidden", expected, "`relative`".to_owned()));
        }
        let layers = self.student.layers.count();
        let pairs = |pairs: &[[usize; 2]], least: usize| {
            !pairs.is_empty() && pairs.iter().all(|[student, _]| (least..=layers).contains(student))
        };
        if hidden.as_ref().is_some_and(|hidden| !pairs(&hidden.layers, 0)) {
            let expected = "pairs of a layer of the student and one of the teacher, from 0";
            return Err(self.value("losses.hidden", expected, format!("{hidden:?}")));
        }
        if attention.as_ref().is_some_and(|attention| !pairs(&attention.layers, 1)) {
            let expected = "pairs of a layer of the student and one of the teacher, from 1";
            return Err(self.value("losses.attention", expected, format!("{attention:?}")));
        }
        if attention.is_some() && self.student.heads.is_some() {
            let expected = "no `student.heads`: both sides need as many heads";
            return Err(self.value("losses.attention", expected, "both".to_owned()));
        }
        if let Some(relations) = relations {
            self.within("losses.relations.student_layer", relations.student_layer, 1, layers)?;
        }
        self.check_purpose()
    }

    /// Something must be learned that the student gives.
    fn check_purpose(&self) -> Result<()> {
        let Losses { soft, hard, embedding, similarity, .. } = &self.losses;
        let labels = soft.map_or(0.0, |term| term.weight) + hard.unwrap_or(0.0);
        let vectors = embedding.map_or(0.0, |term| term.weight) + similarity.unwrap_or(0.0);
        match &self.data {
            Data::Labelled(_) if labels <= 0.0 => {
                Err(self.value("losses", "`soft` or `hard` above 0", format!("{labels}")))
            }
            Data::Sentences(_) if labels > 0.0 => {
                let expected = "neither `soft` nor `hard`: sentences have no labels";
                Err(self.value("losses", expected, format!("{labels}")))
            }
            Data::Sentences(_) if vectors <= 0.0 && !self.losses.looks_inside() => {
                let expected = "a term that compares sentences, layers or words";
                Err(self.value("losses", expected, "none".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn check_exits(&self) -> Result<()> {
        let Some(exits) = self.student.exits else { return Ok(()) };
        self.weight("student.exits.weight", exits.weight)?;
        self.weight("student.exits.deepest", exits.deepest)?;
        self.temperature("student.exits.temperature", exits.temperature)?;
        if matches!(self.data, Data::Sentences(_)) {
            let expected = "labelled data: an exit is taken by the certainty of its answer";
            return Err(self.value("student.exits", expected, "sentences".to_owned()));
        }
        self.within("student.layers", self.student.layers.count(), 2, 1000)
    }

    fn check_scheme(&self) -> Result<()> {
        let labelled = matches!(self.data, Data::Labelled(_));
        let alone = !self.scheme.has_teacher();
        if alone && !labelled {
            let expected = "`offline` or `born_again` for sentences: nobody knows their labels";
            return Err(self.value("scheme", expected, format!("{:?}", self.scheme)));
        }
        if alone && (self.teacher.training.is_some() || !self.further_teachers.is_empty()) {
            let expected = "no training and no further teachers: by this scheme nobody asks them";
            return Err(self.value("teacher.training", expected, format!("{:?}", self.scheme)));
        }
        if alone && self.losses.hard.unwrap_or(0.0) <= 0.0 {
            let expected = "above 0: by this scheme nobody else knows the labels";
            return Err(self.value("losses.hard", expected, format!("{:?}", self.losses.hard)));
        }
        let nobody = self.teacher.training.is_none() && self.further_teachers.is_empty();
        if self.scheme == Scheme::Offline && labelled && nobody {
            let expected = "a table: before it is fine-tuned, a teacher knows no labels";
            return Err(self.value("teacher.training", expected, "none".to_owned()));
        }
        let inside = self.losses.looks_inside() || self.losses.words.is_some();
        if inside && !matches!(self.scheme, Scheme::Offline | Scheme::Online) {
            let expected = "`offline` or `online` for losses that look inside of the teacher";
            return Err(self.value("scheme", expected, format!("{:?}", self.scheme)));
        }
        if self.losses.words.is_some() && labelled {
            let expected = "`data.sentences`: words are guessed where there are no labels";
            return Err(self.value("losses.words", expected, "`data.labelled`".to_owned()));
        }
        self.check_scheme_numbers()
    }

    fn check_scheme_numbers(&self) -> Result<()> {
        match &self.scheme {
            Scheme::Mutual(mutual) => {
                self.within("scheme.mutual.peers", mutual.peers.len(), 1, 15)?;
                let mut peers = mutual.peers.iter().map(|peer| Layers::These(peer.clone()));
                peers.try_for_each(|peer| self.check_layers("scheme.mutual.peers", &peer))
            }
            Scheme::CoDistil(workers) => {
                self.within("scheme.co_distil.workers", workers.workers, 2, 1000)?;
                self.within("scheme.co_distil.every", workers.every, 1, usize::MAX)
            }
            Scheme::BornAgain { generations } => {
                self.within("scheme.born_again.generations", *generations, 1, 100)
            }
            Scheme::Average { decay } if !(0.0..1.0).contains(decay) => {
                Err(self.value("scheme.average.decay", "from 0 to below 1", decay.to_string()))
            }
            Scheme::Snapshots { every } => self.within("scheme.snapshots.every", *every, 1, 10_000),
            Scheme::Progressive { last } if !(0.0..1.0).contains(last) => {
                Err(self.value("scheme.progressive.last", "from 0 to below 1", last.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn weight(&self, field: &'static str, weight: f64) -> Result<()> {
        match (0.0..=1e6).contains(&weight) {
            true => Ok(()),
            false => Err(self.value(field, "a weight from 0 to 1000000", weight.to_string())),
        }
    }

    fn temperature(&self, field: &'static str, temperature: f64) -> Result<()> {
        match (0.1..=100.0).contains(&temperature) {
            true => Ok(()),
            false => {
                Err(self.value(field, "a `temperature` from 0.1 to 100", temperature.to_string()))
            }
        }
    }

    fn within(&self, field: &'static str, got: usize, least: usize, most: usize) -> Result<()> {
        if (least..=most).contains(&got) {
            return Ok(());
        }
        Err(self.value(field, &format!("{least} to {most}"), got.to_string()))
    }

    fn value(&self, field: &'static str, expected: &str, got: String) -> Error {
        Error::RecipeValue { path: self.path.clone(), field, expected: expected.to_owned(), got }
    }
}

impl Training {
    /// What is expected of the first value out of its range, and the value.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        match self {
            t if t.epochs == 0 => Some(("`epochs` of at least 1", "0".to_owned())),
            t if t.batch < 2 => Some(("`batch` of at least 2", t.batch.to_string())),
            t if !(1..=t.batch / 2).contains(&t.parts.unwrap_or(1)) => {
                Some(("`parts` from 1 to half the batch", format!("{:?}", t.parts)))
            }
            t if !(t.learning_rate > 0.0 && t.learning_rate < 0.1) => {
                Some(("`learning_rate` between 0 and 0.1", t.learning_rate.to_string()))
            }
            t if !(0.0..1.0).contains(&t.warmup) => {
                Some(("`warmup` from 0 to below 1", t.warmup.to_string()))
            }
            t if !(0.0..1.0).contains(&t.weight_decay) => {
                Some(("`weight_decay` from 0 to below 1", t.weight_decay.to_string()))
            }
            t if t.clip_norm.is_nan() || t.clip_norm <= 0.0 => {
                Some(("`clip_norm` above 0", t.clip_norm.to_string()))
            }
            t if t.patience == Some(0) => Some(("`patience` of at least 1", "0".to_owned())),
            _ => None,
        }
    }
}
