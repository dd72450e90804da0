//! Rules of what a listener does with requests beside balancing: limits on them, and who may send them.

use std::collections::HashMap;

use crds::config::{Authentication, HttpListener, LONGEST_PERIOD, RateLimit, RateLimitScope};

use super::Problem;

pub(super) fn check(listener: &HttpListener, path: &str, problems: &mut Vec<Problem>) {
    let mut names = HashMap::new();
    for (index, limit) in listener.rate_limits.iter().enumerate() {
        let path = format!("{path}.rateLimits[{index}]");
        if let Some(first) = names.insert(&limit.name, path.clone()) {
            problems.push(Problem::at(
                format!("{path}.name"),
                format!("{first} is named {:?} too", limit.name),
                "give each limit its own name",
            ));
        }
        rate_limit(limit, &path, problems);
    }
    if let Some(settings) = &listener.authentication {
        authentication(settings, listener, &format!("{path}.authentication"), problems);
    }
}

fn authentication(
    settings: &Authentication,
    listener: &HttpListener,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    if settings.api_keys.is_none() && !settings.client_certificates {
        let remedy = "write apiKeys, clientCertificates: true, or both";
        problems.push(Problem::at(path, "it says not how clients are known", remedy));
    }
    if settings.client_certificates && listener.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
        problems.push(Problem::at(
            format!("{path}.clientCertificates"),
            "the listener asks for no certificates",
            "add tls.clientCa, which verifies them",
        ));
    }
}

fn rate_limit(limit: &RateLimit, path: &str, problems: &mut Vec<Problem>) {
    let mut problem = |field: &str, message: String, remedy: &str| {
        problems.push(Problem::at(format!("{path}.{field}"), message, remedy));
    };
    if !limit.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        let message = format!("{:?} is not the name of a limit", limit.name);
        problem("name", message, "write lower-case letters, digits and dashes");
    }
    match (limit.scope, &limit.header) {
        (RateLimitScope::Header, None) => {
            problem(
                "header",
                "it is missing".to_owned(),
                "add header (the header whose values are told apart)",
            );
        }
        (RateLimitScope::Listener | RateLimitScope::Client, Some(_)) => {
            problem(
                "header",
                "only scope Header looks at one".to_owned(),
                "remove it, or write scope: Header",
            );
        }
        (RateLimitScope::Header | RateLimitScope::Listener | RateLimitScope::Client, _) => {}
    }
    if limit.per.as_std().is_zero() || limit.per > LONGEST_PERIOD {
        let message = format!("{} is no time to count requests over", limit.per);
        problem("per", message, "write a duration from 1ms to 24h");
    }
}
