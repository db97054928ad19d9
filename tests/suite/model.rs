//! The folded model against the recorded Hugging Face model and its hooks.

use crate::fixture::{Fixture, assert_tensor, assert_within, in_every_world};
use candle_core::{D, Tensor};
use circuit_atlas::circuit::Metric;
use circuit_atlas::model::LayerTrace;
use std::collections::BTreeSet;

in_every_world!(
    logits_are_those_of_the_unfolded_model_less_their_mean,
    logit_differences_are_the_recorded_ones,
    hooks_are_the_recorded_ones,
    no_other_tensors_are_recorded,
    later_tokens_change_nothing_before_them,
    parameters_are_counted_without_the_mask_buffers,
);

fn logits_are_those_of_the_unfolded_model_less_their_mean(f: &'static Fixture) {
    for (i, prompt) in f.expected.prompts.iter().enumerate() {
        let trace = f.model().forward(&prompt.tokens).unwrap();
        let unfolded = f.tensor(&format!("hf_logits/{i}"));
        let expected = unfolded.broadcast_sub(&unfolded.mean_keepdim(D::Minus1).unwrap()).unwrap();
        let logits = f.model().logits(&trace).unwrap();
        assert_tensor(&format!("logits of prompt {i}"), &logits, &expected);
        let last = Tensor::new(f.model().last_logits(&trace).unwrap(), logits.device()).unwrap();
        assert_tensor("last logits", &last, &expected.get(prompt.tokens.len() - 1).unwrap());
    }
}

fn logit_differences_are_the_recorded_ones(f: &'static Fixture) {
    let largest =
        f.expected.prompts.iter().fold(0.0, |top: f64, p| top.max(p.logit_difference.abs()));
    for (i, prompt) in f.expected.prompts.iter().enumerate() {
        let logits = f.model().last_logits(&f.model().forward(&prompt.tokens).unwrap()).unwrap();
        let metric =
            Metric::LogitDifference { correct: prompt.correct_id, counter: prompt.counter_id };
        assert_within(
            &format!("prompt {i}"),
            metric.of(&logits),
            prompt.logit_difference,
            2e-4 * largest,
        );
    }
}

/// The recorded hooks of a layer.
const HOOKS: [&str; 8] = [
    "hook_resid_pre",
    "attn.hook_pattern",
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_normalized",
    "hook_mlp_out",
    "hook_resid_post",
];

fn hooks_are_the_recorded_ones(f: &'static Fixture) {
    for &i in &f.expected.hooked_prompts {
        let trace = f.model().forward(&f.expected.prompts[i].tokens).unwrap();
        for (l, layer) in trace.layers.iter().enumerate() {
            let resid_post =
                trace.layers.get(l + 1).map_or(&trace.resid_post, |next| &next.resid_pre);
            let LayerTrace { resid_pre, pattern, z, attn_out, resid_mid, x2, mlp_out, .. } = layer;
            let hooks = [resid_pre, pattern, z, attn_out, resid_mid, x2, mlp_out, resid_post];
            for (name, actual) in HOOKS.into_iter().zip(hooks) {
                let name = format!("hooks/{i}/blocks.{l}.{name}");
                assert_tensor(&name, actual, f.tensor(&name));
            }
        }
    }
}

/// Every recorded tensor is one that a test compares: of logits, hooks, dictionaries, the JumpReLU
/// SAE, scores.
fn no_other_tensors_are_recorded(f: &'static Fixture) {
    let mut names: BTreeSet<String> =
        (0..f.expected.prompts.len()).map(|i| format!("hf_logits/{i}")).collect();
    for (i, l) in f
        .expected
        .hooked_prompts
        .iter()
        .flat_map(|i| (0..f.model().sizes.layers).map(move |l| (i, l)))
    {
        names.extend(HOOKS.map(|hook| format!("hooks/{i}/blocks.{l}.{hook}")));
        let kinds = ["attention", "mlp"].map(|kind| format!("dictionary/{i}/{kind}.{l}"));
        names.extend(
            kinds.iter().flat_map(|name| ["pre", "act"].map(|what| format!("{name}.{what}"))),
        );
    }
    names.extend(["pre", "act", "reconstruction"].map(|what| format!("saelens/jumprelu.0/{what}")));
    names.extend(["where", "values"].map(|what| format!("scores/{what}")));
    assert_eq!(f.tensor_names(), names.iter().map(String::as_str).collect());
}

fn later_tokens_change_nothing_before_them(f: &'static Fixture) {
    let tokens = &f.expected.prompts[0].tokens;
    let [whole, part] =
        [&tokens[..], &tokens[..9]].map(|tokens| f.model().forward(tokens).unwrap());
    assert_tensor("a prefix", &part.resid_post, &whole.resid_post.narrow(0, 0, 9).unwrap());
}

fn parameters_are_counted_without_the_mask_buffers(f: &'static Fixture) {
    let sizes = f.model().sizes;
    let (d, m) = (sizes.d_model, sizes.d_mlp);
    let block = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + (d * m + m) + (m * d + d);
    let all = (sizes.vocabulary + sizes.positions) * d + sizes.layers * block + 2 * d;
    assert_eq!(f.model().parameters, all);
}
