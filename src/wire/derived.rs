//! What SCRAM derives from plain passwords, kept so that each derivation happens once: thousands of rounds of a hash,
//! a millisecond and more, for clients' logins and for ours to servers alike.
//!
//! Does not know whose passwords they are. What is kept is found by password, salt and rounds together, so a password
//! that was changed, here or on the server, is another one and simply derived anew. Passwords themselves are not kept,
//! only a keyed hash of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::hmac;
use tokio::sync::OnceCell;
use tokio::task::JoinError;

use super::helpers::Helpers;
use super::scram::{KEY_BYTES, Salted, fixed};

/// What is kept; beyond, all is forgotten and derived again.
const KEPT_MAX: usize = 10_000;

type Id = [u8; KEY_BYTES];
type Kept = Arc<OnceCell<Salted>>;

/// One for the process, behind an `Arc`.
pub struct Derived {
    key: hmac::Key,
    kept: Mutex<HashMap<Id, Kept>>,
    helpers: Helpers,
}

impl std::fmt::Debug for Derived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Derived")
    }
}

impl Derived {
    /// Nothing yet; the work will be done by `helpers`.
    #[must_use]
    pub fn new(helpers: Helpers) -> Arc<Derived> {
        let key: [u8; KEY_BYTES] = rand::random();
        Arc::new(Derived {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            kept: Mutex::default(),
            helpers,
        })
    }

    /// What these give; derived by a helper when they are seen for the first time, once also when many ask together.
    ///
    /// # Errors
    /// The helpers are ending.
    pub async fn salted(
        &self,
        password: &str,
        salt: &[u8],
        iterations: u32,
    ) -> Result<Salted, JoinError> {
        let cell = self.cell(self.id(password, salt, iterations));
        let salted = cell.get_or_try_init(|| {
            let (password, salt) = (password.to_owned(), salt.to_vec());
            let work = async move { Salted::derive(&password, &salt, iterations) };
            self.helpers.run(work)
        });
        salted.await.cloned()
    }

    fn cell(&self, id: Id) -> Kept {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX && !kept.contains_key(&id) {
            kept.clear();
        }
        kept.entry(id).or_default().clone()
    }

    fn id(&self, password: &str, salt: &[u8], iterations: u32) -> Id {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&iterations.to_be_bytes());
        // With its length, so that no two pairs of salt and password look alike.
        context.update(&(salt.len() as u64).to_be_bytes());
        context.update(salt);
        context.update(password.as_bytes());
        fixed(context.sign().as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(derived: &Derived) -> usize {
        derived.kept.lock().unwrap().len()
    }

    #[tokio::test]
    async fn each_password_salt_and_number_of_rounds_is_derived_once() {
        let derived = Derived::new(Helpers::none());
        let first = derived.salted("pencil", b"salt", 2).await.unwrap();
        assert!(first == derived.salted("pencil", b"salt", 2).await.unwrap());
        assert_eq!(kept(&derived), 1);
        for (password, salt, rounds) in [
            ("pen", &b"cilsalt"[..], 2),
            ("pencil", b"tlas", 2),
            ("pencil", b"salt", 3),
        ] {
            assert!(first != derived.salted(password, salt, rounds).await.unwrap());
        }
        assert_eq!(kept(&derived), 4);
    }

    #[tokio::test]
    async fn what_is_kept_has_a_limit() {
        let derived = Derived::new(Helpers::none());
        for salt in 0..=KEPT_MAX {
            derived
                .salted("pencil", &salt.to_be_bytes(), 1)
                .await
                .unwrap();
        }
        assert_eq!(kept(&derived), 1);
    }
}
