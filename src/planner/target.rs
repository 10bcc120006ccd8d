//! What is left to decide at each execution: the shard of a parameter's value.

use std::borrow::Cow;

use super::{Assigned, Number, Plan, Refusal, Route};
use crate::names::ShardId;
use crate::placement::{Decoded, KeyType, KeyValue, Placement};

/// Where one execution runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    One(ShardId),
    /// Whichever shard is at hand.
    Any,
    /// The authoritative shard; also where PostgreSQL is to raise the error of a value that is none.
    Authoritative,
    Every,
}

/// One bound parameter as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound<'a> {
    /// `None` is NULL.
    pub bytes: Option<&'a [u8]>,
    pub binary: bool,
    /// The type that the server declared for it (ParameterDescription), or the client in Parse.
    pub type_oid: u32,
}

/// The parameters of one execution.
pub trait Parameters {
    /// The parameter at `index`, from 0; `None` where there is none.
    fn bound(&self, index: u16) -> Option<Bound<'_>>;
}

/// No parameters: a simple query.
impl Parameters for () {
    fn bound(&self, _: u16) -> Option<Bound<'_>> {
        None
    }
}

const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const UNKNOWN: u32 = 705;
const VARCHAR: u32 = 1043;
const UUID: u32 = 2950;

/// Whether a parameter declared with this type compares and hashes like a key of `key_type`.
///
/// All integer widths hash alike, and so do text and varchar; bpchar, name and numeric do not.
pub fn accepts_parameter_type(key_type: KeyType, oid: u32) -> bool {
    decoder(key_type, oid).is_some()
}

fn decoder(key_type: KeyType, oid: u32) -> Option<KeyType> {
    match (key_type, oid) {
        (KeyType::Int2 | KeyType::Int4 | KeyType::Int8, INT2) => Some(KeyType::Int2),
        (KeyType::Int2 | KeyType::Int4 | KeyType::Int8, INT4) => Some(KeyType::Int4),
        (KeyType::Int2 | KeyType::Int4 | KeyType::Int8, INT8) => Some(KeyType::Int8),
        (KeyType::Text, TEXT | VARCHAR | UNKNOWN) => Some(KeyType::Text),
        (KeyType::Uuid, UUID) => Some(KeyType::Uuid),
        _ => None,
    }
}

impl Plan {
    /// The shard or shards of one execution.
    ///
    /// Errors: a parameter whose type does not hash like the key, and NULL as the key of a new row.
    pub fn target(
        &self,
        placement: &Placement,
        parameters: &dyn Parameters,
    ) -> Result<Target, Refusal> {
        match self.route {
            Route::One(shard) => Ok(Target::One(shard)),
            Route::Any => Ok(Target::Any),
            Route::Authoritative => Ok(Target::Authoritative),
            Route::Every => Ok(Target::Every),
            Route::Key {
                parameter,
                key_type,
            } => match parameters.bound(parameter) {
                Some(bound) => key_target(key_type, &bound, self.assigned, placement),
                // the server will say that the parameter is missing
                None => Ok(Target::Authoritative),
            },
        }
    }
}

fn key_target(
    key_type: KeyType,
    bound: &Bound<'_>,
    assigned: Option<Assigned>,
    placement: &Placement,
) -> Result<Target, Refusal> {
    let Some(decoder) = decoder(key_type, bound.type_oid) else {
        return Err(Refusal::about(
            Number::ParameterType,
            format!("type {}", bound.type_oid),
        ));
    };
    let decoded = match bound.bytes {
        None => Decoded::Value(KeyValue::Null),
        Some(bytes) if bound.binary => decoder.from_binary(bytes),
        Some(bytes) => decoder.from_text(bytes),
    };
    match (decoded, assigned) {
        (Decoded::Invalid, _) => Ok(Target::Authoritative),
        (Decoded::Value(KeyValue::Null), Some(_)) => Err(Refusal::new(Number::KeyNull)),
        // `key = NULL` holds for no row of any shard
        (Decoded::Value(KeyValue::Null), None) => Ok(Target::Any),
        (Decoded::Value(value), None) => Ok(Target::One(placement.shard(&value))),
        (Decoded::Value(value), Some(assigned)) => Ok(match stored(value, assigned) {
            Some(value) => Target::One(placement.shard(&value)),
            None => Target::Authoritative,
        }),
    }
}

/// The value as the column will hold it; `None` where PostgreSQL will refuse it as too long.
pub(super) fn stored(value: KeyValue, assigned: Assigned) -> Option<KeyValue> {
    let (KeyValue::Text(bytes), Some(max)) = (&value, assigned.characters_max) else {
        return Some(value);
    };
    let text: Cow<'_, str> = String::from_utf8_lossy(bytes);
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    match text.char_indices().nth(max) {
        None => Some(value),
        Some((end, _)) => match bytes.split_at_checked(end) {
            Some((kept, rest)) if rest.iter().all(|&byte| byte == b' ') => {
                Some(KeyValue::Text(kept.to_vec()))
            }
            _ => None,
        },
    }
}
