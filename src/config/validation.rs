//! What settings may be. A typo costs a second, not a night.

use super::Config;
use super::secrets::looks_like_key;
use super::sections::*;
use crate::error::{Hint, Result, hinted};
use crate::ids::{FeatureId, HubName, Kind};
use std::collections::BTreeSet;

impl Config {
    /// Refuses values that a setting may not have, and settings that contradict each other.
    ///
    /// # Errors
    /// With the key and what it may be.
    pub(super) fn check(&self) -> Result<()> {
        self.check_sources()?;
        self.check_tasks()?;
        self.check_features()?;
        let discover = &self.discover;
        within("discover.passes", discover.passes, 1, 1000)?;
        within("discover.per_node", discover.per_node, 1, 1000)?;
        within("discover.candidates", discover.candidates, 1, 100_000)?;
        if !(discover.coverage > 0.0 && discover.coverage <= 1.0) {
            out_of_range("discover.coverage", discover.coverage, "above 0 and at most 1")?;
        }
        within("discover.nodes", discover.nodes, 1, 10_000)?;
        within("discover.prompts", discover.prompts, 1, 100_000)?;
        within("discover.points", discover.points, 1, 1000)?;
        within("discover.choose", discover.choose, 0, 100_000)?;
        within("discover.most", discover.most, 1, 1_000_000)?;
        if !(discover.faithful > 0.0 && discover.faithful <= 1.0) {
            out_of_range("discover.faithful", discover.faithful, "above 0 and at most 1")?;
        }
        if !(discover.share >= 0.0 && discover.share < 1.0) {
            out_of_range("discover.share", discover.share, "at least 0 and below 1")?;
        }
        if !matches!(
            discover.method,
            DiscoveryMethod::Gradient | DiscoveryMethod::Greedy | DiscoveryMethod::Influence
        ) {
            let word = discover.method.word();
            out_of_range(
                "discover.method",
                word,
                "`gradient`, `greedy` or `influence`; other methods find no links",
            )?;
        }
        self.check_verify()?;
        self.check_outputs()
    }

    fn check_verify(&self) -> Result<()> {
        if self.verify.ablations.is_empty() {
            out_of_range(
                "verify.ablations",
                "[]",
                "at least one of `mean`, `resample` and `zero`",
            )?;
        }
        within("verify.random", self.verify.random, 1, 1000)?;
        within("verify.prompts", self.verify.prompts, 0, 100_000)?;
        if !(0.0..1.0).contains(&self.verify.precision) {
            out_of_range("verify.precision", self.verify.precision, "from 0 to below 1")?;
        }
        within("verify.edges", self.verify.edges, 0, 10_000)
    }

    fn check_sources(&self) -> Result<()> {
        let sources = [
            ("model.path", &self.model.path),
            ("dictionaries.attention", &self.dictionaries.attention),
            ("dictionaries.mlp", &self.dictionaries.mlp),
            ("corpus.path", &self.corpus.path),
        ];
        for (key, path) in sources {
            if path.starts_with(HubName::PREFIX) {
                check_hub(key, path)?;
            }
            if path.is_empty() {
                out_of_range(key, "\"\"", "a path")?;
            }
        }
        for kind in [Kind::Attention, Kind::Mlp] {
            let odd = |name: &&String| {
                name.is_empty() || name.starts_with('.') || name.contains(['/', '\\'])
            };
            if let Some(name) = self.dictionaries.of(kind).1.iter().find(odd) {
                let key = format!("dictionaries.{}_files", kind.word());
                out_of_range(
                    &key,
                    format!("{name:?}"),
                    "names of files or folders, without their parent folder",
                )?;
            }
        }
        within("corpus.context", self.corpus.context, 2, 65_535)?;
        within("corpus.shard_contexts", self.corpus.shard_contexts, 1, 1_000_000)
    }

    fn check_tasks(&self) -> Result<()> {
        if self.tasks.is_empty() {
            return Err(hinted("no `[[tasks]]`", "add at least one, with `name` and `kind`"));
        }
        let mut seen = BTreeSet::new();
        for task in &self.tasks {
            check_name("tasks.name", &task.name, &mut seen)?;
            within("tasks.prompts", task.prompts.unwrap_or(1), 1, 100_000)?;
            match (&task.file, task.kind) {
                (None, TaskKind::Prompts) => {
                    return Err(hinted(
                        format!("task `{}` of kind `prompts` has no `file`", task.name),
                        "name a JSONL file with text, correct, counter, corrupted and template",
                    ));
                }
                (Some(_), TaskKind::Ioi | TaskKind::GreaterThan) => {
                    return Err(hinted(
                        format!(
                            "task `{}` has a `file`, but its kind generates prompts",
                            task.name
                        ),
                        "remove `file`, or set `kind = \"prompts\"`",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_features(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for group in &self.groups {
            check_name("groups.name", &group.name, &mut seen)?;
            within("groups.features (their number)", group.features.len(), 1, 1000)?;
            let mut members = BTreeSet::new();
            if let Some(twice) = group.features.iter().find(|name| !members.insert(*name)) {
                return Err(hinted(
                    format!("the group `{}` has `{twice}` twice", group.name),
                    "list each feature once",
                ));
            }
        }
        let extra = self.score.extra.iter().map(|name| ("score.extra", name));
        let grouped = self
            .groups
            .iter()
            .flat_map(|g| g.features.iter().map(|name| ("groups.features", name)));
        for (key, name) in extra.chain(grouped) {
            if let Err(error) = name.parse::<FeatureId>() {
                return Err(hinted(
                    format!("`{key}`: {error}"),
                    "write features as `att9.16109` or `mlp0.10173`",
                ));
            }
        }
        Ok(())
    }

    fn check_llm(&self) -> Result<()> {
        let (llm, evaluate) = (&self.llm, &self.evaluate);
        if !llm.asks() {
            return match evaluate.judges() {
                true => Err(hinted(
                    "`evaluate.methods` asks for more than `single-token`, but no language model is \
                     set to explain and judge",
                    "set `llm.provider` and `llm.model`, or use `methods = [\"single-token\"]`",
                )),
                false => Ok(()),
            };
        }
        if llm.model.is_empty() {
            out_of_range("llm.model", "\"\"", "the name of a model")?;
        }
        check_server(llm)?;
        check_variable("llm.api_key_env", &llm.api_key_env)?;
        check_address("evaluate.embedder_base_url", &evaluate.embedder_base_url)?;
        check_variable("evaluate.embedder_api_key_env", &evaluate.embedder_api_key_env)?;
        let embedder = self.embedder();
        if embedder.as_ref().is_some_and(|embedder| embedder.model.is_empty()) {
            return Err(hinted(
                "`evaluate.methods` asks for `embedding`, but `evaluate.embedder` is empty",
                "set `evaluate.embedder` to the name of a model that embeds, and \
                 `evaluate.embedder_base_url` if another server has it",
            ));
        }
        if !(0.0..=2.0).contains(&llm.temperature) {
            out_of_range("llm.temperature", llm.temperature, "from 0 to 2")?;
        }
        within("llm.max_tokens", llm.max_tokens as usize, 1, 1_000_000)?;
        within("llm.max_tokens_limit", llm.max_tokens_limit as usize, 0, 1_000_000)?;
        within("llm.max_reply", llm.max_reply, 1024, 1 << 30)?;
        within("llm.samples", llm.samples as usize, 1, 100)?;
        if llm.samples > 1 && llm.temperature == 0.0 {
            return Err(hinted(
                format!(
                    "`llm.samples = {}` with `llm.temperature = 0` gives the same reply each time",
                    llm.samples
                ),
                "set `llm.temperature` above 0, or `samples = 1`",
            ));
        }
        within("llm.concurrency", llm.concurrency, 1, 1000)?;
        within("llm.retries", llm.retries as usize, 0, 100)?;
        if !(llm.timeout > 0.0 && llm.timeout <= 86_400.0) {
            out_of_range("llm.timeout", llm.timeout, "above 0 and at most 86400 seconds")?;
        }
        self.check_prices()
    }

    fn check_prices(&self) -> Result<()> {
        let llm = &self.llm;
        let odd = |price: &f64| !(price.is_finite() && *price >= 0.0);
        if let Some((model, _)) = llm.prices.iter().find(|(_, price)| price.iter().any(odd)) {
            out_of_range(
                &format!("llm.prices.{model:?}"),
                "…",
                "two prices of at least 0: per million prompt tokens and per million completion \
                 tokens",
            )?;
        }
        if odd(&llm.max_cost) {
            out_of_range("llm.max_cost", llm.max_cost, "0 or more")?;
        }
        let (mut models, embedder) = (self.models(), self.embedder());
        models.extend(embedder.as_ref().map(|embedder| embedder.model.as_str()));
        match models.iter().find(|model| llm.max_cost > 0.0 && !llm.prices.contains_key(**model)) {
            None => Ok(()),
            Some(model) => Err(hinted(
                format!(
                    "`llm.max_cost = {}` cannot be enforced: `llm.prices` has no price for \
                     `{model}`",
                    llm.max_cost
                ),
                format!(
                    "add `\"{model}\" = [PROMPT_PRICE, COMPLETION_PRICE]`, per million tokens, to \
                     `[llm.prices]`"
                ),
            )),
        }
    }

    fn check_outputs(&self) -> Result<()> {
        if !(self.cache.max_gib > 0.0 && self.cache.max_gib.is_finite()) {
            out_of_range("cache.max_gib", self.cache.max_gib, "above 0")?;
        }
        within("aggregate.examples", self.aggregate.examples, 1, 1000)?;
        within("aggregate.band_examples", self.aggregate.band_examples, 0, 100)?;
        within("aggregate.window", self.aggregate.window, 1, 1000)?;
        within("logits.k", self.logits.k, 1, 1000)?;
        if !(self.logits.strength > 0.0 && self.logits.strength.is_finite()) {
            out_of_range("logits.strength", self.logits.strength, "above 0")?;
        }
        self.check_llm()?;
        within("evaluate.texts", self.evaluate.texts, 1, 1000)?;
        within("evaluate.batch", self.evaluate.batch, 1, 100)?;
        if !(0.0..1.0).contains(&self.evaluate.threshold) {
            out_of_range("evaluate.threshold", self.evaluate.threshold, "from 0 to below 1")?;
        }
        within("evaluate.causal", self.evaluate.causal, 0, 1000)?;
        let publish = &self.publish;
        for (key, share) in [
            ("publish.most_failed", publish.most_failed),
            ("publish.most_lost", publish.most_lost),
            ("publish.least_variance_explained", publish.least_variance_explained),
        ] {
            if !(0.0..=1.0).contains(&share) {
                out_of_range(key, share, "from 0 to 1")?;
            }
        }
        for (key, least) in [
            ("publish.least_faithfulness", publish.least_faithfulness),
            ("publish.least_feature_faithfulness", publish.least_feature_faithfulness),
        ] {
            if !(0.0..=2.0).contains(&least) {
                out_of_range(key, least, "from 0 to 2")?;
            }
        }
        within("output.keep", self.output.keep, 0, 1000)?;
        if self.machine.device != "cpu" {
            not_yet("machine.device", &self.machine.device, "use `cpu`")?;
        }
        within("machine.threads", self.machine.threads, 0, 4096)?;
        within("machine.batch", self.machine.batch, 1, 65_536)?;
        if !(self.machine.memory > 0.0 && self.machine.memory.is_finite()) {
            out_of_range("machine.memory", self.machine.memory, "above 0")?;
        }
        self.check_slurm()
    }

    /// What is written into scripts: one option each, which the program does not write itself.
    fn check_slurm(&self) -> Result<()> {
        let slurm = &self.slurm;
        within("slurm.cpus", slurm.cpus, 0, 4096)?;
        within("slurm.shards", slurm.shards, 0, 100_000)?;
        within("slurm.retries", slurm.retries, 0, 100)?;
        let name = |c: char| c.is_ascii_alphanumeric() || "_-.,".contains(c);
        let time = |c: char| c.is_ascii_digit() || ":-".contains(c);
        let wanted = "a name of Slurm, or empty";
        let numbers = "a time such as `90` (minutes), `12:00:00` or `2-00:00:00`, or empty";
        for (key, value, wanted, fits) in [
            ("slurm.partition", &slurm.partition, wanted, value_of(&slurm.partition, name)),
            ("slurm.account", &slurm.account, wanted, value_of(&slurm.account, name)),
            ("slurm.time", &slurm.time, numbers, value_of(&slurm.time, time)),
            ("slurm.memory", &slurm.memory, "such as `16G`, or empty", is_memory(&slurm.memory)),
            ("slurm.logs", &slurm.logs, "a folder", !slurm.logs.is_empty()),
        ] {
            if !fits {
                out_of_range(key, format!("{value:?}"), wanted)?;
            }
        }
        const OWN: [&str; 4] = ["--array", "--dependency", "--parsable", "--wrap"];
        let odd = |option: &&String| {
            let name = option.split(['=', ' ']).next().unwrap_or_default();
            !option.starts_with("--") || option.contains(char::is_control) || OWN.contains(&name)
        };
        match slurm.options.iter().find(odd) {
            None => Ok(()),
            Some(option) => out_of_range(
                "slurm.options",
                format!("[{option:?}]"),
                "options such as `--qos=long`, one a text, and none of `--array`, `--dependency`, \
                 `--parsable` and `--wrap`",
            ),
        }
    }
}

/// The error of a value that a setting may not have.
fn out_of_range(key: &str, value: impl std::fmt::Display, wanted: &str) -> Result<()> {
    Err(hinted(format!("`{key} = {value}` is out of range"), format!("`{key}` must be {wanted}")))
}

fn within(key: &str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    out_of_range(key, value, &format!("from {low} to {high}"))
}

/// A text of such characters, or empty; none that could be taken for an option.
fn value_of(value: &str, fits: impl Fn(char) -> bool) -> bool {
    value.chars().all(fits) && !value.starts_with('-')
}

/// A number with a unit of Slurm, or empty.
fn is_memory(value: &str) -> bool {
    let number = value.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or(value);
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    value.is_empty() || is_number
}

/// The error of a setting that is known but not built yet.
fn not_yet(key: &str, value: &str, instead: &str) -> Result<()> {
    Err(hinted(
        format!("`{key} = \"{value}\"` is not supported by this version"),
        instead.to_string(),
    ))
}

/// # Errors
/// When a text that begins as a name of the hub is none, or does not name data where data is
/// wanted.
fn check_hub(key: &str, path: &str) -> Result<()> {
    let hint = "write `hf:REPO@REVISION`, where the revision is a commit, a tag or a branch: \
        `@main` is the newest commit of the \
         first run, which `atlas.lock` then pins";
    let name: HubName =
        path.parse().hint(|| format!("`{key} = \"{path}\"` cannot be downloaded"), hint)?;
    if key == "corpus.path" && !name.dataset {
        return Err(hinted(
            format!("`{key} = \"{path}\"` names a model, not a data set"),
            format!("write `hf:datasets/{}@{}`", name.repository, name.revision),
        ));
    }
    Ok(())
}

/// # Errors
/// When it is not the name of an environment variable.
fn check_variable(key: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let digit = |c: char| c.is_ascii_digit();
    if name.chars().all(plain) && !name.starts_with(digit) && !looks_like_key(name) {
        return Ok(());
    }
    // Whatever it is, it is not repeated.
    Err(hinted(
        format!("`{key}` is not the name of a variable"),
        "write a name such as `OPENAI_API_KEY` and put the key into that environment variable; \
         never write the key into a file",
    ))
}

/// # Errors
/// When the address of a server is none, or holds a password.
fn check_address(key: &str, url: &str) -> Result<()> {
    // First, so that no password is ever repeated.
    if url.contains(['@', '?', '#']) {
        let variable = key.replace("base_url", "api_key_env");
        return Err(hinted(
            format!("`{key}` holds a user, a password or a query"),
            format!(
                "write only the address; put the key into the variable that `{variable}` names"
            ),
        ));
    }
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    if !url.is_empty() && host.is_none_or(str::is_empty) {
        let wanted = "an address such as `https://api.openai.com/v1`, or empty";
        out_of_range(key, format!("{url:?}"), wanted)?;
    }
    Ok(())
}

/// # Errors
/// When the address of a language model's server is none, or holds a password; when Azure lacks
/// something.
fn check_server(llm: &Llm) -> Result<()> {
    let url = &llm.base_url;
    check_address("llm.base_url", url)?;
    if llm.provider == Provider::Azure && (url.is_empty() || llm.api_version.is_empty()) {
        return Err(hinted(
            "`llm.provider = \"azure\"` needs `llm.base_url` and `llm.api_version`",
            "write the endpoint, `https://NAME.openai.azure.com`, and a version such as \
             `2024-10-21`",
        ));
    }
    Ok(())
}

/// Names become file names and parts of URLs.
fn check_name(key: &str, name: &str, seen: &mut BTreeSet<String>) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name == "index" || name.len() > 64 || !name.chars().all(plain) {
        let wanted = "up to 64 lower-case letters, digits and `-`, as it becomes a file name; not \
                      `index`, which the list of all has";
        return out_of_range(key, format!("{name:?}"), wanted);
    }
    if !seen.insert(name.into()) {
        return Err(hinted(format!("`{key}` has `{name}` twice"), "give each its own name"));
    }
    Ok(())
}
