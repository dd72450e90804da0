//! What servers answer, byte for byte.

use super::*;
use crate::probe::dialog::tests::hears;

const PASSWORD: &str = "correct horse";

fn settings(user: Option<&str>, role: Option<RedisRole>) -> Redis {
    Redis { user: user.map(str::to_owned), password_file: None, role }
}

/// What was said, or why the server is no good.
fn talk(settings: &Redis, password: bool, answers: &[&str]) -> Result<Vec<String>, String> {
    let password = password.then(|| Password::of(PASSWORD));
    let answers: Vec<&[u8]> = answers.iter().map(|answer| answer.as_bytes()).collect();
    let said = hears(&mut settings.dialog(password.as_ref()), &answers).map_err(|error| {
        let error = error.to_string();
        assert!(!error.contains(PASSWORD), "{error}");
        error
    });
    said.map(|said| said.into_iter().map(|words| String::from_utf8(words).unwrap()).collect())
}

#[test]
fn a_pong_is_good_and_all_else_says_what_came() {
    let plain = settings(None, None);
    assert_eq!(talk(&plain, false, &["+PO", "NG\r\n"]).unwrap(), ["*1\r\n$4\r\nPING\r\n"]);
    for (answer, told) in [
        (
            "-LOADING Redis is loading the dataset in memory\r\n",
            "Redis answered to PING: LOADING Redis is loading the dataset in memory",
        ),
        (
            "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
            "Redis answered to PING: MASTERDOWN Link with MASTER is down",
        ),
        (
            "-NOAUTH Authentication required.\r\n",
            "Redis asks for a password, and the check has none; give it one",
        ),
        ("+OK\r\n", "not the protocol of Redis"),
        ("HTTP/1.1 400 Bad Request\r\n", "not the protocol of Redis"),
        ("$4\r\nPONG\r\n", "not the protocol of Redis"),
        ("+PONG", "it closed the connection without an answer"),
    ] {
        let error = talk(&plain, false, &[answer]).unwrap_err();
        assert!(error.starts_with(told) || error.contains(told), "{error}, not {told}");
    }
    let endless = "+".repeat(LONGEST_LINE + 2);
    assert!(talk(&plain, false, &[&endless]).unwrap_err().contains("not the protocol of Redis"));
}

#[test]
fn a_full_server_is_there_and_does_not_tell_its_role() {
    for password in [false, true] {
        let full = |role| talk(&settings(None, role), password, &["-ERR max number of clients reached\r\n"]);
        assert_eq!(full(None).unwrap().len(), 1, "it is there");
        assert_eq!(
            full(Some(RedisRole::Master)).unwrap_err(),
            "Redis has no connection left to tell its role by; raise maxclients"
        );
    }
    assert!(Failure::from(RedisFailure::Full).is_full());
    assert!(!Failure::from(RedisFailure::Login).is_full());
}

#[test]
fn a_password_is_sent_first_with_its_user_or_without() {
    for (user, auth) in [
        (None, "*2\r\n$4\r\nAUTH\r\n$13\r\ncorrect horse\r\n"),
        (Some("monitor"), "*3\r\n$4\r\nAUTH\r\n$7\r\nmonitor\r\n$13\r\ncorrect horse\r\n"),
    ] {
        let said = talk(&settings(user, None), true, &["+OK\r\n", "+PONG\r\n"]).unwrap();
        assert_eq!(said, [auth, "*1\r\n$4\r\nPING\r\n"]);
    }
    for (answer, told) in [
        (
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
            "Redis does not take the user or the password of the check; correct them",
        ),
        (
            "-ERR invalid password\r\n",
            "Redis does not take the user or the password of the check; correct them",
        ),
        (
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure?\r\n",
            "Redis has no password, and the check sends one; remove it, or set requirepass",
        ),
        (
            "-ERR unknown command 'AUTH', with args beginning with: 'correct horse'\r\n",
            "Redis answered to AUTH: an error, ERR",
        ),
        ("-correct horse\r\n", "Redis answered to AUTH: another error"),
    ] {
        assert_eq!(talk(&settings(None, None), true, &[answer]).unwrap_err(), told);
    }
    let echo = talk(&settings(None, None), true, &["+OK\r\n", "-ERR correct horse?\r\n"]).unwrap_err();
    assert_eq!(echo, "Redis answered to PING: ERR ***?");
}

#[test]
fn only_the_role_that_is_wanted_is_good() {
    use RedisRole::{Master, Replica};
    let master = "*3\r\n$6\r\nmaster\r\n:3129659\r\n*0\r\n";
    let replica = "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:9000\r\n$9\r\nconnected\r\n:3167038\r\n";
    for (role, answer, told) in [
        (Master, master, None),
        (Replica, replica, None),
        (Replica, "*1\r\n$7\r\nreplica\r\n", None),
        (Master, replica, Some("it is a replica, and the listener wants the master")),
        (Replica, master, Some("it is the master, and the listener wants a replica")),
        (
            Master,
            "*2\r\n$8\r\nsentinel\r\n*0\r\n",
            Some("it is a sentinel, and the listener wants the master"),
        ),
        (
            Master,
            "-NOPERM this user has no permissions to run the 'role' command\r\n",
            Some("Redis answered to ROLE: NOPERM this user has no permissions to run the 'role' command"),
        ),
        (
            Master,
            "*0\r\n",
            Some("what it answers is not the protocol of Redis; correct the port, or the check"),
        ),
        (
            Master,
            "*1\r\n$4\r\nking\r\n",
            Some("what it answers is not the protocol of Redis; correct the port, or the check"),
        ),
        (
            Master,
            "*1\r\n$99999\r\n",
            Some("what it answers is not the protocol of Redis; correct the port, or the check"),
        ),
        (
            Master,
            "*1\r\n$1\r\nmaster\r\n",
            Some("what it answers is not the protocol of Redis; correct the port, or the check"),
        ),
        (Master, "*3\r\n$6\r\nmast", Some("it closed the connection without an answer")),
    ] {
        let outcome = talk(&settings(None, Some(role)), false, &["+PONG\r\n", answer]);
        match told {
            None => assert_eq!(outcome.unwrap()[1], "*1\r\n$4\r\nROLE\r\n"),
            Some(told) => assert_eq!(outcome.unwrap_err(), told, "{answer}"),
        }
    }
    // As it may come off the wire.
    let bytes: Vec<String> = master.chars().map(String::from).collect();
    let pieces: Vec<&str> = ["+PONG\r\n"].into_iter().chain(bytes.iter().map(String::as_str)).collect();
    talk(&settings(None, Some(Master)), false, &pieces).unwrap();
}
