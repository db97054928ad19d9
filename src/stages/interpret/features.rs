//! The question about a feature: its texts from the strongest to the inactive ones with what brings
//! its activation there, where it is active among its tokens, what its weights read, what it serves
//! in tasks, and what it promotes.

use super::served::Served;
use super::subjects::{PROMOTED, SUPPRESSED, Said, Subjects, told};
use crate::artifact::tables::{
    AblatedRow, BeforeRow, CauseRow, EvidenceRow, FeatureRow, ProfileRow, ReadingRow,
};
use crate::atlas::{Reader, WhyTables, cause_group, cause_in_words, sources};
use crate::corpus::Tokenizer;
use crate::error::{Result, hinted};
use crate::format::text::positions;
use crate::ids::{Band, Beside, FeatureId, Kind, Profiled, Shown, Side, Subject};
use crate::llm::Question;
use crate::llm::excerpt::level;
use crate::llm::explainer::{
    BeforeEvidence, CauseGroup, Evidence, FeatureEvidence, PairTexts, Profile, ProfileShare,
    SourceShare, TextEvidence, TokenEvidence,
};
use crate::stages::Run;
use crate::stages::excerpts::{of_context, of_example};
use crate::stats::profile::BINS;
use crate::stats::{STANDS_OUT, salt};
use crate::summary::{percent, quoted};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Inactive texts that are shown, and the fewest tokens of one.
const INACTIVE_TEXTS: usize = 4;
const FEWEST_TOKENS: usize = 16;
/// A feature that is active at more of the tokens is broad: its lowest levels are not marked.
const BROAD: f64 = 0.1;
const BROAD_FROM: u32 = 3;
/// Sources of a text that are told, and the least share of what is read that one must have.
const SOURCES: usize = 3;
const LEAST_SHARE: f64 = 0.05;
/// Sources over all texts.
const ALL_SOURCES: usize = 6;
/// Tokens at the distance that tells most.
const DECIDING: usize = 48;
/// Positions are told if at one of them the feature is so much more often active than anywhere.
const TELLING: f64 = 3.0;
/// Earlier features that its weights read.
const EARLIER: usize = 4;

/// The causes that explanations of features have clauses for.
pub(super) type Causes = BTreeMap<Subject, Vec<String>>;

/// What is known of features besides the examples of their pages.
pub(super) struct Material<'a> {
    tables: &'a WhyTables,
    served: Served,
}

impl<'a> Material<'a> {
    pub(super) fn load(
        run: &Run,
        reader: &'a Reader,
        tokenizer: &Tokenizer,
    ) -> Result<Material<'a>> {
        let served = Served::load(run, tokenizer, reader.heads()?)?;
        Ok(Material { tables: reader.why_tables()?, served })
    }
}

impl Subjects<'_> {
    /// The questions about all features that are active where explanations look, each as often as
    /// samples are wanted. They come in a drawn order: where money ends early, what has been
    /// explained is no choice of layers.
    pub(super) fn questions_alone(
        &self,
        material: &Material,
        said: &Said,
    ) -> Result<(Vec<Question>, Causes)> {
        let llm = &self.run.config.llm;
        let mut active: Vec<&FeatureRow> =
            self.features.iter().filter(|row| !row.explain_tokens.is_empty()).collect();
        if !llm.features.is_empty() {
            self.only(&mut active)?;
        }
        active.sort_by_cached_key(|row| (salt(&row.feature.to_string()), row.feature.to_string()));
        let question = |row: &&FeatureRow| {
            let evidence = About { subjects: self, material, said, row }.evidence();
            let (subject, causes) = (Subject::from(row.feature), evidence.causes());
            let evidence = Evidence::Feature(Box::new(evidence));
            let question = evidence.question(&subject, &llm.model, &self.about)?;
            Ok((question, (subject, causes)))
        };
        let asked: Vec<_> = active.par_iter().map(question).collect::<Result<_>>()?;
        let (questions, causes): (Vec<Question>, Causes) = asked.into_iter().unzip();
        let again = |question: Question| {
            (0..llm.samples).map(move |sample| Question { sample, ..question.clone() })
        };
        Ok((questions.into_iter().flat_map(again).collect(), causes))
    }

    /// Leaves the features that the settings name.
    fn only(&self, active: &mut Vec<&FeatureRow>) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for name in &self.run.config.llm.features {
            let feature: FeatureId = name.parse()?;
            if !self.features.iter().any(|row| row.feature == feature) {
                return Err(hinted(
                    format!("`llm.features` names {feature}, which was not scored"),
                    "take it out, or add it to `score.extra`",
                ));
            }
            wanted.insert(feature);
        }
        active.retain(|row| wanted.contains(&row.feature));
        Ok(())
    }
}

/// Of a long list the first and the last ones, and some between.
fn thinned_ends<T>(list: Vec<T>) -> Vec<T> {
    let n = list.len();
    if n <= DECIDING {
        return list;
    }
    let (ends, step) = (DECIDING / 3, (n - 2 * (DECIDING / 3)).div_ceil(DECIDING / 3));
    let kept = |i: usize| i < ends || i >= n - ends || (i - ends).is_multiple_of(step);
    list.into_iter().enumerate().filter(|(i, _)| kept(*i)).map(|(_, one)| one).collect()
}

/// One feature, and what is known.
struct About<'a> {
    subjects: &'a Subjects<'a>,
    material: &'a Material<'a>,
    said: &'a Said,
    row: &'a FeatureRow,
}

impl About<'_> {
    fn evidence(&self) -> FeatureEvidence {
        let (subjects, row) = (self.subjects, self.row);
        let subject = &Subject::from(row.feature);
        let inactive = subjects
            .band(subject, Band::Inactive)
            .filter(|example| example.tokens.len() >= FEWEST_TOKENS)
            .take(INACTIVE_TEXTS);
        FeatureEvidence {
            attention: row.kind == Kind::Attention,
            layer: row.layer,
            last_layer: subjects.last_layer,
            density: row.explain_density,
            from: self.from(),
            strongest: self.grouped(),
            weaker: self.rows(Shown::Weaker).map(|row| self.text(row)).collect(),
            pairs: self.pairs(),
            inactive: inactive
                .map(|example| of_example(example, &subjects.contexts).plain())
                .collect(),
            profile: self.profile(),
            sources: self.sources(),
            reads: self.reads(),
            earlier: self.earlier(),
            named: self.named(),
            before: self.before(),
            served: self.material.served.of(row.feature, self.max(), &subjects.run.config.tasks),
            tokens: self.promoted(subject),
            live: self.live(),
        }
    }

    fn from(&self) -> u32 {
        if self.row.explain_density > BROAD { BROAD_FROM } else { 1 }
    }

    fn rows(&self, role: Shown) -> impl Iterator<Item = &EvidenceRow> {
        self.material.tables.evidence(self.row.feature, role)
    }

    /// The largest activation of the *explain* half.
    fn max(&self) -> f32 {
        self.rows(Shown::Strongest).map(|row| row.value).fold(0.0, f32::max)
    }

    fn marked(&self, row: &EvidenceRow) -> String {
        let contexts = &self.subjects.contexts;
        of_context(contexts, row.context, row.start, &row.tokens, &row.activations)
            .scaled(self.max(), self.from())
    }

    fn text(&self, row: &EvidenceRow) -> TextEvidence {
        let told: Vec<String> = self
            .merged(row)
            .into_iter()
            .filter(|(_, share)| *share >= LEAST_SHARE)
            .take(SOURCES)
            .map(|(what, share)| format!("{what} {}", percent(share)))
            .collect();
        TextEvidence {
            level: level(row.value, self.max()),
            text: self.marked(row),
            from: told.join(", "),
        }
    }

    fn causes(&self, row: &EvidenceRow) -> &[CauseRow] {
        self.material.tables.causes(row)
    }

    /// A token in backticks. BOS is where the text starts.
    fn token(&self, id: u32) -> String {
        match self.subjects.tokenizer.is_special(id) {
            true => "the start of the text".into(),
            false => quoted(&self.subjects.tokenizer.token(id)),
        }
    }

    /// What brings the activation of a text, in words with its share, the largest first. What
    /// several heads read at a token counts as one.
    fn merged(&self, row: &EvidenceRow) -> Vec<(String, f64)> {
        let mut merged: Vec<(u32, String, f64, Vec<u32>)> = Vec::new();
        for cause in self.causes(row) {
            let (what, head) = (cause_in_words(cause, &self.subjects.tokenizer), cause.head);
            match merged.iter_mut().find(|(at, known, ..)| *at == cause.position && *known == what)
            {
                Some((_, _, share, heads)) => {
                    *share += f64::from(cause.share);
                    heads.extend(head);
                }
                None => merged.push((
                    cause.position,
                    what,
                    f64::from(cause.share),
                    head.into_iter().collect(),
                )),
            }
        }
        merged.sort_by(|a, b| b.2.total_cmp(&a.2));
        let told = |(_, what, share, heads): (u32, String, f64, Vec<u32>)| {
            let names: Vec<String> =
                heads.iter().map(|head| format!("L{}H{head}", self.row.layer)).collect();
            let by = if names.is_empty() { what } else { format!("{what} by {}", names.join("+")) };
            (by, share)
        };
        merged.into_iter().map(told).collect()
    }

    /// What the earlier features are that questions name, as far as anything is said of them.
    fn named(&self) -> Vec<(String, String)> {
        let rows = self.rows(Shown::Strongest).chain(self.rows(Shown::Weaker));
        let told = rows.flat_map(|row| self.causes(row).iter().take(2 * SOURCES));
        let mut all: BTreeSet<FeatureId> = told.filter_map(|cause| cause.other).collect();
        all.extend(self.readings().iter().filter_map(|row| row.other).take(EARLIER));
        let named = |other: FeatureId| {
            let said = self.said.get(&Subject::from(other))?;
            Some((format!("{other}, {}", super::sets::place(other)), said.input_side.clone()))
        };
        all.into_iter().filter_map(named).collect()
    }

    fn before(&self) -> BeforeEvidence {
        let rows = self.material.tables.before(self.row.feature);
        let told = |row: &BeforeRow| {
            let token = self.token(row.token);
            let what = match row.distance {
                Some(_) if row.set == Beside::Deciding => token,
                Some(1) => format!("{token} right before"),
                Some(n) => format!("{token} {n} before"),
                None => format!("{token} anywhere before"),
            };
            ProfileShare { what, tokens: row.tokens, active: row.active, level: 0 }
        };
        let set = |set: Beside| {
            rows.iter().filter(|row| row.set == set).map(told).collect::<Vec<ProfileShare>>()
        };
        BeforeEvidence {
            tokens: rows.first().map_or(0, |row| row.all_tokens),
            active: rows.first().map_or(0, |row| row.all_active),
            more: set(Beside::More),
            less: set(Beside::Less),
            deciding: rows
                .iter()
                .filter(|row| row.set == Beside::Deciding)
                .collect::<Vec<_>>()
                .chunk_by(|a, b| a.distance == b.distance)
                .map(|own| {
                    let told = own.iter().map(|row| told(row)).collect();
                    (own[0].distance.unwrap_or_default(), thinned_ends(told))
                })
                .collect(),
        }
    }

    /// The strongest texts by their largest source. One text alone is no group, and neither are those
    /// whose source explains nothing: where that is all, there is one group.
    fn grouped(&self) -> Vec<CauseGroup> {
        let rows: Vec<&EvidenceRow> = self.rows(Shown::Strongest).collect();
        let mut groups: Vec<(Option<String>, Vec<&EvidenceRow>)> = Vec::new();
        for row in &rows {
            let largest = self.causes(row).first();
            let key = largest.and_then(|one| cause_group(one, &self.subjects.tokenizer));
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, own)) => own.push(row),
                None => groups.push((key, vec![row])),
            }
        }
        let (several, single): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|(key, own)| key.is_some() && own.len() > 1);
        let group = |cause: String, rows: Vec<&EvidenceRow>| CauseGroup {
            cause,
            texts: rows.iter().map(|row| self.text(row)).collect(),
            various: false,
        };
        if several.is_empty() || several.len() + single.len() == 1 {
            return vec![group(String::new(), rows)];
        }
        let others: Vec<&EvidenceRow> = single.into_iter().flat_map(|(_, own)| own).collect();
        let mut all: Vec<CauseGroup> =
            several.into_iter().map(|(key, own)| group(key.unwrap_or_default(), own)).collect();
        if !others.is_empty() {
            all.push(CauseGroup { various: true, ..group("from various sources".into(), others) });
        }
        all
    }

    /// Sources over all texts.
    fn sources(&self) -> Vec<SourceShare> {
        let rows: Vec<&EvidenceRow> =
            self.rows(Shown::Strongest).chain(self.rows(Shown::Weaker)).collect();
        let causes = rows.iter().flat_map(|row| self.causes(row));
        let all = sources(causes, rows.len(), &self.subjects.tokenizer).into_iter();
        let told = all.filter(|one| one.texts > 1 && one.share >= LEAST_SHARE / 2.0);
        let word = |one: crate::atlas::model::SourceShare| {
            let by = one.head.map_or(String::new(), |head| format!(" by {head}"));
            let what = format!("{}{by}", one.source.said());
            SourceShare { what, share: one.share, texts: one.texts }
        };
        told.take(ALL_SOURCES).map(word).collect()
    }

    fn pairs(&self) -> Vec<PairTexts> {
        let contexts = &self.subjects.contexts;
        let pair = |(active, inactive): (&EvidenceRow, &EvidenceRow)| {
            let at = usize::from(inactive.peak - inactive.start);
            // What comes behind the token has no part in whether it is active there.
            let (tokens, mut marks) = (&inactive.tokens[..=at], vec![0.0; at + 1]);
            marks[at] = 1.0;
            let shown = of_context(contexts, inactive.context, inactive.start, tokens, &marks);
            PairTexts {
                active: self.marked(active),
                inactive: shown.scaled(1.0, 1).replace("»[10]", "»[0]"),
            }
        };
        self.rows(Shown::Active).zip(self.rows(Shown::Inactive)).map(pair).collect()
    }

    fn profile(&self) -> Profile {
        let max = self.max();
        let share = |row: &ProfileRow, what: String| ProfileShare {
            what,
            tokens: row.tokens,
            active: row.active,
            level: level(row.mean as f32, max),
        };
        let own = |by: Profiled| self.material.tables.profile(self.row.feature, by);
        let tokens = |by: Profiled| {
            let told = |row: &ProfileRow| Some(share(row, self.token(row.token?)));
            own(by).filter_map(told).collect::<Vec<ProfileShare>>()
        };
        let density = self.row.explain_density;
        let bins = |by: Profiled| {
            let mut own: Vec<&ProfileRow> = own(by).collect();
            let all: u64 = own.iter().map(|row| row.active).sum();
            // Else positions say nothing.
            let tells = |row: &&ProfileRow| {
                let rate = row.active as f64 / row.tokens.max(1) as f64;
                rate > TELLING * density && 5 * row.active > all
            };
            if !own.iter().any(tells) {
                own.clear();
            }
            let named = |row: &&ProfileRow| {
                let from = row.from?;
                Some(share(row, positions(from, &BINS)))
            };
            own.iter().filter_map(named).collect::<Vec<ProfileShare>>()
        };
        Profile {
            tokens: tokens(Profiled::Token),
            previous: tokens(Profiled::Previous),
            text: bins(Profiled::Text),
            sentence: bins(Profiled::Sentence),
        }
    }

    fn readings(&self) -> &[ReadingRow] {
        self.material.tables.readings(self.row.feature)
    }

    fn reads(&self) -> Vec<(String, f64)> {
        let token = |row: &ReadingRow| Some((self.subjects.tokenizer.token(row.token?), row.z));
        self.readings().iter().filter_map(token).collect()
    }

    fn earlier(&self) -> Vec<String> {
        let other = |row: &ReadingRow| Some(row.other?.to_string());
        self.readings().iter().filter_map(other).take(EARLIER).collect()
    }

    /// Of the promoted tokens those that random directions do not promote as much.
    fn promoted(&self, subject: &Subject) -> TokenEvidence {
        let side = |side: Side, n: usize| {
            let own = self.subjects.listed(subject, side).filter(|row| row.z > STANDS_OUT);
            own.take(n).map(told).collect()
        };
        TokenEvidence {
            promoted: side(Side::Top, PROMOTED),
            suppressed: side(Side::Bottom, SUPPRESSED),
        }
    }

    fn live(&self) -> TokenEvidence {
        let token =
            |row: &AblatedRow| (self.subjects.tokenizer.token(row.token), f64::from(row.change));
        let side = |side: Side, n: usize| {
            self.material.tables.ablated(self.row.feature, side).take(n).map(token).collect()
        };
        TokenEvidence {
            promoted: side(Side::Top, PROMOTED),
            suppressed: side(Side::Bottom, SUPPRESSED),
        }
    }
}
