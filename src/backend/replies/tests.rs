//! Conversations in bytes: what a server says to what was sent, and what the client gets to see of it.

use bytes::Bytes;

use super::*;

const COMPLETE: &[u8] = b"C\0\0\0\x0dSELECT 1\0";
const READY: &[u8] = b"Z\0\0\0\x05I";
const ERROR: &[u8] = b"E\0\0\0\x13SERROR\0C42601\0\0";

/// Feeds `bytes` cut into chunks of `size` and gives what the client sees.
fn seen(replies: &mut Replies, bytes: &[u8], size: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut held = Vec::new();
    for chunk in bytes.chunks(size) {
        held.extend_from_slice(chunk);
        let walked = replies.walk(&held, &mut seen).unwrap();
        seen.extend_from_slice(&held[walked.run]);
        held.drain(..walked.consumed);
    }
    assert!(held.is_empty());
    seen
}

fn expecting(expected: &[Expect]) -> Replies {
    let mut replies = Replies::default();
    let mut out = Vec::new();
    for expect in expected {
        replies.expect(expect.clone(), &mut out);
    }
    assert!(out.is_empty());
    replies
}

#[test]
fn a_reply_is_forwarded_as_it_came_however_it_is_cut() {
    let bytes = [&b"D\0\0\0\x0b\0\x01\0\0\0\x011"[..], COMPLETE, READY].concat();
    for size in 1..bytes.len() {
        let mut replies = expecting(&[Expect::Query]);
        assert_eq!(seen(&mut replies, &bytes, size), bytes, "chunks of {size}");
        assert!(replies.idle());
    }
}

#[test]
fn hidden_replies_vanish_and_answers_appear_in_their_place() {
    let bytes = [
        &b"C\0\0\0\x0aBEGIN\0"[..],
        b"Z\0\0\0\x05T",
        encode::PARSE_COMPLETE,
        encode::BIND_COMPLETE,
        COMPLETE,
        READY,
    ]
    .concat();
    for size in 1..bytes.len() {
        let mut replies = expecting(&[
            Expect::HiddenQuery,
            Expect::Answer(Bytes::from_static(encode::PARSE_COMPLETE)),
            Expect::HiddenParse(None),
            Expect::Bind(Alias::default()),
            Expect::Execute,
            Expect::Sync,
        ]);
        let expected = [
            encode::PARSE_COMPLETE,
            encode::BIND_COMPLETE,
            COMPLETE,
            READY,
        ]
        .concat();
        assert_eq!(
            seen(&mut replies, &bytes, size),
            expected,
            "chunks of {size}"
        );
        assert!(replies.idle());
    }
}

#[test]
fn an_error_drops_what_was_sent_up_to_the_sync() {
    let bytes = [ERROR, READY].concat();
    let mut replies = expecting(&[
        Expect::Parse(Some(StatementId(7))),
        Expect::KnownParse(StatementId(8)),
        Expect::Bind(Alias::default()),
        Expect::Execute,
        Expect::Sync,
    ]);
    assert_eq!(seen(&mut replies, &bytes, 3), bytes);
    assert_eq!(replies.unparsed, [StatementId(7)]);
    assert_eq!(replies.unanswered, [StatementId(8)]);
    assert!(replies.idle());
}

#[test]
fn after_an_error_messages_are_ignored_until_sync_comes() {
    let mut replies = expecting(&[Expect::Parse(None)]);
    assert_eq!(seen(&mut replies, ERROR, 100), ERROR);
    assert!(replies.skipping() && replies.settled() && !replies.idle());
    replies.expect(Expect::Bind(Alias::default()), &mut Vec::new());
    replies.expect(Expect::Sync, &mut Vec::new());
    assert_eq!(seen(&mut replies, READY, 100), READY);
    assert!(replies.idle());
}

#[test]
fn a_poisoned_statement_shows_our_error() {
    let mut replies = expecting(&[Expect::PoisonQuery(Box::from(&b"ours"[..]))]);
    let bytes = [ERROR, &b"Z\0\0\0\x05E"[..]].concat();
    assert_eq!(seen(&mut replies, &bytes, 100), b"oursZ\0\0\0\x05E");
    assert!(replies.settled() && !replies.idle());
}

#[test]
fn a_sync_inside_copy_in_is_not_answered() {
    let mut replies = expecting(&[
        Expect::Bind(Alias::default()),
        Expect::Execute,
        Expect::Sync,
    ]);
    seen(&mut replies, b"2\0\0\0\x04G\0\0\0\x07\0\0\0", 100);
    replies.expect(Expect::Sync, &mut Vec::new());
    replies.copy_ended();
    replies.expect(Expect::Sync, &mut Vec::new());
    seen(
        &mut replies,
        &[&b"C\0\0\0\x0bCOPY 1\0"[..], READY].concat(),
        100,
    );
    assert!(replies.idle());
}

#[test]
fn a_sync_behind_the_end_of_the_data_counts_though_all_was_sent_at_once() {
    let mut replies = expecting(&[
        Expect::Bind(Alias::default()),
        Expect::Execute,
        Expect::Sync,
    ]);
    replies.copy_ended();
    replies.expect(Expect::Sync, &mut Vec::new());
    replies.expect(Expect::Query, &mut Vec::new());
    let bytes = [
        &b"2\0\0\0\x04G\0\0\0\x07\0\0\0C\0\0\0\x0bCOPY 1\0"[..],
        READY,
        COMPLETE,
        READY,
    ]
    .concat();
    assert_eq!(seen(&mut replies, &bytes, 4), bytes);
    assert!(replies.idle());
}

#[test]
fn an_answer_waits_for_the_end_of_a_message_that_came_in_pieces() {
    let mut replies = expecting(&[
        Expect::Describe,
        Expect::Answer(Bytes::from_static(encode::CLOSE_COMPLETE)),
    ]);
    let description = b"T\0\0\0\x1a\0\x01a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut shown = Vec::new();
    for piece in description.chunks(9) {
        let walked = replies.walk(piece, &mut shown).unwrap();
        assert_eq!(walked.consumed, piece.len());
        shown.extend_from_slice(&piece[walked.run]);
    }
    assert_eq!(shown, [&description[..], encode::CLOSE_COMPLETE].concat());
    assert!(replies.settled());
}

#[test]
fn last_words_are_kept_and_unasked_replies_are_an_error() {
    let mut replies = Replies::default();
    let fatal = b"E\0\0\0\x13SFATAL\0C57P01\0\0";
    assert_eq!(seen(&mut replies, fatal, 100), b"");
    assert_eq!(replies.last_words.as_deref(), Some(&fatal[..]));
    for unasked in [READY, ERROR, encode::BIND_COMPLETE] {
        assert!(
            Replies::default().walk(unasked, &mut Vec::new()).is_err(),
            "{unasked:?}"
        );
    }
}

#[test]
fn a_servers_error_has_the_clients_name_of_the_statement() {
    let error = |text: &str| {
        let mut error = Vec::new();
        let fields = [(b'S', &b"ERROR"[..]), (b'M', text.as_bytes())];
        encode::error_of_fields(&mut error, fields.into_iter());
        error
    };
    let alias = Alias::new(b"mine");
    let ours = error("prepared statement \"pgherd_12\" requires 0");
    let theirs = error("prepared statement \"mine\" requires 0");
    assert_eq!(alias.put_into(&ours), Some(theirs));
    assert_eq!(alias.put_into(&error("division by zero")), None);
}

#[test]
fn the_beginning_of_a_transaction_is_hidden_and_its_failure_gives_the_connection_up() {
    let expected = [
        Expect::Prologue,
        Expect::Prologue,
        Expect::Prologue,
        Expect::Query,
    ];
    let mut replies = expecting(&expected);
    let begun = b"1\0\0\0\x042\0\0\0\x04C\0\0\0\x0aBEGIN\0";
    let mut out = Vec::new();
    let chunk = [&begun[..], COMPLETE, READY].concat();
    let walked = replies.walk(&chunk, &mut out).unwrap();
    let seen = [&out[..], &chunk[walked.run]].concat();
    assert_eq!(seen, [COMPLETE, READY].concat());
    assert!(replies.settled());

    let mut error = Vec::new();
    let fields = [(b'S', &b"ERROR"[..]), (b'C', b"0A000"), (b'M', b"not here")];
    encode::error_of_fields(&mut error, fields.into_iter());
    let mut replies = expecting(&expected);
    let chunk = [&b"1\0\0\0\x042\0\0\0\x04"[..], &error].concat();
    assert!(replies.walk(&chunk, &mut Vec::new()).is_err());
    assert_eq!(replies.last_words, Some(error));
}

#[test]
fn notifications_that_come_in_another_way_are_hidden_and_others_are_not() {
    let notification = |channel: &str| {
        let body = format!("\0\0\0\x07{channel}\0word\0");
        let length = u32::try_from(body.len() + 4).unwrap();
        [b"A", &length.to_be_bytes()[..], body.as_bytes()].concat()
    };
    let (quiet, loud) = (notification("quiet"), notification("loud"));
    let bytes = [&quiet, &loud, COMPLETE, &quiet, READY, &quiet].concat();
    for size in 1..bytes.len() {
        let mut replies = expecting(&[Expect::Query]);
        assert_eq!(seen(&mut replies, &bytes, size), bytes);
        let mut replies = expecting(&[Expect::Query]);
        replies.quiet_channels.insert(b"quiet".to_vec());
        let shown = [&loud, COMPLETE, READY].concat();
        assert_eq!(seen(&mut replies, &bytes, size), shown, "chunks of {size}");
    }
}

#[test]
fn of_a_description_that_may_come_in_pieces_nothing_is_promised() {
    let mut row = vec![b'T'];
    let columns = 1_000_u16;
    let body: Vec<u8> = (0..columns)
        .flat_map(|_| [&b"column\0"[..], &[0; 18]].concat())
        .collect();
    let length = u32::try_from(4 + 2 + body.len()).unwrap();
    row.extend_from_slice(&length.to_be_bytes());
    row.extend_from_slice(&columns.to_be_bytes());
    row.extend_from_slice(&body);
    let bytes = [&b"t\0\0\0\x06\0\0"[..], &row].concat();
    let mut told = Vec::new();
    for size in [bytes.len(), 8192] {
        let mut replies = expecting(&[Expect::DescribeStatement(StatementId(1))]);
        assert_eq!(seen(&mut replies, &bytes, size), bytes);
        told.append(&mut replies.descriptions.told);
    }
    assert_eq!(told, []);
}
