//! The chunked coding, told apart byte by byte: chunk = size [; extension] CRLF data CRLF, the last of size 0 with trailers.
//! Nothing is stored: what is read is passed on as it is, or as data alone. Whatever is not exactly the grammar is an error,
//! since the next reader might see another end.

/// Longest line of a size with its extensions. Extensions carry nothing today, and long ones are attacks.
const MAX_LINE: u32 = 256;

/// All trailers together.
const MAX_TRAILERS: u32 = 16 * 1024;

/// Where in a chunked body the reader is.
#[derive(Debug, Clone)]
pub(in crate::http) struct Chunks {
    state: State,
    /// Of the chunk: read so far in a size, left to read in data.
    size: u64,
    /// Bytes of the body, as far as its chunks have told.
    told: u64,
    /// Of the line of the size, or of all trailers.
    read: u32,
    /// The start of a trailer's name, in lower case.
    name: [u8; 18],
    name_length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Wants the first digit.
    Start,
    Size,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    /// The start of a trailer, or of the last line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastEnd,
}

/// A run of bytes at the front of what was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Part {
    /// Of the body.
    Data(usize),
    /// Of the coding around it.
    Coding(usize),
    /// Of the coding, and with it the body ends.
    End(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunks of the body are malformed")]
pub(in crate::http) struct BadChunks;

impl Default for Chunks {
    fn default() -> Self {
        Self { state: State::Start, size: 0, told: 0, read: 0, name: [0; 18], name_length: 0 }
    }
}

impl Chunks {
    /// Bytes of the body that come next; 0 where it is the coding that goes on.
    pub(in crate::http) fn data_left(&self) -> u64 {
        if self.state == State::Data { self.size } else { 0 }
    }

    /// Bytes of the body so far, with all of the chunk that has begun.
    pub(in crate::http) fn told(&self) -> u64 {
        self.told
    }

    /// Takes the longest run of one kind from the front. `bytes` must not be empty.
    pub(in crate::http) fn step(&mut self, bytes: &[u8]) -> Result<Part, BadChunks> {
        if self.state == State::Data {
            let length = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len());
            self.size -= length as u64;
            if self.size == 0 {
                self.state = State::DataReturn;
            }
            return Ok(Part::Data(length));
        }
        for (index, byte) in bytes.iter().enumerate() {
            self.state = self.next(*byte)?;
            match self.state {
                State::Data => return Ok(Part::Coding(index + 1)),
                State::LastEnd if *byte == b'\n' => return Ok(Part::End(index + 1)),
                _ => {}
            }
        }
        Ok(Part::Coding(bytes.len()))
    }

    /// Takes the front of `bytes` that belongs to this body, as it is: its length, and whether the body ends there.
    pub(in crate::http) fn scan(&mut self, bytes: &[u8]) -> Result<(usize, bool), BadChunks> {
        let mut length = 0;
        while length < bytes.len() {
            match self.step(&bytes[length..])? {
                Part::Data(run) | Part::Coding(run) => length += run,
                Part::End(run) => return Ok((length + run, true)),
            }
        }
        Ok((length, false))
    }

    fn next(&mut self, byte: u8) -> Result<State, BadChunks> {
        match (self.state, byte) {
            (State::Start, _) if byte.is_ascii_hexdigit() => {
                (self.size, self.read) = (u64::from(digit(byte)), 1);
                Ok(State::Size)
            }
            (State::Size, _) if byte.is_ascii_hexdigit() => {
                self.counts(MAX_LINE)?;
                if self.size >> 58 != 0 || self.read > 16 {
                    return Err(BadChunks);
                }
                self.size = self.size << 4 | u64::from(digit(byte));
                Ok(State::Size)
            }
            (State::Size, b';') => Ok(State::Extension),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.counts(MAX_LINE)?;
                Ok(State::Extension)
            }
            (State::Size | State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::SizeEnd, b'\n') if self.size == 0 => {
                self.read = 0;
                Ok(State::Trailer)
            }
            (State::SizeEnd, b'\n') => {
                self.told = self.told.saturating_add(self.size);
                Ok(State::Data)
            }
            (State::DataReturn, b'\r') => Ok(State::DataEnd),
            (State::DataEnd, b'\n') => Ok(State::Start),
            (State::Trailer, b'\r') => Ok(State::LastEnd),
            (State::Trailer, _) if is_token(byte) => {
                self.name_length = 0;
                self.trailer_name(byte)
            }
            (State::TrailerName, b':') if !self.is_forbidden() => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token(byte) => self.trailer_name(byte),
            (State::TrailerValue, b'\r') => Ok(State::TrailerEnd),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => {
                self.counts(MAX_TRAILERS)?;
                Ok(State::TrailerValue)
            }
            (State::TrailerEnd, b'\n') => Ok(State::Trailer),
            (State::LastEnd, b'\n') => Ok(State::LastEnd),
            _ => Err(BadChunks),
        }
    }

    fn trailer_name(&mut self, byte: u8) -> Result<State, BadChunks> {
        self.counts(MAX_TRAILERS)?;
        if let Some(place) = self.name.get_mut(self.name_length) {
            *place = byte.to_ascii_lowercase();
        }
        self.name_length += 1;
        Ok(State::TrailerName)
    }

    /// A trailer that would frame or route the message, if a reader took it for a header.
    fn is_forbidden(&self) -> bool {
        let name = self.name.get(..self.name_length).unwrap_or_default();
        [&b"content-length"[..], b"transfer-encoding", b"host", b"connection"].contains(&name)
    }

    fn counts(&mut self, most: u32) -> Result<(), BadChunks> {
        self.read += 1;
        if self.read > most { Err(BadChunks) } else { Ok(()) }
    }
}

fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
