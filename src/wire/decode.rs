//! Borrowed decoders of the message bodies that pgherd must read. Total: any bytes give a value or a [`FrameError`];
//! nothing is assumed to be UTF-8, and a body must be consumed to its end.
//!
//! Shapes: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

use super::frame::FrameError;

/// A cursor over one body.
#[derive(Debug, Clone, Copy)]
struct Body<'a> {
    tag: u8,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn new(tag: u8, body: &'a [u8]) -> Self {
        Self { tag, rest: body }
    }

    fn malformed(&self, what: &'static str) -> FrameError {
        FrameError::Malformed {
            tag: self.tag,
            what,
        }
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], FrameError> {
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| self.malformed("ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, FrameError> {
        let (&head, rest) = self
            .rest
            .split_first()
            .ok_or_else(|| self.malformed("ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    fn int16(&mut self) -> Result<i16, FrameError> {
        let bytes = self.bytes(2)?;
        Ok(i16::from_be_bytes(
            bytes
                .try_into()
                .map_err(|_| self.malformed("ends too early"))?,
        ))
    }

    fn int32(&mut self) -> Result<i32, FrameError> {
        let bytes = self.bytes(4)?;
        Ok(i32::from_be_bytes(
            bytes
                .try_into()
                .map_err(|_| self.malformed("ends too early"))?,
        ))
    }

    /// A count of things that take at least one byte each where they are.
    fn count(&mut self) -> Result<usize, FrameError> {
        // PostgreSQL reads these counts as unsigned: 65535 parameters are possible.
        Ok(usize::from(self.int16()?.cast_unsigned()))
    }

    fn string(&mut self) -> Result<&'a [u8], FrameError> {
        let end =
            memchr::memchr(0, self.rest).ok_or_else(|| self.malformed("a string has no end"))?;
        let string = self.bytes(end)?;
        self.byte()?;
        Ok(string)
    }

    fn end(&self) -> Result<(), FrameError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed("has bytes behind its end"))
        }
    }
}

/// Query: the text, without its final zero.
pub fn query(body: &[u8]) -> Result<&[u8], FrameError> {
    let mut body = Body::new(b'Q', body);
    let text = body.string()?;
    body.end()?;
    Ok(text)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    pub name: &'a [u8],
    pub text: &'a [u8],
    /// Type OIDs, four bytes each, big-endian; zero leaves a type to the server.
    pub types: &'a [u8],
    /// Text with its final zero, count of types and types: all but the name.
    pub tail: &'a [u8],
}

pub fn parse(body: &[u8]) -> Result<Parse<'_>, FrameError> {
    let mut body = Body::new(b'P', body);
    let name = body.string()?;
    let tail = body.rest;
    let text = body.string()?;
    let count = body.count()?;
    let types = body.bytes(count * 4)?;
    body.end()?;
    Ok(Parse {
        name,
        text,
        types,
        tail,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindNames<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// All behind the statement's name.
    pub tail: &'a [u8],
}

/// The two names of a Bind; the rest is not looked at.
pub fn bind_names(body: &[u8]) -> Result<BindNames<'_>, FrameError> {
    let mut body = Body::new(b'B', body);
    let portal = body.string()?;
    let statement = body.string()?;
    Ok(BindNames {
        portal,
        statement,
        tail: body.rest,
    })
}

/// The parameters of a Bind: formats and values as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters<'a> {
    formats: &'a [u8],
    count: usize,
    values: &'a [u8],
    /// Result format codes, two bytes each.
    pub result_formats: &'a [u8],
}

/// A parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter<'a> {
    Null,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// Reads [`BindNames::tail`].
pub fn bind_parameters(tail: &[u8]) -> Result<Parameters<'_>, FrameError> {
    let mut body = Body::new(b'B', tail);
    let format_count = body.count()?;
    let formats = body.bytes(format_count * 2)?;
    let count = body.count()?;
    if format_count > 1 && format_count != count {
        return Err(body.malformed("has another number of formats than of parameters"));
    }
    let values = body.rest;
    for _ in 0..count {
        match body.int32()? {
            -1 => {}
            length => {
                let length =
                    usize::try_from(length).map_err(|_| body.malformed("has a negative length"))?;
                body.bytes(length)?;
            }
        }
    }
    let result_count = body.count()?;
    let result_formats = body.bytes(result_count * 2)?;
    body.end()?;
    Ok(Parameters {
        formats,
        count,
        values,
        result_formats,
    })
}

impl<'a> Parameters<'a> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The parameter `$index + 1`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Parameter<'a>> {
        if index >= self.count {
            return None;
        }
        let mut body = Body::new(b'B', self.values);
        for _ in 0..index {
            if let Ok(length) = usize::try_from(body.int32().ok()?) {
                body.bytes(length).ok()?;
            }
        }
        let Ok(length) = usize::try_from(body.int32().ok()?) else {
            return Some(Parameter::Null);
        };
        let value = body.bytes(length).ok()?;
        let format_at = if self.formats.len() == 2 {
            0
        } else {
            index * 2
        };
        Some(match self.formats.get(format_at..format_at + 2) {
            None | Some([0, 0]) => Parameter::Text(value),
            Some(_) => Parameter::Binary(value),
        })
    }
}

/// Whether a name in Describe or Close is a prepared statement's or a portal's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

/// Describe or Close; `tag` says which for the error.
pub fn named(tag: u8, body: &[u8]) -> Result<Named<'_>, FrameError> {
    let mut body = Body::new(tag, body);
    let kind = body.byte()?;
    let name = body.string()?;
    body.end()?;
    match kind {
        b'S' => Ok(Named::Statement(name)),
        b'P' => Ok(Named::Portal(name)),
        _ => Err(body.malformed("names neither a statement nor a portal")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    pub portal: &'a [u8],
    /// Zero or less: all rows.
    pub rows_max: i32,
}

pub fn execute(body: &[u8]) -> Result<Execute<'_>, FrameError> {
    let mut body = Body::new(b'E', body);
    let portal = body.string()?;
    let rows_max = body.int32()?;
    body.end()?;
    Ok(Execute { portal, rows_max })
}

/// ReadyForQuery: `I` idle, `T` in a transaction, `E` in a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Idle,
    InTransaction,
    Failed,
}

impl Status {
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Status::Idle => b'I',
            Status::InTransaction => b'T',
            Status::Failed => b'E',
        }
    }
}

pub fn ready_for_query(body: &[u8]) -> Result<Status, FrameError> {
    match body {
        b"I" => Ok(Status::Idle),
        b"T" => Ok(Status::InTransaction),
        b"E" => Ok(Status::Failed),
        _ => Err(FrameError::Malformed {
            tag: b'Z',
            what: "has an unknown transaction status",
        }),
    }
}

/// ParameterStatus: name and value.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), FrameError> {
    let mut body = Body::new(b'S', body);
    let name = body.string()?;
    let value = body.string()?;
    body.end()?;
    Ok((name, value))
}

/// What one NotificationResponse says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// The server process that notified.
    pub pid: i32,
    pub channel: &'a [u8],
    pub payload: &'a [u8],
}

/// NotificationResponse.
pub fn notification(body: &[u8]) -> Result<Notification<'_>, FrameError> {
    let mut body = Body::new(b'A', body);
    let pid = body.int32()?;
    let channel = body.string()?;
    let payload = body.string()?;
    body.end()?;
    Ok(Notification {
        pid,
        channel,
        payload,
    })
}

/// CommandComplete: the tag, such as `UPDATE 3`.
pub fn command_complete(body: &[u8]) -> Result<&[u8], FrameError> {
    let mut body = Body::new(b'C', body);
    let tag = body.string()?;
    body.end()?;
    Ok(tag)
}

/// The fields of an ErrorResponse or NoticeResponse, in their order.
pub fn fields(tag: u8, body: &[u8]) -> Result<Fields<'_>, FrameError> {
    let mut check = Body::new(tag, body);
    loop {
        if check.byte()? == 0 {
            check.end()?;
            return Ok(Fields {
                body: Body::new(tag, body),
            });
        }
        check.string()?;
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    body: Body<'a>,
}

impl<'a> Fields<'a> {
    /// The first field of this code, such as `C` for the SQLSTATE or `M` for the message.
    #[must_use]
    pub fn field(self, code: u8) -> Option<&'a [u8]> {
        self.into_iter()
            .find(|(found, _)| *found == code)
            .map(|(_, value)| value)
    }
}

#[allow(clippy::copy_iterator, reason = "a copy starts over, which is meant")]
impl<'a> Iterator for Fields<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match self.body.byte() {
            Ok(0) | Err(_) => None,
            Ok(code) => Some((code, self.body.string().ok()?)),
        }
    }
}

/// ParameterDescription: the type OIDs, four bytes each.
pub fn parameter_description(body: &[u8]) -> Result<Vec<u32>, FrameError> {
    let mut body = Body::new(b't', body);
    let count = body.count()?;
    let mut oids = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        oids.push(body.int32()?.cast_unsigned());
    }
    body.end()?;
    Ok(oids)
}

/// Calls `each` with the offset, in the body, of every column's 18 bytes behind its name (table OID, attribute number,
/// type OID, type length, type modifier, format).
/// The values of a DataRow; `None` for NULL.
pub fn data_row(body: &[u8]) -> Result<Vec<Option<&[u8]>>, FrameError> {
    let mut body = Body::new(b'D', body);
    let count = body.count()?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(match usize::try_from(body.int32()?) {
            Ok(length) => Some(body.bytes(length)?),
            Err(_) => None,
        });
    }
    body.end()?;
    Ok(values)
}

pub fn row_description(body: &[u8], mut each: impl FnMut(usize)) -> Result<(), FrameError> {
    let whole = body.len();
    let mut body = Body::new(b'T', body);
    for _ in 0..body.count()? {
        body.string()?;
        each(whole - body.rest.len());
        body.bytes(18)?;
    }
    body.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_gives_names_and_parameters_in_both_formats() {
        let body = b"p\0s\0\0\x02\0\0\0\x01\0\x02\0\0\0\x0242\xff\xff\xff\xff\0\x01\0\x01";
        let names = bind_names(body).unwrap();
        assert_eq!((names.portal, names.statement), (&b"p"[..], &b"s"[..]));
        let parameters = bind_parameters(names.tail).unwrap();
        assert_eq!(parameters.len(), 2);
        assert_eq!(parameters.get(0), Some(Parameter::Text(b"42")));
        assert_eq!(parameters.get(1), Some(Parameter::Null));
        assert_eq!(parameters.get(2), None);
        assert_eq!(parameters.result_formats, b"\0\x01");
        let one_format_for_all = b"\0\x01\0\x01\0\x02\0\0\0\x01a\0\0\0\x01b\0\0";
        let parameters = bind_parameters(one_format_for_all).unwrap();
        assert_eq!(parameters.get(1), Some(Parameter::Binary(b"b")));
    }

    #[test]
    fn a_body_must_be_consumed_to_its_end() {
        assert_eq!(query(b"SELECT 1\0"), Ok(&b"SELECT 1"[..]));
        assert!(query(b"SELECT 1\0X").is_err());
        assert!(query(b"SELECT 1").is_err());
        assert!(parse(b"s\0SELECT 1\0\0\x01\0\0").is_err());
        assert!(bind_parameters(b"\0\0\0\x01\0\0\0\x05abc\0\0").is_err());
        assert!(bind_parameters(b"\0\0\0\x01\xff\xff\xff\xfe\0\0").is_err());
        assert!(bind_parameters(b"\0\x02\0\0\0\0\0\x01\xff\xff\xff\xff\0\0").is_err());
        assert!(named(b'D', b"Xname\0").is_err());
        assert!(ready_for_query(b"Q").is_err());
        assert!(fields(b'E', b"SERROR\0C42601").is_err());
    }

    #[test]
    fn an_error_gives_its_fields() {
        let fields = fields(b'E', b"SERROR\0C42601\0Mno\0\0").unwrap();
        assert_eq!(fields.field(b'C'), Some(&b"42601"[..]));
        assert_eq!(fields.field(b'D'), None);
    }
}
