//! What servers answer, byte for byte.

use super::*;
use crate::probe::dialog::tests::hears;

const PASSWORD: &str = "correct horse";

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, body].concat()
}

fn asks(kind: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], rest].concat())
}

fn error(code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{code}\0M{text}\0Rmain\0\0").as_bytes())
}

/// What comes after a login.
fn ready() -> Vec<u8> {
    let version = message(b'S', b"server_version\x0017.2\0");
    [asks(0, b""), version, message(b'K', &[0; 8]), message(b'Z', b"I")].concat()
}

/// The answer to the question for the role.
fn recovering(value: &[u8]) -> Vec<u8> {
    let row = [&[0, 1, 0, 0, 0, 1][..], value].concat();
    let columns = message(b'T', b"\0\x01pg_is_in_recovery\0\0\0\0\0\0\0\0\0\0\x10\0\x01\xff\xff\xff\xff\0\0");
    [columns, message(b'D', &row), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

fn settings(login: bool, role: Option<PostgresRole>) -> Postgres {
    let password_file = login.then(|| "/password".to_owned());
    Postgres { user: "monitor".to_owned(), database: None, password_file, role }
}

/// What was said, or why the server is no good.
fn talk(settings: &Postgres, private: bool, answers: &[&[u8]]) -> Result<Vec<Vec<u8>>, String> {
    let password = settings.password_file.as_ref().map(|_| Password::of(PASSWORD));
    let mut dialog = settings.dialog(password.as_ref(), private);
    let outcome = hears(&mut dialog, answers).map_err(|error| error.to_string());
    if let Err(error) = &outcome {
        assert!(!error.contains(PASSWORD), "{error}");
    }
    outcome
}

#[test]
fn without_a_login_a_server_that_asks_who_is_there_is_good() {
    let sasl = asks(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    for (case, answer) in [
        ("trust", asks(0, b"")),
        ("clear text", asks(3, b"")),
        ("MD5", asks(5, b"salt")),
        ("SCRAM", sasl),
        ("GSSAPI", asks(7, b"")),
        ("SSPI", asks(9, b"")),
        ("no line in pg_hba.conf", error("28000", "no pg_hba.conf entry for host")),
        ("no such database", error("3D000", "database \"monitor\" does not exist")),
        ("full", error("53300", "sorry, too many clients already")),
        ("a notice before it", [message(b'N', b"SNOTICE\0C00000\0Mhello\0\0"), asks(5, b"salt")].concat()),
    ] {
        let said =
            talk(&settings(false, None), false, &[&answer]).unwrap_or_else(|error| panic!("{case}: {error}"));
        let greeting = "\0\0\0\x53\0\x03\0\0user\0monitor\0database\0monitor\0application_name\0sidecar\0client_encoding\0UTF8\0\0";
        assert_eq!(said.len(), 1, "{case}");
        assert_eq!(String::from_utf8_lossy(&said[0][4..]), greeting[4..], "{case}");
    }
}

#[test]
fn a_server_that_takes_no_sessions_is_no_good_and_says_why() {
    for (answer, told) in [
        (
            error("57P03", "the database system is starting up"),
            "PostgreSQL answered: the database system is starting up (57P03)",
        ),
        (
            error("57P03", "the database system is shutting down"),
            "PostgreSQL answered: the database system is shutting down (57P03)",
        ),
        (
            error("57P01", "server is not accepting clients, try another node"),
            "PostgreSQL answered: server is not accepting clients, try another node (57P01)",
        ),
        (error("08P01", "server conn crashed?"), "PostgreSQL answered: server conn crashed? (08P01)"),
        (error("XX000", "a\nb"), "PostgreSQL answered: a b (XX000)"),
        (
            b"Ecould not fork new process for connection: Resource temporarily unavailable\n\0".to_vec(),
            "PostgreSQL answered, and could start no session: could not fork new process for connection: Resource temporarily \
             unavailable",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not the protocol of PostgreSQL"),
        (b"-ERR unknown command\r\n".to_vec(), "not the protocol of PostgreSQL"),
        (b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), "not the protocol of PostgreSQL"),
        (message(b'R', &[0, 0]), "not the protocol of PostgreSQL"),
        (message(b'Z', b"I"), "not the protocol of PostgreSQL"),
        (vec![b'R', 0, 0, 0, 3], "not the protocol of PostgreSQL"),
        (vec![b'R', 0xff, 0xff, 0xff, 0xff], "not the protocol of PostgreSQL"),
        (vec![b'R', 0, 0, 0], "it closed the connection without an answer"),
        (Vec::new(), "it closed the connection without an answer"),
    ] {
        let error = talk(&settings(false, None), false, &[&answer]).unwrap_err();
        assert!(error.contains(told), "{error}, not {told}");
    }
}

#[test]
fn a_login_says_the_password_as_it_is_asked_for() {
    let login = settings(true, None);
    let clear = message(b'p', format!("{PASSWORD}\0").as_bytes());
    assert_eq!(talk(&login, true, &[&asks(3, b""), &ready()]).unwrap()[1], clear);
    let hash = md5_hash(b"monitor", PASSWORD.as_bytes(), *b"salt");
    let hashed = message(b'p', format!("{hash}\0").as_bytes());
    assert_eq!(talk(&login, false, &[&asks(5, b"salt"), &ready()]).unwrap()[1], hashed);
    let first = &talk(&login, false, &[&asks(10, b"SCRAM-SHA-256\0\0"), &error("28P01", "no")]).unwrap_err();
    assert!(first.contains("does not let \"monitor\" in: no (28P01)"), "{first}");
    assert_eq!(talk(&login, false, &[&ready()]).unwrap().len(), 1, "nobody asks for a password");
}

#[test]
fn a_login_that_fails_says_why_and_never_the_password() {
    let scram = asks(10, b"SCRAM-SHA-256\0\0");
    let echoed = error("28P01", &format!("password {PASSWORD} is wrong"));
    for (answers, told) in [
        (vec![asks(3, b"")], "it asks for the password in clear text, which is sent within TLS alone"),
        (vec![asks(7, b"")], "a login by GSSAPI"),
        (vec![asks(10, b"OAUTHBEARER\0\0")], "a login by another mechanism of SASL"),
        (vec![asks(5, b"salt"), echoed], "does not let \"monitor\" in: password *** is wrong (28P01)"),
        (vec![scram.clone(), asks(0, b"")], "it could not prove that it knows the password"),
        (vec![scram.clone(), asks(11, b"r=other,s=c2FsdA==,i=4096")], "not the protocol of PostgreSQL"),
        (
            vec![scram.clone(), asks(11, b"r=other,s=c2FsdA==,i=4000000000")],
            "it asks for 4000000000 rounds of hashing",
        ),
        (vec![scram, asks(12, b"v=c2FsdA==")], "it could not prove that it knows the password"),
        (vec![asks(5, b"salt"), error("53300", "too many clients")], ""),
    ] {
        let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
        match talk(&settings(true, None), false, &answers) {
            Ok(_) => assert_eq!(told, "", "a full server is there"),
            Err(error) => assert!(!told.is_empty() && error.contains(told), "{error}, not {told}"),
        }
    }
    let error = talk(&settings(false, Some(PostgresRole::Primary)), false, &[&asks(5, b"salt")]).unwrap_err();
    assert_eq!(error, "it asks for a password, and the check has none; give it one");
}

#[test]
fn only_the_role_that_is_wanted_is_good() {
    use PostgresRole::{Primary, Replica};
    for (role, value, told) in [
        (Primary, &b"f"[..], None),
        (Replica, b"t", None),
        (Primary, b"t", Some("it is a replica, and the listener wants the primary")),
        (Replica, b"f", Some("it is the primary, and the listener wants a replica")),
        (Primary, b"x", Some("not the protocol of PostgreSQL")),
    ] {
        let settings = settings(false, Some(role));
        let outcome = talk(&settings, false, &[&ready(), &recovering(value)]);
        match told {
            None => {
                let query = message(b'Q', format!("{ASK_FOR_ROLE}\0").as_bytes());
                assert_eq!(outcome.unwrap().last(), Some(&query));
            }
            Some(told) => assert!(outcome.unwrap_err().contains(told), "{told}"),
        }
    }
    let wants = settings(true, Some(Primary));
    let full = error("53300", "sorry, too many clients already");
    let told = talk(&wants, false, &[&full]).unwrap_err();
    assert!(
        told.contains("no connection left to tell its role by: sorry, too many clients already"),
        "{told}"
    );
    assert!(Failure::from(PostgresFailure::Full { message: told }).is_full());
    let refused = error("42501", "permission denied for function pg_is_in_recovery");
    let told = talk(&wants, false, &[&ready(), &refused]).unwrap_err();
    assert_eq!(told, "PostgreSQL answered: permission denied for function pg_is_in_recovery (42501)");
}

#[test]
fn who_has_logged_in_says_goodbye() {
    let settings = settings(false, Some(PostgresRole::Primary));
    let mut dialog = settings.dialog(None, false);
    hears(&mut dialog, &[&ready(), &recovering(b"f")]).unwrap();
    assert_eq!(dialog.farewell().to_vec(), message(b'X', b""));
    assert_eq!(settings.dialog(None, false).farewell().to_vec(), b"");
}
