//! The ways in which dictionaries have been read wrongly, each planted in a recorded dictionary and
//! caught with its cause.

use crate::fixture::{Fixture, in_every_world, opened, read_by};
use candle_core::{Device, Tensor};
use circuit_atlas::dictionary::{Conformance, Dictionary, Sample, find, judge, measure};
use circuit_atlas::error::report;
use circuit_atlas::ids::{DictionaryId, Kind};
use std::collections::HashMap;

in_every_world!(
    as_they_were_recorded_nothing_is_said,
    a_value_bias_left_in_z,
    a_layer_norm_that_is_not_folded,
    the_file_of_another_layer,
    a_bias_subtracted_that_should_not_be,
    the_wrong_bias_subtracted,
    the_erf_form_of_gelu,
    a_transposed_decoder,
);

const LAYER: usize = 1;

/// A dictionary as SAELens writes it, in plain tensors.
struct Planted {
    f: &'static Fixture,
    kind: Kind,
    w_enc: Tensor,
    b_enc: Tensor,
    w_dec: Tensor,
    b_dec: Tensor,
    subtract: bool,
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

fn rows(width: usize, row: impl Fn(usize) -> Vec<f32>) -> Tensor {
    let all = (0..width).map(row).collect::<Vec<_>>();
    Tensor::from_vec(all.concat(), (width, all[0].len()), &Device::Cpu).unwrap()
}

impl Planted {
    /// The recorded dictionary of [`LAYER`], the bias that it subtracts moved into `b_enc`.
    fn recorded(f: &'static Fixture, kind: Kind) -> Planted {
        let dictionary = f.dictionary(DictionaryId { layer: LAYER, kind });
        let width = dictionary.width();
        Planted {
            f,
            kind,
            w_enc: rows(width, |i| dictionary.read_direction(i).unwrap()),
            b_enc: Tensor::from_iter((0..width).map(|i| dictionary.read_bias(i)), &Device::Cpu)
                .unwrap(),
            w_dec: rows(width, |i| dictionary.write_direction(i).unwrap()),
            b_dec: vector(dictionary.b_out()),
            subtract: false,
        }
    }

    /// What it would have learned had its inputs been larger by `shift`.
    fn shifted_input(mut self, shift: &Tensor) -> Planted {
        let moved = self.w_enc.matmul(&shift.unsqueeze(1).unwrap()).unwrap().squeeze(1).unwrap();
        self.b_enc = (self.b_enc - moved).unwrap();
        self
    }

    /// Written as a file, read and measured as a run would, beside the recorded ones of the other
    /// layers; what the user is told, or nothing.
    fn told(&self) -> Option<String> {
        self.told_at(LAYER)
    }

    fn told_at(&self, layer: usize) -> Option<String> {
        let sample = self.sample(30);
        let others = self
            .f
            .every_dictionary()
            .filter(|other| other.id.kind == self.kind && other.id.layer != layer);
        let mut all = vec![self.measured(layer, &sample)];
        all.extend(others.map(|other| measure(self.f.model(), other, &sample).unwrap()));
        told(&all)
    }

    /// The same, with no other dictionary to compare with.
    fn told_alone(&self, contexts: usize) -> Option<String> {
        told(&[self.measured(LAYER, &self.sample(contexts))])
    }

    fn sample(&self, contexts: usize) -> Sample {
        let all = self.f.expected.contexts.iter().take(contexts);
        let tokens: Vec<Vec<u32>> = all.map(|context| context.tokens.clone()).collect();
        Sample::new(self.f.model(), &tokens).unwrap()
    }

    fn measured(&self, layer: usize, sample: &Sample) -> Conformance {
        let folder = tempfile::tempdir().unwrap();
        let dictionary = self.saved(folder.path(), layer);
        measure(self.f.model(), &dictionary, sample).unwrap()
    }

    fn saved(&self, folder: &std::path::Path, layer: usize) -> Dictionary {
        let id = DictionaryId { layer, kind: self.kind };
        let own = folder.join("own");
        std::fs::create_dir_all(&own).unwrap();
        let architecture = if self.kind == Kind::Mlp { "transcoder" } else { "standard" };
        let config = serde_json::json!({
            "architecture": architecture, "apply_b_dec_to_input": self.subtract, "normalize_activations": "none",
            "metadata": { "hook_name": id.hook() },
        });
        std::fs::write(own.join("cfg.json"), config.to_string()).unwrap();
        let w_enc = self.w_enc.t().unwrap().contiguous().unwrap();
        let tensors = [
            ("W_enc", w_enc),
            ("b_enc", self.b_enc.clone()),
            ("W_dec", self.w_dec.clone()),
            ("b_dec", self.b_dec.clone()),
        ];
        candle_core::safetensors::save(
            &HashMap::from(tensors),
            own.join("sae_weights.safetensors"),
        )
        .unwrap();
        only(self.f, folder, self.kind, layer)
    }
}

/// What is said of dictionaries, refused or warned about.
fn told(all: &[Conformance]) -> Option<String> {
    match judge(all) {
        Ok(warnings) => Some(warnings.concat().join("\n")).filter(|text| !text.is_empty()),
        Err(error) => Some(report(&error)),
    }
}

/// The one dictionary of a folder, whatever its layer.
fn only(f: &Fixture, folder: &std::path::Path, kind: Kind, layer: usize) -> Dictionary {
    // `find` wants every layer: the recorded ones fill the folder up.
    let recorded = f.path("saelens");
    let prefix = if kind == Kind::Mlp { "transcoder" } else { "attention" };
    for other in (0..2).filter(|other| *other != layer) {
        crate::bench::copy(
            &recorded.join(format!("{prefix}.{other}")),
            &folder.join(format!("other{other}")),
        );
    }
    let sources = find(folder, &[], kind, 2).unwrap();
    opened(sources.iter().find(|source| source.id.layer == layer).unwrap(), &f.model().sizes)
        .unwrap()
}

#[track_caller]
fn assert_told(told: Option<String>, words: &[&str]) {
    let told = told.expect("nothing was said");
    words.iter().for_each(|word| assert!(told.contains(word), "no `{word}` in: {told}"));
}

fn as_they_were_recorded_nothing_is_said(f: &'static Fixture) {
    assert_eq!(Planted::recorded(f, Kind::Attention).told(), None);
    assert_eq!(Planted::recorded(f, Kind::Mlp).told(), None);
}

fn a_value_bias_left_in_z(f: &'static Fixture) {
    let bias = &f.model().layers[LAYER].unfolded.value_bias;
    let mut planted = Planted::recorded(f, Kind::Attention).shifted_input(bias);
    planted.b_dec = (planted.b_dec + bias).unwrap();
    assert_told(
        planted.told(),
        &["when the value bias is left in `z`", "hint: it was trained on a model whose value bias"],
    );
}

fn a_layer_norm_that_is_not_folded(f: &'static Fixture) {
    let (gain, bias) = &f.model().layers[LAYER].unfolded.norm2;
    let mut planted = Planted::recorded(f, Kind::Mlp);
    planted.w_enc = planted.w_enc.broadcast_div(gain).unwrap();
    let planted = planted.shifted_input(bias);
    assert_told(
        planted.told(),
        &[
            "when gain and bias of ln_2 are left in its input",
            "hint: it was trained on a model whose LayerNorm",
        ],
    );
}

fn the_file_of_another_layer(f: &'static Fixture) {
    for kind in [Kind::Attention, Kind::Mlp] {
        assert_told(
            Planted::recorded(f, kind).told_at(0),
            &["of that of layer 1", "hint: it is the file of another layer"],
        );
    }
}

fn a_bias_subtracted_that_should_not_be(f: &'static Fixture) {
    let mut planted = Planted::recorded(f, Kind::Attention);
    planted.subtract = true;
    assert_told(
        planted.told(),
        &["when no bias is subtracted from its input", "hint: correct `apply_b_dec_to_input`"],
    );
}

/// A pickled transcoder has two biases, and its input's is subtracted; here the output's has been.
fn the_wrong_bias_subtracted(f: &'static Fixture) {
    let planted = Planted::recorded(f, Kind::Attention);
    let bias = planted.b_dec.clone();
    // Trained with `b_dec` subtracted, but its config says otherwise.
    let planted = planted.shifted_input(&bias.neg().unwrap());
    assert_told(
        planted.told(),
        &[
            "when the output's bias is subtracted from its input",
            "hint: correct `apply_b_dec_to_input`",
        ],
    );
}

/// A transcoder that knows some inputs `x [n, D]` by heart: a feature for each, 1 there and
/// inactive at all others. Normalised inputs are equally long, so none is nearer to another's
/// direction than its own.
fn by_heart(f: &'static Fixture, x: &Tensor, y: &Tensor) -> Planted {
    let near = x.matmul(&x.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
    let (mut own, mut gains, mut biases) = (Vec::new(), Vec::new(), Vec::new());
    for (i, row) in near.iter().enumerate() {
        let same = |j: usize| row[i] - row[j] < 0.01;
        if (0..i).any(same) {
            continue;
        }
        let next = (0..row.len()).filter(|j| !same(*j)).map(|j| row[j]).fold(0.0, f32::max);
        own.push(i as u32);
        gains.push(1.0 / (row[i] - next));
        biases.push(-next / (row[i] - next));
    }
    let index = Tensor::new(own, &Device::Cpu).unwrap();
    let some = |rows: &Tensor| rows.index_select(&index, 0).unwrap();
    Planted {
        f,
        kind: Kind::Mlp,
        w_enc: some(x).broadcast_mul(&vector(&gains).unsqueeze(1).unwrap()).unwrap(),
        b_enc: vector(&biases),
        w_dec: some(y),
        b_dec: some(y).zeros_like().unwrap().get(0).unwrap(),
        subtract: false,
    }
}

/// Outputs of the two forms differ by a thousandth, so only a dictionary that is nearly exact can
/// tell.
fn the_erf_form_of_gelu(f: &'static Fixture) {
    let id = DictionaryId { layer: LAYER, kind: Kind::Mlp };
    let inputs = f.contexts()[..4].iter().map(|trace| read_by(id, trace));
    let x = Tensor::cat(
        &inputs.map(|x| x.narrow(0, 1, x.dim(0).unwrap() - 1).unwrap()).collect::<Vec<_>>(),
        0,
    )
    .unwrap();
    let erf = by_heart(f, &x, &f.model().mlp_with_erf(LAYER, &x).unwrap());
    assert_told(
        erf.told_alone(4),
        &[
            "of an MLP with the erf form of GELU",
            "hint: it was trained on a model with another activation",
        ],
    );
}

fn a_transposed_decoder(f: &'static Fixture) {
    // Square, so that its shape does not tell, and always active, so linear: a = R·z + 50, ẑ =
    // Rᵀ·(a − 50).
    let d = f.model().sizes.d_model;
    let (turn, lift) = (rotation(d), Tensor::full(50f32, d, &Device::Cpu).unwrap());
    let offset = turn.t().unwrap().matmul(&lift.unsqueeze(1).unwrap()).unwrap().squeeze(1).unwrap();
    let right = Planted {
        f,
        kind: Kind::Attention,
        w_enc: turn.clone(),
        b_enc: lift,
        w_dec: turn.clone(),
        b_dec: offset.neg().unwrap(),
        subtract: false,
    };
    assert_eq!(right.told_alone(30), None);
    let wrong = Planted { w_dec: turn.t().unwrap().contiguous().unwrap(), ..right };
    assert_told(
        wrong.told_alone(30),
        &["with `W_dec` transposed", "hint: save `W_dec` transposed"],
    );
}

/// An orthogonal matrix that is not its own transpose: each pair of coordinates turned by an angle
/// of its own.
fn rotation(d: usize) -> Tensor {
    let mut rows = vec![vec![0f32; d]; d];
    for i in (0..d).step_by(2) {
        let (sin, cos) = (0.4 + i as f32 * 0.05).sin_cos();
        (rows[i][i], rows[i][i + 1], rows[i + 1][i], rows[i + 1][i + 1]) = (cos, -sin, sin, cos);
    }
    Tensor::new(rows, &Device::Cpu).unwrap()
}
