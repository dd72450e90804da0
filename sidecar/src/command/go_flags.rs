//! Command lines as Go's flag package reads them -> as clap reads them: `-address :80` is `--address :80`, and
//! `--json=false` is no `--json`. Pure.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command};

/// Rewrites the arguments after a command's name. What it does not know it leaves for clap to judge.
pub(super) fn rewrite(arguments: impl IntoIterator<Item = OsString>, command: &Command) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut rewritten = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            rewritten.push(argument);
            break;
        }
        let Some(flag) = argument.to_str().and_then(|text| Flag::of(text, command)) else {
            rewritten.push(argument);
            continue;
        };
        match (flag.is_switch(), flag.value) {
            (true, Some("1" | "t" | "T" | "true" | "True" | "TRUE")) => rewritten.push(flag.name()),
            (true, Some("0" | "f" | "F" | "false" | "False" | "FALSE")) => {}
            (_, Some(value)) => {
                let mut whole = flag.name();
                whole.push("=");
                whole.push(value);
                rewritten.push(whole);
            }
            (true, None) => rewritten.push(flag.name()),
            (false, None) => {
                rewritten.push(flag.name());
                // Its value, whatever it looks like.
                rewritten.extend(arguments.next());
            }
        }
    }
    rewritten.extend(arguments);
    rewritten
}

/// A flag that the command has, by its long name or as one letter alone.
struct Flag<'a> {
    arg: &'a Arg,
    written: &'a str,
    value: Option<&'a str>,
}

impl<'a> Flag<'a> {
    fn of(text: &'a str, command: &'a Command) -> Option<Self> {
        let (written, value) = match text.split_once('=') {
            Some((written, value)) => (written, Some(value)),
            None => (text, None),
        };
        let name = written
            .strip_prefix("--")
            .or_else(|| written.strip_prefix('-'))
            .filter(|name| !name.is_empty())?;
        let mut letters = name.chars();
        let letter = letters.next().filter(|_| letters.as_str().is_empty() && !written.starts_with("--"));
        let arg = command.get_arguments().find(|arg| match letter {
            Some(letter) => arg.get_short() == Some(letter),
            None => arg.get_long() == Some(name),
        })?;
        Some(Self { arg, written, value })
    }

    fn is_switch(&self) -> bool {
        !matches!(self.arg.get_action(), ArgAction::Set | ArgAction::Append)
    }

    fn name(&self) -> OsString {
        match self.arg.get_long() {
            Some(long) => format!("--{long}").into(),
            None => OsStr::new(self.written).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let command = Command::new("test")
            .arg(Arg::new("address").long("address").short('a'))
            .arg(Arg::new("json").long("json").action(ArgAction::SetTrue))
            .arg(Arg::new("quiet").long("quiet").short('q').action(ArgAction::SetTrue));
        let arguments = rewrite(line.split(' ').map(OsString::from), &command);
        arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        for (go, clap) in [
            ("-address :80 x", "--address :80 x"),
            ("--address=:80 x", "--address=:80 x"),
            ("-address=:80", "--address=:80"),
            ("-a :80", "--address :80"),
            ("-a=:80", "--address=:80"),
            ("-json", "--json"),
            ("--json=true -q=1", "--json --quiet"),
            ("--json=false -q=0 x", "x"),
            ("-address -json", "--address -json"),
            ("x -- -json", "x -- -json"),
            ("-unknown --json=maybe -", "-unknown --json=maybe -"),
        ] {
            assert_eq!(rewritten(go), clap, "{go}");
        }
    }
}
