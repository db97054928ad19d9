//! What is of one feature each, in parts of some features, which shards make. A whole run makes what
//! is missing, and keeps no parts: it is fast.

use super::Work;
use super::evidence::Evidence;
use super::examples::Promoter;
use super::features::{Made, Maker};
use crate::artifact::Artifact;
use crate::artifact::tables::{
    BeforeRow, EvidenceRow, ExampleRow, FEATURE_PARTS, FeatureRow, LogitRow, ProfileRow,
};
use crate::error::Result;
use crate::ids::{FeatureId, Subject};
use std::collections::BTreeMap;

/// Features of a part.
const FEATURES: usize = 256;

const EXAMPLES: Artifact = FEATURE_PARTS[0];
const EVIDENCE: Artifact = FEATURE_PARTS[1];
const PROFILES: Artifact = FEATURE_PARTS[2];
const BEFORE: Artifact = FEATURE_PARTS[3];
const LOGITS: Artifact = FEATURE_PARTS[4];
/// Written last.
const OWN: Artifact = FEATURE_PARTS[5];

/// Keys in a row: those of a part that is kept, with its number, or of several that are not.
pub(super) type Stretch = (Vec<u32>, Option<u32>);

/// All keys, in order. A part that is damaged, or of other features, is not kept.
pub(super) fn stretches(work: &Work) -> Result<Vec<Stretch>> {
    let store = work.run.store;
    let mut stretches: Vec<Stretch> = Vec::new();
    for (number, keys) in (0..).zip(work.keys().chunks(FEATURES)) {
        let is_whole = is_kept(work, number)
            && FEATURE_PARTS
                .iter()
                .all(|artifact| store.part_fingerprint(artifact, number).is_some())
            && store
                .read_part_as(&OWN, number)?
                .iter()
                .map(|row: &FeatureRow| row.feature)
                .eq(keys.iter().map(|&key| work.features[key as usize]));
        match (is_whole, stretches.last_mut()) {
            (false, Some((open, None))) => open.extend(keys),
            (is_whole, _) => stretches.push((keys.to_vec(), is_whole.then_some(number))),
        }
    }
    Ok(stretches)
}

/// Whether a part is there. Whoever reads it checks the rest.
fn is_kept(work: &Work, number: u32) -> bool {
    FEATURE_PARTS.iter().all(|artifact| work.run.is_kept(artifact, number))
}

/// What a part has of its features, but for promoted tokens.
pub(super) fn read(work: &Work, number: u32) -> Result<Vec<Made>> {
    let store = work.run.store;
    let features: Vec<FeatureRow> = store.read_part_as(&OWN, number)?;
    let mut examples =
        by(store.read_part_as(&EXAMPLES, number)?, |row: &ExampleRow| row.subject.to_string());
    let mut texts = by(store.read_part_as(&EVIDENCE, number)?, |row: &EvidenceRow| row.feature);
    let mut profiles = by(store.read_part_as(&PROFILES, number)?, |row: &ProfileRow| row.feature);
    let mut before = by(store.read_part_as(&BEFORE, number)?, |row: &BeforeRow| row.feature);
    let made = |feature: FeatureRow| {
        let id = feature.feature;
        let subject = Subject::from(id).to_string();
        Made {
            examples: examples.remove(&subject).unwrap_or_default(),
            evidence: Evidence {
                texts: texts.remove(&id).unwrap_or_default(),
                profile: profiles.remove(&id).unwrap_or_default(),
                before: before.remove(&id).unwrap_or_default(),
            },
            feature,
        }
    };
    Ok(features.into_iter().map(made).collect())
}

/// The promoted tokens of the features of a part.
pub(super) fn read_logits(work: &Work, number: u32) -> Result<Vec<LogitRow>> {
    work.run.store.read_part_as(&LOGITS, number)
}

fn by<R, K: Ord>(rows: Vec<R>, key: impl Fn(&R) -> K) -> BTreeMap<K, Vec<R>> {
    let mut map: BTreeMap<K, Vec<R>> = BTreeMap::new();
    rows.into_iter().for_each(|row| map.entry(key(&row)).or_default().push(row));
    map
}

/// Makes a shard's share of the parts.
pub(super) fn make_share(work: &Work) -> Result<()> {
    let run = work.run;
    let keys = work.keys();
    let all = (0..).zip(keys.chunks(FEATURES));
    let open: Vec<(u32, &[u32])> =
        all.filter(|(number, _)| run.has(*number) && !is_kept(work, *number)).collect();
    if open.is_empty() {
        return Ok(());
    }
    let (maker, promoter) = (Maker::new(work), Promoter::new(work)?);
    run.progress.begin("features", (open.len() * FEATURES) as u64, 0);
    for (number, keys) in open {
        let mut made = Vec::with_capacity(keys.len());
        maker.each(keys, |one| {
            made.push(one);
            Ok(())
        })?;
        let features: Vec<FeatureId> =
            keys.iter().map(|&key| work.features[key as usize]).collect();
        let logits = promoter.of_features(&features)?;
        let (mut examples, mut texts, mut profiles, mut before, mut own) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for Made { feature, examples: some, evidence } in made {
            own.push(feature);
            examples.extend(some);
            texts.extend(evidence.texts);
            profiles.extend(evidence.profile);
            before.extend(evidence.before);
        }
        let (store, fingerprint) = (run.store, run.fingerprint);
        store.keep_part(&EXAMPLES, fingerprint, number, &examples)?;
        store.keep_part(&EVIDENCE, fingerprint, number, &texts)?;
        store.keep_part(&PROFILES, fingerprint, number, &profiles)?;
        store.keep_part(&BEFORE, fingerprint, number, &before)?;
        store.keep_part(&LOGITS, fingerprint, number, &logits)?;
        store.keep_part(&OWN, fingerprint, number, &own)?;
        run.parts.made();
    }
    Ok(())
}
