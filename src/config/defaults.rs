//! The values of settings that are not written.

use super::sections::*;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn text() -> String {
    "text".into()
}

pub(super) fn context() -> usize {
    128
}

pub(super) fn shuffle_seed() -> u64 {
    42
}

pub(super) fn shard_contexts() -> usize {
    1024
}

pub(super) fn seed() -> u64 {
    1
}

impl Default for Discover {
    fn default() -> Self {
        let allow = [
            "attention_feature",
            "mlp_feature",
            "head",
            "attention_error",
            "embedding",
            "position_embedding",
        ];
        Self {
            method: DiscoveryMethod::Gradient,
            prompts: 480,
            points: 3,
            choose: 384,
            prune: false,
            faithful: 0.9,
            most: 400,
            share: 0.001,
            root: RootKind::LogitDifference,
            passes: 5,
            per_node: 1,
            candidates: 10,
            coverage: 0.8,
            nodes: 400,
            allow: allow.map(String::from).into(),
            contrast: true,
        }
    }
}

impl Default for Verify {
    fn default() -> Self {
        use Ablation::*;
        Self {
            ablations: [Mean, Resample, Zero].into(),
            methods: BTreeSet::new(),
            random: 10,
            prompts: 192,
            precision: 0.05,
            edges: 50,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { store: StoreKind::Disk, dtype: Dtype::F32, max_gib: 20.0 }
    }
}

impl Default for Score {
    fn default() -> Self {
        Self { features: ScoreFeatures::Circuit, extra: Vec::new() }
    }
}

impl Default for Aggregate {
    fn default() -> Self {
        Self { examples: 15, band_examples: 3, window: 5 }
    }
}

impl Default for Logits {
    fn default() -> Self {
        Self { k: 20, strength: 4.0 }
    }
}

impl Default for Llm {
    fn default() -> Self {
        Self {
            provider: Provider::None,
            base_url: String::new(),
            model: String::new(),
            api_key_env: "OPENAI_API_KEY".into(),
            api_version: String::new(),
            deployment: String::new(),
            temperature: 0.0,
            max_tokens: 500,
            max_tokens_limit: 4000,
            features: Vec::new(),
            samples: 1,
            replies: ReplyFormat::Auto,
            concurrency: 8,
            timeout: 120.0,
            retries: 5,
            requests_per_minute: 0,
            tokens_per_minute: 0,
            max_cost: 0.0,
            max_calls: 0,
            max_reply: 1 << 16,
            prices: BTreeMap::new(),
        }
    }
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            methods: [ScoreMethod::SingleToken].into(),
            texts: 20,
            batch: 10,
            threshold: 0.25,
            judge: String::new(),
            embedder: String::new(),
            embedder_base_url: String::new(),
            embedder_api_key_env: String::new(),
            embedder_query: String::new(),
            embedder_passage: String::new(),
            second_judge: String::new(),
            causal: 10,
        }
    }
}

impl Default for Site {
    fn default() -> Self {
        Self {
            title: "circuit-atlas".into(),
            base_url: String::new(),
            data: true,
            data_max_mib: 100,
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self { threads: 0, device: "cpu".into(), batch: 32, memory: 2.0 }
    }
}

impl Default for Slurm {
    fn default() -> Self {
        Self {
            partition: String::new(),
            account: String::new(),
            time: String::new(),
            memory: String::new(),
            cpus: 0,
            shards: 0,
            retries: 2,
            logs: "slurm-logs".into(),
            options: Vec::new(),
        }
    }
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            least_faithfulness: 0.0,
            least_feature_faithfulness: 0.0,
            most_failed: 1.0,
            most_lost: 1.0,
            least_variance_explained: 0.0,
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self {
            artifacts: "artifacts".into(),
            site: "site".into(),
            dictionaries: String::new(),
            keep: 7,
        }
    }
}
