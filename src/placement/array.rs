//! The elements of an array, from PostgreSQL's text and binary formats (`utils/adt/arrayfuncs.c`), whatever their
//! dimensions: `= ANY` looks at all of them alike.
//!
//! What would surprise: `None` is no error of PostgreSQL's. It says only that the bytes are not understood here, as with
//! bounds written in front (`[2:3]={…}`), so nothing must be concluded from it.

use std::borrow::Cow;

use super::key::{is_space, trim};

/// Elements that are read; an array of more is not understood.
const ELEMENTS_MAX: usize = 100_000;

/// Each element's bytes in the same format; `None` is NULL.
type Elements<'a> = Vec<Option<Cow<'a, [u8]>>>;

/// Reads `{1,"2",NULL}`.
#[must_use]
pub fn from_text(text: &[u8]) -> Option<Elements<'_>> {
    let mut elements = Vec::new();
    let mut at = Text { rest: trim(text) };
    at.array(&mut elements, 0)?;
    at.rest.is_empty().then_some(elements)
}

/// PostgreSQL's own limit (MAXDIM).
const DIMENSIONS_MAX: usize = 6;

struct Text<'a> {
    rest: &'a [u8],
}

impl<'a> Text<'a> {
    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn blanks(&mut self) {
        let is_kept = |&byte: &u8| !is_space(byte);
        let start = self.rest.iter().position(is_kept);
        self.rest = self
            .rest
            .get(start.unwrap_or(self.rest.len())..)
            .unwrap_or_default();
    }

    fn array(&mut self, elements: &mut Elements<'a>, depth: usize) -> Option<()> {
        if depth >= DIMENSIONS_MAX {
            return None;
        }
        self.take(b'{')?;
        self.blanks();
        if self.take(b'}').is_some() {
            // Only an array without any element is written so.
            return (depth == 0).then_some(());
        }
        loop {
            self.blanks();
            match self.rest.first()? {
                b'{' => self.array(elements, depth + 1)?,
                b'"' => elements.push(Some(self.quoted()?)),
                _ => elements.push(self.bare()?),
            }
            if elements.len() > ELEMENTS_MAX {
                return None;
            }
            self.blanks();
            if self.take(b'}').is_some() {
                return Some(());
            }
            self.take(b',')?;
        }
    }

    fn quoted(&mut self) -> Option<Cow<'a, [u8]>> {
        self.take(b'"')?;
        let end = memchr::memchr2(b'"', b'\\', self.rest)?;
        let (plain, rest) = self.rest.split_at_checked(end)?;
        if rest.first() == Some(&b'"') {
            self.rest = rest.get(1..)?;
            return Some(Cow::Borrowed(plain));
        }
        let mut value = plain.to_vec();
        let mut bytes = rest.iter();
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => value.push(*bytes.next()?),
                byte => value.push(*byte),
            }
        }
        self.rest = bytes.as_slice();
        Some(Cow::Owned(value))
    }

    /// Without quotes; one with a backslash is left to PostgreSQL.
    fn bare(&mut self) -> Option<Option<Cow<'a, [u8]>>> {
        let end = self
            .rest
            .iter()
            .position(|byte| b",{}\"\\".contains(byte))?;
        if !matches!(self.rest.get(end)?, b',' | b'}') {
            return None;
        }
        let (value, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        let value = trim(value);
        if value.is_empty() {
            return None;
        }
        let null = value.eq_ignore_ascii_case(b"null");
        Some((!null).then_some(Cow::Borrowed(value)))
    }
}

/// Reads what `array_recv` reads.
#[must_use]
pub fn from_binary(bytes: &[u8]) -> Option<Elements<'_>> {
    let mut rest = bytes;
    let dimensions = usize::try_from(number(&mut rest)?).ok()?;
    let _flags = number(&mut rest)?;
    let _element_type = number(&mut rest)?;
    if dimensions > DIMENSIONS_MAX {
        return None;
    }
    let mut count: usize = usize::from(dimensions > 0);
    for _ in 0..dimensions {
        count = count.checked_mul(usize::try_from(number(&mut rest)?).ok()?)?;
        let _lower_bound = number(&mut rest)?;
    }
    if count > ELEMENTS_MAX {
        return None;
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        elements.push(match number(&mut rest)? {
            -1 => None,
            length => {
                let (value, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                rest = after;
                Some(Cow::Borrowed(value))
            }
        });
    }
    rest.is_empty().then_some(elements)
}

fn number(rest: &mut &[u8]) -> Option<i32> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(i32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<Option<String>>> {
        let elements = from_text(text.as_bytes())?;
        let text = |bytes: Cow<'_, [u8]>| String::from_utf8(bytes.into_owned()).unwrap();
        Some(elements.into_iter().map(|each| each.map(text)).collect())
    }

    #[test]
    fn texts_are_read_as_array_in_reads_them() {
        let some =
            |values: &[&str]| Some(values.iter().map(|each| Some((*each).to_owned())).collect());
        for (text, expected) in [
            ("{}", Some(Vec::new())),
            (" { } ", Some(Vec::new())),
            ("{1,2}", some(&["1", "2"])),
            ("{ 1 , 2 }", some(&["1", "2"])),
            ("\u{b}{\u{b}1\u{b},\t2\r}\u{c}", some(&["1", "2"])),
            ("{a b , c}", some(&["a b", "c"])),
            (r#"{"a","","NULL"," x "}"#, some(&["a", "", "NULL", " x "])),
            (r#"{"a\"b","c\\d"}"#, some(&["a\"b", "c\\d"])),
            ("{{1,2},{3,4}}", some(&["1", "2", "3", "4"])),
            ("{NULL,null}", Some(vec![None, None])),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        for text in [
            "",
            "1",
            "{1",
            "{1,}",
            "{,1}",
            "{1}}",
            "{1}x",
            "[2:3]={1,2}",
            r"{a\,b}",
            r#"{"a"b}"#,
            r#"{a"b"}"#,
            r#"{"a}"#,
            "{{}}",
            "{{{{{{{1}}}}}}}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn binary_arrays_are_read_whole_or_not_at_all() {
        let int = |value: i32| value.to_be_bytes();
        let header = [int(1), int(1), int(23), int(2), int(1)].concat();
        let array = [&header[..], &int(4), &int(7), &int(-1)].concat();
        assert_eq!(
            from_binary(&array),
            Some(vec![Some(Cow::Borrowed(&int(7)[..])), None])
        );
        let empty = [int(0), int(0), int(23)].concat();
        assert_eq!(from_binary(&empty), Some(Vec::new()));
        for end in 0..array.len() {
            assert_eq!(from_binary(array.get(..end).unwrap()), None, "{end}");
        }
        assert_eq!(from_binary(&[&array[..], &[0]].concat()), None);
        let huge = [
            int(2),
            int(0),
            int(23),
            int(i32::MAX),
            int(1),
            int(i32::MAX),
            int(1),
        ]
        .concat();
        assert_eq!(from_binary(&huge), None);
    }
}
