//! Checks of backends in the access log: each is a line like that of a request, with no client.

use super::{
    Access,
    line::{self, Facts, Kind},
};
use crate::{
    balance::Checked,
    probe::{Failure, Get, USER_AGENT},
    telemetry::journal::Journal,
};

impl Access {
    /// Writes the line of a check, if it is wanted. Checks are few, so that each is handed over at once.
    pub(in crate::http) fn take_in(&self, listener: &str, check: &Checked<'_>) {
        let status = match check.outcome {
            Ok(status) => status,
            Err(Failure::Status { status, .. }) => Some(*status),
            Err(_) => None,
        };
        let status = status.map(|status| status.as_u16());
        if !self.wants(status, check.outcome.is_err()) {
            return;
        }
        let backend = check.backend.to_string();
        let facts = Facts {
            time: &[],
            listener,
            client: None,
            method: check.get.map(|_| &b"GET"[..]),
            host: check.get.and_then(|get| get.host.as_deref()).map(str::as_bytes),
            path: check.get.map(|Get { path, .. }| path.as_bytes()),
            status,
            received: 0,
            sent: 0,
            duration: check.took,
            site: Some(check.site),
            backend: Some(&backend),
            tries: 1,
            trace: None,
            user_agent: check.get.map(|_| USER_AGENT.as_bytes()),
            cause: check.outcome.err().map(cause),
            kind: Kind::Check,
        };
        let mut journal = Journal::default();
        journal.add(&self.lines, check.took, |out, time| {
            line::write(out, self.format, &self.redact, &Facts { time, ..facts });
        });
        journal.flush();
    }
}

/// One word for what the sidecar's own log tells in a sentence.
fn cause(failure: &Failure) -> &'static str {
    match failure {
        Failure::Refused => "Refused",
        Failure::NoSocket => "NoSocket",
        Failure::TimedOut(_) => "TimedOut",
        Failure::Status { .. } => "UnexpectedStatus",
        _ => "CheckFailed",
    }
}
