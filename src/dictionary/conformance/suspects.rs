//! The ways in which dictionaries have been read wrongly, each tried: the value bias left in `z`,
//! LayerNorm not folded, the erf form of GELU, another layer's file, heads in another order, a
//! transposed decoder, the wrong bias subtracted, a mean subtracted; and those of `scales`.
//!
//! The evidence is the variance explained. A dictionary that is read as it was trained fits best
//! that way: every other reading leaves more unexplained, so one that leaves clearly less is the
//! right one. (Outputs of tanh and erf GELU differ by a thousandth: only a dictionary that is
//! nearly exact can tell them apart.)

use super::rows::Rows;
use super::{Fit, Sample, heads, scales};
use crate::dictionary::{Active, Dictionary, Encoder};
use crate::error::Result;
use crate::ids::Kind;
use crate::model::Gpt2;
use candle_core::Tensor;

/// Tokens that each reading is tried on.
const TOKENS: usize = 256;

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
/// What rounding alone leaves unexplained of an exact dictionary, with room to spare.
const ROUNDING: f64 = 1e-8;

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

/// What is tried: what is read and what is reconstructed, `[T, D]` each.
struct Reading {
    when: String,
    hint: &'static str,
    x: Tensor,
    y: Tensor,
    /// Added to the reconstruction.
    shift: Option<Tensor>,
    transposed: bool,
    /// What each feature's activation is multiplied by.
    times: Option<Vec<f64>>,
    doubt: f64,
}

impl Reading {
    fn new(when: impl Into<String>, hint: &'static str, x: &Tensor, y: &Tensor) -> Reading {
        Reading {
            when: when.into(),
            hint,
            x: x.clone(),
            y: y.clone(),
            shift: None,
            transposed: false,
            times: None,
            doubt: 1.0,
        }
    }

    /// The reconstruction, and the active features a token.
    fn reconstructed(&self, dictionary: &Dictionary, encoder: &Encoder) -> Result<(Tensor, f64)> {
        let mut active = encoder.active(&self.x)?;
        let l0 = l0(&active);
        if let Some(times) = &self.times {
            let scaled = |(f, a): &mut (u32, f32)| *a *= times[*f as usize] as f32;
            active.iter_mut().for_each(|active| active.iter_mut().for_each(scaled));
        }
        let mut reconstruction = if self.transposed {
            let b_out = Tensor::new(dictionary.b_out(), self.x.device())?;
            let w = dictionary.w_dec()?;
            encoder.encode(&self.x)?.matmul(&w.t()?)?.broadcast_add(&b_out)?
        } else {
            dictionary.decode(&active)?
        };
        if let Some(shift) = &self.shift {
            reconstruction = reconstruction.broadcast_add(shift)?;
        }
        Ok((reconstruction, l0))
    }
}

/// Active features a token.
pub(super) fn l0(active: &[Active]) -> f64 {
    active.iter().map(Vec::len).sum::<usize>() as f64 / active.len().max(1) as f64
}

/// The share of what was left unexplained that is left now; of an exact dictionary nothing is.
pub(super) fn left(own: f64, explained: f64) -> f64 {
    if 1.0 - own > ROUNDING { (1.0 - explained) / (1.0 - own) } else { 1.0 }
}

/// Tries every reading.
pub(super) fn tried(
    model: &Gpt2,
    dictionary: &Dictionary,
    encoder: &Encoder,
    sample: &Sample,
    rows: &Rows,
) -> Result<Readings> {
    let (x, y) = hooked(sample, dictionary.id.layer, dictionary.id.kind)?;
    let as_said = Reading::new("", "", &x, &y).reconstructed(dictionary, encoder)?.0;
    let own = Fit::of(&y, &as_said)?.explained();
    let mut tried = Vec::new();
    for reading in
        readings(model, dictionary, sample, &x, &y)?.into_iter().chain(of_rows(rows, &x, &y))
    {
        let (reconstruction, l0) = reading.reconstructed(dictionary, encoder)?;
        let explained = Fit::of(&reading.y, &reconstruction)?.explained();
        let left = left(own, explained);
        let (when, hint, doubt) = (reading.when, reading.hint, reading.doubt);
        tried.push(Tried { when, hint, explained, l0, left, doubt });
    }
    if dictionary.id.kind == Kind::Attention
        && let Some(order) = heads::order(dictionary, &x, model.sizes.heads)?
    {
        let turned = heads::reordered(&x, &order)?;
        let reading = Reading::new(heads::in_words(&order), HEADS, &turned, &turned);
        let (reconstruction, l0) = reading.reconstructed(dictionary, encoder)?;
        // Judged where it makes a difference, as quiet heads are little of the whole.
        let part = |y: &Tensor, reconstruction: &Tensor| -> Result<f64> {
            let [y, y_hat] = [y, reconstruction].map(|rows| heads::moved(rows, &order));
            Ok(Fit::of(&y?, &y_hat?)?.explained())
        };
        tried.push(Tried {
            when: reading.when,
            hint: HEADS,
            explained: Fit::of(&turned, &reconstruction)?.explained(),
            l0,
            left: left(part(&y, &as_said)?, part(&turned, &reconstruction)?),
            doubt: 1.0,
        });
    }
    tried.extend(scales::tried(dictionary, encoder, &x, &y, own)?);
    Ok(Readings { own, tried })
}

/// What a dictionary of a hook reads and reconstructs at the first tokens of the sample, BOS left
/// out.
fn hooked(sample: &Sample, layer: usize, kind: Kind) -> Result<(Tensor, Tensor)> {
    let (mut x, mut y, mut tokens) = (Vec::new(), Vec::new(), 0);
    for context in &sample.contexts {
        if tokens >= TOKENS {
            break;
        }
        let (read, written) = context.layers[layer].of(kind);
        let n = context.tokens.len() - 1;
        x.push(read.narrow(0, 1, n)?);
        y.push(written.narrow(0, 1, n)?);
        tokens += n;
    }
    let first = |rows: Vec<Tensor>| -> Result<Tensor> {
        let all = Tensor::cat(&rows, 0)?;
        Ok(all.narrow(0, 0, TOKENS.min(tokens))?)
    };
    Ok((first(x)?, first(y)?))
}

/// The means over the whole sample of what a dictionary of a hook reads and reconstructs.
fn means(sample: &Sample, layer: usize, kind: Kind) -> Result<(Tensor, Tensor)> {
    let mut sums: Option<(Tensor, Tensor)> = None;
    let mut tokens = 0;
    for context in &sample.contexts {
        let (x, y) = context.layers[layer].of(kind);
        let n = context.tokens.len() - 1;
        let sum = |rows: &Tensor| rows.narrow(0, 1, n)?.sum(0);
        let (x, y) = (sum(x)?, sum(y)?);
        sums = Some(match sums {
            Some((all_x, all_y)) => ((all_x + x)?, (all_y + y)?),
            None => (x, y),
        });
        tokens += n;
    }
    let (x, y) = sums.ok_or_else(super::no_context)?;
    Ok(((x / tokens as f64)?, (y / tokens as f64)?))
}

fn readings(
    model: &Gpt2,
    dictionary: &Dictionary,
    sample: &Sample,
    x: &Tensor,
    y: &Tensor,
) -> Result<Vec<Reading>> {
    let id = dictionary.id;
    let mut all = match id.kind {
        Kind::Attention => of_attention(model, id.layer, x)?,
        Kind::Mlp => of_mlp(model, id.layer, x, y)?,
    };
    all.extend(biases(dictionary, x, y)?);
    for layer in (0..model.sizes.layers).filter(|layer| *layer != id.layer) {
        let (x, y) = hooked(sample, layer, id.kind)?;
        all.push(Reading::new(format!("of that of layer {layer}"), ANOTHER_LAYER, &x, &y));
    }
    if dictionary.width() == dictionary.b_out().len() {
        all.push(Reading {
            transposed: true,
            ..Reading::new("with `W_dec` transposed", TRANSPOSED, x, y)
        });
    }
    let (x_mean, y_mean) = means(sample, id.layer, id.kind)?;
    let (x, y_centred) = (x.broadcast_sub(&x_mean)?, y.broadcast_sub(&y_mean)?);
    // The bias of an SAE is near the mean: where it fits as well, that is the cause.
    let centred =
        |when: &str, y: &Tensor| Reading { doubt: ALIKE, ..Reading::new(when, CENTRED, &x, y) };
    all.push(centred("when the mean is subtracted from its input", y));
    let when = "when the means are subtracted from its input and its target";
    all.push(centred(when, &y_centred));
    Ok(all)
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

fn of_attention(model: &Gpt2, layer: usize, z: &Tensor) -> Result<Vec<Reading>> {
    let biased = z.broadcast_add(&model.layers[layer].unfolded.value_bias)?;
    let turned = heads::by_coordinate(z, model.sizes.heads)?;
    Ok(vec![
        Reading::new("when the value bias is left in `z`", VALUE_BIAS, &biased, &biased),
        Reading::new("of `z` flattened as [d_head, heads]", BY_COORDINATE, &turned, &turned),
    ])
}

fn of_mlp(model: &Gpt2, layer: usize, x2: &Tensor, mlp_out: &Tensor) -> Result<Vec<Reading>> {
    let (gain, bias) = &model.layers[layer].unfolded.norm2;
    let unfolded = x2.broadcast_mul(gain)?.broadcast_add(bias)?;
    let erf = model.mlp_with_erf(layer, x2)?;
    Ok(vec![
        Reading::new(
            "when gain and bias of ln_2 are left in its input",
            NOT_FOLDED,
            &unfolded,
            mlp_out,
        ),
        Reading::new("of an MLP with the erf form of GELU", ERF, x2, &erf),
        Reading::new("of its own input", OWN_INPUT, x2, x2),
    ])
}

/// Nothing subtracted from the input, or the output's bias, or the two biases swapped.
fn biases(dictionary: &Dictionary, x: &Tensor, y: &Tensor) -> Result<Vec<Reading>> {
    let vector = |values: &[f32]| Tensor::new(values, x.device());
    let (b_in, b_out) = (vector(dictionary.b_in())?, vector(dictionary.b_out())?);
    let nothing = x.broadcast_add(&b_in)?;
    let output = nothing.broadcast_sub(&b_out)?;
    Ok(vec![
        Reading::new("when no bias is subtracted from its input", BIAS, &nothing, y),
        Reading::new("when the output's bias is subtracted from its input", BIAS, &output, y),
        Reading {
            shift: Some((b_in - b_out)?),
            ..Reading::new("when its two decoder biases are swapped", BIAS, &output, y)
        },
    ])
}

/// Each row of the decoder at the scale that fits it best, where most rows want another one.
fn of_rows(rows: &Rows, x: &Tensor, y: &Tensor) -> Option<Reading> {
    let usual = (scales::USUAL.0..scales::USUAL.1).contains(&rows.fit().median);
    (!usual).then(|| Reading {
        times: Some(rows.best_scales()),
        ..Reading::new("with each row of `W_dec` at its own scale", OWN_NORMS, x, y)
    })
}
