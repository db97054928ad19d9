//! The ways in which dictionaries have been read wrongly, each tried: the value bias left in `z`,
//! LayerNorm not folded, the erf form of GELU, another layer's file, heads in another order, a
//! transposed decoder, the wrong bias subtracted, a mean subtracted; and those of `scales`.
//!
//! The evidence is the variance explained. A dictionary that is read as it was trained fits best
//! that way: every other reading leaves more unexplained, so one that leaves clearly less is the
//! right one. (Outputs of tanh and erf GELU differ by a thousandth: only a dictionary that is
//! nearly exact can tell them apart.)

use super::groups::{Explained, Groups};
use super::places::FEW;
use super::products::Products;
use super::rows::Rows;
use super::{Sample, heads, scales};
use crate::dictionary::Active;
use crate::error::Result;
use crate::ids::Kind;
use crate::model::Gpt2;
use candle_core::Tensor;

/// Readings that need a product of their own are first tried on the first [`FEW`] of the tokens,
/// and on all of them unless they leave this many times what the dictionary's own leaves there.
const NOT_WORSE: f64 = 1.25;

/// A reading fits far better when it leaves less than this share of what the dictionary's own
/// leaves unexplained.
const LEFT: f64 = 0.9;
/// The same of a reading with a number that was chosen to fit: those trained with an L1 penalty
/// shrink, and fit a little better at another scale.
const LEFT_FITTED: f64 = 0.8;
/// What a reading with a number that was chosen to fit leaves unexplained counts so many times.
pub(super) const FITTED: f64 = 1.5;
/// What a reading leaves unexplained counts so many times if another is much like it.
const ALIKE: f64 = 1.3;

/// A reading, and how well it fits.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    /// Behind "explains 0.9".
    pub when: String,
    pub hint: &'static str,
    /// On the tokens that all readings are tried on.
    pub explained: f64,
    /// Active features a token.
    pub l0: f64,
    /// The share of what the dictionary's own reading leaves unexplained that is left.
    pub left: f64,
    /// What it leaves unexplained counts so many times: more than 1 for readings that others
    /// resemble, and that have a number which was chosen to fit.
    pub doubt: f64,
}

impl Tried {
    /// Of tokens in these groups: `y [T, D]`, what a reading makes of them, and what the
    /// dictionary's own explains there.
    pub(super) fn of(
        (when, hint): (&str, &'static str),
        groups: &Groups,
        y: &Tensor,
        (active, reconstruction): (&[Active], &Tensor),
        own: &Explained,
        doubt: f64,
    ) -> Result<Tried> {
        let explained = groups.explained(y, reconstruction)?;
        Ok(Tried {
            when: when.into(),
            hint,
            explained: explained.median(),
            l0: groups.l0(active),
            left: explained.left_of(own),
            doubt,
        })
    }

    pub(super) fn is_far_better(&self) -> bool {
        let limit = if self.doubt >= FITTED { LEFT_FITTED } else { LEFT };
        self.left < limit && self.explained > 0.0
    }
}

/// Every reading of a dictionary that was tried, on the same tokens.
#[derive(Clone, Debug)]
pub(super) struct Readings {
    /// As its file asks for.
    pub own: f64,
    pub tried: Vec<Tried>,
}

/// What a reading makes of the tokens.
pub(super) struct Read {
    pub(super) active: Vec<Active>,
    pub(super) reconstruction: Tensor,
}

impl Read {
    fn parts(&self) -> (&[Active], &Tensor) {
        (&self.active, &self.reconstruction)
    }
}

/// Another input, which needs a product of its own, and what is reconstructed from it, `[T, D]`.
struct Input {
    when: String,
    hint: &'static str,
    x: Tensor,
    y: Tensor,
}

/// Everything that is tried on one dictionary.
struct Trials<'a> {
    model: &'a Gpt2,
    sample: &'a Sample,
    products: &'a Products<'a>,
    /// The groups of contexts of the tokens.
    groups: Groups,
    /// What it reads and reconstructs at the tokens, `[T, D]` each.
    x: Tensor,
    y: Tensor,
    /// As its file says, and how well that fits.
    as_said: Read,
    own: Explained,
    /// How well it fits the few; none where there are no more.
    few: Option<Explained>,
    tried: Vec<Tried>,
}

/// The first rows, which are of all contexts too.
fn few_of(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.narrow(0, 0, FEW)?)
}

/// Tries every reading. `as_said` is what the dictionary's own makes of the tokens.
pub(super) fn tried(
    model: &Gpt2,
    sample: &Sample,
    products: &Products,
    (active, reconstruction): (Vec<Active>, Tensor),
    rows: &Rows,
) -> Result<Readings> {
    let id = products.dictionary.id;
    let (x, y) = sample.layers[id.layer].of(id.kind);
    let (x, y) = (sample.tried(x)?, sample.tried(y)?);
    let groups = sample.places.groups_of(&sample.places.tried);
    let own = groups.explained(&y, &reconstruction)?;
    let few = (x.dim(0)? > FEW).then(|| -> Result<Explained> {
        groups.first(FEW).explained(&few_of(&y)?, &few_of(&reconstruction)?)
    });
    let as_said = Read { active, reconstruction };
    let (few, tried) = (few.transpose()?, Vec::new());
    let mut trials = Trials { model, sample, products, groups, x, y, as_said, own, few, tried };
    let mut inputs = match id.kind {
        Kind::Attention => trials.of_attention()?,
        Kind::Mlp => trials.of_mlp()?,
    };
    inputs.extend(trials.other_layers()?);
    trials.of_inputs(inputs)?;
    trials.biases()?;
    trials.transposed()?;
    trials.centred()?;
    trials.of_rows(rows)?;
    trials.order_of_heads()?;
    let Trials { groups, y, as_said, own, mut tried, .. } = trials;
    tried.extend(scales::tried(products, &groups, &y, &as_said, &own)?);
    Ok(Readings { own: own.median(), tried })
}

const ANOTHER_LAYER: &str = "it is the file of another layer; download the right one";
const TRANSPOSED: &str = "save `W_dec` transposed, one feature per row";
const VALUE_BIAS: &str = "it was trained on a model whose value bias was not folded into the \
    output bias; use a dictionary of the folded model, or add `b_V` to its `b_dec`";
const NOT_FOLDED: &str = "it was trained on a model whose LayerNorm was not folded; use a \
    dictionary of the folded model";
const ERF: &str =
    "it was trained on a model with another activation function; GPT-2 uses the tanh form of GELU";
const OWN_INPUT: &str =
    "it is an SAE of its input, not a transcoder; `dictionaries.mlp` needs transcoders";
const BIAS: &str = "correct `apply_b_dec_to_input` in its config, or the names of its two biases";
const BY_COORDINATE: &str = "it was trained on `z` flattened as [d_head, heads]; reorder the rows \
    of `W_enc`, the columns of `W_dec` and `b_dec` to [heads, d_head]";
const HEADS: &str = "its heads are not in the model's order; reorder the rows of `W_enc`, the \
    columns of `W_dec` and `b_dec`, head by head";
const CENTRED: &str = "it was trained on centred activations; subtract mean·W_enc from its `b_enc`, \
    and add the mean to its `b_dec` if its target was centred too";
const OWN_NORMS: &str = "the rows of its `W_dec` were normalised, and their norms not moved into \
    the encoder; use the weights as they were trained";

impl Trials<'_> {
    /// A reading of which everything is known, fitted to `y`.
    fn judged(
        &mut self,
        said: (&str, &'static str),
        read: &Read,
        y: &Tensor,
        doubt: f64,
    ) -> Result<()> {
        self.tried.push(Tried::of(said, &self.groups, y, read.parts(), &self.own, doubt)?);
        Ok(())
    }

    /// What the dictionary makes of its inputs with another bias.
    fn with_bias(&self, bias: &[f32]) -> Result<Read> {
        self.decoded(self.products.active(&self.products.encoder.rule, 1.0, bias))
    }

    fn decoded(&self, active: Vec<Active>) -> Result<Read> {
        let reconstruction = self.products.dictionary.decode(&active)?;
        Ok(Read { active, reconstruction })
    }

    /// Other inputs, which need products of their own: a few tokens tell whether one is worth that
    /// of all, unless the dictionary's own reading says nothing. The few of all are one product.
    fn of_inputs(&mut self, inputs: Vec<Input>) -> Result<()> {
        let encoder = self.products.encoder;
        let mut worth = inputs;
        let fits = self.own.median() > 0.0 && !worth.is_empty();
        if let Some(own) = self.few.take().filter(|_| fits) {
            let rows = worth.iter().map(|input| few_of(&input.x)).collect::<Result<Vec<_>>>()?;
            let mut active = encoder.active(&Tensor::cat(&rows, 0)?)?.into_iter();
            let groups = self.groups.first(FEW);
            for input in std::mem::take(&mut worth) {
                let read = self.decoded(active.by_ref().take(FEW).collect())?;
                let (said, y) = ((input.when.as_str(), input.hint), few_of(&input.y)?);
                let tried = Tried::of(said, &groups, &y, read.parts(), &own, 1.0)?;
                if tried.left > NOT_WORSE {
                    self.tried.push(tried);
                } else {
                    worth.push(input);
                }
            }
        }
        for Input { when, hint, x, y } in worth {
            let read = self.decoded(encoder.active(&x)?)?;
            self.judged((&when, hint), &read, &y, 1.0)?;
        }
        Ok(())
    }

    fn of_attention(&mut self) -> Result<Vec<Input>> {
        let z = self.x.clone();
        let value_bias = &self.model.layers[self.products.dictionary.id.layer].unfolded.value_bias;
        let biased = self.with_bias(&self.products.moved(value_bias)?)?;
        let target = z.broadcast_add(value_bias)?;
        self.judged(("when the value bias is left in `z`", VALUE_BIAS), &biased, &target, 1.0)?;
        let turned = heads::by_coordinate(&z, self.model.sizes.heads)?;
        let when = "of `z` flattened as [d_head, heads]".into();
        Ok(vec![Input { when, hint: BY_COORDINATE, x: turned.clone(), y: turned }])
    }

    fn of_mlp(&mut self) -> Result<Vec<Input>> {
        let (x2, mlp_out, layer) = (&self.x, &self.y, self.products.dictionary.id.layer);
        let (gain, bias) = &self.model.layers[layer].unfolded.norm2;
        let unfolded = x2.broadcast_mul(gain)?.broadcast_add(bias)?;
        let erf = self.model.mlp_with_erf(layer, x2)?;
        let (x2, mlp_out) = (x2.clone(), mlp_out.clone());
        self.with_targets(&[
            ("of an MLP with the erf form of GELU", ERF, &erf),
            ("of its own input", OWN_INPUT, &x2),
        ])?;
        let when = "when gain and bias of ln_2 are left in its input".into();
        Ok(vec![Input { when, hint: NOT_FOLDED, x: unfolded, y: mlp_out }])
    }

    /// The dictionary's own reconstruction held against other targets.
    fn with_targets(&mut self, targets: &[(&str, &'static str, &Tensor)]) -> Result<()> {
        for (when, hint, y) in targets {
            let (said, read) = ((*when, *hint), self.as_said.parts());
            self.tried.push(Tried::of(said, &self.groups, y, read, &self.own, 1.0)?);
        }
        Ok(())
    }

    /// Nothing subtracted from the input, or the output's bias, or the two biases swapped.
    fn biases(&mut self) -> Result<()> {
        let dictionary = self.products.dictionary;
        let vector = |values: &[f32]| Tensor::new(values, self.x.device());
        let (b_in, b_out) = (vector(dictionary.b_in())?, vector(dictionary.b_out())?);
        let y = self.y.clone();
        let nothing = self.with_bias(&self.products.b_enc)?;
        let when = "when no bias is subtracted from its input";
        self.judged((when, BIAS), &nothing, &y, 1.0)?;
        let swapped = (b_in - b_out)?;
        let mut output = self.with_bias(&self.products.moved(&swapped)?)?;
        let when = "when the output's bias is subtracted from its input";
        self.judged((when, BIAS), &output, &y, 1.0)?;
        output.reconstruction = output.reconstruction.broadcast_add(&swapped)?;
        self.judged(("when its two decoder biases are swapped", BIAS), &output, &y, 1.0)
    }

    fn other_layers(&self) -> Result<Vec<Input>> {
        let id = self.products.dictionary.id;
        let of = |layer: usize| {
            let (x, y) = self.sample.layers[layer].of(id.kind);
            let (x, y) = (self.sample.tried(x)?, self.sample.tried(y)?);
            let when = format!("of that of layer {layer}");
            Ok(Input { when, hint: ANOTHER_LAYER, x, y })
        };
        (0..self.model.sizes.layers).filter(|layer| *layer != id.layer).map(of).collect()
    }

    fn transposed(&mut self) -> Result<()> {
        let (dictionary, encoder) = (self.products.dictionary, self.products.encoder);
        if dictionary.width() != dictionary.b_out().len() {
            return Ok(());
        }
        let b_out = Tensor::new(dictionary.b_out(), self.x.device())?;
        let written = encoder.encode(&self.x)?.matmul(&dictionary.w_dec()?.t()?)?;
        let read = Read {
            active: self.as_said.active.clone(),
            reconstruction: written.broadcast_add(&b_out)?,
        };
        self.judged(("with `W_dec` transposed", TRANSPOSED), &read, &self.y.clone(), 1.0)
    }

    /// The means subtracted. The bias of an SAE is near the mean: where it fits as well, that is the
    /// cause.
    fn centred(&mut self) -> Result<()> {
        let id = self.products.dictionary.id;
        let (x, y) = self.sample.layers[id.layer].of(id.kind);
        let groups = self.sample.places.groups_of(&self.sample.places.measured);
        let mean = |rows: &Tensor| -> Result<Tensor> {
            Ok(Tensor::new(groups.centre(&self.sample.measured(rows)?)?, rows.device())?)
        };
        let (x_mean, y_mean) = (mean(x)?, mean(y)?);
        let read = self.with_bias(&self.products.moved(&x_mean.neg()?)?)?;
        let (y, centred) = (self.y.clone(), self.y.broadcast_sub(&y_mean)?);
        let when = "when the mean is subtracted from its input";
        self.judged((when, CENTRED), &read, &y, ALIKE)?;
        let when = "when the means are subtracted from its input and its target";
        self.judged((when, CENTRED), &read, &centred, ALIKE)
    }

    /// Each row of the decoder at the scale that fits it best, where most rows want another one.
    fn of_rows(&mut self, rows: &Rows) -> Result<()> {
        if (scales::USUAL.0..scales::USUAL.1).contains(&rows.fit().median) {
            return Ok(());
        }
        let (times, mut active) = (rows.best_scales(), self.as_said.active.clone());
        let scaled = |(f, a): &mut (u32, f32)| *a *= times[*f as usize] as f32;
        active.iter_mut().flatten().for_each(scaled);
        let read = self.decoded(active)?;
        let when = "with each row of `W_dec` at its own scale";
        self.judged((when, OWN_NORMS), &read, &self.y.clone(), 1.0)
    }

    fn order_of_heads(&mut self) -> Result<()> {
        let (dictionary, encoder) = (self.products.dictionary, self.products.encoder);
        if dictionary.id.kind != Kind::Attention {
            return Ok(());
        }
        let Some(order) = heads::order(dictionary, &self.x, self.model.sizes.heads)? else {
            return Ok(());
        };
        let turned = heads::reordered(&self.x, &order)?;
        let read = self.decoded(encoder.active(&turned)?)?;
        // Judged where it makes a difference, as quiet heads are little of the whole.
        let part = |y: &Tensor, reconstruction: &Tensor| -> Result<Explained> {
            let [y, y_hat] = [y, reconstruction].map(|rows| heads::moved(rows, &order));
            self.groups.explained(&y?, &y_hat?)
        };
        let own = part(&self.y, &self.as_said.reconstruction)?;
        let left = part(&turned, &read.reconstruction)?.left_of(&own);
        self.tried.push(Tried {
            when: heads::in_words(&order),
            hint: HEADS,
            explained: self.groups.explained(&turned, &read.reconstruction)?.median(),
            l0: self.groups.l0(&read.active),
            left,
            doubt: 1.0,
        });
        Ok(())
    }
}
