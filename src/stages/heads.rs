//! `heads`: what each head of a task's circuits does over its prompts, and which features its
//! layer's dictionary has for it; what others published about the task.

use super::{Done, Run};
use crate::artifact::tables::{
    AttentionRow, CircuitFeature, ComponentRow, CopyRow, HeadFeatureRow, HeadRow, PromptRow,
    PublishedRow,
};
use crate::circuit::TopTokens;
use crate::circuit::heads::{
    CopyEffect, HeadBehaviour, HeadPrompt, Pattern, copying, decoder_shares, study,
};
use crate::config::Config;
use crate::dictionary::Dictionary;
use crate::error::{Context, Result};
use crate::ids::{Component, DictionaryId, FeatureId, Kind};
use crate::inputs;
use crate::model::Gpt2;
use crate::stats::strata::sample;
use std::collections::{BTreeMap, BTreeSet};

/// Templates of a task whose attention is kept, and the longest prompts of which it is. Which of
/// equally large ones are kept is drawn, the same ones for all heads.
const TEMPLATES: usize = 12;
const LONGEST: usize = 64;
const SEED: u64 = 1;
/// Tokens of a head that are kept, and of those that are answers (names are many, and each has
/// little of its attention); of each the tokens that it raises, and up to which rank a token is
/// copied.
const COPIES: usize = 20;
const ANSWERS: usize = 10;
const RAISED: usize = 10;
const COPIED: u32 = 5;
/// Features of a head that are kept besides those that serve there.
const FEATURES: usize = 20;

/// The rows of the tables about prompts.
#[derive(Default)]
struct Tables {
    heads: Vec<HeadRow>,
    attention: Vec<AttentionRow>,
    copies: Vec<CopyRow>,
}

/// Looks at every head that is in a circuit.
pub fn run(run: &Run) -> Result<Done> {
    let store = run.store;
    let (mut prompts, components) = (store.read::<PromptRow>()?, store.read::<ComponentRow>()?);
    prompts.retain(|row| row.used);
    let mut heads: BTreeMap<&str, BTreeSet<Component>> = BTreeMap::new();
    for row in components.iter().filter(|row| row.head.is_some()) {
        heads.entry(&row.task).or_default().insert(row.component);
    }
    let model = inputs::model(run.config)?;
    let (mut tables, tokenizer) = (Tables::default(), inputs::tokenizer(run.config)?);
    for (task, heads) in &heads {
        let own: Vec<&PromptRow> = prompts.iter().filter(|row| row.task == *task).collect();
        tables
            .add(run, &model, task, &own, heads, tokenizer.specials())
            .with_context(|| format!("task `{task}`"))?;
    }
    let all: BTreeSet<Component> = heads.into_values().flatten().collect();
    let features = features(run, model.sizes.heads, &all)?;
    store.write(run.fingerprint, &tables.heads)?;
    store.write(run.fingerprint, &tables.attention)?;
    store.write(run.fingerprint, &tables.copies)?;
    store.write(run.fingerprint, &features)?;
    store.write(run.fingerprint, &published(run.config)?)?;
    Ok(format!("{} heads over {} prompts", all.len(), prompts.len()).into())
}

impl Tables {
    fn add<'a>(
        &mut self,
        run: &Run,
        model: &Gpt2,
        task: &str,
        prompts: &[&'a PromptRow],
        heads: &BTreeSet<Component>,
        specials: &BTreeSet<u32>,
    ) -> Result<()> {
        let watched = |row: &&'a PromptRow| HeadPrompt {
            tokens: &row.tokens,
            template: &row.template,
            correct: row.correct,
            counter: row.counter,
        };
        let watched: Vec<HeadPrompt> = prompts.iter().map(watched).collect();
        let places: Vec<(usize, usize)> = heads
            .iter()
            .filter_map(|component| Some((component.layer(), component.head()?)))
            .collect();
        run.progress.say("watching heads");
        let studies = study(model, &watched, &places)?;
        run.progress.begin("heads", studies.len() as u64, 0);
        // By name, as rows are sorted.
        let mut named: Vec<(Component, HeadBehaviour)> =
            heads.iter().copied().zip(studies).collect();
        named.sort_by_cached_key(|(component, _)| component.to_string());
        for (component, study) in &named {
            let copies = study.copies(model, TopTokens { k: RAISED, specials })?;
            self.heads.push(head_row(task, *component, prompts.len(), study, &copies));
            self.copies.extend(
                kept_copies(&copies).map(|(rank, copied)| copy_row(task, *component, rank, copied)),
            );
            let fit = study
                .patterns
                .iter()
                .filter(|pattern| prompts[pattern.first].tokens.len() <= LONGEST);
            self.attention.extend(
                largest(fit)
                    .into_iter()
                    .map(|pattern| attention_row(task, *component, pattern, prompts)),
            );
            run.progress.step(1)?;
        }
        Ok(())
    }
}

/// The tokens that are kept, with their ranks.
fn kept_copies(copies: &[CopyEffect]) -> impl Iterator<Item = (u32, &CopyEffect)> {
    let mut answers = 0;
    (0u32..).zip(copies).filter(move |(rank, copied)| {
        answers += usize::from(copied.answer);
        (*rank as usize) < COPIES || (copied.answer && answers <= ANSWERS)
    })
}

/// The templates that are kept, in their order: those of most prompts. Of the last ones, which are
/// equally large, each kind is kept in proportion; a template's kind is the last part of its name
/// (of the indirect object, who comes first).
fn largest<'a>(patterns: impl Iterator<Item = &'a Pattern>) -> Vec<&'a Pattern> {
    let all: Vec<&Pattern> = patterns.collect();
    let mut sizes: Vec<u32> = all.iter().map(|pattern| pattern.prompts).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let Some(&least) = sizes.get(TEMPLATES - 1) else { return all };
    let mut kept: Vec<&Pattern> =
        all.iter().filter(|pattern| pattern.prompts > least).copied().collect();
    let last: Vec<&Pattern> = all.into_iter().filter(|pattern| pattern.prompts == least).collect();
    let open = TEMPLATES - kept.len();
    kept.extend(sample(
        last,
        |pattern| pattern.template.rsplit('/').next().unwrap_or_default().to_string(),
        open,
        SEED,
    ));
    kept.sort_by_key(|pattern| pattern.first);
    kept
}

fn head_row(
    task: &str,
    component: Component,
    prompts: usize,
    study: &HeadBehaviour,
    copies: &[CopyEffect],
) -> HeadRow {
    let habits = &study.habits;
    let all = copying(copies.iter(), COPIED);
    let answers = copying(copies.iter().filter(|copy| copy.answer), COPIED);
    HeadRow {
        task: task.into(),
        component,
        prompts: prompts as u32,
        to_bos: habits.bos.value(),
        to_itself: habits.itself.value(),
        to_previous: habits.previous.value(),
        to_same: habits.same.value(),
        to_after_same: habits.after_same.value(),
        to_correct: habits.correct.value(),
        to_counter: habits.counter.value(),
        direct_effect: habits.direct.value(),
        tokens: copies.len() as u32,
        copy_score: all.map(|copying| copying.raised),
        lower_score: all.map(|copying| copying.lowered),
        own_rank: all.map(|copying| copying.own_rank),
        answers_copy_score: answers.map(|copying| copying.raised),
        answers_lower_score: answers.map(|copying| copying.lowered),
    }
}

fn attention_row(
    task: &str,
    component: Component,
    pattern: &Pattern,
    prompts: &[&PromptRow],
) -> AttentionRow {
    AttentionRow {
        task: task.into(),
        component,
        template: pattern.template.clone(),
        prompt: prompts[pattern.first].prompt,
        prompts: pattern.prompts,
        pattern: pattern.attention.clone(),
    }
}

fn copy_row(task: &str, component: Component, rank: u32, copied: &CopyEffect) -> CopyRow {
    CopyRow {
        task: task.into(),
        component,
        rank,
        token: copied.token,
        answer: copied.answer,
        places: copied.places,
        mass: copied.mass,
        top: copied.top.iter().map(|(id, _)| *id).collect(),
        logits: copied.top.iter().map(|(_, logit)| *logit).collect(),
        own_rank: copied.own_rank,
        own_rank_below: copied.own_rank_below,
        own_logit: copied.own_logit,
    }
}

/// The features of each head: those that serve there in any task, and those with most of their
/// decoder in it.
fn features(
    run: &Run,
    heads: usize,
    components: &BTreeSet<Component>,
) -> Result<Vec<HeadFeatureRow>> {
    let mut serving: BTreeMap<Component, BTreeSet<FeatureId>> = BTreeMap::new();
    for row in run.store.read::<CircuitFeature>()? {
        serving.entry(row.component).or_default().insert(row.feature);
    }
    let layers: BTreeSet<usize> = components.iter().map(|component| component.layer()).collect();
    let dictionaries: Vec<Dictionary> = run.dictionaries()?;
    let mut rows = Vec::new();
    run.progress.say("reading the decoders of attention features");
    for layer in layers {
        let id = DictionaryId { layer, kind: Kind::Attention };
        let Some(dictionary) = dictionaries.iter().find(|dictionary| dictionary.id == id) else {
            continue;
        };
        let shares = decoder_shares(dictionary, heads)?;
        for component in components.iter().filter(|component| component.layer() == layer) {
            let Some(head) = component.head() else { continue };
            let own: Vec<f32> = shares.iter().map(|feature| feature[head]).collect();
            rows.extend(feature_rows(
                *component,
                &own,
                &serving.remove(component).unwrap_or_default(),
            ));
        }
    }
    rows.sort_by_cached_key(|row| (row.component.to_string(), row.rank));
    Ok(rows)
}

/// `shares` is that of every feature of the dictionary in this head.
fn feature_rows(
    component: Component,
    shares: &[f32],
    serving: &BTreeSet<FeatureId>,
) -> Vec<HeadFeatureRow> {
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]).then(a.cmp(&b)));
    let id = |index: usize| FeatureId { dictionary: component.dictionary(), index };
    let kept = order
        .into_iter()
        .enumerate()
        .filter(|(place, f)| *place < FEATURES || serving.contains(&id(*f)));
    let row = |(place, f): (usize, usize)| HeadFeatureRow {
        component,
        feature: id(f),
        share: shares[f],
        rank: place as u32 + 1,
    };
    kept.map(row).collect()
}

/// What others published about the tasks, by task, class and component.
fn published(config: &Config) -> Result<Vec<PublishedRow>> {
    let mut rows = Vec::new();
    for task in &config.tasks {
        let Some(published) = inputs::published(config, task)? else { continue };
        for (class, members) in &published.classes {
            rows.extend(members.iter().map(|component| PublishedRow {
                task: task.name.clone(),
                source: published.name.clone(),
                class: class.clone(),
                component: *component,
            }));
        }
    }
    // Stable: classes and components stay in the order in which they were published.
    rows.sort_by(|a, b| a.task.cmp(&b.task));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(
        names: impl Iterator<Item = String>,
        prompts: impl Fn(usize) -> u32,
    ) -> Vec<Pattern> {
        let one = |(i, template)| Pattern {
            template,
            first: i,
            prompts: prompts(i),
            attention: vec![1.0],
        };
        names.enumerate().map(one).collect()
    }

    fn kept(patterns: &[Pattern]) -> Vec<&str> {
        largest(patterns.iter()).into_iter().map(|pattern| pattern.template.as_str()).collect()
    }

    #[test]
    fn of_equally_large_templates_each_kind_is_kept_in_proportion() {
        let orders = ["ABBA", "BABA"];
        let in_turn = patterns((0..24).map(|i| format!("ioi/{}/{}", i / 2, orders[i % 2])), |_| 4);
        let sorted = patterns((0..24).map(|i| format!("ioi/{}/{}", i % 12, orders[i / 12])), |_| 4);
        for patterns in [in_turn, sorted] {
            let kept = kept(&patterns);
            assert_eq!(kept.iter().filter(|name| name.ends_with("ABBA")).count(), TEMPLATES / 2);
            assert_eq!(kept.len(), TEMPLATES);
            let shapes: BTreeSet<&str> =
                kept.iter().filter_map(|name| name.split('/').nth(1)).collect();
            assert!(shapes.len() > TEMPLATES / 2, "not the first shapes alone: {shapes:?}");
        }
    }

    #[test]
    fn larger_templates_are_kept_first_and_few_all() {
        let large = patterns((0..30).map(|i| i.to_string()), |i| if i % 3 == 2 { 9 } else { 5 });
        let names = kept(&large);
        assert!((2..30).step_by(3).all(|i| names.contains(&i.to_string().as_str())), "{names:?}");
        assert_eq!(names.len(), TEMPLATES);
        assert_eq!(kept(&large[..5]), ["0", "1", "2", "3", "4"]);
    }
}
