//! What is known from earlier runs in `cache` and `score`. The numbers of a context depend on its token
//! ids and on nothing else in the corpus, so they are taken over from any part that has a context of
//! the same ids, wherever it stood.
//!
//! Parts of the run before have the names of those that are made now. The ones of other contexts are set
//! aside before the first part is made, and removed when the stage has ended.

use super::Run;
use crate::artifact::hold::hold;
use crate::artifact::tables::ContextRow;
use crate::artifact::{Artifact, ContextKey, Origin, Row, Store};
use crate::error::Result;
use crate::format::number::{bytes, counted};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Held while parts are set aside, as shards may begin at the same moment.
const SETTING_ASIDE: &str = ".setting-aside";

/// What a stage makes in parts, one for each part of the contexts.
pub(super) struct Wanted<'w> {
    pub(super) artifact: &'w Artifact,
    /// The features or hooks that each part is to have, in words.
    pub(super) of: String,
    /// How many of them a part that has others knows; 0 where it is of no use.
    pub(super) known: &'w dyn Fn(&str) -> usize,
    /// Bytes that parts which are set aside may take.
    pub(super) room: Option<u64>,
}

/// The parts that are a run's to make, and those from which it takes rows over, each as `P`.
pub(super) struct Parts<P> {
    /// Made already.
    pub(super) done: Vec<u32>,
    /// Still to be made.
    pub(super) open: Vec<u32>,
    /// By part: what it is to say of itself.
    origins: Vec<Origin>,
    sources: Vec<Source<P>>,
    /// The source that has a context, and its place there.
    by_context: HashMap<ContextKey, Place>,
    /// Parts that have the contexts that the ones in their places are to have.
    same: HashMap<u32, usize>,
}

/// A source, and the place of a context in it.
pub(super) type Place = (usize, u32);

/// A part of an earlier run.
pub(super) struct Source<P> {
    pub(super) store: Store,
    pub(super) origin: Origin,
    pub(super) part: P,
    known: usize,
}

impl<P> Parts<P> {
    /// What a part is to say of itself.
    pub(super) fn origin(&self, part: u32) -> &Origin {
        &self.origins[part as usize]
    }

    pub(super) fn source(&self, number: usize) -> &Source<P> {
        &self.sources[number]
    }

    /// Whether the part in this place is what is to be there but for its fingerprint.
    pub(super) fn is_same(&self, part: u32) -> bool {
        let same = self.same.get(&part).map(|&source| &self.sources[source].origin);
        same == Some(self.origin(part))
    }

    /// Where each of a part's contexts is known from.
    pub(super) fn places(&self, part: u32) -> Vec<Option<Place>> {
        let same = self.same.get(&part).copied();
        let known = |place: &Place| self.sources[place.0].known;
        let own = |(i, key): (u32, &ContextKey)| {
            let elsewhere = self.by_context.get(key).copied();
            let here = same.map(|source| (source, i));
            // Of two that know as much the one in its place.
            elsewhere.into_iter().chain(here).max_by_key(known)
        };
        (0..).zip(&self.origin(part).contexts).map(own).collect()
    }
}

impl Run<'_> {
    /// The parts of a table that are this run's to make. `open` opens a part of an earlier run, and
    /// fails where it is not as it was written.
    ///
    /// # Errors
    /// When the contexts cannot be read, or files not be moved.
    pub(super) fn parts<P>(
        &self,
        wanted: &Wanted,
        open: impl Fn(&Store, u32, &Origin) -> Result<P>,
    ) -> Result<Parts<P>> {
        let artifact = wanted.artifact;
        let mut numbers = self.store.parts(&ContextRow::ARTIFACT)?;
        let origins = self.origins(wanted, &numbers)?;
        let known = self.set_aside(wanted, &origins)?;
        match self.shard {
            Some(shard) => numbers.retain(|part| shard.has(*part)),
            // Other shards may be writing theirs; a whole run is alone.
            None => self.store.remove_unfinished(artifact)?,
        }
        let is_done = |part: &u32| {
            self.store.part_fingerprint(artifact, *part).as_deref() == Some(self.fingerprint)
        };
        let (done, numbers) = numbers.into_iter().partition(is_done);
        let mut parts = Parts {
            done,
            open: numbers,
            origins,
            sources: Vec::new(),
            by_context: HashMap::new(),
            same: HashMap::new(),
        };
        self.find_sources(wanted, open, known, &mut parts);
        Ok(parts)
    }

    /// By part, what it is to say of itself.
    fn origins(&self, wanted: &Wanted, numbers: &[u32]) -> Result<Vec<Origin>> {
        let origin = |part: &u32| {
            let rows = self.store.read_part::<ContextRow>(*part)?;
            Ok(Origin {
                base: self.base.into(),
                of: wanted.of.clone(),
                first: rows.first().map_or(0, |row| row.context),
                contexts: rows.iter().map(|row| ContextKey::of(&row.tokens)).collect(),
            })
        };
        numbers.iter().map(origin).collect()
    }

    /// Sets aside the parts of earlier runs that are in the way and have contexts of this one, and
    /// removes what is of no use. A part that has the contexts which are to be in its place stays there.
    /// Gives what the parts say of themselves that are in either place then.
    fn set_aside(&self, wanted: &Wanted, origins: &[Origin]) -> Result<Known> {
        let (artifact, earlier) = (wanted.artifact, self.store.earlier());
        let _held = hold(&self.store.root().join(SETTING_ASIDE), || ())?;
        let contexts: HashSet<ContextKey> =
            origins.iter().flat_map(|origin| origin.contexts.iter().copied()).collect();
        let is_useful = |origin: &Origin| {
            origin.base == self.base
                && (wanted.known)(&origin.of) > 0
                && origin.contexts.iter().any(|key| contexts.contains(key))
        };
        let is_in_the_way = |(part, is): &(&u32, &Origin)| {
            let now = origins.get(**part as usize);
            let stays = now.is_some_and(|now| is.has_contexts_of(now));
            !stays
                && is_useful(is)
                && self.store.part_says(artifact, **part).as_deref() != Some(self.fingerprint)
        };
        let mut known = Known { here: said(self.store, artifact), aside: said(&earlier, artifact) };
        let moving: Vec<u32> = known.here.iter().filter(is_in_the_way).map(|(n, _)| *n).collect();
        if !moving.is_empty() || self.shard.is_none() {
            remove_useless(&earlier, wanted, &contexts, is_useful, &mut known.aside)?;
        }
        let held = earlier.part_numbers(artifact);
        let mut taken: u64 = held.iter().map(|part| earlier.part_bytes(artifact, *part)).sum();
        let (all, mut kept) = (moving.len(), 0);
        for part in moving {
            let more = self.store.part_bytes(artifact, part);
            if wanted.room.is_some_and(|room| taken + more > room) {
                continue;
            }
            let number = self.store.move_part(artifact, part, &earlier)?;
            known.aside.extend(known.here.remove(&part).map(|origin| (number, origin)));
            (taken, kept) = (taken + more, kept + 1);
        }
        if let Some(room) = wanted.room.filter(|_| kept < all) {
            let (of, room) = (counted(all, "part"), bytes(room));
            self.progress.line(&format!(
                "note: {kept} of {of} of the run before are kept to take activations over, as \
                 `cache.max_gib` leaves {room} beside the new ones: the other contexts are run again"
            ));
        }
        self.store.remove_parts_from(artifact, origins.len() as u32)?;
        Ok(known)
    }

    /// Opens the parts of earlier runs that have contexts of open parts.
    fn find_sources<P>(
        &self,
        wanted: &Wanted,
        open: impl Fn(&Store, u32, &Origin) -> Result<P>,
        mut known: Known,
        parts: &mut Parts<P>,
    ) {
        let (artifact, earlier) = (wanted.artifact, self.store.earlier());
        let open = |store: &Store, number: u32, origin: Origin| {
            let known = (wanted.known)(&origin.of);
            if known == 0 || origin.base != self.base {
                return None;
            }
            match open(store, number, &origin) {
                Ok(part) => Some(Source { store: store.clone(), origin, part, known }),
                Err(error) => {
                    let path = store.part_path(artifact, number);
                    let path = path.strip_prefix(self.store.root()).unwrap_or(&path).display();
                    self.progress
                        .line(&format!("note: nothing is taken over from `{path}`: {error}"));
                    None
                }
            }
        };
        // Whichever run they are of.
        let here = Store::new(self.store.root());
        for &part in &parts.open {
            let Some(is) = known.here.remove(&part) else { continue };
            if !is.has_contexts_of(parts.origin(part)) {
                continue;
            }
            if let Some(source) = open(&here, part, is) {
                parts.same.insert(part, parts.sources.len());
                parts.sources.push(source);
            }
        }
        let own = |part: &u32| parts.origins[*part as usize].contexts.iter().copied();
        let contexts: HashSet<ContextKey> = parts.open.iter().flat_map(own).collect();
        for (number, origin) in by_use(known.aside, wanted) {
            let is_new =
                |key: &ContextKey| contexts.contains(key) && !parts.by_context.contains_key(key);
            if !origin.contexts.iter().any(is_new) {
                continue;
            }
            let Some(source) = open(&earlier, number, origin) else { continue };
            let at = parts.sources.len();
            for (place, key) in (0..).zip(&source.origin.contexts) {
                if contexts.contains(key) {
                    parts.by_context.entry(*key).or_insert((at, place));
                }
            }
            parts.sources.push(source);
        }
    }
}

/// How many contexts the model was run on, where the others are as before.
pub(super) fn run_again(run: u64, contexts: u64) -> String {
    format!("; {run} of {contexts} contexts run, the others as before")
}

/// What the parts of a table that can be read say of themselves, by number.
struct Known {
    /// In their places.
    here: BTreeMap<u32, Origin>,
    /// Set aside.
    aside: BTreeMap<u32, Origin>,
}

fn said(store: &Store, artifact: &Artifact) -> BTreeMap<u32, Origin> {
    let numbers = store.part_numbers(artifact).into_iter();
    numbers.filter_map(|part| Some((part, store.part_origin(artifact, part)?))).collect()
}

/// Removes those parts that were set aside from which nothing would be taken over.
fn remove_useless(
    earlier: &Store,
    wanted: &Wanted,
    contexts: &HashSet<ContextKey>,
    is_useful: impl Fn(&Origin) -> bool,
    aside: &mut BTreeMap<u32, Origin>,
) -> Result<()> {
    let mut covered: HashSet<ContextKey> = HashSet::new();
    for (part, origin) in by_use(std::mem::take(aside), wanted) {
        let own = origin.contexts.iter().filter(|key| contexts.contains(*key));
        let new: Vec<ContextKey> = own.filter(|key| !covered.contains(*key)).copied().collect();
        if is_useful(&origin) && !new.is_empty() {
            covered.extend(new);
            aside.insert(part, origin);
        }
    }
    let others = earlier.part_numbers(wanted.artifact).into_iter();
    others
        .filter(|part| !aside.contains_key(part))
        .try_for_each(|part| earlier.remove_part(wanted.artifact, part))
}

/// Parts that were set aside, those that know most first, and of these the last.
fn by_use(aside: BTreeMap<u32, Origin>, wanted: &Wanted) -> Vec<(u32, Origin)> {
    let mut all: Vec<(u32, Origin)> = aside.into_iter().collect();
    all.sort_by_cached_key(|(part, origin)| Reverse(((wanted.known)(&origin.of), *part)));
    all
}
