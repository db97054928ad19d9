//! `trace`: the circuit of a prompt that is typed, computed from the model and its dictionaries.
//! Explanations of its features come from a finished run, if there is one of the same model.

use super::page::{Page, Table, token};
use super::{Answer, Look, written};
use crate::artifact::publish::publish;
use crate::atlas::model::{Atlas, Baseline, Circuit, Link, Prompt, PromptGraph, Task, kind_word};
use crate::atlas::model_name;
use crate::circuit::{Ablate, ReplacementModel};
use crate::config::{Config, DiscoveryMethod, RootKind};
use crate::corpus::Tokenizer;
use crate::error::{Context, Result, hinted};
use crate::format::number::{percent, significant};
use crate::format::text::plain;
use crate::ids::{FeatureId, NodeKind};
use crate::inputs::{self, Metrics};
use crate::pipeline;
use crate::process::{self, Stream};
use crate::site;
use crate::stages::Run;
use crate::stages::search::task_prompts::Solved;
use crate::stages::search::typed;
use crate::task::{Typed, TypedText};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is to be traced.
#[derive(Args)]
pub(crate) struct TraceQuestion {
    /// Text in front of the answer
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Right answer, one token with its leading space; default: the model's first answer
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    correct: Option<String>,
    /// Wrong answer; with it, the circuit is that of the logit difference
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    counter: Option<String>,
    /// Text of as many tokens that method `gradient` compares with; default: all features zero
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    corrupted: Option<String>,
    /// How the circuit is found; default: `discover.method`
    #[arg(long, value_name = "METHOD")]
    method: Option<Method>,
    /// Rows of each table
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Write the graph: FILE.html as a page, FILE.json for attribution graph viewers
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    Gradient,
    Greedy,
    Influence,
}

impl TraceQuestion {
    /// The settings with what the circuit of one prompt takes another value of.
    fn settings(&self, config: &Config) -> Config {
        let mut config = config.clone();
        let discover = &mut config.discover;
        match self.method {
            Some(Method::Gradient) => discover.method = DiscoveryMethod::Gradient,
            Some(Method::Greedy) => discover.method = DiscoveryMethod::Greedy,
            Some(Method::Influence) => discover.method = DiscoveryMethod::Influence,
            None => {}
        }
        discover.root = match self.counter {
            Some(_) => RootKind::LogitDifference,
            None => RootKind::Logit,
        };
        discover.contrast = false;
        config
    }

    /// # Errors
    /// When the method has no use for the corrupted text.
    fn check(&self, method: DiscoveryMethod) -> Result<()> {
        if self.corrupted.is_none() || method == DiscoveryMethod::Gradient {
            return Ok(());
        }
        Err(hinted(
            format!("the method `{}` compares with no other text", method.word()),
            "leave out `--corrupted`, or set `--method gradient`",
        ))
    }

    fn typed(&self) -> TypedText {
        let Self { text, correct, counter, corrupted, .. } = self;
        TypedText {
            text: text.clone(),
            correct: correct.clone(),
            counter: counter.clone(),
            corrupted: corrupted.clone(),
        }
    }
}

/// A traced prompt, as pages know prompts.
struct Traced {
    prompt: Prompt,
    graph: PromptGraph,
    correct: u32,
    counter: Option<u32>,
    /// The right answer is the model's own.
    own: bool,
    method: DiscoveryMethod,
    left_out: Option<f64>,
    layers: usize,
    heads: usize,
}

/// Finds the circuit of a prompt, prints it, and writes its graph if that is asked for.
///
/// # Errors
/// When the prompt cannot be traced, an input cannot be read, or the graph cannot be written.
pub(crate) fn trace(config: &Config, question: &TraceQuestion, look: &Look) -> Result<()> {
    pipeline::set_threads(config);
    let config = &question.settings(config);
    question.check(config.discover.method)?;
    let out = question.out.as_deref().map(|path| Out::new(path, config)).transpose()?;
    let traced = pipeline::ask_model(config, |run| traced(run, question))?;
    let features = traced.features();
    // What cannot be read of an earlier run is no reason to say nothing of this prompt.
    let explained = pipeline::ask_beside(config, |run| explanations(run, &features));
    let explained = explained.unwrap_or_else(|error| {
        process::note(format_args!("note: no explanations: {error:#}"));
        None
    });
    let explained = explained.unwrap_or_default();
    let text = written(&TraceAnswer::new(&traced, &explained, question.top), look)?;
    if let Some(out) = &out {
        out.write(&traced.atlas(config), explained)?;
    }
    process::write(Stream::Stdout, &text);
    if let Some(out) = &out {
        process::note(format_args!("the graph is in `{}`", out.path.display()));
    }
    Ok(())
}

fn traced(run: &Run, question: &TraceQuestion) -> Result<Traced> {
    let tokenizer = inputs::tokenizer(run.config)?;
    let typed = Typed::new(&question.typed(), &tokenizer, inputs::sizes(run.config)?.positions)?;
    typed.doubts.iter().for_each(|doubt| run.progress.line(&format!("note: {doubt}")));
    run.progress.say("loading the model and its dictionaries");
    let replacement = run.replacement_model()?;
    let metrics = Metrics::new(&tokenizer);
    let correct = match typed.correct() {
        Some(correct) => correct,
        None => first_answer(&replacement, &metrics, typed.tokens())?,
    };
    let prompt = typed.prompt(correct)?;
    run.progress.say("finding the circuit");
    let ablate = if question.corrupted.is_some() { Ablate::Mean } else { Ablate::Zero };
    let solved = typed::find(run, &replacement, &prompt, &metrics, ablate)?
        .context("there is no prompt to be traced")?;
    let against = match &question.corrupted {
        Some(corrupted) => Baseline::Corrupted(corrupted.clone()),
        None => Baseline::Zero,
    };
    Traced::new(run.config, &replacement, &tokenizer, &typed, solved, against)
}

/// The token with the highest logit, special ones left out.
fn first_answer(replacement: &ReplacementModel, metrics: &Metrics, tokens: &[u32]) -> Result<u32> {
    let logits = replacement.model.last_logits(&replacement.model.forward(tokens)?)?;
    let first = metrics.answers(&logits, 1).first().map(|(id, _)| *id);
    first.context("the model has no answer that is a token of text")
}

/// What is known of features; those of which nothing is have no entry.
fn explanations(run: &Run, features: &BTreeSet<FeatureId>) -> Result<BTreeMap<FeatureId, String>> {
    let reader = run.reader().about(features.iter().map(|feature| (*feature).into()));
    let of = |feature: &FeatureId| Ok(reader.explained(*feature)?.map(|text| (*feature, text)));
    features.iter().filter_map(|feature| of(feature).transpose()).collect()
}

impl Traced {
    fn new(
        config: &Config,
        replacement: &ReplacementModel,
        tokenizer: &Tokenizer,
        typed: &Typed,
        solved: Solved,
        against: Baseline,
    ) -> Result<Traced> {
        let right = typed.counter().is_none() || solved.right();
        let Solved { prompt, logit_difference, clean, answers, circuit } = solved;
        let circuit = circuit.filter(|circuit| !circuit.found.graph.edges.is_empty());
        let circuit = circuit.ok_or_else(|| {
            hinted(
                "no circuit was found: nothing has a large enough part in the answer",
                "try another `--method`, or check `discover.allow`, `discover.most` and \
                 `discover.share`",
            )
        })?;
        let graph = PromptGraph {
            number: 0,
            tokens: prompt.tokens.iter().map(|&id| (id, tokenizer.token(id))).collect(),
            correct: prompt.correct,
            difference: typed.counter().is_some(),
            against,
            circuit: Arc::new(Circuit::of(&circuit.found.graph, circuit.activations)),
        };
        let sizes = replacement.model.sizes;
        Ok(Traced {
            prompt: Prompt {
                template: String::new(),
                text: prompt.text,
                correct: tokenizer.token(prompt.correct),
                counter: typed.counter().map(|id| tokenizer.token(id)).unwrap_or_default(),
                logit_difference: if graph.difference { logit_difference } else { clean },
                metric: clean,
                answers: answers.iter().map(|(id, p)| (tokenizer.token(*id), *p)).collect(),
                nodes: graph.nodes().len() as u32,
                edges: graph.links().len() as u32,
                coverage: circuit.found.graph.coverage(),
                right,
                used: true,
                places: Vec::new(),
                graph: Some(graph.clone()),
            },
            graph,
            correct: prompt.correct,
            counter: typed.counter(),
            own: typed.correct().is_none(),
            method: config.discover.method,
            left_out: circuit.found.left_out,
            layers: sizes.layers,
            heads: sizes.heads,
        })
    }

    fn features(&self) -> BTreeSet<FeatureId> {
        (0..self.graph.nodes().len()).filter_map(|at| self.graph.feature(at)).collect()
    }

    /// The prompt as the only one of an atlas.
    fn atlas(&self, config: &Config) -> Atlas {
        let task = Task {
            name: "trace".into(),
            kind: if self.graph.difference { "prompts" } else { "logit" }.into(),
            method: self.method.word().into(),
            prompts: vec![self.prompt.clone()],
            ..Task::default()
        };
        Atlas {
            title: config.site.title.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            model: model_name(&config.model.path),
            layers: self.layers,
            heads: self.heads,
            tasks: vec![task],
            ..Atlas::default()
        }
    }
}

/// A file for the graph.
struct Out<'a> {
    path: &'a Path,
    json: bool,
}

impl Out<'_> {
    /// # Errors
    /// When it is neither a page nor JSON, is in the folder of the site, or there is a file of
    /// somebody else.
    fn new<'p>(path: &'p Path, config: &Config) -> Result<Out<'p>> {
        let shown = path.display();
        let json = match path.extension().and_then(|ending| ending.to_str()) {
            Some("html") => false,
            Some("json") => true,
            _ => {
                return Err(hinted(
                    format!("`--out {shown}` is neither a page nor JSON"),
                    "name a file that ends in `.html` or `.json`",
                ));
            }
        };
        let out = Out { path, json };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize();
        let site = config.path(&config.output.site).canonicalize();
        if let (Ok(folder), Ok(site)) = (folder, site)
            && folder.starts_with(site)
        {
            return Err(hinted(
                format!("`--out {shown}` is in the folder of the site, which `render` replaces"),
                "name a file in another folder",
            ));
        }
        if path.symlink_metadata().is_ok() && !out.is_ours() {
            return Err(hinted(
                format!("`--out {shown}` would overwrite a file that `trace` did not write"),
                "name another file, or remove this one",
            ));
        }
        Ok(out)
    }

    fn is_ours(&self) -> bool {
        let mark = match self.json {
            true => "{\"metadata\":{\"slug\":\"trace-0\"",
            false => "<meta name=\"generator\" content=\"circuit-atlas trace\">",
        };
        let mut begin = Vec::new();
        let read = File::open(self.path).and_then(|file| file.take(8192).read_to_end(&mut begin));
        read.is_ok() && begin.windows(mark.len()).any(|part| part == mark.as_bytes())
    }

    fn write(&self, atlas: &Atlas, gists: BTreeMap<FeatureId, String>) -> Result<()> {
        let text = match self.json {
            true => site::json_alone(atlas, gists)?,
            false => site::page_alone(atlas, gists)?,
        };
        // A name alone has no folder that could be synced.
        let path = std::path::absolute(self.path)
            .with_context(|| format!("cannot write `{}`", self.path.display()))?;
        publish(&path, |file| Ok(file.write_all(text.as_bytes())?))
    }
}

#[derive(Serialize)]
struct TraceAnswer<'a> {
    text: &'a str,
    /// As the model reads them, BOS first.
    tokens: Vec<TokenAt<'a>>,
    correct: TokenOf<'a>,
    /// The right answer was not named: it is the model's first.
    correct_by_model: bool,
    counter: Option<TokenOf<'a>>,
    /// The model's first answers, best first.
    answers: Vec<Likely<'a>>,
    /// `logit difference` or `logit`, and its value in the clean run.
    metric: &'static str,
    value: f64,
    method: &'static str,
    /// What `gradient` compares features with: `zero` or the corrupted text; else null.
    against: Option<&'a str>,
    /// Share of the effects on the answer that the links to it cover.
    coverage: f64,
    /// Share of the influence that is not in the circuit; only of `influence`.
    left_out: Option<f64>,
    /// The one through which most of the effects pass first; without the answer.
    nodes: Vec<TracedNode>,
    /// The one through which most of the effects pass first.
    links: Vec<TracedLink>,
    #[serde(skip)]
    top: usize,
}

#[derive(Serialize)]
struct TokenAt<'a> {
    position: usize,
    id: u32,
    text: &'a str,
}

#[derive(Serialize)]
struct TokenOf<'a> {
    id: u32,
    text: &'a str,
}

#[derive(Serialize)]
struct Likely<'a> {
    text: &'a str,
    probability: f32,
}

#[derive(Serialize)]
struct TracedNode {
    /// `att3.51 @ 12`, of a head also the position that it reads.
    node: String,
    kind: &'static str,
    feature: Option<FeatureId>,
    /// Of a head: the token that it reads, and the feature or error that it writes to.
    reads: Option<String>,
    serves: Option<String>,
    position: usize,
    token: String,
    activation: Option<f32>,
    /// Share of the effects on the answer that passes through it along the links.
    reach: f64,
    /// Its direct effect on the answer; none without a link to it.
    effect: Option<f32>,
    explanation: Option<String>,
}

#[derive(Serialize)]
struct TracedLink {
    from: String,
    /// Of a head also what it serves.
    to: String,
    /// `q`, `k` or `v` of a head; else empty.
    input: &'static str,
    effect: f32,
    /// Of everything that enters the receiver there.
    share: f32,
}

impl<'a> TraceAnswer<'a> {
    fn new(
        traced: &'a Traced,
        explained: &BTreeMap<FeatureId, String>,
        top: usize,
    ) -> TraceAnswer<'a> {
        let Traced { prompt, graph, method, .. } = traced;
        let token_at = |(position, (id, text)): (usize, &'a (u32, String))| TokenAt {
            position,
            id: *id,
            text: text.as_str(),
        };
        let likely = |(text, p): &'a (String, f32)| Likely { text: text.as_str(), probability: *p };
        TraceAnswer {
            text: &prompt.text,
            tokens: graph.tokens.iter().enumerate().map(token_at).collect(),
            correct: TokenOf { id: traced.correct, text: &prompt.correct },
            correct_by_model: traced.own,
            counter: traced.counter.map(|id| TokenOf { id, text: &prompt.counter }),
            answers: prompt.answers.iter().map(likely).collect(),
            metric: if graph.difference { "logit difference" } else { "logit" },
            value: prompt.metric,
            method: method.word(),
            against: match &graph.against {
                _ if *method != DiscoveryMethod::Gradient => None,
                Baseline::Corrupted(text) => Some(text),
                _ => Some("zero"),
            },
            coverage: prompt.coverage,
            left_out: traced.left_out,
            nodes: nodes(graph, explained),
            links: links(graph),
            top,
        }
    }
}

fn nodes(graph: &PromptGraph, explained: &BTreeMap<FeatureId, String>) -> Vec<TracedNode> {
    let reach = graph.circuit.influences();
    let mut order: Vec<usize> =
        (0..reach.len()).filter(|&at| graph.nodes()[at].kind != NodeKind::Root).collect();
    order.sort_by(|&a, &b| reach[b].total_cmp(&reach[a]).then(a.cmp(&b)));
    let node = |at: usize| {
        let on_root =
            |link: &&Link| link.from == at && graph.nodes()[link.to].kind == NodeKind::Root;
        let own = graph.feature(at).filter(|_| graph.nodes()[at].kind != NodeKind::Head);
        let position = graph.position(at);
        TracedNode {
            node: graph.placed(at),
            kind: kind_word(graph.nodes()[at].kind),
            feature: own,
            reads: (graph.nodes()[at].kind == NodeKind::Head)
                .then(|| text_at(graph, graph.nodes()[at].source())),
            serves: graph.serves(at),
            position,
            token: text_at(graph, position),
            activation: graph.circuit.activations[at],
            reach: reach[at],
            effect: graph.links().iter().find(on_root).map(|link| link.effect),
            explanation: own.and_then(|feature| explained.get(&feature).cloned()),
        }
    };
    order.into_iter().map(node).collect()
}

fn text_at(graph: &PromptGraph, position: usize) -> String {
    graph.tokens.get(position).map(|(_, text)| text.clone()).unwrap_or_default()
}

/// By their share of what enters the receiver, times what passes through that: the largest shares
/// of all are those of links into nodes that hardly matter.
fn links(graph: &PromptGraph) -> Vec<TracedLink> {
    let reach = graph.circuit.influences();
    let passes = |link: &Link| reach[link.to] * f64::from(link.share);
    let mut links: Vec<&Link> = graph.links().iter().collect();
    links.sort_by(|a, b| passes(b).total_cmp(&passes(a)));
    let to = |at: usize| match graph.serves(at) {
        Some(served) => format!("{} for {served}", graph.placed(at)),
        None => graph.placed(at),
    };
    let link = |link: &Link| TracedLink {
        from: graph.placed(link.from),
        to: to(link.to),
        input: link.slot.word(),
        effect: link.effect,
        share: link.share,
    };
    links.into_iter().map(link).collect()
}

impl Answer for TraceAnswer<'_> {
    fn print(&self, page: &mut Page) {
        let sizes = format!("{} nodes and {} links", self.nodes.len() + 1, self.links.len());
        page.title("Circuit", &format!("{sizes}, by the method {}", self.method));
        let tokens = self.tokens.iter().map(|one| format!("{} {}", one.position, token(one.text)));
        page.line(&format!("tokens: {}", tokens.collect::<Vec<_>>().join(", ")));
        let answers = self
            .answers
            .iter()
            .map(|one| format!("{} {}", token(one.text), percent(one.probability)));
        page.line(&format!(
            "the model's first answers: {}",
            answers.collect::<Vec<_>>().join(", ")
        ));
        page.line(&self.measured());
        if let Some(against) = self.against {
            page.line(&match against {
                "zero" => {
                    "features are compared with zero (`--corrupted TEXT`: with what they are in \
                           another text)"
                        .into()
                }
                text => format!("features are compared with what they are in “{text}”"),
            });
        }
        let left_out =
            self.left_out.map(|share| format!("; {} of the influence is left out", percent(share)));
        page.line(&format!(
            "links cover {} of the effects on the answer{}",
            percent(self.coverage),
            left_out.unwrap_or_default()
        ));
        self.print_nodes(page);
        self.print_links(page);
    }
}

impl TraceAnswer<'_> {
    fn measured(&self) -> String {
        let value = significant(self.value, 3);
        let own = if self.correct_by_model { ", the model's first answer" } else { "" };
        let correct = token(self.correct.text);
        match &self.counter {
            None => format!("logit of {correct}{own}: {value}"),
            Some(counter) => {
                let counter = token(counter.text);
                let wrong = if self.value > 0.0 {
                    String::new()
                } else {
                    format!("; the model prefers {counter}")
                };
                format!("logit of {correct}{own} less that of {counter}: {value}{wrong}")
            }
        }
    }

    fn print_nodes(&self, page: &mut Page) {
        page.heading("Strongest nodes", "by reach: how much of the effects on the answer passes");
        let number = |x: Option<f32>| x.map(|x| significant(x, 3)).unwrap_or_default();
        let row = |n: &TracedNode| {
            let about = match (&n.explanation, &n.reads, &n.serves) {
                (Some(text), ..) => plain(text, 200),
                (None, Some(read), Some(served)) => {
                    format!("reads {}, writes to {served}", token(read))
                }
                _ if n.feature.is_some() => String::new(),
                _ => n.kind.into(),
            };
            [
                n.node.clone(),
                token(&n.token),
                number(n.activation),
                percent(n.reach),
                number(n.effect),
                about,
            ]
        };
        let columns = ["node", "token", ">active", ">reach", ">effect", "what it is"];
        page.table(&Table::new(&columns).with(self.nodes.iter().take(self.top).map(row)));
        page.rest(self.top.min(self.nodes.len()), self.nodes.len(), "--top");
    }

    fn print_links(&self, page: &mut Page) {
        page.heading("Strongest links", "by what passes through them; share of what enters there");
        let row = |l: &TracedLink| {
            [
                l.from.clone(),
                l.to.clone(),
                significant(l.effect, 3),
                percent(l.share),
                l.input.into(),
            ]
        };
        let columns = ["from", "to", ">effect", ">share", "input"];
        page.table(&Table::new(&columns).with(self.links.iter().take(self.top).map(row)));
        page.rest(self.top.min(self.links.len()), self.links.len(), "--top");
    }
}
