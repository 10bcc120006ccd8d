//! An authority that signs certificates of the kinds that PostgreSQL's users have, in a folder of its own.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, SignatureAlgorithm, date_time_ymd,
};

/// Removed when dropped.
pub struct Certificates {
    folder: PathBuf,
    authority: Issuer<'static, KeyPair>,
}

/// A chain and its key, in PEM.
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a certificate says and who signed it.
#[derive(Clone, Copy)]
pub struct Kind<'a> {
    pub common_name: &'a str,
    /// Alternative names; none leaves the extension out.
    pub names: &'a [&'a str],
    pub self_signed: bool,
    pub expired: bool,
}

impl Kind<'_> {
    pub const LOCALHOST: Kind<'static> = Kind {
        common_name: "a server",
        names: &["localhost"],
        self_signed: false,
        expired: false,
    };
}

fn params(kind: Kind<'_>) -> CertificateParams {
    let names: Vec<String> = kind.names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, kind.common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = if kind.expired {
        date_time_ymd(2021, 1, 1)
    } else {
        date_time_ymd(2120, 1, 1)
    };
    if kind.self_signed {
        // As `openssl req -x509` makes them.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

impl Certificates {
    /// With an authority whose keys are of this kind; it decides the hash of all signatures.
    pub fn signed_with(algorithm: &'static SignatureAlgorithm) -> Certificates {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pgherd-certificates-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        let key = KeyPair::generate_for(algorithm).unwrap();
        let root = Kind {
            common_name: "an authority",
            names: &[],
            self_signed: true,
            expired: false,
        };
        let root = params(root);
        let cert = root.self_signed(&key).unwrap();
        fs::write(folder.join("root.crt"), cert.pem()).unwrap();
        Certificates {
            folder,
            authority: Issuer::new(root, key),
        }
    }

    pub fn new() -> Certificates {
        Certificates::signed_with(&PKCS_ECDSA_P256_SHA256)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn root(&self) -> PathBuf {
        self.folder.join("root.crt")
    }

    pub fn make(&self, file: &str, kind: Kind<'_>) -> Pair {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let params = params(kind);
        let cert = if kind.self_signed {
            params.self_signed(&key).unwrap()
        } else {
            params.signed_by(&key, &self.authority).unwrap()
        };
        let pair = Pair {
            cert: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        fs::write(&pair.cert, cert.pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
