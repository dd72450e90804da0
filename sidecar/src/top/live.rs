//! Readings as they come -> reports -> the terminal, or lines of text or JSON where there is none.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures::StreamExt;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Format, Options, TopError,
    reading::Reading,
    report::Report,
    scrape::{ScrapeError, Scraper},
    screen::{self, Screen},
    table::{Line, Look, Size, Table, table, title},
    text::{cut, wrap},
};

/// The last outcome, and the reading before a good one.
#[derive(Default)]
struct Latest {
    report: Option<Report>,
    failure: Option<ScrapeError>,
}

/// Makes reports of readings.
#[derive(Default)]
struct Reporter {
    before: Option<(Reading, Instant)>,
}

impl Reporter {
    fn report(&mut self, reading: Reading) -> Report {
        let now = Instant::now();
        let earlier = self.before.as_ref().map(|(before, at)| (before, now - *at));
        let report = Report::new(earlier, &reading);
        self.before = Some((reading, now));
        report
    }
}

pub(super) async fn run(options: Options) -> Result<(), TopError> {
    let scraper = Scraper::new(options.address.clone());
    if options.once {
        return once(&scraper, &options).await;
    }
    let (sender, reports) = watch::channel(Latest::default());
    let task = follow(scraper, options.interval, sender);
    let _task = AbortOnDropHandle::new(tokio::spawn(task));
    if options.format == Format::Text && io::stdout().is_terminal() {
        on_terminal(reports, &options).await.map_err(TopError::Terminal)
    } else {
        as_lines(reports, &options).await
    }
}

async fn once(scraper: &Scraper, options: &Options) -> Result<(), TopError> {
    let failed = |cause| TopError::Scrape { address: options.address.clone(), cause };
    let mut reporter = Reporter::default();
    reporter.report(scraper.read().await.map_err(failed)?);
    sleep(options.interval).await;
    let report = reporter.report(scraper.read().await.map_err(failed)?);
    // Whoever closes the pipe has read enough.
    let _ = print(&report, options);
    Ok(())
}

/// Reads again and again, until nobody looks.
async fn follow(scraper: Scraper, every: Duration, latest: watch::Sender<Latest>) {
    let mut reporter = Reporter::default();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match scraper.read().await {
            Ok(reading) => {
                let report = reporter.report(reading);
                latest.send_replace(Latest { report: Some(report), failure: None });
            }
            Err(failure) => {
                // What comes after it may be another process: no rates across the gap.
                reporter = Reporter::default();
                latest.send_modify(|latest| latest.failure = Some(failure));
            }
        }
    }
}

/// A report for each reading, and a line on stderr when a sidecar goes away.
async fn as_lines(mut reports: watch::Receiver<Latest>, options: &Options) -> Result<(), TopError> {
    let mut told = false;
    while reports.changed().await.is_ok() {
        let latest = reports.borrow_and_update();
        let written = match (&latest.failure, &latest.report) {
            (None, Some(report)) => {
                told = false;
                // The first one has no rates yet.
                if report.seconds.is_some() { print(report, options) } else { Ok(()) }
            }
            (Some(failure), _) if !told => {
                told = true;
                writeln!(io::stderr(), "{}", waiting(options, failure))
            }
            _ => Ok(()),
        };
        if written.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn print(report: &Report, options: &Options) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match options.format {
        Format::Json => {
            serde_json::to_writer(&mut out, report)?;
            writeln!(out)?;
        }
        Format::Text => {
            let size = Size::UNLIMITED;
            let title = title(report, &options.address.to_string(), size.columns);
            for line in [title].iter().chain(&table(report, size, 0).lines) {
                screen::write(&mut out, line, options.colour)?;
                writeln!(out)?;
            }
            if !options.once {
                writeln!(out)?;
            }
        }
    }
    out.flush()
}

fn waiting(options: &Options, failure: &ScrapeError) -> String {
    let every = options.interval.as_secs_f64();
    format!("{}/metrics cannot be read: {failure}; asking again every {every} s", options.address)
}

async fn on_terminal(mut reports: watch::Receiver<Latest>, options: &Options) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut resized = signal(SignalKind::window_change())?;
    let mut screen = Screen::enter(options.colour)?;
    let mut keys = screen.takes_keys().then(EventStream::new);
    let mut view = View::default();
    loop {
        let lines = view.lines(&reports.borrow_and_update(), options, screen.size());
        screen.draw(&lines)?;
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return Ok(()) },
            event = next(&mut keys) => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if view.key(key) {
                        return Ok(());
                    }
                }
                Some(_) => {}
                None => keys = None,
            },
            _ = resized.recv() => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}

async fn next(keys: &mut Option<EventStream>) -> Option<io::Result<Event>> {
    match keys {
        Some(keys) => keys.next().await,
        None => std::future::pending().await,
    }
}

/// Which part of the table is looked at.
#[derive(Debug, Default)]
struct View {
    offset: usize,
    /// Rows of the last table, and how many of them were shown.
    all: usize,
    page: usize,
}

impl View {
    /// True if it asks to end.
    fn key(&mut self, key: KeyEvent) -> bool {
        let last = self.all.saturating_sub(self.page);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Up | KeyCode::Char('k') => self.offset = self.offset.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.offset += 1,
            KeyCode::PageUp => self.offset = self.offset.saturating_sub(self.page),
            KeyCode::PageDown | KeyCode::Char(' ') => self.offset += self.page,
            KeyCode::Home => self.offset = 0,
            KeyCode::End => self.offset = last,
            _ => {}
        }
        self.offset = self.offset.min(last);
        false
    }

    /// Title, table and a last line with what one can do.
    fn lines(&mut self, latest: &Latest, options: &Options, size: Size) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut keys = "q quits".to_owned();
        match &latest.report {
            None => lines
                .push(vec![(Look::Heading, cut(&format!("sidecar at {}", options.address), size.columns))]),
            Some(report) => {
                lines.push(title(report, &options.address.to_string(), size.columns));
                let room = Size { rows: size.rows.saturating_sub(2), ..size };
                let Table { lines: table, all, shown } = table(report, room, self.offset);
                self.offset = self.offset.min(all.saturating_sub(shown));
                (self.all, self.page) = (all, shown);
                lines.extend(table);
                if shown < all {
                    let from = self.offset + 1;
                    keys = format!("rows {from}-{} of {all}, arrows scroll, q quits", self.offset + shown);
                }
            }
        }
        if let Some(failure) = &latest.failure {
            let stale = if latest.report.is_some() { "not current: " } else { "" };
            let told = wrap(&format!("{stale}{}", waiting(options, failure)), size.columns);
            lines.truncate(size.rows.saturating_sub(told.len()));
            lines.extend(told.into_iter().map(|line| vec![(Look::Bad, line)]));
        } else {
            lines.push(vec![(Look::Faint, cut(&keys, size.columns))]);
        }
        lines.truncate(size.rows);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, code: KeyCode) -> bool {
        view.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn scrolling_stops_at_both_ends() {
        let mut view = View { offset: 0, all: 30, page: 10 };
        press(&mut view, KeyCode::Up);
        assert_eq!(view.offset, 0);
        for (code, offset) in [
            (KeyCode::PageDown, 10),
            (KeyCode::Down, 11),
            (KeyCode::PageDown, 20),
            (KeyCode::Home, 0),
            (KeyCode::End, 20),
        ] {
            assert!(!press(&mut view, code));
            assert_eq!(view.offset, offset);
        }
    }

    #[test]
    fn q_and_ctrl_c_end_it() {
        let mut view = View::default();
        assert!(press(&mut view, KeyCode::Char('q')));
        assert!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!press(&mut view, KeyCode::Char('c')));
    }

    #[test]
    fn a_sidecar_that_is_away_is_told_in_place_of_the_keys() {
        let options = Options {
            address: "127.0.0.1:1".parse().unwrap(),
            interval: Duration::from_secs(2),
            once: false,
            format: Format::Text,
            colour: false,
        };
        let latest = Latest { report: None, failure: Some(ScrapeError::TimedOut) };
        let lines = View::default().lines(&latest, &options, Size { columns: 200, rows: 24 });
        let text: Vec<String> = lines.iter().map(super::super::table::plain).collect();
        assert_eq!(
            text,
            [
                "sidecar at http://127.0.0.1:1",
                "http://127.0.0.1:1/metrics cannot be read: no answer within 3 s; asking again every 2 s"
            ]
        );
    }
}
