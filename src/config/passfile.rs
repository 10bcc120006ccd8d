//! PostgreSQL's password file (<https://www.postgresql.org/docs/current/libpq-pgpass.html>): lines of
//! `host:port:database:user:password`, `*` for anything, the first that fits counts.
//!
//! Knows only the text. What would surprise: a unix socket is looked up as its folder and as `localhost`, as libpq does.

use super::Endpoint;

/// The password for one server, if a line fits.
pub(super) fn password(text: &str, endpoint: &Endpoint, dbname: &str, user: &str) -> Option<String> {
    let (hosts, port) = match endpoint {
        Endpoint::Tcp { host, port } => (vec![host.clone()], port.to_string()),
        Endpoint::Unix { path } => {
            let folder = path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
            let port = path.extension().map(|port| port.to_string_lossy().into_owned()).unwrap_or_default();
            (vec![folder, "localhost".to_owned()], port)
        }
    };
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line)?;
        let [host, port_field, database, user_field, password] = &fields;
        let fits = |field: &String, value: &str| field == "*" || field == value;
        let found = hosts.iter().any(|name| fits(host, name)) && fits(port_field, &port) && fits(database, dbname) && fits(user_field, user);
        found.then(|| password.clone())
    })
}

/// The five fields of a line, unescaped; `None` for a line that has fewer.
fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields: [String; 5] = Default::default();
    let mut filled = fields.iter_mut();
    let mut field = filled.next()?;
    let mut last = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => field.extend(characters.next()),
            ':' => match filled.next() {
                Some(next) => {
                    last = filled.len() == 0;
                    field = next;
                }
                None => break,
            },
            c => field.push(c),
        }
    }
    last.then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_gives_the_password() {
        let tcp = |host: &str, port| Endpoint::Tcp { host: host.to_owned(), port };
        let socket = Endpoint::Unix { path: "/run/pg/.s.PGSQL.5432".into() };
        for (text, endpoint, expected) in [
            ("h:5432:d:u:secret", tcp("h", 5432), Some("secret")),
            ("h:5432:d:u:secret", tcp("h", 5433), None),
            ("h:5432:d:u:secret", tcp("i", 5432), None),
            ("h:5432:e:u:secret", tcp("h", 5432), None),
            ("h:5432:d:v:secret", tcp("h", 5432), None),
            ("*:*:*:*:secret", tcp("h", 5432), Some("secret")),
            ("x:*:*:*:a\n*:*:*:u:b\n*:*:*:*:c", tcp("h", 1), Some("b")),
            ("# h:5432:d:u:a\n\nh:5432:d:u:b", tcp("h", 5432), Some("b")),
            (r"h:5432:d:u:a\:b\\c", tcp("h", 5432), Some(r"a:b\c")),
            (r"\:\:1:5432:d:u:secret", tcp("::1", 5432), Some("secret")),
            ("h:5432:d:u", tcp("h", 5432), None),
            ("h:5432:d:u:", tcp("h", 5432), Some("")),
            ("localhost:5432:d:u:secret", socket.clone(), Some("secret")),
            ("/run/pg:5432:d:u:secret", socket, Some("secret")),
        ] {
            assert_eq!(password(text, &endpoint, "d", "u").as_deref(), expected, "{text} {endpoint:?}");
        }
    }
}
