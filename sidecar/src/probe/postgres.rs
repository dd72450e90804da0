//! The first words of a PostgreSQL session: startup -> who are you -> (login -> role). Without a login the question who is there
//! is answer enough: it shows a server that takes sessions.

use std::io;

use bytes::BytesMut;
use crds::config::PostgresRole;
use fallible_iterator::FallibleIterator;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::{
        backend::{ErrorFields, Header, Message},
        frontend,
    },
};

use super::{
    Failure, Password,
    dialog::{Dialog, MOST, Next, shown},
};

/// True on a replica, and on a server that was restored and has not ended its recovery.
const ASK_FOR_ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// What the servers of a listener are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    pub user: String,
    /// The one of the user's name if there is none.
    pub database: Option<String>,
    pub password_file: Option<String>,
    pub role: Option<PostgresRole>,
}

/// What is wrong with a server's answer, in words for users.
#[derive(Debug, thiserror::Error)]
pub enum PostgresFailure {
    #[error("PostgreSQL answered: {message} ({code})")]
    Answered { message: String, code: String },
    #[error(
        "PostgreSQL does not let {user:?} in: {message} ({code}); correct user, password or database of the check, or pg_hba.conf"
    )]
    Login { user: String, message: String, code: String },
    #[error(
        "PostgreSQL has no connection left to tell its role by: {message} (53300); grant pg_use_reserved_connections to the user of the check, or raise max_connections"
    )]
    Full { message: String },
    #[error("PostgreSQL answered, and could start no session: {message}")]
    NoSession { message: String },
    #[error("what it answers is not the protocol of PostgreSQL; correct the port, or the check")]
    Foreign,
    #[error("it asks for a password, and the check has none; give it one")]
    NoPassword,
    #[error(
        "it asks for the password in clear text, which is sent within TLS alone; set tls, or have it ask by SCRAM"
    )]
    ClearText,
    #[error("it asks for a login by {0}, which the check cannot do; let its user in by SCRAM in pg_hba.conf")]
    Method(&'static str),
    #[error(
        "it asks for {0} rounds of hashing at a login, and a check makes {MOST_ROUNDS} at most; set its password anew with a smaller scram_iterations"
    )]
    Rounds(u32),
    #[error("it could not prove that it knows the password itself; somebody else may answer at its address")]
    Unproven,
}

impl Postgres {
    /// `private`: nobody but the server hears what is said.
    pub(super) fn dialog<'a>(&'a self, password: Option<&'a Password>, private: bool) -> Talk<'a> {
        Talk { settings: self, password, private, state: State::Greeted }
    }

    fn logs_in(&self) -> bool {
        self.password_file.is_some() || self.role.is_some()
    }
}

/// One talk with one server.
pub(super) struct Talk<'a> {
    settings: &'a Postgres,
    password: Option<&'a Password>,
    private: bool,
    state: State,
}

enum State {
    /// The startup message was sent.
    Greeted,
    /// The password, or a proof that it is known, was sent, and needs no proof in return.
    Told,
    /// SCRAM's first message was sent, or its second.
    Proving(Box<ScramSha256>),
    /// The server has proven that it knows the password.
    Proven,
    /// Logged in.
    In,
    /// The role was asked for.
    Asked,
    /// It was told.
    Knows(PostgresRole),
}

impl Dialog for Talk<'_> {
    fn greeting(&mut self) -> Result<BytesMut, Failure> {
        let database = self.settings.database.as_deref().unwrap_or(&self.settings.user);
        let parameters = [
            ("user", self.settings.user.as_str()),
            ("database", database),
            ("application_name", "sidecar"),
            ("client_encoding", "UTF8"),
        ];
        written(|words| frontend::startup_message(parameters, words))
    }

    fn hear(&mut self, heard: &mut BytesMut) -> Result<Next, Failure> {
        while let Some(message) = self.message(heard)? {
            if let Some(next) = self.take(message)? {
                return Ok(next);
            }
        }
        Ok(Next::Listen)
    }

    fn farewell(&self) -> BytesMut {
        let mut words = BytesMut::new();
        // Who has not logged in goes without a word.
        if matches!(self.state, State::In | State::Knows(_)) {
            frontend::terminate(&mut words);
        }
        words
    }
}

impl<'a> Talk<'a> {
    /// One whole message, if it is there.
    fn message(&self, heard: &mut BytesMut) -> Result<Option<Message>, PostgresFailure> {
        let Some(tag) = heard.first().copied() else { return Ok(None) };
        let foreign = |_| PostgresFailure::Foreign;
        match Header::parse(heard) {
            // An answer from before there were lengths: what a server says that cannot even start a process.
            Ok(Some(header)) if is_long(header) && tag == b'E' && heard.len() < LONGEST_TEXT => {
                return match heard.contains(&0) {
                    true => Err(no_session(&heard[1..], self.secret())),
                    false => Ok(None),
                };
            }
            // The parser would make room for all that is announced.
            Ok(Some(header)) if is_long(header) => return Err(PostgresFailure::Foreign),
            Ok(_) => {}
            Err(error) => return Err(foreign(error)),
        }
        Message::parse(heard).map_err(foreign)
    }

    /// What follows from a message; none where the next one must be heard.
    fn take(&mut self, message: Message) -> Result<Option<Next>, Failure> {
        use Message as M;
        if let M::ErrorResponse(error) = &message {
            return self.error(error.fields()).map(Some);
        }
        if let M::NoticeResponse(_) | M::ParameterStatus(_) = &message {
            return Ok(None);
        }
        match (&mut self.state, message) {
            (
                State::Greeted,
                M::AuthenticationOk
                | M::AuthenticationCleartextPassword
                | M::AuthenticationMd5Password(_)
                | M::AuthenticationSasl(_)
                | M::AuthenticationGss
                | M::AuthenticationSspi
                | M::AuthenticationKerberosV5
                | M::AuthenticationScmCredential,
            ) if !self.settings.logs_in() => Ok(Some(Next::Good)),
            (State::Greeted | State::Told | State::Proven, M::AuthenticationOk) => {
                self.state = State::In;
                Ok(None)
            }
            (State::Greeted, M::AuthenticationCleartextPassword) => {
                let password = self.password()?;
                if !self.private {
                    return Err(PostgresFailure::ClearText.into());
                }
                self.state = State::Told;
                say(|words| frontend::password_message(password, words))
            }
            (State::Greeted, M::AuthenticationMd5Password(body)) => {
                let password = self.password()?;
                let hash = md5_hash(self.settings.user.as_bytes(), password, body.salt());
                self.state = State::Told;
                say(|words| frontend::password_message(hash.as_bytes(), words))
            }
            (State::Greeted, M::AuthenticationSasl(body)) => {
                let mut mechanisms = body.mechanisms();
                let scram = mechanisms.any(|name| Ok(name == SCRAM_SHA_256));
                if !scram.map_err(|_| PostgresFailure::Foreign)? {
                    return Err(PostgresFailure::Method("another mechanism of SASL").into());
                }
                let scram = ScramSha256::new(self.password()?, ChannelBinding::unsupported());
                let said =
                    say(|words| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), words));
                self.state = State::Proving(Box::new(scram));
                said
            }
            (State::Proving(scram), M::AuthenticationSaslContinue(body)) => {
                let rounds = rounds(body.data()).ok_or(PostgresFailure::Foreign)?;
                if rounds > MOST_ROUNDS {
                    return Err(PostgresFailure::Rounds(rounds).into());
                }
                scram.update(body.data()).map_err(|_| PostgresFailure::Foreign)?;
                say(|words| frontend::sasl_response(scram.message(), words))
            }
            (State::Proving(scram), M::AuthenticationSaslFinal(body)) => {
                scram.finish(body.data()).map_err(|_| PostgresFailure::Unproven)?;
                self.state = State::Proven;
                Ok(None)
            }
            (State::Proving(_), M::AuthenticationOk) => Err(PostgresFailure::Unproven.into()),
            (State::Greeted, M::AuthenticationGss) => Err(PostgresFailure::Method("GSSAPI").into()),
            (State::Greeted, M::AuthenticationSspi) => Err(PostgresFailure::Method("SSPI").into()),
            (State::Greeted, M::AuthenticationKerberosV5) => Err(PostgresFailure::Method("Kerberos").into()),
            (State::In, M::BackendKeyData(_)) => Ok(None),
            (State::In, M::ReadyForQuery(_)) if self.settings.role.is_none() => Ok(Some(Next::Good)),
            (State::In, M::ReadyForQuery(_)) => {
                self.state = State::Asked;
                say(|words| frontend::query(ASK_FOR_ROLE, words))
            }
            (State::Asked, M::RowDescription(_)) | (State::Knows(_), M::CommandComplete(_)) => Ok(None),
            (State::Asked, M::DataRow(row)) => {
                let range = row.ranges().next().ok().flatten().flatten();
                let value = range.and_then(|range| row.buffer().get(range));
                self.state = State::Knows(match value {
                    Some(b"t") => PostgresRole::Replica,
                    Some(b"f") => PostgresRole::Primary,
                    _ => return Err(PostgresFailure::Foreign.into()),
                });
                Ok(None)
            }
            (State::Knows(found), M::ReadyForQuery(_)) => match self.settings.role {
                Some(wanted) if wanted != *found => Err(Failure::role(named(*found), named(wanted))),
                _ => Ok(Some(Next::Good)),
            },
            _ => Err(PostgresFailure::Foreign.into()),
        }
    }

    fn error(&self, mut fields: ErrorFields<'_>) -> Result<Next, Failure> {
        let (mut code, mut message) = (String::new(), String::new());
        while let Some(field) = fields.next().map_err(|_| PostgresFailure::Foreign)? {
            match field.type_() {
                b'C' => code = shown(field.value_bytes(), self.secret()),
                b'M' => message = shown(field.value_bytes(), self.secret()),
                _ => {}
            }
        }
        let class = code.get(..2).unwrap_or_default();
        let full = code == FULL;
        // As pg_isready has it: who knows neither user nor database, or has no room, is there all the same. A full server that
        // were taken out would fill the next.
        if full && self.settings.role.is_none() || !self.settings.logs_in() && matches!(class, "28" | "3D") {
            return Ok(Next::Good);
        }
        Err(match class {
            _ if full => PostgresFailure::Full { message },
            "28" | "3D" => PostgresFailure::Login { user: self.settings.user.clone(), message, code },
            _ => PostgresFailure::Answered { message, code },
        }
        .into())
    }

    fn password(&self) -> Result<&'a [u8], PostgresFailure> {
        self.secret().ok_or(PostgresFailure::NoPassword)
    }

    fn secret(&self) -> Option<&'a [u8]> {
        self.password.map(Password::as_bytes)
    }
}

/// More sessions than the server, the database or the user may have.
const FULL: &str = "53300";

/// Rounds of hashing in one login by SCRAM: some 50 ms. PostgreSQL makes 4096 unless it is told otherwise.
const MOST_ROUNDS: u32 = 100_000;

/// Longest text of a server that could start no session.
const LONGEST_TEXT: usize = 4 << 10;

/// Whether a message is longer than any that a server sends here.
fn is_long(header: Header) -> bool {
    usize::try_from(header.len()).map_or(true, |length| length >= MOST)
}

/// How many rounds of hashing the server's first message of SCRAM asks for.
fn rounds(message: &[u8]) -> Option<u32> {
    let attribute =
        message.split(|byte| *byte == b',').find_map(|attribute| attribute.strip_prefix(b"i="))?;
    std::str::from_utf8(attribute).ok()?.parse().ok()
}

fn named(role: PostgresRole) -> &'static str {
    match role {
        PostgresRole::Primary => "the primary",
        PostgresRole::Replica => "a replica",
    }
}

fn no_session(words: &[u8], secret: Option<&[u8]>) -> PostgresFailure {
    let end = words.iter().position(|byte| *byte == 0).unwrap_or(words.len());
    PostgresFailure::NoSession { message: shown(&words[..end], secret) }
}

fn say(write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<Option<Next>, Failure> {
    written(write).map(|words| Some(Next::Say(words)))
}

/// Fails for texts with a null byte, which neither configuration nor passwords have.
fn written(write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<BytesMut, Failure> {
    let mut words = BytesMut::new();
    write(&mut words).map_err(Failure::Connect)?;
    Ok(words)
}

#[cfg(test)]
#[path = "postgres_tests.rs"]
mod tests;
