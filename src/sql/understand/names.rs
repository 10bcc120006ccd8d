//! Names, as PostgreSQL stores them.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use super::{Understood, unknown};
use crate::sql::reserved::is_reserved;
use crate::sql::verb::fold;

/// A name as PostgreSQL stores it.
pub(super) fn name_of(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        // 63 bytes at most, as for words; the lower-casing of `fold` must not touch it
        let mut end = ident.value.len().min(63);
        while !ident.value.is_char_boundary(end) {
            end -= 1;
        }
        return ident.value.get(..end).unwrap_or_default().to_owned();
    }
    String::from_utf8_lossy(&fold(ident.value.as_bytes())).into_owned()
}

/// The first part of the name of a column or a relation. PostgreSQL takes no reserved word there, so where the parser
/// does, the text means something else: `SELECT 1 end FROM t`, `SELECT * FROM user`.
pub(super) fn leading(ident: &Ident) -> Understood<String> {
    let name = name_of(ident);
    if ident.quote_style.is_none() && is_reserved(name.as_bytes()) {
        return unknown(format!("{name} as a name"));
    }
    Ok(name)
}

/// Schema and name of a relation.
pub(super) fn relation(name: &ObjectName) -> Understood<(Option<String>, String)> {
    if let Some(ObjectNamePart::Identifier(ident)) = name.0.first() {
        leading(ident)?;
    }
    qualified(name).map(|(schema, name, _)| (schema, name))
}

/// Reserved words behind which parentheses are a call.
const CALLED: &[&str] = &[
    "array",
    "current_time",
    "current_timestamp",
    "current_schema",
    "left",
    "localtime",
    "localtimestamp",
    "overlaps",
    "right",
];

/// Schema and name of a function, and whether the name is in quotes. `LIKE ALL (…)`, `SELECT a like WHERE (…)` and
/// `(VALUES (1))` call nothing, whatever the parser takes them for.
pub(super) fn function(name: &ObjectName) -> Understood<(Option<String>, String, bool)> {
    let (schema, bare, quoted) = qualified(name)?;
    let plain = !quoted && schema.is_none();
    if plain && ["trim", "values"].contains(&bare.as_str()) {
        return unknown(format!("{bare} with parentheses"));
    }
    if !(plain && CALLED.contains(&bare.as_str())) {
        relation(name)?;
    }
    Ok((schema, bare, quoted))
}

/// The parts of a name, each as stored.
pub(super) fn names(name: &ObjectName) -> Understood<Vec<String>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(name_of(ident)),
            ObjectNamePart::Function(_) => unknown("a name made by a function"),
        })
        .collect()
}

/// Schema and name, and whether the name is in quotes.
pub(super) fn qualified(name: &ObjectName) -> Understood<(Option<String>, String, bool)> {
    let quoted = matches!(name.0.last(), Some(ObjectNamePart::Identifier(ident)) if ident.quote_style.is_some());
    let mut parts = names(name)?.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => Ok((None, name, quoted)),
        (Some(schema), Some(name), None) => Ok((Some(schema), name, quoted)),
        _ => unknown("a name with more than two parts"),
    }
}
