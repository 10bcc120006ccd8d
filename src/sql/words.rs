//! The words of functions and schemas that reach the session, found in any text at the speed of memory.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aho_corasick::{Span, packed};

/// How a query reaches the session.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach {
    SetConfig,
    AdvisoryLock,
    Temporary,
    Stays(&'static str),
    SequenceValue,
    /// A name written so that the words here are not seen in it.
    Disguised,
}

/// Words of functions and schemas, and what they do.
const WORDS: &[(&str, Reach)] = &[
    ("set_config", Reach::SetConfig),
    ("advisory", Reach::AdvisoryLock),
    ("temp", Reach::Temporary),
    ("setseed", Reach::Stays("setseed")),
    ("dblink", Reach::Stays("dblink")),
    ("lastval", Reach::SequenceValue),
    ("currval", Reach::SequenceValue),
    ("u&\"", Reach::Disguised),
];

/// Bytes of a word's beginning by which it is looked for.
const BEGINNING_BYTES: usize = 3;

/// Finds the beginnings of words in every mix of cases, many bytes in one instruction: a text may carry a megabyte of
/// somebody's data. `None` where the processor has no such instructions.
static BEGINNINGS: LazyLock<Option<packed::Searcher>> = LazyLock::new(|| {
    let mut beginnings = BTreeSet::new();
    for (word, _) in WORDS {
        let beginning: Vec<u8> = word.bytes().take(BEGINNING_BYTES).collect();
        for cases in 0..1_u32 << BEGINNING_BYTES {
            let letters = beginning.iter().enumerate();
            let mixed = letters.map(|(place, letter)| match cases >> place & 1 {
                0 => *letter,
                _ => letter.to_ascii_uppercase(),
            });
            beginnings.insert(mixed.collect::<Vec<u8>>());
        }
    }
    packed::Config::new().builder().extend(beginnings).build()
});

/// Every word in this text: where it ends, and what it does.
pub(super) fn found(text: &[u8]) -> impl Iterator<Item = (usize, Reach)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let at = match &*BEGINNINGS {
                Some(beginnings) => {
                    let span = Span::from(from..text.len());
                    beginnings.find_in(text, span)?.start()
                }
                None => from,
            };
            // The next one may begin within this one.
            from = at + 1;
            let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
            if let Some((word, reach)) = WORDS
                .iter()
                .find(|(word, _)| starts_with(rest, word.as_bytes()))
            {
                return Some((at + word.len(), *reach));
            }
        }
    })
}

pub(super) fn starts_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_wherever_they_begin_in_any_mix_of_cases() {
        assert!(BEGINNINGS.is_some() || !cfg!(target_arch = "x86_64"));
        for text in [
            "",
            "s",
            "setemp",
            "SeTsEeD",
            "tempLASTVAL",
            "xU&\"",
            "set_confiset_config",
            "advisorycurrval",
            "a text without any of them, but with set, ADV, dbl and currval",
            "dblinkdblink",
            "\u{e9}temp",
        ] {
            let bytes = text.as_bytes();
            let naive: Vec<usize> = (0..bytes.len())
                .flat_map(|at| WORDS.iter().map(move |(word, _)| (at, word)))
                .filter(|(at, word)| starts_with(&bytes[*at..], word.as_bytes()))
                .map(|(at, word)| at + word.len())
                .collect();
            let ends: Vec<usize> = found(bytes).map(|(end, _)| end).collect();
            assert_eq!(ends, naive, "{text}");
            // Wherever it is among the bytes that one instruction looks at.
            for before in 0..70 {
                let padded = ["-".repeat(before).as_bytes(), bytes, &[b'-'; 40]].concat();
                assert_eq!(
                    found(&padded).count(),
                    naive.len(),
                    "{text} behind {before}"
                );
            }
        }
    }
}
