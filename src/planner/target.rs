//! What is left to decide at each execution: the shards of the parameters' values.

use std::borrow::Cow;
use std::sync::Arc;

use super::proof::Constant;
use super::{Assigned, Number, Plan, Refusal, Route};
use crate::names::ShardId;
use crate::placement::{Decoded, KeyType, KeyValue, Placement, array};

/// Where one execution runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    One(ShardId),
    /// Whichever shard is at hand.
    Any,
    /// The authoritative shard; also where PostgreSQL is to raise the error of a value that is none.
    Authoritative,
    /// These, two or more, in order.
    Some(Arc<[ShardId]>),
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
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const UUID: u32 = 2950;
/// Arrays, with their elements' types.
const ARRAYS: &[(u32, u32)] = &[
    (1005, INT2),
    (1007, INT4),
    (1009, TEXT),
    (1014, BPCHAR),
    (1015, VARCHAR),
    (1016, INT8),
    (2951, UUID),
];

/// Whether a parameter declared with this type compares and hashes like a key of `key_type`.
///
/// All integer widths hash alike, and so do text and varchar; name and numeric do not.
pub fn accepts_parameter_type(key_type: KeyType, oid: u32) -> bool {
    decoder(key_type, oid).is_some()
}

fn decoder(key_type: KeyType, oid: u32) -> Option<KeyType> {
    match (key_type, oid) {
        (KeyType::Int2 | KeyType::Int4 | KeyType::Int8, INT2) => Some(KeyType::Int2),
        (KeyType::Int2 | KeyType::Int4 | KeyType::Int8, INT4) => Some(KeyType::Int4),
        (KeyType::Int2 | KeyType::Int4 | KeyType::Int8, INT8) => Some(KeyType::Int8),
        (KeyType::Text, TEXT | VARCHAR | UNKNOWN) => Some(KeyType::Text),
        (KeyType::Bpchar, BPCHAR | UNKNOWN) => Some(KeyType::Bpchar),
        // Compared as texts, the column without its blanks: with blanks at the end nothing is equal, anywhere.
        (KeyType::Bpchar, TEXT | VARCHAR) => Some(KeyType::Text),
        (KeyType::Uuid, UUID) => Some(KeyType::Uuid),
        _ => None,
    }
}

impl Plan {
    /// The shard or shards of one execution.
    ///
    /// Errors: values of several shards where the statement has to run on one, a parameter whose type does not hash like
    /// the key, and NULL as the key of a new row.
    pub fn target(
        &self,
        placement: &Placement,
        parameters: &dyn Parameters,
    ) -> Result<Target, Refusal> {
        match &self.route {
            Route::One(shard) => Ok(Target::One(*shard)),
            Route::Any => Ok(Target::Any),
            Route::Authoritative => Ok(Target::Authoritative),
            Route::Some(shards) => Ok(Target::Some(Arc::clone(shards))),
            Route::Every => Ok(Target::Every),
            Route::Key {
                parameter,
                key_type,
                assigned,
            } => {
                let constant = Constant::Parameter {
                    index: *parameter,
                    key_type: *key_type,
                    assigned: *assigned,
                };
                let mut target = Target::Any;
                let mut add = |value: &KeyValue| target = Target::One(placement.shard(value));
                match resolve(&constant, parameters, &mut add)? {
                    Found::Values => Ok(target),
                    Found::Invalid => Ok(Target::Authoritative),
                }
            }
            Route::Keys(keys) => keys.target(placement, parameters),
        }
    }
}

/// What became of a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Values,
    /// The server that reads it raises an error.
    Invalid,
}

/// Gives every value that a constant stands for to `add`. NULL equals nothing, and so is none.
pub(super) fn resolve(
    constant: &Constant,
    parameters: &dyn Parameters,
    add: &mut dyn FnMut(&KeyValue),
) -> Result<Found, Refusal> {
    match constant {
        Constant::Value(value) => {
            add(value);
            Ok(Found::Values)
        }
        Constant::Invalid => Ok(Found::Invalid),
        Constant::Parameter {
            index,
            key_type,
            assigned,
        } => {
            let Some(bound) = parameters.bound(*index) else {
                // The server will say that the parameter is missing.
                return Ok(Found::Invalid);
            };
            let decoder = match decoder(*key_type, bound.type_oid) {
                None => return Err(wrong_type(&bound)),
                // Stored, a text loses its blanks too.
                Some(_) if assigned.is_some() && *key_type == KeyType::Bpchar => KeyType::Bpchar,
                Some(decoder) => decoder,
            };
            let Some(bytes) = bound.bytes else {
                return match assigned {
                    Some(_) => Err(Refusal::new(Number::KeyNull)),
                    None => Ok(Found::Values),
                };
            };
            let value = match decode(decoder, bytes, bound.binary) {
                Decoded::Value(value) => value,
                Decoded::Invalid => return Ok(Found::Invalid),
            };
            let value = match assigned {
                Some(assigned) => stored(value, *assigned),
                None => Some(value),
            };
            Ok(value.map_or(Found::Invalid, |value| {
                add(&value);
                Found::Values
            }))
        }
        Constant::Elements { index, key_type } => {
            let Some(bound) = parameters.bound(*index) else {
                return Ok(Found::Invalid);
            };
            let of_array = ARRAYS.iter().find(|(array, _)| *array == bound.type_oid);
            let decoder = of_array
                .and_then(|(_, element)| decoder(*key_type, *element))
                .ok_or_else(|| wrong_type(&bound))?;
            let Some(bytes) = bound.bytes else {
                return Ok(Found::Values);
            };
            let elements = if bound.binary {
                array::from_binary(bytes)
            } else {
                array::from_text(bytes)
            };
            // PostgreSQL may understand it, so it must not go to any one shard.
            let unread =
                || Refusal::about(Number::ParameterType, "an array that is not understood");
            for element in elements.ok_or_else(unread)?.iter().flatten() {
                match decode(decoder, element, bound.binary) {
                    Decoded::Value(value) => add(&value),
                    Decoded::Invalid => return Ok(Found::Invalid),
                }
            }
            Ok(Found::Values)
        }
    }
}

fn wrong_type(bound: &Bound<'_>) -> Refusal {
    Refusal::about(Number::ParameterType, format!("type {}", bound.type_oid))
}

fn decode(key_type: KeyType, bytes: &[u8], binary: bool) -> Decoded {
    if binary {
        key_type.from_binary(bytes)
    } else {
        key_type.from_text(bytes)
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
