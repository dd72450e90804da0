//! The access log of TCP and UDP listeners: one line for each connection or session when it has ended, however it ends. Its
//! fields are those of the lines of requests, as far as there is something to say; nothing that was carried is among them.

use std::{net::SocketAddr, time::Duration};

use crds::config::{AccessLogFormat, ConnectionLog};

use crate::telemetry::{journal::Journal, line::Line, lines::Lines};

/// Bytes of a name that a client gave which are written, at most.
const MOST_TEXT: usize = 256;

/// A listener's settings of its access log, ready for use.
#[derive(Debug)]
pub struct Access {
    format: AccessLogFormat,
    errors_only: bool,
    one_in: usize,
    lines: Lines,
}

/// What is told of one connection or session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) kind: Kind,
    pub(super) listener: &'a str,
    /// Those who connect to a Unix socket have none.
    pub(super) client: Option<SocketAddr>,
    /// The name of the server that the client asked for within TLS.
    pub(super) host: Option<&'a str>,
    /// From the client.
    pub(super) received: u64,
    /// To the client.
    pub(super) sent: u64,
    pub(super) duration: Duration,
    /// Until a backend was connected to, waiting in the queue included.
    pub(super) connect: Option<Duration>,
    pub(super) site: Option<&'a str>,
    /// The last one that was asked.
    pub(super) backend: Option<&'a str>,
    /// Backends that were asked.
    pub(super) tries: u32,
    /// Why it did not come to a regular end.
    pub(super) cause: Option<&'a str>,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    Session,
}

impl Access {
    pub fn new(settings: &ConnectionLog, lines: &Lines) -> Self {
        Self {
            format: settings.format,
            errors_only: settings.errors_only,
            one_in: settings.sample_one_in.get() as usize,
            lines: lines.clone(),
        }
    }

    /// Whether something that ended so gets a line. `random` gives a number below its argument.
    pub(super) fn wants(&self, failed: bool, random: impl FnOnce(usize) -> usize) -> bool {
        failed || !self.errors_only && (self.one_in == 1 || random(self.one_in) == 0)
    }

    pub(super) fn write(&self, journal: &mut Journal, facts: &Facts<'_>) {
        journal.add(&self.lines, facts.duration, |out, time| write(out, self.format, time, facts));
    }
}

/// Appends one line. `time` is when it began.
fn write(out: &mut Vec<u8>, format: AccessLogFormat, time: &[u8], facts: &Facts<'_>) {
    let host = facts.host.map(str::as_bytes);
    let mut line = Line::new(out, format);
    line.token("time", Some(time));
    line.text("listener", Some(facts.listener.as_bytes()));
    line.shown("client", facts.client.as_ref());
    line.text("host", host.map(|host| host.get(..MOST_TEXT).unwrap_or(host)));
    line.number("receivedBytes", Some(facts.received));
    line.number("sentBytes", Some(facts.sent));
    line.seconds("durationSeconds", Some(facts.duration));
    line.seconds("connectSeconds", facts.connect);
    line.text("site", facts.site.map(str::as_bytes));
    line.text("backend", facts.backend.map(str::as_bytes));
    line.number("tries", Some(facts.tries.into()));
    line.token("cause", facts.cause.map(str::as_bytes));
    line.token("kind", Some(facts.kind.name()));
    line.end();
}

impl Kind {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Connection => b"Connection",
            Self::Session => b"Session",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn line(format: AccessLogFormat, facts: &Facts<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, format, b"2026-11-22T05:30:00.123Z", facts);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn both_formats_tell_the_same_of_a_connection() {
        let backend = "10.0.0.7:5432";
        let facts = Facts {
            kind: Kind::Connection,
            listener: "db",
            client: Some(([127, 0, 0, 1], 40000).into()),
            host: Some("db.example.com"),
            received: 1024,
            sent: 7,
            duration: Duration::from_micros(1_000_042),
            connect: Some(Duration::from_micros(350)),
            site: Some("all"),
            backend: Some(backend),
            tries: 2,
            cause: Some("BackendBroke"),
        };
        assert_eq!(
            line(AccessLogFormat::Json, &facts),
            "{\"time\":\"2026-11-22T05:30:00.123Z\",\"listener\":\"db\",\"client\":\"127.0.0.1:40000\",\"host\":\"db.example.com\",\
             \"receivedBytes\":1024,\"sentBytes\":7,\"durationSeconds\":1.000042,\"connectSeconds\":0.000350,\"site\":\"all\",\
             \"backend\":\"10.0.0.7:5432\",\"tries\":2,\"cause\":\"BackendBroke\",\"kind\":\"Connection\"}\n"
        );
        assert_eq!(
            line(AccessLogFormat::Text, &facts),
            "time=2026-11-22T05:30:00.123Z listener=db client=127.0.0.1:40000 host=db.example.com receivedBytes=1024 \
             sentBytes=7 durationSeconds=1.000042 connectSeconds=0.000350 site=all backend=10.0.0.7:5432 tries=2 \
             cause=BackendBroke kind=Connection\n"
        );
        let nothing = Facts {
            client: None,
            host: None,
            connect: None,
            site: None,
            backend: None,
            cause: None,
            ..facts
        };
        let json: serde_json::Value = serde_json::from_str(&line(AccessLogFormat::Json, &nothing)).unwrap();
        for field in ["client", "host", "connectSeconds", "site", "backend", "cause"] {
            assert!(json[field].is_null(), "{field}");
        }
    }

    #[test]
    fn a_log_has_what_is_asked_for_and_every_failure() {
        let lines = Lines::start(std::io::sink(), &mut Default::default()).unwrap();
        for (errors_only, one_in, failed, drawn, wanted) in [
            (false, 1, false, 0, true),
            (false, 1, true, 0, true),
            (false, 10, false, 0, true),
            (false, 10, false, 9, false),
            (false, 10, true, 9, true),
            (true, 1, false, 0, false),
            (true, 1, true, 0, true),
            (true, 10, true, 9, true),
        ] {
            let sample_one_in = NonZeroU32::new(one_in).unwrap();
            let access = Access::new(
                &ConnectionLog { errors_only, sample_one_in, ..ConnectionLog::default() },
                &lines,
            );
            assert_eq!(access.wants(failed, |_| drawn), wanted, "{errors_only} {one_in} {failed} {drawn}");
        }
    }
}
