//! Row locks as the parser can read them. It knows neither `FOR NO KEY UPDATE` and `FOR KEY SHARE` nor a list behind
//! OF; what they lock, and how strongly, decides nothing here, only which tables they name.

use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Takes NO KEY and KEY out of row locks, and makes a lock of its own for each name behind OF.
pub(super) fn simplify(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut simple: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // the last tokens that are no blanks
    let mut recent: Vec<TokenWithSpan> = Vec::new();
    let mut list: Option<Vec<TokenWithSpan>> = None;
    for token in tokens {
        if matches!(token.token, Token::Whitespace(_)) {
            simple.push(token);
            continue;
        }
        let behind_for = recent.last().is_some_and(|last| is_word(last, "for"));
        if behind_for && (is_word(&token, "no") || is_word(&token, "key")) {
            continue;
        }
        match (&list, &token.token) {
            (Some(lock), Token::Comma) => {
                simple.extend_from_slice(lock);
                continue;
            }
            // between the names of a list
            (Some(_), Token::Word(word)) if !ENDS.iter().any(|end| is(&word.value, end)) => {}
            _ => list = lock_of(&recent, &token),
        }
        if recent.len() == 2 {
            recent.remove(0);
        }
        recent.push(token.clone());
        simple.push(token);
    }
    simple
}

/// Words behind a list of names.
const ENDS: &[&str] = &["nowait", "skip", "for", "limit", "offset", "fetch"];

/// `FOR UPDATE OF`, where this token completes it.
fn lock_of(before: &[TokenWithSpan], token: &TokenWithSpan) -> Option<Vec<TokenWithSpan>> {
    let [first, second] = before else {
        return None;
    };
    let is_lock = is_word(first, "for")
        && (is_word(second, "update") || is_word(second, "share"))
        && is_word(token, "of");
    is_lock.then(|| vec![first.clone(), second.clone(), token.clone()])
}

fn is_word(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(found) if found.quote_style.is_none() && is(&found.value, word))
}

fn is(found: &str, word: &str) -> bool {
    found.eq_ignore_ascii_case(word)
}
