//! PgBouncer's `userlist.txt`.
use std::collections::HashMap;

use super::Password;

/// The secret of one user, as the file stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
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

#[derive(Debug, Clone, Default)]
pub struct Users(pub(super) HashMap<String, Secret>);

impl Users {
    #[must_use]
    pub fn secret(&self, user: &str) -> Option<&Secret> {
        self.0.get(user)
    }
}
