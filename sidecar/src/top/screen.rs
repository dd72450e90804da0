//! The terminal: taken over while the table is shown, and given back as it was however this ends.

use std::io::{self, IsTerminal, Stdout, Write};

use crossterm::{
    cursor, execute, queue,
    style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor},
    terminal::{
        self, BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap,
        EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    },
};

use super::table::{Line, Look, Size};

/// Where the size is not known.
const USUAL: Size = Size { columns: 80, rows: 24 };

pub(super) struct Screen {
    out: Stdout,
    colour: bool,
    /// Keys come one by one; without a terminal to read from there are none.
    raw: bool,
}

impl Screen {
    pub(super) fn enter(colour: bool) -> io::Result<Self> {
        let mut screen = Self { out: io::stdout(), colour, raw: false };
        if io::stdin().is_terminal() {
            terminal::enable_raw_mode()?;
            screen.raw = true;
        }
        execute!(screen.out, EnterAlternateScreen, cursor::Hide, DisableLineWrap)?;
        Ok(screen)
    }

    pub(super) fn takes_keys(&self) -> bool {
        self.raw
    }

    pub(super) fn size(&self) -> Size {
        match terminal::size() {
            Ok((columns, rows)) if columns > 0 && rows > 0 => {
                Size { columns: columns.into(), rows: rows.into() }
            }
            _ => USUAL,
        }
    }

    /// Shows these lines and nothing else, in one piece, so that nothing flickers.
    pub(super) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        queue!(self.out, BeginSynchronizedUpdate)?;
        for (row, line) in (0..).zip(lines) {
            queue!(self.out, cursor::MoveTo(0, row))?;
            write(&mut self.out, line, self.colour)?;
            queue!(self.out, Clear(ClearType::UntilNewLine))?;
        }
        let below = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        if usize::from(below) < self.size().rows {
            queue!(self.out, cursor::MoveTo(0, below), Clear(ClearType::FromCursorDown))?;
        }
        queue!(self.out, EndSynchronizedUpdate)?;
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell of a terminal that has gone.
        let _ = execute!(self.out, EnableLineWrap, cursor::Show, LeaveAlternateScreen);
        if self.raw {
            let _ = terminal::disable_raw_mode();
        }
    }
}

/// Writes a line without its end.
pub(super) fn write(out: &mut impl Write, line: &Line, colour: bool) -> io::Result<()> {
    for (look, text) in line {
        let (attribute, foreground) = match look {
            _ if !colour => (None, None),
            Look::Plain => (None, None),
            Look::Heading => (Some(Attribute::Bold), None),
            Look::Faint => (Some(Attribute::Dim), None),
            Look::Good => (None, Some(Color::DarkGreen)),
            Look::Warning => (None, Some(Color::DarkYellow)),
            Look::Bad => (Some(Attribute::Bold), Some(Color::DarkRed)),
        };
        if let Some(attribute) = attribute {
            queue!(out, SetAttribute(attribute))?;
        }
        if let Some(foreground) = foreground {
            queue!(out, SetForegroundColor(foreground))?;
        }
        queue!(out, Print(text))?;
        if attribute.is_some() || foreground.is_some() {
            queue!(out, SetAttribute(Attribute::Reset), ResetColor)?;
        }
    }
    Ok(())
}
