//! PING of a Redis server: (AUTH ->) PING -> (ROLE). Its answers are read as RESP, no further than the check needs.

use bytes::{Buf, BufMut, BytesMut};
use crds::config::RedisRole;

use super::{
    Failure, Password,
    dialog::{Dialog, Next, shown},
};

/// Longest line of an answer; errors of Redis are shorter.
const LONGEST_LINE: usize = 4 << 10;

/// More connections than the server may have.
const FULL: &[u8] = b"ERR max number of clients reached";

/// What the servers of a listener are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// `default` if there is none.
    pub user: Option<String>,
    pub password_file: Option<String>,
    pub role: Option<RedisRole>,
}

/// What is wrong with a server's answer, in words for users.
#[derive(Debug, thiserror::Error)]
pub enum RedisFailure {
    #[error("Redis answered to {asked}: {answer}")]
    Answered { asked: &'static str, answer: String },
    #[error("Redis has no connection left to tell its role by; raise maxclients")]
    Full,
    #[error("Redis asks for a password, and the check has none; give it one")]
    NoPassword,
    #[error("Redis does not take the user or the password of the check; correct them")]
    Login,
    #[error("Redis has no password, and the check sends one; remove it, or set requirepass")]
    Open,
    #[error("what it answers is not the protocol of Redis; correct the port, or the check")]
    Foreign,
}

impl Redis {
    pub(super) fn dialog<'a>(&'a self, password: Option<&'a Password>) -> Talk<'a> {
        Talk { settings: self, password, asked: if password.is_some() { Asked::Auth } else { Asked::Ping } }
    }
}

/// One talk with one server.
pub(super) struct Talk<'a> {
    settings: &'a Redis,
    password: Option<&'a Password>,
    asked: Asked,
}

/// What was said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Auth,
    Ping,
    Role,
}

/// The beginning of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// A line that is no error.
    Word(Vec<u8>),
    Error(Vec<u8>),
}

impl Dialog for Talk<'_> {
    fn greeting(&mut self) -> Result<BytesMut, Failure> {
        let Some(password) = self.password else { return Ok(command(&[b"PING"])) };
        Ok(match &self.settings.user {
            Some(user) => command(&[b"AUTH", user.as_bytes(), password.as_bytes()]),
            None => command(&[b"AUTH", password.as_bytes()]),
        })
    }

    fn hear(&mut self, heard: &mut BytesMut) -> Result<Next, Failure> {
        let answer = match self.asked {
            Asked::Auth | Asked::Ping => line(heard)?,
            Asked::Role => first(heard)?,
        };
        let Some(answer) = answer else { return Ok(Next::Listen) };
        match (self.asked, answer) {
            // Said before it reads anything. A full server that were taken out would fill the next.
            (Asked::Auth | Asked::Ping, Answer::Error(error)) if error == FULL => {
                if self.settings.role.is_none() { Ok(Next::Good) } else { Err(RedisFailure::Full.into()) }
            }
            (Asked::Auth, Answer::Word(word)) if word == b"OK" => {
                self.asked = Asked::Ping;
                Ok(Next::Say(command(&[b"PING"])))
            }
            (Asked::Auth, Answer::Error(error)) => Err(self.refused(&error).into()),
            (Asked::Ping, Answer::Word(word)) if word == b"PONG" => {
                if self.settings.role.is_none() {
                    return Ok(Next::Good);
                }
                self.asked = Asked::Role;
                Ok(Next::Say(command(&[b"ROLE"])))
            }
            (Asked::Ping, Answer::Error(error)) if error.starts_with(b"NOAUTH") => {
                Err(RedisFailure::NoPassword.into())
            }
            (Asked::Ping | Asked::Role, Answer::Error(error)) => Err(self.answered(&error).into()),
            (Asked::Role, Answer::Word(word)) => self.judge(&word),
            (Asked::Auth | Asked::Ping, Answer::Word(_)) => Err(RedisFailure::Foreign.into()),
        }
    }

    fn farewell(&self) -> BytesMut {
        BytesMut::new()
    }
}

impl Talk<'_> {
    fn judge(&self, role: &[u8]) -> Result<Next, Failure> {
        let found = match role {
            b"master" => Some(RedisRole::Master),
            b"slave" | b"replica" => Some(RedisRole::Replica),
            b"sentinel" => None,
            _ => return Err(RedisFailure::Foreign.into()),
        };
        match self.settings.role {
            Some(wanted) if found != Some(wanted) => {
                Err(Failure::role(found.map_or("a sentinel", named), named(wanted)))
            }
            _ => Ok(Next::Good),
        }
    }

    /// The answer to AUTH: of other errors only the kind is told, since some servers give back what they were sent.
    fn refused(&self, error: &[u8]) -> RedisFailure {
        let has = |words: &[u8]| memchr::memmem::find(error, words).is_some();
        if error.starts_with(b"WRONGPASS") || has(b"invalid password") {
            return RedisFailure::Login;
        }
        if has(b"without any password") || has(b"no password is set") {
            return RedisFailure::Open;
        }
        let known = ["ERR", "NOPERM", "NOAUTH", "DENIED", "LOADING", "BUSY", "MASTERDOWN"];
        let kind = known.into_iter().find(|kind| error.starts_with(kind.as_bytes()));
        let answer = kind.map_or("another error".to_owned(), |kind| format!("an error, {kind}"));
        RedisFailure::Answered { asked: "AUTH", answer }
    }

    fn answered(&self, error: &[u8]) -> RedisFailure {
        let asked = if self.asked == Asked::Role { "ROLE" } else { "PING" };
        RedisFailure::Answered { asked, answer: shown(error, self.password.map(Password::as_bytes)) }
    }
}

fn named(role: RedisRole) -> &'static str {
    match role {
        RedisRole::Master => "the master",
        RedisRole::Replica => "a replica",
    }
}

/// A command as RESP: an array of strings.
fn command(words: &[&[u8]]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        bytes.put_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.put_slice(word);
        bytes.put_slice(b"\r\n");
    }
    bytes
}

/// Takes an answer of one line; none while it is not whole.
fn line(heard: &mut BytesMut) -> Result<Option<Answer>, RedisFailure> {
    match heard.first() {
        None => return Ok(None),
        Some(b'+' | b'-') => {}
        Some(_) => return Err(RedisFailure::Foreign),
    }
    let Some((line, length)) = line_at(heard, 0)? else { return Ok(None) };
    let words = line[1..].to_vec();
    let answer = if line[0] == b'+' { Answer::Word(words) } else { Answer::Error(words) };
    heard.advance(length);
    Ok(Some(answer))
}

/// The first text of an array, or an error; none while it is not there. The rest stays unread.
fn first(heard: &mut BytesMut) -> Result<Option<Answer>, RedisFailure> {
    if matches!(heard.first(), None | Some(b'-')) {
        return line(heard);
    }
    let Some((count, at)) = line_at(heard, 0)? else { return Ok(None) };
    number(count, b'*').filter(|count| *count > 0).ok_or(RedisFailure::Foreign)?;
    let Some((length, start)) = line_at(heard, at)? else { return Ok(None) };
    let length =
        number(length, b'$').filter(|length| *length <= LONGEST_LINE).ok_or(RedisFailure::Foreign)?;
    match heard.get(start..start + length + 2) {
        None => Ok(None),
        Some(text) if text.ends_with(b"\r\n") => Ok(Some(Answer::Word(text[..length].to_vec()))),
        Some(_) => Err(RedisFailure::Foreign),
    }
}

/// The line that begins there without its end, and where the next one begins; none while it is not whole.
fn line_at(heard: &[u8], from: usize) -> Result<Option<(&[u8], usize)>, RedisFailure> {
    let rest = &heard[from..];
    match memchr::memmem::find(rest, b"\r\n") {
        Some(end) if end <= LONGEST_LINE => Ok(Some((&rest[..end], from + end + 2))),
        None if rest.len() <= LONGEST_LINE => Ok(None),
        _ => Err(RedisFailure::Foreign),
    }
}

/// A number after its sign of kind.
fn number(line: &[u8], kind: u8) -> Option<usize> {
    let (first, digits) = line.split_first()?;
    let digits = (*first == kind && digits.iter().all(u8::is_ascii_digit)).then_some(digits)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
#[path = "redis_tests.rs"]
mod tests;
