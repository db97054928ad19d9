//! Repositories of the Hugging Face hub as folders of this machine: `hf:REPO@REVISION` is resolved
//! to a commit once, pinned, and its files are downloaded when they are needed, into the cache that
//! all of Hugging Face's tools share.
//!
//! The only room that touches the network for files. `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and
//! `HF_HUB_OFFLINE` mean what they mean to those tools. Must not know stages, nor what is in a
//! file.

mod disk;
mod web;

use crate::config::{Config, Snapshot};
use crate::error::{Result, hinted};
use crate::ids::{HubName, Kind};
use crate::progress::{Progress, size};
use disk::{Disk, is_commit};
use hf_hub::Cache;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use web::{Asked, Web};

/// What each revision stands for, by `REPO@REVISION`.
pub(crate) type Pins = BTreeMap<String, String>;

const MODEL_FILES: [&str; 2] = ["config.json", "tokenizer.json"];
/// The first that is there.
const MODEL_WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// Says what the `layer_N.safetensors` of circuit-tracer are.
const TRACER_CONFIG: &str = "config.yaml";
/// Of a checkpoint in several files, which it names.
const MODEL_INDEX: &str = "model.safetensors.index.json";

/// The hub, as the environment describes it.
pub(crate) struct Hub {
    web: Web,
    cache: Cache,
    offline: bool,
}

/// What a repository is used as.
enum Role<'a> {
    Model,
    /// The files or folders to use; empty: all.
    Dictionaries(Kind, &'a [String]),
    Corpus,
}

/// A repository's entry of the hub's own interface.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// A variable of the environment that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_string()).filter(|value| !value.is_empty())
}

/// The folder of the cache: `HF_HUB_CACHE`, or `hub` below `HF_HOME`, which is
/// `~/.cache/huggingface` unless set.
fn cache_folder() -> Result<PathBuf> {
    let home = || variable("HF_HOME").map(PathBuf::from);
    let system =
        || variable("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("huggingface"));
    let user = || std::env::home_dir().map(|home| home.join(".cache/huggingface"));
    let hub = || home().or_else(system).or_else(user).map(|home| home.join("hub"));
    let folder = variable("HF_HUB_CACHE").map(PathBuf::from).or_else(hub);
    let Some(folder) = folder else {
        return Err(hinted("there is no home folder for downloads", "set `HF_HOME` to a folder"));
    };
    Ok(std::path::absolute(folder)?)
}

/// The token of `HF_TOKEN`, or the one that Hugging Face's own tools have kept.
fn token(cache: &Cache) -> Result<Option<String>> {
    let token = variable("HF_TOKEN").or_else(|| cache.token());
    if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(hinted(
            "`HF_TOKEN` contains characters that no token has",
            "copy the token again, without surrounding characters",
        ));
    }
    Ok(token)
}

impl Hub {
    /// # Errors
    /// When a variable holds what cannot be used.
    pub(crate) fn from_env() -> Result<Hub> {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(hinted(
                format!("`HF_ENDPOINT` is `{endpoint}`, which is not an address"),
                "write it as `https://huggingface.co`",
            ));
        }
        let cache = Cache::new(cache_folder()?);
        let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| {
            ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
        });
        let web = Web::new(endpoint.trim_end_matches('/').into(), token(&cache)?);
        Ok(Hub { web, cache, offline })
    }

    /// The repository at its pinned commit, or at what its revision stands for now. Nobody is asked
    /// who has answered before.
    fn snapshot(&self, name: &HubName, pin: Option<&String>, role: &Role) -> Result<Snapshot> {
        let disk = Disk::new(&self.cache, name);
        let itself = Some(&name.revision).filter(|revision| is_commit(revision));
        let known = pin.or(itself).filter(|commit| is_commit(commit)).cloned();
        let known = known.or_else(|| disk.reference().filter(|_| self.offline));
        let listed =
            known.as_ref().and_then(|commit| Some((commit.clone(), disk.listing(commit)?)));
        let (commit, files) = match (listed, known) {
            (Some(listed), _) => listed,
            (None, Some(commit)) if self.offline => self.present(name, commit, role)?,
            (None, None) if self.offline => {
                return self.offline(format!("the commit of `{name}` is not known"));
            }
            (None, known) => self.ask(name, known.as_ref().unwrap_or(&name.revision))?,
        };
        let folder = disk.snapshot(&commit);
        Ok(Snapshot { name: name.clone(), commit, folder, files })
    }

    /// What another tool has downloaded. Of a data set that may be a part, which nobody could tell
    /// from the whole.
    fn present(
        &self,
        name: &HubName,
        commit: String,
        role: &Role,
    ) -> Result<(String, Vec<String>)> {
        let files = Disk::new(&self.cache, name).present(&commit);
        if files.is_empty() || matches!(role, Role::Corpus) {
            return self.offline(format!("the list of files of `{name}` has not been downloaded"));
        }
        Ok((commit, files))
    }

    fn offline<T>(&self, what: String) -> Result<T> {
        Err(hinted(
            format!("{what}, and `HF_HUB_OFFLINE` is set"),
            format!(
                "unset it, or run `circuit-atlas fetch` where there is a network; downloads are \
                 kept in `{}`",
                self.cache.path().display()
            ),
        ))
    }

    /// Asks for the commit of a revision and its files, and keeps the answer.
    fn ask(&self, name: &HubName, revision: &str) -> Result<(String, Vec<String>)> {
        let url = format!("{}/api/{}", self.web.endpoint(), disk::repo(name, revision).api_url());
        let asked = HubName { revision: revision.into(), ..name.clone() };
        let text = self.web.text(Asked { name: &asked, file: None }, &url)?;
        let info: Option<Info> = serde_json::from_str(&text).ok();
        let Some(info) = info
            .filter(|info| is_commit(&info.sha) && (!is_commit(revision) || info.sha == revision))
        else {
            return Err(hinted(
                format!(
                    "`{}` does not reply like a Hugging Face hub for `{name}`",
                    self.web.endpoint()
                ),
                "check `HF_ENDPOINT`",
            ));
        };
        let mut files: Vec<String> =
            info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        files.sort();
        let disk = Disk::new(&self.cache, name);
        disk.set_listing(&info.sha, &files)?;
        if !is_commit(&name.revision) {
            disk.set_reference(&info.sha)?;
        }
        Ok((info.sha, files))
    }

    /// The path of a file of a repository; it is downloaded if it is not there.
    ///
    /// # Errors
    /// When it would lie outside its folder, or cannot be had.
    pub(crate) fn file(
        &self,
        snapshot: &Snapshot,
        file: &str,
        progress: &Progress,
    ) -> Result<PathBuf> {
        let Snapshot { name, commit, folder, .. } = snapshot;
        let Some(path) = disk::below(folder, file) else { return disk::leads_out(name, file) };
        if path.exists() {
            return Ok(path);
        }
        if self.offline {
            return self.offline(format!("`{file}` of `{name}` is not downloaded"));
        }
        let asked = Asked { name, file: Some(file) };
        let url = format!(
            "{}/{}/resolve/{commit}/{}",
            self.web.endpoint(),
            disk::repo(name, commit).url(),
            encoded(file)
        );
        let about = self.web.about(asked, &url)?;
        let disk = Disk::new(&self.cache, name);
        let (_held, blob) = disk.hold(&about.etag)?;
        if !blob.exists() {
            self.content(asked, &url, &about, &blob, progress)?;
        }
        disk.link(&blob, commit, &path)?;
        Ok(path)
    }

    /// Downloads a content to its name. An old beginning may be of another content: then it is
    /// downloaded anew, once.
    fn content(
        &self,
        asked: Asked,
        url: &str,
        about: &web::About,
        blob: &std::path::Path,
        progress: &Progress,
    ) -> Result<()> {
        let part = blob.with_extension("part");
        for _ in 0..2 {
            self.web.download(asked, url, about.size, &part, progress)?;
            if disk::holds(&part, &about.etag)? {
                let bytes = part.metadata().map_or(0, |metadata| metadata.len());
                disk::settle(&part, blob)?;
                let file = asked.file.unwrap_or_default();
                progress.line(&format!(
                    "{:<10} {}/{file} ({})",
                    "download",
                    asked.name.place(),
                    size(bytes)
                ));
                return Ok(());
            }
            disk::discard(&part)?;
        }
        Err(hinted(
            format!(
                "`{}` of `{}` is damaged: its hash does not match",
                asked.file.unwrap_or_default(),
                asked.name
            ),
            "run again; if it persists, a proxy may be changing files",
        ))
    }
}

/// A name as a part of an address.
fn encoded(file: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    file.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// What the settings name by `hf:…`: the setting's value, and what the repository is used as.
fn needs(config: &Config) -> Result<Vec<(String, HubName, Role<'_>)>> {
    let role = |kind| {
        (config.dictionaries.of(kind).0, Role::Dictionaries(kind, config.dictionaries.of(kind).1))
    };
    let all = [
        (config.model.path.as_str(), Role::Model),
        role(Kind::Attention),
        role(Kind::Mlp),
        (config.corpus.path.as_str(), Role::Corpus),
    ];
    let hub = all.into_iter().filter(|(path, _)| path.starts_with(HubName::PREFIX));
    hub.map(|(path, role)| Ok((path.to_string(), path.parse()?, role))).collect()
}

fn pin(name: &HubName) -> String {
    format!("{}@{}", name.place(), name.revision)
}

impl Role<'_> {
    /// The files that are needed from the start. Those of a corpus are downloaded when they are
    /// come to.
    fn files(&self, snapshot: &Snapshot) -> Result<Vec<String>> {
        match self {
            Role::Model => model_files(snapshot),
            Role::Dictionaries(kind, wanted) => dictionary_files(snapshot, *kind, wanted),
            Role::Corpus => Ok(Vec::new()),
        }
    }
}

fn model_files(snapshot: &Snapshot) -> Result<Vec<String>> {
    let has = |name: &str| snapshot.files.iter().any(|file| file == name);
    // As the tokenizer and the checkpoint choose among them.
    let [config, tokenizer] = MODEL_FILES;
    let tokenizer: &[&str] = match (has(tokenizer), has("vocab.json") && has("merges.txt")) {
        (false, true) if has("added_tokens.json") => {
            &["vocab.json", "merges.txt", "added_tokens.json"]
        }
        (false, true) => &["vocab.json", "merges.txt"],
        _ => &[MODEL_FILES[1]],
    };
    let [safetensors, pickle] = MODEL_WEIGHTS;
    let weights = match (has(safetensors), has(MODEL_INDEX), has(pickle)) {
        (false, true, _) => {
            let shard =
                |name: &&String| name.starts_with("model-") && name.ends_with(".safetensors");
            let shards = snapshot.files.iter().filter(shard).map(String::as_str);
            [MODEL_INDEX].into_iter().chain(shards).collect()
        }
        (false, false, true) => vec![pickle],
        _ => vec![safetensors],
    };
    let files: Vec<&str> =
        [config].into_iter().chain(tokenizer.iter().copied()).chain(weights).collect();
    match files.iter().find(|name| !has(name)) {
        None => Ok(files.into_iter().map(String::from).collect()),
        Some(file) => {
            let (what, hint) = web::no_file(Asked { name: &snapshot.name, file: Some(file) });
            Err(hinted(what, hint))
        }
    }
}

/// The entry of the repository's folder that a file belongs to, if it can be a part of a
/// dictionary.
fn dictionary_of(file: &str) -> Option<String> {
    match file.split_once('/') {
        Some((folder, "cfg.json" | "sae_weights.safetensors" | "sae.safetensors")) => {
            Some(folder.into())
        }
        Some(_) => None,
        None if file.ends_with("_log_feature_sparsity.pt") => None,
        None if file.ends_with(".pt") || file == TRACER_CONFIG => Some(file.into()),
        None if file.starts_with("layer_") && file.ends_with(".safetensors") => Some(file.into()),
        None => Some(format!("{}.pt", file.strip_suffix("_cfg.json")?)),
    }
}

fn dictionary_files(snapshot: &Snapshot, kind: Kind, wanted: &[String]) -> Result<Vec<String>> {
    let name = &snapshot.name;
    let entries: Vec<(String, &String)> =
        snapshot.files.iter().filter_map(|file| Some((dictionary_of(file)?, file))).collect();
    if let Some(missing) =
        wanted.iter().find(|wanted| !entries.iter().any(|(entry, _)| entry == *wanted))
    {
        let hint = format!(
            "correct `dictionaries.{}_files`: they are names of files or folders of the repository",
            kind.word()
        );
        return Err(hinted(format!("`{name}` has no dictionary `{missing}`"), hint));
    }
    if entries.iter().all(|(entry, _)| entry == TRACER_CONFIG) {
        let hint = "a repository of dictionaries has `.pt` files, or folders with `cfg.json` and \
             `sae_weights.safetensors`";
        return Err(hinted(format!("`{name}` has no dictionaries"), hint));
    }
    let used = entries
        .into_iter()
        .filter(|(entry, _)| wanted.is_empty() || wanted.contains(entry) || entry == TRACER_CONFIG);
    Ok(used.map(|(_, file)| file.clone()).collect())
}

/// Downloads what the settings name by `hf:…` and is not there yet, but for the files of the
/// corpus; pins what revisions stand for, and with `update` asks anew what that is. The settings'
/// paths lead to the folders from then on.
///
/// # Errors
/// When something cannot be had. What has been pinned by then stays so.
pub(crate) fn fetch(
    config: &mut Config,
    pins: &mut Pins,
    update: bool,
    progress: &Progress,
) -> Result<()> {
    let hub = Hub::from_env()?;
    if update && hub.offline {
        return Err(hinted(
            "`HF_HUB_OFFLINE` is set, so newer commits cannot be looked up",
            "unset it, or omit `--update`",
        ));
    }
    let mut known = if update { Pins::new() } else { pins.clone() };
    let mut found = BTreeMap::new();
    let done = needs(config)?.into_iter().try_for_each(|(path, name, role)| {
        let snapshot = hub.snapshot(&name, known.get(&pin(&name)), &role)?;
        role.files(&snapshot)?
            .iter()
            .try_for_each(|file| hub.file(&snapshot, file, progress).map(drop))?;
        known.insert(pin(&name), snapshot.commit.clone());
        found.insert(path, snapshot);
        Ok(())
    });
    pins.extend(known);
    config.snapshots = found;
    done
}

/// Leads the settings' paths to what has been downloaded already. Never uses the network.
///
/// # Errors
/// When something is not there.
pub(crate) fn downloaded(config: &mut Config, pins: &Pins) -> Result<()> {
    let hub = Hub { offline: true, ..Hub::from_env()? };
    let mut found = BTreeMap::new();
    for (path, name, role) in needs(config)? {
        let there = |snapshot: &Snapshot| {
            let files = role.files(snapshot).unwrap_or_default();
            files
                .iter()
                .all(|file| disk::below(&snapshot.folder, file).is_some_and(|path| path.exists()))
        };
        let pinned = pins.get(&pin(&name));
        let snapshot =
            pinned.and_then(|pin| hub.snapshot(&name, Some(pin), &role).ok()).filter(there);
        let Some(snapshot) = snapshot else {
            return Err(hinted(
                format!("`{name}` is not downloaded yet"),
                "`circuit-atlas fetch` downloads it, and so does `run`",
            ));
        };
        found.insert(path, snapshot);
    }
    config.snapshots = found;
    Ok(())
}
