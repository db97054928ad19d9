//! The recorded worlds in `tests/data/tiny` (its README says what is in it) and `tests/data/other`,
//! each loaded once, and how numbers are compared.

use candle_core::{DType, Device, Tensor};
use circuit_atlas::circuit::{
    Attribution, Candidates, Contributions, Graph, Growth, Node, ReplacementModel, Root, grow,
};
use circuit_atlas::corpus::Tokenizer;
use circuit_atlas::dictionary::{Dictionary, Source, find};
use circuit_atlas::error::Result;
use circuit_atlas::ids::{Bias, NodeKind, Slot};
use circuit_atlas::ids::{DictionaryId, FeatureId, Kind};
use circuit_atlas::model::{Gpt2, Sizes, Trace};
use circuit_atlas::stats::feature::TokenActivation;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What a program in f32 may be off by, of the largest absolute value.
pub(crate) const TOLERANCE: f64 = 2e-4;

pub(crate) struct Fixture {
    /// Its folder in `tests/data`.
    folder: &'static str,
    pub replacement: ReplacementModel,
    pub expected: Expected,
    tensors: HashMap<String, Tensor>,
    contexts: OnceLock<Vec<Trace>>,
    circuits: OnceLock<Vec<Graph>>,
    /// Every nonzero activation of each scored feature, in their order.
    pub activations: OnceLock<Vec<Vec<TokenActivation>>>,
}

/// Makes tests of these functions: `NAME::tiny` and `NAME::other`, one in each recorded world.
macro_rules! in_every_world {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use crate::fixture::Fixture;

            #[test]
            fn tiny() {
                super::$name(Fixture::tiny());
            }

            #[test]
            fn other() {
                super::$name(Fixture::other());
            }
        }
    )* };
}
pub(crate) use in_every_world;

/// `expected.json`; the README has its meaning. A key that is not read here, or by no test, does
/// not compile or load.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    pub format: u32,
    pub seed: u64,
    pub special_token_id: u32,
    pub settings: Settings,
    pub prompts: Vec<Prompt>,
    pub hooked_prompts: Vec<usize>,
    pub effects: Vec<Effects>,
    pub circuits: Vec<Circuit>,
    pub circuit_variants: Vec<Circuit>,
    pub task: Task,
    pub circuit_pairs: Vec<CircuitPairs>,
    pub faithfulness: Vec<Faithfulness>,
    pub promoted: Vec<Promoted>,
    pub contexts: Vec<Context>,
    pub scored_features: Vec<String>,
    pub feature_statistics: BTreeMap<String, FeatureStatistics>,
    pub pairs: Vec<Pair>,
    pub dictionaries: Vec<Measured>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub context: usize,
    pub min_tail: usize,
    pub passes: usize,
    pub per_node: usize,
    pub candidates: usize,
    pub allow: BTreeSet<String>,
    pub pair_window: usize,
    pub histogram_bins: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prompt {
    pub tokens: Vec<u32>,
    pub corrupted_tokens: Vec<u32>,
    pub correct_id: u32,
    pub counter_id: u32,
    pub template: String,
    pub logit_difference: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Effects {
    pub prompt: usize,
    pub receiver: String,
    pub slot: String,
    pub rows: Vec<(String, f64, f64)>,
    pub bias: (f64, f64),
    pub total: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Circuit {
    pub prompt: usize,
    pub nodes: Vec<NamedNode>,
    /// Child, parent, slot, effect, share, pass.
    pub edges: Vec<(String, String, String, f64, f64, usize)>,
    pub margin: f64,
    /// What a variant has instead of the settings of all.
    pub passes: Option<usize>,
    pub per_node: Option<usize>,
    pub candidates: Option<usize>,
    pub allow: Option<BTreeSet<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedNode {
    pub id: String,
    pub kind: String,
    pub layer: Option<i32>,
    pub position: Option<i32>,
    pub source: Option<i32>,
    pub head: Option<i32>,
    pub feature: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    pub components: BTreeMap<String, Frequency>,
    pub features: BTreeMap<String, BTreeMap<String, u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Frequency {
    pub prompts: u32,
    pub frequency: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CircuitPairs {
    pub a: String,
    pub b: String,
    pub rows: Vec<(String, String, u32, f64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Faithfulness {
    pub name: String,
    pub circuit: Vec<String>,
    pub m_model: f64,
    pub m_empty: f64,
    pub m_circuit: f64,
    pub m_complement: f64,
    pub faithfulness: f64,
    pub completeness: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Promoted {
    pub feature: String,
    pub top: Vec<(u32, f64)>,
    pub bottom: Vec<(u32, f64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    pub document: u32,
    pub start: u32,
    pub tokens: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeatureStatistics {
    pub tokens: u64,
    pub active: u64,
    pub density: f64,
    pub max: f64,
    pub mean_active: Option<f64>,
    pub masked_active: u64,
    pub histogram: Vec<u64>,
    pub mass: Vec<(u32, f64)>,
    pub context_max: Vec<f64>,
    pub top_contexts: Vec<(u32, u16, f64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pair {
    pub f: String,
    pub g: String,
    pub n: u64,
    pub n_f: u64,
    pub n_g: u64,
    pub n_fg: u64,
    pub n_f_then_g: u64,
    pub n_g_then_f: u64,
    pub expected: f64,
    pub lift: Option<f64>,
    pub npmi: Option<f64>,
    pub jaccard: Option<f64>,
    pub phi: Option<f64>,
    pub p: Option<f64>,
    pub q: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measured {
    pub dictionary: String,
    pub tokens: u64,
    pub l0: f64,
    pub fvu: f64,
    pub dead: u64,
}

/// A path below `tests/data`.
pub(crate) fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// The dictionaries of a kind, as a run would load them.
pub(crate) fn dictionaries(folder: &Path, kind: Kind, sizes: &Sizes) -> Vec<Dictionary> {
    find(folder, &[], kind, sizes.layers)
        .unwrap()
        .iter()
        .map(|source| opened(source, sizes).unwrap())
        .collect()
}

/// A dictionary as a run would open it, converted into a folder that is kept from one test run to
/// the next.
pub(crate) fn opened(source: &Source, sizes: &Sizes) -> Result<Dictionary> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dictionaries");
    let file =
        |path: &PathBuf| std::fs::read(path).map(|bytes| blake3::hash(&bytes).to_hex().to_string());
    let content = [Some(&source.weights), source.config.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| file(path).unwrap());
    Dictionary::open(source, sizes.d_model, &folder, &content.collect::<String>())
}

impl Fixture {
    pub(crate) fn tiny() -> &'static Fixture {
        static TINY: OnceLock<Fixture> = OnceLock::new();
        TINY.get_or_init(|| Fixture::load("tiny"))
    }

    pub(crate) fn other() -> &'static Fixture {
        static OTHER: OnceLock<Fixture> = OnceLock::new();
        OTHER.get_or_init(|| Fixture::load("other"))
    }

    fn load(folder: &'static str) -> Fixture {
        let path = |name: &str| data(folder).join(name);
        let model = Gpt2::load(&path("model")).unwrap();
        let attention = dictionaries(&path("attention_sae"), Kind::Attention, &model.sizes);
        let mlp = dictionaries(&path("transcoder"), Kind::Mlp, &model.sizes);
        let expected: Expected =
            serde_json::from_slice(&std::fs::read(path("expected.json")).unwrap()).unwrap();
        assert_eq!(expected.format, 1);
        Fixture {
            folder,
            replacement: ReplacementModel::new(model, attention, mlp).unwrap(),
            expected,
            tensors: candle_core::safetensors::load(path("expected.safetensors"), &Device::Cpu)
                .unwrap(),
            contexts: OnceLock::new(),
            circuits: OnceLock::new(),
            activations: OnceLock::new(),
        }
    }

    /// A path below the recorded world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        data(self.folder).join(name)
    }

    pub(crate) fn tokenizer(&self) -> Tokenizer {
        Tokenizer::load(&self.path("model"), self.model().sizes.vocabulary).unwrap()
    }

    /// The names in `expected.safetensors`.
    pub(crate) fn tensor_names(&self) -> BTreeSet<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    /// A tensor of `expected.safetensors`.
    pub(crate) fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub(crate) fn model(&self) -> &Gpt2 {
        &self.replacement.model
    }

    pub(crate) fn dictionary(&self, id: DictionaryId) -> &Dictionary {
        match id.kind {
            Kind::Attention => &self.replacement.attention[id.layer],
            Kind::Mlp => &self.replacement.mlp[id.layer],
        }
    }

    /// All dictionaries of the model.
    pub(crate) fn every_dictionary(&self) -> impl Iterator<Item = &Dictionary> {
        DictionaryId::all(self.model().sizes.layers).map(|id| self.dictionary(id))
    }

    /// A clean pass over a prompt, taken apart.
    pub(crate) fn attribution(&self, prompt: usize) -> Attribution<'_> {
        Attribution::new(&self.replacement, &self.expected.prompts[prompt].tokens).unwrap()
    }

    /// The recorded root of a prompt.
    pub(crate) fn root(&self, prompt: usize) -> Root {
        self.root_of(&self.expected.prompts[prompt])
    }

    pub(crate) fn root_of(&self, prompt: &Prompt) -> Root {
        Root::LogitDifference { correct: prompt.correct_id, counter: prompt.counter_id }
    }

    /// Effects on a node of a prompt, the recorded root included.
    pub(crate) fn contributions<'a>(
        &self,
        prompt: usize,
        attribution: &'a Attribution,
        node: &Node,
        slot: Slot,
    ) -> Contributions<'a> {
        match node.kind {
            NodeKind::Root => attribution.on_root(self.root(prompt)).unwrap(),
            _ => attribution.contributions(node, slot).unwrap(),
        }
    }

    /// The passes over all contexts of the corpus.
    pub(crate) fn contexts(&self) -> &[Trace] {
        let pass = |context: &Context| self.model().forward(&context.tokens).unwrap();
        self.contexts.get_or_init(|| self.expected.contexts.iter().map(pass).collect())
    }

    /// A prompt's circuit.
    pub(crate) fn circuit(&self, prompt: usize, search: &Search) -> Graph {
        let attribution = self.attribution(prompt);
        let mut candidates = Candidates::new(&attribution, search.candidates, &search.allow);
        grow(&mut candidates, self.root(prompt), search.method).unwrap().graph
    }

    /// The circuits of all prompts.
    pub(crate) fn circuits(&self) -> &[Graph] {
        let settings = self.expected.settings.search();
        let all = 0..self.expected.prompts.len();
        self.circuits.get_or_init(|| all.map(|i| self.circuit(i, &settings)).collect())
    }
}

/// The terms at a position before a sublayer (`2l` attention, `2l + 1` MLP, `2L` the end): nodes,
/// and vectors `[n, D]`.
pub(crate) fn terms<'a>(
    attribution: &'a Attribution,
    before: usize,
    position: usize,
) -> (&'a [Node], Vec<f32>) {
    let stream = attribution.stream();
    let rows = (0..=before).flat_map(|block| stream.rows(block, position).unwrap().to_vec());
    (stream.nodes(before, position), rows.collect())
}

/// What a dictionary reads in a pass, `[T, d_in]`.
pub(crate) fn read_by(id: DictionaryId, trace: &Trace) -> &Tensor {
    match id.kind {
        Kind::Attention => &trace.layers[id.layer].z,
        Kind::Mlp => &trace.layers[id.layer].x2,
    }
}

/// How a circuit is looked for.
#[derive(Clone)]
pub(crate) struct Search {
    pub method: Growth,
    pub candidates: usize,
    pub allow: BTreeSet<String>,
}

impl Settings {
    pub(crate) fn search(&self) -> Search {
        let Settings { passes, per_node, candidates, .. } = *self;
        Search {
            method: Growth::Greedy { passes, per_node },
            candidates,
            allow: self.allow_words(),
        }
    }

    /// The kinds that may be linked, in the words of the settings.
    pub(crate) fn allow_words(&self) -> BTreeSet<String> {
        allowed(&self.allow)
    }
}

impl Circuit {
    /// The settings of a variant.
    pub(crate) fn search(&self) -> Search {
        let said = "a variant names its settings";
        let (passes, per_node) = (self.passes.expect(said), self.per_node.expect(said));
        Search {
            method: Growth::Greedy { passes, per_node },
            candidates: self.candidates.expect(said),
            allow: allowed(self.allow.as_ref().expect(said)),
        }
    }
}

/// The recorded kinds in the words of the settings, which have one for all biases.
fn allowed(kinds: &BTreeSet<String>) -> BTreeSet<String> {
    kinds
        .iter()
        .map(|kind| if kind.ends_with("_bias") { "bias".into() } else { kind.clone() })
        .collect()
}

// ---- names: the recorded world's ids

/// `attn1.23@5`, `L1H2:3>5:f23`, … of a node.
pub(crate) fn node_name(node: &Node) -> String {
    let (layer, position) = (node.layer(), node.position());
    let (source, head) = (node.source(), node.head());
    let serves = node.feature.map_or("err".into(), |feature| format!("f{feature}"));
    match node.kind {
        NodeKind::Root => "root".into(),
        NodeKind::AttentionFeature | NodeKind::AttentionError => {
            format!("attn{layer}.{serves}@{position}")
        }
        NodeKind::MlpFeature | NodeKind::MlpError => format!("mlp{layer}.{serves}@{position}"),
        NodeKind::Head => format!("L{layer}H{head}:{source}>{position}:{serves}"),
        NodeKind::Bias(Bias::AttentionDictionary) => format!("attn{layer}.b_dec@{position}"),
        NodeKind::Bias(Bias::Attention) => format!("attn{layer}.b_O@{position}"),
        NodeKind::Bias(Bias::MlpDictionary) => format!("mlp{layer}.b_dec_out@{position}"),
        NodeKind::Embedding => format!("emb@{position}"),
        NodeKind::PositionEmbedding => format!("pos@{position}"),
    }
}

/// The receiver with a name: root, feature, SAE error or head.
pub(crate) fn receiver(name: &str) -> Node {
    let number = |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("{name}"));
    let parts: Vec<&str> = name.split([':', '>', '@', '.']).collect();
    let served = |text: &str| text.strip_prefix('f').map(|f| number(f) as u32);
    match parts[..] {
        ["root"] => Node::ROOT,
        [at, source, position, what] => {
            let (layer, head) = at[1..].split_once('H').unwrap();
            let node = Node::at(NodeKind::Head, number(layer), number(position));
            Node { feature: served(what), ..node.through(number(head), number(source)) }
        }
        [dictionary, "err", position] => {
            Node::at(NodeKind::AttentionError, number(&dictionary[4..]), number(position))
        }
        [dictionary, feature, position] => {
            let id = feature_id(&format!("{dictionary}.{feature}"));
            Node::feature(
                id.dictionary.kind,
                id.dictionary.layer,
                number(position),
                id.index as u32,
            )
        }
        _ => panic!("{name}"),
    }
}

/// `attn1.f23` → the feature.
pub(crate) fn feature_id(name: &str) -> FeatureId {
    name.replace("attn", "att").replace(".f", ".").parse().unwrap()
}

/// The feature → `attn1.f23`.
pub(crate) fn feature_name(id: FeatureId) -> String {
    id.to_string().replace("att", "attn").replace('.', ".f")
}

/// `in`, `q`, `k`, `v`
pub(crate) fn slot_name(slot: Slot) -> &'static str {
    if slot == Slot::In { "in" } else { slot.word() }
}

pub(crate) fn slot(name: &str) -> Slot {
    [Slot::In, Slot::Q, Slot::K, Slot::V].into_iter().find(|slot| slot_name(*slot) == name).unwrap()
}

// ---- comparing

pub(crate) fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |top, x| top.max(x.abs()))
}

/// Every value is within `tolerance` of the largest expected one.
pub(crate) fn assert_near(what: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: number of values");
    let reach = tolerance * largest(expected);
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= reach, "{what}[{i}]: {a}, expected {e} ± {reach:.1e}");
    }
}

/// Two numbers within an absolute reach.
pub(crate) fn assert_within(what: &str, actual: f64, expected: f64, reach: f64) {
    assert!(
        (actual - expected).abs() <= reach,
        "{what}: {actual}, expected {expected} ± {reach:.1e}"
    );
}

/// A tensor within the tolerance of a recorded one; shapes may differ, sizes not.
pub(crate) fn assert_tensor(what: &str, actual: &Tensor, expected: &Tensor) {
    assert_near(what, &numbers(actual), &numbers(expected), TOLERANCE);
}
