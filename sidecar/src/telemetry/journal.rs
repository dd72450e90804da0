//! The lines of one listener on one thread that wait for the writer: they are handed over as whole batches.

use std::{
    mem,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::lines::{Batch, Lines};

/// A batch of this size goes to the writer; a smaller one when it is due. To wake it takes as long as to write some lines.
const FULL: usize = 64 * 1024;

/// What a batch has room for beyond that: the line that makes it full.
const ROOM: usize = 1024;

/// A line waits for others for this time, at most.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Where the batch goes; none while there is nothing.
    lines: Option<Lines>,
    batch: Batch,
    clock: Clock,
    /// When the first line of the batch was written.
    since: Option<Instant>,
}

/// The time as text, of which only the end changes within a second.
#[derive(Debug, Default)]
struct Clock {
    second: i64,
    text: Vec<u8>,
}

impl Journal {
    /// Adds the line about something that began so long `ago`. `write` appends it, and is told that time: RFC 3339 in UTC, with
    /// milliseconds.
    pub(crate) fn add(&mut self, lines: &Lines, ago: Duration, write: impl FnOnce(&mut Vec<u8>, &[u8])) {
        let time = self.clock.show(SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH));
        write(&mut self.batch.bytes, time);
        self.batch.lines += 1;
        if self.since.is_none() {
            self.since = Some(Instant::now());
            self.lines = Some(lines.clone());
        }
        if self.batch.bytes.len() >= FULL {
            self.flush();
        }
    }

    /// When what there is has waited for long enough; none if there is nothing.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }

    /// Hands over what there is.
    pub(crate) fn flush(&mut self) {
        self.since = None;
        if let Some(lines) = self.lines.take() {
            let bytes = Vec::with_capacity(self.batch.bytes.len().next_power_of_two().min(FULL + ROOM));
            lines.offer(mem::replace(&mut self.batch, Batch { bytes, lines: 0 }));
        }
    }
}

impl Clock {
    fn show(&mut self, time: SystemTime) -> &[u8] {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let second = i64::try_from(since.as_secs()).unwrap_or_default();
        if self.text.is_empty() || second != self.second {
            self.second = second;
            let text = Timestamp::from_second(second).unwrap_or_default().to_string();
            self.text.clear();
            self.text.extend_from_slice(text.trim_end_matches('Z').as_bytes());
            self.text.extend_from_slice(b".000Z");
        }
        let end = self.text.len();
        let digit = |value: u32| b'0' + (value % 10) as u8;
        let millis = since.subsec_millis();
        self.text[end - 4..end - 1].copy_from_slice(&[
            digit(millis / 100),
            digit(millis / 10),
            digit(millis),
        ]);
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_to_the_millisecond() {
        let mut clock = Clock::default();
        for (millis, expected) in [
            (1_795_325_400_007, "2026-11-22T05:30:00.007Z"),
            (1_795_325_400_999, "2026-11-22T05:30:00.999Z"),
            (1_795_325_401_000, "2026-11-22T05:30:01.000Z"),
            (1_795_325_400_120, "2026-11-22T05:30:00.120Z"),
        ] {
            let shown = clock.show(UNIX_EPOCH + Duration::from_millis(millis)).to_vec();
            assert_eq!(String::from_utf8(shown).unwrap(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_due_a_second_after_the_first_of_its_batch() {
        let lines = Lines::start(std::io::sink(), &mut Default::default()).unwrap();
        let mut journal = Journal::default();
        assert_eq!(journal.due(), None);
        let first = Instant::now();
        for _ in 0..2 {
            journal.add(&lines, Duration::ZERO, |out, _| out.extend_from_slice(b"a\n"));
            tokio::time::advance(Duration::from_millis(300)).await;
        }
        assert_eq!(journal.due(), Some(first + PATIENCE));
        journal.flush();
        assert_eq!(journal.due(), None);
    }
}
