//! Explanations put before judges, from the settings to the tables, with a server of this machine
//! that explains and judges.

use crate::bench::Bench;
use crate::llm_server::{Reply, Server};
use circuit_atlas::artifact::Row;
use circuit_atlas::artifact::tables::*;
use circuit_atlas::config::Config;
use circuit_atlas::corpus::Tokenizer;
use circuit_atlas::ids::{Band, FeatureId, Half, Status, Subject};
use circuit_atlas::inputs::Contexts;
use circuit_atlas::llm::judge::{JudgeMethod, Setting, question};
use circuit_atlas::stages::excerpts;
use circuit_atlas::stats::mix;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What the oracle knows.
#[derive(Default)]
struct Knowledge {
    /// Sentence → feature.
    subjects: BTreeMap<String, String>,
    /// JudgeMethod, text as it is shown → its judgement, whoever is asked about it.
    texts: BTreeMap<(String, String), JudgementRow>,
    /// Feature, context → positions at which it is active and counts.
    active: BTreeMap<(String, u32), BTreeSet<u32>>,
    /// Feature → its largest activation of the *explain* half.
    largest: BTreeMap<String, f32>,
}

type Known = Arc<Mutex<Knowledge>>;

fn user(request: &Value) -> &str {
    request["messages"][1]["content"].as_str().unwrap()
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(7, |hash, byte| mix(hash, byte.into()))
}

/// The sentence that is judged, and the texts, of which none has a line break.
fn asked(request: &Value) -> (String, Vec<String>) {
    let sentence =
        user(request).lines().next().unwrap().split_once("active: ").unwrap().1.to_string();
    let lines = user(request)
        .lines()
        .skip_while(|line| !line.starts_with("1. "))
        .take_while(|line| !line.is_empty());
    let texts = lines
        .enumerate()
        .map(|(i, line)| line.strip_prefix(&format!("{}. ", i + 1)).unwrap().to_string());
    (sentence, texts.collect())
}

/// An explainer that says another thing of every feature and sample, and judges by the name of the
/// model.
fn server(known: &Known) -> Server {
    let known = known.clone();
    Server::start(move |request| {
        let model = request["model"].as_str().unwrap();
        if model == "test" {
            let about = hash(&format!("{}{}", user(request), request["seed"]));
            let mut reply = json!({ "input": format!("Fires at things of kind \
                {about}."), "output": "o", "promotes": [" the", "Mary", "xyzzyx"] });
            if user(request).contains("It is head ") {
                (reply["matching"], reply["carried"]) = (json!("m"), json!("c"));
            }
            return Reply::says(reply.to_string());
        }
        let (sentence, texts) = asked(request);
        let method = request["response_format"]["json_schema"]["name"].as_str().unwrap();
        let known = known.lock().unwrap();
        let says = |text: &String| match model {
            "yes" => true,
            "coin" => hash(&format!("{sentence}{text}")).is_multiple_of(2),
            _ => known.says(method, &sentence, text),
        };
        let yes: Vec<usize> = (1..=texts.len()).filter(|i| says(&texts[i - 1])).collect();
        Reply::says(json!({ "yes": yes }).to_string())
    })
}

impl Knowledge {
    fn says(&self, method: &str, sentence: &str, text: &str) -> bool {
        let row = &self.texts[&(method.to_string(), text.to_string())];
        let active = self.active.get(&(self.subjects[sentence].clone(), row.context));
        let span = row.start..row.start + row.tokens as u16;
        let is = |p: &u32| active.is_some_and(|active| active.contains(p));
        match method {
            "detection" => span.into_iter().any(|p| is(&p.into())),
            _ => row.marked.iter().all(is),
        }
    }

    /// Everything that the tables tell after texts have been judged by anybody.
    fn learn(&mut self, bench: &Bench) {
        let tokenizer = tokenizer();
        let corpus = corpus(bench);
        let contexts = &corpus.rows;
        for row in
            read::<ExplanationRow>(bench).into_iter().filter(|row| row.explainer == "feature")
        {
            self.subjects.insert(row.input_side, row.subject.to_string());
        }
        for row in read::<JudgementRow>(bench) {
            self.texts.insert((row.method.clone(), shown(&row, &corpus)), row);
        }
        for row in read::<ExampleRow>(bench).into_iter().filter(|row| row.half == Half::Explain) {
            let largest = self.largest.entry(row.subject.to_string()).or_default();
            *largest = largest.max(row.value);
        }
        let features: Vec<FeatureRow> = read(bench);
        for row in bench.table::<ScoreRow>() {
            let token = contexts[row.context as usize].tokens[row.position as usize];
            if row.position > 0 && !tokenizer.is_special(token) {
                let place = (features[row.feature as usize].feature.to_string(), row.context);
                self.active.entry(place).or_default().insert(row.position.into());
            }
        }
    }
}

fn read<R: Row>(bench: &Bench) -> Vec<R> {
    bench.table()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::load(&Path::new(crate::bench::REPOSITORY).join("demo/model"), 2560).unwrap()
}

fn window<'a>(row: &JudgementRow, contexts: &'a [ContextRow]) -> &'a [u32] {
    &contexts[row.context as usize].tokens[row.start.into()..][..row.tokens as usize]
}

fn shown(row: &JudgementRow, corpus: &Contexts) -> String {
    let places: Vec<u16> = row.marked.iter().map(|&p| p as u16 - row.start).collect();
    let tokens = window(row, &corpus.rows);
    excerpts::marked(corpus, row.context, row.start, tokens, &places)
}

/// The contexts of a run, as stages have them.
fn corpus(bench: &Bench) -> Contexts {
    let config = Config::load(&bench.file("pipeline.toml")).unwrap();
    Contexts::load(&config, &bench.store()).unwrap()
}

/// A bench that has run without a language model, and now has this server; the judge is `yes`.
fn bench(server: &Server, llm: &str, evaluate: &str) -> Bench {
    let url = server.url();
    Bench::finished().add(&format!(
        "[llm]\nprovider = \"openai\"\nmodel = \"test\"\napi_key_env = \"\"\nretries = 0\nbase_url \
         = \"{url}\"\n{llm}\n\
         [evaluate]\nmethods = [\"single-token\", \"detection\", \"fuzzing\"]\ntexts = 6\nbatch = \
         5\njudge = \"yes\"\n{evaluate}"
    ))
}

const STAGES: [&str; 2] = ["interpret", "evaluate"];

fn judged_by(bench: &Bench, judge: &str) -> Vec<EvaluationRow> {
    read::<EvaluationRow>(bench).into_iter().filter(|row| row.judge == judge).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn a_judge_that_always_says_yes_is_worth_a_half() {
    let known = Known::default();
    let server = server(&known);
    let bench = bench(&server, "", "");
    let said = bench.run(&STAGES).succeeded();
    let features: Vec<FeatureRow> = read(&bench);
    assert!(said.err.contains(" verdicts by yes, 0 failed, 0 left"), "{}", said.err);

    // Always yes: right on all of one kind, wrong on all of the other.
    let yes = judged_by(&bench, "yes");
    let tried = yes.iter().filter(|row| row.score.is_some()).count();
    assert!(tried > features.len(), "{tried} of {} features by two methods", features.len());
    assert!(yes.iter().all(|row| [None, Some(0.5)].contains(&row.score)));
    assert!(
        yes.iter().all(|row| [None, Some(0.5)].contains(&row.null) && row.explainer == "feature")
    );
    texts_are_as_they_should_be(&bench);
}

#[test]
fn an_oracle_is_always_right_and_the_control_leads_it_astray() {
    let known = Known::default();
    let server = server(&known);
    let bench = bench(&server, "", "");
    bench.run(&STAGES).succeeded();
    let features: Vec<FeatureRow> = read(&bench);
    let yes = judged_by(&bench, "yes");
    known.lock().unwrap().learn(&bench);
    let bench = bench.set("judge = \"yes\"", "judge = \"oracle\"\nsecond_judge = \"yes\"");
    bench.run(&["evaluate"]).succeeded();
    let oracle = judged_by(&bench, "oracle");
    assert_eq!(oracle.len(), yes.len());
    assert!(oracle.iter().all(|row| [None, Some(1.0)].contains(&row.score)), "{oracle:#?}");
    let null = mean(oracle.iter().filter_map(|row| row.null));
    assert!(null < 0.9, "{null}");
    for row in &oracle {
        assert!(
            row.null_subject != Some(row.subject)
                && features.iter().any(|f| Some(f.feature) == row.null_subject)
        );
    }

    // The second judge is asked about the same texts as when it was the first.
    let second = judged_by(&bench, "yes");
    let null = |rows: &[EvaluationRow]| rows.iter().map(|row| row.null).collect::<Vec<_>>();
    assert_eq!(null(&second), null(&yes), "each judge has a null of its own");
    let twice = |rows: &[EvaluationRow]| {
        rows.iter()
            .map(|row| (row.examples, row.score, row.rule.map(f64::to_bits)))
            .collect::<Vec<_>>()
    };
    assert_eq!(twice(&second), twice(&yes), "the same texts as when it was the first");
    // It says the same one thing of all, which is agreement by chance; there is none to be had
    // where all texts that both judged are active.
    let agreements: Vec<AgreementRow> = read(&bench);
    assert!(
        agreements
            .iter()
            .all(|row| { row.between == "judges" && [None, Some(0.0)].contains(&row.value) }),
        "{agreements:#?}"
    );
    let defined = agreements.iter().filter(|row| row.value.is_some()).count();
    assert!(2 * defined > agreements.len(), "{defined} of {}", agreements.len());
    assert_eq!(agreements.len(), second.len());
}

#[test]
fn a_judge_by_chance_is_worth_a_half_and_is_asked_once() {
    let known = Known::default();
    let server = server(&known);
    let bench = bench(&server, "", "");
    let bench = bench.set("judge = \"yes\"", "judge = \"coin\"");
    bench.run(&STAGES).succeeded();
    let coin = mean(judged_by(&bench, "coin").iter().filter_map(|row| row.score));
    assert!((coin - 0.5).abs() < 0.06, "{coin}");

    // Everything has been asked.
    let requests = server.requests().len();
    let before = bench.results();
    let again = bench.run(&["evaluate", "--force"]).succeeded();
    assert!(again.err.contains(" 0 requests now"), "{}", again.err);
    assert_eq!(server.requests().len(), requests);
    let tables = |results: &BTreeMap<_, Vec<u8>>| {
        results
            .iter()
            .filter(|(name, _): &(&std::path::PathBuf, _)| {
                name.extension().is_some_and(|e| e == "parquet")
            })
            .map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect::<Vec<_>>()
    };
    assert!(tables(&before) == tables(&bench.results()));
}

/// Explanation, text as it is shown → whether it is what is looked for; intruders are looked for
/// without an explanation.
type Truths = Arc<Mutex<BTreeMap<(String, String), bool>>>;

/// An explainer that has a clause for each cause, a judge that knows intruders, and an embedder to
/// which the texts that are true are more similar than the others; before they know anything they
/// say what is not true.
fn knowing(truths: &Truths) -> Server {
    let truths = truths.clone();
    Server::start(move |request| {
        let truths = truths.lock().unwrap();
        let knows = |sentence: &str, text: &str| {
            truths.get(&(sentence.to_string(), text.to_string())).copied().unwrap_or(false)
        };
        if let Some(texts) = request["input"].as_array() {
            let sentence = texts[0].as_str().unwrap().strip_prefix("query: ").unwrap();
            assert!(sentence.starts_with("Active at "), "{sentence}");
            let vector = |(i, text): (usize, &Value)| {
                let near = match text.as_str().unwrap().strip_prefix("passage: ") {
                    None => 1.0,
                    Some(text) if knows(sentence, text) => 1.0,
                    Some(_) => 0.5,
                };
                json!({ "object": "embedding", "index": i, "embedding": [near, 1.0] })
            };
            let data: Vec<Value> = texts.iter().enumerate().map(vector).rev().collect();
            let usage = json!({ "prompt_tokens": 30, "total_tokens": 30 });
            return Reply::json(
                json!({ "object": "list", "model": "e", "data": data, "usage": usage }),
            );
        }
        let schema = &request["response_format"]["json_schema"]["schema"]["properties"];
        if schema["promotes"].is_object() {
            let about = hash(user(request));
            let mut reply = json!({ "input": format!("Active at things of kind {about}."),
                "output": "o", "promotes": [] });
            if schema["matching"].is_object() {
                (reply["matching"], reply["carried"]) = (json!("m"), json!("c"));
            }
            if schema["clauses"].is_object() {
                let causes = user(request).lines().filter(|line| line.contains(". mostly "));
                let clause = |cause: &str| format!("Active at things that are {}.", &cause[3..]);
                reply["clauses"] = causes.map(clause).collect();
            }
            return Reply::says(reply.to_string());
        }
        if schema["intruder"].is_object() {
            assert!(!user(request).contains("Active at"));
            let lines = user(request).lines().filter_map(|line| line.split_once(". "));
            let is = |(_, text): &(&str, &str)| knows("", text);
            let found = lines.clone().skip(lines.count() - 5).find(is);
            let number: u32 = found.map_or(1, |(number, _)| number.parse().unwrap());
            return Reply::says(json!({ "intruder": number }).to_string());
        }
        let (sentence, texts) = asked(request);
        let is = |i: &usize| knows(&sentence, &texts[i - 1]);
        let yes: Vec<usize> = (1..=texts.len()).filter(is).collect();
        Reply::says(json!({ "yes": yes }).to_string())
    })
}

#[test]
fn intruders_similarities_and_clauses_are_scored_by_what_is_true() {
    let truths = Truths::default();
    let server = knowing(&truths);
    let bench = bench(
        &server,
        "",
        "embedder = \"e\"\nembedder_query = \"query: \"\nembedder_passage = \"passage: \"\n",
    );
    let bench = bench.set(
        "\"single-token\", \"detection\", \"fuzzing\"",
        "\"detection\", \"embedding\", \"intruder\"",
    );
    let said = bench.run(&STAGES).succeeded();
    assert!(said.err.contains(" 0 failed, 0 left"), "{}", said.err);
    let (corpus, judged) = (corpus(&bench), read::<JudgementRow>(&bench));
    intruders_are_as_they_should_be(&bench, &judged);

    // Nobody knows anything: the first text is said to be the intruder, and all are as similar.
    let share = |method: &str| mean(of(&bench, method).iter().filter_map(|row| row.score));
    assert!((share("intruder") - 0.2).abs() < 0.08, "{}", share("intruder"));
    assert!(of(&bench, "embedding").iter().all(|row| row.score.is_none_or(|area| area == 0.5)));

    let explained = read::<ExplanationRow>(&bench).into_iter();
    let explained: BTreeMap<Subject, String> = explained
        .filter(|row| row.explainer == "feature")
        .map(|row| (row.subject, row.input_side))
        .collect();
    let whole = |row: &&JudgementRow| row.clause.is_none() && row.explained == row.subject;
    for row in judged.iter().filter(whole) {
        let sentence = match row.method == "intruder" {
            true => String::new(),
            false => explained[&row.subject.into()].clone(),
        };
        truths.lock().unwrap().insert((sentence, shown(row, &corpus)), row.truth);
    }
    std::fs::remove_file(bench.file("artifacts/replies.jsonl")).unwrap();
    bench.run(&["evaluate", "--force"]).succeeded();
    for method in ["intruder", "embedding"] {
        let rows = of(&bench, method);
        let scored = rows.iter().filter(|row| row.score.is_some()).count();
        assert!(2 * scored > rows.len(), "{scored} of {} by {method}", rows.len());
        assert!(rows.iter().all(|row| row.score.is_none_or(|score| score == 1.0)), "{rows:#?}");
        assert!(rows.iter().all(|row| row.low < row.score || row.score.is_none()));
    }
    let intruders = of(&bench, "intruder");
    assert!(intruders.iter().all(|row| row.null == Some(0.2) && row.null_subject.is_none()));
    let rule = mean(intruders.iter().filter_map(|row| row.rule));
    assert!((0.2..0.95).contains(&rule), "{rule}");
    // The texts of embedding are those of detection, with a similarity in the place of a verdict.
    let judged = read::<JudgementRow>(&bench);
    let texts = |method: &str| {
        let own = judged.iter().filter(|row| row.method == method && row.clause.is_none());
        own.map(|row| (row.subject, row.explained, row.text, row.context, row.truth))
            .collect::<Vec<_>>()
    };
    assert_eq!(texts("embedding"), texts("detection"));
    for row in judged.iter().filter(|row| row.method == "embedding" && whole(row)) {
        let expected = if row.truth { 1.0 } else { 1.5 / 2.5f32.sqrt() };
        assert!(row.said.is_none() && (row.similarity.unwrap() - expected).abs() < 1e-6);
    }
    clauses_have_texts_of_their_cause(&bench, &judged);
    let requests = server.requests().len();
    bench.run(&["evaluate", "--force"]).succeeded();
    assert_eq!(server.requests().len(), requests, "replies of an embedder are kept too");
}

/// The scores by a method of whole explanations.
fn of(bench: &Bench, method: &str) -> Vec<EvaluationRow> {
    let rows = read::<EvaluationRow>(bench).into_iter();
    rows.filter(|row| row.method == method && row.clause.is_none()).collect()
}

/// Of five texts four are active at all their marks, and one is inactive, with as many marks as one
/// of them has.
fn intruders_are_as_they_should_be(bench: &Bench, judged: &[JudgementRow]) {
    let mut known = Knowledge::default();
    known.learn(bench);
    let none = BTreeSet::new();
    let rows: Vec<&JudgementRow> = judged.iter().filter(|row| row.method == "intruder").collect();
    assert!(rows.len() > 100, "{}", rows.len());
    let mut kinds = BTreeSet::new();
    for set in rows.chunks(5) {
        let [intruder] = set.iter().filter(|row| row.truth).collect::<Vec<_>>()[..] else {
            panic!("{set:#?}")
        };
        kinds.insert(intruder.band);
        let marks: Vec<usize> = set.iter().map(|row| row.marked.len()).collect();
        let own = set.iter().filter(|row| !row.truth).map(|row| row.marked.len());
        assert!(own.clone().max() >= Some(intruder.marked.len()), "{marks:?}");
        for row in set {
            let active = known.active.get(&(row.subject.to_string(), row.context)).unwrap_or(&none);
            let span = u32::from(row.start)..u32::from(row.start) + row.tokens;
            assert!(!row.marked.is_empty() && row.marked.iter().all(|p| span.contains(p)));
            match row.truth {
                true => assert!(span.into_iter().all(|p| !active.contains(&p)), "{row:?}"),
                false => assert!(row.marked.iter().all(|p| active.contains(p)), "{row:?}"),
            }
        }
    }
    assert_eq!(kinds, BTreeSet::from([Band::Token, Band::Similar, Band::Inactive]));
}

/// Clauses are kept with their causes, shown, and judged on active texts of their own.
fn clauses_have_texts_of_their_cause(bench: &Bench, judged: &[JudgementRow]) {
    let explained: BTreeMap<Subject, ExplanationRow> = read::<ExplanationRow>(bench)
        .into_iter()
        .filter(|row| !row.clauses.is_empty())
        .map(|row| (row.subject.clone(), row))
        .collect();
    assert!(explained.len() > 3, "{}", explained.len());
    for row in explained.values() {
        let clause = |cause: &String| format!("Active at things that are {cause}.");
        assert_eq!(row.clauses, row.causes.iter().map(clause).collect::<Vec<_>>());
    }
    let clauses: Vec<&JudgementRow> = judged.iter().filter(|row| row.clause.is_some()).collect();
    let (mut active, mut seen) = (0, BTreeSet::new());
    for row in clauses {
        let of = &explained[&Subject::from(row.subject)];
        assert!((row.clause.unwrap() as usize) < of.clauses.len());
        assert!(row.explained == row.subject && row.method == "detection");
        assert_eq!(row.truth, row.activation > 0.0, "no weak ones");
        // Two clauses do not share an active text.
        assert!(!row.truth || seen.insert((row.subject, row.context)), "{row:?}");
        active += usize::from(row.truth);
    }
    assert!(active > 5, "{active}");
    let scored = read::<EvaluationRow>(bench).into_iter().filter(|row| row.clause.is_some());
    assert!(scored.into_iter().any(|row| row.score.is_some() && row.null.is_none()));
}

/// The texts of each feature are of the *score* half, unseen, of different documents, and their
/// truth is that of the scores.
fn texts_are_as_they_should_be(bench: &Bench) {
    let mut known = Knowledge::default();
    known.learn(bench);
    let contexts: Vec<ContextRow> = bench.store().read_parts().unwrap();
    let halves: BTreeMap<u32, Half> =
        read::<Document>(bench).into_iter().map(|row| (row.document, row.half)).collect();
    let mut seen: BTreeSet<(String, Vec<u32>)> = BTreeSet::new();
    for row in read::<ExampleRow>(bench).into_iter().filter(|row| row.half == Half::Explain) {
        seen.insert((row.subject.to_string(), row.tokens));
    }
    let own: Vec<JudgementRow> = read::<JudgementRow>(bench)
        .into_iter()
        .filter(|row| row.explained == row.subject)
        .collect();
    let mut documents = BTreeSet::new();
    let mut bands: BTreeMap<Band, usize> = BTreeMap::new();
    for row in &own {
        let document = contexts[row.context as usize].document;
        assert_eq!(halves[&document], Half::Score);
        assert!(
            !seen.contains(&(row.subject.to_string(), window(row, &contexts).to_vec())),
            "an explanation may have seen it"
        );
        assert!(documents.insert((&row.subject, &row.method, document)), "two texts of a document");
        *bands.entry(row.band).or_default() += 1;
        let none = BTreeSet::new();
        let active = known.active.get(&(row.subject.to_string(), row.context)).unwrap_or(&none);
        let span = u32::from(row.start)..u32::from(row.start) + row.tokens;
        match row.method.as_str() {
            "detection" => {
                assert!(row.marked.is_empty());
                let any = span.clone().any(|p| active.contains(&p));
                assert_eq!(any, row.activation > 0.0, "{row:?}");
                assert_eq!(any, Band::ACTIVE.contains(&row.band));
                let of = known.largest[&row.subject.to_string()];
                assert_eq!(row.truth, any && row.activation >= 0.25 * of, "{row:?}");
            }
            _ => {
                assert!(!row.marked.is_empty() && row.marked.iter().all(|p| span.contains(p)));
                assert!(row.marked.iter().all(|p| active.contains(p) == row.truth), "{row:?}");
            }
        }
    }
    assert!(
        [Band::Top, Band::Tenth(9), Band::Token, Band::Similar, Band::Inactive]
            .iter()
            .all(|band| bands.contains_key(band)),
        "{bands:?}"
    );
    let right = own.iter().filter(|row| row.truth).count() as f64 / own.len() as f64;
    assert!((0.45..0.6).contains(&right), "{right}");
    // Half of the texts in the first places are right ones too.
    let first = own.iter().filter(|row| row.text < 3).collect::<Vec<_>>();
    let right = first.iter().filter(|row| row.truth).count() as f64 / first.len() as f64;
    assert!((0.35..0.65).contains(&right), "{right}");
}

#[test]
fn with_a_threshold_of_0_any_activation_counts() {
    let server = server(&Known::default());
    let bench = bench(&server, "", "threshold = 0.0\n");
    bench.run(&["interpret", "evaluate"]).succeeded();
    let rows: Vec<JudgementRow> = read(&bench);
    let detected: Vec<&JudgementRow> =
        rows.iter().filter(|row| row.method == "detection").collect();
    assert!(detected.iter().all(|row| row.truth == (row.activation > 0.0)));
    assert!(judged_by(&bench, "yes").iter().all(|row| row.any.is_none()), "none is weak");
    assert!(detected.iter().any(|row| row.truth));
}

#[test]
fn what_got_no_verdict_counts_in_nothing_and_is_asked_again() {
    let server = server(&Known::default());
    let bench = bench(&server, "", "");
    bench.run(&["interpret"]).succeeded();
    let bench = bench.set("retries = 0", "retries = 0\nmax_calls = 7\nconcurrency = 1");
    let said = bench.run(&["evaluate"]);
    assert!(!said.ok && said.err.contains(" left, 7 requests now"), "{}", said.err);
    let answered = read::<JudgementRow>(&bench).iter().filter(|row| row.said.is_some()).count();
    // Those of which there are verdicts are not the first layers.
    let rows: Vec<JudgementRow> = read(&bench);
    let subjects: BTreeSet<FeatureId> = rows.iter().map(|row| row.subject).collect();
    let judged: BTreeSet<FeatureId> =
        rows.iter().filter(|row| row.said.is_some()).map(|row| row.subject).collect();
    assert!(subjects.iter().take(judged.len()).ne(&judged), "{judged:?}");
    assert!((7..=35).contains(&answered), "{answered}");
    let examples: u32 = judged_by(&bench, "yes").iter().map(|row| row.examples).sum();
    // A text counts where its verdict is there, and that of the null: both are of the same texts.
    let mut said: BTreeMap<(FeatureId, String, u32), BTreeMap<bool, bool>> = BTreeMap::new();
    let is_weak =
        |row: &JudgementRow| row.method == "detection" && !row.truth && row.activation > 0.0;
    for row in read::<JudgementRow>(&bench).into_iter().filter(|row| !is_weak(row)) {
        let own = row.explained == row.subject;
        said.entry((row.subject, row.method, row.text))
            .or_default()
            .insert(own, row.said.is_some());
    }
    let counted = said
        .values()
        .filter(|said| said.get(&true) == Some(&true) && said.get(&false) != Some(&false));
    assert_eq!(examples as usize, counted.count());
    let bench = bench.set("max_calls = 7", "max_calls = 0");
    let said = bench.run(&["evaluate"]).succeeded();
    assert!(said.err.contains(" 0 left"), "{}", said.err);
    assert!(read::<JudgementRow>(&bench).iter().all(|row| row.said.is_some()));
}

#[test]
fn a_verdict_that_cannot_be_read_is_null() {
    let server = Server::start(|request| match request["model"].as_str() {
        Some("test") => {
            let mut reply = json!({ "input": "Fires.", "output": "o", "promotes": [] });
            if user(request).contains("It is head ") {
                (reply["matching"], reply["carried"]) = (json!("m"), json!("c"));
            }
            Reply::says(reply.to_string())
        }
        _ => Reply::says(r#"{"yes": [99]}"#),
    });
    let bench =
        bench(&server, "", "").set("\"single-token\", \"detection\", \"fuzzing\"", "\"detection\"");
    let said = bench.run(&STAGES);
    assert!(!said.ok, "it ends with a code of its own");
    let rows: Vec<JudgementRow> = read(&bench);
    assert!(!rows.is_empty() && rows.iter().all(|row| row.said.is_none()));
    // Ten in a row are enough; the others are not asked.
    let asked: BTreeSet<&String> =
        rows.iter().map(|row| &row.prompt_hash).filter(|hash| !hash.is_empty()).collect();
    assert!(asked.len() >= 10 && rows.iter().any(|row| row.prompt_hash.is_empty()));
    assert!(
        said.err.contains("10 questions in a row failed for the same reason: ")
            && said.err.contains("`yes` contains 99")
            && said.err.contains("`circuit-atlas run evaluate --again failed`"),
        "{}",
        said.err
    );
    let evaluations: Vec<EvaluationRow> = read(&bench);
    assert!(!evaluations.is_empty());
    assert!(
        evaluations
            .iter()
            .all(|row| row.examples == 0 && row.score.is_none() && row.rule.is_none())
    );
    let ledger: Vec<LedgerRow> = bench.table_as(&JUDGE_LEDGER);
    assert!(
        ledger.iter().any(|row| row.purpose == "repair")
            && ledger.iter().all(|row| row.status == Status::Failed)
    );
}

#[test]
fn samples_are_held_against_each_other_and_all_is_planned_before() {
    let server = server(&Known::default());
    let bench = bench(&server, "samples = 2\ntemperature = 1.0", "")
        .set("judge = \"yes\"", "judge = \"coin\"");
    bench.run(&["interpret"]).succeeded();
    let asked = server.requests().len();
    let plan = bench.call(&["run", "evaluate", "--dry-run"]).succeeded().out;
    assert_eq!(server.requests().len(), asked, "a plan sends nothing");
    bench.run(&["evaluate"]).succeeded();
    let sent = server.requests().len() - asked;
    let all =
        plan.lines().find(|line| line.starts_with("all ")).unwrap_or_else(|| panic!("{plan}"));
    assert_eq!(all.split_whitespace().nth(3), Some(sent.to_string().as_str()), "{plan}");
    assert!(plan.contains("asked: coin"), "{plan}");
    let agreements: Vec<AgreementRow> = read(&bench);
    let of = |of: &str| agreements.iter().filter(|row| row.of == of).collect::<Vec<_>>();
    let tried: BTreeSet<FeatureId> =
        judged_by(&bench, "coin").into_iter().map(|row| row.subject).collect();
    assert_eq!(of("detection").len(), tried.len());
    // `things`, `kind`, `Fires` of these and a number each: 3 of 5.
    assert!(
        of("words").iter().all(|row| row.compared == 1 && row.value == Some(0.6)),
        "{:?}",
        of("words")
    );
    let kappa = mean(of("detection").iter().filter_map(|row| row.value));
    assert!(kappa.abs() < 0.15, "coins agree by chance: {kappa}");
    assert!(agreements.iter().all(|row| row.between == "samples"));
    let samples: BTreeSet<u32> =
        read::<JudgementRow>(&bench).iter().map(|row| row.sample).collect();
    assert_eq!(samples, BTreeSet::from([0, 1]));
}

#[test]
fn the_model_says_more_of_what_a_feature_promotes() {
    let bench = Bench::finished();
    let rows: Vec<CausalRow> = read(&bench);
    let features: Vec<FeatureRow> = read(&bench);
    assert!(rows.len() > features.len() / 2, "{} of {}", rows.len(), features.len());
    for row in &rows {
        let feature = features.iter().find(|feature| feature.feature == row.subject).unwrap();
        assert_eq!(row.strength, feature.max);
        assert!(row.positions > 0 && row.positions <= 10 && row.strength > 0.0);
        assert!(row.rise.is_sorted_by(|a, b| a >= b) && row.risen.len() == 10 && row.rise[0] > 0.0);
        assert_eq!(
            (row.claimed, row.claimed_null, row.claims),
            (None, None, 0),
            "nobody has claimed anything"
        );
        assert!(row.low <= row.promoted && row.promoted <= row.high || row.positions == 1);
    }
    let promoted = mean(rows.iter().filter_map(|row| row.promoted));
    let null = mean(rows.iter().filter_map(|row| row.promoted_null));
    assert!(promoted > 0.85 && (null - 0.5).abs() < 0.1, "{promoted}, and {null} of another's");
    let none = Bench::finished().add("[evaluate]\ncausal = 0\n");
    none.run(&["evaluate"]).succeeded();
    assert!(read::<CausalRow>(&none).is_empty());
}

#[test]
fn claims_are_held_against_what_rises() {
    let server = server(&Known::default());
    let bench = bench(&server, "", "")
        .set("\"single-token\", \"detection\", \"fuzzing\"", "\"single-token\"");
    bench.run(&STAGES).succeeded();
    let rows: Vec<CausalRow> = read(&bench);
    let told: BTreeSet<Subject> = read::<ExplanationRow>(&bench)
        .into_iter()
        .filter(|row| row.explainer == "feature")
        .map(|row| row.subject)
        .collect();
    let claiming: Vec<&CausalRow> =
        rows.iter().filter(|row| told.contains(&Subject::from(row.subject))).collect();
    assert!(!claiming.is_empty());
    for row in claiming {
        assert_eq!(row.claims, 2, "` the` and `Mary` are tokens, `xyzzyx` is none");
        assert!(row.claimed.is_some_and(|area| (0.0..=1.0).contains(&area)));
        assert!(row.claimed_null == row.claimed, "all claim the same");
    }
    assert!(
        read::<JudgementRow>(&bench).is_empty()
            && bench.table_as::<LedgerRow>(&JUDGE_LEDGER).is_empty()
    );
}

#[test]
fn each_prompt_of_a_judge_whole() {
    let texts = ["gave it to «Mary» and", "the «boat» left"];
    let setting = Setting { about: "a small language model", threshold: 0.25, prefixes: [""; 2] };
    for method in [JudgeMethod::Detection, JudgeMethod::Fuzzing] {
        let plain = texts.map(|text| {
            if method == JudgeMethod::Detection {
                text.replace(['«', '»'], "")
            } else {
                text.into()
            }
        });
        let texts: Vec<&str> = plain.iter().map(String::as_str).collect();
        let question =
            question(method, &"mlp0.1".parse().unwrap(), "m", setting, "Active at ships.", &texts)
                .unwrap();
        let whole: String = question
            .messages
            .iter()
            .map(|m| format!("---- {}\n{}\n", m.role.word(), m.text))
            .collect();
        insta::assert_snapshot!(format!("judge_{}", method.word()), whole);
    }
}

#[test]
fn what_others_wrote_is_judged_like_what_the_run_wrote() {
    let known = Known::default();
    let server = server(&known);
    let bench = bench(&server, "", "").set("judge = \"yes\"", "judge = \"coin\"");
    bench.run(&[]).succeeded();
    let before: Vec<EvaluationRow> = read(&bench);
    let explained: Vec<FeatureId> = judged_by(&bench, "coin")
        .iter()
        .map(|row| row.subject)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    assert!(explained.len() > 3);
    // Of some features, by two that the run does not know.
    let line = |(number, by): (usize, &str)| {
        let FeatureId { dictionary, index } = explained[number];
        let kind =
            if dictionary.kind == circuit_atlas::ids::Kind::Attention { "att" } else { "mlp" };
        json!({ "modelId": "m", "layer": format!("{}-{kind}", dictionary.layer), "index": index,
            "description": format!("{by} says this of number {number}"), "explanationModelName": by })
        .to_string()
    };
    let lines: Vec<String> = [(0, "one"), (1, "one"), (2, "one"), (0, "two")].map(line).to_vec();
    let file = bench.file("others.jsonl");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let arguments = ["import", "explanations", file.to_str().unwrap(), "--model", "m"];
    let patterns = ["--attention", "{layer}-att", "--mlp", "{layer}-mlp"];
    bench.call(&[&arguments[..], &patterns].concat()).succeeded();
    let asked = server.requests().len();
    let said = bench.run(&[]).succeeded();
    assert_eq!(said.ran(), ["evaluate", "render"], "{}", said.err);
    assert!(server.requests().len() > asked);
    let after: Vec<EvaluationRow> = read(&bench);
    let (others, own): (Vec<EvaluationRow>, Vec<EvaluationRow>) =
        after.into_iter().partition(|row| row.explainer.starts_with("Neuronpedia: "));
    assert_eq!(own, before, "a score of the run's own explanations has changed");
    assert_eq!(others.len(), 8);
    for row in &others {
        assert!(row.score.is_some() && row.rule.is_some() && row.examples > 0, "{row:?}");
        // Only of several by one explainer is there another one to stand for chance.
        assert_eq!(row.null.is_some(), row.explainer == "Neuronpedia: one", "{row:?}");
    }
    // Each is what the judge said of the texts, given those words.
    let judgements: Vec<JudgementRow> = read(&bench);
    let imported = judgements.iter().filter(|row| row.sample >= 1_000_000);
    let mut of: BTreeMap<(FeatureId, u32, &str), [f64; 4]> = BTreeMap::new();
    for row in imported.filter(|row| row.explained == row.subject) {
        if row.method == "fuzzing" || row.truth || row.activation == 0.0 {
            let counts = of.entry((row.subject, row.sample, row.method.as_str())).or_default();
            counts[usize::from(!row.truth) * 2] += 1.0;
            counts[usize::from(!row.truth) * 2 + 1] +=
                f64::from(u8::from(row.said == Some(row.truth)));
        }
    }
    assert_eq!(of.len(), 8);
    for ((subject, sample, method), [active, right, inactive, rejected]) in of {
        let by = ["Neuronpedia: one", "Neuronpedia: two"][sample as usize - 1_000_000];
        let row = others
            .iter()
            .find(|row| row.subject == subject && row.explainer == by && row.method == method)
            .unwrap();
        let accuracy = (right / active + rejected / inactive) / 2.0;
        assert!((row.score.unwrap() - accuracy).abs() < 1e-9, "{row:?}");
    }
    let page = bench.page(&format!("features/{}.html", explained[0]));
    assert!(page.contains("Neuronpedia: two") && page.contains("one says this of number 0"));
    // delphi's scores are the run's own.
    let out = bench.file("out");
    bench.call(&["export", "delphi", "--out", out.to_str().unwrap()]).succeeded();
    let mut files = 0;
    for row in own.iter().filter(|row| row.judge == "coin") {
        let FeatureId { dictionary, index } = row.subject;
        let part =
            if dictionary.kind == circuit_atlas::ids::Kind::Attention { "attn" } else { "mlp" };
        let method = if row.method == "fuzzing" { "fuzz" } else { "detection" };
        let name = format!("scores/{method}/h.{}.{part}_latent{index}.txt", dictionary.layer);
        let texts: Value = serde_json::from_slice(&std::fs::read(out.join(name)).unwrap()).unwrap();
        let rate = |activating: bool| {
            let texts = texts.as_array().unwrap().iter();
            let own: Vec<bool> = texts
                .filter(|text| text["activating"] == activating)
                .map(|text| text["correct"] == true)
                .collect();
            own.iter().filter(|right| **right).count() as f64 / own.len() as f64
        };
        if let Some(score) = row.score {
            assert!(((rate(true) + rate(false)) / 2.0 - score).abs() < 1e-9, "{row:?}");
            files += 1;
        }
    }
    assert!(files > 10, "{files}");
}
