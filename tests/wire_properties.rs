//! Properties of everything that reads a peer's bytes, over generated ones: noise, and messages with their errors.

#[path = "support/wire_checks.rs"]
mod wire_checks;

use proptest::collection::vec;
use proptest::prelude::*;
use wire_checks as check;

/// A message of either side with a fitting length; the body is anything.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let tags = b"QPBEDCHSXFdcfRKZTtn123sAGWINV".to_vec();
    (prop::sample::select(tags), vec(any::<u8>(), 0..40)).prop_map(|(tag, body)| {
        let body = if b"SHXc".contains(&tag) {
            Vec::new()
        } else {
            body
        };
        let length = u32::try_from(body.len() + 4).unwrap_or(4);
        [&[tag][..], &length.to_be_bytes(), &body].concat()
    })
}

/// Messages of a server that may settle what is expected of it.
fn reply() -> impl Strategy<Value = Vec<u8>> {
    let replies: Vec<&[u8]> = vec![
        b"1\0\0\0\x04",
        b"2\0\0\0\x04",
        b"3\0\0\0\x04",
        b"n\0\0\0\x04",
        b"s\0\0\0\x04",
        b"I\0\0\0\x04",
        b"T\0\0\0\x06\0\0",
        b"D\0\0\0\x0b\0\x01\0\0\0\x01x",
        b"C\0\0\0\x0dSELECT 1\0",
        b"Z\0\0\0\x05I",
        b"Z\0\0\0\x05T",
        b"Z\0\0\0\x05E",
        b"S\0\0\0\x08a\0b\0",
        b"N\0\0\0\x0cSNOTICE\0\0",
        b"E\0\0\0\x0dSERROR\0\0\0",
        b"E\0\0\0\x14SERROR\0C42601\0\0",
        b"G\0\0\0\x07\0\0\0",
    ];
    prop::sample::select(replies).prop_map(<[u8]>::to_vec)
}

/// Names and values as start-up messages have them, with a few bytes between that do not belong there.
fn startup() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "user\0",
        "me\0",
        "database\0",
        "options\0",
        "-c a=1\0",
        "_pq_.x\0",
        "replication\0",
        "application_name\0",
        "\0",
        "x",
        "\u{e9}\0",
    ]);
    (
        prop::sample::select(vec![
            &[0, 3, 0, 0],
            &[0, 3, 0, 2],
            &[0, 2, 0, 0],
            &[4, 210, 22, 46],
        ]),
        vec(words, 0..8),
    )
        .prop_map(|(version, words)| {
            [version.as_slice(), words.concat().as_bytes(), b"\0"].concat()
        })
}

fn scram() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "n,,",
        "y,,",
        "p=tls-server-end-point,,",
        "n=,",
        "n=a,",
        "r=abc",
        "c=biws,",
        ",p=",
        "AAAA",
        "m=,",
        ",",
        "\0\0",
        "=",
    ]);
    vec(words, 0..12).prop_map(|words| format!("\0{}", words.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_the_same_wherever_the_bytes_are_cut(messages in vec(message(), 0..8), cut in 0..16_usize, seed: u64) {
        let bytes = messages.concat();
        check::frame(&bytes, seed);
        check::frame(&bytes[..bytes.len().saturating_sub(cut)], seed);
    }

    #[test]
    fn noise_is_refused_or_understood_but_never_fatal(bytes in vec(any::<u8>(), 0..200), seed: u64) {
        check::frame(&bytes, seed);
        check::startup(&bytes);
        check::decoders(&bytes);
        check::key(&bytes);
        check::scram(&bytes);
        check::replies(&bytes, seed);
    }

    #[test]
    fn bodies_of_small_numbers_and_zeros_are_decoded_or_refused(bytes in vec(prop::sample::select(b"\0\0\0\x01\x02\x04\xffSPaE".to_vec()), 0..60)) {
        check::decoders(&bytes);
    }

    #[test]
    fn what_looks_like_a_first_message_is_read_as_it_was_written(bytes in startup()) {
        check::startup(&bytes);
    }

    #[test]
    fn options_mean_the_same_when_they_are_escaped(text in "(-c|--| |\\\\|[a-c=\\-]|\t){0,12}") {
        check::startup(text.as_bytes());
    }

    #[test]
    fn what_looks_like_scram_is_refused(text in scram()) {
        check::scram(text.as_bytes());
    }

    #[test]
    fn a_key_has_one_value_in_text_and_in_binary(text in "[ +-]{0,2}(0x|0b|0o)?[0-9a-f_{}-]{0,36} ?", number: i64) {
        check::key(text.as_bytes());
        check::key(number.to_string().as_bytes());
        check::key(&number.to_be_bytes());
    }

    #[test]
    fn a_client_sees_the_same_replies_wherever_the_bytes_are_cut(replies in vec(reply(), 0..12), seed: u64) {
        check::replies(&replies.concat(), seed);
    }
}
