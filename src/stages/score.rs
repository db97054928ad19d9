//! `score`: the activation of every chosen feature at every token, from the disk cache or from the
//! live model.

use crate::artifact::tables::{CircuitFeature, ConformanceRow, ContextRow, ScoreRow};
use crate::artifact::{Row, TableWriter};
use crate::atlas::scores::ScorePart;
use crate::config::StoreKind;
use crate::dictionary::{Dictionary, Scorer, hooks};
use crate::error::Result;
use crate::format::number::counted;
use crate::ids::{DictionaryId, FeatureId};
use crate::inputs;
use crate::model::Gpt2;
use crate::stages::earlier::{Parts, Place, Wanted, run_again};
use crate::stages::scoring::{Scored, cached, live, rows};
use crate::stages::{Done, Run};
use crate::stats;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::rc::Rc;

mod known;

use known::{Known, Lists};

/// Scores the features, part by part. What an earlier run has scored of the same contexts, from the
/// same model and dictionaries, is taken over.
pub fn run(run: &Run) -> Result<Done> {
    let features = inputs::scored_features(run.config, &run.store.read::<CircuitFeature>()?)?;
    if features.is_empty() {
        let why = inputs::without_features(run.config)
            .unwrap_or_else(|| "no feature is scored: no circuit has any".into());
        run.progress.line(&format!("warning: {why}"));
    }
    let lists = Lists::new(&features);
    let wanted = Wanted {
        artifact: &ScoreRow::ARTIFACT,
        of: known::written(&features),
        known: &|of| lists.of(of).number,
        room: None,
    };
    let parts = run.parts(&wanted, |store, part, origin| {
        let known = lists.of(&origin.of);
        Ok(Before { part: ScorePart::open(store, part, known.features)?, known })
    })?;
    let blocks = blocks(run, &features)?;
    // With features of several blocks each context is scored as often.
    let (done, times) = (run.contexts(&parts.done)?, blocks.len().max(1) as u64);
    let contexts = done + run.contexts(&parts.open)?;
    run.progress.begin("contexts", times * contexts, times * done);
    let mut open = Vec::new();
    for &part in &parts.open {
        if parts.is_same(part) {
            run.store.restamp_part(&ScoreRow::ARTIFACT, run.fingerprint, part)?;
            run.progress.step(times * run.contexts(&[part])?)?;
        } else {
            open.push(part);
        }
    }
    let making = Making { run, features: &features, parts: &parts, blocks: &blocks };
    let (mut scorings, mut tally) = (Scorings::new(), Tally::default());
    let mut open = open.into_iter().peekable();
    while open.peek().is_some() {
        let batch = making.batch(&mut open)?;
        batch.iter().for_each(|part| tally.add(part, &making));
        making.make(&batch, &mut scorings)?;
    }
    let dictionaries = hooks(&features).len();
    let all = counted(parts.done.len() + parts.open.len(), "part");
    Ok(format!(
        "{} features of {dictionaries} dictionaries over {all}{}",
        features.len(),
        tally.said(contexts)
    )
    .into())
}

/// A part of an earlier run.
struct Before {
    part: ScorePart,
    known: Rc<Known>,
}

/// What was scored that no earlier run had.
#[derive(Default)]
struct Tally {
    /// Contexts of which nothing was known.
    contexts: u64,
    /// Features that were scored in the others.
    features: usize,
}

impl Tally {
    fn add(&mut self, part: &Open, making: &Making) {
        self.contexts += part.places.iter().filter(|place| place.is_none()).count() as u64;
        let new = |place: &Place| making.features.len() - making.known(*place).number;
        let most = part.places.iter().flatten().map(new).max();
        self.features = self.features.max(most.unwrap_or(0));
    }

    /// In words, where some of so many contexts were not scored with all features.
    fn said(&self, all: u64) -> String {
        let Tally { contexts, features } = self;
        match (contexts < &all, features) {
            (false, _) => String::new(),
            (true, 0) => run_again(*contexts, all),
            (true, new) => format!(
                ", {new} of them new; {contexts} of {all} contexts run for all of them, the others for \
                 new ones"
            ),
        }
    }
}

/// A part that is made: its contexts, and where each is known from.
struct Open {
    number: u32,
    contexts: Vec<ContextRow>,
    places: Vec<Option<Place>>,
}

/// Parts that are made at once at most. Each reads from all parts that it takes rows over from, so
/// those are read less often.
const AT_ONCE: usize = 64;

/// Bytes that a part takes while it is made, besides what is scored or taken over.
const WRITER: usize = 4 << 20;

/// What parts are made from.
struct Making<'a> {
    run: &'a Run<'a>,
    features: &'a [FeatureId],
    parts: &'a Parts<Before>,
    blocks: &'a [Range<usize>],
}

/// What contexts are scored with of which the same is known: by the list of known features.
type Scorings = BTreeMap<Option<usize>, Scoring>;

impl Making<'_> {
    fn known(&self, (source, _): Place) -> &Known {
        &self.parts.source(source).part.known
    }

    /// The list of the features that are known where a context is, if it is anywhere.
    fn list(&self, place: Option<Place>) -> Option<usize> {
        place.map(|place| self.known(place).list)
    }

    /// Whether there is anything to be scored in a context.
    fn is_scored(&self, place: Option<Place>) -> bool {
        place.is_none_or(|place| self.known(place).number < self.features.len())
    }

    /// The next parts, in which no more contexts are scored than one has.
    fn batch(
        &self,
        open: &mut std::iter::Peekable<impl Iterator<Item = u32>>,
    ) -> Result<Vec<Open>> {
        let most = (self.run.config.machine.share(8) / WRITER).clamp(1, AT_ONCE);
        let (mut batch, mut scored) = (Vec::new(), 0);
        while let Some(&number) = open.peek().filter(|_| batch.len() < most) {
            let places = self.parts.places(number);
            scored += places.iter().filter(|place| self.is_scored(**place)).count();
            if !batch.is_empty() && scored > self.run.config.corpus.shard_contexts {
                break;
            }
            open.next();
            let contexts = self.run.store.read_part::<ContextRow>(number)?;
            batch.push(Open { number, contexts, places });
        }
        Ok(batch)
    }

    /// Makes parts.
    fn make(&self, batch: &[Open], scorings: &mut Scorings) -> Result<()> {
        let table = |part: &Open| {
            let (fingerprint, origin) = (self.run.fingerprint, self.parts.origin(part.number));
            self.run.store.part_writer_of::<ScoreRow>(fingerprint, origin, part.number)
        };
        let mut tables = batch.iter().map(table).collect::<Result<Vec<TableWriter<ScoreRow>>>>()?;
        let wants = wants(batch);
        for block in 0..self.blocks.len() {
            let mut scored = Vec::new();
            for part in batch {
                scored.push(self.scored(block, part, scorings)?.into_iter().peekable());
            }
            for keys in self.pieces(self.blocks[block].clone(), &wants) {
                let mut taken = self.taken_over(keys.clone(), &wants, batch.len())?;
                for ((table, scored), rows) in tables.iter_mut().zip(&mut scored).zip(&mut taken) {
                    let is_in = |row: &ScoreRow| (row.feature as usize) < keys.end;
                    rows.extend(std::iter::from_fn(|| scored.next_if(is_in)));
                    rows.sort_unstable_by_key(|row| (row.feature, row.context, row.position));
                    table.add(rows.drain(..))?;
                }
            }
        }
        tables.into_iter().try_for_each(TableWriter::end)
    }

    /// The rows of a part that no earlier run has, of the features of a block, in order of features.
    fn scored(&self, block: usize, part: &Open, scorings: &mut Scorings) -> Result<Vec<ScoreRow>> {
        let (run, mut scored) = (self.run, Vec::new());
        let lists: BTreeSet<Option<usize>> =
            part.places.iter().map(|place| self.list(*place)).collect();
        for list in lists {
            let is_own = |context: u32| {
                let place = context.checked_sub(self.parts.origin(part.number).first);
                let place = place.and_then(|at| part.places.get(at as usize));
                place.is_some_and(|place| self.list(*place) == list)
            };
            let mut own = part.places.iter().filter(|place| self.list(**place) == list);
            let Some(&first) = own.next() else { continue };
            if !self.is_scored(first) {
                run.progress.step(1 + own.count() as u64)?;
                continue;
            }
            let known = first.map(|place| self.known(place));
            let scoring = Scoring::get(scorings, list, self, |key| {
                known.is_none_or(|known| known.then[key].is_none())
            })?;
            scored.extend(scoring.rows(run, &scoring.blocks[block], part, is_own)?);
        }
        scored.sort_unstable_by_key(|row| row.feature);
        Ok(scored)
    }

    /// Keys of some features in pieces whose rows take no more memory than is allowed.
    fn pieces(&self, keys: Range<usize>, wants: &Wants) -> Vec<Range<usize>> {
        let rows = |key: usize| {
            let of = |(&source, wanted): (&usize, &HashMap<u32, Vec<Want>>)| {
                let source = self.parts.source(source);
                let rows =
                    source.part.known.then[key].map(|then| source.part.part.rows(then).len());
                let share = wanted.len() as f64 / source.origin.contexts.len().max(1) as f64;
                rows.unwrap_or(0) as f64 * share
            };
            wants.iter().map(of).sum::<f64>() * HIT
        };
        let most = self.run.config.machine.share(4) as f64;
        let pieces = stats::blocks(keys.clone().map(rows), most).into_iter();
        pieces.map(|piece| keys.start + piece.start..keys.start + piece.end).collect()
    }

    /// By part of a batch, the rows of some features that earlier runs have.
    fn taken_over(
        &self,
        keys: Range<usize>,
        wants: &Wants,
        parts: usize,
    ) -> Result<Vec<Vec<ScoreRow>>> {
        let mut taken: Vec<Vec<ScoreRow>> = vec![Vec::new(); parts];
        for (&source, wanted) in wants {
            let source = self.parts.source(source);
            let before = |key: usize| Some((key, source.part.known.then[key]?));
            let (now, then): (Vec<usize>, Vec<u32>) = keys.clone().filter_map(before).unzip();
            source.part.part.each(&source.store, &then, |place, row| {
                let at = row.context.checked_sub(source.origin.first);
                for &(part, context) in at.and_then(|at| wanted.get(&at)).into_iter().flatten() {
                    taken[part].push(ScoreRow { feature: now[place] as u32, context, ..row });
                }
            })?;
        }
        Ok(taken)
    }
}

/// A part of a batch by its place, and a context of it.
type Want = (usize, u32);

/// By source, and by the place of a context there: the contexts that take its rows over.
type Wants = BTreeMap<usize, HashMap<u32, Vec<Want>>>;

fn wants(batch: &[Open]) -> Wants {
    let mut wants = Wants::new();
    for (i, part) in batch.iter().enumerate() {
        for (row, place) in part.contexts.iter().zip(&part.places) {
            if let Some((source, at)) = *place {
                wants.entry(source).or_default().entry(at).or_default().push((i, row.context));
            }
        }
    }
    wants
}

/// What some of the features are scored with.
struct Scoring {
    blocks: Vec<Block>,
    dictionaries: Vec<Dictionary>,
    model: Option<Gpt2>,
}

/// Features in a row whose encoders and scores in a shard are in memory at once.
struct Block {
    /// The keys of those that are scored.
    scored: Vec<u32>,
    features: Vec<FeatureId>,
    /// Kept where there is no other block.
    scorer: Option<Scorer>,
}

impl Scoring {
    /// That of the features that are wanted, made when it is first asked for.
    fn get<'s>(
        scorings: &'s mut Scorings,
        list: Option<usize>,
        making: &Making,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<&'s Scoring> {
        let made = match scorings.entry(list) {
            Entry::Occupied(made) => return Ok(made.into_mut()),
            Entry::Vacant(place) => place,
        };
        let (run, features) = (making.run, making.features);
        let some = (0..features.len()).filter(|key| wanted(*key));
        let used: BTreeSet<_> = some.map(|key| features[key].dictionary).collect();
        let dictionaries =
            inputs::some_dictionaries(run.config, run.lock, run.progress, |id| used.contains(&id))?;
        let block = |keys: &Range<usize>| {
            let some = keys.clone().filter(|&key| wanted(key));
            let scored: Vec<u32> = some.map(|key| key as u32).collect();
            let features = scored.iter().map(|&key| features[key as usize]).collect();
            Block { scored, features, scorer: None }
        };
        let mut blocks: Vec<Block> = making.blocks.iter().map(block).collect();
        if let [only] = &mut blocks[..] {
            only.scorer = Some(Scorer::new(&only.features, &dictionaries)?);
        }
        let is_live = run.config.cache.store == StoreKind::Stream && !used.is_empty();
        let model = is_live.then(|| inputs::model(run.config)).transpose()?;
        Ok(made.insert(Scoring { blocks, dictionaries, model }))
    }

    /// The rows of a block in some contexts of a part.
    fn rows(
        &self,
        run: &Run,
        block: &Block,
        part: &Open,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Vec<ScoreRow>> {
        let own = || part.contexts.iter().filter(|row| wanted(row.context));
        if block.scored.is_empty() {
            run.progress.step(own().count() as u64)?;
            return Ok(Vec::new());
        }
        let made = match block.scorer {
            Some(_) => None,
            None => Some(Scorer::new(&block.features, &self.dictionaries)?),
        };
        let Some(scorer) = block.scorer.as_ref().or(made.as_ref()) else { return Ok(Vec::new()) };
        let scored: Vec<Scored> = match &self.model {
            Some(model) => live(run, scorer, model, &own().cloned().collect::<Vec<_>>())?,
            None => cached(run, scorer, part.number, &part.contexts, &wanted)?,
        };
        let mut rows = rows(&scored);
        rows.iter_mut().for_each(|row| row.feature = block.scored[row.feature as usize]);
        Ok(rows)
    }
}

/// Bytes that an activation takes while a shard is scored: as a hit, as a row and in a data frame.
const HIT: f64 = 64.0;

/// Features of circuits are about so many times as active as the average one of their dictionary, or
/// less.
const OFTEN: f64 = 20.0;

/// Keys of features whose encoders, and scores in a shard as far as can be told, take no more memory
/// than is allowed.
fn blocks(run: &Run, features: &[FeatureId]) -> Result<Vec<Range<usize>>> {
    let width = inputs::sizes(run.config)?.d_model;
    let tokens = run.config.corpus.shard_contexts * run.config.corpus.context;
    let measured = run.store.read::<ConformanceRow>()?;
    let mut number: BTreeMap<DictionaryId, usize> = BTreeMap::new();
    features.iter().for_each(|feature| *number.entry(feature.dictionary).or_default() += 1);
    // Bytes of a feature, by how often it is active at most in the mean: as often as all of its
    // dictionary are, and hardly more often than many average ones.
    let cost = |(&id, &number): (&DictionaryId, &usize)| {
        let own = measured.iter().find(|row| row.dictionary == id);
        let active = own.map_or(1.0, |row| {
            (row.l0 / number as f64).min(OFTEN * row.l0 / f64::from(row.width)).min(1.0)
        });
        (id, (width * size_of::<f32>()) as f64 + HIT * tokens as f64 * active)
    };
    let costs: BTreeMap<DictionaryId, f64> = number.iter().map(cost).collect();
    let most = run.config.machine.share(2) as f64;
    Ok(stats::blocks(features.iter().map(|feature| costs[&feature.dictionary]), most))
}
