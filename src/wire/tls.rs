//! TLS by rustls, as a server towards clients ([`Acceptor`]) and as a client towards servers ([`Connector`]), with the
//! checks that libpq's `sslmode` promises (<https://www.postgresql.org/docs/current/libpq-ssl.html>).
//!
//! Does not know who asks for TLS or when; see `startup` for clients and `backend::connect` for servers. What would
//! surprise: as libpq, a server's certificate that *is* one of the trusted certificates is accepted although it signs
//! itself, and a certificate without alternative names is matched by its common name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::certificate::Certificate;
use super::helpers::Helpers;
use super::scram::ChannelBinding;
use super::stream::Stream;
use crate::error::{Blame, Report, SqlState};

/// The protocol that both sides name when they speak TLS at once (ALPN; registered with IANA).
const ALPN: &[u8] = b"postgresql";

/// Where systems keep the authorities that they trust; the first that exists is `sslrootcert=system`.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is wrong with a TLS file, or with a handshake. The text names files: for the operator, not for clients.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{} holds no PEM certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} holds no PEM private key", path.display())]
    NoKey { path: PathBuf },
    #[error("the certificate and the key cannot be used: {0}")]
    Unusable(rustls::Error),
    #[error("verification needs a root certificate (sslrootcert)")]
    NoRoot,
    #[error("{0:?} is no host name that a certificate can name")]
    BadHost(String),
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    #[error("the peer began TLS without naming the protocol postgresql")]
    NoProtocolNamed,
}

/// A failed handshake as it may be told to a client.
impl Report for TlsError {
    fn sqlstate(&self) -> SqlState {
        match self {
            TlsError::Handshake(_) | TlsError::NoProtocolNamed => SqlState::PROTOCOL_VIOLATION,
            _ => SqlState::CONFIG_FILE_ERROR,
        }
    }
    fn blame(&self) -> Blame {
        match self {
            TlsError::Handshake(_) | TlsError::NoProtocolNamed => Blame::Client,
            _ => Blame::Proxy,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Unreadable {
        path: path.to_owned(),
        error,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let found: Vec<_> = rustls_pemfile::certs(&mut pem.as_slice())
        .filter_map(Result::ok)
        .collect();
    if found.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path)?;
    match rustls_pemfile::private_key(&mut pem.as_slice()) {
        Ok(Some(key)) => Ok(key),
        _ => Err(TlsError::NoKey {
            path: path.to_owned(),
        }),
    }
}

/// TLS towards clients. Cheap to clone; a reload makes a new one and connections keep theirs.
///
/// A client that comes again may resume its session (pgjdbc, Go and Node can; libpq does not) by a ticket in which it
/// keeps the session for us, so no worker remembers anything. The keys of the tickets belong to this one certificate:
/// who resumes binds its password (SCRAM-SHA-256-PLUS) to the certificate that it saw at first, so with another
/// certificate there must be a whole handshake.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    helpers: Helpers,
    binding: Option<ChannelBinding>,
}

impl Acceptor {
    /// Reads the certificate chain, leaf first, and its key. Handshakes will be done by `helpers`.
    ///
    /// # Errors
    /// [`TlsError`], when a file cannot be read or the two do not fit.
    pub fn load(
        cert_file: &Path,
        key_file: &Path,
        helpers: &Helpers,
    ) -> Result<Acceptor, TlsError> {
        let chain = certificates(cert_file)?;
        let key = private_key(key_file)?;
        let binding = chain
            .first()
            .and_then(|leaf| ChannelBinding::of_certificate(leaf));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsError::Unusable)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Unusable)?;
        // It may be shown more than once, and each login that resumes gets a new one.
        config.send_tls13_tickets = 1;
        Ok(Acceptor {
            tls: TlsAcceptor::from(Arc::new(config)),
            helpers: helpers.clone(),
            binding,
        })
    }

    /// What SCRAM-SHA-256-PLUS binds to; `None` where the certificate's signature has no hash.
    pub fn channel_binding(&self) -> Option<&ChannelBinding> {
        self.binding.as_ref()
    }

    /// Does the handshake. A client that began TLS without an SSLRequest has sent its beginning already (`direct`), and
    /// must name the protocol.
    ///
    /// # Errors
    /// [`TlsError::Handshake`] and [`TlsError::NoProtocolNamed`]; the connection is closed then.
    pub async fn accept(&self, tcp: TcpStream, direct: Option<&[u8]>) -> Result<Stream, TlsError> {
        let acceptor = self.tls.clone();
        let beginning = direct.map(<[u8]>::to_vec).unwrap_or_default();
        let handshake = self.helpers.shake_hands(tcp, |tcp| async move {
            let begun = acceptor.accept_with(tcp, |connection| {
                // Nothing at all would be the end of the stream. A slice can be read.
                if !beginning.is_empty() {
                    let _ = connection.read_tls(&mut beginning.as_slice());
                }
            });
            Ok(Stream::TlsServer(Box::new(begun.await?)))
        });
        let stream = handshake.await.map_err(TlsError::Handshake)?;
        match &stream {
            Stream::TlsServer(tls)
                if direct.is_some() && tls.get_ref().1.alpn_protocol() != Some(ALPN) =>
            {
                Err(TlsError::NoProtocolNamed)
            }
            _ => Ok(stream),
        }
    }
}

/// How much of a server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// Nothing: the connection is encrypted, with whomever.
    None,
    /// It leads to a trusted authority (`verify-ca`).
    Chain,
    /// The same, and it names the host (`verify-full`).
    Full,
}

/// TLS towards servers: what one connection string says, read once. Cheap to clone.
///
/// All connections of a connection string share one memory of sessions and resume them where the server can: other
/// proxies may, PostgreSQL never does (it switches off both its cache and its tickets). The certificate was checked when
/// the session began, by the same rules, and is the one that a resumed session's login binds to.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    helpers: Helpers,
}

impl Connector {
    /// Reads the files. `root_cert` is a file of trusted certificates or the word `system`; `client_cert` a chain and
    /// its key. Handshakes will be done by `helpers`.
    ///
    /// # Errors
    /// [`TlsError`], when a file is missing, cannot be read or does not hold what it should.
    pub fn load(
        verification: Verification,
        root_cert: Option<&Path>,
        client_cert: Option<(&Path, &Path)>,
        helpers: &Helpers,
    ) -> Result<Connector, TlsError> {
        let provider = provider();
        let verifier = Verifier {
            verification,
            roots: roots(verification, root_cert)?,
            algorithms: provider.signature_verification_algorithms,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match client_cert {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(certificates(chain)?, private_key(key)?)
                .map_err(TlsError::Unusable)?,
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Connector {
            tls: TlsConnector::from(Arc::new(config)),
            helpers: helpers.clone(),
        })
    }

    /// Does the handshake on a connection whose server has agreed to TLS. `host` is a name or an address.
    ///
    /// # Errors
    /// [`TlsError::Handshake`], which also carries a refused certificate, and [`TlsError::BadHost`].
    pub async fn connect(&self, tcp: TcpStream, host: &str) -> Result<Stream, TlsError> {
        let (connector, name) = (self.tls.clone(), server_name(host)?);
        let handshake = self.helpers.shake_hands(tcp, |tcp| async move {
            let tls = connector.connect(name, tcp).await?;
            Ok(Stream::TlsClient(Box::new(tls)))
        });
        handshake.await.map_err(TlsError::Handshake)
    }

    /// The same over a carrier that somebody else has opened (the control plane's), on the thread that calls.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_over<S>(
        &self,
        carrier: S,
        host: &str,
    ) -> Result<tokio_rustls::client::TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = self.tls.connect(server_name(host)?, carrier);
        handshake.await.map_err(TlsError::Handshake)
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost(host.to_owned()))
}

/// The hash of the server's certificate that SCRAM-SHA-256-PLUS binds to (`tls-server-end-point`); `None` without TLS
/// or where the certificate's signature has no hash.
pub fn server_end_point(stream: &Stream) -> Option<Vec<u8>> {
    let Stream::TlsClient(tls) = stream else {
        return None;
    };
    let leaf = tls.get_ref().1.peer_certificates()?.first()?;
    Certificate::read(leaf)?.end_point_hash()
}

struct Roots {
    store: Arc<RootCertStore>,
    /// The same as they are: a server may present one of them itself.
    certificates: Vec<CertificateDer<'static>>,
}

fn roots(verification: Verification, root_cert: Option<&Path>) -> Result<Roots, TlsError> {
    let mut store = RootCertStore::empty();
    let certificates = match (verification, root_cert) {
        (Verification::None, _) => Vec::new(),
        (_, None) => return Err(TlsError::NoRoot),
        (_, Some(path)) if path == Path::new("system") => certificates(system_roots()?)?,
        (_, Some(path)) => certificates(path)?,
    };
    // Certificates that webpki does not take as authorities (old versions) can still be presented as they are.
    store.add_parsable_certificates(certificates.iter().cloned());
    Ok(Roots {
        store: Arc::new(store),
        certificates,
    })
}

fn system_roots() -> Result<&'static Path, TlsError> {
    SYSTEM_ROOTS
        .iter()
        .map(Path::new)
        .find(|path| path.exists())
        .ok_or(TlsError::NoRoot)
}

struct Verifier {
    verification: Verification,
    roots: Roots,
    algorithms: WebPkiSupportedAlgorithms,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({:?})", self.verification)
    }
}

impl Verifier {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self
            .roots
            .certificates
            .iter()
            .any(|root| root.as_ref() == leaf.as_ref())
        {
            return verify_trusted_leaf(leaf, now);
        }
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots.store,
            intermediates,
            now,
            self.algorithms.all,
        )
    }
}

/// A leaf that is itself trusted needs no signature, but it must not have expired.
fn verify_trusted_leaf(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    match Certificate::read(leaf) {
        None => Err(CertificateError::BadEncoding.into()),
        Some(leaf) if !leaf.is_valid_at(now.as_secs()) => Err(CertificateError::Expired.into()),
        Some(_) => Ok(()),
    }
}

fn verify_host(leaf: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<(), rustls::Error> {
    let Some(fields) = Certificate::read(leaf) else {
        return Err(CertificateError::BadEncoding.into());
    };
    if fields.has_alternative_names {
        return verify_server_name(&ParsedCertificate::try_from(leaf)?, host);
    }
    if fields.common_name_matches(&host.to_str()) {
        return Ok(());
    }
    Err(CertificateError::NotValidForName.into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.verification {
            Verification::None => {}
            Verification::Chain => self.verify_chain(leaf, intermediates, now)?,
            Verification::Full => {
                self.verify_chain(leaf, intermediates, now)?;
                verify_host(leaf, host)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
