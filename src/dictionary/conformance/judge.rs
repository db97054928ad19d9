//! What is wrong with dictionaries, each compared with the others of its kind (`docs/definitions.md`
//! §3): refused with the cause where a reading shows it, warned about where only the numbers do.

use super::groups::median;
use super::suspects::Tried;
use super::{Conformance, RowFit};
use crate::error::{Result, hinted};
use crate::format::number::percent;
use std::fmt::Write;

/// Without another dictionary to compare with, a reading is evidence if it explains more than this.
const ENOUGH: f64 = 0.45;
/// With others, if it explains this share of what they explain …
const NEAR: f64 = 0.75;
/// … with at most this many times their active features, or that part of them.
const L0_NEAR: f64 = 3.0;
/// A dictionary is warned about if it leaves so many times what others leave unexplained, …
const UNEXPLAINED: f64 = 2.5;
/// … has so many times their active features, or that part of them, …
const L0: f64 = 6.0;
/// … or that part of their features that are ever active.
const ALIVE: f64 = 4.0;

/// What loss recovered may be at most by the luck of the sample: 1 is the model itself.
const RECOVERED: f64 = 1.05;

/// Features with others' decoder rows are warned about if they write more than the first share of
/// everything, and the second times what they write in other dictionaries, …
const MORE_ROWS: (f64, f64) = (0.01, 5.0);
/// … or this where there is no other dictionary; …
const USUAL_ROWS: f64 = 0.004;
/// … are at least so many; …
const FEWEST_ROWS: usize = 10;
/// … and are the cause if they write this share while most rows fit.
const PERMUTED: f64 = 0.03;
/// How far from 1 the median scale of rows may be for the others to be as they were trained.
const AS_TRAINED: f64 = 0.1;

/// Readings in a message.
const SHOWN: usize = 5;

/// What is to be said about each dictionary that can be used, in their order.
///
/// # Errors
/// When one cannot: another reading of it fits far better, or it explains less than the mean does.
pub fn judge(all: &[Conformance]) -> Result<Vec<Vec<String>>> {
    let of = |one: &Conformance| Judged { one, others: Others::of(one, all) }.told();
    all.iter().map(of).collect()
}

/// The medians of the other dictionaries of a kind that nothing speaks against.
struct Others {
    kind: &'static str,
    explained: f64,
    /// The same on the tokens that readings are tried on.
    explained_tried: f64,
    l0: f64,
    /// The share of features that are ever active.
    alive: f64,
    /// The share of what is written that features with others' rows write.
    rows: f64,
}

/// A share of variance in a message.
fn two(x: f64) -> String {
    format!("{x:.2}")
}

fn alive(one: &Conformance) -> f64 {
    1.0 - one.dead as f64 / one.width.max(1) as f64
}

impl Others {
    fn of(one: &Conformance, all: &[Conformance]) -> Option<Others> {
        let healthy = |other: &&Conformance| {
            let suspect = |tried: &Tried| tried.is_far_better() && tried.explained > ENOUGH;
            other.id.kind == one.id.kind
                && other.id != one.id
                && other.typical.explained > 0.0
                && other.lost.is_none()
                && !other.readings.tried.iter().any(suspect)
        };
        let others: Vec<&Conformance> = all.iter().filter(healthy).collect();
        let of = |number: fn(&Conformance) -> f64| median(others.iter().map(|other| number(other)));
        (!others.is_empty()).then(|| Others {
            kind: one.id.kind.word(),
            explained: of(|other| other.typical.explained),
            explained_tried: of(|other| other.readings.own),
            l0: of(|other| other.typical.l0),
            alive: of(alive),
            rows: of(|other| other.rows.share),
        })
    }

    /// How far a reading is from them; none if it is not near.
    fn distance(&self, tried: &Tried) -> Option<f64> {
        let l0 = (tried.l0 / self.l0).ln().abs();
        let left = tried.doubt * (1.0 - tried.explained);
        let worse = left / (1.0 - self.explained_tried).max(f64::MIN_POSITIVE);
        let near = tried.explained >= NEAR * self.explained_tried && l0 <= L0_NEAR.ln();
        near.then(|| l0 + worse.max(1.0).ln())
    }
}

struct Judged<'a> {
    one: &'a Conformance,
    others: Option<Others>,
}

impl Judged<'_> {
    /// The warnings.
    fn told(&self) -> Result<Vec<String>> {
        let one = self.one;
        let unlike = self.is_far_below() || self.is_extreme() || one.typical.explained < 0.0;
        if let Some(name) = one.lost.filter(|_| unlike) {
            let what = format!("and its `{name}` is zero throughout");
            return Err(hinted(self.explains(&what), LOST));
        }
        if let Some(suspect) = self.suspect() {
            let what = format!("but {} {}", two(suspect.explained), suspect.when);
            return Err(hinted(self.explains(&what), suspect.hint));
        }
        if self.is_permuted() {
            let what = format!("`{}`: {}", one.origin.display(), self.others_rows());
            return Err(hinted(what, OTHERS_ROWS));
        }
        if one.typical.explained < 0.0 {
            return Err(hinted(
                format!("{}\n{}", self.explains("less than the mean does"), self.table()),
                "none of these readings fits it: use dictionaries trained on this model, and \
                 check that the corpus is text",
            ));
        }
        Ok(self.warnings())
    }

    fn explains(&self, what: &str) -> String {
        let one = self.one;
        let compared = match &self.others {
            Some(others) => format!(
                " (the median of the other {} dictionaries is {})",
                others.kind,
                two(others.explained)
            ),
            None => String::new(),
        };
        format!(
            "`{}` explains {} of the variance of its hook `{}`{compared}, {what}",
            one.origin.display(),
            two(one.typical.explained),
            one.id.hook(),
        )
    }

    /// The reading that shows what is wrong.
    fn suspect(&self) -> Option<&Tried> {
        let better = self.one.readings.tried.iter().filter(|tried| tried.is_far_better());
        let nearest = |distance: &dyn Fn(&Tried) -> Option<f64>| {
            let measured = better.clone().filter_map(|tried| Some((distance(tried)?, tried)));
            measured.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, tried)| tried)
        };
        match &self.others {
            Some(others) => nearest(&|tried| others.distance(tried)),
            None => nearest(&|tried| {
                (tried.explained > ENOUGH).then_some(tried.doubt * (1.0 - tried.explained))
            }),
        }
    }

    /// Some rows of its decoder are other features', far more than in other dictionaries.
    fn has_others_rows(&self) -> bool {
        let usual = self.others.as_ref().map_or(USUAL_ROWS, |others| others.rows);
        let rows = &self.one.rows;
        rows.share > MORE_ROWS.0 + MORE_ROWS.1 * usual && rows.others.len() >= FEWEST_ROWS
    }

    /// The same, and most of its rows fit.
    fn is_permuted(&self) -> bool {
        let rows = &self.one.rows;
        self.has_others_rows() && rows.share > PERMUTED && (rows.median - 1.0).abs() < AS_TRAINED
    }

    fn others_rows(&self) -> String {
        let RowFit { others, active, share, .. } = &self.one.rows;
        format!(
            "the rows of `W_dec` of {} of its {active} active features do not fit the tokens \
             that they are active on; they are {} of what it writes",
            others.len(),
            percent(*share),
        )
    }

    fn is_far_below(&self) -> bool {
        let explained = self.one.typical.explained;
        self.others
            .as_ref()
            .is_some_and(|others| 1.0 - explained > UNEXPLAINED * (1.0 - others.explained))
    }

    fn is_extreme(&self) -> bool {
        let l0 = |others: &Others| (self.one.typical.l0 / others.l0).ln().abs() > L0.ln();
        self.others.as_ref().is_some_and(l0)
    }

    fn warnings(&self) -> Vec<String> {
        let one = self.one;
        let mut warnings = one.notes.clone();
        let better = one.readings.tried.iter().filter(|tried| tried.is_far_better());
        let best = better.max_by(|a, b| a.explained.total_cmp(&b.explained));
        if let Some(tried) = best.filter(|tried| tried.explained > ENOUGH || self.is_far_below()) {
            warnings.push(format!(
                "on some of the tokens it explains {} of the variance as its file says, and {} {}, \
                 unlike the others in variance explained or active features",
                two(one.readings.own),
                two(tried.explained),
                tried.when
            ));
        }
        if let Some(others) = &self.others {
            if self.is_far_below() {
                warnings.push(format!(
                    "{} of the variance explained, but {} by the median of the other {} \
                     dictionaries; check that it is of this model and converted rightly",
                    two(one.typical.explained),
                    two(others.explained),
                    others.kind
                ));
            }
            if self.is_extreme() {
                warnings.push(format!(
                    "{:.1} features active per token, but {:.1} in the median of the other {} \
                     dictionaries; check its threshold and bias",
                    one.typical.l0, others.l0, others.kind
                ));
            }
            if alive(one) * ALIVE < others.alive {
                warnings.push(format!(
                    "{} of its features are ever active, but {} in the median of the other {} \
                     dictionaries; check its threshold and bias",
                    percent(alive(one)),
                    percent(others.alive),
                    others.kind
                ));
            }
        }
        let recovered = one.loss_recovered.filter(|share| *share > RECOVERED && one.predicts);
        if let Some(share) = recovered.filter(|_| one.typical.recovered > RECOVERED) {
            warnings.push(format!(
                "{} of the loss recovered: with its reconstruction the model predicts better than \
                 by itself, so the dictionary or the model may be read wrongly or damaged",
                two(share)
            ));
        }
        if one.in_logs {
            warnings.push(
                "most of its `threshold` is below 0, as logarithms are; was it to be read with \
                 `threshold` exponentiated?"
                    .into(),
            );
        }
        if let Some(name) = one.lost {
            warnings.push(format!(
                "its `{name}` is zero throughout; check that it was not lost in conversion"
            ));
        }
        if self.has_others_rows() {
            warnings.push(self.others_rows());
        }
        warnings
    }

    /// The readings that explain most, a line each.
    fn table(&self) -> String {
        let mut tried: Vec<&Tried> = self.one.readings.tried.iter().collect();
        tried.sort_by(|a, b| b.explained.total_cmp(&a.explained));
        let mut text = format!("  {:>6}  as its file says", two(self.one.readings.own));
        for tried in tried.iter().take(SHOWN) {
            write!(text, "\n  {:>6}  {}", two(tried.explained), tried.when).ok();
        }
        if tried.len() > SHOWN {
            write!(text, "\n          {} other readings explain less", tried.len() - SHOWN).ok();
        }
        if self.has_others_rows() {
            write!(text, "\n          {}", self.others_rows()).ok();
        }
        text
    }
}

const OTHERS_ROWS: &str = "rows of its `W_dec` are permuted against the columns of its `W_enc`; \
    use the weights as they were trained";
const LOST: &str = "that tensor was lost when it was converted; use the weights as they were \
    trained";
