//! What is said of heads, against counting and multiplying by hand.

use crate::bench::Bench;
use crate::fixture::{Fixture, assert_near, assert_within, in_every_world, numbers};
use circuit_atlas::artifact::tables::{
    AttentionRow, ComponentRow, CopyRow, EdgeRow, HeadFeatureRow, HeadRow, NodeRow, PromptRow,
    PublishedRow,
};
use circuit_atlas::circuit::TopTokens;
use circuit_atlas::circuit::heads::{
    CopyEffect, HeadBehaviour, HeadIndex, HeadPrompt, copying, decoder_shares, study,
};
use circuit_atlas::model::Trace;
use insta::assert_snapshot;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

in_every_world!(
    attention_is_the_mean_of_the_patterns_of_a_template,
    habits_are_means_over_places,
    direct_effects_of_a_layers_heads_sum_to_what_it_writes,
    what_is_copied_is_the_value_through_output_and_unembedding,
    shares_of_decoder_norm_sum_to_one_over_heads,
);

fn every_head(f: &Fixture) -> Vec<HeadIndex> {
    let sizes = &f.model().sizes;
    (0..sizes.layers).flat_map(|layer| (0..sizes.heads).map(move |head| (layer, head))).collect()
}

/// Every head over the prompts, and the passes over them.
fn studied(f: &Fixture) -> (Vec<HeadBehaviour>, Vec<Trace>) {
    let watched = f.expected.prompts.iter().map(|p| HeadPrompt {
        tokens: &p.tokens,
        template: &p.template,
        correct: p.correct_id,
        counter: p.counter_id,
    });
    let studies = study(f.model(), &watched.collect::<Vec<_>>(), &every_head(f)).unwrap();
    (studies, f.expected.prompts.iter().map(|p| f.model().forward(&p.tokens).unwrap()).collect())
}

/// `[T][T]`
fn pattern(trace: &Trace, (layer, head): HeadIndex) -> Vec<Vec<f32>> {
    trace.layers[layer].pattern.get(head).unwrap().to_vec2().unwrap()
}

fn attention_is_the_mean_of_the_patterns_of_a_template(f: &'static Fixture) {
    let (studies, traces) = studied(f);
    for study in &studies {
        let all: u32 = study.patterns.iter().map(|pattern| pattern.prompts).sum();
        assert_eq!(all as usize, traces.len());
        for found in &study.patterns {
            let of_template = |i: &usize| f.expected.prompts[*i].template == found.template;
            let members: Vec<usize> = (0..traces.len()).filter(of_template).collect();
            assert_eq!((found.first, found.prompts as usize), (members[0], members.len()));
            let t = f.expected.prompts[members[0]].tokens.len();
            for (p, row) in found.attention.chunks_exact(t).enumerate() {
                let sum: f64 = row.iter().map(|&a| f64::from(a)).sum();
                assert_within("a row", sum, 1.0, 1e-5);
                assert!(row[p + 1..].iter().all(|&a| a == 0.0), "it looks ahead");
                let mean = |s: usize| {
                    let each =
                        members.iter().map(|&i| f64::from(pattern(&traces[i], study.head)[p][s]));
                    each.sum::<f64>() / members.len() as f64
                };
                let row: Vec<f64> = row.iter().map(|&a| a.into()).collect();
                assert_near("attention", &row, &(0..t).map(mean).collect::<Vec<_>>(), 1e-5);
            }
        }
    }
}

/// By name: summed attention, and the places over which it is.
type Sums = BTreeMap<&'static str, (f64, BTreeSet<(usize, usize)>)>;

fn habits_are_means_over_places(f: &'static Fixture) {
    let (studies, traces) = studied(f);
    for study in &studies {
        let mut sums = Sums::new();
        for (i, trace) in traces.iter().enumerate() {
            let (tokens, pattern) = (&f.expected.prompts[i].tokens, pattern(trace, study.head));
            for p in 1..tokens.len() {
                let before: Vec<usize> = (1..p).filter(|&s| tokens[s] == tokens[p]).collect();
                let mut add = |name, sources: &[usize]| {
                    let entry = sums.entry(name).or_default();
                    entry.0 += sources.iter().map(|&s| f64::from(pattern[p][s])).sum::<f64>();
                    entry.1.insert((i, p));
                };
                add("bos", &[0]);
                add("itself", &[p]);
                if p >= 2 {
                    add("previous", &[p - 1]);
                }
                if !before.is_empty() {
                    add("same", &before);
                    add(
                        "after",
                        &before.iter().map(|s| s + 1).filter(|s| *s != p).collect::<Vec<_>>(),
                    );
                }
            }
        }
        let h = &study.habits;
        let habits = [
            ("bos", h.bos),
            ("itself", h.itself),
            ("previous", h.previous),
            ("same", h.same),
            ("after", h.after_same),
        ];
        for (name, mean) in habits {
            let wanted = sums.get(name).map(|(sum, places)| sum / places.len() as f64);
            assert_eq!(mean.value().is_some(), wanted.is_some(), "{name}");
            assert_within(name, mean.value().unwrap_or(0.0), wanted.unwrap_or(0.0), 1e-6);
        }
    }
}

fn direct_effects_of_a_layers_heads_sum_to_what_it_writes(f: &'static Fixture) {
    let (studies, traces) = studied(f);
    let w_u = f.model().w_u.t().unwrap().to_vec2::<f32>().unwrap();
    for layer in 0..f.model().sizes.layers {
        let b_o = numbers(&f.model().layers[layer].b_o);
        let written = |(trace, prompt): (&Trace, &crate::fixture::Prompt)| {
            let last = prompt.tokens.len() - 1;
            let out = numbers(&trace.layers[layer].attn_out.get(last).unwrap());
            let answer =
                w_u[prompt.correct_id as usize].iter().zip(&w_u[prompt.counter_id as usize]);
            let dot: f64 = answer
                .zip(out.iter().zip(&b_o))
                .map(|((a, b), (x, o))| f64::from(a - b) * (x - o))
                .sum();
            dot / f64::from(trace.sigma_f[last])
        };
        let wanted =
            traces.iter().zip(&f.expected.prompts).map(written).sum::<f64>() / traces.len() as f64;
        let own = studies.iter().filter(|study| study.head.0 == layer);
        let found: f64 = own.map(|study| study.habits.direct.value().unwrap()).sum();
        assert_within(&format!("layer {layer}"), found, wanted, 1e-4 * (1.0 + wanted.abs()));
    }
}

fn what_is_copied_is_the_value_through_output_and_unembedding(f: &'static Fixture) {
    let (studies, traces) = studied(f);
    let (k, bos) = (f.model().sizes.d_head, f.expected.special_token_id);
    for study in [&studies[0], &studies[studies.len() - 1]] {
        let (layer, head) = study.head;
        let output = f.model().layers[layer].w_o.to_vec2::<f32>().unwrap();
        let w_u = f.model().w_u.t().unwrap().to_vec2::<f32>().unwrap();
        let copies =
            study.copies(f.model(), TopTokens { k: 10, specials: &BTreeSet::new() }).unwrap();
        // Were its first token special, it would be neither read nor raised nor counted.
        let specials = BTreeSet::from([copies[0].token, copies[0].top[0].0]);
        let fewer = study.copies(f.model(), TopTokens { k: 9, specials: &specials }).unwrap();
        assert!(fewer.iter().all(|copy| !specials.contains(&copy.token)));
        assert!(fewer.iter().all(|copy| copy.top.iter().all(|(id, _)| !specials.contains(id))));
        let ranks = |copy: &CopyEffect| copy.own_rank + copy.own_rank_below;
        let v = f.model().sizes.vocabulary as u32;
        assert!(fewer.iter().all(|copy| ranks(copy) == v + 1 - specials.len() as u32));
        let tokens: BTreeSet<u32> =
            f.expected.prompts.iter().flat_map(|p| p.tokens[1..].to_vec()).collect();
        assert!(
            !tokens.contains(&bos)
                && copies.iter().map(|copy| copy.token).collect::<BTreeSet<_>>() == tokens
        );
        assert!(copies.is_sorted_by(|a, b| a.mass >= b.mass));
        let mut whole = 0.0;
        for copy in &copies {
            let (mut value, mut places, mut mass) = (vec![0.0; k], 0, 0.0);
            for (trace, prompt) in traces.iter().zip(&f.expected.prompts) {
                let v = trace.layers[layer].v.get(head).unwrap().to_vec2::<f32>().unwrap();
                let pattern = pattern(trace, study.head);
                for s in (1..prompt.tokens.len()).filter(|&s| prompt.tokens[s] == copy.token) {
                    places += 1;
                    mass += pattern.iter().skip(1).map(|row| f64::from(row[s])).sum::<f64>();
                    value.iter_mut().zip(&v[s]).for_each(|(sum, x)| *sum += f64::from(*x));
                }
            }
            whole += mass;
            let written = |d: usize| -> f64 {
                let rows = value.iter().zip(&output[head * k..(head + 1) * k]);
                rows.map(|(x, row)| x / f64::from(places) * f64::from(row[d])).sum()
            };
            let written: Vec<f64> = (0..output[0].len()).map(written).collect();
            let logit = |column: &Vec<f32>| {
                column.iter().zip(&written).map(|(w, x)| f64::from(*w) * x).sum()
            };
            let logits: Vec<f64> = w_u.iter().map(logit).collect();
            assert_eq!(copy.places, places);
            assert_within("mass", copy.mass, mass, 1e-5 * (1.0 + mass));
            let reach = 1e-4 * logits.iter().fold(0.0, |top: f64, x| top.max(x.abs()));
            let own = logits[copy.token as usize];
            assert_within("its own logit", copy.own_logit.into(), own, reach);
            for (id, value) in &copy.top {
                assert_within("a raised token", f64::from(*value), logits[*id as usize], reach);
            }
            let above = |by: f64| logits.iter().filter(|x| **x > own + by).count() as u32;
            assert!(
                (above(reach) + 1..=above(-reach)).contains(&copy.own_rank),
                "{}",
                copy.own_rank
            );
            assert_eq!(
                copy.own_rank + copy.own_rank_below,
                logits.len() as u32 + 1,
                "of no two the same logit"
            );
            let lowest = copy.top.last().unwrap().1;
            assert!(
                logits.iter().filter(|x| **x > f64::from(lowest) + reach).count() < 10,
                "the top is not the top"
            );
        }
        let share =
            copies.iter().filter(|copy| copy.own_rank <= 5).map(|copy| copy.mass).sum::<f64>()
                / whole;
        assert_within("copy score", copying(copies.iter(), 5).unwrap().raised, share, 1e-9);
    }
}

fn shares_of_decoder_norm_sum_to_one_over_heads(f: &'static Fixture) {
    let (heads, k) = (f.model().sizes.heads, f.model().sizes.d_head);
    for dictionary in &f.replacement.attention {
        let shares = decoder_shares(dictionary, heads).unwrap();
        assert_eq!(shares.len(), dictionary.width());
        for (feature, shares) in shares.iter().enumerate() {
            assert_within("the sum", shares.iter().map(|&x| f64::from(x)).sum(), 1.0, 1e-5);
            let w = dictionary.write_direction(feature).unwrap();
            let norm = |h: usize| {
                w[h * k..(h + 1) * k].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
            };
            let whole: f64 = (0..heads).map(norm).sum();
            assert_within("a share", shares[heads - 1].into(), norm(heads - 1) / whole, 1e-5);
        }
        let error = decoder_shares(dictionary, 7).unwrap_err().to_string();
        assert!(error.contains("is not a multiple of 7 heads"), "{error}");
    }
}

/// The head's part for IOI in what `show` says of a component.
fn shown(bench: &Bench, head: &str) -> Value {
    let said = bench.call(&["show", "component", head, "--json"]).succeeded();
    let all: Value = serde_json::from_str(&said.out).unwrap();
    all["heads"].as_array().unwrap().iter().find(|own| own["task"] == "ioi").unwrap().clone()
}

#[test]
fn every_head_of_a_circuit_has_its_rows() {
    let bench = Bench::finished();
    let store = bench.store();
    let heads = |rows: Vec<(String, String)>| rows.into_iter().collect::<BTreeSet<_>>();
    let components =
        store.read::<ComponentRow>().unwrap().into_iter().filter(|row| row.head.is_some());
    let wanted = heads(components.map(|row| (row.task, row.component.to_string())).collect());
    assert!(wanted.len() >= 3, "{wanted:?}");
    let rows = store.read::<HeadRow>().unwrap();
    assert!(rows.is_sorted_by_key(|row| (row.task.clone(), row.component.to_string())));
    assert_eq!(
        heads(rows.into_iter().map(|row| (row.task, row.component.to_string())).collect()),
        wanted
    );
    let attention = store.read::<AttentionRow>().unwrap();
    assert_eq!(
        heads(attention.into_iter().map(|row| (row.task, row.component.to_string())).collect()),
        wanted
    );
    let copies = store.read::<CopyRow>().unwrap();
    assert_eq!(
        heads(copies.into_iter().map(|row| (row.task, row.component.to_string())).collect()),
        wanted
    );
    let ranks = |component: &str| -> Vec<u32> {
        let rows = store.read::<HeadFeatureRow>().unwrap().into_iter();
        rows.filter(|row| row.component.to_string() == component).map(|row| row.rank).collect()
    };
    for (_, head) in &wanted {
        assert_eq!(ranks(head)[..20], (1..=20).collect::<Vec<u32>>(), "{head}");
    }
}

#[test]
fn contributors_are_counted_in_the_links() {
    let bench = Bench::finished();
    let nodes = bench.table::<NodeRow>();
    let names: BTreeMap<(u32, u32), (String, String)> = nodes
        .iter()
        .filter(|row| row.task == "ioi")
        .map(|row| {
            let layer = row.layer.map(|layer| layer.to_string()).unwrap_or_default();
            let name = match (row.kind.word(), row.feature) {
                ("attention_feature", Some(feature)) => format!("att{layer}.{feature}"),
                ("mlp_feature", Some(feature)) => format!("mlp{layer}.{feature}"),
                ("head", _) => format!("L{layer}H{}", row.head.unwrap()),
                (kind, _) => kind.to_string(),
            };
            ((row.prompt, row.node), (row.kind.to_string(), name))
        })
        .collect();
    let edges = bench.table::<EdgeRow>();
    let mut seen = 0;
    for (place, slot) in ["q", "k", "v"].into_iter().enumerate() {
        let mut wanted: BTreeMap<String, (BTreeSet<u32>, f64, Vec<f64>)> = BTreeMap::new();
        for edge in edges.iter().filter(|edge| edge.task == "ioi" && edge.slot.word() == slot) {
            let (kind, parent) = &names[&(edge.prompt, edge.to)];
            if kind == "head" && parent == "L2H4" {
                let entry = wanted.entry(names[&(edge.prompt, edge.from)].1.clone()).or_default();
                entry.0.insert(edge.prompt);
                entry.1 += f64::from(edge.share);
                entry.2.push(edge.effect.into());
            }
        }
        let found = &shown(&bench, "L2H4")["contributors"][place];
        let rows = found.as_array().unwrap();
        assert_eq!(rows.len(), wanted.len().min(10), "{slot}");
        let shares: Vec<f64> = rows.iter().map(|row| row["share"].as_f64().unwrap()).collect();
        assert!(shares.is_sorted_by(|a, b| a >= b), "{shares:?}");
        for row in rows {
            let what = &row["what"];
            let name = what["feature"].as_str().or(what["other"][0].as_str()).unwrap();
            let (prompts, share, effects) = &wanted[name];
            assert_eq!(row["prompts"], prompts.len(), "{name}");
            assert_within(name, row["share"].as_f64().unwrap(), *share, 1e-6);
            let mean = effects.iter().sum::<f64>() / effects.len() as f64;
            assert_within(name, row["effect"].as_f64().unwrap(), mean, 1e-6);
            seen += 1;
        }
    }
    assert!(seen > 2, "only {seen} contributors");
}

#[test]
fn where_a_head_carries_from_is_counted_in_the_nodes() {
    let bench = Bench::finished();
    let prompts: Vec<PromptRow> =
        bench.table::<PromptRow>().into_iter().filter(|row| row.task == "ioi").collect();
    let mut last_to_giver = BTreeSet::new();
    for node in bench.table::<NodeRow>() {
        if (node.task.as_str(), node.layer, node.head) == ("ioi", Some(2), Some(4)) {
            let row = &prompts[node.prompt as usize];
            let token = row.tokens[node.source.unwrap() as usize];
            let at_end = node.position as usize + 1 == row.tokens.len();
            last_to_giver.extend((at_end && token == row.counter).then_some(node.prompt));
        }
    }
    let moves = shown(&bench, "L2H4")["moves"].clone();
    // With 4 prompts a template has one, so that every token is the same in all of its prompts, but
    // for answers.
    let own = moves
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| m["last"] == true && m["from"].get("counter").is_some());
    let found: u64 = own.map(|m| m["prompts"].as_u64().unwrap()).sum();
    assert!(!last_to_giver.is_empty() && found == last_to_giver.len() as u64, "{found}, {moves}");
}

const OWN: &str = r#"{"copies": ["L2H4", "L0H0"], "early": ["MLP0"]}"#;

#[test]
fn a_published_circuit_runs_only_what_reads_it() {
    let bench = Bench::finished().set("kind = \"ioi\"", "kind = \"ioi\"\npublished = \"own.json\"");
    std::fs::write(bench.file("own.json"), OWN).unwrap();
    let said = bench.run(&[]).succeeded();
    assert!(!said.ran().contains(&"discover") && said.ran().contains(&"heads"), "{:?}", said.ran());
    let rows = bench.table::<PublishedRow>();
    let rows: Vec<[String; 3]> =
        rows.into_iter().map(|row| [row.source, row.class, row.component.to_string()]).collect();
    assert_eq!(
        rows,
        [
            ["own.json", "copies", "L2H4"],
            ["own.json", "copies", "L0H0"],
            ["own.json", "early", "MLP0"]
        ]
    );
    let page = bench.page("components/L2H4.html");
    assert!(page.contains("as <b>copies</b>"), "the page does not say so");
    let said = bench.call(&["show", "component", "MLP0"]).succeeded();
    assert!(said.out.contains("in the published circuit of ioi (own.json): early"), "{}", said.out);

    std::fs::write(bench.file("own.json"), OWN.replace("copies", "movers")).unwrap();
    let said = bench.run(&[]).succeeded();
    assert!(
        said.err.contains("heads      runs: `tasks.ioi.published` has changed"),
        "{}",
        said.err
    );
}

#[test]
fn a_published_circuit_that_does_not_fit_is_refused_before_anything_runs() {
    let refused = |published: &str| {
        let to = format!("kind = \"ioi\"\npublished = \"{published}\"");
        let bench = Bench::new().set("kind = \"ioi\"", &to);
        std::fs::write(bench.file("own.json"), OWN.replace("L0H0", "L9H9")).unwrap();
        let said = bench.run(&[]).failed();
        assert!(said.ran().is_empty(), "{}", said.err);
        said.error().to_string()
    };
    assert_snapshot!("published_of_another_model", refused("gpt2-small"));
    assert_snapshot!("published_beyond_the_model", refused("own.json"));
    assert_snapshot!("published_missing", refused("gpt2-medium"));
}
