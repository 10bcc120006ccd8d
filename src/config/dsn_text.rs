//! The two spellings of a connection string, keywords and URI, taken apart into the same settings
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>).
//!
//! Knows the syntax and no keyword. What would surprise: variables are put in after the text was taken apart, so a
//! password from the environment needs no quoting whatever it contains; and no message repeats a piece of the text,
//! because a stray quote or slash makes any piece of it a piece of a password.

use super::problems::Fault;
use super::values::{Environment, expand, sole_variable, variable};

/// Keywords with their values, unquoted and decoded; a later one overrides an earlier one.
pub(super) type Settings = Vec<(String, String)>;

/// Takes a connection string apart; one that is a single `${NAME}` is looked up first and then taken as it is.
pub(super) fn settings(text: &str, environment: Environment) -> Result<Settings, Fault> {
    let settings = match sole_variable(text) {
        Some(name) => taken_apart(&variable(name, environment)?, None)?,
        None => taken_apart(text, Some(environment))?,
    };
    if settings.iter().any(|(_, value)| value.contains('\0')) {
        return Err(Fault::new("a value contains a NUL character", "remove it: PostgreSQL cannot take it"));
    }
    Ok(settings)
}

/// Without an environment, `${` has no meaning.
fn taken_apart(text: &str, environment: Option<Environment>) -> Result<Settings, Fault> {
    let text = text.trim();
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => uri(rest, environment),
        None => keywords(text, environment),
    }
}

/// `key = value` pairs, values perhaps in single quotes, with backslash escapes.
fn keywords(text: &str, environment: Option<Environment>) -> Result<Settings, Fault> {
    const REMEDY: &str = "write key=value pairs with spaces in between; a value with spaces goes in 'single quotes', \
                          and \\' and \\\\ stand for a quote and a backslash";
    let mut settings = Settings::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let nth = settings.len() + 1;
        let wrong = |what: &str| Fault::new(format!("setting {nth} of the connection string {what}"), REMEDY);
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let after = after.trim_start().strip_prefix('=').ok_or_else(|| wrong("has no \"=\""))?;
        if key.is_empty() {
            return Err(wrong("has no keyword before its \"=\""));
        }
        let (value, after) = keyword_value(after.trim_start()).ok_or_else(|| wrong("has a quote that is not closed"))?;
        let value = match environment {
            Some(environment) => expand(&value, environment, str::to_owned)?,
            None => value,
        };
        settings.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(settings)
}

/// The value at the start of `text`, and what follows it; `None` when a quote stays open.
fn keyword_value(text: &str) -> Option<(String, &str)> {
    let quoted = text.strip_prefix('\'');
    let body = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted.is_some() => return Some((value, body.get(at + 1..)?)),
            c if quoted.is_none() && c.is_whitespace() => return Some((value, body.get(at..)?)),
            c => value.push(c),
        }
    }
    quoted.is_none().then_some((value, ""))
}

/// `[user[:password]@][host[:port],…][/dbname][?key=value&…]`, after the scheme.
fn uri(text: &str, environment: Option<Environment>) -> Result<Settings, Fault> {
    let decode = |raw: &str| component(raw, environment);
    let mut settings = Settings::new();
    let (login, rest) = match text.find(['@', '/', '?']).and_then(|at| text.split_at_checked(at)) {
        Some((login, rest)) if rest.starts_with('@') => (login, rest.get(1..).unwrap_or_default()),
        _ => ("", text),
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    settings.push(("user".to_owned(), decode(user)?));
    settings.push(("password".to_owned(), decode(password)?));

    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (hosts, ports) = hosts_and_ports(authority)?;
    settings.push(("host".to_owned(), decode(&hosts)?));
    settings.push(("port".to_owned(), decode(&ports)?));
    settings.push(("dbname".to_owned(), decode(dbname)?));
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').ok_or_else(|| {
            Fault::new("a parameter after the \"?\" of the URI has no \"=\"", "write ?key=value&key=value, with & and ? in values as %26 and %3F")
        })?;
        settings.push(match (decode(key)?, decode(value)?) {
            // JDBC's spelling, which libpq takes as well.
            (key, value) if key == "ssl" && value == "true" => ("sslmode".to_owned(), "require".to_owned()),
            pair => pair,
        });
    }
    Ok(settings)
}

/// Two lists with commas, of equal length; the port list is empty when no port is given at all.
fn hosts_and_ports(authority: &str) -> Result<(String, String), Fault> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for part in authority.split(',') {
        let (host, port) = match part.strip_prefix('[') {
            Some(part) => {
                let (host, after) = part.split_once(']').ok_or_else(|| {
                    Fault::new("a \"[\" in the URI has no closing \"]\"", "write an IPv6 address as [::1]:5432, and a [ in a password as %5B")
                })?;
                (host, after.strip_prefix(':').unwrap_or(after))
            }
            None => part.split_once(':').unwrap_or((part, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) { String::new() } else { ports.join(",") };
    Ok((hosts.join(","), ports))
}

/// One piece of a URI with variables put in and percent signs decoded.
fn component(raw: &str, environment: Option<Environment>) -> Result<String, Fault> {
    match environment {
        Some(environment) => percent_decode(&expand(raw, environment, percent_encode)?),
        None => percent_decode(raw),
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn percent_decode(text: &str) -> Result<String, Fault> {
    let wrong = || Fault::new("the URI has a \"%\" that is not followed by two hexadecimal digits of UTF-8", "write %25 for a percent sign");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let (digits, after) = after.split_at_checked(2).ok_or_else(wrong)?;
        // `from_str_radix` alone would take "+1".
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "PASSWORD" => Some(r"a b'c\d@e/f%41:?&${X}".to_owned()),
            "HOST" => Some("db.example".to_owned()),
            "WHOLE" => Some("postgres://u:${X}%24@h/d".to_owned()),
            "WHOLE_KEYWORDS" => Some("host=h password='${X}'".to_owned()),
            _ => None,
        }
    }

    /// The settings that are not empty, as `key=[value]`.
    fn shown(text: &str) -> String {
        match settings(text, &environment) {
            Ok(settings) => settings
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| format!("{key}=[{value}]"))
                .collect::<Vec<_>>()
                .join(" "),
            Err(fault) => format!("error: {}", fault.problem),
        }
    }

    #[test]
    fn keyword_strings_are_taken_apart_as_libpq_does() {
        for (text, expected) in [
            ("", ""),
            ("host=a port=1", "host=[a] port=[1]"),
            ("  host = a\n\tport=  1  ", "host=[a] port=[1]"),
            ("password='a b' user=u", "password=[a b] user=[u]"),
            (r"password='it\'s \\ me'", r"password=[it's \ me]"),
            (r"password=it\'s\ me", "password=[it's me]"),
            ("password='' user=u", "user=[u]"),
            ("password='a''b'", "error: setting 2 of the connection string has no \"=\""),
            ("host=a user", "error: setting 2 of the connection string has no \"=\""),
            ("=a", "error: setting 1 of the connection string has no keyword before its \"=\""),
            ("password='abc", "error: setting 1 of the connection string has a quote that is not closed"),
            ("password=${PASSWORD} host=${HOST}", r"password=[a b'c\d@e/f%41:?&${X}] host=[db.example]"),
            ("password='x${HOST}'", "password=[xdb.example]"),
            ("password=$${HOST}", "password=[${HOST}]"),
            ("password=${NOPE}", "error: the environment variable NOPE is not set"),
            ("${WHOLE_KEYWORDS}", "host=[h] password=[${X}]"),
            ("password=ü", "password=[ü]"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn uris_are_taken_apart_as_libpq_does() {
        for (text, expected) in [
            ("postgresql://", ""),
            ("postgres://localhost", "host=[localhost]"),
            ("postgresql://u:p@h:1/d", "user=[u] password=[p] host=[h] port=[1] dbname=[d]"),
            ("postgresql://u@h/d", "user=[u] host=[h] dbname=[d]"),
            ("postgresql://u%40x:p%3A%2F%40@h/d%20e", "user=[u@x] password=[p:/@] host=[h] dbname=[d e]"),
            ("postgresql://h1:1,h2,h3:3/d", "host=[h1,h2,h3] port=[1,,3] dbname=[d]"),
            ("postgresql://[::1]:5/d", "host=[::1] port=[5] dbname=[d]"),
            ("postgresql://[::1],[fe80::2]/", "host=[::1,fe80::2]"),
            ("postgresql://%2Fvar%2Frun/d", "host=[/var/run] dbname=[d]"),
            ("postgresql:///d?host=/tmp&port=7", "dbname=[d] host=[/tmp] port=[7]"),
            ("postgresql://h?sslmode=require", "host=[h] sslmode=[require]"),
            ("postgresql://h?a=x@y", "host=[h] a=[x@y]"),
            ("postgresql://h/d?ssl=true", "host=[h] dbname=[d] sslmode=[require]"),
            ("postgresql://h/d?options=-c%20a%3Db", "host=[h] dbname=[d] options=[-c a=b]"),
            ("postgresql://h/d?x", "error: a parameter after the \"?\" of the URI has no \"=\""),
            ("postgresql://[::1/d", "error: a \"[\" in the URI has no closing \"]\""),
            ("postgresql://u:%+1@h", "error: the URI has a \"%\" that is not followed by two hexadecimal digits of UTF-8"),
            ("postgresql://u:%ff@h", "error: the URI has a \"%\" that is not followed by two hexadecimal digits of UTF-8"),
            ("postgresql://u:%4@h", "error: the URI has a \"%\" that is not followed by two hexadecimal digits of UTF-8"),
            ("postgresql://u:%00@h", "error: a value contains a NUL character"),
            ("postgresql://u:${PASSWORD}@${HOST}/d", r"user=[u] password=[a b'c\d@e/f%41:?&${X}] host=[db.example] dbname=[d]"),
            ("${WHOLE}", "user=[u] password=[${X}$] host=[h] dbname=[d]"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
