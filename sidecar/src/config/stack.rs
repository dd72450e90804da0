//! Rules of what a listener does with requests beside balancing: limits on them, and who may send them.

use std::collections::HashMap;

use crds::{
    config::{
        Authentication, HttpListener, Jwt, LONGEST_LEEWAY, LONGEST_PERIOD, LONGEST_REFRESH, RateLimit,
        RateLimitScope, SHORTEST_REFRESH,
    },
    units::HttpUrl,
};

use super::{Problem, rules::backend_tls};

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
    let export = listener.tracing.as_ref().and_then(|tracing| tracing.export.as_ref());
    if export.is_some_and(|export| export.tls.is_some() && !export.url.is_secure()) {
        let path = format!("{path}.tracing.export.tls");
        problems.push(Problem::at(
            path,
            "only an https URL is met within TLS",
            "remove it, or write such a url",
        ));
    }
    if let Some(tls) = export.and_then(|export| export.tls.as_ref()) {
        backend_tls(tls, &format!("{path}.tracing.export.tls"), problems);
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
    if settings.api_keys.is_none() && settings.jwt.is_none() && !settings.client_certificates {
        let remedy = "write apiKeys, jwt, clientCertificates: true, or several of them";
        problems.push(Problem::at(path, "it says not how clients are known", remedy));
    }
    if settings.client_certificates && listener.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
        problems.push(Problem::at(
            format!("{path}.clientCertificates"),
            "the listener asks for no certificates",
            "add tls.clientCa, which verifies them",
        ));
    }
    if let (Some(keys), Some(jwt)) = (&settings.api_keys, &settings.jwt)
        && keys.header.eq_ignore_ascii_case(&jwt.header)
    {
        let message = format!("apiKeys are looked for in {} too", keys.header);
        problems.push(Problem::at(format!("{path}.jwt.header"), message, "write two different headers"));
    }
    if let Some(jwt) = &settings.jwt {
        self::jwt(jwt, &format!("{path}.jwt"), problems);
    }
    for (index, rule) in settings.allow.iter().enumerate() {
        let path = format!("{path}.allow[{index}]");
        if rule.names.is_empty() && rule.claims.is_empty() {
            problems.push(Problem::at(path, "it lets in nobody", "write names, claims, or both"));
        } else if !rule.claims.is_empty() && settings.jwt.is_none() {
            problems.push(Problem::at(format!("{path}.claims"), "claims are those of tokens", "add jwt"));
        }
    }
}

fn jwt(jwt: &Jwt, path: &str, problems: &mut Vec<Problem>) {
    let jwks = &jwt.jwks;
    if let Some(tls) = &jwks.tls {
        backend_tls(tls, &format!("{path}.jwks.tls"), problems);
    }
    let mut problem = |field: &str, message: String, remedy: &str| {
        problems.push(Problem::at(format!("{path}.{field}"), message, remedy));
    };
    match (&jwks.file, &jwks.url) {
        (None, None) => problem("jwks", "it says not where the keys are".to_owned(), "write file or url"),
        (Some(_), Some(_)) => problem("jwks", "it has a file and a url".to_owned(), "remove one of them"),
        _ => {}
    }
    if jwks.tls.is_some() && !jwks.url.as_ref().is_some_and(HttpUrl::is_secure) {
        problem(
            "jwks.tls",
            "only an https URL is met within TLS".to_owned(),
            "remove it, or write such a url",
        );
    }
    if jwks.refresh < SHORTEST_REFRESH || jwks.refresh > LONGEST_REFRESH {
        problem(
            "jwks.refresh",
            format!("{} is out of range", jwks.refresh),
            "write a duration from 10s to 24h",
        );
    }
    if jwt.leeway > LONGEST_LEEWAY {
        problem("leeway", format!("{} is too much", jwt.leeway), "write a duration of at most 10m");
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
