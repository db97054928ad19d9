//! The hub's HTTP: redirects that never carry the token to another server, what each refusal means,
//! and patience with failures that pass. Knows nothing of the cache but the one unfinished file
//! that it is told to complete.

use super::disk::ROOM;
use crate::error::{Hint, Result, because, because_passing, hinted, passing};
use crate::ids::HubName;
use crate::process;
use crate::progress::Progress;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use ureq::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER,
};
use ureq::http::{Method, Request, Response, Uri};
use ureq::{Agent, Body, Error, Timeout};

/// Milliseconds to wait before each new try; they begin again once a download has come further.
const PAUSES: [u64; 4] = [500, 1000, 2000, 4000];
/// A server that asks for a longer pause is not waited for.
const LONGEST_PAUSE: u64 = 60;
const REDIRECTS: usize = 10;

/// What went wrong, and whether it is worth another try within this run. What may pass later has an
/// error that says so, whichever it is here.
pub(super) enum Failure {
    /// With the pause that the server asks for.
    Passing(anyhow::Error, Duration),
    Final(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Final(error)
    }
}

type Tried<T> = std::result::Result<T, Failure>;

/// Tries again what fails for a reason that passes. `once` says how far it has come: while it comes
/// further, it may fail.
pub(super) fn patiently<T>(mut once: impl FnMut(&mut u64) -> Tried<T>) -> Result<T> {
    let (mut failures, mut had) = (0, 0);
    loop {
        let mut have = had;
        match once(&mut have) {
            Ok(done) => return Ok(done),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(error, asked)) => {
                failures = if have > had { 0 } else { failures };
                had = have;
                let Some(pause) = PAUSES.get(failures) else { return Err(error) };
                std::thread::sleep(asked.max(Duration::from_millis(*pause)));
                failures += 1;
            }
        }
    }
}

/// What is asked for, for messages.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub name: &'a HubName,
    pub file: Option<&'a str>,
}

/// What a server says of a file before it is downloaded.
pub(super) struct About {
    pub etag: String,
    /// Bytes; not every server says.
    pub size: Option<u64>,
}

/// The server.
pub(super) struct Web {
    endpoint: String,
    /// Never to be shown, stored, or sent to anyone but `endpoint`.
    token: Option<String>,
    agent: Agent,
    /// Somebody has answered, so that the network is there.
    reached: AtomicBool,
}

/// Scheme, host and port.
fn origin(url: &Uri) -> (Option<&str>, Option<&str>, u16) {
    let usual = if url.scheme_str() == Some("http") { 80 } else { 443 };
    (url.scheme_str(), url.host(), url.port_u16().unwrap_or(usual))
}

fn parse(url: &str) -> Result<Uri> {
    url.parse().hint(|| format!("`{url}` is not an address"), "check `HF_ENDPOINT`")
}

fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

fn number(response: &Response<Body>, name: &str) -> Option<u64> {
    header(response, name)?.trim().parse().ok()
}

/// Where a redirect leads to, from `url`.
fn redirect(response: &Response<Body>, url: &Uri) -> Option<Uri> {
    let to = header(response, LOCATION.as_str()).filter(|_| response.status().is_redirection())?;
    if to.starts_with("http://") || to.starts_with("https://") {
        return to.parse().ok();
    }
    let folder = url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = if to.starts_with('/') { to.to_string() } else { format!("{folder}/{to}") };
    format!("{}://{}{path}", url.scheme_str()?, url.authority()?).parse().ok()
}

impl Web {
    pub(super) fn new(endpoint: String, token: Option<String>) -> Web {
        let config = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("circuit-atlas/", env!("CARGO_PKG_VERSION")))
            // Offsets count the bytes of the file, not those of a compressed copy.
            .accept_encoding("identity")
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)));
        Web { endpoint, token, agent: config.build().into(), reached: AtomicBool::new(false) }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn request(&self, method: &Method, url: &Uri, from: u64) -> Result<Request<()>> {
        let mut request = Request::builder().method(method.clone()).uri(url.clone());
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = self
            .token
            .as_ref()
            .filter(|_| parse(&self.endpoint).is_ok_and(|own| origin(&own) == origin(url)))
        {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(request.body(())?)
    }

    /// Asks, and follows redirects while `follow` says so.
    fn send(
        &self,
        method: Method,
        url: &str,
        from: u64,
        follow: impl Fn(&Uri, &Uri) -> bool,
    ) -> Tried<Response<Body>> {
        let mut url = parse(url)?;
        for _ in 0..REDIRECTS {
            let response = self
                .agent
                .run(self.request(&method, &url, from)?)
                .map_err(|error| self.unreachable(error, &url))?;
            self.reached.store(true, Ordering::Relaxed);
            match redirect(&response, &url) {
                Some(next) if follow(&url, &next) => url = next,
                _ => return Ok(response),
            }
        }
        let hint = "check `HF_ENDPOINT`, and the proxy if there is one";
        Err(hinted(format!("`{}` redirects without end", self.endpoint), hint).into())
    }

    /// Nobody answered: this run gives up at once when nobody ever has, as then there is no network;
    /// a later run may find one.
    fn unreachable(&self, error: Error, url: &Uri) -> Failure {
        use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, UnexpectedEof};
        let may_pass = is_of_network(&error);
        let broke = match &error {
            Error::Io(io) => {
                matches!(io.kind(), ConnectionAborted | ConnectionReset | UnexpectedEof)
            }
            Error::Timeout(timeout) => !matches!(timeout, Timeout::Resolve | Timeout::Connect),
            _ => false,
        };
        // Only the server's name: the rest of an address may hold a signature.
        let server = format!(
            "{}://{}",
            url.scheme_str().unwrap_or("https"),
            url.authority().map_or("", |a| a.as_str())
        );
        let hint = "check the network, the proxy and `HF_ENDPOINT`; `HF_HUB_OFFLINE=1` uses \
             downloaded files only";
        let what = format!("cannot reach `{server}`");
        let error = match may_pass {
            true => because_passing(error, what, hint),
            false => because(error, what, hint),
        };
        match broke || self.reached.load(Ordering::Relaxed) {
            true => Failure::Passing(error, Duration::ZERO),
            false => Failure::Final(error),
        }
    }

    /// The text that the hub has at a path of its own.
    pub(super) fn text(&self, asked: Asked, url: &str) -> Result<String> {
        const LARGEST: u64 = 1 << 26;
        patiently(|_| {
            let response = self.send(Method::GET, url, 0, |_, _| true)?;
            if response.status() != 200 {
                return Err(self.refusal(asked, &response));
            }
            let mut text = String::new();
            let read = response.into_body().into_reader().take(LARGEST).read_to_string(&mut text);
            read.map_err(|error| broken(asked, error.into()))?;
            Ok(text)
        })
    }

    /// What the hub says of a file. The hub itself answers, or another address of its own; where it
    /// sends to for the content is not asked.
    pub(super) fn about(&self, asked: Asked, url: &str) -> Result<About> {
        patiently(|_| {
            let response =
                self.send(Method::HEAD, url, 0, |from, to| origin(from) == origin(to))?;
            let status = response.status();
            if status != 200 && !status.is_redirection() {
                return Err(self.refusal(asked, &response));
            }
            let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
            let Some(etag) = etag.and_then(super::disk::etag_name) else {
                let hint = "check that `HF_ENDPOINT` is the address of a hub";
                return Err(hinted(
                    format!("`{}` sends no usable `etag` for {}", self.endpoint, what(asked)),
                    hint,
                )
                .into());
            };
            let own = number(&response, CONTENT_LENGTH.as_str()).filter(|_| status == 200);
            Ok(About { etag, size: number(&response, "x-linked-size").or(own) })
        })
    }

    /// Completes `part`, going on where it ends.
    pub(super) fn download(
        &self,
        asked: Asked,
        url: &str,
        size: Option<u64>,
        part: &Path,
        progress: &Progress,
    ) -> Result<()> {
        patiently(|have| self.go_on(asked, url, size, part, progress, have))
    }

    fn go_on(
        &self,
        asked: Asked,
        url: &str,
        size: Option<u64>,
        part: &Path,
        progress: &Progress,
        have: &mut u64,
    ) -> Tried<()> {
        let unwritable = || format!("cannot write `{}`", part.display());
        let mut file =
            File::options().create(true).append(true).open(part).hint(unwritable, ROOM)?;
        *have = file.metadata().hint(unwritable, ROOM)?.len();
        if size == Some(*have) {
            return Ok(());
        }
        let response = self.send(Method::GET, url, *have, |_, _| true)?;
        let resumed = response.status() == 206 && begins(&response) == Some(*have);
        if !resumed {
            let status = response.status().as_u16();
            if !matches!(status, 200 | 206 | 416) {
                return Err(self.refusal(asked, &response));
            }
            // Whatever is there is no beginning of what comes.
            file.set_len(0).hint(unwritable, ROOM)?;
            *have = 0;
            if status != 200 {
                return Err(broken(
                    asked,
                    anyhow::anyhow!("the server sends another range than requested"),
                ));
            }
        }
        let rest = number(&response, CONTENT_LENGTH.as_str()).map(|rest| rest + *have);
        let total = size.or(rest);
        progress.bytes(asked.file.unwrap_or_default(), total.unwrap_or(0), *have);
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = body.read(&mut buffer).map_err(|error| broken(asked, error.into()))?;
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).hint(unwritable, ROOM)?;
            *have += n as u64;
            progress.at(*have);
            process::check().map_err(anyhow::Error::from)?;
        }
        match total {
            Some(total) if total != *have => {
                // Too long it cannot be completed, only begun again.
                if *have > total {
                    file.set_len(0).hint(unwritable, ROOM)?;
                    *have = 0;
                }
                Err(broken(asked, anyhow::anyhow!("it has another length than announced")))
            }
            _ => Ok(()),
        }
    }

    /// What an answer that is none means.
    fn refusal(&self, asked: Asked, response: &Response<Body>) -> Failure {
        let status = response.status().as_u16();
        let code = header(response, "x-error-code").unwrap_or_default();
        let denied = header(response, "x-error-message")
            .is_some_and(|text| text.starts_with("Invalid credentials"));
        let HubName { revision, .. } = asked.name;
        let (place, endpoint) = (asked.name.place(), &self.endpoint);
        let (what, hint) = match (status, code) {
            (_, "GatedRepo") => (
                format!("`{place}` is gated: its owners require that you accept their terms"),
                format!(
                    "accept the terms at {endpoint}/{place} and set `HF_TOKEN` to a token of \
                     that account"
                ),
            ),
            (_, "RevisionNotFound") => (
                format!("`{place}` has no revision `{revision}`"),
                format!(
                    "{endpoint}/{place}/commits/main lists the commits; a branch, a tag or a whole \
                     commit may stand after `@`; `circuit-atlas fetch --update` replaces a pinned \
                     one that is gone"
                ),
            ),
            (_, "EntryNotFound") => no_file(asked),
            (401, code) if denied || (code.is_empty() && self.token.is_some()) => (
                format!("`{endpoint}` rejects the token of `HF_TOKEN` (or of `hf auth login`)"),
                format!(
                    "create a new one at {endpoint}/settings/tokens, or unset `HF_TOKEN` for \
                     public repositories"
                ),
            ),
            (401 | 404, "RepoNotFound" | "") => (
                format!("there is no repository `{place}` at `{endpoint}`, or it is private"),
                "check its name; for a private one set `HF_TOKEN` to a token with read access"
                    .into(),
            ),
            (403, _) => (
                format!("`{endpoint}` denies access to `{place}`"),
                "set `HF_TOKEN` to a token \
                     with read access"
                    .into(),
            ),
            (429, _) => (
                format!("`{endpoint}` limits the rate of requests (429 after several retries)"),
                "wait some minutes and run again: finished downloads are kept; with `HF_TOKEN` \
                 the limit is higher"
                    .into(),
            ),
            (500.., _) => (
                format!("`{endpoint}` has a server error ({status} after several retries)"),
                "run again later: finished downloads are kept, the rest resumes where it stopped"
                    .into(),
            ),
            _ => (
                format!("`{endpoint}` answered {status} for {}", what(asked)),
                "check that `HF_ENDPOINT` is the address of a hub".into(),
            ),
        };
        if status != 429 && status < 500 {
            return Failure::Final(hinted(what, hint));
        }
        match number(response, RETRY_AFTER.as_str()).unwrap_or(0) {
            // It is not waited for here, but it passes.
            seconds if seconds > LONGEST_PAUSE => Failure::Final(passing(what, hint)),
            seconds => Failure::Passing(passing(what, hint), Duration::from_secs(seconds)),
        }
    }
}

/// Whether it is the network that failed, and not what is asked for or how: the settings of a proxy,
/// a certificate.
fn is_of_network(error: &Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput};
    match error {
        // Of TLS, these are certificates that are not accepted.
        Error::Io(io) => !matches!(io.kind(), InvalidData | InvalidInput),
        Error::Timeout(_) | Error::HostNotFound | Error::ConnectionFailed => true,
        _ => false,
    }
}

/// Where the part begins that is sent.
fn begins(response: &Response<Body>) -> Option<u64> {
    let range = header(response, CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}

/// The message and the hint of a file that is not there.
pub(super) fn no_file(asked: Asked) -> (String, String) {
    let Asked { name, file } = asked;
    (
        format!("`{name}` has no file `{}`", file.unwrap_or_default().escape_debug()),
        "name another repository or revision; if the file was added later, run `circuit-atlas \
         fetch --update`"
            .into(),
    )
}

fn what(asked: Asked) -> String {
    match asked.file {
        None => format!("`{}`", asked.name),
        Some(file) => format!("`{}` of `{}`", file.escape_debug(), asked.name),
    }
}

fn broken(asked: Asked, error: anyhow::Error) -> Failure {
    let what = format!("the connection is lost repeatedly while downloading {}", what(asked));
    Failure::Passing(
        because_passing(error, what, "run again: the download resumes where it stopped"),
        Duration::ZERO,
    )
}
