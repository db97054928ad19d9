//! Readings at another scale: weights or inputs multiplied, signs flipped, thresholds stored in
//! another form. All are made of `x·W_enc`, which is computed once.

use super::groups::{Explained, Groups};
use super::places::FEW;
use super::products::Products;
use super::suspects::{FITTED, Read, Tried};
use crate::dictionary::{Active, Dictionary, Encoder, Rule};
use crate::error::Result;
use crate::ids::Kind;
use candle_core::Tensor;

/// Scales that trained dictionaries want anyway: those trained with an L1 penalty shrink.
pub(super) const USUAL: (f64, f64) = (0.75, 1.33);
/// A scale at which more features than this are active is none that a dictionary was trained at.
const MOST_ACTIVE: f64 = 512.0;
/// Scales are looked for from 1/32 to 32, in steps of √2.
const STEPS: i32 = 10;

const WRITTEN: &str = "its `W_dec` was rescaled, or its rows were normalised and their norms not \
    moved into the encoder; use the weights as they were trained";
const READ: &str = "its `W_enc` was rescaled; use the weights as they were trained";
const NORMALISED: &str = "it was trained on activations scaled to a fixed norm \
    (`normalize_activations`); fold that scale into its weights";
const EITHER: &str = "its `W_enc` was rescaled, or it was trained on inputs scaled to a fixed norm \
    (`normalize_activations`); fold that scale into its weights";
const SIGNS: &str = "a sign was lost when it was converted; use the weights as they were trained";
const IN_LOGS: &str =
    "the file holds the logarithms of its thresholds; save `threshold` exponentiated";
const OUT_OF_LOGS: &str =
    "the file holds its thresholds exponentiated; save their logarithms as `threshold`";

/// What is multiplied before a feature's bias is added.
#[derive(Clone, Copy)]
enum Scaled {
    /// `W_enc`, and with it what of the bias comes from `b_in`.
    Weights,
    /// The input; of an SAE, which reconstructs its input, the reconstruction is divided.
    Input,
}

struct Scales<'a> {
    products: &'a Products<'a>,
    dictionary: &'a Dictionary,
    rule: &'a Rule,
    groups: &'a Groups,
    /// What the dictionary explains as its file says.
    own: &'a Explained,
    y: &'a Tensor,
    b_out: Tensor,
}

/// Which of its tensors is zero throughout although none is that was trained.
pub(super) fn lost(products: &Products) -> Option<&'static str> {
    let (rule, thresholds) = (&products.encoder.rule, products.encoder.thresholds());
    if matches!(rule, Rule::Jump(_)) && thresholds.iter().all(|x| *x == 0.0) {
        return Some("threshold");
    }
    let zero = largest(&products.b_enc) <= 1e-5 * largest(&products.bias);
    (zero && !matches!(rule, Rule::TopK(_))).then_some("b_enc")
}

/// Whether most thresholds are below 0: activations are not, so that these say nothing.
pub(super) fn in_logs(encoder: &Encoder) -> bool {
    let Rule::Jump(thresholds) = &encoder.rule else { return false };
    let below = thresholds.iter().filter(|x| **x < 0.0).count();
    2 * below > thresholds.len()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// Tries every scale.
pub(super) fn tried(
    products: &Products,
    groups: &Groups,
    y: &Tensor,
    as_said: &Read,
    own: &Explained,
) -> Result<Vec<Tried>> {
    let (dictionary, rule) = (products.dictionary, &products.encoder.rule);
    let b_out = Tensor::new(dictionary.b_out(), y.device())?;
    let scales = Scales { products, dictionary, rule, groups, own, y, b_out };
    let mut all = scales.signs()?;
    all.extend(scales.written(as_said)?);
    all.extend(scales.best(Scaled::Weights)?);
    let shifted = dictionary.b_in().iter().any(|b| *b != 0.0);
    if shifted || dictionary.id.kind == Kind::Attention {
        all.extend(scales.best(Scaled::Input)?);
    }
    all.extend(scales.thresholds()?);
    Ok(all)
}

impl Scales<'_> {
    /// The active features of the first `n` tokens at a scale.
    fn active(&self, n: usize, scaled: Scaled, times: f64) -> Vec<Active> {
        let Products { bias, b_enc, .. } = self.products;
        let times = times as f32;
        let bias: Vec<f32> = match scaled {
            Scaled::Weights => {
                bias.iter().zip(b_enc).map(|(bias, b)| times * (bias - b) + b).collect()
            }
            Scaled::Input => bias.clone(),
        };
        self.products.active_first(n, self.rule, times, &bias)
    }

    /// Of all tokens, as the file says but for the rule.
    fn unscaled(&self, rule: &Rule) -> Vec<Active> {
        self.products.active(rule, 1.0, &self.products.bias)
    }

    /// How well something fits the first tokens, which [`FEW`] of are from all contexts.
    fn explained(&self, reconstruction: &Tensor) -> Result<f64> {
        let n = reconstruction.dim(0)?;
        let y = self.y.narrow(0, 0, n)?;
        Ok(self.groups.first(n).explained(&y, reconstruction)?.median())
    }

    /// Active features a token, of the first tokens.
    fn l0(&self, active: &[Active]) -> f64 {
        self.groups.first(active.len()).l0(active)
    }

    /// Features' part of a reconstruction multiplied by `times`, its bias not.
    fn about_bias(&self, reconstruction: &Tensor, times: f64) -> Result<Tensor> {
        let features = (reconstruction.broadcast_sub(&self.b_out)? * times)?;
        Ok(features.broadcast_add(&self.b_out)?)
    }

    fn tried(
        &self,
        when: String,
        hint: &'static str,
        active: &[Active],
        reconstruction: &Tensor,
    ) -> Result<Tried> {
        let read = (active, reconstruction);
        Tried::of((&when, hint), self.groups, self.y, read, self.own, FITTED)
    }

    /// `W_dec` at the scale that fits most contexts best, each by least squares.
    fn written(&self, Read { active, reconstruction }: &Read) -> Result<Option<Tried>> {
        let features = reconstruction.broadcast_sub(&self.b_out)?;
        let dots = |a: &Tensor| -> Result<Vec<f64>> {
            let each = (a * &features)?.sum(1)?.to_vec1::<f32>()?;
            Ok(each.into_iter().map(f64::from).collect())
        };
        let times = self.groups.ratio(
            dots(&self.y.broadcast_sub(&self.b_out)?)?.into_iter(),
            dots(&features)?.into_iter(),
        );
        if (USUAL.0..USUAL.1).contains(&times) {
            return Ok(None);
        }
        let scaled = self.about_bias(reconstruction, times)?;
        let (when, hint) = match -times {
            flipped if (USUAL.0..USUAL.1).contains(&flipped) => {
                ("with the sign of `W_dec` flipped".into(), SIGNS)
            }
            _ => (format!("with `W_dec` times {times:.2}"), WRITTEN),
        };
        self.tried(when, hint, active, &scaled).map(Some)
    }

    /// `W_enc` with its sign flipped, alone and with that of `W_dec`.
    fn signs(&self) -> Result<Vec<Tried>> {
        let n = self.products.tokens();
        if self.l0(&self.active(FEW.min(n), Scaled::Weights, -1.0)) > self.most() {
            return Ok(Vec::new());
        }
        let active = self.active(n, Scaled::Weights, -1.0);
        let read = self.dictionary.decode(&active)?;
        let both = self.about_bias(&read, -1.0)?;
        Ok(vec![
            self.tried("with the sign of `W_enc` flipped".into(), SIGNS, &active, &read)?,
            self.tried(
                "with the signs of `W_enc` and `W_dec` flipped".into(),
                SIGNS,
                &active,
                &both,
            )?,
        ])
    }

    /// The most features that may be active for a scale to be looked at.
    fn most(&self) -> f64 {
        MOST_ACTIVE.min(self.products.bias.len() as f64 / 4.0)
    }

    /// Of the first `n` tokens at a scale; nothing if far too many features are active.
    fn at(&self, scaled: Scaled, times: f64, n: usize) -> Result<Option<(Vec<Active>, Tensor)>> {
        let active = self.active(n, scaled, times);
        if self.l0(&active) > self.most() {
            return Ok(None);
        }
        let mut reconstruction = self.dictionary.decode(&active)?;
        if matches!(scaled, Scaled::Input) && self.dictionary.id.kind == Kind::Attention {
            reconstruction = (reconstruction / times)?;
        }
        Ok(Some((active, reconstruction)))
    }

    /// The scale that fits best: looked for in steps, then between them.
    fn best(&self, scaled: Scaled) -> Result<Option<Tried>> {
        let n = FEW.min(self.products.tokens());
        let explained = |times: f64| -> Result<(f64, f64)> {
            let found = self.at(scaled, times, n)?;
            let explained = found.map(|(_, it)| self.explained(&it)).transpose()?;
            Ok((explained.unwrap_or(f64::NEG_INFINITY), times))
        };
        let better = |a: (f64, f64), b: (f64, f64)| if b.0 > a.0 { b } else { a };
        let mut best = (f64::NEG_INFINITY, 1.0);
        for step in -STEPS..=STEPS {
            best = better(best, explained(2f64.powf(f64::from(step) / 2.0))?);
        }
        for part in [4.0, 8.0, 16.0, 32.0] {
            for sign in [1.0, -1.0] {
                let times = best.1 * 2f64.powf(sign / part);
                best = better(best, explained(times)?);
            }
        }
        let times = best.1;
        if (USUAL.0..USUAL.1).contains(&times) {
            return Ok(None);
        }
        let Some((active, reconstruction)) = self.at(scaled, times, self.products.tokens())? else {
            return Ok(None);
        };
        let (when, hint) = match scaled {
            Scaled::Weights if self.dictionary.id.kind == Kind::Mlp => {
                (format!("with `W_enc`, or its input, times {times:.2}"), EITHER)
            }
            Scaled::Weights => (format!("with `W_enc` times {times:.2}"), READ),
            Scaled::Input => (format!("with its input times {times:.2}"), NORMALISED),
        };
        self.tried(when, hint, &active, &reconstruction).map(Some)
    }

    /// Thresholds stored as logarithms or exponentiated.
    fn thresholds(&self) -> Result<Vec<Tried>> {
        let Rule::Jump(thresholds) = self.rule else { return Ok(Vec::new()) };
        let with = |thresholds: Vec<f32>, when: &str, hint| -> Result<Option<Tried>> {
            let rule = Rule::Jump(thresholds);
            let active = self.unscaled(&rule);
            if self.l0(&active) > self.most() {
                return Ok(None);
            }
            self.tried(when.into(), hint, &active, &self.dictionary.decode(&active)?).map(Some)
        };
        let exponents = thresholds.iter().map(|x| x.exp()).collect();
        let logarithms = thresholds.iter().map(|x| x.max(f32::MIN_POSITIVE).ln()).collect();
        let tried = [
            with(exponents, "with `threshold` exponentiated", IN_LOGS)?,
            with(logarithms, "with the logarithm of `threshold`", OUT_OF_LOGS)?,
        ];
        Ok(tried.into_iter().flatten().collect())
    }
}
