//! `verify`: are the circuits real? Runs the model with everything outside them replaced, at the
//! level of components and of features, beside random and published ones; and the strongest links
//! one by one.

use crate::artifact::tables::{ComponentRow, EffectRow, FaithfulnessRow, PromptRow, RankingRow};
use crate::atlas::{self, graphs};
use crate::circuit::effects::{Effect, TestedLink, effects};
use crate::circuit::features::{self, Errors, Runner, Side};
use crate::circuit::gradient::Gradient;
use crate::circuit::{
    self, Ablate, Attribution, Case, Node, Pass, ReplacementModel, at_least, circuits_by_frequency,
    components, everything, random_circuits,
};
use crate::config::{Ablation, DiscoveryMethod, Task, Wrong};
use crate::error::{Context, Result, hinted};
use crate::ids::{Component, DictionaryId, FeatureId, Kind};
use crate::ids::{NodeKind, Slot};
use crate::inputs;
use crate::stages::search::ranked::exchanged;
use crate::stages::search::task_prompts::{check_used, whole};
use crate::stages::search::{Circuits, Other, Search, by_rank};
use crate::stages::{Done, Run};
use crate::stats::agreement::{area, area_under_curve, correlation, rank_correlation};
use crate::stats::interval::{Bootstrap, Estimate, mean, spread};
use crate::stats::strata::places;
use crate::task::{Prompt, Prompts, Published};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Prompts in which a link of a task is run, spread from those where its share is largest to those
/// where it is smallest.
const PROMPTS_A_LINK: usize = 5;

/// Shares of everything that are measured besides the small circuits, as in the Mechanistic
/// Interpretability Benchmark.
const LARGE: [f64; 3] = [0.1, 0.2, 0.5];

/// The tables as `discover` wrote them.
struct Found {
    prompts: Vec<PromptRow>,
    circuits: atlas::Circuits,
    components: Vec<ComponentRow>,
    rankings: Vec<RankingRow>,
}

/// Measures the circuits of every task.
pub fn run(run: &Run) -> Result<Done> {
    let tokenizer = inputs::tokenizer(run.config)?;
    let metrics = inputs::Metrics::new(&tokenizer);
    run.progress.say("loading the model and its dictionaries");
    let replacement = run.replacement_model()?;
    let found = Found::load(run)?;
    let (mut faithfulness, mut links, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for settings in &run.config.tasks {
        let prompts = inputs::prompts(run.config, settings, &tokenizer)?;
        let bench = Bench::new(run, &replacement, settings, &found, &prompts, &metrics)?;
        let what = || format!("task `{}`", settings.name);
        let published = inputs::published(run.config, settings)?;
        let (rows, cost) = bench.curves(published.as_ref()).with_context(what)?;
        faithfulness.extend(rows);
        costs.extend(Some(format!("{}: {cost}", settings.name)).filter(|_| !cost.is_empty()));
        let (rows, agreement) = bench.links().with_context(what)?;
        links.extend(rows);
        faithfulness.extend(agreement);
    }
    faithfulness.sort_by(|a, b| sorted_by(a).cmp(&sorted_by(b)));
    links.sort_by(|a, b| (&a.task, a.rank, a.prompt).cmp(&(&b.task, b.rank, b.prompt)));
    let mut summary = format!("{} measurements, {} links run", faithfulness.len(), links.len());
    if !costs.is_empty() {
        summary += &format!("; ms of one core a prompt: {}", costs.join("; "));
    }
    run.store.write(run.fingerprint, &faithfulness)?;
    run.store.write(run.fingerprint, &links)?;
    Ok(summary.into())
}

fn sorted_by(row: &FaithfulnessRow) -> impl Ord + '_ {
    let FaithfulnessRow {
        task,
        level,
        variant,
        stratum,
        circuit,
        size,
        metric,
        ablation,
        errors,
        ..
    } = row;
    (task, level, variant, circuit, size, metric, ablation, errors, stratum)
}

impl Found {
    fn load(run: &Run) -> Result<Found> {
        let (prompts, components, rankings) =
            (run.store.read()?, run.store.read()?, run.store.read()?);
        Ok(Found { prompts, circuits: graphs(run.store)?, components, rankings })
    }

    /// Prompts of a task that have a circuit.
    fn prompts<'a>(&'a self, task: &'a str) -> impl Iterator<Item = &'a PromptRow> {
        self.prompts.iter().filter(move |row| row.used && row.task == task)
    }
}

/// One task, ready to be measured.
struct Bench<'a> {
    run: &'a Run<'a>,
    replacement: &'a ReplacementModel,
    task: &'a Task,
    found: &'a Found,
    /// The task's own prompts, and those that features are ranked on.
    prompts: &'a [Prompt],
    /// Every prompt that has a circuit.
    all: Vec<Case<'a>>,
    /// What circuits are measured on, and whether these are other prompts than circuits are found
    /// on.
    cases: Vec<Case<'a>>,
    fresh: bool,
    metrics: &'a inputs::Metrics,
    /// The metric of each case in the whole model.
    full: Vec<f64>,
    bootstrap: Bootstrap,
    /// The cases of each stratum, where there are several.
    strata: Vec<Stratum>,
    /// −1 for cases whose answers are exchanged in the null task.
    signs: Vec<f64>,
    /// The random circuits that were measured.
    drawn: RefCell<BTreeSet<Drawn>>,
}

/// Cases that results are told apart by.
struct Stratum {
    name: String,
    places: Vec<usize>,
    bootstrap: Bootstrap,
}

impl Stratum {
    fn of(&self, values: &[f64]) -> Vec<f64> {
        self.places.iter().map(|&i| values[i]).collect()
    }
}

/// Random circuits: level, ablation, whether errors are kept, variant, size.
type Drawn = (&'static str, Ablation, bool, String, usize);

/// What one ablation puts in the place of everything else, for the cases that are measured on; and
/// what all circuits are held against.
struct StandIns {
    ablation: Ablation,
    /// Whether it is the first of the ablations: only under it are other methods and random
    /// circuits measured.
    first: bool,
    components: Vec<Arc<components::StandIn>>,
    features: Vec<Arc<features::StandIn>>,
    /// The metric of each case with every component replaced; with every feature, errors kept; and
    /// with errors ablated too.
    empty: [Vec<f64>; 3],
    /// The metric of each case with every feature alive and errors ablated.
    all: Vec<f64>,
}

impl StandIns {
    fn new(bench: &Bench, ablation: Ablation, first: bool) -> Result<StandIns> {
        let Bench { replacement, cases, task, .. } = bench;
        let (way, nothing) = (ablate(ablation), BTreeSet::new());
        let components = components::stand_ins(&replacement.model, cases, way, task.seed)?;
        let features = features::stand_ins(replacement, cases, way, task.seed)?;
        let replaced = |errors, side| {
            let runner = Runner { replacement, cases, stand_ins: &features, errors };
            bench.ticked(runner.values(&nothing, side))
        };
        let empty = [
            bench.ticked(components::values(
                &replacement.model,
                cases,
                &BTreeSet::new(),
                &components,
            ))?,
            replaced(Errors::Kept, Side::Inside)?,
            replaced(Errors::Ablated, Side::Inside)?,
        ];
        let all = replaced(Errors::Ablated, Side::Outside)?;
        Ok(StandIns { ablation, first, components, features, empty, all })
    }
}

/// How a curve is measured.
#[derive(Clone, Copy)]
struct Setting {
    level: &'static str,
    ablation: Ablation,
    errors: Option<Errors>,
}

/// One measured circuit, on its way to becoming rows.
struct Measured<'a> {
    task: &'a str,
    setting: Setting,
    variant: &'a str,
    circuit: &'static str,
    size: usize,
}

impl Measured<'_> {
    fn row(&self, metric: &str, estimate: Option<Estimate>) -> FaithfulnessRow {
        let errors = self.setting.errors.map(|errors| match errors {
            Errors::Kept => "kept",
            Errors::Ablated => "ablated",
        });
        FaithfulnessRow {
            task: self.task.into(),
            stratum: String::new(),
            level: self.setting.level.into(),
            variant: self.variant.into(),
            circuit: self.circuit.into(),
            size: self.size as u32,
            metric: metric.into(),
            ablation: self.setting.ablation.word().into(),
            errors: errors.unwrap_or_default().into(),
            value: estimate.map(|e| e.value),
            low: estimate.map(|e| e.low),
            high: estimate.map(|e| e.high),
        }
    }
}

fn ablate(ablation: Ablation) -> Ablate {
    match ablation {
        Ablation::Mean => Ablate::Mean,
        Ablation::Resample => Ablate::Resample,
        Ablation::Zero => Ablate::Zero,
    }
}

impl<'a> Bench<'a> {
    fn new(
        run: &'a Run,
        replacement: &'a ReplacementModel,
        task: &'a Task,
        found: &'a Found,
        prompts: &'a Prompts,
        metrics: &'a inputs::Metrics,
    ) -> Result<Bench<'a>> {
        let rows: Vec<&PromptRow> = found.prompts(&task.name).collect();
        let own =
            rows.iter().map(|row| prompt(&prompts.finding, row)).collect::<Result<Vec<_>>>()?;
        let all = own.iter().map(|prompt| metrics.case(prompt)).collect::<Result<Vec<_>>>()?;
        let fresh: Vec<&Prompt> =
            if prompts.fresh.is_empty() { own } else { prompts.fresh.iter().collect() };
        let measured =
            fresh.iter().map(|prompt| metrics.case(prompt)).collect::<Result<Vec<Case>>>()?;
        let full = measured
            .par_iter()
            .map(|case| whole(replacement, case))
            .collect::<Result<Vec<f64>>>()?;
        let used: Vec<usize> =
            (0..full.len()).filter(|&i| full[i] > 0.0 || task.wrong == Wrong::Keep).collect();
        check_used(full.len(), used.len())?;
        let exchanged = exchanged(used.iter().map(|&i| fresh[i].template.as_str()), task.seed);
        let places = places(used.iter().map(|&i| fresh[i].stratum.as_str()));
        let stratum = |(name, places): (&str, Vec<usize>)| Stratum {
            name: name.into(),
            bootstrap: Bootstrap::new(places.len(), task.seed),
            places,
        };
        Ok(Bench {
            run,
            replacement,
            task,
            found,
            prompts: &prompts.finding,
            all,
            metrics,
            fresh: !prompts.fresh.is_empty(),
            cases: used.iter().map(|&i| measured[i].clone()).collect(),
            full: used.iter().map(|&i| full[i]).collect(),
            bootstrap: Bootstrap::new(used.len(), task.seed),
            strata: if places.len() > 1 {
                places.into_iter().map(stratum).collect()
            } else {
                Vec::new()
            },
            signs: (0..used.len())
                .map(|at| if exchanged.contains(&at) { -1.0 } else { 1.0 })
                .collect(),
            drawn: RefCell::default(),
        })
    }

    /// Faithfulness and completeness over circuit size, at both levels and under each ablation; and
    /// what each method took of a prompt.
    fn curves(&self, published: Option<&Published>) -> Result<(Vec<FaithfulnessRow>, String)> {
        let found = Other {
            method: self.run.config.discover.method,
            components: self.components(),
            features: self.features(),
            ranked: self.ranked("found", 1.0),
            opposing: self.ranked("found", -1.0),
            nodes: Some(self.mean_nodes()),
            cost: 0.0,
        };
        self.run.progress.say("other methods");
        let others = self.others()?;
        let pool: BTreeSet<FeatureId> = self.active_features()?;
        let ablations = &self.run.config.verify.ablations;
        let name = |other: &Other| {
            if other.method == found.method { "found" } else { other.method.word() }
        };
        self.run.progress.begin("circuits run", self.runs(&found, &others, published.is_some()), 0);
        let mut rows = published.map(|p| self.against(p)).transpose()?.unwrap_or_default();
        for (place, &ablation) in ablations.iter().enumerate() {
            let stand_ins = StandIns::new(self, ablation, place == 0)?;
            for other in [&found].into_iter().chain(others.iter().filter(|_| place == 0)) {
                let kind = name(other);
                if other.method == DiscoveryMethod::Neurons {
                    rows.extend(self.neuron_curve(other, &found)?);
                    continue;
                }
                let published = published.filter(|_| kind == "found");
                rows.extend(self.component_curve(
                    &stand_ins,
                    kind,
                    &other.components,
                    published,
                )?);
                for errors in [Errors::Kept, Errors::Ablated] {
                    rows.extend(self.feature_curve(&stand_ins, errors, kind, other, &pool)?);
                }
            }
        }
        let every = [&found].into_iter().chain(&others);
        rows.extend(every.filter_map(|other| Some(self.nodes(name(other), other.nodes?))));
        let measured = Some(Estimate::exact(self.cases.len() as f64));
        rows.push(FaithfulnessRow {
            circuit: "found".into(),
            ..self.compared(
                if self.fresh { "fresh" } else { "found on" },
                self.cases.len(),
                "prompts",
                measured,
            )
        });
        let cost = |other: &Other| format!("{} {:.1}", other.method.word(), other.cost);
        Ok((rows, others.iter().map(cost).collect::<Vec<_>>().join(", ")))
    }

    /// Circuits that will be run.
    fn runs(&self, found: &Other, others: &[Other], published: bool) -> u64 {
        let draws = self.run.config.verify.random;
        let (large, ends) = (LARGE.len(), 4);
        let of_found = found.components.len() + 2 * found.features.len();
        let once = of_found * draws + large + found.features.len();
        let each = ends + 2 * of_found + 2 * usize::from(published);
        let of_other = |other: &Other| match other.method {
            DiscoveryMethod::Neurons => 2 + other.features.len() + large,
            _ => {
                let more = if other.ranked.is_empty() { 0 } else { large };
                other.components.len() * (2 + draws) + 2 * other.features.len() * (1 + draws) + more
            }
        };
        (each * self.run.config.verify.ablations.len()
            + once
            + others.iter().map(of_other).sum::<usize>()) as u64
    }

    fn component_curve(
        &self,
        stand_ins: &StandIns,
        kind: &'static str,
        circuits: &[(String, BTreeSet<Component>)],
        published: Option<&Published>,
    ) -> Result<Vec<FaithfulnessRow>> {
        let model = &self.replacement.model;
        let all = everything(model);
        let keeping = |keep: &BTreeSet<Component>| {
            components::values(model, &self.cases, keep, &stand_ins.components)
        };
        let curve = Curve {
            bench: self,
            setting: Setting { level: "component", ablation: stand_ins.ablation, errors: None },
            empty: &stand_ins.empty[0],
            inside: &keeping,
            outside: Some(&|circuit| keeping(&all.difference(circuit).copied().collect())),
            whole: None,
            pool: stand_ins.first.then_some(&all),
        };
        let mut rows = curve.rows(kind, circuits)?;
        if stand_ins.first && !circuits.is_empty() {
            let areas = curve.areas(kind, &rows, all.len(), Some(1.0));
            rows.extend(areas);
        }
        if let Some(published) = published {
            rows.extend(curve.both_sides("published", &published.name, &published.components())?);
        }
        Ok(rows)
    }

    fn feature_curve(
        &self,
        stand_ins: &StandIns,
        errors: Errors,
        kind: &'static str,
        other: &Other,
        pool: &BTreeSet<FeatureId>,
    ) -> Result<Vec<FaithfulnessRow>> {
        let runner = Runner {
            replacement: self.replacement,
            cases: &self.cases,
            stand_ins: &stand_ins.features,
            errors,
        };
        let outside = |circuit: &BTreeSet<FeatureId>| runner.values(circuit, Side::Outside);
        let curve = Curve {
            bench: self,
            setting: Setting {
                level: "feature",
                ablation: stand_ins.ablation,
                errors: Some(errors),
            },
            empty: &stand_ins.empty[if errors == Errors::Kept { 1 } else { 2 }],
            inside: &|circuit| runner.values(circuit, Side::Inside),
            outside: if kind == "found" { Some(&outside) } else { None },
            // What is left when only the errors are replaced: what a circuit of features is held
            // against.
            whole: (errors == Errors::Ablated && kind == "found").then_some(&stand_ins.all),
            pool: stand_ins.first.then_some(pool),
        };
        let mut rows = curve.rows(kind, &other.features)?;
        let widths = |id: DictionaryId| self.replacement.dictionary(id).width();
        let size = self.ids().map(widths).sum();
        if let Some(whole) = curve.whole {
            let measured = curve.measured("all", "every feature", size);
            rows.extend(curve.kept(&measured, whole));
            if stand_ins.first {
                rows.extend(self.null(&curve, &other.features)?);
            }
        }
        if stand_ins.first && errors == Errors::Ablated && !other.ranked.is_empty() {
            let all = curve.recovered(&stand_ins.all).map(|all| all.value);
            rows.extend(self.large(&curve, kind, other, widths)?);
            let areas = curve.areas(kind, &rows, size, all);
            rows.extend(areas);
        }
        Ok(rows)
    }

    /// The same ranking of the model's own neurons: columns of `z` and MLP units. All of them are
    /// the model. As many of them as features are chosen are run besides.
    fn neuron_curve(&self, other: &Other, found: &Other) -> Result<Vec<FaithfulnessRow>> {
        let gradient = Gradient::new(self.replacement, Vec::new())?;
        let held = components::neurons(&self.replacement.model, &self.cases)?;
        let run = |circuit: &BTreeSet<FeatureId>| {
            let one = |(case, held): (&Case, &Arc<components::Neurons>)| {
                let mut hooks = gradient.neurons(held)?;
                hooks.only(circuit)?;
                Ok(gradient.point(case, &hooks, 1.0)?.value)
            };
            self.cases.par_iter().zip(&held).map(one).collect::<Result<Vec<f64>>>()
        };
        let empty = self.ticked(run(&BTreeSet::new()))?;
        let curve = Curve {
            bench: self,
            setting: Setting { level: "neuron", ablation: Ablation::Mean, errors: None },
            empty: &empty,
            inside: &run,
            outside: None,
            whole: None,
            pool: None,
        };
        let sizes = &self.replacement.model.sizes;
        let widths =
            |id: DictionaryId| if id.kind == Kind::Attention { sizes.d_model } else { sizes.d_mlp };
        let kind = other.method.word();
        let chosen = found
            .features
            .iter()
            .find(|(name, _)| name == "chosen")
            .map(|(_, circuit)| circuit.len());
        let as_many = chosen.filter(|size| other.ranked.len() >= *size);
        let as_many = as_many
            .map(|size| ("as many".to_string(), other.ranked[..size].iter().copied().collect()));
        let circuits: Circuits = other.features.iter().cloned().chain(as_many).collect();
        let mut rows = curve.rows(kind, &circuits)?;
        rows.extend(self.large(&curve, kind, other, widths)?);
        let areas = curve.areas(kind, &rows, self.ids().map(widths).sum(), Some(1.0));
        rows.extend(areas);
        Ok(rows)
    }

    fn ids(&self) -> impl Iterator<Item = DictionaryId> + use<> {
        DictionaryId::all(self.replacement.model.sizes.layers)
    }

    /// Circuits that are large shares of everything: the area under a curve is mostly theirs. What
    /// is not ranked comes behind what is, and what opposes the answer comes last.
    fn large(
        &self,
        curve: &Curve<FeatureId>,
        kind: &'static str,
        other: &Other,
        widths: impl Fn(DictionaryId) -> usize,
    ) -> Result<Vec<FaithfulnessRow>> {
        let Other { ranked, opposing, .. } = other;
        let known: BTreeSet<FeatureId> = ranked.iter().chain(opposing).copied().collect();
        let every = self.ids().flat_map(|dictionary| {
            (0..widths(dictionary)).map(move |index| FeatureId { dictionary, index })
        });
        let rest = every.filter(|feature| !known.contains(feature));
        let order: Vec<FeatureId> =
            ranked.iter().copied().chain(rest).chain(opposing.iter().copied()).collect();
        let mut rows = Vec::new();
        for share in LARGE {
            let size = (share * order.len() as f64).round() as usize;
            let m = self.ticked((curve.inside)(&order[..size].iter().copied().collect()))?;
            rows.extend(
                curve.kept(
                    &curve.measured(kind, &format!("{:.0}% of all", share * 100.0), size),
                    &m,
                ),
            );
        }
        Ok(rows)
    }

    /// What circuits of the null task gain on it, as a share of what the true answers gain in the
    /// whole model: the same sizes, found with the answers of half of the prompts exchanged and
    /// measured with those of half of the fresh ones.
    fn null(
        &self,
        curve: &Curve<FeatureId>,
        circuits: &[(String, BTreeSet<FeatureId>)],
    ) -> Result<Vec<FaithfulnessRow>> {
        let ranked = self.ranked("null", 1.0);
        if ranked.is_empty() {
            return Ok(Vec::new());
        }
        let row = |(variant, circuit): &(String, BTreeSet<FeatureId>)| {
            let first: BTreeSet<FeatureId> = ranked.iter().take(circuit.len()).copied().collect();
            let m = self.ticked((curve.inside)(&first))?;
            let signed: Vec<f64> = m
                .iter()
                .zip(curve.empty)
                .zip(&self.signs)
                .map(|((m, e), sign)| e + sign * (m - e))
                .collect();
            Ok(curve
                .measured("null", variant, first.len())
                .row("faithfulness", curve.recovered(&signed)))
        };
        circuits.iter().map(row).collect()
    }

    /// A ranking's features whose scores have this sign, in its order: those that oppose the answer
    /// end with the strongest.
    fn ranked(&self, ranking: &str, sign: f64) -> Vec<FeatureId> {
        let own = self
            .found
            .rankings
            .iter()
            .filter(|row| row.task == self.task.name && row.ranking == ranking);
        own.filter(|row| row.score * sign > 0.0).map(|row| row.feature).collect()
    }

    fn ticked<T>(&self, done: Result<T>) -> Result<T> {
        self.run.progress.add(1);
        done
    }

    /// The task's components by how frequent they are.
    fn frequencies(&self) -> BTreeMap<Component, f64> {
        let own = self.found.components.iter().filter(|row| row.task == self.task.name);
        own.map(|row| (row.component, row.frequency)).collect()
    }

    fn components(&self) -> Vec<(String, BTreeSet<Component>)> {
        circuits_by_frequency(&self.frequencies())
    }

    /// The task's features at several sizes, and its circuit.
    fn features(&self) -> Circuits {
        let chosen =
            self.found.rankings.iter().filter(|row| row.task == self.task.name && row.chosen);
        by_rank(&self.ranked("found", 1.0), chosen.map(|row| row.feature).collect())
    }

    /// What other methods find, with the settings that circuits were found with.
    fn others(&self) -> Result<Vec<Other>> {
        let discover = &self.run.config.discover;
        let own = self
            .found
            .prompts(&self.task.name)
            .map(|row| prompt(self.prompts, row))
            .collect::<Result<_>>()?;
        let search = Search::new(self.replacement, self.task, own, self.prompts, self.metrics)?;
        let methods =
            self.run.config.verify.methods.iter().filter(|method| **method != discover.method);
        methods.map(|&method| search.find(discover, method)).collect()
    }

    /// Nodes of a circuit, the mean over prompts.
    fn mean_nodes(&self) -> f64 {
        let of = |row: &PromptRow| {
            let circuit = self.found.circuits.get(&(row.task.clone(), row.prompt));
            circuit.map_or(0, |circuit| circuit.nodes.len()) as f64
        };
        mean(&self.found.prompts(&self.task.name).map(of).collect::<Vec<_>>())
    }

    fn nodes(&self, circuit: &str, nodes: f64) -> FaithfulnessRow {
        let exact = Some(Estimate::exact(nodes));
        FaithfulnessRow {
            circuit: circuit.into(),
            ..self.compared("a prompt", nodes.round() as usize, "nodes", exact)
        }
    }

    /// Every feature that is active on a prompt of the task: what random circuits are drawn from.
    fn active_features(&self) -> Result<BTreeSet<FeatureId>> {
        let mut active = BTreeSet::new();
        let tokens: Vec<&[u32]> = self.all.iter().map(|case| case.tokens).collect();
        let layers = self.replacement.model.sizes.layers;
        let one = |_, pass: Pass| {
            let of = |id: DictionaryId| {
                let features = pass.active(id.kind, id.layer).iter().flatten();
                features.map(move |(f, _)| FeatureId { dictionary: id, index: *f as usize })
            };
            Ok(DictionaryId::all(layers).flat_map(of).collect::<BTreeSet<FeatureId>>())
        };
        self.replacement.over(&tokens, one, |_, features| active.extend(features))?;
        Ok(active)
    }

    /// How well the found circuits name the components of the published one: only its kinds of
    /// components count.
    fn against(&self, published: &Published) -> Result<Vec<FaithfulnessRow>> {
        let theirs = published.components();
        let mlps = theirs.iter().any(|c| matches!(c, Component::Mlp { .. }));
        let counts = |c: &Component| mlps || matches!(c, Component::Head { .. });
        let frequencies: BTreeMap<Component, f64> =
            self.frequencies().into_iter().filter(|(c, _)| counts(c)).collect();
        let mut rows = Vec::new();
        for (variant, circuit) in self.components() {
            let ours: BTreeSet<Component> = circuit.iter().copied().filter(counts).collect();
            let both = ours.intersection(&theirs).count() as f64;
            let share = |of: usize| (of > 0).then(|| Estimate::exact(both / of as f64));
            let row = |metric: &str, value| self.compared(&variant, ours.len(), metric, value);
            rows.extend([row("precision", share(ours.len())), row("recall", share(theirs.len()))]);
        }
        let all = everything(&self.replacement.model);
        let (yes, no): (Vec<Component>, Vec<Component>) =
            all.into_iter().filter(counts).partition(|c| theirs.contains(c));
        let scores = |of: Vec<Component>| -> Vec<f64> {
            of.iter().map(|c| frequencies.get(c).copied().unwrap_or(0.0)).collect()
        };
        let area = area_under_curve(&scores(yes), &scores(no)).map(Estimate::exact);
        rows.push(self.compared("by frequency", at_least(&frequencies, 0.0).len(), "auc", area));
        Ok(rows)
    }

    /// A figure for which nothing was run.
    fn compared(
        &self,
        variant: &str,
        size: usize,
        metric: &str,
        value: Option<Estimate>,
    ) -> FaithfulnessRow {
        let setting = Setting { level: "component", ablation: Ablation::Mean, errors: None };
        let measured = Measured { task: &self.task.name, setting, variant, circuit: "found", size };
        FaithfulnessRow { ablation: String::new(), ..measured.row(metric, value) }
    }
}

/// Runs the circuits that are inside or outside of a set of parts.
type Values<'a, P> = &'a dyn Fn(&BTreeSet<P>) -> Result<Vec<f64>>;

/// What the circuits of one curve share.
struct Curve<'a, P> {
    bench: &'a Bench<'a>,
    setting: Setting,
    /// The metric of each case with everything replaced.
    empty: &'a [f64],
    inside: Values<'a, P>,
    /// None where what is left without a circuit is not measured.
    outside: Option<Values<'a, P>>,
    /// The metric of each case with every feature alive; none where circuits are not held against
    /// that.
    whole: Option<&'a Vec<f64>>,
    /// What random circuits are drawn from; none where they are not measured.
    pool: Option<&'a BTreeSet<P>>,
}

impl<P: Ord + Copy> Curve<'_, P> {
    fn rows(
        &self,
        kind: &'static str,
        circuits: &[(String, BTreeSet<P>)],
    ) -> Result<Vec<FaithfulnessRow>> {
        let mut rows = Vec::new();
        for (variant, circuit) in circuits {
            rows.extend(self.both_sides(kind, variant, circuit)?);
            rows.extend(self.random(variant, circuit.len())?);
        }
        Ok(rows)
    }

    fn measured<'m>(
        &'m self,
        circuit: &'static str,
        variant: &'m str,
        size: usize,
    ) -> Measured<'m> {
        Measured { task: &self.bench.task.name, setting: self.setting, variant, circuit, size }
    }

    fn recovered(&self, m: &[f64]) -> Option<Estimate> {
        self.bench.bootstrap.recovered(m, self.empty, &self.bench.full)
    }

    /// What a circuit's run keeps, over all cases and in each stratum.
    fn kept(&self, measured: &Measured, m: &[f64]) -> Vec<FaithfulnessRow> {
        let bench = self.bench;
        let mut rows = vec![
            measured.row("m_circuit", Some(bench.bootstrap.mean(m))),
            measured.row("faithfulness", self.recovered(m)),
            measured.row("fit", fit(m, self.empty, &bench.full)),
        ];
        for stratum in &bench.strata {
            let [m, empty, full] = [m, self.empty, &bench.full].map(|values| stratum.of(values));
            let of = |metric: &str, value| FaithfulnessRow {
                stratum: stratum.name.clone(),
                ..measured.row(metric, value)
            };
            rows.extend([
                of("m_full", Some(stratum.bootstrap.mean(&full))),
                of("m_empty", Some(stratum.bootstrap.mean(&empty))),
                of("m_circuit", Some(stratum.bootstrap.mean(&m))),
                of("faithfulness", stratum.bootstrap.recovered(&m, &empty, &full)),
                of("fit", fit(&m, &empty, &full)),
            ]);
        }
        rows
    }

    /// What a circuit keeps of what all features keep, over all cases and in each stratum.
    fn of_all(&self, variant: &str, size: usize, m: &[f64], all: &[f64]) -> Vec<FaithfulnessRow> {
        let measured = self.measured("found", variant, size);
        let mut rows =
            vec![measured.row("of_all", self.bench.bootstrap.recovered(m, self.empty, all))];
        for stratum in &self.bench.strata {
            let [m, empty, all] = [m, self.empty, all].map(|values| stratum.of(values));
            let share = stratum.bootstrap.recovered(&m, &empty, &all);
            rows.push(FaithfulnessRow {
                stratum: stratum.name.clone(),
                ..measured.row("of_all", share)
            });
        }
        rows
    }

    fn both_sides(
        &self,
        kind: &'static str,
        variant: &str,
        circuit: &BTreeSet<P>,
    ) -> Result<Vec<FaithfulnessRow>> {
        let bench = self.bench;
        let inside = bench.ticked((self.inside)(circuit))?;
        let mean = |values: &[f64]| Some(bench.bootstrap.mean(values));
        let measured = self.measured(kind, variant, circuit.len());
        let mut rows = self.kept(&measured, &inside);
        if let Some(whole) = self.whole {
            rows.extend(self.of_all(variant, circuit.len(), &inside, whole));
        }
        rows.extend([
            measured.row("m_full", mean(&bench.full)),
            measured.row("m_empty", mean(self.empty)),
        ]);
        if let Some(outside) = self.outside {
            let outside = bench.ticked(outside(circuit))?;
            rows.extend([
                measured.row("m_complement", mean(&outside)),
                measured.row("completeness", self.recovered(&outside)),
            ]);
        }
        Ok(rows)
    }

    /// CPR and CMD of the Mechanistic Interpretability Benchmark (2025): the area under
    /// faithfulness over the share of all parts that a circuit has, and the area between it and 1;
    /// nothing where what some circuit keeps cannot be told. `end` is what all keep.
    fn areas(
        &self,
        kind: &'static str,
        rows: &[FaithfulnessRow],
        parts: usize,
        end: Option<f64>,
    ) -> Vec<FaithfulnessRow> {
        let whole = |row: &&FaithfulnessRow| {
            row.circuit == kind && row.metric == "faithfulness" && row.stratum.is_empty()
        };
        let point = |row: &FaithfulnessRow| Some((f64::from(row.size) / parts as f64, row.value?));
        let ends = [Some((0.0, 0.0)), end.map(|end| (1.0, end))];
        let Some(curve) =
            rows.iter().filter(whole).map(point).chain(ends).collect::<Option<Vec<_>>>()
        else {
            return Vec::new();
        };
        let measured = self.measured(kind, "by size", parts);
        let row = |metric: &str, area: f64| measured.row(metric, Some(Estimate::exact(area)));
        vec![row("cpr", area(&curve, |f| f)), row("cmd", area(&curve, |f| (1.0 - f).abs()))]
    }

    /// The mean over random circuits of a size, with the smallest and the largest of them; nothing
    /// where they are known from another method's circuit, or there are not so many parts to draw.
    fn random(&self, variant: &str, size: usize) -> Result<Vec<FaithfulnessRow>> {
        let bench = self.bench;
        let Some(pool) = self.pool else { return Ok(Vec::new()) };
        let Setting { level, ablation, errors } = self.setting;
        let key = (level, ablation, errors == Some(Errors::Kept), variant.to_string(), size);
        if size > pool.len() || !bench.drawn.borrow_mut().insert(key) {
            bench.run.progress.add(bench.run.config.verify.random as u64);
            return Ok(Vec::new());
        }
        let draws = random_circuits(pool, size, bench.run.config.verify.random, bench.task.seed);
        let each = draws
            .iter()
            .map(|draw| bench.ticked((self.inside)(draw)))
            .collect::<Result<Vec<_>>>()?;
        let m: Vec<f64> = each.iter().map(|draw| mean(draw)).collect();
        let recovered: Vec<f64> =
            each.iter().filter_map(|draw| Some(self.recovered(draw)?.value)).collect();
        let measured = self.measured("random", variant, size);
        Ok(vec![
            measured.row("m_circuit", spread(&m)),
            measured.row("faithfulness", spread(&recovered)),
        ])
    }
}

/// `1 − Σ|m(C) − m(M)| / Σ|m(∅) − m(M)|`: how near each prompt comes to the whole model; what one
/// has too much does not make up for what another lacks. None where nothing is to be recovered.
fn fit(m: &[f64], empty: &[f64], full: &[f64]) -> Option<Estimate> {
    let off =
        |values: &[f64]| values.iter().zip(full).map(|(m, full)| (m - full).abs()).sum::<f64>();
    let whole = off(empty);
    (whole > 0.0).then(|| Estimate::exact(1.0 - off(m) / whole))
}

/// A prompt as the task wrote it.
fn prompt<'a>(prompts: &'a [Prompt], row: &PromptRow) -> Result<&'a Prompt> {
    prompts.get(row.prompt as usize).filter(|prompt| prompt.tokens == row.tokens).ok_or_else(|| {
        hinted(
            format!(
                "prompt {} of the task `{}` is another than in `prompts`",
                row.prompt, row.task
            ),
            inputs::DISCOVER,
        )
    })
}

/// A link of a task: from a feature to a receiver, at any position.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TaskLink {
    feature: FeatureId,
    receiver: Node,
    slot: Slot,
}

/// A link in one prompt.
struct PromptLink<'a> {
    prompt: &'a PromptRow,
    /// Of the nodes that it links, in the prompt's circuit.
    numbers: (u32, u32),
    share: f32,
    link: TestedLink,
}

impl PromptLink<'_> {
    /// The link with its direct effect in the clean run, and the sum of the sizes of all effects on
    /// what it enters. Circuits that grow along direct effects have these; those of the gradient
    /// are in the metric's unit, so they are taken from `clean`.
    fn direct(
        &self,
        clean: Option<&Attribution>,
        root: circuit::Root,
    ) -> Result<(TestedLink, f32)> {
        let Some(clean) = clean else {
            return Ok((self.link, self.link.effect.abs() / self.share));
        };
        let TestedLink { child, parent, slot, .. } = self.link;
        let all = if parent == Node::ROOT {
            clean.on_root(root)?
        } else {
            clean.contributions(&parent, slot)?
        };
        let at = all.nodes.iter().position(|node| *node == child);
        let effect = at.map_or(0.0, |at| all.effects[at]);
        Ok((TestedLink { effect, ..self.link }, all.whole() as f32))
    }
}

impl Bench<'_> {
    /// The strongest links from features, each run in a few prompts; and how well prediction and
    /// measurement agree.
    fn links(&self) -> Result<(Vec<EffectRow>, Vec<FaithfulnessRow>)> {
        let mut strongest: Vec<(TaskLink, Vec<PromptLink>)> =
            self.task_links()?.into_iter().collect();
        let strength =
            |places: &[PromptLink]| places.iter().map(|p| f64::from(p.share)).sum::<f64>();
        strongest.sort_by(|a, b| strength(&b.1).total_cmp(&strength(&a.1)).then(a.0.cmp(&b.0)));
        strongest.truncate(self.run.config.verify.edges);
        let mut chosen: BTreeMap<u32, Vec<(usize, u32, &TaskLink, &PromptLink)>> = BTreeMap::new();
        for (rank, (link, places)) in strongest.iter_mut().enumerate() {
            places.sort_by(|a, b| {
                b.share.total_cmp(&a.share).then(a.prompt.prompt.cmp(&b.prompt.prompt))
            });
            let mut seen = BTreeSet::new();
            places.retain(|place| seen.insert(place.prompt.prompt));
            let runs = PROMPTS_A_LINK.min(places.len());
            // Strata of their strength, so that one prompt comes from each part.
            for place in (0..runs).map(|i| &places[i * places.len() / runs]) {
                chosen.entry(place.prompt.prompt).or_default().push((
                    rank,
                    places.len() as u32,
                    link,
                    place,
                ));
            }
        }
        let rows = self.run_links(&chosen)?;
        let agreement = self.agreement(&rows, strongest.len());
        Ok((rows, agreement))
    }

    fn task_links(&self) -> Result<BTreeMap<TaskLink, Vec<PromptLink<'_>>>> {
        let mut links: BTreeMap<TaskLink, Vec<PromptLink>> = BTreeMap::new();
        for prompt in self.found.prompts(&self.task.name) {
            let key = (prompt.task.clone(), prompt.prompt);
            let Some(circuit) = self.found.circuits.get(&key) else { continue };
            for own in &circuit.links {
                let (child, parent) = (circuit.nodes[own.from], circuit.nodes[own.to]);
                let activation = circuit.activations[own.from];
                let (Some(feature), Some(activation)) = (child.dictionary_feature(), activation)
                else {
                    continue;
                };
                // What is inactive in the clean prompt has no direct effect there that could be
                // taken away.
                if activation == 0.0 {
                    continue;
                }
                let receiver = Node { position: None, source: None, ..parent };
                let slot = own.slot;
                let link = TestedLink { child, activation, parent, slot, effect: own.effect };
                links.entry(TaskLink { feature, receiver, slot }).or_default().push(PromptLink {
                    prompt,
                    numbers: (own.from as u32, own.to as u32),
                    share: own.share,
                    link,
                });
            }
        }
        Ok(links)
    }

    fn run_links(
        &self,
        chosen: &BTreeMap<u32, Vec<(usize, u32, &TaskLink, &PromptLink)>>,
    ) -> Result<Vec<EffectRow>> {
        let number: Vec<&Prompt> = chosen
            .values()
            .map(|links| prompt(self.prompts, links[0].3.prompt))
            .collect::<Result<_>>()?;
        let place_of: BTreeMap<u32, usize> = self
            .found
            .prompts(&self.task.name)
            .enumerate()
            .map(|(i, row)| (row.prompt, i))
            .collect();
        let stand_ins =
            features::stand_ins(self.replacement, &self.all, Ablate::Mean, self.task.seed)?;
        self.run.progress.begin("prompts whose links are run", chosen.len() as u64, 0);
        let mut rows = Vec::new();
        for ((id, links), prompt) in chosen.iter().zip(number) {
            let root = inputs::root(self.run.config.discover.root, prompt);
            let direct = match self.run.config.discover.method {
                DiscoveryMethod::Gradient => {
                    Some(Attribution::new(self.replacement, &prompt.tokens)?)
                }
                _ => None,
            };
            let each = links.iter().map(|(_, _, _, place)| place.direct(direct.as_ref(), root));
            let (each, totals): (Vec<TestedLink>, Vec<f32>) =
                each.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            let measured =
                effects(self.replacement, &prompt.tokens, root, &stand_ins[place_of[id]], &each)?;
            rows.extend(links.iter().zip(each.iter().zip(totals)).zip(measured).map(
                |(((rank, prompts, link, place), at), effect)| {
                    effect_row(*rank, *prompts, link, place, at, effect)
                },
            ));
            self.run.progress.add(1);
        }
        Ok(rows)
    }

    /// Predicted and measured changes as shares of all that their receivers read, over all links
    /// run.
    fn agreement(&self, rows: &[EffectRow], links: usize) -> Vec<FaithfulnessRow> {
        let share = |x: f32, row: &EffectRow| f64::from(x) / f64::from(row.total);
        let (predicted, measured): (Vec<f64>, Vec<f64>) =
            rows.iter().map(|row| (share(row.predicted, row), share(row.measured, row))).unzip();
        let variant = format!("strongest {links}");
        let row = |metric: &str, value: Option<f64>| {
            let estimate = value.map(Estimate::exact);
            FaithfulnessRow {
                level: "link".into(),
                ablation: "mean".into(),
                ..self.compared(&variant, links, metric, estimate)
            }
        };
        vec![
            row("correlation", correlation(&predicted, &measured)),
            row("rank_correlation", rank_correlation(&predicted, &measured)),
        ]
    }
}

fn effect_row(
    rank: usize,
    prompts: u32,
    link: &TaskLink,
    place: &PromptLink,
    (at, total): (&TestedLink, f32),
    effect: Effect,
) -> EffectRow {
    let PromptLink { prompt, numbers, .. } = place;
    EffectRow {
        task: prompt.task.clone(),
        rank: rank as u32,
        prompt: prompt.prompt,
        from: numbers.0,
        to: numbers.1,
        slot: link.slot,
        feature: link.feature,
        receiver: receiver(&link.receiver),
        prompts,
        activation: at.activation,
        mean: effect.replaced,
        effect: at.effect,
        predicted: effect.predicted,
        measured: effect.measured,
        total,
        root: effect.root,
    }
}

/// What receives, in words.
fn receiver(node: &Node) -> String {
    let served = |component: Component| match node.served() {
        Some(feature) => format!("{component} for {feature}"),
        None => format!("{component} for an error"),
    };
    match (node.kind, node.dictionary_feature(), node.component()) {
        (_, Some(feature), _) => feature.to_string(),
        (NodeKind::Head, _, Some(head)) => served(head),
        (NodeKind::AttentionError, ..) => format!("error of att{}", node.layer()),
        _ => "root".into(),
    }
}
