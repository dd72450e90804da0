//! Servers, names, and the programs that ask them.

mod account;
mod client;
mod names;
mod namespace;
mod postgres;
mod redis;
mod tls;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

pub(crate) use client::run;
pub(crate) use names::{Names, dig};
pub(crate) use namespace::{here, in_a_namespace};
pub(crate) use postgres::{Postgres, psql, psql_with};
pub(crate) use redis::{Redis, redis_cli};
pub(crate) use tls::Authority;

/// Longest that anything here takes, on a machine that does much else.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Asks until there is a value. An error is a reason to ask again, and is told when the time is up.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        let outcome = condition();
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if began.elapsed() > DEADLINE {
            match outcome {
                Err(error) => return Err(error.context(format!("not within {DEADLINE:?}: {what}"))),
                Ok(_) => bail!("not within {DEADLINE:?}: {what}"),
            }
        }
        std::thread::park_timeout(POLL);
    }
}

/// A source of these addresses, as an item of a listener's backends.
pub(crate) fn addresses(of: &[SocketAddr]) -> String {
    let quoted: Vec<String> = of.iter().map(|address| format!("\"{address}\"")).collect();
    format!("{{addresses: [{}]}}", quoted.join(", "))
}
