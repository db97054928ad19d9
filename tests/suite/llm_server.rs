//! A server of this machine that speaks the wire format of chat completions, well or badly, as a
//! script says.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Before the first byte.
    pause: Duration,
    /// Between any two bytes of the body.
    drip: Duration,
    /// The connection breaks off behind so many bytes of the body.
    cut: Option<usize>,
    /// It breaks off before anything is said.
    inactive: bool,
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        let body = body.into();
        let (pause, drip) = (Duration::ZERO, Duration::ZERO);
        Reply { status, headers: Vec::new(), body, pause, drip, cut: None, inactive: false }
    }

    /// A completion with this text; 100 tokens were asked and 10 answered.
    pub(crate) fn says(text: impl Into<String>) -> Reply {
        Reply::ends(text, "stop")
    }

    /// A completion that says why it ended.
    pub(crate) fn ends(text: impl Into<String>, finish: &str) -> Reply {
        let message = json!({ "role": "assistant", "content": text.into() });
        Reply::json(json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "test",
            "choices": [{ "index": 0, "message": message, "finish_reason": finish }],
            "usage": { "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110 },
        }))
    }

    /// Any JSON, with status 200.
    pub(crate) fn json(body: Value) -> Reply {
        Reply::new(200, body.to_string()).header("Content-Type", "application/json")
    }

    /// An error as OpenAI words it.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Reply {
        let error = json!({ "message": message, "type": "error", "param": null, "code": code });
        let body = json!({ "error": error }).to_string();
        Reply::new(status, body).header("Content-Type", "application/json")
    }

    /// Any bytes, with status 200.
    pub(crate) fn bytes(body: Vec<u8>) -> Reply {
        Reply::new(200, body)
    }

    /// What a proxy puts in a server's place.
    pub(crate) fn page(status: u16, html: &str) -> Reply {
        Reply::new(status, html).header("Content-Type", "text/html")
    }

    pub(crate) fn hangs_up() -> Reply {
        Reply { inactive: true, ..Reply::new(200, String::new()) }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn after(self, pause: Duration) -> Reply {
        Reply { pause, ..self }
    }

    pub(crate) fn dripping(self, drip: Duration) -> Reply {
        Reply { drip, ..self }
    }

    pub(crate) fn cut_at(self, bytes: usize) -> Reply {
        Reply { cut: Some(bytes), ..self }
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub path: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

type Script = dyn Fn(&Value) -> Reply + Send + Sync;

#[derive(Default)]
struct ReplacementModel {
    seen: Mutex<Vec<Seen>>,
    stop: AtomicBool,
    now: AtomicUsize,
    most: AtomicUsize,
}

pub(crate) struct Server {
    address: String,
    replacement: Arc<ReplacementModel>,
}

impl Server {
    /// Answers every request with what `script` makes of its body.
    pub(crate) fn start(script: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let replacement = Arc::new(ReplacementModel::default());
        let (own, script): (_, Arc<Script>) = (replacement.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (replacement, script) = (own.clone(), script.clone());
                // A client that goes away is not worth a word.
                std::thread::spawn(move || drop(answer(stream.unwrap(), &replacement, &*script)));
            }
        });
        Server { address, replacement }
    }

    /// Answers the first request with the first reply, and so on; the last one answers all that
    /// come later.
    pub(crate) fn in_turn(replies: Vec<Reply>) -> Server {
        let next = AtomicUsize::new(0);
        Server::start(move |_| {
            replies[next.fetch_add(1, Ordering::SeqCst).min(replies.len() - 1)].clone()
        })
    }

    /// What `llm.base_url` is to be.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.replacement.seen.lock().unwrap().clone()
    }

    /// The bodies of all requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.seen().into_iter().map(|seen| seen.body).collect()
    }

    /// Most requests that were under way at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.replacement.most.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.replacement.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(&self.address));
    }
}

/// All that the messages of a request say, for scripts to look into.
pub(crate) fn prompt(request: &Value) -> String {
    let messages = request["messages"].as_array().into_iter().flatten();
    messages
        .map(|message| message["content"].as_str().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

fn request(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = || -> Option<String> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        Some(line.trim_end().to_string())
    };
    let path = line()?.split(' ').nth(1)?.to_string();
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(':') {
        headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { path, headers, body: serde_json::from_slice(&body).ok()? })
}

fn answer(
    stream: TcpStream,
    replacement: &ReplacementModel,
    script: &Script,
) -> std::io::Result<()> {
    let Some(seen) = request(&stream) else { return Ok(()) };
    replacement.seen.lock().unwrap().push(seen.clone());
    let now = replacement.now.fetch_add(1, Ordering::SeqCst) + 1;
    replacement.most.fetch_max(now, Ordering::SeqCst);
    let reply = script(&seen.body);
    std::thread::sleep(reply.pause);
    // Before the client can know, and ask anew.
    replacement.now.fetch_sub(1, Ordering::SeqCst);
    if reply.inactive { Ok(()) } else { send(stream, &reply) }
}

fn send(mut stream: TcpStream, reply: &Reply) -> std::io::Result<()> {
    let headers: String =
        reply.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = reply.body.len();
    let head = format!(
        "HTTP/1.1 {} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n",
        reply.status
    );
    stream.write_all(head.as_bytes())?;
    let body = &reply.body[..reply.cut.unwrap_or(length).min(length)];
    match reply.drip.is_zero() {
        true => stream.write_all(body)?,
        false => body.iter().try_for_each(|byte| {
            std::thread::sleep(reply.drip);
            stream.write_all(&[*byte])
        })?,
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // Until the client is done, or what it has not read would be lost with the connection.
    std::io::copy(&mut stream.take(1 << 16), &mut std::io::sink()).map(drop)
}
