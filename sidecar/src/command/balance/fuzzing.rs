//! What is promised of command lines, whatever they say; a broken promise panics.

#![allow(clippy::unwrap_used, reason = "a broken promise panics")]

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use clap::error::ErrorKind;

use super::{
    config::{Facts, config},
    ellipses::MOST,
    in_flags,
    site::SiteArgument,
};
use crate::command::{Action, Command, usage};

const PASSWORD: &str = "5ecret-5ecret-5ecret";

/// A command line of sidekick's is a configuration, or is refused in one line; and the password in it comes out in neither.
/// Each line is an argument.
pub(crate) fn command_line(bytes: &[u8]) {
    let given = bytes.split(|byte| *byte == b'\n').map(OsStr::from_bytes).map(OsStr::to_owned);
    let first = ["sidekick".into(), OsString::from(format!("--key-password={PASSWORD}"))];
    let knows = memchr::memmem::find(bytes, PASSWORD.as_bytes()).is_some();
    let told = |text: &str| assert!(knows || !text.contains(PASSWORD), "{text}");
    let refused = |line: &str| {
        assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
        told(line);
    };
    let command = match Command::read(first.into_iter().chain(given)) {
        Ok(command) => command,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => return,
        Err(error) => return refused(&usage::line(&error.to_string())),
    };
    let Action::Balance(arguments) = command.action else { panic!("sidekick does nothing else") };
    let facts = Facts { ipv6: true, key_password_file: Some("/proc/self/fd/9".to_owned()) };
    let config = match config(&arguments, &facts) {
        Ok(config) => config,
        Err(error) => return refused(&error.to_string()),
    };
    let text = serde_json::to_string(&config).unwrap();
    told(&text);
    if let Err(rejected) = crate::config::load(text.as_bytes(), arguments.admin_address) {
        rejected.problems.iter().for_each(|problem| refused(&in_flags(problem)));
    }
}

/// A SITE has backends within bounds, each once, or is refused in one line.
pub(crate) fn site(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match SiteArgument::parse(text) {
        Ok(site) => {
            assert!((1..=MOST).contains(&site.endpoints.len()));
            let (first, others) = site.endpoints.split_first().unwrap();
            assert!(!others.contains(first));
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}
