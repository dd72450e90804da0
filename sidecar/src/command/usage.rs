//! What is wrong with a command line, in one line.

use std::io::{self, Write};

use clap::error::ErrorKind;

/// Prints the help that was asked for, or one line about what is wrong, and gives the exit code.
pub(super) fn tell(error: &clap::Error, program: &str) -> u8 {
    let help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    // There is nobody left to tell of a terminal that has gone.
    if help {
        let _ = error.print();
    } else {
        let _ = writeln!(io::stderr(), "{program}: {}; see {program} --help", line(&error.to_string()));
    }
    u8::try_from(error.exit_code()).unwrap_or(1)
}

/// The cause and the tips of clap's text, without the usage.
pub(super) fn line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let cause =
        text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
    let tips = text.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    tips.fold(cause, |line, tip| format!("{line} ({tip})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_cause_and_the_tip_alone() {
        let text = "error: unexpected argument '--adress' found\n\n  tip: a similar argument exists: '--address'\n\nUsage: a\n";
        assert_eq!(
            line(text),
            "unexpected argument '--adress' found (a similar argument exists: '--address')"
        );
        let text = "error: the following required arguments were not provided:\n  <SITE>...\n\nUsage: x\n";
        assert_eq!(line(text), "the following required arguments were not provided: <SITE>...");
    }
}
