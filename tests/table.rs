//! Live: the statements of `tests/data` on three shards and on one PostgreSQL that holds all rows. What is routed gives
//! the same answer in both protocols, what is refused has its number, and in the end the same rows are there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/both.rs"]
mod both;
mod support;

use std::fmt::Write;

use both::{data, lines};
use support::client::{Client, Reply};

/// Fewer statements of a kind would prove too little.
const STATEMENTS_MIN: usize = 200;

fn run(client: &mut Client, text: &str, extended: bool) -> Reply {
    if extended {
        client.run(text, &[])
    } else {
        client.query(text)
    }
}

/// An answer as it can be compared: rows without an order are sorted.
fn comparable(text: &str, reply: &Reply) -> String {
    let mut frames: Vec<String> = reply.0.iter().map(ToString::to_string).collect();
    if !text.to_lowercase().contains("order by") {
        let rows = |frame: &String| frame.starts_with("D(");
        let (mut sorted, others): (Vec<_>, Vec<_>) = frames.into_iter().partition(rows);
        sorted.sort_unstable();
        frames = [others, sorted].concat();
    }
    frames.join(" ")
}

#[test]
fn what_is_routed_equals_the_answer_of_one_postgresql_and_what_is_not_is_refused_by_number() {
    let both = both::start("herd");
    both.fill();
    both.compare_rows();
    let (routed, refused) = (data("routed.sql"), data("refused.sql"));
    let (routed, refused) = (lines(&routed), lines(&refused));
    assert!(routed.len() >= STATEMENTS_MIN && refused.len() >= STATEMENTS_MIN);
    let mut wrong = String::new();
    for extended in [false, true] {
        let (mut through, mut straight) = (both.through(), both.straight());
        for text in &routed {
            let expected = comparable(text, &run(&mut straight, text, extended));
            let found = comparable(text, &run(&mut through, text, extended));
            if found != expected {
                writeln!(
                    wrong,
                    "extended={extended} {text}\n  one:   {expected}\n  herd:  {found}"
                )
                .unwrap();
            }
        }
        for line in &refused {
            let (number, text) = line.split_once('\t').expect("number, tab, statement");
            let reply = run(&mut through, text, extended);
            let said = reply.of(b'E').next().and_then(|error| error.field(b'M'));
            if !said
                .as_ref()
                .is_some_and(|said| said.starts_with(&format!("{number}:")))
            {
                writeln!(
                    wrong,
                    "extended={extended} {number} {text}\n  herd:  {reply}"
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    both.compare_rows();
}
