//! The ways in which dictionaries have been read wrongly, each tried: the value bias left in `z`,
//! LayerNorm not folded, the erf form of GELU, another layer's file, a transposed decoder, the
//! wrong bias subtracted.
//!
//! The evidence is the variance explained. A dictionary that is read as it was trained fits best
//! that way: every other reading leaves more unexplained, so one that leaves clearly less is the
//! right one. (Outputs of tanh and erf GELU differ by a thousandth: only a dictionary that is
//! nearly exact can tell them apart.)

use super::{Fit, Sample};
use crate::dictionary::{Dictionary, Encoder};
use crate::error::Result;
use crate::ids::Kind;
use crate::model::Gpt2;
use candle_core::Tensor;

/// Tokens that each reading is tried on.
const TOKENS: usize = 256;

/// A reading is suspected when it leaves less than this share of what the dictionary's own leaves
/// unexplained.
const LEFT: f64 = 0.9;
/// Of a dictionary that explains little either way, no reading is evidence against another.
const ENOUGH: f64 = 0.45;
/// What rounding alone leaves unexplained of an exact dictionary, with room to spare.
const ROUNDING: f64 = 1e-8;

/// A reading that fits better than the one that is used.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    /// Behind "explains 0.9".
    pub when: String,
    pub hint: &'static str,
    pub explained: f64,
}

impl Suspect {
    /// Whether it is evidence by itself, not only an explanation of a dictionary that is refused
    /// anyway.
    pub(super) fn is_evidence(&self) -> bool {
        self.explained > ENOUGH
    }
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
        }
    }

    fn explained(&self, dictionary: &Dictionary, encoder: &Encoder) -> Result<f64> {
        let mut reconstruction = if self.transposed {
            let rows = (0..dictionary.width())
                .map(|f| dictionary.write_direction(f))
                .collect::<Result<Vec<_>>>()?;
            let w = Tensor::from_vec(
                rows.concat(),
                (dictionary.width(), dictionary.width()),
                self.x.device(),
            )?;
            let b_out = Tensor::new(dictionary.b_out(), self.x.device())?;
            encoder.encode(&self.x)?.matmul(&w.t()?)?.broadcast_add(&b_out)?
        } else {
            dictionary.decode(&encoder.active(&self.x)?)?
        };
        if let Some(shift) = &self.shift {
            reconstruction = reconstruction.broadcast_add(shift)?;
        }
        Ok(Fit::of(&self.y, &reconstruction)?.explained())
    }
}

/// The reading that fits best, if it fits far better than the dictionary's own.
pub(super) fn better(
    model: &Gpt2,
    dictionary: &Dictionary,
    encoder: &Encoder,
    sample: &Sample,
) -> Result<Option<Suspect>> {
    let (x, y) = hooked(sample, dictionary.id.layer, dictionary.id.kind)?;
    let own = Reading::new("", "", &x, &y).explained(dictionary, encoder)?;
    let mut best: Option<Suspect> = None;
    for reading in readings(model, dictionary, sample, &x, &y)? {
        let explained = reading.explained(dictionary, encoder)?;
        let far_better = 1.0 - own > ROUNDING && 1.0 - explained < LEFT * (1.0 - own);
        if far_better
            && explained > 0.0
            && best.as_ref().is_none_or(|best| explained > best.explained)
        {
            best = Some(Suspect { when: reading.when, hint: reading.hint, explained });
        }
    }
    Ok(best)
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

fn of_attention(model: &Gpt2, layer: usize, z: &Tensor) -> Result<Vec<Reading>> {
    let biased = z.broadcast_add(&model.layers[layer].unfolded.value_bias)?;
    Ok(vec![Reading::new("when the value bias is left in `z`", VALUE_BIAS, &biased, &biased)])
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
