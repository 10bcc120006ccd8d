//! The other side of SCRAM-SHA-256 (RFC 5802, RFC 7677): proving a password to a server, and having the server prove that it
//! knows it too. Texts only; no connection.
//!
//! Our own, where a package would do, for one reason: what is derived from the password is handed in, and so can be kept
//! (see [`Derived`](super::derived::Derived)); packages derive it anew for each login.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

use super::scram::{KEY_BYTES, Salted, fixed};

const NONCE_BYTES: usize = 18;
/// More rounds than this are refused: the server chooses them, and may be none of ours. Since PostgreSQL 16 a role may
/// have hundreds of thousands; they are done once for each password, by a helper.
const ITERATIONS_MAX: u32 = 1_000_000;

/// What of the TLS connection is bound to the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// There is no TLS, or nothing of it that could be bound.
    Impossible,
    /// We could and the server did not offer it: it hears so, and notices a man in the middle who took its offer out.
    NotOffered,
    /// `tls-server-end-point`: a hash of the server's certificate.
    ServerEndPoint(Vec<u8>),
}

/// What is wrong with a server's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("its {0} message is not one of SCRAM")]
    Malformed(&'static str),
    #[error("its nonce is not a continuation of ours")]
    ForeignNonce,
    #[error("it asks for {0} rounds of the hash, and at most {ITERATIONS_MAX} are done")]
    TooManyIterations(u32),
    /// Its own word for it.
    #[error("it says: {0}")]
    Refused(String),
    #[error("it does not know the password itself")]
    WrongSignature,
    #[error("the work was broken off")]
    BrokenOff,
}

impl Binding {
    fn gs2_header(&self) -> &'static str {
        match self {
            Binding::Impossible => "n,,",
            Binding::NotOffered => "y,,",
            Binding::ServerEndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// As the proof covers it.
    fn encoded(&self) -> String {
        let mut bytes = self.gs2_header().as_bytes().to_vec();
        if let Binding::ServerEndPoint(hash) = self {
            bytes.extend_from_slice(hash);
        }
        STANDARD.encode(bytes)
    }
}

/// A login that has begun: our first message is made.
#[derive(Debug)]
pub struct Opened {
    binding: Binding,
    nonce: String,
}

/// The server has answered: what the proof is to be derived with.
#[derive(Debug)]
pub struct Challenged {
    pub salt: Vec<u8>,
    pub iterations: u32,
    /// All that the proof covers.
    covered: String,
    /// Our last message up to the proof.
    last: String,
}

/// The proof is sent; the server owes its own.
#[derive(Debug)]
pub struct Proved {
    expected: [u8; KEY_BYTES],
}

impl Opened {
    /// With a fresh nonce.
    #[must_use]
    pub fn new(binding: Binding) -> Opened {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        Opened {
            binding,
            nonce: STANDARD.encode(nonce),
        }
    }

    /// The message to be sent first. PostgreSQL takes the user from the start-up message, so none is named.
    #[must_use]
    pub fn message(&self) -> String {
        format!("{}{}", self.binding.gs2_header(), self.bare())
    }

    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// Takes the server's first message.
    ///
    /// # Errors
    /// [`ScramError`], when it is none that answers ours.
    pub fn challenged(self, message: &[u8]) -> Result<Challenged, ScramError> {
        const MALFORMED: ScramError = ScramError::Malformed("first");
        let text = std::str::from_utf8(message).map_err(|_| MALFORMED)?;
        let mut parts = text.split(',');
        let mut part = |name: &str| parts.next()?.strip_prefix(name);
        let (Some(nonce), Some(salt), Some(iterations)) = (part("r="), part("s="), part("i="))
        else {
            return Err(MALFORMED);
        };
        if !nonce.starts_with(&self.nonce) {
            return Err(ScramError::ForeignNonce);
        }
        let iterations = iterations.parse().map_err(|_| MALFORMED)?;
        match iterations {
            0 => return Err(MALFORMED),
            1..=ITERATIONS_MAX => {}
            _ => return Err(ScramError::TooManyIterations(iterations)),
        }
        let last = format!("c={},r={nonce}", self.binding.encoded());
        Ok(Challenged {
            salt: STANDARD.decode(salt).map_err(|_| MALFORMED)?,
            iterations,
            covered: format!("{},{text},{last}", self.bare()),
            last,
        })
    }
}

impl Challenged {
    /// Our last message, with the proof. `salted` is of the password and of this salt and number of rounds.
    #[must_use]
    pub fn prove(self, salted: &Salted) -> (String, Proved) {
        let sign = |key: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            hmac::sign(&key, self.covered.as_bytes())
        };
        let stored_key = digest::digest(&digest::SHA256, &salted.client_key);
        let mut proof = salted.client_key;
        for (byte, mask) in proof.iter_mut().zip(sign(stored_key.as_ref()).as_ref()) {
            *byte ^= mask;
        }
        let message = format!("{},p={}", self.last, STANDARD.encode(proof));
        let expected = fixed(sign(&salted.server_key).as_ref());
        (message, Proved { expected })
    }
}

impl Proved {
    /// Takes the server's last message. Until then it may be anybody.
    ///
    /// # Errors
    /// [`ScramError`]: it refuses, or cannot prove that it knows the password.
    pub fn verify(self, message: &[u8]) -> Result<(), ScramError> {
        const MALFORMED: ScramError = ScramError::Malformed("last");
        let text = std::str::from_utf8(message).map_err(|_| MALFORMED)?;
        let first = text.split(',').next().unwrap_or_default();
        if let Some(error) = first.strip_prefix("e=") {
            return Err(ScramError::Refused(error.escape_default().to_string()));
        }
        let signature = first.strip_prefix("v=").ok_or(MALFORMED)?;
        let signature = STANDARD.decode(signature).map_err(|_| MALFORMED)?;
        if signature.ct_eq(&self.expected).into() {
            Ok(())
        } else {
            Err(ScramError::WrongSignature)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scram::{Exchange, Keys, ScramFailure};
    use super::*;

    const SALT: &[u8] = b"0123456789abcdef";

    /// A whole login at our own server side; `change` may falsify its messages.
    fn run(stored: &str, known: &str, change: impl Fn(String) -> String) -> Result<(), ScramError> {
        let opened = Opened::new(Binding::Impossible);
        let keys = Keys::derive(stored, SALT.to_vec());
        let (server, challenge) =
            Exchange::begin(opened.message().as_bytes(), keys, false, None).unwrap();
        let challenged = opened.challenged(change(challenge).as_bytes())?;
        let salted = Salted::derive(known, &challenged.salt, challenged.iterations);
        let (message, proved) = challenged.prove(&salted);
        let verdict = match server.finish(message.as_bytes()) {
            Ok(verdict) => verdict,
            Err(ScramFailure::WrongProof) => return Err(ScramError::Refused("proof".into())),
            Err(failure) => unreachable!("{failure:?}"),
        };
        proved.verify(change(verdict).as_bytes())
    }

    #[test]
    fn both_sides_prove_the_password_to_each_other() {
        let same = |text| text;
        let refused = Err(ScramError::Refused("proof".into()));
        assert_eq!(run("pencil", "pencil", same), Ok(()));
        assert_eq!(run("päss wörd", "päss wörd", same), Ok(()));
        // Soft hyphens say nothing, and a half-width letter is the letter (SASLprep).
        assert_eq!(run("I\u{ad}X", "IX", same), Ok(()));
        assert_eq!(run("pencil", "Pencil", same), refused);
        let forged = |text: String| match text.strip_prefix("v=") {
            Some(_) => format!("v={}", STANDARD.encode([7; KEY_BYTES])),
            None => text,
        };
        assert_eq!(run("p", "p", forged), Err(ScramError::WrongSignature));
        let short = |text: String| text.replace("v=", "v=AAAA");
        assert!(run("p", "p", short).is_err());
        let nothing = |text: String| {
            if text.starts_with("v=") {
                "v=".into()
            } else {
                text
            }
        };
        assert_eq!(run("p", "p", nothing), Err(ScramError::WrongSignature));
        let error = |text: String| text.replace("v=", "e=other-error,v=");
        assert_eq!(
            run("p", "p", error),
            Err(ScramError::Refused("other-error".into()))
        );
    }

    #[test]
    fn a_challenge_that_does_not_answer_us_is_refused() {
        let challenged = |make: &dyn Fn(&str) -> String| {
            let opened = Opened::new(Binding::Impossible);
            let text = make(&opened.nonce);
            opened.challenged(text.as_bytes()).map(|one| one.iterations)
        };
        let malformed = Err(ScramError::Malformed("first"));
        assert_eq!(challenged(&|n| format!("r={n}x,s=AAAA,i=4096")), Ok(4096));
        assert_eq!(challenged(&|n| format!("r={n}x,s=AAAA,i=0")), malformed);
        assert_eq!(challenged(&|n| format!("r={n}x,s=AAAA,i=-1")), malformed);
        assert_eq!(challenged(&|n| format!("r={n}x,s=?,i=1")), malformed);
        assert_eq!(challenged(&|n| format!("r={n}x,i=1,s=AAAA")), malformed);
        assert_eq!(challenged(&|n| format!("r={n}x,s=AAAA")), malformed);
        assert_eq!(challenged(&|_| String::new()), malformed);
        assert_eq!(
            challenged(&|_| "r=x,s=AAAA,i=1".into()),
            Err(ScramError::ForeignNonce)
        );
        let many = Err(ScramError::TooManyIterations(1_000_001));
        assert_eq!(challenged(&|n| format!("r={n}x,s=AAAA,i=1000001")), many);
    }

    #[test]
    fn what_is_bound_is_part_of_the_proof() {
        let last = |binding: Binding| {
            let opened = Opened::new(binding);
            let challenge = format!("r={}x,s=AAAA,i=1", opened.nonce);
            let challenged = opened.challenged(challenge.as_bytes()).unwrap();
            challenged.last.split(',').next().unwrap().to_owned()
        };
        assert_eq!(last(Binding::Impossible), "c=biws");
        assert_eq!(last(Binding::NotOffered), "c=eSws");
        let bound = format!("c={}", STANDARD.encode(b"p=tls-server-end-point,,hash"));
        assert_eq!(last(Binding::ServerEndPoint(b"hash".to_vec())), bound);
        let message = Opened::new(Binding::ServerEndPoint(Vec::new())).message();
        assert!(message.starts_with("p=tls-server-end-point,,n=,r="));
    }
}
