//! The texts on which explanations are tried: windows of the *score* half, as a judge is shown
//! them.

use super::work::Work;
use crate::artifact::tables::{CauseRow, ExampleRow};
use crate::atlas::cause_group;
use crate::circuit::{Near, ReplacementModel, nearest};
use crate::error::Result;
use crate::ids::Band;
use crate::ids::FeatureId;
use crate::ids::Half;
use crate::llm::judge::JudgeMethod;
use crate::stages::{cause_rows, excerpts};
use crate::stats::examples::window;
use crate::stats::feature::TokenActivation;
use crate::stats::mix;
use crate::stats::rule::Rule;
use crate::stats::trials::{
    Active, Taken, TextWindow, Trial, by_rule, detection, fuzzing, in_turn, intruders, is_inactive,
    marks,
};
use std::collections::{BTreeMap, BTreeSet};

/// Features with similar write directions whose texts are looked through.
const SIMILAR: usize = 5;

/// A text, and what is to be said of it.
pub(super) struct Text {
    pub band: Band,
    pub context: u32,
    pub start: u16,
    pub tokens: u32,
    /// The largest activation in it.
    pub activation: f32,
    /// Positions in the context.
    pub marked: Vec<u32>,
    pub truth: bool,
    /// What the feature's single-token rule says.
    pub by_rule: bool,
    pub shown: String,
}

/// Texts of a feature for a method; of a clause of its explanation, those for this clause.
pub(super) type TextsOf = (usize, JudgeMethod, Option<usize>);

/// Of so many active texts as a clause is to be tried on, so many are looked through for its cause.
const LOOKED_THROUGH: usize = 3;

/// What texts are taken from.
struct Sources<'a> {
    work: &'a Work<'a>,
    replacement: &'a ReplacementModel,
    rules: &'a [Rule],
    /// By key, the most similar first.
    similar: Vec<Vec<usize>>,
    /// Where each token that is of use stands in the *score* half.
    places: BTreeMap<u32, Vec<(u32, u16)>>,
}

impl Work<'_> {
    /// The texts of some features by each method; for detection also those of each clause of their
    /// explanations.
    pub(super) fn texts(
        &self,
        replacement: &ReplacementModel,
        rules: &[Rule],
        keys: &[usize],
        methods: &[JudgeMethod],
    ) -> Result<BTreeMap<TextsOf, Vec<Text>>> {
        self.run.progress.say("choosing texts");
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        let sources = Sources::load(self, replacement, rules, &keys)?;
        let of = |i: usize, own: &[TokenActivation]| {
            let texts = |&method| ((keys[i], method, None), sources.texts(keys[i], method, own));
            methods.iter().map(texts).collect::<Vec<_>>()
        };
        let mut texts: BTreeMap<TextsOf, Vec<Text>> =
            self.of_activations(&keys, of)?.into_iter().flatten().collect();
        if methods.contains(&JudgeMethod::Detection) {
            texts.extend(sources.of_clauses(&keys)?);
        }
        Ok(texts)
    }

    fn window(&self, band: Band, context: u32, position: u16) -> TextWindow<'_> {
        let row = &self.contexts.rows[context as usize];
        let (start, end) = window(position.into(), row.tokens.len());
        TextWindow {
            band,
            context,
            document: row.document,
            start: start as u16,
            tokens: &row.tokens[start..end],
            value: 0.0,
        }
    }
}

fn of_example<'a>(band: Band, row: &'a ExampleRow) -> TextWindow<'a> {
    TextWindow {
        band,
        context: row.context,
        document: row.document,
        start: row.start,
        tokens: &row.tokens,
        value: if band == row.band { row.value } else { 0.0 },
    }
}

impl<'a> Sources<'a> {
    fn load(
        work: &'a Work<'a>,
        replacement: &'a ReplacementModel,
        rules: &'a [Rule],
        keys: &[usize],
    ) -> Result<Sources<'a>> {
        let ids: Vec<FeatureId> = work.features.iter().map(|row| row.feature).collect();
        let similar = nearest(replacement, &ids, SIMILAR)?;
        let numbers = |own: Vec<Near>| own.into_iter().map(|near| near.number).collect();
        let similar = similar.into_iter().map(numbers).collect();
        let mut sources = Sources { work, replacement, rules, similar, places: BTreeMap::new() };
        let wanted: BTreeSet<u32> = keys.iter().flat_map(|&key| sources.own_tokens(key)).collect();
        sources.places = sources.places_of(&wanted);
        Ok(sources)
    }

    /// The token that has most of a feature's activation in the *explain* half, and those of its
    /// rule.
    fn own_tokens(&self, key: usize) -> BTreeSet<u32> {
        let most = self.work.features[key].explain_tokens.first();
        self.rules[key].iter().chain(most).copied().collect()
    }

    fn places_of(&self, wanted: &BTreeSet<u32>) -> BTreeMap<u32, Vec<(u32, u16)>> {
        let contexts = &self.work.contexts;
        let mut places: BTreeMap<u32, Vec<(u32, u16)>> = BTreeMap::new();
        for row in contexts.rows.iter().filter(|row| !contexts.explain[row.context as usize]) {
            for position in 0..row.tokens.len() as u16 {
                let token =
                    contexts.counting(row.context, position).filter(|id| wanted.contains(id));
                if let Some(id) = token {
                    places.entry(id).or_default().push((row.context, position));
                }
            }
        }
        places
    }

    /// With the texts that the explanation may have seen.
    fn taken(&self, key: usize) -> Taken<'a> {
        Taken::with(self.work.examples(key, Half::Explain).map(|row| row.tokens.as_slice()))
    }

    fn texts(&self, key: usize, method: JudgeMethod, own: &[TokenActivation]) -> Vec<Text> {
        let work = self.work;
        let (n, taken, salt) = (work.run.config.evaluate.texts, self.taken(key), work.salts[key]);
        let threshold = work.threshold(key);
        let marked = || {
            let mut active = work.active(key, |row| self.marked(row));
            active.iter_mut().for_each(|band| band.retain(|one| one.window.value >= threshold));
            active
        };
        let trials = match method {
            // The same texts, so that the two can be compared.
            JudgeMethod::Detection | JudgeMethod::Embedding => {
                let all = work.active(key, |row| of_example(row.band, row));
                let part = |strong: bool| {
                    let own = |band: &Vec<TextWindow<'a>>| {
                        let fits = |one: &&TextWindow| (one.value >= threshold) == strong;
                        band.iter().filter(fits).copied().collect::<Vec<_>>()
                    };
                    all.iter().map(own).collect::<Vec<_>>()
                };
                detection(&part(true), &part(false), &self.inactive(key, own), n, taken, salt)
            }
            JudgeMethod::Fuzzing => fuzzing(&marked(), n, taken, salt),
            JudgeMethod::Intruder => {
                let inactive = self.inactive(key, own).map(|kind| {
                    kind.into_iter().map(|window| self.intruder(key, window)).collect()
                });
                intruders(&marked(), &inactive, n.div_ceil(2), taken, salt)
            }
        };
        trials.iter().map(|trial| self.text(key, trial)).collect()
    }

    /// The texts of each clause: active ones that have its cause, and as many inactive ones.
    fn of_clauses(&self, keys: &[usize]) -> Result<BTreeMap<TextsOf, Vec<Text>>> {
        let (work, n) = (self.work, self.work.run.config.evaluate.texts);
        let several: Vec<(usize, &[String])> = keys
            .iter()
            .filter_map(|&key| Some((key, work.first(key)?.causes.as_slice())))
            .filter(|(_, causes)| !causes.is_empty())
            .collect();
        let candidates = |key: usize| {
            let (mut taken, threshold) = (self.taken(key), work.threshold(key));
            let strong = work.active(key, |row| row);
            let free = |row: &&'a ExampleRow| {
                row.value >= threshold && taken.take(&of_example(row.band, row))
            };
            in_turn(&strong, LOOKED_THROUGH * n, work.salts[key], free)
        };
        let rows: Vec<Vec<&ExampleRow>> = several.iter().map(|(key, _)| candidates(*key)).collect();
        let at = |(key, row): (usize, &&ExampleRow)| cause_rows::At {
            context: row.context,
            position: row.peak,
            feature: work.features[key].feature,
        };
        let all = several
            .iter()
            .zip(&rows)
            .flat_map(|((key, _), own)| own.iter().map(move |row| at((*key, row))));
        let found = cause_rows::of(work.run, self.replacement, &work.contexts, all.collect(), 1)?;
        let cause = |row: &CauseRow| {
            let place = (row.feature, row.context, row.peak);
            Some((place, cause_group(row, work.contexts.tokenizer())?))
        };
        let causes: BTreeMap<_, String> = found.iter().filter_map(cause).collect();
        let of = |i: usize, own: &[TokenActivation]| {
            let ((key, clauses), rows) = (several[i], &rows[i]);
            let (inactive, salt) = (self.inactive(key, own), work.salts[key]);
            let feature = work.features[key].feature;
            let of_clause = |(clause, wanted): (usize, &String)| {
                let has = |row: &&&ExampleRow| {
                    causes.get(&(feature, row.context, row.peak)) == Some(wanted)
                };
                let active = rows.iter().filter(has).map(|row| of_example(row.band, row)).collect();
                let trials = detection(&[active], &[], &inactive, n, self.taken(key), salt);
                let shown = trials.iter().map(|trial| self.text(key, trial)).collect();
                ((key, JudgeMethod::Detection, Some(clause)), shown)
            };
            clauses.iter().enumerate().map(of_clause).collect::<Vec<_>>()
        };
        let keys: Vec<usize> = several.iter().map(|(key, _)| *key).collect();
        Ok(work.of_activations(&keys, of)?.into_iter().flatten().collect())
    }

    /// Windows where the feature is inactive: around its own tokens, texts of similar features, and
    /// any.
    fn inactive(&self, key: usize, own: &[TokenActivation]) -> [Vec<TextWindow<'a>>; 3] {
        let inactive = |w: &TextWindow| is_inactive(own, w.context, w.start, w.tokens.len());
        let any = self.work.examples(key, Half::Score).filter(|row| row.band == Band::Inactive);
        [
            self.around_own_tokens(key).into_iter().filter(inactive).collect(),
            self.of_similar(key).into_iter().filter(inactive).collect(),
            any.map(|row| of_example(Band::Inactive, row)).collect(),
        ]
    }

    /// In the order of a hash.
    fn around_own_tokens(&self, key: usize) -> Vec<TextWindow<'a>> {
        let tokens = self.own_tokens(key);
        let mut places: Vec<(u32, u16)> =
            tokens.iter().flat_map(|id| self.places.get(id)).flatten().copied().collect();
        places.sort_by_cached_key(|&(context, position)| {
            mix(self.work.salts[key], u64::from(context) << 16 | u64::from(position))
        });
        places
            .into_iter()
            .map(|(context, position)| self.work.window(Band::Token, context, position))
            .collect()
    }

    /// The best of each similar feature, then the second best, and so on.
    fn of_similar(&self, key: usize) -> Vec<TextWindow<'a>> {
        let top = |(near, &other): (usize, &usize)| {
            let own = self.work.examples(other, Half::Score).filter(|row| row.band == Band::Top);
            own.map(move |row| (row.rank, near, of_example(Band::Similar, row)))
        };
        let mut all: Vec<(u32, usize, TextWindow)> =
            self.similar[key].iter().enumerate().flat_map(top).collect();
        all.sort_by_key(|&(rank, near, _)| (rank, near));
        all.into_iter().map(|(_, _, window)| window).collect()
    }

    /// An active example with the places for marks. A token that is only a part of a character
    /// cannot be marked alone.
    fn marked(&self, row: &'a ExampleRow) -> Active<'a> {
        let whole = excerpts::whole(&row.tokens, self.work.contexts.tokenizer());
        let (right, inactive) = marks(&row.activations, |place| whole.contains(&place));
        Active { window: of_example(row.band, row), right, inactive }
    }

    /// An inactive window with the places for marks: first of all the feature's own token, where it
    /// was chosen for that.
    fn intruder(&self, key: usize, window: TextWindow<'a>) -> Active<'a> {
        let whole = excerpts::whole(window.tokens, self.work.contexts.tokenizer());
        let own = self.own_tokens(key);
        let is_own = |place: &u16| {
            window.band == Band::Token && own.contains(&window.tokens[usize::from(*place)])
        };
        let inactive: Vec<u16> = whole.into_iter().map(|place| place as u16).collect();
        let right = inactive.iter().copied().filter(is_own).take(1).collect();
        Active { window, right, inactive }
    }

    fn text(&self, key: usize, trial: &Trial) -> Text {
        let Trial { window, marked, truth } = trial;
        let contexts = &self.work.contexts;
        Text {
            band: window.band,
            context: window.context,
            start: window.start,
            tokens: window.tokens.len() as u32,
            activation: window.value,
            marked: marked.iter().map(|&place| u32::from(window.start + place)).collect(),
            truth: *truth,
            by_rule: by_rule(&self.rules[key], window.tokens, marked),
            shown: excerpts::marked(contexts, window.context, window.start, window.tokens, marked),
        }
    }
}
