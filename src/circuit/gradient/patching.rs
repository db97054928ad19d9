//! Attribution patching: features ranked by the gradient of the whole model, nothing replaced, in
//! both directions: on the clean prompt and on its corrupted twin. Nanda 2023; held against the
//! gradient of the run with features replaced.

use super::Gradient;
use crate::circuit::faithful::{Case, components};
use crate::circuit::replacement::Pass;
use crate::dictionary::Active;
use crate::error::Result;
use crate::ids::{DictionaryId, FeatureId};
use candle_core::Tensor;
use std::collections::BTreeMap;

impl Gradient<'_> {
    /// Each feature's score in one prompt: `(a − a')·(g + g')·W_f` summed over positions, `a'` and
    /// `g'` of the corrupted twin.
    ///
    /// # Errors
    /// When a dictionary cannot be read.
    pub fn patching(
        &self,
        case: &Case,
        clean: &Pass,
        corrupted: &Pass,
        neurons: &components::Neurons,
    ) -> Result<BTreeMap<FeatureId, f64>> {
        let hooks = self.neurons(neurons)?;
        let twin = Case { tokens: case.corrupted, ..case.clone() };
        let there = self.point(case, &hooks, 1.0)?.back(self, &hooks)?;
        let back = self.point(&twin, &hooks, 1.0)?.back(self, &hooks)?;
        let mut scores = BTreeMap::new();
        for (i, id) in DictionaryId::all(self.model.sizes.layers).enumerate() {
            let g = (there.gradient(i) + back.gradient(i))?;
            let [own, twins] = [clean, corrupted].map(|pass| pass.active(id.kind, id.layer));
            self.add_along(&mut scores, id, &g, own, twins)?;
        }
        Ok(scores)
    }

    /// Adds `(a − b)·g·W_f`, summed over positions, of the features that differ; `g` is at what the
    /// hook holds, `[T, d_out]`
    pub(super) fn add_along(
        &self,
        scores: &mut BTreeMap<FeatureId, f64>,
        id: DictionaryId,
        g: &Tensor,
        a: &[Active],
        b: &[Active],
    ) -> Result<()> {
        let width = self.replacement.dictionary(id).b_out().len();
        for (p, (a, b)) in a.iter().zip(b).enumerate() {
            let changes = difference(a, b);
            let chosen: Vec<usize> = changes.iter().map(|(f, _)| *f as usize).collect();
            if chosen.is_empty() {
                continue;
            }
            let rows = Tensor::from_vec(
                self.replacement.write_rows(id, &chosen)?,
                (chosen.len(), width),
                g.device(),
            )?;
            let along =
                super::numbers(&rows.to_dtype(self.dtype)?.matmul(&g.narrow(0, p, 1)?.t()?)?)?;
            for ((f, change), along) in changes.into_iter().zip(along) {
                let feature = FeatureId { dictionary: id, index: f as usize };
                *scores.entry(feature).or_insert(0.0) += f64::from(change) * along;
            }
        }
        Ok(())
    }
}

/// What two lists of activations differ by, by feature.
fn difference(a: &Active, b: &Active) -> Active {
    let mut changes: BTreeMap<u32, f32> = a.iter().copied().collect();
    b.iter().for_each(|(f, b)| *changes.entry(*f).or_insert(0.0) -= b);
    changes.into_iter().filter(|(_, change)| *change != 0.0).collect()
}
