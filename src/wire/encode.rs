//! The messages that pgherd originates, appended to a buffer; pgwire's structs do the encoding.
//!
//! Messages of constant bytes, which the hot path needs, are constants.

use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::response as message;
use pgwire::messages::startup::{
    BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};

use super::decode::Status;
use crate::error::{Report, Severity, SqlState};

pub const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
pub const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
pub const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
pub const NO_DATA: &[u8] = b"n\0\0\0\x04";
pub const EMPTY_QUERY: &[u8] = b"I\0\0\0\x04";
pub const AUTHENTICATION_OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
pub const SYNC: &[u8] = b"S\0\0\0\x04";
pub const FLUSH: &[u8] = b"H\0\0\0\x04";
pub const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// The longest text of one field of an error: quoted statements are cut there.
const FIELD_BYTES_MAX: usize = 8 * 1024;

fn put(out: &mut Vec<u8>, message: &impl Message) {
    let mut bytes = BytesMut::new();
    // Only a message beyond pgwire's own size limits fails; every text of ours is cut well below them.
    if message.encode(&mut bytes).is_ok() {
        out.extend_from_slice(&bytes);
    }
}

/// One text field without zero bytes, which would end it early and let the rest be read as another field.
fn text(value: &str) -> String {
    let end = value.floor_char_boundary(FIELD_BYTES_MAX.min(value.len()));
    value
        .get(..end)
        .unwrap_or_default()
        .replace('\0', "\u{fffd}")
}

fn response_fields(
    severity: Severity,
    state: SqlState,
    message: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) -> Vec<(u8, String)> {
    let mut fields = vec![
        (b'S', severity.as_str().to_owned()),
        (b'V', severity.as_str().to_owned()),
        (b'C', state.code().to_owned()),
        (b'M', text(message)),
    ];
    fields.extend(detail.map(|detail| (b'D', text(detail))));
    fields.extend(hint.map(|hint| (b'H', text(hint))));
    // Who spoke: a server names its source file here, pgherd names itself.
    fields.push((b'R', "pgherd".to_owned()));
    fields
}

/// ErrorResponse for an error of ours.
pub fn error(out: &mut Vec<u8>, report: &dyn Report) {
    error_with_severity(out, report, report.severity());
}

/// The same where the place decides whether the session lives on.
pub fn error_with_severity(out: &mut Vec<u8>, report: &dyn Report, severity: Severity) {
    let (detail, advice) = (report.detail(), report.advice());
    let fields = response_fields(
        severity,
        report.sqlstate(),
        &report.to_string(),
        detail.as_deref(),
        advice.as_deref(),
    );
    put(out, &message::ErrorResponse::new(fields));
}

/// ErrorResponse of a server's fields, byte by byte.
pub fn error_of_fields<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = (u8, &'a [u8])>) {
    let mut body = Vec::new();
    for (code, value) in fields {
        body.push(code);
        body.extend_from_slice(value);
        body.push(0);
    }
    body.push(0);
    framed(out, b'E', &[&body]);
}

/// NoticeResponse in our own name.
pub fn notice(out: &mut Vec<u8>, severity: Severity, state: SqlState, text: &str) {
    put(
        out,
        &message::NoticeResponse::new(response_fields(severity, state, text, None, None)),
    );
}

pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    put(out, &message::CommandComplete::new(tag.to_owned()));
}

/// DataRow of one column.
pub fn text_row(out: &mut Vec<u8>, value: &[u8]) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes();
    framed(out, b'D', &[&[0, 1], &length, value]);
}

/// RowDescription of one column of type text, in text format.
pub fn text_column(out: &mut Vec<u8>, name: &str) {
    // No table and no column of one; the type's OID, its length and no modifier; text.
    let rest = b"\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
    framed(out, b'T', &[&[0, 1], name.as_bytes(), rest]);
}

pub fn ready_for_query(out: &mut Vec<u8>, status: Status) {
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, status.byte()]);
}

pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    put(out, &ParameterStatus::new(text(name), text(value)));
}

/// BackendKeyData; the key has 4 bytes up to protocol 3.1 and up to 256 from 3.2 on.
pub fn backend_key_data(out: &mut Vec<u8>, pid: i32, key: &[u8]) {
    put(
        out,
        &BackendKeyData::new(pid, SecretKey::Bytes(bytes::Bytes::copy_from_slice(key))),
    );
}

/// NegotiateProtocolVersion: the newest minor that is spoken here, and the options that are not known.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, newest: i32, unknown_options: Vec<String>) {
    put(out, &NegotiateProtocolVersion::new(newest, unknown_options));
}

fn framed(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.push(tag);
    // Parts come from one message that was within its limit, and a name of a few bytes.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Query with this text.
pub fn query(out: &mut Vec<u8>, text: &[u8]) {
    framed(out, b'Q', &[text, b"\0"]);
}

/// Parse under another name; `tail` is [`super::decode::Parse::tail`].
pub fn parse(out: &mut Vec<u8>, name: &[u8], tail: &[u8]) {
    framed(out, b'P', &[name, b"\0", tail]);
}

/// Bind to another statement; `tail` is [`super::decode::BindNames::tail`].
pub fn bind(out: &mut Vec<u8>, portal: &[u8], statement: &[u8], tail: &[u8]) {
    framed(out, b'B', &[portal, b"\0", statement, b"\0", tail]);
}

/// CopyFail with its reason.
pub fn copy_fail(out: &mut Vec<u8>, reason: &str) {
    framed(out, b'f', &[reason.as_bytes(), b"\0"]);
}

pub fn execute(out: &mut Vec<u8>, portal: &[u8], rows_max: i32) {
    framed(out, b'E', &[portal, b"\0", &rows_max.to_be_bytes()]);
}

pub fn describe_statement(out: &mut Vec<u8>, name: &[u8]) {
    framed(out, b'D', &[b"S", name, b"\0"]);
}

pub fn close_portal(out: &mut Vec<u8>, name: &[u8]) {
    framed(out, b'C', &[b"P", name, b"\0"]);
}

pub fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    framed(out, b'C', &[b"S", name, b"\0"]);
}

/// RowDescription of columns of type text, in text format.
pub fn text_columns(out: &mut Vec<u8>, names: &[&str]) {
    // No table and no column of one; the type's OID, its length and no modifier; text.
    const REST: &[u8] = b"\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
    let mut fields = Vec::new();
    for name in names {
        fields.extend_from_slice(name.as_bytes());
        fields.extend_from_slice(REST);
    }
    framed(out, b'T', &[&count(names.len()), &fields]);
}

/// DataRow of texts.
pub fn text_values(out: &mut Vec<u8>, values: &[&str]) {
    let mut fields = Vec::new();
    for value in values {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        fields.extend_from_slice(&length.to_be_bytes());
        fields.extend_from_slice(value.as_bytes());
    }
    framed(out, b'D', &[&count(values.len()), &fields]);
}

/// Of columns, which are few.
fn count(columns: usize) -> [u8; 2] {
    u16::try_from(columns).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::decode;
    use crate::wire::frame::{FrameError, first_frame, server_header};

    #[test]
    fn an_error_of_ours_can_be_read_back_and_says_who_spoke() {
        let mut out = Vec::new();
        error(
            &mut out,
            &FrameError::TooLarge {
                tag: b'Q',
                length: 9,
                limit: 8,
            },
        );
        let frame = first_frame(&out, server_header).unwrap().unwrap();
        let fields = decode::fields(frame.tag, frame.body).unwrap();
        assert_eq!(fields.field(b'C'), Some(&b"54000"[..]));
        assert_eq!(fields.field(b'S'), Some(&b"FATAL"[..]));
        assert_eq!(fields.field(b'R'), Some(&b"pgherd"[..]));
        assert!(fields.field(b'H').is_some());
    }

    #[test]
    fn a_zero_byte_in_a_text_cannot_start_another_field() {
        let mut out = Vec::new();
        notice(&mut out, Severity::Notice, SqlState::SUCCESSFUL, "a\0Cfake");
        let frame = first_frame(&out, server_header).unwrap().unwrap();
        let fields = decode::fields(frame.tag, frame.body).unwrap();
        assert_eq!(fields.field(b'C'), Some(&b"00000"[..]));
        assert_eq!(fields.field(b'M'), Some("a\u{fffd}Cfake".as_bytes()));
    }

    #[test]
    fn rewritten_messages_keep_their_tail() {
        let mut out = Vec::new();
        bind(&mut out, b"", b"p7", b"\0\0\0\0\0\0");
        assert_eq!(out, b"B\0\0\0\x0e\0p7\0\0\0\0\0\0\0");
    }
}
