//! A report -> the lines of a table, for a screen of some size. Pure.
//!
//! Listeners, their sites and their backends are rows under each other; the totals stand last. A narrow screen loses the
//! columns that say least, a low one shows a part of the rows and says which.

use super::{
    reading::Kind,
    report::{BackendReport, BackendState, Count, ListenerReport, Report, SiteReport, SiteState, Traffic},
    text::{UNKNOWN, bytes, count, cut, harmless, latency, rate, span, width},
};

/// How a part of a line looks where there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    Heading,
    Faint,
    Good,
    Warning,
    Bad,
}

/// Parts of a line from left to right.
pub(super) type Line = Vec<(Look, String)>;

/// Room for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl Size {
    /// Text that goes into a file or a pipe.
    pub(super) const UNLIMITED: Self = Self { columns: usize::MAX, rows: usize::MAX };
}

/// The lines of a table, and what of it there was no room for.
#[derive(Debug, PartialEq)]
pub(super) struct Table {
    pub(super) lines: Vec<Line>,
    /// Rows of listeners, sites and backends that there are in all, and that are shown from the offset on.
    pub(super) all: usize,
    pub(super) shown: usize,
}

struct Row {
    look: Look,
    cells: Vec<(Look, String)>,
}

struct Column {
    title: &'static str,
    /// The columns with the highest number go first on a narrow screen.
    rank: u8,
}

const GAP: usize = 2;
/// Names are cut when that keeps more columns, but not below this.
const SHORTEST_NAME: usize = 20;
const COLUMNS: [Column; 13] = [
    Column { title: "LISTENER / SITE / BACKEND", rank: 0 },
    Column { title: "STATE", rank: 0 },
    Column { title: "REQ/S", rank: 1 },
    Column { title: "REQUESTS", rank: 8 },
    Column { title: "FAIL/S", rank: 2 },
    Column { title: "FAILED", rank: 7 },
    Column { title: "IN FLIGHT", rank: 3 },
    Column { title: "RETRIED", rank: 9 },
    Column { title: "UPLOAD/S", rank: 6 },
    Column { title: "DOWNLOAD/S", rank: 5 },
    Column { title: "P50", rank: 10 },
    Column { title: "P99", rank: 4 },
    Column { title: "DOWN (LAST)", rank: 11 },
];

/// The table from the row number `offset` on.
pub(super) fn table(report: &Report, size: Size, offset: usize) -> Table {
    let rows = rows(report);
    let totals = totals(report);
    let heading = Row {
        look: Look::Heading,
        cells: COLUMNS.iter().map(|column| (Look::Heading, column.title.to_owned())).collect(),
    };
    let columns =
        fitting(&[&[&heading, &totals], &rows.iter().collect::<Vec<_>>()[..]].concat(), size.columns);
    let room = size.rows.saturating_sub(2);
    let offset = offset.min(rows.len().saturating_sub(room));
    let shown = rows.len().saturating_sub(offset).min(room);
    let mut lines = vec![line(&heading, &columns)];
    lines.extend(rows[offset..offset + shown].iter().map(|row| line(row, &columns)));
    lines.push(line(&totals, &columns));
    lines.truncate(size.rows);
    Table { lines, all: rows.len(), shown }
}

/// What stands above the table: who was asked, and what state it is in.
pub(super) fn title(report: &Report, address: &str, columns: usize) -> Line {
    let backends =
        || report.listeners.iter().flat_map(|listener| &listener.sites).flat_map(|site| &site.backends);
    let down = backends().filter(|backend| backend.state == BackendState::Down).count();
    let version =
        report.version.as_deref().map(|version| format!(" {}", harmless(version))).unwrap_or_default();
    let name = format!("sidecar{version} at {address}");
    let (look, state) = match (report.started, down) {
        (false, _) => (Look::Warning, "not ready yet".to_owned()),
        (true, 0) => (Look::Good, "all backends up".to_owned()),
        (true, down) => (Look::Bad, format!("{down} of {} backends down", backends().count())),
    };
    let name = cut(&name, columns);
    let state = cut(&state, columns.saturating_sub(width(&name) + 3));
    if state.is_empty() {
        vec![(Look::Heading, name)]
    } else {
        vec![(Look::Heading, name), (Look::Plain, " - ".to_owned()), (look, state)]
    }
}

fn rows(report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    for listener in &report.listeners {
        rows.push(listener_row(listener));
        for site in &listener.sites {
            rows.push(site_row(site));
            rows.extend(site.backends.iter().map(backend_row));
        }
    }
    rows
}

fn listener_row(listener: &ListenerReport) -> Row {
    let connections = match listener.connections {
        1 => "1 client".to_owned(),
        many => format!("{many} clients"),
    };
    let kind = match listener.kind {
        Kind::Http => "",
        Kind::Tcp => " (tcp)",
        Kind::Udp => " (udp)",
    };
    let name = format!("{}{kind}", harmless(&listener.name));
    let mut cells = vec![(Look::Plain, name), (Look::Plain, connections)];
    cells.extend(traffic(&listener.traffic));
    cells.push((Look::Plain, String::new()));
    Row { look: Look::Plain, cells }
}

fn site_row(site: &SiteReport) -> Row {
    let (look, state) = match site.state {
        SiteState::Serving => (Look::Good, "serving"),
        SiteState::Standby => (Look::Faint, "standby"),
        SiteState::Down => (Look::Bad, "down"),
    };
    let name = format!("  {}", harmless(&site.name));
    Row { look: Look::Plain, cells: vec![(Look::Plain, name), (look, state.to_owned())] }
}

fn backend_row(backend: &BackendReport) -> Row {
    let (look, state) = match backend.state {
        BackendState::Up => (Look::Good, "up"),
        BackendState::Down => (Look::Bad, "down"),
        BackendState::Ejected => (Look::Bad, "ejected"),
        BackendState::Unchecked => (Look::Warning, "unchecked"),
    };
    let name = format!("    {}", harmless(&backend.address));
    let mut cells = vec![(Look::Plain, name), (look, state.to_owned())];
    cells.extend(traffic(&backend.traffic));
    let down = match backend.down_seconds {
        None => UNKNOWN.to_owned(),
        Some(0.0) => "never".to_owned(),
        Some(all) => format!("{} ({})", span(Some(all)), span(backend.last_down_seconds)),
    };
    cells.push((Look::Plain, down));
    Row { look: Look::Plain, cells }
}

fn totals(report: &Report) -> Row {
    let mut cells = vec![(Look::Heading, "TOTAL".to_owned()), (Look::Plain, String::new())];
    cells.extend(traffic(&report.totals).map(|(look, cell)| match look {
        Look::Plain => (Look::Heading, cell),
        other => (other, cell),
    }));
    Row { look: Look::Heading, cells }
}

fn traffic(traffic: &Traffic) -> [(Look, String); 10] {
    let failing = |failures: Count| match failures.per_second {
        Some(rate) if rate > 0.0 => Look::Bad,
        _ => Look::Plain,
    };
    let plain = |text| (Look::Plain, text);
    [
        plain(rate(traffic.requests.per_second)),
        plain(count(traffic.requests.total)),
        (failing(traffic.failures), rate(traffic.failures.per_second)),
        plain(count(traffic.failures.total)),
        plain(count(traffic.in_flight)),
        plain(count(traffic.retries.total)),
        plain(bytes(traffic.sent_bytes.per_second)),
        plain(bytes(traffic.received_bytes.per_second)),
        plain(latency(traffic.latency.map(|latency| latency.p50))),
        plain(latency(traffic.latency.map(|latency| latency.p99))),
    ]
}

/// The columns that there is room for, and the width of each.
fn fitting(rows: &[&Row], room: usize) -> Vec<(usize, usize)> {
    let widest = |index: usize| {
        rows.iter().filter_map(|row| row.cells.get(index)).map(|(_, cell)| width(cell)).max().unwrap_or(0)
    };
    let mut columns: Vec<(usize, usize)> = (0..COLUMNS.len()).map(|index| (index, widest(index))).collect();
    let total =
        |columns: &[(usize, usize)]| columns.iter().map(|(_, width)| width + GAP).sum::<usize>() - GAP;
    let needed = |columns: &[(usize, usize)]| total(columns) - columns[0].1 + columns[0].1.min(SHORTEST_NAME);
    while columns.len() > 1 && needed(&columns) > room {
        let last = (0..columns.len()).max_by_key(|&at| (COLUMNS[columns[at].0].rank, columns[at].0));
        columns.remove(last.unwrap_or(0));
    }
    let over = total(&columns).saturating_sub(room);
    columns[0].1 = columns[0].1.saturating_sub(over);
    columns
}

/// Names and states to the left, numbers to the right.
fn line(row: &Row, columns: &[(usize, usize)]) -> Line {
    let mut line = Line::new();
    for (position, &(index, cells)) in columns.iter().enumerate() {
        let (look, text) = row.cells.get(index).map_or((row.look, ""), |(look, text)| (*look, text.as_str()));
        let text = cut(text, cells);
        let fill = " ".repeat(cells - width(&text));
        let gap = if position > 0 { " ".repeat(GAP) } else { String::new() };
        let (before, after) = if index < 2 { (gap, fill) } else { (gap + &fill, String::new()) };
        line.extend([(Look::Plain, before), (look, text), (Look::Plain, after)]);
    }
    line.retain(|(_, text)| !text.is_empty());
    while line.last().is_some_and(|(_, text)| text.trim().is_empty()) {
        line.pop();
    }
    line
}

/// The line without its looks.
#[cfg(any(test, fuzzing))]
pub(super) fn plain(line: &Line) -> String {
    line.iter().map(|(_, text)| text.as_str()).collect()
}
