//! Every table of a run, in the order in which the stages write them. Names and columns are what
//! users open.

mod kept;

use super::row::{Row, table};
use super::store::Artifact;
use crate::ids::{
    Band, Beside, Component, DictionaryId, FeatureId, Half, Kind, Lag, NodeKind, Profiled, Shown,
    Side, Slot, Status, Subject, SubjectKind,
};

pub(crate) use super::row::Cell;
pub use kept::*;

table! {
    /// a document of the corpus, or a stretch of one
    Document = "documents", version 3, whole {
        /// its number in the source's own order, from 0, empty ones counted
        document: u32,
        /// the file that it came from
        source: String,
        /// where it begins in the ids of the document that it is a stretch of; 0: a whole document or
        /// the first stretch
        start: u32,
        /// its token ids, without BOS
        tokens: u32,
        /// `explain` or `score`: which examples it may give, by a hash of its ids, or of stretches
        /// by turns
        half: Half,
        /// contexts whose first token is from it
        contexts: u32,
        /// tokens of these contexts, BOS included
        context_tokens: u64,
        /// tokens of these contexts that count: not special, not at position 0
        counting_tokens: u64,
    }
}

table! {
    /// a context: a window of a document
    ContextRow = "tokens", version 1, sharded {
        /// its number
        context: u32,
        /// the document that its first token is from
        document: u32,
        /// offset of its first token in that document's ids; in those of the whole document where it
        /// is a stretch
        start: u32,
        /// token ids, BOS first
        tokens: Vec<u32>,
    }
}

table! {
    /// a prompt of a task
    PromptRow = "prompts", version 1, whole {
        /// the task's name
        task: String,
        /// its number within the task
        prompt: u32,
        /// prompts of one template have their parts at the same positions
        template: String,
        /// the text without BOS
        text: String,
        /// token ids, BOS first
        tokens: Vec<u32>,
        /// the right answer's token
        correct: u32,
        /// the wrong answer's token
        counter: u32,
        /// token ids of the corrupted prompt, BOS first
        corrupted: Vec<u32>,
        /// logit of the right answer less that of the wrong one, in the clean run
        logit_difference: f64,
        /// the task's metric in the clean run
        metric: f64,
        /// the model's first choices, best first
        answers: Vec<u32>,
        /// their probabilities
        answer_probabilities: Vec<f32>,
        /// share of the root's effect that the circuit's links to it cover; 0 where it has no
        /// circuit
        coverage: f64,
        /// share of the influence (of features, errors and embeddings) that is not in the circuit;
        /// null where its method does not tell
        left_out: Option<f64>,
        /// whether the model is right: the task's metric is above 0
        right: bool,
        /// whether it has a circuit and counts; by `tasks.wrong` a prompt that is not right may be
        /// left out
        used: bool,
    }
}

table! {
    /// a node of one prompt's circuit
    NodeRow = "nodes", version 1, whole {
        /// the task's name
        task: String,
        /// the prompt's number
        prompt: u32,
        /// its number in the circuit, in node order
        node: u32,
        /// `root`, `attention_feature`, `mlp_feature`, `head`, `attention_error`, `mlp_error`,
        /// `attention_dictionary_bias`, `attention_bias`, `mlp_dictionary_bias`, `embedding` or
        /// `position_embedding`
        kind: NodeKind,
        /// its layer
        layer: Option<u32>,
        /// its position; a head's destination; the root's is the last
        position: u32,
        /// the position that a head reads
        source: Option<u32>,
        /// the head's number in its layer
        head: Option<u32>,
        /// the dictionary feature, or the one that a head serves; null for an error
        feature: Option<u32>,
        /// a dictionary feature's activation
        activation: Option<f32>,
    }
}

table! {
    /// a link of one prompt's circuit
    EdgeRow = "edges", version 1, whole {
        /// the task's name
        task: String,
        /// the prompt's number
        prompt: u32,
        /// the contributing node
        from: u32,
        /// the receiving node
        to: u32,
        /// where it enters a head: `q`, `k` or `v`; empty for other receivers
        slot: Slot,
        /// direct effect, scales and patterns frozen; of `gradient` what of the task's metric goes
        /// along it, in the metric's unit
        effect: f32,
        /// its size as a share of everything that enters the slot
        share: f32,
    }
}

table! {
    /// a component of a task's circuits
    ComponentRow = "components", version 1, whole {
        /// the task's name
        task: String,
        /// `L9H9` or `MLP3`
        component: Component,
        /// its layer
        layer: u32,
        /// the head's number, null for an MLP
        head: Option<u32>,
        /// fraction of the task's prompts (those that are used) whose circuit contains it
        frequency: f64,
        /// distinct features that serve there
        features: u32,
        /// how much more often it is in circuits of the right answer's logit than of the wrong
        /// one's; null where not looked for
        contrast: Option<f64>,
    }
}

table! {
    /// a feature that serves at a component in a task's circuits
    CircuitFeature = "circuit_features", version 1, whole {
        /// the task's name
        task: String,
        /// the component
        component: Component,
        /// the feature
        feature: FeatureId,
        /// prompts in which it serves there; 0 for a feature of the circuit that is too weak for
        /// any prompt's graph
        prompts: u32,
        /// summed share of the links that leave the nodes at which it serves there
        share: f64,
    }
}

table! {
    /// a feature in a task's ranking: by its score where the method is `gradient`, else by the
    /// prompts whose circuit has it
    RankingRow = "rankings", version 1, whole {
        /// the task's name
        task: String,
        /// `found`, or `null`: of the task with its answers exchanged in half of the prompts
        ranking: String,
        /// its place, from 1; features that oppose the answer are last
        rank: u32,
        /// the feature
        feature: FeatureId,
        /// the mean over prompts of what it adds to the task's metric, above 0 where it supports
        /// the answer; or prompts
        score: f64,
        /// whether it is in the task's circuit
        chosen: bool,
    }
}

table! {
    /// how much of a task's answer goes through a dictionary's features, and through what it misses
    HookScoreRow = "hook_scores", version 1, whole {
        /// the task's name
        task: String,
        /// the dictionary
        dictionary: DictionaryId,
        /// summed scores of its features above 0, the mean over prompts, in the metric's unit
        supporting: f64,
        /// summed scores below 0
        opposing: f64,
        /// the score of what it misses
        error: f64,
    }
}

table! {
    /// a measurement of how real a circuit is
    FaithfulnessRow = "faithfulness", version 3, whole {
        /// the task's name
        task: String,
        /// `component` or `feature`; `neuron` for the model's own; `link` for what is known of
        /// single links
        level: String,
        /// which circuit, such as `frequency >= 0.25`, `first 100` or `10% of all` by the ranking,
        /// or `chosen`; `by size` for areas over all of them
        variant: String,
        /// the prompts that it was measured on: `ABBA`, `BABA`; empty for all
        stratum: String,
        /// `found`, `random`, `published`; another method's name; `all`: every feature; `null`: of
        /// the task with half of its answers exchanged
        circuit: String,
        /// components, features or links in it
        size: u32,
        /// `m_full`, `m_empty`, `m_circuit`, `m_complement`, `faithfulness`, `fit`, `completeness`,
        /// `of_all`, `cpr` and `cmd` (areas under faithfulness, and between it and 1), `prompts`,
        /// `nodes`, `precision`, `recall`, `auc`, `correlation` or `rank_correlation`
        metric: String,
        /// what is put in the place of everything else: `mean`, `resample` or `zero`; empty where
        /// nothing is
        ablation: String,
        /// the dictionaries' errors: `kept` or `ablated`; empty where dictionaries play no part
        errors: String,
        /// null where the interval of a denominator contains 0
        value: Option<f64>,
        /// lower end of the bootstrap's 95 % interval over prompts; for `random` the smallest of
        /// the draws
        low: Option<f64>,
        /// upper end; for `random` the largest of the draws
        high: Option<f64>,
    }
}

table! {
    /// a prompt in one run of the model with everything on one side of a circuit ablated
    CircuitRunRow = "circuit_runs", version 1, sharded {
        /// the task's name
        task: String,
        /// `component`, `feature` or `neuron`
        level: String,
        /// what is put in the place of what is ablated: `mean`, `resample` or `zero`
        ablation: String,
        /// the dictionaries' errors: `kept` or `ablated`; empty where dictionaries play no part
        errors: String,
        /// what is kept: `inside`, the circuit; `outside`, everything else
        side: String,
        /// parts in the circuit
        size: u32,
        /// the circuit, a hash of its parts' ids
        circuit: String,
        /// prompts that were run
        prompts: u32,
        /// the prompt's place among them
        prompt: u32,
        /// the metric
        value: f64,
    }
}

table! {
    /// a strong link of a prompt's circuit, and what it does in the live model
    EffectRow = "effects", version 1, whole {
        /// the task's name
        task: String,
        /// the link's place among the task's strongest, from 0
        rank: u32,
        /// the prompt
        prompt: u32,
        /// the contributing node, a feature
        from: u32,
        /// the receiving node
        to: u32,
        /// where it enters a head: `q`, `k` or `v`; empty for other receivers
        slot: Slot,
        /// the contributing feature
        feature: FeatureId,
        /// what receives: a feature, `L2H4 for att2.7`, `L2H4 for an error`, `error of att3` or
        /// `root`
        receiver: String,
        /// prompts whose circuit has the link, at any position
        prompts: u32,
        /// the feature's activation in the clean run
        activation: f32,
        /// what it is set to: its mean over the corrupted prompts
        mean: f32,
        /// the direct effect in the clean run
        effect: f32,
        /// change of what the receiver reads, by the direct effect
        predicted: f32,
        /// the same, measured in the live model
        measured: f32,
        /// Σ|effect| over everything that enters the receiver's slot, in the same unit
        total: f32,
        /// change of the root in the live model
        root: f32,
    }
}

table! {
    /// the model, held against what it has to beat; losses are in nats per token
    ModelCheckRow = "model_check", version 1, whole {
        /// tokens measured on
        tokens: u64,
        /// the model's loss
        loss: f64,
        /// entropy of its predictions: the loss that it expects
        entropy: f64,
        /// loss of the frequencies of tokens, counted in other documents
        unigram: f64,
        /// loss of the frequencies of pairs of tokens, counted in other documents
        bigram: f64,
        /// its loss with every head looking at all tokens up to its own alike
        uniform: f64,
        /// its loss on random tokens; null where they do not fit
        random: Option<f64>,
        /// its loss on the same tokens again, behind them
        repeated: Option<f64>,
        /// the other reading of its files with the lowest loss, such as `n_head 12`
        reading: String,
        /// that loss over its own, on 256 tokens, of a context its first 128; null where there is no
        /// other reading
        reading_share: Option<f64>,
        /// what looks wrong
        warnings: Vec<String>,
    }
}

table! {
    /// a dictionary, and how well it describes the model on the corpus
    ConformanceRow = "conformance", version 3, whole {
        /// `att3` or `mlp3`
        dictionary: DictionaryId,
        /// its layer
        layer: u32,
        /// `attention` or `mlp`
        kind: Kind,
        /// its features
        width: u32,
        /// mean number of active features a token
        l0: f64,
        /// 1 − fraction of variance unexplained of what it reconstructs
        variance_explained: f64,
        /// features never active on the sample
        dead: f64,
        /// share of the loss recovered by its reconstruction, against zero; null where zero does
        /// not hurt
        loss_recovered: Option<f64>,
        /// lower end of its 95 % interval over contexts; null of one context, or where zero may not
        /// hurt
        loss_recovered_low: Option<f64>,
        /// upper end
        loss_recovered_high: Option<f64>,
        /// tokens whose prediction the losses are of
        loss_tokens: u64,
        /// contexts that they are in
        loss_contexts: u64,
        /// tokens that all else is measured on
        tokens: u64,
        /// what is doubtful about it, in words; empty where nothing is
        warnings: Vec<String>,
    }
}

/// The raw activations that the circuit's dictionaries read: `context`, `position` and one binary
/// column a hook (little-endian f32 or f16). Its columns depend on the run; see
/// [`super::activations`].
pub const ACTIVATIONS: Artifact = Artifact {
    name: "activations",
    version: 1,
    sharded: true,
    row: "a token of a context",
    columns: &[],
};

table! {
    /// an activation above zero
    ScoreRow = "scores", version 1, sharded {
        /// the feature's key in `features`
        feature: u32,
        /// the context
        context: u32,
        /// the position in it, BOS at 0
        position: u16,
        /// the activation
        activation: f32,
    }
}

/// What `show` has measured of features that were not scored: the activations of each on a sample of
/// the contexts. A part is of one feature, by its number among those of all dictionaries; `feature`
/// is 0.
pub const ASKED_SCORES: Artifact = Artifact {
    name: "asked_scores",
    version: 1,
    row: "an activation above zero of a feature that `show` was asked about and the run did not \
          score",
    ..ScoreRow::ARTIFACT
};

table! {
    /// a scored feature
    FeatureRow = "features", version 2, whole {
        /// its number in `scores`
        key: u32,
        /// `att9.16109`
        feature: FeatureId,
        /// whether it has a page, as it is in a circuit or the settings name it: of the others there
        /// are examples and promoted tokens, but nothing else
        page: bool,
        /// `attention` or `mlp`
        kind: Kind,
        /// its layer
        layer: u32,
        /// its number in the dictionary
        index: u32,
        /// tokens that count at which it is active
        active: u64,
        /// that as a share of all tokens that count
        density: f64,
        /// mean over the tokens at which it is active; null if there are none
        mean_active: Option<f64>,
        /// largest activation
        max: f32,
        /// special tokens at which it is active; they are in no other number
        special_active: u64,
        /// 50 equal bins on (0, max]
        histogram: Vec<u64>,
        /// the tasks in whose circuits it is
        tasks: Vec<String>,
        /// the components at which it serves
        components: Vec<Component>,
        /// tokens with the largest shares of its summed activation
        mass_tokens: Vec<u32>,
        /// those shares
        mass_shares: Vec<f64>,
        /// the same two on the *explain* half alone, which explanations may see
        explain_tokens: Vec<u32>,
        /// those shares
        explain_shares: Vec<f64>,
        /// `density` on the *explain* half alone
        explain_density: f64,
    }
}

table! {
    /// an example: a window of a context around the peak of a feature, or of a component's features
    ExampleRow = "examples", version 2, whole {
        /// the feature, component, pair or group
        subject: Subject,
        /// the half that the document is in
        half: Half,
        /// `top`, `q0` … `q9` (tenths of the active contexts by strength) or `inactive`
        band: Band,
        /// its place in the band
        rank: u32,
        /// the context
        context: u32,
        /// the document
        document: u32,
        /// position of the peak in the context
        peak: u16,
        /// the context's activation: the largest over tokens that count
        value: f32,
        /// the window's token ids
        tokens: Vec<u32>,
        /// activations at them, 0 at special tokens
        activations: Vec<f32>,
        /// position of the window's first token in the context
        start: u16,
        /// tokens of the whole context
        length: u16,
        /// positions of the whole context at which it is active, special tokens left out
        active: Vec<u32>,
        /// the activations there
        active_values: Vec<f32>,
    }
}

table! {
    /// an example that explanations are written from; texts that differ in little are there once
    EvidenceRow = "evidence", version 2, whole {
        /// the feature
        feature: FeatureId,
        /// `strongest`; `weaker`, of all strengths below; `active` and `inactive`, of which
        /// those of one rank have the same token and contexts as like as there are
        role: Shown,
        /// its place in the role
        rank: u32,
        /// the context
        context: u32,
        /// the document
        document: u32,
        /// position in the context of the peak, or of the token at which it is inactive
        peak: u16,
        /// the activation there
        value: f32,
        /// the window's token ids
        tokens: Vec<u32>,
        /// activations at them, 0 at special tokens
        activations: Vec<f32>,
        /// position of the window's first token in the context
        start: u16,
        /// tokens of the whole context
        length: u16,
    }
}

table! {
    /// where a feature is active, over the *explain* half: tokens of a kind, and how often it is
    /// active at them
    ProfileRow = "profiles", version 1, whole {
        /// the feature
        feature: FeatureId,
        /// `token`, `previous` (the token before), `next` (the token after), `text` or `sentence`
        /// (position in it)
        by: Profiled,
        /// its place: tokens by the sum of activation, positions in their order
        rank: u32,
        /// the token's id; null for positions
        token: Option<u32>,
        /// the first position of a bin, counted from 1; null for tokens
        from: Option<u32>,
        /// tokens of the half that are of the kind
        tokens: u64,
        /// of them, those at which the feature is active
        active: u64,
        /// mean activation at these
        mean: f64,
    }
}

table! {
    /// a token before a feature's own tokens with which it is more, or less, often strongly active
    /// at them, over the *explain* half
    BeforeRow = "before", version 1, whole {
        /// the feature
        feature: FeatureId,
        /// `more`: with it the feature is more often active; `less`: less often; `deciding`: at the
        /// distance that tells most, all tokens, then those at the next one, where the first
        /// does not decide by itself
        set: Beside,
        /// its place, the surest first
        rank: u32,
        /// the token's id
        token: u32,
        /// how many tokens before it stands; null: anywhere in the 60 tokens before
        distance: Option<u32>,
        /// occurrences of the feature's tokens with it
        tokens: u64,
        /// of them, those at which the feature is strongly active
        active: u64,
        /// all occurrences that were looked at: of tokens that do not decide by themselves, drawn
        all_tokens: u64,
        /// of them, those at which the feature is strongly active
        all_active: u64,
    }
}

table! {
    /// what brings a feature's activation at the peak of an example: the largest direct effects that
    /// raise it
    CauseRow = "causes", version 1, whole {
        /// the feature
        feature: FeatureId,
        /// the context
        context: u32,
        /// position of the peak in the context
        peak: u16,
        /// its place, the largest first
        rank: u32,
        /// as in `nodes`: of an attention feature always `head`
        kind: NodeKind,
        /// the position that it is at; of a head the one that it reads
        position: u32,
        /// the token's id there
        token: u32,
        /// the head's number in its layer; null for others
        head: Option<u32>,
        /// its layer; null for embeddings
        layer: Option<u32>,
        /// the feature that it is; empty if it is none
        other: Option<FeatureId>,
        /// of an attention feature: the position that brings most of it
        through: Option<u32>,
        /// the token's id there
        through_token: Option<u32>,
        /// units of activation
        effect: f32,
        /// its size as a share of everything that the feature reads there
        share: f32,
    }
}

table! {
    /// what a feature reads by its weights alone: tokens by their embeddings, other scored features
    /// of earlier sublayers by what they write
    ReadingRow = "readings", version 1, whole {
        /// the feature
        feature: FeatureId,
        /// its place, tokens first, the largest first
        rank: u32,
        /// the token's id; null for features
        token: Option<u32>,
        /// the feature that is read; empty for tokens
        other: Option<FeatureId>,
        /// standard deviations above the mean of all tokens, or of random directions
        z: f64,
    }
}

table! {
    /// a feature that writes like another one, among all that have a page
    SimilarRow = "similar", version 1, whole {
        /// the feature
        feature: FeatureId,
        /// its place, the most similar first
        rank: u32,
        /// the other feature, of any layer and kind
        other: FeatureId,
        /// cosine of the two write vectors (§3), above 0
        cosine: f64,
        /// the cosine in standard deviations of that of random directions, 1/√D
        z: f64,
    }
}

table! {
    /// a token that the live model says more or less of without a feature
    AblatedRow = "ablated", version 1, whole {
        /// the feature
        feature: FeatureId,
        /// `top`: it was raised by the feature; `bottom`: lowered
        side: Side,
        /// its place
        rank: u32,
        /// the token's id
        token: u32,
        /// by how much its logit is higher with the feature than without, mean over the strongest
        /// examples
        change: f32,
        /// standard deviations of the change over all tokens
        z: f64,
        /// examples
        places: u32,
    }
}

table! {
    /// a token that a feature, component, pair or group promotes or suppresses
    LogitRow = "logits", version 2, whole {
        /// the feature, component, pair or group
        subject: Subject,
        /// `top` or `bottom`
        side: Side,
        /// its place
        rank: u32,
        /// the token's id
        token: u32,
        /// its text
        text: String,
        /// logits per unit of activation
        logit: f32,
        /// logits at `logits.strength` units
        at_strength: f32,
        /// standard deviations above the logit at the same place of random directions as long
        z: f64,
    }
}

/// What these features promote, as [`ASKED_SCORES`] in parts.
pub const ASKED_LOGITS: Artifact = Artifact {
    name: "asked_logits",
    version: 1,
    sharded: true,
    row: "a token that a feature promotes or suppresses that `show` was asked about and the run \
          did not score",
    ..LogitRow::ARTIFACT
};

/// What `show` keeps.
pub const ASKED: [Artifact; 2] = [ASKED_SCORES, ASKED_LOGITS];

table! {
    /// a pair of features that serve in the same circuits
    CircuitPairRow = "pairs_circuit", version 1, whole {
        /// the task's name
        task: String,
        /// where the first serves
        component_a: Component,
        /// where the second serves
        component_b: Component,
        /// the first
        feature_a: FeatureId,
        /// the second
        feature_b: FeatureId,
        /// prompts in which both do
        prompts: u32,
        /// summed share of the direct links between them
        share: f64,
    }
}

table! {
    /// a pair of features that meet in the corpus more often than by chance (q ≤ 0.01); for
    /// `window` the first comes before the second
    CorpusPairRow = "pairs_corpus", version 1, whole {
        /// the first
        feature_a: FeatureId,
        /// the second
        feature_b: FeatureId,
        /// `same` token, or the first within the `window` of tokens before the second
        lag: Lag,
        /// tokens with the first (for `window`: with the first in the window before)
        n_a: u64,
        /// tokens with the second
        n_b: u64,
        /// tokens with both
        n_ab: u64,
        /// what independence would give
        expected: f64,
        /// observed over expected
        lift: f64,
        /// normalised pointwise mutual information
        npmi: f64,
        /// tokens with both over tokens with either
        jaccard: f64,
        /// correlation of the indicators; null where one never changes
        phi: Option<f64>,
        /// one-sided Fisher exact test: meeting this often or more
        p: f64,
        /// Benjamini–Hochberg over all pairs tested at this lag, also those that are not listed
        q: f64,
    }
}

table! {
    /// a component's features taken together, over all tasks
    ClusterRow = "component_clusters", version 1, whole {
        /// the component
        component: Component,
        /// distinct features that serve there
        features: u32,
        /// its features, most often serving first
        members: Vec<FeatureId>,
        /// in how many prompts each serves there
        weights: Vec<u32>,
    }
}

table! {
    /// an explanation: of everything one from the statistics, and those of a language model besides
    ExplanationRow = "explanations", version 4, whole {
        /// the feature, component, pair or group
        subject: Subject,
        /// `feature`, `component`, `pair` or `group`
        kind: SubjectKind,
        /// `statistics`, or the prompt that a language model was given
        explainer: String,
        /// which of `llm.samples` independent ones, from 0
        sample: u32,
        /// the language model; empty without one
        model: String,
        /// `ok`, `failed` (a reply that cannot be read, a question that is not taken), `refused`,
        /// or `left`: to be asked again
        status: Status,
        /// what makes it active; of a feature its peak
        input_side: String,
        /// of a feature: where it is active, but little; may be empty
        weakly: String,
        /// of an attention feature: where it reads from; may be empty
        reads_from: String,
        /// of a feature with texts of several causes: a sentence for each cause; else empty
        clauses: Vec<String>,
        /// the cause of each clause, in words
        causes: Vec<String>,
        /// of a feature: `high`, `medium` or `low`; else empty
        input_confidence: String,
        /// the same of what it promotes
        output_confidence: String,
        /// what it promotes
        output_side: String,
        /// both in one
        text: String,
        /// of a head: how what it looks for and what it finds match; else empty
        matching: String,
        /// of a head: what it carries from there; else empty
        carried: String,
        /// tokens that the output side claims to be promoted
        claims: Vec<String>,
        /// why it failed
        reason: String,
        /// hash of what was asked; empty without a language model
        prompt_hash: String,
    }
}

table! {
    /// what was asked of a language model for an explanation, and what it replied; a repair is a
    /// row of its own
    ExchangeRow = "exchanges", version 1, whole {
        /// hash of what was asked
        prompt_hash: String,
        /// for which subject
        subject: Subject,
        /// `explain` or `repair`
        purpose: String,
        /// the language model
        model: String,
        /// what the server called the model that answered; empty if it did not say
        served: String,
        /// who speaks in each message: `system`, `user` or `assistant`
        roles: Vec<String>,
        /// what they say
        messages: Vec<String>,
        /// the reply as it came; empty if there is none
        reply: String,
        /// `ok`, `failed` or `refused`
        status: Status,
    }
}

table! {
    /// how good an explanation is on documents that it has not seen
    EvaluationRow = "evaluations", version 4, whole {
        /// the feature
        subject: FeatureId,
        /// whose explanation; `single-token rule` for the rule itself, `weights` for the tokens in
        /// `readings` as a rule
        explainer: String,
        /// `single-token`, `detection`, `fuzzing`, `embedding` or `intruder`
        method: String,
        /// the language model that judged, or that embedded; empty for the rule
        judge: String,
        /// which clause of the explanation was judged alone, from 0; null: its whole input side
        clause: Option<u32>,
        /// texts it was tried on; of `intruder` questions
        examples: u32,
        /// balanced accuracy: mean of the hit rates on active and on inactive texts; of `embedding`
        /// the ROC area, of `intruder` the share of questions that were answered rightly; null where
        /// there are no texts of one kind
        score: Option<f64>,
        /// lower end of its 95 % interval
        low: Option<f64>,
        /// upper end
        high: Option<f64>,
        /// the same for another feature's explanation, or rule; of `intruder` that of guessing
        null: Option<f64>,
        /// that other feature; empty if there is none
        null_subject: Option<FeatureId>,
        /// the same for the feature's single-token rule, on the same texts
        rule: Option<f64>,
        /// `score` where a text counts as active with any activation; null where no text is below
        /// `evaluate.threshold`
        any: Option<f64>,
        /// of `detection`: share of the inactive texts with the feature's own token that are told
        /// as inactive; null where there are none
        right_token: Option<f64>,
        /// the same of texts of similar features
        right_similar: Option<f64>,
        /// the same of other inactive texts
        right_inactive: Option<f64>,
    }
}

table! {
    /// a judge's verdict on one text
    JudgementRow = "judgements", version 3, whole {
        /// the feature
        subject: FeatureId,
        /// `detection`, `fuzzing`, `embedding` or `intruder`
        method: String,
        /// the language model that judged, or that embedded
        judge: String,
        /// the feature whose explanation it was given: the subject, or another one
        explained: FeatureId,
        /// which of its explanations, from 0
        sample: u32,
        /// which clause of it alone, from 0; null: its whole input side
        clause: Option<u32>,
        /// the text's number among those of the feature, method and clause; of `intruder` those of
        /// a question follow each other
        text: u32,
        /// `top`, `q0` … `q9`; inactive: `inactive`, `token` (holds the feature's own token),
        /// `similar` (another feature's text)
        band: Band,
        /// the context
        context: u32,
        /// position of the text's first token in the context
        start: u16,
        /// tokens of the text
        tokens: u32,
        /// of `fuzzing` and `intruder`: positions that are marked
        marked: Vec<u32>,
        /// the largest activation in it
        activation: f32,
        /// whether the feature is active in it, at or above `evaluate.threshold`; or the marks are
        /// right; or it is the intruder
        truth: bool,
        /// what the judge said; null where it said nothing that can be read, and of `embedding`
        said: Option<bool>,
        /// of `embedding`: cosine of the text's embedding and the explanation's
        similarity: Option<f32>,
        /// hash of what was asked
        prompt_hash: String,
    }
}

table! {
    /// how far independent explanations of a feature agree, or two judges of one explanation
    AgreementRow = "agreements", version 1, whole {
        /// the feature
        subject: FeatureId,
        /// `samples` or `judges`
        between: String,
        /// `words` (shared content words, Jaccard) or the method whose verdicts are compared
        /// (Cohen's kappa)
        of: String,
        /// pairs of explanations, or texts that both judged
        compared: u32,
        /// mean over pairs; null where there is nothing to compare
        value: Option<f64>,
    }
}

table! {
    /// what the model says more of when a feature is added to its residual stream
    CausalRow = "causal", version 1, whole {
        /// the feature
        subject: FeatureId,
        /// positions of the *score* half at which it was added
        positions: u32,
        /// units of activation added
        strength: f32,
        /// chance that a promoted token rises more than another one; 0.5 is none; null where there
        /// is none of either
        promoted: Option<f64>,
        /// lower end of its 95 % interval over positions
        low: Option<f64>,
        /// upper end
        high: Option<f64>,
        /// the same for another feature's promoted tokens
        promoted_null: Option<f64>,
        /// the same for the tokens that the explanation claims; null where it claims none that the
        /// model has
        claimed: Option<f64>,
        /// lower end of its 95 % interval over positions
        claimed_low: Option<f64>,
        /// upper end
        claimed_high: Option<f64>,
        /// the same for another feature's claims
        claimed_null: Option<f64>,
        /// claims that are a token of the model
        claims: u32,
        /// the tokens that rise most, on average over positions
        risen: Vec<u32>,
        /// by how many logits, the mean over the vocabulary taken away
        rise: Vec<f32>,
    }
}

table! {
    /// a question to a language model, asked for an explanation
    LedgerRow = "ledger", version 2, whole {
        /// hash of what was asked
        prompt_hash: String,
        /// for which subject
        subject: Subject,
        /// for what: `explain`, `repair`
        purpose: String,
        /// the language model
        model: String,
        /// tokens asked
        prompt_tokens: u32,
        /// tokens answered
        completion_tokens: u32,
        /// by the price table of the settings, of all tries: one of which nothing could be read
        /// counts with the most that it may cost; 0 where the model has no price
        cost: f64,
        /// how long it took, of all tries
        seconds: f64,
        /// tries
        attempts: u32,
        /// `ok`, `failed`, `refused`, or `left`: no reply was to be had
        status: Status,
    }
}

/// The ledger of judges: the same columns, of questions that judge explanations (`detection`,
/// `fuzzing`, `embedding`, `intruder`, `repair`).
pub const JUDGE_LEDGER: Artifact = Artifact {
    name: "judge_ledger",
    version: 1,
    row: "a question to a language model, asked to judge explanations",
    ..LedgerRow::ARTIFACT
};

table! {
    /// an explanation that somebody else wrote, as `import explanations` took it
    ImportedRow = "imported", version 1, whole {
        /// the feature
        feature: FeatureId,
        /// who wrote it: `Neuronpedia: ` and the model, or the author
        explainer: String,
        /// the language model that wrote it, as the file names it; empty where it names none
        model: String,
        /// how it was written, as the file says
        method: String,
        /// what the feature is called there: model, layer and number
        source: String,
        /// the file that it came from
        file: String,
        /// what it says
        text: String,
    }
}

// ---- heads

table! {
    /// what a head does over a task's prompts, for each head of its circuits
    HeadRow = "heads", version 1, whole {
        /// the task's name
        task: String,
        /// the head
        component: Component,
        /// prompts looked at
        prompts: u32,
        /// mean share of a token's attention that goes to BOS; here and below BOS itself is no
        /// token
        to_bos: Option<f64>,
        /// to itself
        to_itself: Option<f64>,
        /// to the token before, over tokens with another than BOS before them
        to_previous: Option<f64>,
        /// to earlier places of the same token, over tokens that have one; null where none has
        to_same: Option<f64>,
        /// to the tokens behind those places, over the same tokens
        to_after_same: Option<f64>,
        /// from the last token to the right answer, over prompts that hold it; null where none does
        to_correct: Option<f64>,
        /// from the last token to the wrong answer, likewise
        to_counter: Option<f64>,
        /// what it adds at the last token to the logit of the right answer over the wrong one, the
        /// final scale held
        direct_effect: Option<f64>,
        /// distinct tokens of the prompts, BOS apart
        tokens: u32,
        /// share of its attention to these that is on tokens among the five that reading them
        /// raises most
        copy_score: Option<f64>,
        /// the same among the five that reading them lowers most
        lower_score: Option<f64>,
        /// mean rank of a token among those that reading it raises, from 1, weighted by attention
        own_rank: Option<f64>,
        /// `copy_score` over tokens that are a right or wrong answer of a prompt; null where it
        /// looks at none
        answers_copy_score: Option<f64>,
        /// `lower_score` over the same
        answers_lower_score: Option<f64>,
    }
}

table! {
    /// a head's mean attention over a task's prompts of a template (the twelve largest; of prompts
    /// of up to 64 tokens)
    AttentionRow = "attention", version 1, whole {
        /// the task's name
        task: String,
        /// the head
        component: Component,
        /// the template
        template: String,
        /// its first prompt
        prompt: u32,
        /// its prompts
        prompts: u32,
        /// attention, a destination a row and as many of them as the prompt has tokens
        pattern: Vec<f32>,
    }
}

table! {
    /// what a head writes when it reads a token: the twenty that it looks at most in a task's
    /// prompts, and the ten answers
    CopyRow = "copies", version 1, whole {
        /// the task's name
        task: String,
        /// the head
        component: Component,
        /// the token's place by the attention that it received
        rank: u32,
        /// the token's id
        token: u32,
        /// whether it is a right or a wrong answer of a prompt
        answer: bool,
        /// places at which it stands
        places: u32,
        /// attention that it received, summed over all tokens at and after it
        mass: f64,
        /// the ten tokens that reading it raises most: its mean value there through the head's
        /// output and the unembedding
        top: Vec<u32>,
        /// their logits, for a full unit of attention at a scale of 1
        logits: Vec<f32>,
        /// its own rank among all tokens, from the most raised one, from 1
        own_rank: u32,
        /// the same from the most lowered one
        own_rank_below: u32,
        /// its own logit
        own_logit: f32,
    }
}

table! {
    /// a feature by its share of decoder norm in a head: those that serve there, and the twenty
    /// with most
    HeadFeatureRow = "head_features", version 1, whole {
        /// the head
        component: Component,
        /// the feature
        feature: FeatureId,
        /// norm of its decoder in the head, as a share of the sum of its norms over the layer's
        /// heads
        share: f32,
        /// its place by that among all features of the dictionary, from 1
        rank: u32,
    }
}

table! {
    /// a component of the circuit that others published for a task
    PublishedRow = "published", version 1, whole {
        /// the task's name
        task: String,
        /// where it is from
        source: String,
        /// what it is there, such as `name mover`
        class: String,
        /// the component
        component: Component,
    }
}
