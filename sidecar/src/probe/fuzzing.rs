//! What is promised of the answers of servers whatever their bytes are; a broken promise panics.

#![allow(clippy::unwrap_used, reason = "a broken promise panics")]

use bytes::BytesMut;
use crds::config::{PostgresRole, RedisRole};

use super::{
    Password, Postgres, Redis,
    dialog::{Dialog, Next},
};

/// Servers give it back where they can.
const PASSWORD: &str = "correct horse";

/// How often one of them says something, or what is wrong. `step` bytes come at once.
fn hear(dialog: &mut impl Dialog, bytes: &[u8], step: usize) -> Result<usize, String> {
    dialog.greeting().map_err(|error| error.to_string())?;
    let (mut heard, mut said) = (BytesMut::new(), 0);
    let mut pieces = bytes.chunks(step);
    loop {
        match dialog.hear(&mut heard).map_err(|error| error.to_string())? {
            Next::Good => return Ok(said),
            Next::Say(words) => {
                assert!(!words.is_empty());
                said += 1;
                assert!(said <= bytes.len(), "it talks by itself");
            }
            Next::Listen => match pieces.next() {
                Some(piece) => heard.extend_from_slice(piece),
                None => return Err("the end".to_owned()),
            },
        }
    }
}

/// The outcome is the same in whatever pieces the answer comes, and tells no password that there is.
fn judge<D: Dialog>(bytes: &[u8], password: Option<&Password>, dialog: impl Fn() -> D) {
    let whole = hear(&mut dialog(), bytes, bytes.len().max(1));
    for step in [1, 7] {
        assert_eq!(hear(&mut dialog(), bytes, step), whole);
    }
    if let Err(error) = whole {
        assert!(password.is_none() || !error.contains(PASSWORD), "{error}");
        assert!(!error.contains(char::is_control) && error.len() < 1_000, "{error}");
    }
}

fn password() -> Password {
    // A file would be read anew for each input.
    Password::of(PASSWORD)
}

/// Answers of PostgreSQL; the first byte says how it is asked.
pub fn postgres_answer(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let settings = Postgres {
        user: "monitor".to_owned(),
        database: None,
        password_file: (kind & 1 != 0).then(|| "password".to_owned()),
        role: (kind & 2 != 0).then_some(PostgresRole::Primary),
    };
    let password = settings.password_file.as_ref().map(|_| password());
    judge(bytes, password.as_ref(), || settings.dialog(password.as_ref(), kind & 4 != 0));
}

/// Answers of Redis; the first byte says how it is asked.
pub fn redis_answer(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let settings =
        Redis { user: None, password_file: None, role: (kind & 2 != 0).then_some(RedisRole::Master) };
    let password = (kind & 1 != 0).then(password);
    judge(bytes, password.as_ref(), || settings.dialog(password.as_ref()));
}
