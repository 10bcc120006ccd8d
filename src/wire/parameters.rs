//! The parameters of a start-up message as text: user, database, settings, and the settings inside `options`.
//!
//! Does not know which settings exist, nor what becomes of them.

use std::collections::BTreeSet;

use super::startup::{Pair, StartupError};

/// Options of the protocol itself, which are negotiated.
const PROTOCOL_OPTION: &str = "_pq_.";

/// What a client asked for at its start; `user` is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    user: String,
    database: Option<String>,
    /// All others in the order of the message, each name once.
    others: Vec<(String, String)>,
    /// Names of protocol options (`_pq_.…`) that nobody here knows.
    unknown_options: Vec<String>,
}

/// Whether the connection is for replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    No,
    Physical,
    /// `replication=database`.
    Logical,
}

impl Parameters {
    /// Of a start-up's pairs: the last of equal names wins.
    ///
    /// # Errors
    /// [`StartupError::NoUser`]; [`StartupError::BadLayout`] where a name or value is not UTF-8, except the
    /// application's name, which PostgreSQL also makes readable.
    pub fn of_pairs(pairs: &[Pair<'_>]) -> Result<Parameters, StartupError> {
        const NOT_TEXT: StartupError = StartupError::BadLayout("expected parameters in UTF-8");
        let mut user = String::new();
        let mut database = None;
        let mut others: Vec<(String, String)> = Vec::new();
        let mut unknown_options: Vec<String> = Vec::new();
        for (name, value) in pairs {
            let name = std::str::from_utf8(name).map_err(|_| NOT_TEXT)?;
            let value = match (name, std::str::from_utf8(value)) {
                (_, Ok(value)) => value.to_owned(),
                ("application_name", Err(_)) => value.escape_ascii().to_string(),
                (_, Err(_)) => return Err(NOT_TEXT),
            };
            match name {
                "user" => user = value,
                "database" => database = Some(value),
                _ if name.starts_with(PROTOCOL_OPTION) => {
                    if !unknown_options.iter().any(|known| known == name) {
                        unknown_options.push(name.to_owned());
                    }
                }
                _ => {
                    others.retain(|(known, _)| known != name);
                    others.push((name.to_owned(), value));
                }
            }
        }
        if user.is_empty() {
            return Err(StartupError::NoUser);
        }
        let database = database.filter(|database| !database.is_empty());
        Ok(Parameters {
            user,
            database,
            others,
            unknown_options,
        })
    }

    /// Names of options of the protocol that nobody here knows, each once.
    pub(super) fn unknown_options(&self) -> &[String] {
        &self.unknown_options
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database asked for; the user's name where none was given.
    pub fn database(&self) -> &str {
        self.database.as_deref().unwrap_or(&self.user)
    }

    /// Any other parameter, such as `application_name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.others
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// All but `user`, `database` and options of the protocol, in the order of the message.
    pub fn others(&self) -> &[(String, String)] {
        &self.others
    }

    /// The settings inside `options`, in order.
    ///
    /// # Errors
    /// [`StartupError::BadOption`].
    pub fn options(&self) -> Result<Vec<(String, String)>, StartupError> {
        self.get("options").map_or(Ok(Vec::new()), parse_options)
    }

    /// The same without those of these names (in lower case), inside `options` too.
    ///
    /// # Errors
    /// [`StartupError::BadOption`].
    pub fn without(&self, names: &BTreeSet<String>) -> Result<Parameters, StartupError> {
        let is_kept = |(name, _): &(String, String)| !names.contains(&name.to_ascii_lowercase());
        let mut kept = self.clone();
        kept.others.retain(is_kept);
        let mut options = kept.options()?;
        let given = options.len();
        options.retain(is_kept);
        if options.len() < given {
            kept.others.retain(|(name, _)| name != "options");
            if !options.is_empty() {
                kept.others
                    .push(("options".into(), write_options(&options)));
            }
        }
        Ok(kept)
    }

    /// # Errors
    /// [`StartupError::BadValue`], where `replication` is neither a boolean nor `database`.
    pub fn replication(&self) -> Result<Replication, StartupError> {
        let Some(value) = self.get("replication") else {
            return Ok(Replication::No);
        };
        match value.to_ascii_lowercase().as_str() {
            "database" => Ok(Replication::Logical),
            "1" | "on" | "true" | "t" | "yes" | "y" => Ok(Replication::Physical),
            "0" | "off" | "false" | "f" | "no" | "n" => Ok(Replication::No),
            _ => Err(StartupError::BadValue {
                name: "replication",
                value: value.to_owned(),
            }),
        }
    }
}

/// Parses libpq's `options`: `-c name=value`, `-cname=value` and `--name=value`, split at blanks; a backslash makes the
/// next character ordinary. A dash in a name is an underscore, as in PostgreSQL.
///
/// # Errors
/// [`StartupError::BadOption`] with the first word that is nothing of these.
pub fn parse_options(options: &str) -> Result<Vec<(String, String)>, StartupError> {
    let mut settings = Vec::new();
    let mut words = split_options(options).into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("--")
                .or_else(|| word.strip_prefix("-c"))
                .map(str::to_owned)
        };
        match setting
            .as_deref()
            .and_then(|setting| setting.split_once('='))
        {
            Some((name, value)) if !name.is_empty() => {
                settings.push((name.replace('-', "_"), value.to_owned()));
            }
            _ => return Err(StartupError::BadOption(word)),
        }
    }
    Ok(settings)
}

/// The opposite of [`parse_options`].
fn write_options(settings: &[(String, String)]) -> String {
    let mut options = String::new();
    for (name, value) in settings {
        options.push_str(if options.is_empty() { "-c " } else { " -c " });
        for character in name.chars().chain(['=']).chain(value.chars()) {
            if character == '\\' || character.is_whitespace() {
                options.push('\\');
            }
            options.push(character);
        }
    }
    options
}

fn split_options(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}
