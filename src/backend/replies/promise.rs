//! What a client was told of a statement's parameters and columns holds on every server: PostgreSQL refuses to run a
//! prepared statement whose columns have changed, and so must a server that parses it later than others.

use std::hash::{DefaultHasher, Hasher};

use super::{StatementId, WHOLE_BYTES_MAX};
use crate::wire::decode;
use crate::wire::frame::{Frame, FrameError, HEADER_BYTES, server_frames};

/// Parameter types, and names and types of the columns, as one number. Which table a column is of does not count.
pub type Description = u64;

/// Descriptions that pass by.
#[derive(Debug, Default)]
pub struct Descriptions {
    /// Of the ParameterDescription that was seen last.
    hasher: Option<DefaultHasher>,
    /// What clients were told since the last look.
    pub told: Vec<(StatementId, Description)>,
    /// A server describes a statement otherwise than a client was told.
    pub broken: bool,
}

impl Descriptions {
    /// A ParameterDescription; the rest is in the message behind it. Of one that is too long nothing is promised, also
    /// where it came in one piece, for elsewhere it may not.
    pub(super) fn parameters(&mut self, whole: Option<&[u8]>) {
        self.hasher = whole.filter(is_short).map(|whole| {
            let mut hasher = DefaultHasher::new();
            hasher.write(whole);
            hasher
        });
    }

    /// A RowDescription or NoData.
    pub(super) fn columns(
        &mut self,
        tag: u8,
        whole: Option<&[u8]>,
    ) -> Result<Option<Description>, FrameError> {
        let (Some(mut hasher), Some(whole)) = (self.hasher.take(), whole.filter(is_short)) else {
            return Ok(None);
        };
        if tag == b'T' {
            let body = whole.get(HEADER_BYTES..).unwrap_or_default();
            let mut from = 2;
            decode::row_description(body, |at| {
                // The name; then table and number of the column, which are left out; then type, length and modifier.
                hasher.write(body.get(from..at).unwrap_or_default());
                hasher.write(body.get(at + 6..at + 16).unwrap_or_default());
                from = at + 18;
            })?;
        }
        hasher.write_u8(tag);
        Ok(Some(hasher.finish()))
    }
}

/// The description in an answer to Describe of a statement; `None` where it has none.
///
/// # Errors
/// The bytes make no sense.
pub fn description_in(answer: &[u8]) -> Result<Option<Description>, FrameError> {
    let mut descriptions = Descriptions::default();
    let mut found = None;
    for frame in server_frames(answer) {
        let Frame { tag, whole, .. } = frame?;
        match tag {
            b't' => descriptions.parameters(Some(whole)),
            b'T' | b'n' => found = descriptions.columns(tag, Some(whole))?,
            _ => {}
        }
    }
    Ok(found)
}

fn is_short(whole: &&[u8]) -> bool {
    whole.len() <= WHOLE_BYTES_MAX
}
