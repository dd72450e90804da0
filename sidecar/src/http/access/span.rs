//! One request in a trace: facts -> a span, by the conventions of OpenTelemetry for HTTP servers. Pure.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use http::uri::Authority;
use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    trace::v1::{Span, Status, span::SpanKind, status::StatusCode},
};

use super::{line::Facts, redact::Redact};
use crate::{
    http::trace::Trace,
    telemetry::spans::{number, text},
};

/// Methods that have a name of their own; others count as one, so that nobody makes up names.
const METHODS: [&str; 10] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];

/// Bytes of a path and of a text that are told, at most.
const MOST: usize = 1024;

/// What is told beside the facts.
pub(super) struct Context<'a> {
    pub(super) trace: &'a Trace,
    pub(super) client: Option<SocketAddr>,
    /// The client speaks TLS.
    pub(super) secure: bool,
    pub(super) ended: SystemTime,
    pub(super) redact: &'a Redact,
}

/// The span of a request. None where its trace is not recorded.
pub(super) fn span(facts: &Facts<'_>, context: &Context<'_>) -> Option<Span> {
    let ids = context.trace.ids()?;
    let started = context.ended.checked_sub(facts.duration).unwrap_or(UNIX_EPOCH);
    let method = facts.method.map(show);
    let known = method.as_deref().and_then(|method| METHODS.iter().find(|known| **known == method));
    // A request that broke off is no fault of the server's.
    let failed = facts.status.is_none_or(|status| status >= 500) || facts.cause == Some("BackendBroke");
    let failed = failed && facts.cause != Some("ClientGone");
    Some(Span {
        trace_id: ids.trace.to_vec(),
        span_id: ids.own.to_vec(),
        parent_span_id: ids.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        flags: if ids.parent.is_some() { 0x301 } else { 0x101 },
        name: known.copied().unwrap_or("HTTP").to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanoseconds(started),
        end_time_unix_nano: nanoseconds(context.ended),
        attributes: attributes(facts, context, method.as_deref(), known.copied(), failed),
        status: failed.then(|| Status { code: StatusCode::Error.into(), message: String::new() }),
        ..Span::default()
    })
}

fn attributes(
    facts: &Facts<'_>,
    context: &Context<'_>,
    method: Option<&str>,
    known: Option<&str>,
    failed: bool,
) -> Vec<KeyValue> {
    let mut all = vec![
        text("http.request.method", known.unwrap_or("_OTHER")),
        text("url.scheme", if context.secure { "https" } else { "http" }),
        number("http.request.body.size", facts.received),
        number("http.response.body.size", facts.sent),
        text("sidecar.listener", facts.listener),
    ];
    let mut add = |name: &str, value: Option<&str>| all.extend(value.map(|value| text(name, value)));
    add("http.request.method_original", method.filter(|_| known.is_none()));
    let path = facts.path.map(|path| {
        let mut shown = Vec::new();
        context.redact.pieces(path, |piece| shown.extend_from_slice(piece));
        show(&shown)
    });
    let (path, query) = match path.as_deref().map(|path| path.split_once('?').unwrap_or((path, ""))) {
        Some((path, query)) => (Some(path), Some(query).filter(|query| !query.is_empty())),
        None => (None, None),
    };
    add("url.path", path);
    add("url.query", query);
    let host = facts.host.and_then(|host| Authority::try_from(host).ok());
    add("server.address", host.as_ref().map(|host| host.host().trim_matches(['[', ']'])));
    let client = context.client.map(|client| client.ip().to_canonical().to_string());
    add("client.address", client.as_deref());
    add("user_agent.original", facts.user_agent.map(show).as_deref());
    add("sidecar.site", facts.site);
    add("sidecar.backend", facts.backend.map(ToString::to_string).as_deref());
    let status = facts.status.map(|status| status.to_string());
    add("error.type", failed.then(|| facts.cause.or(status.as_deref()).unwrap_or("_OTHER")));
    let mut count = |name: &str, value: Option<u64>| all.extend(value.map(|value| number(name, value)));
    count("server.port", host.as_ref().and_then(Authority::port_u16).map(u64::from));
    count("client.port", context.client.map(|client| client.port().into()));
    count("http.response.status_code", facts.status.map(u64::from));
    count("http.request.resend_count", facts.tries.checked_sub(1).filter(|again| *again > 0).map(u64::from));
    all
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..MOST).unwrap_or(bytes)).into_owned()
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
