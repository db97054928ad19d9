//! The questions about what is made of features: components, pairs and groups, each from its
//! features' sentences.

use super::subjects::{FeatureSet, Member, Said, Subjects};
use crate::artifact::Store;
use crate::artifact::tables::{CircuitPairRow, ComponentRow, PromptRow};
use crate::atlas::{Heads, Reader};
use crate::config::{self, TaskKind};
use crate::error::Result;
use crate::ids::{Band, Component, FeatureId, Kind, Subject};
use crate::inputs::by;
use crate::llm::Question;
use crate::llm::explainer::{
    self, CooccurrenceEvidence, Evidence, GroupEvidence, MlpEvidence, PairEvidence, TaskEvidence,
};
use crate::summary::percent;
use std::collections::{BTreeMap, BTreeSet};

/// Features of a component or group that are told.
const MEMBERS: usize = 15;

/// What is known of circuits.
pub(super) struct CircuitIndex<'a> {
    pub(super) heads: &'a Heads,
    prompts: &'a [PromptRow],
    components: &'a [ComponentRow],
    pairs: BTreeMap<Subject, Vec<CircuitPairRow>>,
}

impl<'a> CircuitIndex<'a> {
    pub(super) fn load(reader: &'a Reader, store: &Store) -> Result<CircuitIndex<'a>> {
        let pair = |row: &CircuitPairRow| Subject::pair(row.feature_a, row.feature_b);
        Ok(CircuitIndex {
            heads: reader.heads()?,
            prompts: reader.prompts()?,
            components: reader.components()?,
            pairs: by(store.read()?, pair),
        })
    }

    /// Prompts with a circuit, of one task or of all.
    pub(super) fn prompts_of(&self, task: Option<&str>) -> u32 {
        let own = |row: &&PromptRow| row.used && task.is_none_or(|task| row.task == task);
        self.prompts.iter().filter(own).count() as u32
    }

    /// In how many of a task's prompts the circuit has a component.
    pub(super) fn with(&self, component: Component, task: &str) -> u32 {
        let own = self.components.iter().find(|row| row.task == task && row.component == component);
        own.map_or(0, |row| (row.frequency * f64::from(self.prompts_of(Some(task)))).round() as u32)
    }
}

impl Subjects<'_> {
    /// The questions about all sets that have a text to show.
    pub(super) fn questions_together(
        &self,
        circuits: &CircuitIndex,
        said: &Said,
    ) -> Result<Vec<Question>> {
        // They would be told in the words of features that nobody asked about.
        if !self.run.config.llm.features.is_empty() {
            return Ok(Vec::new());
        }
        let seen =
            self.sets.iter().filter(|set| self.band(&set.subject, Band::Top).next().is_some());
        let question = |set: &FeatureSet| {
            let evidence = self.set(set, circuits, said)?;
            evidence.question(&set.subject, &self.run.config.llm.model, &self.about)
        };
        seen.map(question).collect()
    }

    /// Whether a subject is told of in the words of one of these features: of a part of it, or of
    /// what enters a head.
    pub(super) fn needs(
        &self,
        subject: &Subject,
        circuits: &CircuitIndex,
        features: &BTreeSet<Subject>,
    ) -> bool {
        let own =
            self.sets.iter().filter(|set| set.subject == *subject).flat_map(|set| &set.members);
        let enters = match *subject {
            Subject::Component(head @ Component::Head { .. }) => self.entering(head, circuits),
            _ => Vec::new(),
        };
        let all = own.map(|member| member.feature).chain(enters);
        all.into_iter().any(|feature| features.contains(&Subject::from(feature)))
    }

    fn set(&self, set: &FeatureSet, circuits: &CircuitIndex, said: &Said) -> Result<Evidence> {
        let (joint, tokens) = (self.strongest(&set.subject), self.logits(&set.subject));
        Ok(match set.subject {
            Subject::Pair(..) | Subject::Feature(_) => {
                let (members, meetings) = self.pair(set, circuits, said);
                Evidence::Pair(PairEvidence { members, meetings, joint, tokens })
            }
            Subject::Group(_) => Evidence::Group(GroupEvidence {
                members: self.members(set, said, |of| self.density(of)),
                joint,
                tokens,
            }),
            Subject::Component(component) => match component {
                component @ Component::Head { .. } => Evidence::Head(explainer::HeadEvidence {
                    joint,
                    tokens,
                    ..self.head(component, set, circuits, said)
                }),
                component @ Component::Mlp { .. } => Evidence::Mlp(MlpEvidence {
                    joint,
                    tokens,
                    ..self.mlp(component, set, circuits, said)
                }),
            },
        })
    }

    /// All of an MLP but what every set has.
    fn mlp(
        &self,
        component: Component,
        set: &FeatureSet,
        circuits: &CircuitIndex,
        said: &Said,
    ) -> MlpEvidence {
        let tasks =
            self.run.config.tasks.iter().filter(|task| circuits.with(component, &task.name) > 0);
        MlpEvidence {
            layer: component.layer() as u32,
            last_layer: self.last_layer,
            tasks: tasks.map(|task| self.task(task, component, circuits)).collect(),
            members: self.serving(set, circuits, said),
            ..MlpEvidence::default()
        }
    }

    /// The features of a component, with how often they serve there.
    pub(super) fn serving(
        &self,
        set: &FeatureSet,
        circuits: &CircuitIndex,
        said: &Said,
    ) -> Vec<explainer::MemberEvidence> {
        let all = circuits.prompts_of(None);
        self.members(set, said, |member| format!("serves in {} of {all} prompts", member.prompts))
    }

    fn members(
        &self,
        set: &FeatureSet,
        said: &Said,
        often: impl Fn(&Member) -> String,
    ) -> Vec<explainer::MemberEvidence> {
        let one = |member: &Member| {
            let own = said.get(&Subject::from(member.feature));
            explainer::MemberEvidence {
                place: place(member.feature),
                often: often(member),
                input: own.map(|own| own.input_side.clone()).unwrap_or_default(),
                output: own.map(|own| own.output_side.clone()).unwrap_or_default(),
            }
        };
        set.members.iter().take(MEMBERS).map(one).collect()
    }

    fn density(&self, member: &Member) -> String {
        let own = self.features.iter().find(|row| row.feature == member.feature);
        format!("active at {} of tokens", percent(own.map_or(0.0, |row| row.explain_density)))
    }

    /// The features of a pair, each where the two are linked most, and the tasks in which they
    /// meet.
    fn pair(
        &self,
        set: &FeatureSet,
        circuits: &CircuitIndex,
        said: &Said,
    ) -> (Vec<explainer::MemberEvidence>, Vec<CooccurrenceEvidence>) {
        let rows = circuits.pairs.get(&set.subject).map(Vec::as_slice).unwrap_or_default();
        // The last of equals is the largest to `max_by`; the first is wanted.
        let most = rows.iter().rev().max_by(|a, b| a.share.total_cmp(&b.share));
        let at = |member: &Member| {
            let ends = most
                .map(|row| [(row.feature_a, row.component_a), (row.feature_b, row.component_b)]);
            let own = ends.into_iter().flatten().find(|(feature, _)| *feature == member.feature);
            own.map_or(String::new(), |(_, component)| format!("serves at {component}"))
        };
        let meeting = |task: &config::Task| {
            let own = rows.iter().filter(|row| row.task == task.name);
            let together = own.map(|row| row.prompts).max()?;
            let prompts = circuits.prompts_of(Some(&task.name));
            Some(CooccurrenceEvidence { what: what(task.kind).into(), prompts, together })
        };
        (self.members(set, said, at), self.run.config.tasks.iter().filter_map(meeting).collect())
    }

    /// A task, with its first prompt.
    pub(super) fn task(
        &self,
        task: &config::Task,
        component: Component,
        circuits: &CircuitIndex,
    ) -> TaskEvidence {
        let first = circuits.prompts.iter().find(|row| row.used && row.task == task.name);
        let token = |id: Option<u32>| id.map(|id| self.tokenizer.token(id)).unwrap_or_default();
        TaskEvidence {
            what: what(task.kind).into(),
            measured: measured(task.kind).into(),
            prompts: circuits.prompts_of(Some(&task.name)),
            circuits: circuits.with(component, &task.name),
            prompt: first.map(|row| row.text.clone()).unwrap_or_default(),
            right: token(first.map(|row| row.correct)),
            wrong: token(first.map(|row| row.counter)),
        }
    }
}

/// What a feature is, in words.
pub(super) fn place(FeatureId { dictionary, .. }: FeatureId) -> String {
    let kind = if dictionary.kind == Kind::Attention { "attention" } else { "MLP" };
    format!("{kind} feature of layer {}", dictionary.layer)
}

pub(super) fn what(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Ioi => {
            "a text names two people, and one of them again; the next word is to be the name of the other"
        }
        TaskKind::GreaterThan => {
            "a text gives the year in which something began, and the century in which it ended; \
             the next two digits are to \
             make a later year"
        }
        TaskKind::Prompts => "the next word is to be the right one of two",
    }
}

fn measured(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::GreaterThan => "how much likelier later years are than others",
        TaskKind::Ioi | TaskKind::Prompts => {
            "the logit of the right answer less that of the wrong one"
        }
    }
}
