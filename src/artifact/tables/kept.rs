//! What stages keep until they are done, so that a killed run goes on from there and several
//! processes can share the work; removed when the stage has ended. And what `tokenize` keeps for the
//! next run.

use super::{
    BeforeRow, CircuitRunRow, EffectRow, EvidenceRow, ExampleRow, FeatureRow, LogitRow, ProfileRow,
    RankingRow,
};
use crate::artifact::row::{Row, table};
use crate::artifact::store::Artifact;
use crate::ids::{Component, FeatureId, NodeKind, Slot};

table! {
    /// a text of the corpus, or a part of a long one, as the tokenizer encoded it
    EncodedRow = "encoded", version 1, whole {
        /// 32 hex digits of BLAKE3 over the text, and over what is before it in its document
        text: String,
        /// documents that end with it
        documents: u32,
        /// its token ids; none where the document came as ids
        tokens: Vec<u32>,
    }
}

table! {
    /// a prompt that features are ranked on, as the model answers it, and the score of every
    /// feature there
    PromptScoreRow = "prompt_scores", version 1, sharded {
        /// the task's name
        task: String,
        /// its place among the prompts that features are ranked on
        prompt: u32,
        /// logit of the right answer less that of the wrong one
        logit_difference: f64,
        /// the task's metric
        metric: f64,
        /// the most probable next tokens
        answers: Vec<u32>,
        /// their probabilities
        answer_probabilities: Vec<f32>,
        /// whether it is scored
        used: bool,
        /// of each feature with a score, its dictionary's place: two a layer, attention first
        dictionaries: Vec<u32>,
        /// its number in the dictionary
        features: Vec<u32>,
        /// its score, the sum over positions
        scores: Vec<f64>,
        /// the score of each dictionary's error
        errors: Vec<f64>,
    }
}

table! {
    /// a prompt as the model answers it, and its circuit
    PromptCircuitRow = "prompt_circuits", version 1, sharded {
        /// the task's name
        task: String,
        /// its number within the task
        prompt: u32,
        /// logit of the right answer less that of the wrong one
        logit_difference: f64,
        /// the task's metric
        metric: f64,
        /// the most probable next tokens
        answers: Vec<u32>,
        /// their probabilities
        answer_probabilities: Vec<f32>,
        /// whether it has a circuit
        used: bool,
        /// 1 less the share of the influence that the circuit's nodes hold
        left_out: Option<f64>,
        /// of each node, its kind
        kinds: Vec<NodeKind>,
        /// its layer; here and below 4294967295 for none
        layers: Vec<u32>,
        /// its position
        positions: Vec<u32>,
        /// the position that a head reads
        sources: Vec<u32>,
        /// the number of a head
        heads: Vec<u32>,
        /// its feature
        indices: Vec<u32>,
        /// its activation; NaN for none
        activations: Vec<f32>,
        /// of each link, the place of the node that it leaves
        children: Vec<u32>,
        /// of the node that it enters
        parents: Vec<u32>,
        /// where it enters
        slots: Vec<Slot>,
        /// its effect
        effects: Vec<f32>,
        /// its share of all effects there
        shares: Vec<f32>,
        /// whether circuits of both answers' logits were looked for
        contrast: bool,
        /// components of the right answer's circuit
        right: Vec<Component>,
        /// components of the wrong answer's circuit
        wrong: Vec<Component>,
    }
}

/// Runs of circuits among which the size of a task's circuit is chosen.
pub const CHOICE_RUNS: Artifact = Artifact {
    name: "choice_runs",
    row: "a prompt in one run of the model with everything outside a circuit ablated, while the \
          circuit's size is chosen",
    ..CircuitRunRow::ARTIFACT
};

/// The features of a task by score, with those that are chosen: a part is of a task.
pub const CHOICES: Artifact = Artifact {
    name: "choices",
    sharded: true,
    row: "a feature of a task by its score over prompts, before the circuits of the prompts are \
          there",
    ..RankingRow::ARTIFACT
};

table! {
    /// what a method besides `discover.method` found of a task: one of its circuits, or a ranking
    MethodRow = "method_circuits", version 1, sharded {
        /// the task's name
        task: String,
        /// the method
        method: String,
        /// `nodes`: nodes of a prompt's circuit; `components` or `features`: a circuit; `ranked`:
        /// all that support the answer, the first first; `opposing`: those that oppose it, the
        /// strongest last
        what: String,
        /// what the circuit is called
        variant: String,
        /// its components
        components: Vec<Component>,
        /// its features, or the method's ranking; of the method `neurons`, columns of `z` and MLP
        /// units
        features: Vec<FeatureId>,
        /// the mean over prompts; null where prompts have none
        nodes: Option<f64>,
        /// milliseconds of one core that a prompt took
        cost: f64,
    }
}

/// Strong links that were run: a part is of a few prompts.
pub const TESTED_LINKS: Artifact =
    Artifact { name: "tested_links", sharded: true, ..EffectRow::ARTIFACT };

/// What shards of `aggregate` keep: a part is of 256 features, and in each of these.
pub const FEATURE_PARTS: [Artifact; 6] = [
    Artifact { name: "part_examples", sharded: true, ..ExampleRow::ARTIFACT },
    Artifact { name: "part_evidence", sharded: true, ..EvidenceRow::ARTIFACT },
    Artifact { name: "part_profiles", sharded: true, ..ProfileRow::ARTIFACT },
    Artifact { name: "part_before", sharded: true, ..BeforeRow::ARTIFACT },
    Artifact { name: "part_logits", sharded: true, ..LogitRow::ARTIFACT },
    Artifact { name: "part_features", sharded: true, ..FeatureRow::ARTIFACT },
];
