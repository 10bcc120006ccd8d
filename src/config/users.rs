//! PgBouncer's `userlist.txt` (<https://www.pgbouncer.org/config.html#authentication-file-format>): `"user" "secret"`,
//! doubled quotes inside, the rest of a line ignored, comment lines with `;` or `#`.
//!
//! Knows no authentication method. What would surprise: as in PostgreSQL, `md5…` that is not followed by exactly 32
//! hexadecimal digits is a plain password; a broken SCRAM secret, on the other hand, is reported, because nobody means it.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Password;
use super::problems::Fault;

/// The secret of one user, as the file stores it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Plain(Password),
    /// 32 hexadecimal digits: md5(password + user name), without the `md5` prefix.
    Md5(String),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, decoded.
    Scram {
        iterations: u32,
        salt: Vec<u8>,
        stored_key: Vec<u8>,
        server_key: Vec<u8>,
    },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Plain(_) => "Plain(hidden)",
            Secret::Md5(_) => "Md5(hidden)",
            Secret::Scram { .. } => "Scram(hidden)",
        })
    }
}

/// Who may log in, and with which secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users(pub(super) HashMap<String, Secret>);

impl Users {
    #[must_use]
    pub fn secret(&self, user: &str) -> Option<&Secret> {
        self.0.get(user)
    }

    /// The names, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

const FORMAT: &str = "write one user a line as \"user\" \"secret\", both in double quotes";

/// Reads the text of a users file; each fault comes with its line, counted from 1.
pub(super) fn parse(text: &str) -> (Users, Vec<(usize, Fault)>) {
    let mut users = HashMap::new();
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        let added = entry(line).and_then(|(user, secret)| {
            if users.contains_key(&user) {
                return Err(Fault::new(format!("the user {user:?} is listed a second time"), "keep one line for each user"));
            }
            users.insert(user, secret);
            Ok(())
        });
        if let Err(fault) = added {
            faults.push((index + 1, fault));
        }
    }
    (Users(users), faults)
}

fn entry(line: &str) -> Result<(String, Secret), Fault> {
    let (user, rest) = quoted(line).ok_or_else(|| Fault::new("the user name is not in double quotes", FORMAT))?;
    let (secret, _) =
        quoted(rest.trim_start()).ok_or_else(|| Fault::new("no secret in double quotes follows the user name", FORMAT))?;
    if user.is_empty() {
        return Err(Fault::new("the user name is empty", FORMAT));
    }
    let secret = secret_of(&user, secret)?;
    Ok((user, secret))
}

/// A text in double quotes, with doubled quotes undone, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let (piece, after) = rest.split_once('"')?;
        value.push_str(piece);
        match after.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}

fn secret_of(user: &str, text: String) -> Result<Secret, Fault> {
    if text.is_empty() {
        return Err(Fault::new(
            format!("the secret of {user:?} is empty"),
            "give the user a password or remove the line: an empty one would let everybody in",
        ));
    }
    if let Some(scram) = text.strip_prefix("SCRAM-SHA-256$") {
        return scram_secret(scram).ok_or_else(|| {
            Fault::new(
                format!("the SCRAM secret of {user:?} is damaged"),
                "copy it again from rolpassword in pg_authid, as one piece: SCRAM-SHA-256$<iterations>:<salt>$<key>:<key>",
            )
        });
    }
    if let Some(digits) = text.strip_prefix("md5")
        && digits.len() == 32
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Ok(Secret::Md5(digits.to_ascii_lowercase()));
    }
    Ok(Secret::Plain(Password(text)))
}

fn scram_secret(text: &str) -> Option<Secret> {
    const KEY_BYTES: usize = 32;
    let (head, keys) = text.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored_key, server_key) = keys.split_once(':')?;
    let key = |text: &str| STANDARD.decode(text).ok().filter(|key| key.len() == KEY_BYTES);
    Some(Secret::Scram {
        iterations: iterations.parse().ok().filter(|iterations| *iterations > 0)?,
        salt: STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?,
        stored_key: key(stored_key)?,
        server_key: key(server_key)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn plain(text: &str) -> Secret {
        Secret::Plain(Password(text.to_owned()))
    }

    #[test]
    fn lines_give_users_and_secrets() {
        let md5 = "0123456789abcdef0123456789abcdef";
        for (line, user, secret) in [
            (r#""ann" "secret""#.to_owned(), "ann", plain("secret")),
            (r#"  "ann"    "secret"  "ignored" and more"#.to_owned(), "ann", plain("secret")),
            (r#""a""nn" "se""cr""et""#.to_owned(), "a\"nn", plain("se\"cr\"et")),
            (r#""ann" "with ; and # inside""#.to_owned(), "ann", plain("with ; and # inside")),
            (format!(r#""ann" "md5{md5}""#), "ann", Secret::Md5(md5.to_owned())),
            (format!(r#""ann" "md5{}""#, md5.to_uppercase()), "ann", Secret::Md5(md5.to_owned())),
            (r#""ann" "md5short""#.to_owned(), "ann", plain("md5short")),
            (
                format!(r#""ann" "SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}""#),
                "ann",
                Secret::Scram { iterations: 4096, salt: b"salt".to_vec(), stored_key: vec![0; 32], server_key: vec![0; 32] },
            ),
        ] {
            let (users, faults) = parse(&line);
            assert_eq!(faults, [], "{line}");
            assert_eq!(users.secret(user), Some(&secret), "{line}");
            assert_eq!(users.len(), 1, "{line}");
        }
    }

    #[test]
    fn comments_and_empty_lines_count_as_lines_but_say_nothing() {
        let (users, faults) = parse("; old\r\n# new\n\n   \n\"ann\" \"a\"\r\nbob b\n\"cid\" \"c\"");
        let mut names: Vec<&str> = users.names().collect();
        names.sort_unstable();
        assert_eq!(names, ["ann", "cid"]);
        assert_eq!(faults.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [6]);
    }

    #[test]
    fn each_fault_names_its_line_and_shows_no_secret() {
        for (text, line, problem) in [
            ("ann \"hunter2\"", 1, "the user name is not in double quotes"),
            ("\"ann hunter2", 1, "the user name is not in double quotes"),
            ("\n\"ann\"", 2, "no secret in double quotes follows the user name"),
            ("\"ann\"\"hunter2\"", 1, "no secret in double quotes follows the user name"),
            ("\"ann\" hunter2", 1, "no secret in double quotes follows the user name"),
            ("\"ann\" \"hunter2", 1, "no secret in double quotes follows the user name"),
            ("\"\" \"hunter2\"", 1, "the user name is empty"),
            ("\"ann\" \"\"", 1, "the secret of \"ann\" is empty"),
            ("\"ann\" \"hunter2\"\n\"ann\" \"hunter2\"", 2, "the user \"ann\" is listed a second time"),
            ("\"ann\" \"SCRAM-SHA-256$hunter2\"", 1, "the SCRAM secret of \"ann\" is damaged"),
            ("\"ann\" \"SCRAM-SHA-256$0:c2FsdA==$hunter2:hunter2\"", 1, "the SCRAM secret of \"ann\" is damaged"),
            ("\"ann\" \"SCRAM-SHA-256$4096:c2FsdA==$aHVudGVyMg==:aHVudGVyMg==\"", 1, "the SCRAM secret of \"ann\" is damaged"),
        ] {
            let (_, faults) = parse(text);
            let found: Vec<(usize, &str)> = faults.iter().map(|(line, fault)| (*line, fault.problem.as_str())).collect();
            assert_eq!(found, [(line, problem)], "{text}");
            assert!(!format!("{faults:?}").contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn secrets_are_hidden_from_logs() {
        let (users, _) = parse("\"ann\" \"hunter2\"\n\"bob\" \"md50123456789abcdef0123456789abcdef\"");
        let shown = format!("{users:?}");
        assert!(shown.contains("ann") && !shown.contains("hunter2") && !shown.contains("0123456789abcdef"), "{shown}");
    }
}
