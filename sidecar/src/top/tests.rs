//! Golden files: two pages of metrics in tests/top, and what is shown of them. `UPDATE_GOLDEN=1` rewrites them.

use std::{fs, path::Path, time::Duration};

use super::{
    reading::Reading,
    report::Report,
    table::{Size, Table, plain, table, title},
};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/top").join(name)).unwrap()
}

fn compare(name: &str, found: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/top").join(name), found).unwrap();
    }
    assert_eq!(found, read(name), "{name}: set UPDATE_GOLDEN=1 if the new text is right");
}

fn report() -> Report {
    let [first, second] =
        ["first.metrics", "second.metrics"].map(|name| Reading::parse(&read(name)).unwrap());
    Report::new(Some((&first, Duration::from_secs(2))), &second)
}

fn text(report: &Report, columns: usize, rows: usize, offset: usize) -> String {
    let size = Size { columns, rows };
    let Table { lines, all, shown } = table(report, size, offset);
    assert!(lines.len() <= rows, "{} lines", lines.len());
    let title = title(report, "http://127.0.0.1:15470", columns);
    let mut text = String::new();
    for line in [title].iter().chain(&lines) {
        let line = plain(line);
        assert!(super::text::width(&line) <= columns, "{line:?} is wider than {columns}");
        text += &line;
        text.push('\n');
    }
    text + &format!("{shown} of {all} rows\n")
}

#[test]
fn every_number_is_in_the_table() {
    compare("wide.txt", &text(&report(), usize::MAX, usize::MAX, 0));
}

#[test]
fn a_narrow_screen_loses_what_says_least() {
    compare("narrow.txt", &text(&report(), 80, 24, 0));
}

#[test]
fn a_low_screen_shows_the_rows_from_the_offset_on() {
    compare("low.txt", &text(&report(), 100, 6, 2));
}

#[test]
fn no_size_of_the_screen_is_too_small() {
    for columns in 0..40 {
        for rows in 0..12 {
            text(&report(), columns, rows, 100);
        }
    }
}

#[test]
fn scripts_find_the_same_fields_in_every_release() {
    compare("report.json", &(serde_json::to_string_pretty(&report()).unwrap() + "\n"));
}

#[test]
fn a_first_look_has_totals_and_no_rates() {
    let report = Report::new(None, &Reading::parse(&read("second.metrics")).unwrap());
    assert_eq!(report.totals.requests.total, 2_854);
    assert_eq!(
        (report.totals.requests.per_second, report.totals.latency, report.seconds),
        (None, None, None)
    );
}
