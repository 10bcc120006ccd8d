//! `a.b OPERATOR(pg_catalog.=) ANY (…)`, which `pg_dump` sends and the parser does not read, as `a.b = ANY (…)`.
//!
//! The two bind differently to what stands before them, so this is done only where that is one column behind WHERE or ON.

use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Writes such operators as the parser can read them.
pub(super) fn simplify(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens
        .iter()
        .any(|token| is_word(&token.token, &["operator"]))
    {
        return tokens;
    }
    let mut simple: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.as_slice();
    while let Some((token, behind)) = rest.split_first() {
        rest = behind;
        if is_word(&token.token, &["operator"])
            && ends_in_column(&simple)
            && let Some(left) = behind_equals(behind)
        {
            simple.push(TokenWithSpan {
                token: Token::Eq,
                span: token.span,
            });
            rest = left;
        } else {
            simple.push(token.clone());
        }
    }
    simple
}

/// What follows `(pg_catalog.=)`, where that stands in front of ANY, SOME or ALL.
fn behind_equals(tokens: &[TokenWithSpan]) -> Option<&[TokenWithSpan]> {
    let mut rest = tokens;
    let wanted: [&dyn Fn(&Token) -> bool; 5] = [
        &|token| *token == Token::LParen,
        &|token| is_word(token, &["pg_catalog"]),
        &|token| *token == Token::Period,
        &|token| *token == Token::Eq,
        &|token| *token == Token::RParen,
    ];
    for wanted in wanted {
        let (token, behind) = next(rest)?;
        if !wanted(&token.token) {
            return None;
        }
        rest = behind;
    }
    let (token, _) = next(rest)?;
    is_word(&token.token, &["any", "some", "all"]).then_some(rest)
}

/// The next token that is no blank, and what follows it.
fn next(mut tokens: &[TokenWithSpan]) -> Option<(&TokenWithSpan, &[TokenWithSpan])> {
    loop {
        let (token, behind) = tokens.split_first()?;
        if !is_blank(token) {
            return Some((token, behind));
        }
        tokens = behind;
    }
}

fn ends_in_column(tokens: &[TokenWithSpan]) -> bool {
    let mut back = tokens.iter().rev().filter(|token| !is_blank(token));
    let mut back = std::iter::from_fn(|| back.next().map(|token| &token.token));
    matches!(back.next(), Some(Token::Word(_)))
        && back.next() == Some(&Token::Period)
        && matches!(back.next(), Some(Token::Word(_)))
        && back
            .next()
            .is_some_and(|token| is_word(token, &["where", "on"]))
}

fn is_blank(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_))
}

fn is_word(token: &Token, words: &[&str]) -> bool {
    let Token::Word(word) = token else {
        return false;
    };
    word.quote_style.is_none()
        && words
            .iter()
            .any(|known| word.value.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::super::understand;

    #[test]
    fn the_operator_of_pg_catalog_is_read_in_front_of_any() {
        let plain =
            understand("SELECT 1 FROM t AS a WHERE a.b = ANY (ARRAY['x']) AND a.c = 2").unwrap();
        for text in [
            "SELECT 1 FROM t AS a WHERE a.b OPERATOR(pg_catalog.=) ANY (ARRAY['x']) AND a.c = 2",
            "SELECT 1 FROM t AS a WHERE a.b\nOperator ( pg_catalog . = )\nany (ARRAY['x']) AND a.c = 2",
        ] {
            assert_eq!(understand(text).unwrap(), plain, "{text}");
        }
        for text in [
            "SELECT 1 FROM t AS a WHERE a.b OPERATOR(other.=) ANY (ARRAY['x'])",
            "SELECT 1 FROM t AS a WHERE a.c || a.b OPERATOR(pg_catalog.=) ANY (ARRAY['x'])",
            "SELECT 1 FROM t AS a WHERE 1 BETWEEN 0 AND a.b OPERATOR(pg_catalog.=) ANY (ARRAY[2])",
        ] {
            assert!(understand(text).is_err(), "{text}");
        }
    }
}
