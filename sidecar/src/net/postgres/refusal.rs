//! What a client of PostgreSQL shows when it is turned away.

/// More would be no message but a report.
const LONGEST: usize = 1024;

/// An ErrorResponse that ends the connection. `code` is of SQLSTATE.
pub fn refusal(code: &str, text: &str) -> Vec<u8> {
    let text: String = text.chars().filter(|c| *c != '\0').take(LONGEST).collect();
    let mut fields = Vec::new();
    for (kind, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', &text)] {
        fields.push(kind);
        fields.extend_from_slice(value.as_bytes());
        fields.push(0);
    }
    fields.push(0);
    // A few kilobytes.
    let length = (4 + fields.len()) as u32;
    [&b"E"[..], &length.to_be_bytes(), &fields].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_message_whatever_its_text_is() {
        assert_eq!(refusal("28000", "no"), b"E\0\0\0\x1eSFATAL\0VFATAL\0C28000\0Mno\0\0");
        let long = refusal("28000", &"a\0".repeat(5_000));
        assert_eq!(u32::from_be_bytes(long[1..5].try_into().unwrap()) as usize, long.len() - 1);
        assert!(long.len() < 2_000);
    }
}
