//! Live: scripted conversations, message by message, have the same bytes from PostgreSQL and from pgherd in transaction
//! mode. What differs by nature is left out: process ids, OIDs of tables, and where in PostgreSQL's source an error
//! arose.
//!
//! A line of `tests/data/conversations.txt` is a conversation, its messages separated by ` | `:
//!
//! ```text
//! Q text                  Query
//! P name[/oids] text      Parse; `-` is the unnamed statement
//! B portal name values    Bind with text parameters, separated by commas; `~` is NULL. Bx asks for binary results
//! D S|P name              Describe        C S|P name    Close
//! E portal rows           Execute         S Sync        H Flush
//! d text   c   f text     CopyData, CopyDone, CopyFail
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::fmt::Write as _;

use support::client::{
    Client, Frame, bind_as, close, copy_data, copy_done, describe, execute, flush, message, parse,
    query, sync, terminate,
};
use support::proxy::Proxy;
use support::{database, servers};

const CONVERSATIONS: &str = include_str!("data/conversations.txt");

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one'), (2, 'two'); \
     CREATE TABLE late (id int, t int REFERENCES t DEFERRABLE INITIALLY IMMEDIATE)";

fn bytes(text: &str) -> Vec<u8> {
    let (tag, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    let rest = rest.strip_prefix(' ').unwrap_or_default();
    let name = |word: &str| {
        if word == "-" {
            String::new()
        } else {
            word.to_owned()
        }
    };
    let (first, behind) = rest.split_once(' ').unwrap_or((rest, ""));
    let escaped = rest.replace("\\t", "\t").replace("\\n", "\n");
    match tag {
        "Q" => query(rest),
        "P" => {
            let (first, oids) = first.split_once('/').unwrap_or((first, ""));
            let oids = oids.split(',').filter(|oid| !oid.is_empty());
            let oids: Vec<u32> = oids.map(|oid| oid.parse().unwrap()).collect();
            parse(&name(first), behind, &oids)
        }
        "B" | "Bx" => {
            let (statement, values) = behind.split_once(' ').unwrap_or((behind, ""));
            let values: Vec<Option<&[u8]>> = values
                .split(',')
                .filter(|value| !value.is_empty())
                .map(|value| (value != "~").then_some(value.as_bytes()))
                .collect();
            let formats: &[i16] = if tag == "Bx" { &[1] } else { &[] };
            bind_as(&name(first), &name(statement), &[], &values, formats)
        }
        "D" => describe(first.as_bytes()[0], &name(behind)),
        "C" => close(first.as_bytes()[0], &name(behind)),
        "E" => execute(&name(first), behind.parse().unwrap()),
        "S" => sync(),
        "H" => flush(),
        "d" => copy_data(escaped.as_bytes()),
        "c" => copy_done(),
        "f" => message(b'f', &[rest.as_bytes(), b"\0"].concat()),
        other => panic!("no such message: {other}"),
    }
}

/// All that the client gets to see, up to the end of the stream.
fn heard(mut client: Client, messages: &[Vec<u8>], stepwise: bool) -> String {
    let mut heard = String::new();
    let mut put = |frame: &Frame| {
        let _ = writeln!(heard, "{}", shown(frame));
    };
    if stepwise {
        // A Query in a pipeline that failed is ignored, so behind extended messages only Sync is waited for.
        let (mut copies, mut pipelined) = (false, false);
        for bytes in messages {
            client.send(bytes);
            let waits = match bytes[0] {
                b'Q' => !pipelined,
                b'S' => true,
                b'c' | b'f' => copies,
                _ => false,
            };
            pipelined = match bytes[0] {
                b'S' => false,
                b'Q' | b'd' | b'c' | b'f' => pipelined,
                _ => true,
            };
            let mut last = if waits { 0 } else { b'Z' };
            while !matches!(last, b'Z' | b'G') {
                let frame = client.frame();
                put(&frame);
                last = frame.tag;
                copies = last == b'G' && bytes[0] == b'Q';
            }
        }
    } else {
        client.send(&messages.concat());
    }
    client.send(&terminate());
    while let Ok(frame) = client.try_frame() {
        put(&frame);
    }
    heard
}

fn shown(frame: &Frame) -> String {
    let fields = b"SVCMDHPqWscdtn";
    match frame.tag {
        b'E' | b'N' => {
            let told = fields.iter().filter_map(|&code| {
                let value = frame.field(code)?;
                Some(format!("{}={value}", char::from(code)))
            });
            format!(
                "{} {}",
                char::from(frame.tag),
                told.collect::<Vec<_>>().join(" ")
            )
        }
        b'T' => {
            let mut body = frame.body.clone();
            let mut at = 2;
            while let Some(end) = body
                .get(at..)
                .and_then(|rest| rest.iter().position(|&b| b == 0))
            {
                body[at + end + 1..][..4].fill(0);
                at += end + 19;
            }
            format!("T {}", body.escape_ascii())
        }
        tag => format!("{} {}", char::from(tag), frame.body.escape_ascii()),
    }
}

#[test]
fn conversations_are_the_same_as_with_postgresql() {
    let server = &servers().all()[..1];
    let mut differences = Vec::new();
    let mut count = 0;
    for stepwise in [false, true] {
        let name = database(server, "conversations", SCHEMA);
        let direct = database(server, "conversed", SCHEMA);
        let config = Proxy::config(&name, server, "").replace(
            &format!("[databases.{name}]\n"),
            &format!("[databases.{name}]\npool = {{ size = 1 }}\n"),
        );
        let proxy = Proxy::start(&config);
        for line in CONVERSATIONS.lines() {
            if line.starts_with('#') {
                continue;
            }
            count += 1;
            let messages: Vec<_> = line.split(" | ").map(bytes).collect();
            let mut straight = Client::connect(server[0].port());
            straight.login(&[("user", "postgres"), ("database", &direct)], "");
            let through = proxy.client(&name, "postgres", "");
            let expected = heard(straight, &messages, stepwise);
            let seen = heard(through, &messages, stepwise);
            // A session that keeps its server is told so.
            let seen: String = seen
                .split_inclusive('\n')
                .filter(|line| !line.contains("this session keeps its server connection"))
                .collect();
            if seen != expected {
                differences.push(format!(
                    "{line} (stepwise: {stepwise})\n--- PostgreSQL\n{expected}--- pgherd\n{seen}"
                ));
            }
        }
    }
    assert!(count >= 300, "{count}");
    assert!(
        differences.is_empty(),
        "{} of {count} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
