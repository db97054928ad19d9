//! Faithfulness and completeness over circuit size: components, features and neurons, under each
//! ablation.

use super::{CurveSetting, MeasuredCircuit, TaskRun};
use crate::artifact::tables::FaithfulnessRow;
use crate::circuit::features::{self, Errors, Side};
use crate::circuit::gradient::Gradient;
use crate::circuit::{Ablate, Case, components, everything};
use crate::config::{Ablation, DiscoveryMethod};
use crate::error::Result;
use crate::ids::{Component, DictionaryId, FeatureId, Kind};
use crate::stages::search::{Other, SizedCircuits};
use crate::stats::agreement::{area, fit};
use crate::stats::interval::Estimate;
use crate::task::Published;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Shares of everything that are measured besides the small circuits, as in the Mechanistic
/// Interpretability Benchmark.
const LARGE: [f64; 3] = [0.1, 0.2, 0.5];

/// What one ablation puts in the place of everything else, for the cases that are measured on; and
/// what all circuits are held against.
pub(super) struct AblationValues {
    ablation: Ablation,
    /// Whether it is the first of the ablations: only under it are other methods and random
    /// circuits measured.
    first: bool,
    pub(super) components: Vec<Arc<components::ComponentAblation>>,
    pub(super) features: Vec<Arc<features::FeatureAblation>>,
    /// The metric of each case with every component replaced; with every feature, errors kept; and
    /// with errors ablated too.
    pub(super) empty: [Vec<f64>; 3],
    /// The metric of each case with every feature alive and errors ablated.
    all: Vec<f64>,
}

impl AblationValues {
    pub(super) fn new(
        task_run: &TaskRun,
        ablation: Ablation,
        first: bool,
    ) -> Result<AblationValues> {
        let TaskRun { replacement, cases, task, .. } = task_run;
        let (way, nothing) = (ablate(ablation), BTreeSet::new());
        let components = components::ablation_values(&replacement.model, cases, way, task.seed)?;
        let features = features::ablation_values(replacement, cases, way, task.seed)?;
        let replaced = |errors, side| {
            task_run.ticked(task_run.feature_run(ablation, &features, errors, &nothing, side))
        };
        let empty = [
            task_run.ticked(task_run.component_run(ablation, &components, &BTreeSet::new()))?,
            replaced(Errors::Kept, Side::Inside)?,
            replaced(Errors::Ablated, Side::Inside)?,
        ];
        let all = replaced(Errors::Ablated, Side::Outside)?;
        Ok(AblationValues { ablation, first, components, features, empty, all })
    }
}

pub(super) fn ablate(ablation: Ablation) -> Ablate {
    match ablation {
        Ablation::Mean => Ablate::Mean,
        Ablation::Resample => Ablate::Resample,
        Ablation::Zero => Ablate::Zero,
    }
}

impl TaskRun<'_> {
    /// Faithfulness and completeness over circuit size, at both levels and under each ablation; and
    /// what each method took of a prompt.
    pub(super) fn curves(
        &self,
        published: Option<&Published>,
    ) -> Result<(Vec<FaithfulnessRow>, String)> {
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
            let ablation_values = AblationValues::new(self, ablation, place == 0)?;
            for other in [&found].into_iter().chain(others.iter().filter(|_| place == 0)) {
                let kind = name(other);
                if other.method == DiscoveryMethod::Neurons {
                    rows.extend(self.neuron_curve(other, &found)?);
                    continue;
                }
                let published = published.filter(|_| kind == "found");
                rows.extend(self.component_curve(
                    &ablation_values,
                    kind,
                    &other.components,
                    published,
                )?);
                for errors in [Errors::Kept, Errors::Ablated] {
                    rows.extend(self.feature_curve(
                        &ablation_values,
                        errors,
                        kind,
                        other,
                        &pool,
                    )?);
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
    pub(super) fn runs(&self, found: &Other, others: &[Other], published: bool) -> u64 {
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

    pub(super) fn component_curve(
        &self,
        ablation_values: &AblationValues,
        kind: &'static str,
        circuits: &[(String, BTreeSet<Component>)],
        published: Option<&Published>,
    ) -> Result<Vec<FaithfulnessRow>> {
        let all = everything(&self.replacement.model);
        let keeping = |keep: &BTreeSet<Component>| {
            self.component_run(ablation_values.ablation, &ablation_values.components, keep)
        };
        let curve = Curve {
            task_run: self,
            setting: CurveSetting {
                level: "component",
                ablation: ablation_values.ablation,
                errors: None,
            },
            empty: &ablation_values.empty[0],
            inside: &keeping,
            outside: Some(&|circuit| keeping(&all.difference(circuit).copied().collect())),
            whole: None,
            pool: ablation_values.first.then_some(&all),
        };
        let mut rows = curve.rows(kind, circuits)?;
        if ablation_values.first && !circuits.is_empty() {
            let areas = curve.areas(kind, &rows, all.len(), Some(1.0));
            rows.extend(areas);
        }
        if let Some(published) = published {
            rows.extend(curve.both_sides("published", &published.name, &published.components())?);
        }
        Ok(rows)
    }

    pub(super) fn feature_curve(
        &self,
        ablation_values: &AblationValues,
        errors: Errors,
        kind: &'static str,
        other: &Other,
        pool: &BTreeSet<FeatureId>,
    ) -> Result<Vec<FaithfulnessRow>> {
        let AblationValues { ablation, features: values, .. } = ablation_values;
        let side = |circuit: &BTreeSet<FeatureId>, side| {
            self.feature_run(*ablation, values, errors, circuit, side)
        };
        let outside = |circuit: &BTreeSet<FeatureId>| side(circuit, Side::Outside);
        let curve = Curve {
            task_run: self,
            setting: CurveSetting {
                level: "feature",
                ablation: ablation_values.ablation,
                errors: Some(errors),
            },
            empty: &ablation_values.empty[if errors == Errors::Kept { 1 } else { 2 }],
            inside: &|circuit| side(circuit, Side::Inside),
            outside: if kind == "found" { Some(&outside) } else { None },
            // What is left when only the errors are replaced: what a circuit of features is held
            // against.
            whole: (errors == Errors::Ablated && kind == "found").then_some(&ablation_values.all),
            pool: ablation_values.first.then_some(pool),
        };
        let mut rows = curve.rows(kind, &other.features)?;
        let widths = |id: DictionaryId| self.replacement.dictionary(id).width();
        let size = self.ids().map(widths).sum();
        if let Some(whole) = curve.whole {
            let measured = curve.measured("all", "every feature", size);
            rows.extend(curve.kept(&measured, whole));
            if ablation_values.first {
                rows.extend(self.null(&curve, &other.features)?);
            }
        }
        if ablation_values.first && errors == Errors::Ablated && !other.ranked.is_empty() {
            let all = curve.recovered(&ablation_values.all).map(|all| all.value);
            rows.extend(self.large(&curve, kind, other, widths)?);
            let areas = curve.areas(kind, &rows, size, all);
            rows.extend(areas);
        }
        Ok(rows)
    }

    /// The same ranking of the model's own neurons: columns of `z` and MLP units. All of them are
    /// the model. As many of them as features are chosen are run besides.
    pub(super) fn neuron_curve(
        &self,
        other: &Other,
        found: &Other,
    ) -> Result<Vec<FaithfulnessRow>> {
        let gradient = Gradient::new(self.replacement, Vec::new())?;
        let held = components::neurons(&self.replacement.model, &self.cases)?;
        let run = |circuit: &BTreeSet<FeatureId>| {
            let one = |(case, held): (&Case, &Arc<components::Neurons>)| {
                let mut hooks = gradient.neurons(held)?;
                hooks.only(circuit)?;
                Ok(gradient.point(case, &hooks, 1.0)?.value)
            };
            self.neuron_run(circuit, || self.cases.par_iter().zip(&held).map(one).collect())
        };
        let empty = self.ticked(run(&BTreeSet::new()))?;
        let curve = Curve {
            task_run: self,
            setting: CurveSetting { level: "neuron", ablation: Ablation::Mean, errors: None },
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
        let circuits: SizedCircuits = other.features.iter().cloned().chain(as_many).collect();
        let mut rows = curve.rows(kind, &circuits)?;
        rows.extend(self.large(&curve, kind, other, widths)?);
        let areas = curve.areas(kind, &rows, self.ids().map(widths).sum(), Some(1.0));
        rows.extend(areas);
        Ok(rows)
    }

    /// Circuits that are large shares of everything: the area under a curve is mostly theirs. What
    /// is not ranked comes behind what is, and what opposes the answer comes last.
    pub(super) fn large(
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
}

/// Runs the circuits that are inside or outside of a set of parts.
pub(super) type Values<'a, P> = &'a dyn Fn(&BTreeSet<P>) -> Result<Vec<f64>>;

/// What the circuits of one curve share.
pub(super) struct Curve<'a, P> {
    pub(super) task_run: &'a TaskRun<'a>,
    pub(super) setting: CurveSetting,
    /// The metric of each case with everything replaced.
    pub(super) empty: &'a [f64],
    pub(super) inside: Values<'a, P>,
    /// None where what is left without a circuit is not measured.
    pub(super) outside: Option<Values<'a, P>>,
    /// The metric of each case with every feature alive; none where circuits are not held against
    /// that.
    pub(super) whole: Option<&'a Vec<f64>>,
    /// What random circuits are drawn from; none where they are not measured.
    pub(super) pool: Option<&'a BTreeSet<P>>,
}

impl<P: Ord + Copy> Curve<'_, P> {
    pub(super) fn rows(
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

    pub(super) fn measured<'m>(
        &'m self,
        circuit: &'static str,
        variant: &'m str,
        size: usize,
    ) -> MeasuredCircuit<'m> {
        MeasuredCircuit {
            task: &self.task_run.task.name,
            setting: self.setting,
            variant,
            circuit,
            size,
        }
    }

    pub(super) fn recovered(&self, m: &[f64]) -> Option<Estimate> {
        self.task_run.bootstrap.recovered(m, self.empty, &self.task_run.full)
    }

    /// What a circuit's run keeps, over all cases and in each stratum.
    pub(super) fn kept(&self, measured: &MeasuredCircuit, m: &[f64]) -> Vec<FaithfulnessRow> {
        let task_run = self.task_run;
        let mut rows = vec![
            measured.row("m_circuit", Some(task_run.bootstrap.mean(m))),
            measured.row("faithfulness", self.recovered(m)),
            measured.row("fit", fit(m, self.empty, &task_run.full).map(Estimate::exact)),
        ];
        for stratum in &task_run.strata {
            let [m, empty, full] = [m, self.empty, &task_run.full].map(|values| stratum.of(values));
            let of = |metric: &str, value| FaithfulnessRow {
                stratum: stratum.name.clone(),
                ..measured.row(metric, value)
            };
            rows.extend([
                of("m_full", Some(stratum.bootstrap.mean(&full))),
                of("m_empty", Some(stratum.bootstrap.mean(&empty))),
                of("m_circuit", Some(stratum.bootstrap.mean(&m))),
                of("faithfulness", stratum.bootstrap.recovered(&m, &empty, &full)),
                of("fit", fit(&m, &empty, &full).map(Estimate::exact)),
            ]);
        }
        rows
    }

    /// What a circuit keeps of what all features keep, over all cases and in each stratum.
    pub(super) fn of_all(
        &self,
        variant: &str,
        size: usize,
        m: &[f64],
        all: &[f64],
    ) -> Vec<FaithfulnessRow> {
        let measured = self.measured("found", variant, size);
        let mut rows =
            vec![measured.row("of_all", self.task_run.bootstrap.recovered(m, self.empty, all))];
        for stratum in &self.task_run.strata {
            let [m, empty, all] = [m, self.empty, all].map(|values| stratum.of(values));
            let share = stratum.bootstrap.recovered(&m, &empty, &all);
            rows.push(FaithfulnessRow {
                stratum: stratum.name.clone(),
                ..measured.row("of_all", share)
            });
        }
        rows
    }

    pub(super) fn both_sides(
        &self,
        kind: &'static str,
        variant: &str,
        circuit: &BTreeSet<P>,
    ) -> Result<Vec<FaithfulnessRow>> {
        let task_run = self.task_run;
        let inside = task_run.ticked((self.inside)(circuit))?;
        let mean = |values: &[f64]| Some(task_run.bootstrap.mean(values));
        let measured = self.measured(kind, variant, circuit.len());
        let mut rows = self.kept(&measured, &inside);
        if let Some(whole) = self.whole {
            rows.extend(self.of_all(variant, circuit.len(), &inside, whole));
        }
        rows.extend([
            measured.row("m_full", mean(&task_run.full)),
            measured.row("m_empty", mean(self.empty)),
        ]);
        if let Some(outside) = self.outside {
            let outside = task_run.ticked(outside(circuit))?;
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
    pub(super) fn areas(
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
}
