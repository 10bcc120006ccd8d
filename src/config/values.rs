//! Durations, sizes and `${NAME}`: the values of `sharding.toml` that TOML has no type for.
//!
//! Knows no key. What would surprise: sizes are powers of 1024 whatever their spelling, as in PostgreSQL's own settings
//! (`1kB` is 1024 bytes there), and a bare `0` needs no unit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problems::Fault;

/// Longer than any wait that is meant: a wrong unit, most likely.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A duration such as `250ms`, `30s`, `5min` or `1h 30min`.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    const REMEDY: &str = "write a number with a unit (ms, s, min, h, d), such as \"250ms\", \"30s\" or \"5min\"";
    let parsed = humantime::parse_duration(text.trim())
        .map_err(|_| Fault::new(format!("{text:?} is not a duration"), REMEDY))?;
    if parsed > DURATION_MAX {
        return Err(Fault::new(format!("{text:?} is longer than a year"), REMEDY));
    }
    Ok(parsed)
}

/// A number of bytes such as `512kB`, `64MiB` or `1GiB`.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let wrong = || {
        Fault::new(
            format!("{text:?} is not a size"),
            "write a whole number with a unit (B, kB, MB, GB or KiB, MiB, GiB; all are powers of 1024), such as \"64MiB\"",
        )
    };
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim_start() {
        "" if number == 0 => 1,
        "B" => 1,
        "kB" | "KB" | "KiB" => 1 << 10,
        "MB" | "MiB" => 1 << 20,
        "GB" | "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// Replaces each `${NAME}` by the variable's value, passed through `encode`; `$${` stands for a literal `${`.
pub(super) fn expand(text: &str, environment: Environment, encode: fn(&str) -> String) -> Result<String, Fault> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err(Fault::new("a \"${\" has no closing \"}\"", "write ${NAME}, or $${ for the two characters themselves"));
        };
        out.push_str(before);
        out.push_str(&encode(&variable(name, environment)?));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The name, when the whole text is one `${NAME}`.
pub(super) fn sole_variable(text: &str) -> Option<&str> {
    let name = text.trim().strip_prefix("${")?.strip_suffix('}')?;
    (!name.contains(['$', '{', '}'])).then_some(name)
}

/// The value of an environment variable.
pub(super) fn variable(name: &str, environment: Environment) -> Result<String, Fault> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || !name.bytes().all(word) {
        // The text is not shown: with a brace in the wrong place it may be a piece of a password.
        return Err(Fault::new(
            "between \"${\" and \"}\" stands no name of an environment variable",
            "write ${NAME} with letters, digits and underscores, or $${ for the two characters themselves",
        ));
    }
    environment(name).ok_or_else(|| {
        Fault::new(
            format!("the environment variable {name} is not set"),
            format!("set {name} where pgherd is started, or write $${{ for a literal ${{"),
        )
    })
}

/// Where a file named in the configuration is: relative names start at the configuration's folder, `~/` at the home.
pub(super) fn resolve(folder: &Path, environment: Environment, file: &str) -> PathBuf {
    if let Some(rest) = file.strip_prefix("~/")
        && let Some(home) = environment("HOME")
    {
        return Path::new(&home).join(rest);
    }
    folder.join(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("5min", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("1h 30min", Some(5_400_000)),
            ("1d", Some(86_400_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("30", None),
            ("", None),
            ("-1s", None),
            ("5 apples", None),
            ("2years", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration(text).ok(), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in [
            ("0", Some(0)),
            ("17B", Some(17)),
            ("512kB", Some(512 * 1024)),
            ("512KiB", Some(512 * 1024)),
            ("64MiB", Some(64 * 1024 * 1024)),
            ("64 MB", Some(64 * 1024 * 1024)),
            ("1GiB", Some(1024 * 1024 * 1024)),
            ("1", None),
            ("MiB", None),
            ("1.5GiB", None),
            ("-1kB", None),
            ("1TB", None),
            ("99999999999999GiB", None),
            ("", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn variables_are_replaced_and_a_doubled_dollar_is_literal() {
        let environment = |name: &str| match name {
            "USER_NAME" => Some("shop".to_owned()),
            "NESTED" => Some("${USER_NAME}".to_owned()),
            _ => None,
        };
        for (text, expected) in [
            ("no variable", Ok("no variable")),
            ("a${USER_NAME}b", Ok("ashopb")),
            ("${USER_NAME}${USER_NAME}", Ok("shopshop")),
            ("$USER_NAME $5", Ok("$USER_NAME $5")),
            ("$${USER_NAME}", Ok("${USER_NAME}")),
            ("${NESTED}", Ok("${USER_NAME}")),
            ("ü${USER_NAME}", Ok("üshop")),
            ("${MISSING}", Err("the environment variable MISSING is not set")),
            ("${USER_NAME", Err("a \"${\" has no closing \"}\"")),
            ("${}", Err("between \"${\" and \"}\" stands no name of an environment variable")),
            ("${a b}", Err("between \"${\" and \"}\" stands no name of an environment variable")),
        ] {
            let found = expand(text, &environment, str::to_owned).map_err(|fault| fault.problem);
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }
}
