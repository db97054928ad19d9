//! Pages in headless Chromium, driven over a pipe by the DevTools protocol; and a server for them.

use crate::bench::skipped;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long an answer or a condition is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    sent: u64,
    session: String,
    /// What the page said since it was last opened: errors of scripts, messages of the console.
    pub complaints: Vec<String>,
    _profile: TempDir,
}

/// The Chromium of this machine; says so where there is none.
pub(crate) fn chromium() -> Option<&'static str> {
    let runs = |name: &&str| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(runs);
    if found.is_none() {
        skipped("there is no chromium");
    }
    found
}

/// Options of a Chromium that shows nothing and asks no other host.
pub(crate) fn headless(profile: &Path) -> Vec<String> {
    [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
    ]
    .map(String::from)
    .into_iter()
    .chain([format!("--user-data-dir={}", profile.display())])
    .collect()
}

/// The address of a file.
pub(crate) fn address(path: &Path) -> String {
    format!("file://{}", path.display())
}

impl Browser {
    /// None where there is no Chromium.
    pub(crate) fn start() -> Option<Browser> {
        let name = chromium()?;
        let profile = TempDir::new().unwrap();
        // Chromium reads commands from descriptor 3 and answers on 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh", name])
            .args(headless(profile.path()))
            .args(["--hide-scrollbars", "--remote-debugging-pipe"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut answers = BufReader::new(answers);
            let mut text = Vec::new();
            while answers.read_until(0, &mut text).is_ok_and(|read| read > 0) {
                text.pop();
                let Ok(message) = serde_json::from_slice(&text) else { break };
                if sender.send(message).is_err() {
                    break;
                }
                text.clear();
            }
        });
        let mut browser = Browser {
            child,
            commands,
            messages,
            sent: 0,
            session: String::new(),
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().unwrap().into();
        ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"]
            .into_iter()
            .for_each(|domain| drop(browser.call(domain, json!({}))));
        browser.size(1280, 900);
        Some(browser)
    }

    /// Calls a method of the DevTools protocol.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let id = self.sent;
        let mut command = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        let mut bytes = serde_json::to_vec(&command).unwrap();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        let mut answer = self.wait(method, |message| message["id"] == id);
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].take()
    }

    /// The first message of this kind.
    #[track_caller]
    fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.messages.recv_timeout(PATIENCE);
            let message = message.unwrap_or_else(|e| panic!("no answer to {what}: {e}"));
            let parameters = &message["params"];
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => {
                    self.complaints.push(parameters["exceptionDetails"].to_string());
                }
                Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                    self.complaints.push(parameters["entry"].to_string());
                }
                _ => {}
            }
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Opens an address, from a blank page so that nothing of the one before is kept, and waits
    /// until everything that it names is loaded.
    #[track_caller]
    pub(crate) fn open(&mut self, address: &str) {
        self.navigate("about:blank");
        self.complaints.clear();
        self.navigate(address);
    }

    #[track_caller]
    fn navigate(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address}));
        self.wait(address, |message| message["method"] == "Page.loadEventFired");
    }

    /// Does something that leads to another page, and waits for that.
    #[track_caller]
    pub(crate) fn follow(&mut self, action: impl FnOnce(&mut Browser)) {
        action(self);
        self.wait("a link", |message| message["method"] == "Page.loadEventFired");
    }

    #[track_caller]
    pub(crate) fn reload(&mut self) {
        self.follow(|browser| drop(browser.call("Page.reload", json!({}))));
    }

    /// The value of an expression in the page; promises are waited for.
    #[track_caller]
    pub(crate) fn ask(&mut self, expression: &str) -> Value {
        let mut answer = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true}),
        );
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// The same where it is a text.
    #[track_caller]
    pub(crate) fn text(&mut self, expression: &str) -> String {
        let value = self.ask(expression);
        value.as_str().unwrap_or_else(|| panic!("{expression} is {value}")).into()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        let start = Instant::now();
        while self.ask(&format!("Boolean({expression})")) != true {
            let page = "document.body.innerText.slice(0, 2000)";
            assert!(start.elapsed() < PATIENCE, "never {expression}: {}", self.ask(page));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Types text into what has the focus.
    #[track_caller]
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key: `ArrowDown`, `Enter`, `Tab`, `/` …
    #[track_caller]
    pub(crate) fn press(&mut self, key: &str) {
        let code = match key {
            "Backspace" => 8,
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            " " => 32,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let mut event = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        if key == "Enter" {
            event["text"] = "\r".into();
        } else if key.chars().count() == 1 {
            event["text"] = key.into();
        }
        self.call("Input.dispatchKeyEvent", event.clone());
        event["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", event);
    }

    /// Clicks in the middle of the first element of a selector.
    #[track_caller]
    pub(crate) fn click(&mut self, selector: &str) {
        let place = format!(
            "(() => {{ const e = document.querySelector({selector:?}); \
             e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect(); \
             return [r.left + r.width / 2, r.top + r.height / 2]; }})()"
        );
        let place = self.ask(&place);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// The size of the window in CSS pixels.
    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Whether the pages that are opened from now on run scripts.
    pub(crate) fn scripts(&mut self, run: bool) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": !run}));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server of the files below a folder, under a path of its own: `http://127.0.0.1:PORT/PATH/`.
pub(crate) fn serve(folder: PathBuf, path: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/{path}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || answer(stream, &folder, path));
        }
    });
    address
}

/// One request a connection.
fn answer(mut stream: TcpStream, folder: &Path, path: &str) {
    let mut request = Vec::new();
    let mut bytes = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut bytes) {
            Ok(read) if read > 0 => request.extend(&bytes[..read]),
            _ => return,
        }
    }
    let line = String::from_utf8_lossy(&request).into_owned();
    let asked = line.split(' ').nth(1).unwrap_or_default();
    let asked = asked.split(['?', '#']).next().unwrap_or_default();
    let file = asked.strip_prefix(&format!("/{path}/")).map(|name| match name {
        "" => folder.join("index.html"),
        name => folder.join(name),
    });
    let found = file.and_then(|file| Some((std::fs::read(&file).ok()?, file)));
    let (status, kind, body) = match found {
        Some((body, file)) => match file.extension().and_then(|ending| ending.to_str()) {
            Some("html") => ("200 OK", "text/html; charset=utf-8", body),
            Some("js") => ("200 OK", "text/javascript; charset=utf-8", body),
            Some("css") => ("200 OK", "text/css", body),
            Some("json") => ("200 OK", "application/json", body),
            _ => ("200 OK", "application/octet-stream", body),
        },
        None => ("404 Not Found", "text/plain", b"not found".to_vec()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: \
         close\r\n\r\n"
    );
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)));
}
