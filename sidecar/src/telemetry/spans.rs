//! Spans on their way to a collector: requests that have ended -> a bounded queue -> batches -> OTLP over HTTP, as protobuf.
//!
//! Who offers a span never waits: while the collector is slow or gone, spans are dropped and counted. What is queued when
//! the last listener that uses an exporter has gone is still sent, once.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use crds::{config::TraceExport, metrics::Metric};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prometheus_client::{
    metrics::{MetricType, counter::Counter},
    registry::Registry,
};
use prost::Message;
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    discovery::dns::{Lookup, SystemDns},
    followed::{self, Unread},
    net::tls::{Store, TlsError},
    remote::{Ask, Remote, RemoteError},
};

/// Spans that wait, at most; a span has about 1 KiB.
const QUEUE: usize = 4096;
/// Spans of one batch, and the time that the first one waits for others.
const BATCH: usize = 512;
const WAIT: Duration = Duration::from_secs(2);
/// Time for one batch, and bytes of the answer to it.
const SEND: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 64 * 1024;
/// A batch is sent so many times, with a pause that doubles, and then dropped.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes and lines of a file of headers.
const MAX_HEADERS_FILE: u64 = 64 * 1024;
const MAX_HEADERS: usize = 32;

/// Why spans cannot be exported. Tells no header's value.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("{path} has more than {MAX_HEADERS} headers; leave out some")]
    TooMany { path: String },
    #[error("line {line} of {path} is no header; write a name, a colon and a value")]
    Malformed { path: String, line: usize },
    #[error("{0}")]
    Tls(#[from] TlsError),
}

/// All exporters in use, each one however many listeners name it. Clones share.
#[derive(Clone)]
pub struct Exporters(Arc<Inner>);

struct Inner {
    live: Mutex<HashMap<TraceExport, Weak<Exporter>>>,
    tls: Store,
    dns: Arc<dyn Lookup>,
    tasks: TaskTracker,
    counts: Counts,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    sent: Counter,
    dropped: Counter,
}

/// The way to one collector.
#[derive(Debug)]
pub struct Exporter {
    queue: Sender<Span>,
    dropped: Counter,
}

/// The task's side of it.
struct Sending {
    settings: TraceExport,
    remote: Remote,
    spans: Receiver<Span>,
    counts: Counts,
    failing: bool,
}

const SENT: Metric = Metric {
    name: "sidecar_trace_sent_spans",
    kind: MetricType::Counter,
    labels: &[],
    help: "Spans that a collector has taken",
    look: "When traces are missing: does anything leave the sidecar",
};

const DROPPED: Metric = Metric {
    name: "sidecar_trace_dropped_spans",
    kind: MetricType::Counter,
    labels: &[],
    help: "Spans that no collector has taken: it failed, or was too slow",
    look: "When traces are missing: the sidecar's log says what the collector answers; if it is too slow, sample less",
};

/// What the exporters show in metrics.
pub(super) const FAMILIES: [&Metric; 2] = [&SENT, &DROPPED];

impl Exporters {
    /// `tasks` are waited for at the end of the process.
    pub fn register(registry: &mut Registry, tls: Store, dns: Arc<dyn Lookup>, tasks: TaskTracker) -> Self {
        let counts = Counts::default();
        SENT.register(registry, counts.sent.clone());
        DROPPED.register(registry, counts.dropped.clone());
        Self(Arc::new(Inner { live: Mutex::default(), tls, dns, tasks, counts }))
    }

    /// The exporter of these settings. Must be called within the control runtime, which also runs it.
    pub fn load(&self, settings: &TraceExport) -> Result<Arc<Exporter>, ExportError> {
        let mut live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exporter) = live.get(settings).and_then(Weak::upgrade) {
            return Ok(exporter);
        }
        check(settings)?;
        let tls = settings.tls.clone().unwrap_or_default();
        let tls = settings.url.is_secure().then(|| self.0.tls.client(&tls)).transpose()?;
        let remote = Remote::new(settings.url.clone(), tls, Arc::clone(&self.0.dns));
        let (queue, spans) = mpsc::channel(QUEUE);
        let counts = self.0.counts.clone();
        let exporter = Arc::new(Exporter { queue, dropped: counts.dropped.clone() });
        let sending = Sending { settings: settings.clone(), remote, spans, counts, failing: false };
        self.0.tasks.spawn(sending.run());
        live.retain(|_, exporter| exporter.strong_count() > 0);
        live.insert(settings.clone(), Arc::downgrade(&exporter));
        Ok(exporter)
    }
}

impl Default for Exporters {
    fn default() -> Self {
        let dns = Arc::new(SystemDns::default());
        Self::register(&mut Registry::default(), Store::default(), dns, TaskTracker::new())
    }
}

/// Says what is wrong with the file of headers.
pub fn check(settings: &TraceExport) -> Result<(), ExportError> {
    settings.headers_file.as_deref().map_or(Ok(()), |path| headers(path).map(drop))
}

impl Exporter {
    /// Hands a span over, or drops it.
    pub fn offer(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

impl Sending {
    /// Ends when the exporter has gone and its queue is empty.
    async fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.spans.recv().await {
            batch.push(first);
            let end = Instant::now() + WAIT;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                match timeout_at(end, self.spans.recv_many(&mut batch, room)).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                }
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let body = Bytes::from(self.request(spans).encode_to_vec());
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            match self.post(body.clone()).await {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(url = %self.remote.url(), "the collector takes spans again");
                    }
                    self.counts.sent.inc_by(count);
                    return;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(url = %self.remote.url(), %error, "the collector takes no spans");
                    }
                    let last = attempt == TRIES || self.spans.is_closed() || !is_passing(&error);
                    if last {
                        break;
                    }
                    sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        self.counts.dropped.inc_by(count);
    }

    async fn post(&self, body: Bytes) -> Result<(), SendError> {
        let mut headers = self.settings.headers_file.as_deref().map(headers).transpose()?.unwrap_or_default();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let ask = Ask { method: Method::POST, headers, body, limit: SEND, most: MAX_ANSWER };
        Ok(self.remote.ask(ask).await.map(drop)?)
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let scope = InstrumentationScope { name: "sidecar".to_owned(), version, ..Default::default() };
        let attributes = vec![text("service.name", &self.settings.service_name)];
        let scope_spans = ScopeSpans { scope: Some(scope), spans, ..Default::default() };
        let resource = Resource { attributes, ..Default::default() };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![scope_spans],
                ..Default::default()
            }],
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Headers(#[from] ExportError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

/// Whether the same batch may be taken a moment later; OTLP says of which answers that holds.
fn is_passing(error: &SendError) -> bool {
    match error {
        SendError::Remote(RemoteError::Status(status)) => matches!(status.as_u16(), 429 | 502..=504),
        SendError::Remote(_) => true,
        SendError::Headers(_) => false,
    }
}

/// An attribute.
pub fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// An attribute that is a number.
pub fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// The headers that a file holds.
fn headers(path: &str) -> Result<HeaderMap, ExportError> {
    parse_headers(path, &followed::read(path, MAX_HEADERS_FILE)?)
}

/// `Name: value` on each line; empty lines and those that begin with # are left out.
pub(crate) fn parse_headers(path: &str, bytes: &[u8]) -> Result<HeaderMap, ExportError> {
    let mut headers = HeaderMap::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let (name, value) = header_of(line)
            .ok_or_else(|| ExportError::Malformed { path: path.to_owned(), line: index + 1 })?;
        headers.append(name, value);
        if headers.len() > MAX_HEADERS {
            return Err(ExportError::TooMany { path: path.to_owned() });
        }
    }
    Ok(headers)
}

fn header_of(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(line[..colon].trim_ascii()).ok()?;
    let mut value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

impl fmt::Debug for Exporters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Exporters").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn headers_are_read_and_a_wrong_line_is_told_without_its_text() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        fs::write(path, "# of the collector\nAuthorization: Bearer secret: x\n\nx-tenant:a\r\n").unwrap();
        let read = headers(path).unwrap();
        assert_eq!(
            (read["authorization"].to_str().unwrap(), read["x-tenant"].to_str().unwrap()),
            ("Bearer secret: x", "a")
        );
        for (text, expected) in [
            ("a: b\nsecret\n", "line 2 of"),
            ("se cret: a\n", "line 1 of"),
            (&"a: secret\n".repeat(MAX_HEADERS + 1), "32 headers"),
            (&"#".repeat(1 << 17), "bytes"),
        ] {
            fs::write(path, text).unwrap();
            let error = headers(path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("; ") && !error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn spans_that_nobody_takes_are_dropped_and_counted() {
        let (queue, _spans) = mpsc::channel(2);
        let exporter = Exporter { queue, dropped: Counter::default() };
        (0..5).for_each(|_| exporter.offer(Span::default()));
        assert_eq!(exporter.dropped.get(), 3);
    }
}
