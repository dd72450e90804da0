//! Tells a backend of the client. Pure.
//!
//! X-Forwarded-For is a list that each proxy adds to. The other two are about the first proxy that the client met, so that
//! they are left as they are where there is one before this.

use std::{io::Write as _, net::IpAddr};

use super::message::Fields;

/// Fields that a request's own are replaced by.
pub(super) const REPLACED: &[&str] = &["x-forwarded-for"];

/// The client's address as others know it. `own` stands for one on loopback or behind a Unix socket, which is this machine
/// or pod itself.
pub(super) fn client(peer: Option<IpAddr>, own: Option<IpAddr>) -> Option<IpAddr> {
    match peer.map(|peer| peer.to_canonical()) {
        Some(peer) if peer.is_loopback() => Some(own.unwrap_or(peer)),
        Some(peer) => Some(peer),
        None => own,
    }
}

/// Writes the lines for a request with these fields, for this host.
pub(super) fn write(lines: &mut Vec<u8>, fields: &Fields, host: &[u8], client: IpAddr) {
    lines.extend_from_slice(b"X-Forwarded-For: ");
    for earlier in fields.all("x-forwarded-for").filter(|earlier| !earlier.is_empty()) {
        lines.extend_from_slice(earlier);
        lines.extend_from_slice(b", ");
    }
    // Writing to a Vec cannot fail.
    let _ = write!(lines, "{client}\r\n");
    if fields.get("x-real-ip").is_none() {
        let _ = write!(lines, "X-Real-IP: {client}\r\n");
    }
    if fields.get("x-forwarded-host").is_none() && !host.is_empty() {
        lines.extend_from_slice(b"X-Forwarded-Host: ");
        lines.extend_from_slice(host);
        lines.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::RequestHead;

    fn lines(fields: &str, client: &str) -> String {
        let mut head = RequestHead::default();
        head.parse(format!("GET / HTTP/1.1\r\nHost: s3:9000\r\n{fields}\r\n").as_bytes()).unwrap().unwrap();
        let mut lines = Vec::new();
        write(&mut lines, &head.fields, head.host(), client.parse().unwrap());
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn a_backend_learns_of_the_client_and_the_host_that_it_asked_for() {
        assert_eq!(
            lines("", "10.1.2.3"),
            "X-Forwarded-For: 10.1.2.3\r\nX-Real-IP: 10.1.2.3\r\nX-Forwarded-Host: s3:9000\r\n"
        );
    }

    #[test]
    fn what_an_earlier_proxy_said_stays() {
        let earlier = "x-forwarded-for: 1.1.1.1, 2.2.2.2\r\nX-FORWARDED-FOR: 3.3.3.3\r\nX-Forwarded-For:\r\n\
                       X-Forwarded-Host: a\r\nX-Real-IP: 1.1.1.1\r\n";
        assert_eq!(lines(earlier, "fd00::1"), "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, fd00::1\r\n");
    }

    #[test]
    fn a_client_on_this_machine_is_known_by_its_address() {
        let own = Some("10.0.0.9");
        for (peer, own, client_is) in [
            (Some("127.0.0.1"), own, own),
            (Some("::1"), own, own),
            (Some("::ffff:127.0.0.1"), own, own),
            (None, own, own),
            (Some("127.0.0.1"), None, Some("127.0.0.1")),
            (None, None, None),
            (Some("::ffff:10.1.1.1"), own, Some("10.1.1.1")),
            (Some("fd00::1"), own, Some("fd00::1")),
        ] {
            let ip = |text: Option<&str>| text.map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(client(ip(peer), ip(own)), ip(client_is));
        }
    }
}
