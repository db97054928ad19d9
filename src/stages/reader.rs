//! The atlas, read from the artifacts: rows put together by what they are about, for pages and
//! answers.

use super::graphs::{Graphs, graphs};
use super::inputs::by;
use super::pairs::strongest;
use super::watched::Watched;
use super::written::{Written, accounts};
use super::{Run, inputs};
use crate::artifact::Row;
use crate::artifact::tables::{
    CircuitFeature, CircuitPairRow, ComponentRow, ConformanceRow, ContextRow, CorpusPairRow,
    EdgeRow, EffectRow, ExampleRow, FaithfulnessRow, FeatureRow, HookScoreRow, LogitRow, NodeRow,
    PromptRow, RankingRow,
};
use crate::config::{Method, Provider, RootKind, Wrong};
use crate::corpus::Tokenizer;
use crate::error::Result;
use crate::ids::{Component, FeatureId, HubName};
use crate::model::Gpt2;
use crate::site::atlas::{self, Atlas};
use crate::site::count;
use crate::stats::agreement::{Doubt, doubt};
use crate::stats::strata::sample;
use crate::stats::{mix, salt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Feature pairs on a task's page.
const TASK_PAIRS: usize = 60;
/// Corpus pairs on a feature's page, at each lag.
const FEATURE_PAIRS: usize = 10;

/// Two components, and in how many prompts both are in the circuit.
type Together = Vec<(Component, Component, u32)>;

/// What is in each circuit, by task and prompt: components, and the features that serve there.
pub type Circuits = BTreeMap<(String, u32), BTreeSet<(Component, Option<FeatureId>)>>;

/// The artifacts, by what they are looked up by.
pub struct Reader<'a> {
    run: &'a Run<'a>,
    tokenizer: Tokenizer,
    prompts: Vec<PromptRow>,
    /// Prompts of each task that have a circuit.
    prompts_of: BTreeMap<String, u32>,
    /// By task and prompt.
    graphs: Graphs,
    circuits: Circuits,
    /// By task: in how many prompts both components are in the circuit; only a < b.
    together: BTreeMap<String, Together>,
    components: Vec<ComponentRow>,
    /// By feature, and by component.
    serving: BTreeMap<String, Vec<CircuitFeature>>,
    serving_at: BTreeMap<String, Vec<CircuitFeature>>,
    faithfulness: Vec<FaithfulnessRow>,
    rankings: Vec<RankingRow>,
    hook_scores: Vec<HookScoreRow>,
    effects: Vec<EffectRow>,
    features: Vec<FeatureRow>,
    examples: BTreeMap<String, Vec<ExampleRow>>,
    logits: BTreeMap<String, [Vec<atlas::Promoted>; 2]>,
    /// The largest share first.
    circuit_pairs: Vec<CircuitPairRow>,
    /// By feature: its places in `circuit_pairs`.
    circuit_pairs_of: BTreeMap<String, Vec<usize>>,
    corpus_pairs: BTreeMap<String, Vec<CorpusPairRow>>,
    written: Written,
    conformance: Vec<ConformanceRow>,
    watched: Watched,
}

/// How often each key comes up.
fn counted<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, u32> {
    let mut map = BTreeMap::new();
    keys.for_each(|key| *map.entry(key).or_default() += 1);
    map
}

fn feature_id(name: &str) -> Result<FeatureId> {
    Ok(name.parse::<FeatureId>()?)
}

/// A setting as the settings file spells it.
fn word(setting: &impl serde::Serialize) -> String {
    serde_json::to_value(setting)
        .ok()
        .and_then(|value| Some(value.as_str()?.to_string()))
        .unwrap_or_default()
}

fn task_settings(task: &crate::config::Task) -> String {
    let file = task.file.as_ref().map(|file| format!(" of `{file}`")).unwrap_or_default();
    let prompts = task.prompts.map(|n| format!(", {n} prompts{file}")).unwrap_or(file);
    let wrong = if task.wrong == Wrong::LeaveOut { ", wrong ones left out" } else { "" };
    format!("{}{prompts}, seed {}{wrong}", task.kind.word(), task.seed)
}

/// The mean of what there is.
fn mean_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| crate::stats::interval::mean(&values))
}

/// What the model is called where it came from: the repository of the hub, or the folder's own
/// name.
fn model_name(path: &str) -> String {
    match path.parse::<HubName>() {
        Ok(name) => name.place(),
        Err(_) => Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

fn component(name: &str) -> Result<Component> {
    Ok(name.parse::<Component>()?)
}

impl<'a> Reader<'a> {
    /// Reads everything that the pages are made from.
    pub fn load(run: &'a Run<'a>) -> Result<Reader<'a>> {
        let store = run.store;
        Reader::with(run, Written::load(run, None)?, store.read()?, store.read()?, store.read()?)
    }

    /// Reads of the large tables (examples, promoted tokens, corpus pairs) only what is about these
    /// subjects.
    pub fn about(run: &'a Run<'a>, subjects: &BTreeSet<String>) -> Result<Reader<'a>> {
        let store = run.store;
        let pairs = store.read_about(&["feature_a", "feature_b"], subjects)?;
        let written = Written::load(run, Some(subjects))?;
        Reader::with(
            run,
            written,
            store.read_about(&["subject"], subjects)?,
            store.read_about(&["subject"], subjects)?,
            pairs,
        )
    }

    fn with(
        run: &'a Run<'a>,
        written: Written,
        examples: Vec<ExampleRow>,
        logits: Vec<LogitRow>,
        corpus_pairs: Vec<CorpusPairRow>,
    ) -> Result<Reader<'a>> {
        let store = run.store;
        let tokenizer = inputs::tokenizer(run.config)?;
        let (nodes, edges) = (store.read::<NodeRow>()?, store.read::<EdgeRow>()?);
        let (prompts, serving) = (store.read::<PromptRow>()?, store.read::<CircuitFeature>()?);
        let mut circuit_pairs = store.read::<CircuitPairRow>()?;
        circuit_pairs.sort_by(|a, b| b.share.total_cmp(&a.share).then(b.prompts.cmp(&a.prompts)));
        let circuits = circuits(&nodes)?;
        let watched = Watched::load(store, &tokenizer, &prompts, &nodes, &edges)?;
        Ok(Reader {
            run,
            tokenizer,
            prompts_of: counted(prompts.iter().filter(|row| row.used).map(|row| row.task.clone())),
            prompts,
            together: together(&circuits),
            circuits,
            graphs: graphs(nodes, edges)?,
            components: store.read()?,
            serving_at: by(serving.clone(), |row| row.component.clone()),
            serving: by(serving, |row| row.feature.clone()),
            faithfulness: store.read()?,
            rankings: store.read()?,
            hook_scores: store.read()?,
            effects: store.read()?,
            features: store.read()?,
            examples: by(examples, |row| row.subject.clone()),
            logits: promoted(logits),
            circuit_pairs_of: places(&circuit_pairs),
            circuit_pairs,
            corpus_pairs: both_ways(corpus_pairs),
            written,
            conformance: store.read()?,
            watched,
        })
    }

    /// The whole atlas.
    pub fn atlas(&self) -> Result<Atlas> {
        let config = self.run.config;
        let sizes = Gpt2::sizes_of(&config.path(&config.model.path))?;
        let strongest = strongest(&self.circuit_pairs);
        let [documents, contexts, tokens] = self.corpus()?;
        let newest = self
            .run
            .lock
            .stages
            .values()
            .map(|entry| entry.finished.clone())
            .max()
            .unwrap_or_default();
        Ok(Atlas {
            title: config.site.title.clone(),
            base_url: config.site.base_url.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            model: model_name(&config.model.path),
            when: newest,
            provenance: self.provenance(&sizes)?,
            layers: sizes.layers,
            heads: sizes.heads,
            documents,
            contexts,
            tokens,
            tasks: config.tasks.iter().map(|task| self.task(task)).collect::<Result<_>>()?,
            components: self
                .all_components()?
                .into_iter()
                .map(|own| self.component(own))
                .collect::<Result<_>>()?,
            features: self.features.iter().map(|row| self.feature(row)).collect::<Result<_>>()?,
            pairs: self.pairs(&strongest)?,
            groups: config.groups.iter().map(|group| self.group(group)).collect::<Result<_>>()?,
            conformance: self.conformance.iter().map(conformance).collect::<Result<_>>()?,
            accounts: accounts(self.run.store)?,
            stages: self.stages(),
        })
    }

    /// Every component of a circuit, also one that serves only what the dictionaries miss.
    fn all_components(&self) -> Result<BTreeSet<Component>> {
        self.components.iter().map(|row| component(&row.component)).collect()
    }

    /// Documents with a context, contexts, and tokens that count.
    fn corpus(&self) -> Result<[u64; 3]> {
        let (mut documents, mut contexts, mut tokens) = (BTreeSet::new(), 0, 0);
        for part in self.run.store.parts(&ContextRow::ARTIFACT)? {
            let rows = self.run.store.read_part::<ContextRow>(part)?;
            documents.extend(rows.iter().map(|row| row.document));
            contexts += rows.len() as u64;
            tokens += rows.iter().map(|row| inputs::counting(row, &self.tokenizer)).sum::<u64>();
        }
        Ok([documents.len() as u64, contexts, tokens])
    }

    /// What is in each circuit.
    pub fn circuits(&self) -> &Circuits {
        &self.circuits
    }

    /// Every scored feature, in order.
    pub fn features(&self) -> &[FeatureRow] {
        &self.features
    }

    /// Prompts of a task that have a circuit.
    pub fn prompts_of(&self, task: &str) -> u32 {
        self.prompts_of.get(task).copied().unwrap_or(0)
    }

    /// The features of a task's circuits and where they serve, the largest share first.
    pub fn strongest_servings(&self, task: &str) -> Result<Vec<atlas::Serving>> {
        let own = self.serving.values().flatten().filter(|row| row.task == task);
        let mut servings: Vec<atlas::Serving> =
            own.map(|row| self.serving(row)).collect::<Result<_>>()?;
        servings.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.feature.cmp(&b.feature)));
        Ok(servings)
    }

    /// Every pair of features in circuits with its task, the largest share first.
    pub fn circuit_pairs(&self) -> impl Iterator<Item = Result<(&str, atlas::CircuitPair)>> {
        self.circuit_pairs.iter().map(|row| Ok((row.task.as_str(), circuit_pair(row)?)))
    }

    /// The significant meetings of two features in the corpus, as seen from the first.
    pub fn meetings(&self, a: FeatureId, b: FeatureId) -> Result<Vec<atlas::CorpusPair>> {
        let name = a.to_string();
        let rows =
            self.corpus_pairs.get(&name).into_iter().flatten().map(|row| corpus_pair(row, &name));
        rows.filter(|pair| pair.as_ref().map_or(true, |pair| pair.other == b)).collect()
    }

    fn stages(&self) -> Vec<(String, f64)> {
        let entry =
            |name: &str| self.run.lock.stages.get(name).filter(|entry| !entry.finished.is_empty());
        self.run
            .order
            .iter()
            .filter_map(|name| Some((name.to_string(), entry(name)?.seconds)))
            .collect()
    }

    fn provenance(&self, sizes: &crate::model::Sizes) -> Result<Vec<(String, String)>> {
        let config = self.run.config;
        let widths: Vec<usize> = self.conformance.iter().map(|row| row.width as usize).collect();
        let width = match (widths.iter().min(), widths.iter().max()) {
            (Some(low), Some(high)) if low == high => count(*low as u64),
            (Some(low), Some(high)) => format!("{} to {}", count(*low as u64), count(*high as u64)),
            _ => "?".into(),
        };
        let discover = &config.discover;
        let model = format!(
            "{}: {} layers of {} heads, {} wide, vocabulary {}",
            config.model.path,
            sizes.layers,
            sizes.heads,
            count(sizes.d_model as u64),
            count(sizes.vocabulary as u64)
        );
        let corpus = &config.corpus;
        let aggregate = &config.aggregate;
        let how = match discover.method {
            Method::Gradient => format!(
                "{} prompts to rank on, {} points, {} of what all features keep",
                discover.prompts, discover.points, discover.faithful
            ),
            Method::Greedy => {
                format!(
                    "{} passes, {} a slot, {} candidates",
                    discover.passes, discover.per_node, discover.candidates
                )
            }
            Method::Influence => {
                format!(
                    "coverage {}, at most {} features and errors",
                    discover.coverage, discover.nodes
                )
            }
            _ => String::new(),
        };
        let (method, root) = (word(&discover.method), word(&discover.root).replace('-', " "));
        let circuits = match discover.method {
            Method::Gradient => format!("{method}: {how}"),
            _ => format!("{method} from the {root}: {how}"),
        };
        let examples = format!(
            "the {} strongest and {} of each tenth of the active contexts, in each half of the \
             documents; together within {} tokens",
            aggregate.examples, aggregate.band_examples, aggregate.window
        );
        let explanations = match config.llm.model.as_str() {
            _ if config.llm.provider == Provider::None => {
                "summaries of the statistics; no language model"
            }
            model => model,
        };
        let allowed: Vec<&str> = discover.allow.iter().map(String::as_str).collect();
        let fixed = [
            ("Model", model),
            ("Attention SAEs", config.dictionaries.attention.clone()),
            ("MLP transcoders", config.dictionaries.mlp.clone()),
            ("Dictionaries", format!("{} of {width} features", inputs::sources(config)?.len())),
            ("Corpus", format!("{}, contexts of {} tokens", corpus.path, corpus.context)),
        ];
        let tasks =
            config.tasks.iter().map(|task| (format!("Task {}", task.name), task_settings(task)));
        let rest = [
            ("Circuits", circuits),
            ("Nodes", allowed.join(", ").replace('_', " ")),
            ("Examples", examples),
            ("Explanations", explanations.to_string()),
        ];
        let named = |(label, value): (&str, String)| (label.to_string(), value);
        Ok(fixed.map(named).into_iter().chain(tasks).chain(rest.map(named)).collect())
    }

    /// A task with its circuit.
    pub fn task(&self, task: &crate::config::Task) -> Result<atlas::Task> {
        let prompts: Vec<&PromptRow> =
            self.prompts.iter().filter(|row| row.task == task.name).collect();
        let used = self.prompts_of(&task.name).max(1);
        let own = |row: &&ComponentRow| row.task == task.name;
        let mut components: Vec<atlas::TaskComponent> = self
            .components
            .iter()
            .filter(own)
            .map(|row| self.task_component(row))
            .collect::<Result<_>>()?;
        components.sort_by_key(|c| c.component);
        Ok(atlas::Task {
            name: task.name.clone(),
            kind: task.kind.word().into(),
            method: self.run.config.discover.method.word().into(),
            faithful: self.run.config.discover.faithful,
            accuracy: prompts.iter().filter(|row| row.right).count() as f64
                / prompts.len().max(1) as f64,
            used: self.prompts_of(&task.name),
            coverage: prompts.iter().map(|row| row.coverage).sum::<f64>() / f64::from(used),
            left_out: mean_of(prompts.iter().filter_map(|row| row.left_out)),
            prompts: prompts.iter().map(|row| self.prompt(row)).collect(),
            components,
            supporting: self.ranked(&task.name, 1.0)?,
            opposing: self.ranked(&task.name, -1.0)?,
            hooks: self.hooks(&task.name),
            faithfulness: faithfulness(
                self.faithfulness.iter().filter(|row| row.task == task.name),
            ),
            links: live_links(self.effects.iter().filter(|row| row.task == task.name))?,
            component_pairs: self.component_pairs(&task.name).to_vec(),
            pairs: self.task_pairs(&task.name)?,
        })
    }

    /// The strongest features of a task's ranking whose scores have this sign; none where a method
    /// gives no scores.
    fn ranked(&self, task: &str, sign: f64) -> Result<Vec<(FeatureId, f64)>> {
        const SHOWN: usize = 15;
        if self.run.config.discover.method != Method::Gradient {
            return Ok(Vec::new());
        }
        let own = self.rankings.iter().filter(|row| row.task == task && row.ranking == "found");
        let mut own: Vec<&RankingRow> = own.filter(|row| row.score * sign > 0.0).collect();
        own.sort_by(|a, b| b.score.abs().total_cmp(&a.score.abs()).then(a.rank.cmp(&b.rank)));
        own.into_iter().take(SHOWN).map(|row| Ok((feature_id(&row.feature)?, row.score))).collect()
    }

    fn hooks(&self, task: &str) -> Vec<atlas::HookScore> {
        let of = |row: &HookScoreRow| atlas::HookScore {
            dictionary: row.dictionary.clone(),
            supporting: row.supporting,
            opposing: row.opposing,
            error: row.error,
        };
        self.hook_scores.iter().filter(|row| row.task == task).map(of).collect()
    }

    fn task_component(&self, row: &ComponentRow) -> Result<atlas::TaskComponent> {
        Ok(atlas::TaskComponent {
            component: component(&row.component)?,
            frequency: row.frequency,
            features: row.features,
            contrast: row.contrast,
            class: self.watched.class(&row.task, &row.component),
        })
    }

    fn prompt(&self, row: &PromptRow) -> atlas::Prompt {
        let tokenizer = &self.tokenizer;
        let graph = self.graph(row);
        let answers = row.answers.iter().zip(&row.answer_probabilities);
        atlas::Prompt {
            template: row.template.clone(),
            text: row.text.clone(),
            correct: tokenizer.token(row.correct),
            counter: tokenizer.token(row.counter),
            logit_difference: row.logit_difference,
            metric: row.metric,
            answers: answers.map(|(id, p)| (tokenizer.token(*id), f64::from(*p))).collect(),
            nodes: graph.as_ref().map_or(0, |graph| graph.nodes.len() as u32),
            edges: graph.as_ref().map_or(0, |graph| graph.links.len() as u32),
            coverage: row.coverage,
            right: row.right,
            used: row.used,
            graph,
        }
    }

    fn graph(&self, row: &PromptRow) -> Option<atlas::Graph> {
        let (nodes, links) = self.graphs.get(&(row.task.clone(), row.prompt))?.clone();
        let token = |&id: &u32| (id, self.tokenizer.token(id));
        let root = self.run.config.discover.root;
        Some(atlas::Graph {
            number: row.prompt,
            tokens: row.tokens.iter().map(token).collect(),
            correct: row.correct,
            difference: root == RootKind::LogitDifference,
            nodes,
            links,
        })
    }

    /// In how many prompts of a task both components are in the circuit; only a < b.
    pub fn component_pairs(&self, task: &str) -> &[(Component, Component, u32)] {
        self.together.get(task).map(Vec::as_slice).unwrap_or_default()
    }

    fn task_pairs(&self, task: &str) -> Result<Vec<atlas::CircuitPair>> {
        self.circuit_pairs
            .iter()
            .filter(|row| row.task == task)
            .take(TASK_PAIRS)
            .map(circuit_pair)
            .collect()
    }

    /// A component, over all tasks.
    pub fn component(&self, own: Component) -> Result<atlas::ComponentPage> {
        let name = own.to_string();
        let here = self.serving_at.get(&name).into_iter().flatten();
        let mut features: Vec<atlas::Serving> =
            here.map(|row| self.serving(row)).collect::<Result<_>>()?;
        features.sort_by_key(|serving| (std::cmp::Reverse(serving.prompts), serving.feature));
        let [promoted, suppressed] = self.logits.get(&name).cloned().unwrap_or_default();
        let tasks = self.components.iter().filter(|c| c.component == name);
        Ok(atlas::ComponentPage {
            component: own,
            tasks: tasks.map(|row| (row.task.clone(), row.frequency)).collect(),
            features,
            promoted,
            suppressed,
            explanation: self.explanation(&name),
            asked: self.written.asked(&name),
            examples: self.examples(&name, &["top"]),
            neighbours: self.neighbours(own),
            classes: self.watched.classes(own),
            heads: self.watched.heads(own, &self.tokenizer),
            head_features: {
                let serving = self.serving_at.get(&name).map(Vec::as_slice).unwrap_or_default();
                self.watched.features(own, serving)?
            },
        })
    }

    fn neighbours(&self, own: Component) -> Vec<(String, Component, u32)> {
        let other = |&(a, b, prompts): &(Component, Component, u32)| match own {
            c if c == a => Some((b, prompts)),
            c if c == b => Some((a, prompts)),
            _ => None,
        };
        let of_task = |task: &crate::config::Task| {
            let mut found: Vec<_> =
                self.component_pairs(&task.name).iter().filter_map(other).collect();
            found.sort_by_key(|(component, prompts)| (std::cmp::Reverse(*prompts), *component));
            found
                .into_iter()
                .map(|(component, prompts)| (task.name.clone(), component, prompts))
                .collect::<Vec<_>>()
        };
        self.run.config.tasks.iter().flat_map(of_task).collect()
    }

    fn serving(&self, row: &CircuitFeature) -> Result<atlas::Serving> {
        Ok(atlas::Serving {
            task: row.task.clone(),
            component: component(&row.component)?,
            feature: feature_id(&row.feature)?,
            prompts: row.prompts,
            of: self.prompts_of.get(&row.task).copied().unwrap_or(0),
            share: row.share,
        })
    }

    /// A scored feature.
    pub fn feature(&self, row: &FeatureRow) -> Result<atlas::Feature> {
        let serving = self.serving.get(&row.feature).into_iter().flatten();
        let circuit_pairs = self.feature_circuit_pairs(&row.feature);
        let shown = circuit_pairs.iter().take(FEATURE_PAIRS);
        let [promoted, suppressed] = self.logits.get(&row.feature).cloned().unwrap_or_default();
        let mass = row.mass_tokens.iter().zip(&row.mass_shares);
        Ok(atlas::Feature {
            id: feature_id(&row.feature)?,
            active: row.active,
            density: row.density,
            mean_active: row.mean_active.unwrap_or(0.0),
            max: f64::from(row.max),
            special_active: row.special_active,
            histogram: row.histogram.clone(),
            mass: mass.map(|(id, share)| (self.tokenizer.token(*id), *share)).collect(),
            promoted,
            suppressed,
            servings: serving.map(|row| self.serving(row)).collect::<Result<_>>()?,
            examples: self.examples(&row.feature, &BANDS),
            corpus_pairs: self.feature_pairs(&row.feature)?,
            corpus_total: self.corpus_pairs.get(&row.feature).map_or(0, Vec::len) as u64,
            circuit_pairs: shown
                .map(|pair| Ok((pair.task.clone(), circuit_pair(pair)?)))
                .collect::<Result<_>>()?,
            circuit_total: circuit_pairs.len() as u64,
            explanation: self.explanation(&row.feature),
            asked: self.written.asked(&row.feature),
            evaluations: self.written.evaluations(&row.feature),
            agreements: self.written.agreements(&row.feature),
            misjudged: self.written.misjudged(&row.feature, &self.tokenizer),
            causal: self.written.causal(&row.feature, &self.tokenizer),
        })
    }

    /// The closest of those that meet it, at each lag.
    fn feature_pairs(&self, feature: &str) -> Result<Vec<atlas::CorpusPair>> {
        let rows = self.corpus_pairs.get(feature).map(Vec::as_slice).unwrap_or_default();
        let mut found = Vec::new();
        for lag in ["same", "window"] {
            let mut own: Vec<&CorpusPairRow> = rows.iter().filter(|row| row.lag == lag).collect();
            own.sort_by(|a, b| b.npmi.total_cmp(&a.npmi).then(a.q.total_cmp(&b.q)));
            let pairs = own.into_iter().take(FEATURE_PAIRS).map(|row| corpus_pair(row, feature));
            found.extend(pairs.collect::<Result<Vec<_>>>()?);
        }
        Ok(found)
    }

    /// Those with a direct link between the two, the largest share first.
    fn feature_circuit_pairs(&self, feature: &str) -> Vec<&CircuitPairRow> {
        let places = self.circuit_pairs_of.get(feature).into_iter().flatten();
        places.map(|&place| &self.circuit_pairs[place]).filter(|row| row.share > 0.0).collect()
    }

    fn pairs(&self, strongest: &BTreeMap<String, Vec<String>>) -> Result<Vec<atlas::Pair>> {
        let names: BTreeSet<&String> = strongest.values().flatten().collect();
        names
            .into_iter()
            .filter_map(|name| name.split_once('+'))
            .map(|(a, b)| self.pair(a, b))
            .collect()
    }

    fn pair(&self, a: &str, b: &str) -> Result<atlas::Pair> {
        let name = format!("{a}+{b}");
        let [promoted, suppressed] = self.logits.get(&name).cloned().unwrap_or_default();
        let of_a = self
            .circuit_pairs_of
            .get(a)
            .into_iter()
            .flatten()
            .map(|&place| &self.circuit_pairs[place]);
        let circuit = of_a.filter(|row| row.feature_a == b || row.feature_b == b);
        let meets = self.corpus_pairs.get(a).map(Vec::as_slice).unwrap_or_default().iter();
        let meets = meets.filter(|row| row.feature_a == b || row.feature_b == b);
        Ok(atlas::Pair {
            a: feature_id(a)?,
            b: feature_id(b)?,
            circuit: circuit
                .map(|row| Ok((row.task.clone(), circuit_pair(row)?)))
                .collect::<Result<_>>()?,
            corpus: meets.map(|row| corpus_pair(row, a)).collect::<Result<_>>()?,
            promoted,
            suppressed,
            examples: self.examples(&name, &["top"]),
            explanation: self.explanation(&name),
            asked: self.written.asked(&name),
        })
    }

    fn group(&self, group: &crate::config::Group) -> Result<atlas::Group> {
        let [promoted, suppressed] = self.logits.get(&group.name).cloned().unwrap_or_default();
        Ok(atlas::Group {
            name: group.name.clone(),
            features: group.features.iter().map(|name| feature_id(name)).collect::<Result<_>>()?,
            promoted,
            suppressed,
            examples: self.examples(&group.name, &["top"]),
            explanation: self.explanation(&group.name),
            asked: self.written.asked(&group.name),
        })
    }

    /// The explanation of a feature, component, pair or group.
    pub fn explanation(&self, subject: &str) -> Option<atlas::Explanation> {
        self.written.explanation(subject)
    }

    /// The examples of some bands, the halves together, strongest first within a band; no more of a
    /// band than one half was asked for, which keeps the pages small. Only of the top ones are
    /// these the strongest.
    fn examples(&self, subject: &str, bands: &[&str]) -> Vec<atlas::Example> {
        let rows = self.examples.get(subject).map(Vec::as_slice).unwrap_or_default();
        let aggregate = &self.run.config.aggregate;
        let mut chosen = Vec::new();
        for band in bands {
            let most = if *band == "top" { aggregate.examples } else { aggregate.band_examples };
            let mut own: Vec<&ExampleRow> = rows.iter().filter(|row| row.band == *band).collect();
            // The strongest of another band would not stand for it any more.
            if *band != "top" {
                own = sample(own, |row| &row.half, most, mix(salt(subject), salt(band)));
            }
            own.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.context.cmp(&b.context)));
            chosen.extend(own.into_iter().take(most).map(|row| self.example(row)));
        }
        chosen
    }

    /// An example with its text.
    pub fn example(&self, row: &ExampleRow) -> atlas::Example {
        let peak = usize::from(row.peak - row.start);
        let cut = self.tokenizer.pieces(&row.tokens);
        let piece = |piece: &crate::corpus::Piece| atlas::Piece {
            text: piece.text.clone(),
            value: row.activations[piece.tokens.clone()]
                .iter()
                .copied()
                .map(f64::from)
                .fold(0.0, f64::max),
            special: piece.special,
        };
        atlas::Example {
            band: row.band.clone(),
            half: row.half.clone(),
            document: row.document,
            context: row.context,
            start: u32::from(row.start),
            value: f64::from(row.value),
            peak: cut.iter().position(|piece| piece.tokens.contains(&peak)).unwrap_or(0),
            pieces: cut.iter().map(piece).collect(),
            more_before: row.start > 1,
            more_after: usize::from(row.start) + row.tokens.len() < usize::from(row.length),
        }
    }
}

/// All bands of a feature, in the order of its page.
const BANDS: [&str; 12] =
    ["top", "q9", "q8", "q7", "q6", "q5", "q4", "q3", "q2", "q1", "q0", "inactive"];

/// What is in each circuit.
fn circuits(nodes: &[NodeRow]) -> Result<Circuits> {
    let mut circuits = Circuits::new();
    for row in nodes {
        let node = inputs::node(row)?;
        let own = circuits.entry((row.task.clone(), row.prompt)).or_default();
        own.extend(node.component().map(|component| (component, node.served())));
    }
    Ok(circuits)
}

/// In how many prompts of each task both components are in the circuit.
fn together(circuits: &Circuits) -> BTreeMap<String, Together> {
    let mut pairs: BTreeMap<&str, BTreeMap<(Component, Component), u32>> = BTreeMap::new();
    for ((task, _), members) in circuits {
        let all: BTreeSet<Component> = members.iter().map(|(component, _)| *component).collect();
        let all: Vec<Component> = all.into_iter().collect();
        let own = pairs.entry(task).or_default();
        for (i, &a) in all.iter().enumerate() {
            all[i + 1..].iter().for_each(|&b| *own.entry((a, b)).or_default() += 1);
        }
    }
    let listed = |own: BTreeMap<(Component, Component), u32>| {
        own.into_iter().map(|((a, b), n)| (a, b, n)).collect()
    };
    pairs.into_iter().map(|(task, own)| (task.to_string(), listed(own))).collect()
}

/// Where each feature's pairs are.
fn places(pairs: &[CircuitPairRow]) -> BTreeMap<String, Vec<usize>> {
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, row) in pairs.iter().enumerate() {
        places.entry(row.feature_a.clone()).or_default().push(place);
        if row.feature_b != row.feature_a {
            places.entry(row.feature_b.clone()).or_default().push(place);
        }
    }
    places
}

/// Rows by both of their features.
fn both_ways(rows: Vec<CorpusPairRow>) -> BTreeMap<String, Vec<CorpusPairRow>> {
    let mut map: BTreeMap<String, Vec<CorpusPairRow>> = BTreeMap::new();
    for row in rows {
        map.entry(row.feature_a.clone()).or_default().push(row.clone());
        map.entry(row.feature_b.clone()).or_default().push(row);
    }
    map
}

fn promoted(rows: Vec<LogitRow>) -> BTreeMap<String, [Vec<atlas::Promoted>; 2]> {
    let mut map: BTreeMap<String, [Vec<atlas::Promoted>; 2]> = BTreeMap::new();
    for row in rows {
        let (logit, at_strength) = (f64::from(row.logit), f64::from(row.at_strength));
        let sides = map.entry(row.subject).or_default();
        sides[usize::from(row.side == "bottom")].push(atlas::Promoted {
            text: row.text,
            logit,
            at_strength,
        });
    }
    map
}

/// The links that were run, in their order; changes as shares of what enters the receiver.
fn live_links<'a>(rows: impl Iterator<Item = &'a EffectRow>) -> Result<Vec<atlas::LiveLink>> {
    let of_rank = by(rows.collect(), |row| row.rank);
    of_rank.into_values().map(|rows| live_link(&rows)).collect()
}

fn live_link(rows: &[&EffectRow]) -> Result<atlas::LiveLink> {
    let first = rows[0];
    let share = |row: &EffectRow, change: f32| f64::from(change) / f64::from(row.total);
    let runs: Vec<(f64, f64)> =
        rows.iter().map(|row| (share(row, row.predicted), share(row, row.measured))).collect();
    let mean = |values: Vec<f64>| crate::stats::interval::mean(&values);
    let predicted = mean(runs.iter().map(|run| run.0).collect());
    let measured = mean(runs.iter().map(|run| run.1).collect());
    let effect = mean(rows.iter().map(|row| share(row, row.effect)).collect());
    let doubt = doubt(effect, predicted, measured);
    let mut words = first.receiver.split_whitespace();
    Ok(atlas::LiveLink {
        feature: feature_id(&first.feature)?,
        receiver: first.receiver.clone(),
        receiver_feature: first.receiver.split_whitespace().find_map(|word| word.parse().ok()),
        receiver_head: words.next().and_then(|word| word.parse().ok()),
        slot: first.slot.clone(),
        prompts: first.prompts,
        share: effect,
        predicted,
        measured,
        root: mean(rows.iter().map(|row| f64::from(row.root)).collect()),
        steady: doubt == Some(Doubt::Steady),
        short: doubt == Some(Doubt::Short),
        runs,
    })
}

/// One row a circuit, its metrics together.
fn faithfulness<'a>(rows: impl Iterator<Item = &'a FaithfulnessRow>) -> Vec<atlas::Faithfulness> {
    let mut found: Vec<atlas::Faithfulness> = Vec::new();
    for row in rows {
        let key = |f: &atlas::Faithfulness| {
            [&f.level, &f.variant, &f.circuit, &f.ablation, &f.errors].map(String::clone).to_vec()
        };
        let own = [&row.level, &row.variant, &row.circuit, &row.ablation, &row.errors]
            .map(String::clone)
            .to_vec();
        let interval = atlas::Interval { value: row.value, low: row.low, high: row.high };
        let name = if row.stratum.is_empty() {
            row.metric.clone()
        } else {
            in_stratum(&row.metric, &row.stratum)
        };
        match found.iter_mut().find(|f| f.size == row.size && key(f) == own) {
            Some(known) => drop(known.metrics.insert(name, interval)),
            None => found.push(atlas::Faithfulness {
                level: row.level.clone(),
                variant: row.variant.clone(),
                circuit: row.circuit.clone(),
                ablation: row.ablation.clone(),
                errors: row.errors.clone(),
                size: row.size,
                metrics: BTreeMap::from([(name, interval)]),
            }),
        }
    }
    found.sort_by(|a, b| (&a.circuit, a.size).cmp(&(&b.circuit, b.size)));
    found
}

/// A metric on the prompts of a stratum: `faithfulness on ABBA`.
fn in_stratum(metric: &str, stratum: &str) -> String {
    format!("{metric} on {stratum}")
}

fn circuit_pair(row: &CircuitPairRow) -> Result<atlas::CircuitPair> {
    Ok(atlas::CircuitPair {
        at_a: component(&row.component_a)?,
        a: feature_id(&row.feature_a)?,
        at_b: component(&row.component_b)?,
        b: feature_id(&row.feature_b)?,
        prompts: row.prompts,
        share: row.share,
    })
}

/// A row as seen from one of its features.
fn corpus_pair(row: &CorpusPairRow, from: &str) -> Result<atlas::CorpusPair> {
    let first = row.feature_a == from;
    Ok(atlas::CorpusPair {
        other: feature_id(if first { &row.feature_b } else { &row.feature_a })?,
        lag: row.lag.clone(),
        first,
        together: row.n_ab,
        expected: row.expected,
        lift: row.lift,
        npmi: row.npmi,
        jaccard: row.jaccard,
        phi: row.phi.unwrap_or(f64::NAN),
        q: row.q,
    })
}

fn conformance(row: &ConformanceRow) -> Result<atlas::Conformance> {
    let kind =
        if row.kind == "attention" { crate::ids::Kind::Attention } else { crate::ids::Kind::Mlp };
    Ok(atlas::Conformance {
        dictionary: crate::ids::DictionaryId { layer: row.layer as usize, kind },
        width: row.width as usize,
        l0: row.l0,
        variance_explained: row.variance_explained,
        dead: row.dead as u64,
        loss_recovered: row.loss_recovered,
        tokens: row.tokens,
    })
}
