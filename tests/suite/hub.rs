//! Downloads, against a server of this machine that speaks the hub's HTTP: ranges, redirects to a
//! second server, and failures on demand. The program is run as a user runs it, with the
//! environment of Hugging Face's tools.

use crate::bench::{Bench, REPOSITORY, Said, walk};
use circuit_atlas::artifact::tables::{ContextRow, Document};
use circuit_atlas::config::Config;
use insta::assert_snapshot;
use ring::digest;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";
const TOKEN: &str = "hf_neverToBeSeen";
/// Files of more bytes are not at the hub itself.
const LARGE: usize = 1000;

/// How a request goes wrong.
#[derive(Clone, Copy)]
enum Fault {
    /// A status with the two headers by which the hub says more.
    Refuse(u16, &'static str, &'static str),
    /// The connection breaks off behind so many bytes of the body.
    Cut(usize),
    /// The content is another one of the same length.
    Damage,
    /// Ranges are not understood: the whole is sent.
    NoRanges,
}

/// A request as it came.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    path: String,
    range: Option<String>,
    token: Option<String>,
    cdn: bool,
}

#[derive(Default)]
struct ReplacementModel {
    /// By `models/NAME` or `datasets/NAME`: the commits of its revisions, and its files.
    revisions: BTreeMap<String, BTreeMap<String, String>>,
    files: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Part of `METHOD PATH`, how often, and what.
    faults: Vec<(String, usize, Fault)>,
    seen: Vec<Seen>,
    cdn: String,
}

/// The hub and the server to which it sends for large files.
struct Server {
    address: String,
    replacement: Arc<Mutex<ReplacementModel>>,
    stop: Arc<AtomicBool>,
    ports: [String; 2],
}

impl Server {
    fn new() -> Server {
        let replacement = Arc::new(Mutex::new(ReplacementModel::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let ports = [false, true].map(|cdn| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let (replacement, stop) = (replacement.clone(), stop.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let replacement = replacement.clone();
                    // A client that goes away is not worth a word.
                    std::thread::spawn(move || drop(answer(stream.unwrap(), &replacement, cdn)));
                }
            });
            address
        });
        replacement.lock().unwrap().cdn = ports[1].clone();
        Server { address: ports[0].clone(), replacement, stop, ports }
    }

    /// A repository with files; `main` is its first commit.
    fn add(&self, repository: &str, files: &[(&str, &[u8])]) {
        let mut replacement = self.replacement.lock().unwrap();
        let revisions = [("main", FIRST), ("refs/pr/1", FIRST), (FIRST, FIRST), (SECOND, SECOND)];
        let own = |(a, b): (&str, &str)| (a.to_string(), b.to_string());
        replacement.revisions.insert(repository.into(), revisions.map(own).into());
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
        replacement.files.insert(repository.into(), files);
    }

    fn add_folder(&self, repository: &str, folder: &Path) {
        let mut files = Vec::new();
        walk(folder, &mut |path| {
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_string();
            files.push((name, std::fs::read(path).unwrap()));
        });
        let files: Vec<_> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        self.add(repository, &files);
    }

    fn fault(&self, request: &str, times: usize, fault: Fault) {
        self.replacement.lock().unwrap().faults.push((request.into(), times, fault));
    }

    fn mend(&self) {
        self.replacement.lock().unwrap().faults.clear();
    }

    fn seen(&self) -> Vec<Seen> {
        self.replacement.lock().unwrap().seen.clone()
    }

    /// Where each request for a content of this name began.
    fn ranges(&self, file: &str) -> Vec<Option<String>> {
        let wanted = |seen: &Seen| seen.cdn && seen.method == "GET" && seen.path.ends_with(file);
        self.seen().into_iter().filter(wanted).map(|seen| seen.range).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for port in &self.ports {
            drop(TcpStream::connect(port));
        }
    }
}

fn hex(algorithm: &'static digest::Algorithm, bytes: &[u8]) -> String {
    digest::digest(algorithm, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As the hub makes them: git's of small files, SHA-256 of large ones.
fn etag(bytes: &[u8]) -> String {
    match bytes.len() > LARGE {
        true => hex(&digest::SHA256, bytes),
        false => hex(
            &digest::SHA1_FOR_LEGACY_USE_ONLY,
            &[format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat(),
        ),
    }
}

fn request(stream: &TcpStream, cdn: bool) -> Option<Seen> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(String::from);
    let mut seen =
        Seen { method: words.next()?, path: words.next()?, range: None, token: None, cdn };
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "range" => seen.range = Some(value.trim().into()),
            "authorization" => seen.token = Some(value.trim().into()),
            _ => {}
        }
    }
    Some(seen)
}

fn answer(
    mut stream: TcpStream,
    replacement: &Mutex<ReplacementModel>,
    cdn: bool,
) -> std::io::Result<()> {
    let Some(seen) = request(&stream, cdn) else { return Ok(()) };
    let mut replacement = replacement.lock().unwrap();
    replacement.seen.push(seen.clone());
    let line = format!("{} {}", seen.method, seen.path);
    let fault = replacement
        .faults
        .iter_mut()
        .find(|(part, left, _)| *left > 0 && line.contains(part.as_str()));
    let fault = fault.map(|(_, left, fault)| {
        *left -= 1;
        *fault
    });
    let (status, headers, mut body) = match fault {
        Some(Fault::Refuse(status, code, message)) => {
            let code =
                if code.is_empty() { String::new() } else { format!("X-Error-Code: {code}\r\n") };
            (status, format!("{code}X-Error-Message: {message}\r\n"), Vec::new())
        }
        _ => replacement.answer(&seen, matches!(fault, Some(Fault::NoRanges))),
    };
    drop(replacement);
    if matches!(fault, Some(Fault::Damage)) {
        body.iter_mut().for_each(|byte| *byte ^= 1);
    }
    let length = if headers.contains("Content-Length") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    write!(stream, "HTTP/1.1 {status} X\r\n{headers}{length}Connection: close\r\n\r\n")?;
    let sent = match fault {
        Some(Fault::Cut(n)) => n.min(body.len()),
        _ => body.len(),
    };
    if seen.method == "GET" {
        stream.write_all(&body[..sent])?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // Until the client is done, or what it has not read would be lost with the connection.
    std::io::copy(&mut stream.take(1 << 16), &mut std::io::sink()).map(drop)
}

type Answer = (u16, String, Vec<u8>);

fn refuse(status: u16, code: &str) -> Answer {
    (status, format!("X-Error-Code: {code}\r\n"), Vec::new())
}

impl ReplacementModel {
    fn answer(&self, seen: &Seen, whole: bool) -> Answer {
        let path = seen.path.replace("%2B", "+");
        if let Some(content) = path.strip_prefix("/cdn/").filter(|_| seen.cdn) {
            let (repository, file) = content.split_once("/-/").unwrap();
            return self.content(seen, &self.files[repository][file], whole, String::new());
        }
        // A repository that has been renamed.
        if let Some(rest) = path.strip_prefix("/api/models/old/") {
            return (307, format!("Location: /api/models/new/{rest}\r\n"), Vec::new());
        }
        if let Some(rest) = path.strip_prefix("/old/") {
            return (307, format!("Location: /new/{rest}\r\n"), Vec::new());
        }
        match path.strip_prefix("/api/") {
            Some(rest) => self.info(rest),
            None => self.resolve(seen, &path[1..], whole),
        }
    }

    fn info(&self, path: &str) -> Answer {
        let (repository, revision) = path.split_once("/revision/").unwrap();
        let Some(revisions) = self.revisions.get(repository) else {
            return refuse(401, "RepoNotFound");
        };
        let Some(commit) = revisions.get(&revision.replace("%2F", "/")) else {
            return refuse(404, "RevisionNotFound");
        };
        let files: Vec<_> = self.files[repository]
            .keys()
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let text = serde_json::json!({ "id": repository, "sha": commit, "siblings": files, "private": false });
        (200, "Content-Type: application/json\r\n".into(), text.to_string().into_bytes())
    }

    fn resolve(&self, seen: &Seen, path: &str, whole: bool) -> Answer {
        let (place, rest) = path.split_once("/resolve/").unwrap();
        let repository = if place.starts_with("datasets/") {
            place.to_string()
        } else {
            format!("models/{place}")
        };
        let Some(files) = self.files.get(&repository) else { return refuse(401, "RepoNotFound") };
        let (commit, file) = rest.split_once('/').unwrap();
        let Some(bytes) = files.get(file) else { return refuse(404, "EntryNotFound") };
        let about = format!("X-Repo-Commit: {commit}\r\n");
        if bytes.len() <= LARGE {
            return self.content(seen, bytes, whole, about);
        }
        let to = format!("Location: http://{}/cdn/{repository}/-/{file}\r\n", self.cdn);
        let linked =
            format!("X-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\n", etag(bytes), bytes.len());
        (302, format!("{about}{linked}{to}ETag: \"of-the-redirect\"\r\n"), Vec::new())
    }

    fn content(&self, seen: &Seen, bytes: &[u8], whole: bool, about: String) -> Answer {
        let about = format!("{about}ETag: \"{}\"\r\nAccept-Ranges: bytes\r\n", etag(bytes));
        let start = seen.range.as_ref().filter(|_| !whole).map(|range| {
            range
                .strip_prefix("bytes=")
                .unwrap()
                .split('-')
                .next()
                .unwrap()
                .parse::<usize>()
                .unwrap()
        });
        match start {
            None => (200, about, bytes.to_vec()),
            Some(start) if start >= bytes.len() => (416, about, Vec::new()),
            Some(start) => {
                let range =
                    format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
                (206, format!("{about}{range}"), bytes[start..].to_vec())
            }
        }
    }
}

/// A bench with a cache of its own, and a server that it asks.
struct Hub {
    bench: Bench,
    home: TempDir,
    server: Server,
}

/// Numbers that are everywhere different.
fn weights() -> Vec<u8> {
    (0..100_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

const MODEL: &str = "\"[repo]/demo/model\"";

impl Hub {
    /// Only its model is of the hub, and no model: enough to be downloaded.
    fn new() -> Hub {
        Hub::of("hf:some/model@main")
    }

    fn of(model: &str) -> Hub {
        let server = Server::new();
        let weights = weights();
        let files = [
            ("config.json", &b"{}"[..]),
            ("tokenizer.json", b"{ }"),
            ("model.safetensors", &weights),
            ("x.md", b""),
        ];
        server.add("models/some/model", &files);
        server.add("models/new/model", &files);
        let bench = Bench::new().set(MODEL, &format!("\"{model}\""));
        Hub { bench, home: TempDir::new().unwrap(), server }
    }

    /// Everything of the demo, and a corpus of two files of which the first is enough.
    fn demo() -> Hub {
        let server = Server::new();
        let demo = Path::new(REPOSITORY).join("demo");
        for (name, folder) in
            [("model", "model"), ("saes", "attention_sae"), ("transcoders", "transcoder")]
        {
            server.add_folder(&format!("models/demo/{name}"), &demo.join(folder));
        }
        let corpus = std::fs::read(demo.join("corpus.jsonl")).unwrap();
        let half = corpus[..corpus.len() / 2].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        let files = [
            ("README.md", &b"#"[..]),
            ("data/b.jsonl", &corpus[half..]),
            ("data/a.jsonl", &corpus[..half]),
        ];
        server.add("datasets/demo/corpus", &files);
        let bench = Bench::new()
            .set(MODEL, "\"hf:demo/model@main\"")
            .set("\"[repo]/demo/attention_sae\"", "\"hf:demo/saes@main\"")
            .set("\"[repo]/demo/transcoder\"", "\"hf:demo/transcoders@main\"")
            .set("\"[repo]/demo/corpus.jsonl\"", "\"hf:datasets/demo/corpus@main\"");
        Hub { bench, home: TempDir::new().unwrap(), server }
    }

    fn set(mut self, from: &str, to: &str) -> Hub {
        self.bench = self.bench.set(from, to);
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bench.command(arguments);
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        let endpoint = format!("http://{}/", self.server.address);
        command.env("HF_ENDPOINT", endpoint).env("HF_HOME", self.home.path()).env("NO_PROXY", "*");
        command
    }

    fn said(&self, command: &mut Command) -> Said {
        let plain = |text: String| {
            let text = text.replace(self.home.path().to_str().unwrap(), "[home]");
            text.replace(&self.server.address, "[hub]").replace(&self.server.ports[1], "[cdn]")
        };
        let said = self.bench.said(command.output().unwrap());
        Said { out: plain(said.out), err: plain(said.err), ..said }
    }

    fn call(&self, arguments: &[&str]) -> Said {
        self.said(&mut self.command(arguments))
    }

    fn offline(&self, arguments: &[&str]) -> Said {
        self.said(self.command(arguments).env("HF_HUB_OFFLINE", "1"))
    }

    /// The message of a download that fails.
    #[track_caller]
    fn refused(&self) -> String {
        self.refused_with().0
    }

    /// It, with the exit code.
    #[track_caller]
    fn refused_with(&self) -> (String, Option<i32>) {
        let said = self.call(&["fetch"]).failed();
        self.assert_nothing_half();
        (said.error().to_string(), said.code)
    }

    /// What stands under its real name is what the server has.
    #[track_caller]
    fn assert_nothing_half(&self) {
        let replacement = self.server.replacement.lock().unwrap();
        let whole: BTreeSet<&Vec<u8>> =
            replacement.files.values().flat_map(BTreeMap::values).collect();
        walk(self.home.path(), &mut |path| {
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            let content = path.iter().any(|part| part == "blobs" || part == "snapshots");
            if content && !["part", "lock"].contains(&ending) {
                assert!(
                    whole.contains(&std::fs::read(path).unwrap()),
                    "{} is not whole",
                    path.display()
                );
            }
        });
    }

    fn weights(&self) -> Option<Vec<u8>> {
        let path = format!("hub/models--some--model/snapshots/{FIRST}/model.safetensors");
        std::fs::read(self.home.path().join(path)).ok()
    }

    fn move_main(&self, to: &str) {
        let mut replacement = self.server.replacement.lock().unwrap();
        replacement
            .revisions
            .values_mut()
            .for_each(|revisions| drop(revisions.insert("main".into(), to.into())));
    }
}

#[test]
fn a_token_goes_to_the_hub_and_nowhere_else() {
    let hub = Hub::demo();
    let said = hub.said(hub.command(&["run"]).env("HF_TOKEN", TOKEN)).succeeded();
    let lock = std::fs::read_to_string(hub.bench.file("artifacts/atlas.lock")).unwrap();
    assert!(!lock.contains(TOKEN) && !said.err.contains(TOKEN));
    walk(hub.home.path(), &mut |path| {
        let bytes = std::fs::read(path).unwrap();
        assert!(
            !bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()),
            "{}",
            path.display()
        );
    });
    // It went to the hub and nowhere else.
    let seen = hub.server.seen();
    assert!(
        seen.iter().any(|seen| seen.cdn)
            && seen.iter().all(|seen| seen.token.is_some() != seen.cdn),
        "{seen:?}"
    );
}

#[test]
fn a_run_from_the_hub_is_that_of_the_same_files_here() {
    let hub = Hub::demo();
    hub.call(&["run", "tokenize", "measure"]).succeeded();
    let lock = std::fs::read_to_string(hub.bench.file("artifacts/atlas.lock")).unwrap();
    assert!(lock.contains(&format!("\"datasets/demo/corpus@main\" = \"{FIRST}\"")), "{lock}");
    let weights = format!("\"hub demo/model/model.safetensors\" = \"{FIRST}\"");
    assert!(lock.contains(&weights), "{lock}");
    // Only the file that was read was downloaded.
    let seen = hub.server.seen();
    assert!(seen.iter().any(|seen| seen.path.ends_with("data/a.jsonl")), "{seen:?}");
    assert!(
        !seen.iter().any(|seen| seen.path.ends_with("data/b.jsonl") || seen.path.ends_with(".md")),
        "{seen:?}"
    );
    let documents = hub.bench.table::<Document>();
    assert!(documents.iter().all(|document| document.source == "data/a.jsonl"));
    // What the same files give that are nobody's but the user's.
    let own = Bench::new();
    let first =
        hub.home.path().join(format!("hub/datasets--demo--corpus/snapshots/{FIRST}/data/a.jsonl"));
    std::fs::copy(first, own.file("a.jsonl")).unwrap();
    let own = own.set("\"[repo]/demo/corpus.jsonl\"", "\"a.jsonl\"");
    own.run(&["tokenize"]).succeeded();
    assert!(own.table::<ContextRow>() == hub.bench.table::<ContextRow>());
}

#[test]
fn what_was_downloaded_needs_no_network_again() {
    let hub = Hub::demo();
    hub.call(&["run"]).succeeded();
    let Hub { bench, home, server } = hub;
    let (address, before) = (server.address.clone(), server.seen().len());
    drop(server);
    let again = |arguments: &[&str], offline: &str| {
        let mut command = bench.command(arguments);
        command
            .env("HF_ENDPOINT", format!("http://{address}"))
            .env("HF_HOME", home.path())
            .env("NO_PROXY", "*");
        bench.said(command.env("HF_HUB_OFFLINE", offline).output().unwrap()).succeeded()
    };
    for offline in ["", "1"] {
        assert!(again(&["run"], offline).err.contains("nothing to do"), "HF_HUB_OFFLINE={offline}");
    }
    assert!(!again(&["status"], "").out.contains("would"));
    assert_eq!(
        again(&["run", "tokenize", "--force"], "1").err.lines().next().unwrap().split(' ').next(),
        Some("tokenize")
    );
    assert!(before > 0);
}

#[test]
fn a_revision_is_pinned_until_it_is_moved_on() {
    let hub = Hub::demo();
    assert_snapshot!("status_before_fetch", hub.call(&["status"]).failed().error());
    assert!(hub.server.seen().is_empty(), "`status` uses the network");
    let said = hub.call(&["fetch"]).succeeded();
    assert_snapshot!("fetched", said.out);
    assert!(said.err.contains("download   demo/model/model.safetensors ("), "{}", said.err);
    hub.call(&["run", "tokenize", "measure", "discover"]).succeeded();
    hub.move_main(SECOND);
    let status = hub.call(&["status"]).succeeded().out;
    assert!(
        status.starts_with("tokenize   fresh\nmeasure    fresh\ndiscover   fresh\n"),
        "{status}"
    );
    let asked = hub.server.seen().len();
    hub.call(&["fetch"]).succeeded();
    assert_eq!(hub.server.seen().len(), asked, "what is pinned and there is asked for again");
    hub.call(&["fetch", "--update"]).succeeded();
    let status = hub.call(&["status"]).succeeded().out;
    let reason = "`demo/model/tokenizer.json` was at commit `111111111111`, is at `222222222222`";
    assert!(
        status.contains(reason)
            && status.contains("`datasets/demo/corpus` was at commit `111111111111`"),
        "{status}"
    );
    hub.call(&["clean"]).succeeded();
    assert_snapshot!("update_offline", hub.offline(&["fetch", "--update"]).failed().error());
}

#[test]
fn the_whole_corpus_is_downloaded_when_asked_for() {
    let hub = Hub::demo();
    hub.call(&["fetch", "--corpus"]).succeeded();
    assert!(
        hub.home
            .path()
            .join(format!("hub/datasets--demo--corpus/snapshots/{FIRST}/data/b.jsonl"))
            .exists()
    );
    assert!(hub.offline(&["check"]).succeeded().out.contains("corpus     2 files; "));
}

#[test]
fn a_broken_connection_goes_on_where_it_stopped() {
    let hub = Hub::new();
    hub.server.fault("GET /cdn/", 1, Fault::Cut(150_000));
    hub.server.fault("GET /cdn/", 1, Fault::Refuse(503, "", ""));
    hub.server.fault("GET /cdn/", 1, Fault::Cut(100_000));
    hub.call(&["fetch"]).succeeded();
    let resumed =
        ["bytes=150000-", "bytes=150000-", "bytes=250000-"].map(|range| Some(range.to_string()));
    assert_eq!(hub.server.ranges("model.safetensors"), [&[None][..], &resumed].concat());
    assert!(hub.weights() == Some(weights()));
}

#[test]
fn a_download_that_was_given_up_goes_on_in_the_next_run() {
    let hub = Hub::new();
    hub.server.fault("GET /cdn/", 1, Fault::Cut(150_000));
    hub.server.fault("GET /cdn/", 100, Fault::Cut(0));
    let (said, code) = hub.refused_with();
    assert_snapshot!("broken_connection", said);
    assert_eq!(code, Some(75));
    assert_eq!(hub.weights(), None);
    hub.server.mend();
    let tried = hub.server.ranges("model.safetensors").len();
    hub.call(&["fetch"]).succeeded();
    assert_eq!(
        hub.server.ranges("model.safetensors")[tried..],
        [Some("bytes=150000-".to_string())]
    );
    assert!(hub.weights() == Some(weights()));
}

#[test]
fn a_server_without_ranges_and_a_wrong_beginning_are_begun_anew() {
    let hub = Hub::new();
    hub.server.fault("GET /cdn/", 1, Fault::Cut(150_000));
    hub.server.fault("GET /cdn/", 1, Fault::NoRanges);
    hub.call(&["fetch"]).succeeded();
    assert!(hub.weights() == Some(weights()));

    let hub = Hub::new();
    let part =
        hub.home.path().join(format!("hub/models--some--model/blobs/{}.part", etag(&weights())));
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    for length in [1000, 400_000, 500_000] {
        std::fs::write(&part, vec![7; length]).unwrap();
        hub.call(&["fetch"]).succeeded();
        assert!(hub.weights() == Some(weights()), "{length}");
        std::fs::remove_dir_all(hub.home.path().join("hub/models--some--model/snapshots")).unwrap();
        std::fs::remove_file(part.with_extension("")).unwrap();
    }
}

#[test]
fn what_passes_is_waited_for() {
    let hub = Hub::new();
    hub.server.fault("GET /api/", 1, Fault::Refuse(500, "", ""));
    hub.server.fault("HEAD /some/model", 1, Fault::Refuse(429, "", ""));
    hub.server.fault("GET /cdn/", 1, Fault::Refuse(502, "", ""));
    hub.call(&["fetch"]).succeeded();
    assert!(hub.weights() == Some(weights()));
}

#[test]
fn each_refusal_has_its_own_message() {
    use Fault::Refuse;
    let of_file =
        "HEAD /some/model/resolve/1111111111111111111111111111111111111111/model.safetensors";
    let cases = [
        ("repository_missing", "GET /api/", Refuse(401, "RepoNotFound", "Repository not found")),
        (
            "repository_missing_with_token",
            "GET /api/",
            Refuse(404, "RepoNotFound", "Repository not found"),
        ),
        ("revision_missing", "GET /api/", Refuse(404, "RevisionNotFound", "Invalid rev id")),
        ("file_missing", of_file, Refuse(404, "EntryNotFound", "Entry not found")),
        ("gated", of_file, Refuse(403, "GatedRepo", "Access to model some/model is restricted")),
        ("forbidden", "GET /api/", Refuse(403, "", "no")),
        ("server_error", "GET /api/", Refuse(503, "", "")),
        ("too_many_requests", "GET /api/", Refuse(429, "", "")),
        ("no_hub", "GET /api/", Refuse(418, "", "")),
        ("damaged", "GET /cdn/", Fault::Damage),
    ];
    for (name, request, fault) in cases {
        let hub = Hub::new();
        hub.server.fault(request, 100, fault);
        let (said, code) = hub.refused_with();
        assert_snapshot!(name, said);
        // What passes may be tried again, as a job of Slurm does.
        let passes = ["server_error", "too_many_requests"].contains(&name);
        assert_eq!(code, Some(if passes { 75 } else { 1 }), "{name}");
    }
    let hub = Hub::new();
    hub.server.fault(
        "GET /api/",
        100,
        Refuse(401, "", "Invalid credentials in Authorization header"),
    );
    let said = hub.said(hub.command(&["fetch"]).env("HF_TOKEN", TOKEN)).failed();
    assert_snapshot!("wrong_token", said.error());
    assert_eq!(hub.server.seen().len(), 1, "a refusal is no reason to ask again");
    assert_snapshot!(
        "odd_token",
        hub.said(hub.command(&["fetch"]).env("HF_TOKEN", "a b")).failed().error()
    );
}

#[test]
fn no_network_is_told_at_once() {
    let hub = Hub::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let said =
        hub.said(hub.command(&["fetch"]).env("HF_ENDPOINT", format!("http://{free}"))).failed();
    assert_snapshot!("no_network", said.error().replace(&free, "[nobody]"));
    assert_eq!(said.code, Some(75), "it may be there later");
    let said =
        hub.said(hub.command(&["fetch"]).env("HF_ENDPOINT", "http://nowhere.invalid")).failed();
    assert!(said.error().contains("cannot reach `http://nowhere.invalid`"), "{}", said.err);
    assert_eq!(said.code, Some(75));
    let said = hub.said(hub.command(&["fetch"]).env("HF_ENDPOINT", "hub")).failed();
    assert_snapshot!("no_address", said.error());
    assert_eq!(said.code, Some(1));
}

#[test]
fn offline_nobody_is_asked() {
    let hub = Hub::new();
    assert_snapshot!("offline", hub.offline(&["fetch"]).failed().error());
    assert!(hub.server.seen().is_empty());
    hub.call(&["fetch"]).succeeded();
    let asked = hub.server.seen().len();
    assert!(hub.offline(&["fetch"]).succeeded().out.starts_with("hf:some/model@main → 1111"));
    // Without the pin, what the cache says of the revision counts, as with the other tools that
    // share it.
    std::fs::remove_file(hub.bench.file("artifacts/atlas.lock")).unwrap();
    hub.offline(&["fetch"]).succeeded();
    std::fs::remove_dir_all(hub.home.path().join("hub/models--some--model/circuit-atlas")).unwrap();
    hub.offline(&["fetch"]).succeeded();
    std::fs::remove_file(
        hub.home.path().join(format!("hub/models--some--model/snapshots/{FIRST}/config.json")),
    )
    .unwrap();
    hub.offline(&["fetch"]).failed();
    assert_eq!(hub.server.seen().len(), asked);
}

#[test]
fn a_renamed_repository_and_a_revision_with_slashes_are_found() {
    for name in ["hf:old/model@main", "hf:some/model@refs/pr/1", &format!("hf:some/model@{FIRST}")]
    {
        let hub = Hub::of(name);
        let out = hub.call(&["fetch"]).succeeded().out;
        assert!(out.starts_with(&format!("{name} → {FIRST}, ")), "{out}");
    }
}

#[test]
fn weights_may_be_pickled_but_must_be_there() {
    let hub = Hub::new();
    hub.server.add(
        "models/some/model",
        &[("config.json", b"{}"), ("tokenizer.json", b"{}"), ("pytorch_model.bin", b"x")],
    );
    hub.call(&["fetch"]).succeeded();
    let hub = Hub::new();
    hub.server.add("models/some/model", &[("config.json", b"{}"), ("model.safetensors", b"x")]);
    assert_snapshot!("no_tokenizer", hub.refused());
}

#[test]
fn two_downloads_at_once_are_one() {
    let hub = Hub::new();
    let other = Bench::new().set(MODEL, "\"hf:some/model@main\"");
    let mut second = other.command(&["fetch"]);
    second
        .env("HF_ENDPOINT", format!("http://{}", hub.server.address))
        .env("HF_HOME", hub.home.path())
        .env("NO_PROXY", "*");
    hub.server.fault("GET /cdn/", 2, Fault::Cut(100_000));
    let second =
        second.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn();
    hub.call(&["fetch"]).succeeded();
    assert!(second.unwrap().wait().unwrap().success());
    assert_eq!(hub.server.ranges("model.safetensors").len(), 3, "the content was downloaded twice");
    assert!(hub.weights() == Some(weights()));
    hub.assert_nothing_half();
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    let hub = Hub::new().set("\"[repo]/demo/attention_sae\"", "\"hf:bad/saes@main\"");
    for name in ["../cfg.json", "..\\..\\a.pt", "/tmp/a.pt", "a\u{1b}[2J.pt"] {
        hub.server.add("models/bad/saes", &[(name, b"x")]);
        std::fs::remove_dir_all(hub.home.path().join("hub/models--bad--saes")).ok();
        std::fs::remove_dir_all(hub.bench.file("artifacts")).ok();
        let said = hub.call(&["fetch"]).failed();
        let known = said.error().contains("cannot be a file below its folder")
            || said.error().contains("has no dictionaries");
        assert!(known && !said.err.contains('\u{1b}'), "{name:?}: {}", said.err);
        assert!(
            !hub.server.seen().iter().any(|seen| seen.path.starts_with("/bad/saes/resolve")),
            "{name:?}"
        );
    }
}

#[test]
fn only_the_dictionaries_that_are_named_are_downloaded() {
    let hub = Hub::new().set(
        "\"[repo]/demo/attention_sae\"",
        "\"hf:some/saes@main\"\nattention_files = [\"a+1.pt\"]",
    );
    let files = [
        "a+1.pt",
        "a+1_cfg.json",
        "b.pt",
        "b_cfg.json",
        "c_log_feature_sparsity.pt",
        "c/cfg.json",
        "d.txt",
    ];
    hub.server.add("models/some/saes", &files.map(|name| (name, name.as_bytes())));
    hub.call(&["fetch"]).succeeded();
    let heads = hub
        .server
        .seen()
        .into_iter()
        .filter(|seen| seen.method == "HEAD" && seen.path.contains("/saes/"));
    let names: Vec<String> =
        heads.map(|seen| seen.path.rsplit_once('/').unwrap().1.to_string()).collect();
    assert_eq!(names, ["a%2B1.pt", "a%2B1_cfg.json"]);
    let hub = hub.set("a+1.pt", "a+2.pt");
    assert_snapshot!("no_such_dictionary", hub.refused());
}

#[test]
fn dictionaries_of_a_folder_can_be_named_too() {
    let named = |files: &str| {
        let text = format!("\"[repo]/demo/attention_sae\"\nattention_files = [{files}]");
        Bench::new().set("\"[repo]/demo/attention_sae\"", &text).call(&["check"])
    };
    let all = (0..4).map(|layer| format!("\"blocks.{layer}.attn.hook_z\"")).collect::<Vec<_>>();
    named(&all.join(", ")).succeeded();
    assert_snapshot!("named_too_few", named(&all[..3].join(", ")).failed().error());
    assert_snapshot!("named_wrong", named("\"blocks.9.attn.hook_z\"").failed().error());
    assert_snapshot!("named_elsewhere", named("\"../other\"").failed().error());
}

#[test]
fn settings_name_the_hub_as_it_has_to_be() {
    let refused = |from: &str, to: &str| {
        Bench::new().set(from, to).call(&["fetch"]).failed().error().to_string()
    };
    assert_snapshot!("no_revision", refused(MODEL, "\"hf:openai-community/gpt2\""));
    assert_snapshot!(
        "no_data_set",
        refused("\"[repo]/demo/corpus.jsonl\"", "\"hf:Skylion007/openwebtext@main\"")
    );
    assert_snapshot!("nothing_to_fetch", Bench::new().call(&["fetch"]).succeeded().err);
}

#[test]
fn a_data_set_without_a_corpus_is_told() {
    let hub = Hub::demo();
    hub.server.add(
        "datasets/demo/corpus",
        &[("README.md", b"#"), ("loader.py", b"#"), (".cache/a.txt", b"#")],
    );
    assert_snapshot!("no_corpus_file", hub.call(&["check"]).failed().error());
}

#[test]
fn the_settings_of_gpt2_small_are_valid() {
    let config = Config::load(&Path::new(REPOSITORY).join("examples/gpt2-small.toml")).unwrap();
    assert_eq!(config.dictionaries.attention_files.len(), 12);
    assert_eq!(config.corpus.max_contexts, 25_600);
    assert_eq!(config.tasks.len(), 2);
}
