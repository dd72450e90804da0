//! Golden files: each configuration in tests/config with what `sidecar check` says of it. `UPDATE_GOLDEN=1` rewrites them.

use std::{fs, net::SocketAddr, path::Path};

use super::*;

fn admin() -> SocketAddr {
    "0.0.0.0:15470".parse().unwrap()
}

fn report(name: &str, bytes: &[u8]) -> String {
    let lines = |kind: &str, problems: &[Problem]| -> String {
        problems.iter().map(|problem| format!("{kind}{}\n", problem.in_file(name))).collect()
    };
    match load(bytes, admin()) {
        Ok(loaded) => format!("OK\n{}", lines("warning: ", &loaded.warnings)),
        Err(rejected) => lines("", &rejected.problems) + &lines("warning: ", &rejected.warnings),
    }
}

#[test]
fn every_error_of_a_file_is_told_with_line_field_and_remedy() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut files = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        files += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        let found = report(name, &fs::read(&path).unwrap());
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &found).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(found, expected, "{name}: set UPDATE_GOLDEN=1 if the new text is right");
    }
    assert!(files > 5);
}

#[test]
fn what_is_no_text_is_refused() {
    let message = |bytes: &[u8]| load(bytes, admin()).unwrap_err().problems[0].message.clone();
    assert!(message(&vec![b' '; MAX_SIZE + 1]).contains("at most"));
    assert!(message(b"http: \xff").contains("UTF-8"));
    assert!(message(b"  \n").contains("empty"));
}

#[test]
fn no_input_makes_it_panic() {
    use proptest::prelude::*;
    let good = include_str!("../../tests/config/good.yaml");
    proptest!(|(at in 0..good.len(), length in 0usize..12, put in "[\\PC\n]{0,6}")| {
        let end = (at + length).min(good.len());
        let text = format!("{}{put}{}", &good[..at], &good[end..]);
        if let Err(rejected) = load(text.as_bytes(), admin()) {
            prop_assert!(!rejected.problems.is_empty());
            prop_assert!(rejected.problems.iter().all(|problem| !problem.remedy.is_empty()));
        }
    });
}

#[test]
fn a_long_list_of_problems_is_cut() {
    let backends = "    - {}\n".repeat(16);
    let listeners = format!("- port: x\n  sites:\n  - name: {{}}\n    backends:\n{backends}").repeat(400);
    let rejected = load(format!("http:\n{listeners}").as_bytes(), admin()).unwrap_err();
    assert!((50..=200).contains(&rejected.problems.len()), "{}", rejected.problems.len());
}
