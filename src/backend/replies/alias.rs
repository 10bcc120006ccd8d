//! The client's names in the place of ours, in errors of the server.

use crate::wire::decode;
use crate::wire::encode;
use crate::wire::frame::HEADER_BYTES;

/// What a client calls a statement; it needs no memory of its own, so the end of a long one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alias {
    length: u8,
    bytes: [u8; 30],
}

impl Alias {
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        let mut alias = Self::default();
        for (place, &byte) in alias.bytes.iter_mut().zip(name) {
            *place = byte;
            alias.length += 1;
        }
        alias
    }

    /// An ErrorResponse with this name in the place of ours; `None` where ours is not in it.
    pub(super) fn put_into(&self, error: &[u8]) -> Option<Vec<u8>> {
        const OURS: &[u8] = b"\"pgherd_";
        let name = self.bytes.get(..usize::from(self.length))?;
        let fields = decode::fields(b'E', error.get(HEADER_BYTES..)?).ok()?;
        let message = fields.field(b'M')?;
        let at = memchr::memmem::find(message, OURS)?;
        let behind = message.get(at + OURS.len()..)?;
        let digits = behind
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let renamed = [message.get(..=at)?, name, behind.get(digits..)?].concat();
        let fields = fields.map(|(code, value)| match code {
            b'M' => (code, renamed.as_slice()),
            _ => (code, value),
        });
        let mut out = Vec::new();
        encode::error_of_fields(&mut out, fields);
        Some(out)
    }
}
