//! From the bytes of a literal or parameter to the canonical value of a sharding key, by the rules of PostgreSQL's
//! input and receive functions (`utils/adt/numutils.c`, `int.c`, `int8.c`, `uuid.c`, `varlena.c`).
//!
//! Text is taken as it is: that it is in the server encoding is for the caller to know, and what is not valid there
//! any shard refuses.
//!
//! What would surprise: integers written as PostgreSQL 16 allows (`0x1F`, `0o17`, `0b1`, `1_000`) have a value here
//! although older servers refuse them. On an older server the statement then fails on the shard that it reaches,
//! which is right; calling them invalid would send them to any shard of a newer server, which is not.

/// The types whose values can be hashed here without asking a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    Int2,
    Int4,
    Int8,
    /// text and varchar under a deterministic collation, in the server encoding.
    Text,
    /// char(n), likewise: blanks at the end do not count.
    Bpchar,
    Uuid,
}

/// One value of a sharding key, in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyValue {
    Int(i64),
    Text(Vec<u8>),
    Uuid([u8; 16]),
    Null,
}

/// What the bytes of a key value turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    Value(KeyValue),
    /// The type's input function would raise an error: any shard will raise it.
    Invalid,
}

impl KeyType {
    /// The type of a column by its `pg_type` name or its SQL name; `None` for all others (`numeric`, domains
    /// …), which cannot be sharding keys.
    #[must_use]
    pub fn from_type_name(name: &str) -> Option<Self> {
        let bare = name.strip_prefix("pg_catalog.").unwrap_or(name);
        // format_type() writes a length behind varchar; it is no part of the hash.
        let bare = bare.split_once('(').map_or(bare, |(before, _)| before);
        Some(match bare {
            "int2" | "smallint" => KeyType::Int2,
            "int4" | "integer" => KeyType::Int4,
            "int8" | "bigint" => KeyType::Int8,
            "text" | "varchar" | "character varying" => KeyType::Text,
            "bpchar" | "character" => KeyType::Bpchar,
            "uuid" => KeyType::Uuid,
            _ => return None,
        })
    }

    /// The type of a column or parameter by its object id (fixed in `pg_type.dat`).
    #[must_use]
    pub fn from_oid(oid: u32) -> Option<Self> {
        Some(match oid {
            21 => KeyType::Int2,
            23 => KeyType::Int4,
            20 => KeyType::Int8,
            25 | 1043 => KeyType::Text,
            1042 => KeyType::Bpchar,
            2950 => KeyType::Uuid,
            _ => return None,
        })
    }

    /// Whether equal values of the two types have equal hashes, so that a column may change from one to the other.
    #[must_use]
    pub fn hashes_like(self, other: KeyType) -> bool {
        self.is_integer() && other.is_integer() || self == other
    }

    fn is_integer(self) -> bool {
        matches!(self, KeyType::Int2 | KeyType::Int4 | KeyType::Int8)
    }

    /// PostgreSQL's input semantics of the type for a text value (a literal or a text-format parameter).
    #[must_use]
    pub fn from_text(self, text: &[u8]) -> Decoded {
        let value = match self {
            KeyType::Int2 => integer(text)
                .filter(|v| i16::try_from(*v).is_ok())
                .map(KeyValue::Int),
            KeyType::Int4 => integer(text)
                .filter(|v| i32::try_from(*v).is_ok())
                .map(KeyValue::Int),
            KeyType::Int8 => integer(text).map(KeyValue::Int),
            KeyType::Text => Some(KeyValue::Text(text.to_vec())),
            KeyType::Bpchar => Some(KeyValue::Text(without_blanks(text))),
            KeyType::Uuid => uuid(text).map(KeyValue::Uuid),
        };
        value.map_or(Decoded::Invalid, Decoded::Value)
    }

    /// The type's binary receive format. `self` must be the type of the *parameter*: an int8 parameter compared with
    /// an int4 column arrives in eight bytes.
    #[must_use]
    pub fn from_binary(self, bytes: &[u8]) -> Decoded {
        let value = match self {
            KeyType::Int2 => bytes
                .try_into()
                .ok()
                .map(|b| KeyValue::Int(i16::from_be_bytes(b).into())),
            KeyType::Int4 => bytes
                .try_into()
                .ok()
                .map(|b| KeyValue::Int(i32::from_be_bytes(b).into())),
            KeyType::Int8 => bytes
                .try_into()
                .ok()
                .map(|b| KeyValue::Int(i64::from_be_bytes(b))),
            KeyType::Text => Some(KeyValue::Text(bytes.to_vec())),
            KeyType::Bpchar => Some(KeyValue::Text(without_blanks(bytes))),
            KeyType::Uuid => bytes.try_into().ok().map(KeyValue::Uuid),
        };
        value.map_or(Decoded::Invalid, Decoded::Value)
    }
}

impl KeyValue {
    /// The value as it is *stored* by INSERT or UPDATE into a `varchar(length_max)` column: blanks beyond the length
    /// are cut off in silence, anything else is an error. Comparisons do not do this. `length_max` is in characters.
    #[must_use]
    pub fn stored_in_varchar(self, length_max: usize) -> Decoded {
        let KeyValue::Text(mut bytes) = self else {
            return Decoded::Value(self);
        };
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Decoded::Invalid;
        };
        if let Some((cut, _)) = text.char_indices().nth(length_max) {
            if text.bytes().skip(cut).any(|byte| byte != b' ') {
                return Decoded::Invalid;
            }
            bytes.truncate(cut);
        }
        Decoded::Value(KeyValue::Text(bytes))
    }
}

/// `bcTruelen`: what of a char(n) is compared and hashed.
fn without_blanks(text: &[u8]) -> Vec<u8> {
    let end = text.iter().rposition(|&byte| byte != b' ');
    let kept = end.and_then(|end| text.get(..=end));
    kept.unwrap_or_default().to_vec()
}

/// `pg_strtoint64`: blanks around, one sign, digits; overflow of 64 bits is `None`.
fn integer(text: &[u8]) -> Option<i64> {
    let text = trim(text);
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    // Summed on the negative side, which reaches one further.
    let sum = match digits {
        [b'0', b'x' | b'X', rest @ ..] => negated_sum(rest, 16, true)?,
        [b'0', b'o' | b'O', rest @ ..] => negated_sum(rest, 8, true)?,
        [b'0', b'b' | b'B', rest @ ..] => negated_sum(rest, 2, true)?,
        _ => negated_sum(digits, 10, false)?,
    };
    if negative {
        Some(sum)
    } else {
        sum.checked_neg()
    }
}

/// Digits with single underscores between them; after a radix prefix an underscore may also come first.
fn negated_sum(digits: &[u8], radix: u32, underscore_first: bool) -> Option<i64> {
    let mut sum = 0i64;
    let mut after_digit = underscore_first;
    let mut complete = false;
    for byte in digits {
        if *byte == b'_' && after_digit {
            (after_digit, complete) = (false, false);
            continue;
        }
        let digit = char::from(*byte).to_digit(radix)?;
        sum = sum
            .checked_mul(i64::from(radix))?
            .checked_sub(i64::from(digit))?;
        (after_digit, complete) = (true, true);
    }
    complete.then_some(sum)
}

/// C's `isspace` in the C locale, which is `array_isspace`, too: Rust's ASCII white space and the vertical tab.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

pub(super) fn trim(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|&byte| !is_space(byte))
        .unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|&byte| !is_space(byte))
        .map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

/// `string_to_uuid`: 32 digits, a hyphen allowed after every group of four, braces allowed around, no blanks.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut rest = match text {
        [b'{', inner @ .., b'}'] => inner,
        _ => text,
    };
    let mut value = [0u8; 16];
    for (i, slot) in value.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else {
            return None;
        };
        let high = char::from(*high).to_digit(16)?;
        let low = char::from(*low).to_digit(16)?;
        *slot = u8::try_from(high << 4 | low).ok()?;
        rest = match after {
            [b'-', beyond @ ..] if i % 2 == 1 && i < 15 => beyond,
            _ => after,
        };
    }
    rest.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: i64) -> Decoded {
        Decoded::Value(KeyValue::Int(value))
    }

    #[test]
    fn integers_are_read_as_postgresql_reads_them() {
        let invalid = Decoded::Invalid;
        let examples: [(KeyType, &str, Decoded); 31] = [
            (KeyType::Int4, "5", int(5)),
            (KeyType::Int4, "  5 ", int(5)),
            (KeyType::Int4, "\t\n\u{b}\u{c}\r5\u{b}", int(5)),
            (KeyType::Int4, "+5", int(5)),
            (KeyType::Int4, "-5", int(-5)),
            (KeyType::Int4, "005", int(5)),
            (KeyType::Int4, "-0", int(0)),
            (KeyType::Int4, "", invalid.clone()),
            (KeyType::Int4, "  ", invalid.clone()),
            (KeyType::Int4, "+", invalid.clone()),
            (KeyType::Int4, "- 5", invalid.clone()),
            (KeyType::Int4, "--5", invalid.clone()),
            (KeyType::Int4, "5.0", invalid.clone()),
            (KeyType::Int4, "1e3", invalid.clone()),
            (KeyType::Int4, "5 5", invalid.clone()),
            (KeyType::Int4, "\u{a0}5", invalid.clone()),
            (KeyType::Int4, "٥", invalid.clone()),
            (KeyType::Int2, "32767", int(32767)),
            (KeyType::Int2, "32768", invalid.clone()),
            (KeyType::Int2, "-32768", int(-32768)),
            (KeyType::Int4, "2147483648", invalid.clone()),
            (KeyType::Int4, "-2147483648", int(-2_147_483_648)),
            (KeyType::Int8, "9223372036854775807", int(i64::MAX)),
            (KeyType::Int8, "9223372036854775808", invalid.clone()),
            (KeyType::Int8, "-9223372036854775808", int(i64::MIN)),
            (KeyType::Int8, "-9223372036854775809", invalid.clone()),
            (KeyType::Int8, "99999999999999999999", invalid.clone()),
            (KeyType::Int8, "5\0", invalid.clone()),
            (KeyType::Int8, "0x", invalid.clone()),
            (KeyType::Int8, "1__0", invalid.clone()),
            (KeyType::Int8, "1_", invalid),
        ];
        for (key_type, text, expected) in examples {
            assert_eq!(
                key_type.from_text(text.as_bytes()),
                expected,
                "{key_type:?} {text:?}"
            );
        }
    }

    #[test]
    fn integers_as_newer_servers_write_them_have_a_value() {
        for (text, value) in [
            ("0x1F", 31),
            ("-0X1f", -31),
            ("0o17", 15),
            ("0b101", 5),
            ("1_000", 1000),
            ("0x_1F", 31),
        ] {
            assert_eq!(
                KeyType::Int8.from_text(text.as_bytes()),
                int(value),
                "{text}"
            );
        }
        assert_eq!(KeyType::Int8.from_text(b"_1"), Decoded::Invalid);
        assert_eq!(
            KeyType::Int8.from_text(b"-0x8000000000000000"),
            int(i64::MIN)
        );
        assert_eq!(
            KeyType::Int8.from_text(b"0x8000000000000000"),
            Decoded::Invalid
        );
    }

    #[test]
    fn uuids_are_read_with_hyphens_between_groups_of_four_and_braces() {
        let value = [
            0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38,
            0x0a, 0x11,
        ];
        for text in [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ] {
            let expected = Decoded::Value(KeyValue::Uuid(value));
            assert_eq!(KeyType::Uuid.from_text(text.as_bytes()), expected, "{text}");
        }
        for text in [
            "",
            "{}",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
            " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0e-ebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
            "-a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ] {
            assert_eq!(
                KeyType::Uuid.from_text(text.as_bytes()),
                Decoded::Invalid,
                "{text:?}"
            );
        }
    }

    #[test]
    fn text_is_taken_as_it_is() {
        for text in ["", " a ", "Ä", "a\0"] {
            let expected = Decoded::Value(KeyValue::Text(text.as_bytes().to_vec()));
            assert_eq!(KeyType::Text.from_text(text.as_bytes()), expected);
            assert_eq!(KeyType::Text.from_binary(text.as_bytes()), expected);
        }
    }

    #[test]
    fn binary_values_have_exactly_the_length_of_their_type() {
        assert_eq!(KeyType::Int2.from_binary(&(-2i16).to_be_bytes()), int(-2));
        assert_eq!(KeyType::Int4.from_binary(&(-2i32).to_be_bytes()), int(-2));
        assert_eq!(KeyType::Int8.from_binary(&(-2i64).to_be_bytes()), int(-2));
        assert_eq!(
            KeyType::Uuid.from_binary(&[7; 16]),
            Decoded::Value(KeyValue::Uuid([7; 16]))
        );
        for key_type in [KeyType::Int2, KeyType::Int4, KeyType::Int8, KeyType::Uuid] {
            for length in [0, 1, 3, 5, 7, 9, 15, 17] {
                assert_eq!(
                    key_type.from_binary(&vec![0; length]),
                    Decoded::Invalid,
                    "{key_type:?} {length}"
                );
            }
        }
    }

    #[test]
    fn what_varchar_stores_loses_blanks_beyond_its_length() {
        let stored = |text: &str, length| match KeyType::Text.from_text(text.as_bytes()) {
            Decoded::Value(value) => value.stored_in_varchar(length),
            Decoded::Invalid => Decoded::Invalid,
        };
        let value = |text: &str| Decoded::Value(KeyValue::Text(text.as_bytes().to_vec()));
        assert_eq!(stored("abc", 3), value("abc"));
        assert_eq!(stored("abc   ", 3), value("abc"));
        assert_eq!(stored("ab ", 3), value("ab "));
        assert_eq!(stored("äöü  ", 4), value("äöü "));
        assert_eq!(stored("abcd", 3), Decoded::Invalid);
        assert_eq!(stored("abc d", 3), Decoded::Invalid);
        assert_eq!(
            KeyValue::Null.stored_in_varchar(1),
            Decoded::Value(KeyValue::Null)
        );
    }

    #[test]
    fn types_are_known_by_name_and_by_object_id() {
        for (names, oid, key_type) in [
            (
                &["int2", "smallint", "pg_catalog.int2"][..],
                21,
                KeyType::Int2,
            ),
            (&["int4", "integer"][..], 23, KeyType::Int4),
            (&["int8", "bigint"][..], 20, KeyType::Int8),
            (&["text"][..], 25, KeyType::Text),
            (
                &["varchar", "character varying", "character varying(20)"][..],
                1043,
                KeyType::Text,
            ),
            (
                &["bpchar", "character", "character(3)"][..],
                1042,
                KeyType::Bpchar,
            ),
            (&["uuid"][..], 2950, KeyType::Uuid),
        ] {
            for name in names {
                assert_eq!(KeyType::from_type_name(name), Some(key_type), "{name}");
            }
            assert_eq!(KeyType::from_oid(oid), Some(key_type), "{oid}");
        }
        for name in ["\"char\"", "numeric", "mine.int4", "text[]", ""] {
            assert_eq!(KeyType::from_type_name(name), None, "{name}");
        }
        assert_eq!(KeyType::from_oid(1700), None);
    }

    #[test]
    fn an_integer_key_may_grow_but_not_become_text() {
        assert!(KeyType::Int2.hashes_like(KeyType::Int8));
        assert!(KeyType::Uuid.hashes_like(KeyType::Uuid));
        assert!(!KeyType::Int8.hashes_like(KeyType::Text));
        assert!(!KeyType::Text.hashes_like(KeyType::Uuid));
        // equal as bpchar are 'a' and 'a ', as text they are not
        assert!(!KeyType::Text.hashes_like(KeyType::Bpchar));
    }

    #[test]
    fn blanks_at_the_end_of_a_char_do_not_count() {
        for (text, kept) in [
            ("a  ", "a"),
            (" a", " a"),
            ("   ", ""),
            ("", ""),
            ("a\t ", "a\t"),
        ] {
            let value = Decoded::Value(KeyValue::Text(kept.as_bytes().to_vec()));
            assert_eq!(
                KeyType::Bpchar.from_text(text.as_bytes()),
                value,
                "{text:?}"
            );
            assert_eq!(
                KeyType::Bpchar.from_binary(text.as_bytes()),
                value,
                "{text:?}"
            );
        }
    }
}
