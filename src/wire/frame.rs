//! Frame boundaries: a type byte, four bytes of length, a body. Total over any bytes: what is not a frame is an error,
//! never a panic, and no length is believed before it was checked against the limit of its type.
//!
//! Knows nothing of what the bodies mean. Bulk data is relayed as chunks; only messages that must be read become a
//! [`Frame`].

use crate::error::{Blame, Report, Severity, SqlState};

/// Type byte and length.
pub const HEADER_BYTES: usize = 5;

/// The largest body of a message that carries only names or a reason.
const NAMES_BYTES_MAX: u32 = 16 * 1024;

/// The largest message that a server may send: PostgreSQL's own limit of 1 GiB, and a little for the frame.
const SERVER_MESSAGE_BYTES_MAX: u32 = (1 << 30) + 64;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("invalid message type {:?} from the {side}", char::from(*tag))]
    UnknownType { tag: u8, side: &'static str },
    #[error("invalid length {length} of a message of type {:?}", char::from(*tag))]
    BadLength { tag: u8, length: u32 },
    #[error("a message of type {:?} with {length} bytes is larger than the limit of {limit} bytes", char::from(*tag))]
    TooLarge { tag: u8, length: u32, limit: u32 },
    #[error("malformed message of type {:?}: {what}", char::from(*tag))]
    Malformed { tag: u8, what: &'static str },
}

impl Report for FrameError {
    fn sqlstate(&self) -> SqlState {
        match self {
            FrameError::TooLarge { .. } => SqlState::PROGRAM_LIMIT_EXCEEDED,
            _ => SqlState::PROTOCOL_VIOLATION,
        }
    }
    fn blame(&self) -> Blame {
        match self {
            FrameError::UnknownType { side: "server", .. } => Blame::Server,
            _ => Blame::Client,
        }
    }
    fn severity(&self) -> Severity {
        // Where a frame cannot be trusted, neither can the bytes behind it.
        Severity::Fatal
    }
    fn advice(&self) -> Option<String> {
        match self {
            FrameError::TooLarge { .. } => {
                Some("Raise message_bytes_max in the section [proxy].".into())
            }
            _ => None,
        }
    }
}

/// The first five bytes of a message, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// The whole frame: type byte, length and body.
    pub frame_bytes: usize,
}

/// One whole message, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub tag: u8,
    pub body: &'a [u8],
    /// Type byte, length and body.
    pub whole: &'a [u8],
}

fn raw_header(bytes: &[u8]) -> Option<(u8, u32)> {
    let (&[tag, a, b, c, d], _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    Some((tag, u32::from_be_bytes([a, b, c, d])))
}

fn checked(tag: u8, length: u32, limit: u32) -> Result<Header, FrameError> {
    if length < 4 {
        return Err(FrameError::BadLength { tag, length });
    }
    if length > limit {
        return Err(FrameError::TooLarge { tag, length, limit });
    }
    Ok(Header {
        tag,
        frame_bytes: length as usize + 1,
    })
}

/// The header of a message of a logged-in client; `None` while fewer than five bytes are there.
///
/// `message_bytes_max` limits the messages that carry data: Query, Parse, Bind, FunctionCall and CopyData.
pub fn client_header(bytes: &[u8], message_bytes_max: u32) -> Result<Option<Header>, FrameError> {
    let Some((tag, length)) = raw_header(bytes) else {
        // An unknown type is refused at its first byte: nobody waits for the rest of a message that cannot be.
        return match bytes.first() {
            Some(&tag) if !is_client_type(tag) => Err(FrameError::UnknownType {
                tag,
                side: "client",
            }),
            _ => Ok(None),
        };
    };
    match tag {
        b'Q' | b'P' | b'B' | b'F' | b'd' => checked(tag, length, message_bytes_max).map(Some),
        b'D' | b'E' | b'C' | b'f' => checked(tag, length, NAMES_BYTES_MAX).map(Some),
        b'S' | b'H' | b'X' | b'c' if length == 4 => Ok(Some(Header {
            tag,
            frame_bytes: 5,
        })),
        b'S' | b'H' | b'X' | b'c' => Err(FrameError::BadLength { tag, length }),
        _ => Err(FrameError::UnknownType {
            tag,
            side: "client",
        }),
    }
}

fn is_client_type(tag: u8) -> bool {
    matches!(
        tag,
        b'Q' | b'P' | b'B' | b'F' | b'd' | b'D' | b'E' | b'C' | b'f' | b'S' | b'H' | b'X' | b'c'
    )
}

/// The header of a message of a server; `None` while fewer than five bytes are there.
pub fn server_header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some((tag, length)) = raw_header(bytes) else {
        return Ok(None);
    };
    match tag {
        b'R' | b'K' | b'S' | b'1' | b'2' | b'3' | b'C' | b'D' | b'E' | b'G' | b'H' | b'W'
        | b'I' | b'n' | b'N' | b'A' | b't' | b'T' | b's' | b'V' | b'Z' | b'c' | b'd' | b'v' => {
            checked(tag, length, SERVER_MESSAGE_BYTES_MAX).map(Some)
        }
        _ => Err(FrameError::UnknownType {
            tag,
            side: "server",
        }),
    }
}

/// The first whole message in `bytes`, or `None` while it is not complete.
pub fn first_frame(
    bytes: &[u8],
    header: impl FnOnce(&[u8]) -> Result<Option<Header>, FrameError>,
) -> Result<Option<Frame<'_>>, FrameError> {
    let Some(header) = header(bytes)? else {
        return Ok(None);
    };
    let Some((whole, _)) = bytes.split_at_checked(header.frame_bytes) else {
        return Ok(None);
    };
    let body = whole.get(HEADER_BYTES..).unwrap_or_default();
    Ok(Some(Frame {
        tag: header.tag,
        body,
        whole,
    }))
}

/// The whole messages of a server at the beginning of `bytes`; behind an error there is nothing.
pub fn server_frames(bytes: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, FrameError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let frame = first_frame(rest, server_header);
        let taken = match &frame {
            Ok(Some(frame)) => frame.whole.len(),
            Ok(None) | Err(_) => rest.len(),
        };
        rest = rest.get(taken..).unwrap_or_default();
        frame.transpose()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
        client_header(bytes, 1000)
    }

    #[test]
    fn a_header_is_believed_only_when_type_and_length_fit() {
        let ok = |tag: u8, frame_bytes| Ok(Some(Header { tag, frame_bytes }));
        assert_eq!(client(b"Q\0\0\0\x09SELE"), ok(b'Q', 10));
        assert_eq!(client(b"S\0\0\0\x04"), ok(b'S', 5));
        assert_eq!(client(b"Q\0\0"), Ok(None));
        assert_eq!(client(b""), Ok(None));
        assert_eq!(
            client(b"Q\0\0\0\x03"),
            Err(FrameError::BadLength {
                tag: b'Q',
                length: 3
            })
        );
        assert_eq!(
            client(b"S\0\0\0\x05"),
            Err(FrameError::BadLength {
                tag: b'S',
                length: 5
            })
        );
        assert_eq!(
            client(b"Q\0\0\x04\0"),
            Err(FrameError::TooLarge {
                tag: b'Q',
                length: 1024,
                limit: 1000
            })
        );
        assert_eq!(
            client(b"B\xff\xff\xff\xff").unwrap_err().sqlstate(),
            SqlState::PROGRAM_LIMIT_EXCEEDED
        );
        assert_eq!(
            client(b"D\0\x01\0\0").unwrap_err().sqlstate(),
            SqlState::PROGRAM_LIMIT_EXCEEDED
        );
        assert_eq!(
            client(b"z"),
            Err(FrameError::UnknownType {
                tag: b'z',
                side: "client"
            })
        );
        assert_eq!(
            client(b"p\0\0\0\x08"),
            Err(FrameError::UnknownType {
                tag: b'p',
                side: "client"
            })
        );
        assert_eq!(server_header(b"Z\0\0\0\x05I"), ok(b'Z', 6));
        assert_eq!(
            server_header(b"!\0\0\0\x05I"),
            Err(FrameError::UnknownType {
                tag: b'!',
                side: "server"
            })
        );
    }

    #[test]
    fn exactly_one_frame_is_split_off() {
        let bytes = b"Q\0\0\0\x06;\0S\0\0\0\x04";
        let frame = first_frame(bytes, client).unwrap().unwrap();
        assert_eq!(
            (frame.tag, frame.body, frame.whole.len()),
            (b'Q', &b";\0"[..], 7)
        );
        assert_eq!(first_frame(&bytes[..6], client), Ok(None));
    }
}
