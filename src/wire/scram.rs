//! The two proofs of a password that pgherd checks, without any connection: SCRAM-SHA-256 with and without channel
//! binding (RFC 5802, RFC 7677), and PostgreSQL's md5.
//!
//! pgwire's state machine holds the conversation, and is handed message texts that we cut ourselves. What would
//! surprise: it compares keys byte by byte until they differ, which an attacker could time; so the proof is first
//! checked here, in constant time, and pgwire only ever compares what is already known to be equal.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use pgwire::api::auth::sasl::scram::{
    ScramSecret, ScramServerAuth, ScramServerAuthWaitingForClientFinal, gen_salted_password,
};
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

/// The rounds of PBKDF2 that PostgreSQL uses where nothing else is said.
pub const ITERATIONS: u32 = 4096;
/// SHA-256, and with it every key and proof.
pub const KEY_BYTES: usize = 32;

pub const MECHANISM: &str = "SCRAM-SHA-256";
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Why an exchange ends without a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScramFailure {
    /// The proof is not one of this password.
    WrongProof,
    /// The message is none of SCRAM, or belongs to another exchange.
    Malformed(&'static str),
}

/// What a server stores of a password, in order to check proofs of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub iterations: u32,
    pub salt: Vec<u8>,
    pub stored_key: [u8; KEY_BYTES],
    pub server_key: [u8; KEY_BYTES],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({} iterations, hidden)", self.iterations)
    }
}

impl Keys {
    /// Those of a plain password: milliseconds of work.
    pub fn derive(password: &str, salt: Vec<u8>) -> Keys {
        let salted = Salted::derive(password, &salt, ITERATIONS);
        Keys::of(&salted, salt)
    }

    /// Those of a password that was salted with `salt` in [`ITERATIONS`] rounds.
    pub fn of(salted: &Salted, salt: Vec<u8>) -> Keys {
        let stored_key = digest::digest(&digest::SHA256, &salted.client_key);
        Keys {
            iterations: ITERATIONS,
            salt,
            stored_key: fixed(stored_key.as_ref()),
            server_key: salted.server_key,
        }
    }
}

/// The two keys that a password and a salt give: the client proves the one, the server the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Salted {
    pub client_key: [u8; KEY_BYTES],
    pub server_key: [u8; KEY_BYTES],
}

impl std::fmt::Debug for Salted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salted(hidden)")
    }
}

impl Salted {
    /// Milliseconds of work. No rounds count as one.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Salted {
        let salted = gen_salted_password(password, salt, iterations.max(1) as usize);
        let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        Salted {
            client_key: fixed(hmac::sign(&salted, b"Client Key").as_ref()),
            server_key: fixed(hmac::sign(&salted, b"Server Key").as_ref()),
        }
    }
}

/// The bytes as a key; they are as many.
pub(super) fn fixed(bytes: &[u8]) -> [u8; KEY_BYTES] {
    let mut fixed = [0; KEY_BYTES];
    for (to, from) in fixed.iter_mut().zip(bytes) {
        *to = *from;
    }
    fixed
}

/// Our side of `tls-server-end-point`: the certificate that clients see. Cheap to clone.
#[derive(Clone)]
pub struct ChannelBinding(ScramServerAuth);

impl ChannelBinding {
    /// Of a certificate in DER; `None` where its signature has no hash that PostgreSQL's clients know.
    pub fn of_certificate(der: &[u8]) -> Option<ChannelBinding> {
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(der)
        );
        let mut scram = ScramServerAuth::new();
        scram.configure_certificate(pem.as_bytes()).ok()?;
        Some(ChannelBinding(scram))
    }
}

impl std::fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChannelBinding")
    }
}

/// An exchange that waits for the client's proof.
#[derive(Debug)]
pub struct Exchange {
    machine: ScramServerAuthWaitingForClientFinal,
    keys: Keys,
    /// The two first messages as the proof covers them: `client-first-message-bare,server-first-message`.
    first_messages: String,
}

impl Exchange {
    /// Takes the client's first message; gives the exchange and the server's first message.
    ///
    /// `plus` says that the client chose [`MECHANISM_PLUS`]; `binding` is there on TLS connections that offered it.
    ///
    /// # Errors
    /// [`ScramFailure::Malformed`].
    pub fn begin(
        client_first: &[u8],
        keys: Keys,
        plus: bool,
        binding: Option<&ChannelBinding>,
    ) -> Result<(Exchange, String), ScramFailure> {
        const NOT_TEXT: ScramFailure = ScramFailure::Malformed("the first message is not a text");
        let text = std::str::from_utf8(client_first).map_err(|_| NOT_TEXT)?;
        // Without this, a client could choose the mechanism with binding and then not bind.
        if plus != text.starts_with("p=") {
            return Err(ScramFailure::Malformed(
                "the mechanism and the channel binding disagree",
            ));
        }
        let bare = text
            .splitn(3, ',')
            .nth(2)
            .ok_or(ScramFailure::Malformed("the first message has no nonce"))?;
        let machine = binding.map_or_else(ScramServerAuth::new, |binding| binding.0.clone());
        let secret = ScramSecret::Verifier {
            salt: keys.salt.clone(),
            iterations: keys.iterations as usize,
            stored_key: keys.stored_key.to_vec(),
            server_key: keys.server_key.to_vec(),
        };
        let (server_first, machine) = machine
            .on_client_first_message_with_secret(client_first, secret)
            .map_err(|_| ScramFailure::Malformed("the first message cannot be understood"))?;
        let first_messages = format!("{bare},{server_first}");
        Ok((
            Exchange {
                machine,
                keys,
                first_messages,
            },
            server_first,
        ))
    }

    /// Takes the client's proof; gives the server's, which is the last message.
    ///
    /// # Errors
    /// [`ScramFailure`].
    pub fn finish(self, client_final: &[u8]) -> Result<String, ScramFailure> {
        if !self.proves(client_final)? {
            return Err(ScramFailure::WrongProof);
        }
        self.machine
            .on_client_final_message(client_final)
            .map_err(|_| ScramFailure::Malformed("nonce or channel binding do not match"))
    }

    fn proves(&self, client_final: &[u8]) -> Result<bool, ScramFailure> {
        const NO_PROOF: ScramFailure = ScramFailure::Malformed("the last message has no proof");
        let text = std::str::from_utf8(client_final).map_err(|_| NO_PROOF)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(NO_PROOF)?;
        let proof = STANDARD.decode(proof).map_err(|_| NO_PROOF)?;
        let proof = <[u8; KEY_BYTES]>::try_from(proof).map_err(|_| NO_PROOF)?;

        let stored_key = hmac::Key::new(hmac::HMAC_SHA256, &self.keys.stored_key);
        let signed = format!("{},{without_proof}", self.first_messages);
        let signature = hmac::sign(&stored_key, signed.as_bytes());
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip(signature.as_ref()) {
            *byte ^= mask;
        }
        let candidate = digest::digest(&digest::SHA256, &client_key);
        Ok(candidate.as_ref().ct_eq(&self.keys.stored_key).into())
    }
}

fn md5_hex(parts: &[&[u8]]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    md5.finalize()
        .iter()
        .fold(String::with_capacity(32), |mut hex, byte| {
            for digit in [byte >> 4, byte & 15] {
                hex.extend(char::from_digit(u32::from(digit), 16));
            }
            hex
        })
}

/// What PostgreSQL stores of a password with `password_encryption=md5`, without the prefix `md5`.
pub fn md5_stored(user: &str, password: &str) -> String {
    md5_hex(&[password.as_bytes(), user.as_bytes()])
}

/// The answer to an md5 challenge by someone who has what is stored (32 hexadecimal digits).
pub fn md5_response(stored: &str, salt: [u8; 4]) -> String {
    format!("md5{}", md5_hex(&[stored.as_bytes(), &salt]))
}

/// Whether `response` answers the challenge; in constant time for every response of the right length.
pub fn md5_matches(stored: &str, salt: [u8; 4], response: &[u8]) -> bool {
    md5_response(stored, salt).as_bytes().ct_eq(response).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::authentication::sasl::{ChannelBinding as Binding, ScramSha256};
    use postgres_protocol::{authentication, password};

    fn keys(password: &str) -> Keys {
        Keys::derive(password, b"0123456789abcdef".to_vec())
    }

    /// A whole exchange; `change` may falsify the client's last message.
    fn run(
        secret: &str,
        password: &str,
        change: impl Fn(String) -> String,
    ) -> Result<(), ScramFailure> {
        let mut client = ScramSha256::new(password.as_bytes(), Binding::unsupported());
        let (server, challenge) = Exchange::begin(client.message(), keys(secret), false, None)?;
        client.update(challenge.as_bytes()).unwrap();
        let proof = change(String::from_utf8(client.message().to_vec()).unwrap());
        let verdict = server.finish(proof.as_bytes())?;
        client.finish(verdict.as_bytes()).unwrap();
        Ok(())
    }

    #[test]
    fn a_proof_is_accepted_only_with_the_right_password_and_as_it_was_made() {
        use ScramFailure::{Malformed, WrongProof};
        let same = |proof| proof;
        assert_eq!(run("pencil", "pencil", same), Ok(()));
        assert_eq!(run("päss wörd", "päss wörd", same), Ok(()));
        assert_eq!(run("pencil", "Pencil", same), Err(WrongProof));
        assert_eq!(run("pencil", "", same), Err(WrongProof));
        assert_eq!(
            run("pencil", "pencil", |p| p.replace("r=", "r=x")),
            Err(WrongProof)
        );
        assert_eq!(
            run("pencil", "pencil", |p| p.replace("c=biws", "c=eSws")),
            Err(WrongProof)
        );
        let no_proof = Err(Malformed("the last message has no proof"));
        assert_eq!(run("pencil", "pencil", |p| format!("{p}AAAA")), no_proof);
        assert_eq!(
            run("pencil", "pencil", |p| p.replace(",p=", ",q=")),
            no_proof
        );
        assert_eq!(run("pencil", "pencil", |_| String::new()), no_proof);
    }

    #[test]
    fn a_first_message_that_is_not_scram_is_refused() {
        for first in [
            "",
            "n",
            "n,,",
            "n,,n=",
            "x,,n=,r=a",
            "n,a=root,n=,r=a",
            "n,,m=,n=,r=a",
            "y",
            "p=x,,n=,r=a",
        ] {
            let plus = first.starts_with("p=");
            let begun = Exchange::begin(first.as_bytes(), keys("p"), plus, None);
            assert!(matches!(begun, Err(ScramFailure::Malformed(_))), "{first}");
        }
        assert!(Exchange::begin(b"n,,n=,r=\xff", keys("p"), false, None).is_err());
    }

    #[test]
    fn a_mechanism_without_its_binding_is_refused() {
        assert!(Exchange::begin(b"n,,n=,r=abc", keys("p"), true, None).is_err());
        assert!(
            Exchange::begin(b"p=tls-server-end-point,,n=,r=a", keys("p"), false, None).is_err()
        );
        assert!(Exchange::begin(b"n,,n=,r=abc", keys("p"), false, None).is_ok());
    }

    #[test]
    fn keys_are_those_that_postgresql_would_store() {
        let stored = password::scram_sha_256(b"pencil");
        let mut parts = stored.split(['$', ':']).skip(2);
        let mut next = || STANDARD.decode(parts.next().unwrap()).unwrap();
        let (salt, stored_key, server_key) = (next(), next(), next());
        let keys = Keys::derive("pencil", salt);
        assert_eq!(keys.stored_key.to_vec(), stored_key);
        assert_eq!(keys.server_key.to_vec(), server_key);
    }

    #[test]
    fn md5_agrees_with_clients() {
        let salt = [0x2a, 0x3d, 0x8f, 0xe0];
        let stored = md5_stored("md5_user", "password");
        let theirs = authentication::md5_hash(b"md5_user", b"password", salt);
        assert_eq!(
            password::md5(b"password", "md5_user"),
            format!("md5{stored}")
        );
        assert!(md5_matches(&stored, salt, theirs.as_bytes()));
        assert!(!md5_matches(&stored, [0; 4], theirs.as_bytes()));
        assert!(!md5_matches(&stored, salt, b"md5"));
        assert!(!md5_matches(&stored, salt, b""));
    }
}
