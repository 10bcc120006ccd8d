//! A client that sends bytes and reads frames, independent of the proxy's own codec.
//!
//! Replies print as short transcripts (`T(id) D(7) C(SELECT 1) Z(I)`), so that a conversation can be compared with
//! one string.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::PATIENCE;

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

pub struct Client {
    stream: Box<dyn Stream>,
    /// Process id and secret of BackendKeyData.
    pub cancel_key: Vec<u8>,
    /// ParameterStatus as last told.
    pub parameters: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub body: Vec<u8>,
}

/// What one simple query, or one series up to Sync, was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply(pub Vec<Frame>);

impl Client {
    pub fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client::over(stream)
    }

    pub fn connect_unix(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client::over(stream)
    }

    /// Over any stream (a TLS one, say); set its read timeout before.
    pub fn over(stream: impl Stream + 'static) -> Client {
        Client {
            stream: Box::new(stream),
            cancel_key: Vec::new(),
            parameters: std::collections::BTreeMap::new(),
        }
    }

    /// Start-up and authentication up to the first ReadyForQuery; panics on an error.
    pub fn login(&mut self, parameters: &[(&str, &str)], password: &str) {
        let reply = self.try_login(parameters, password);
        assert!(
            reply.0.last().is_some_and(|frame| frame.tag == b'Z'),
            "login failed: {reply}"
        );
    }

    /// The same; the reply ends with ReadyForQuery or with the error.
    pub fn try_login(&mut self, parameters: &[(&str, &str)], password: &str) -> Reply {
        let user = parameters
            .iter()
            .find(|(name, _)| *name == "user")
            .map_or("", |(_, user)| user);
        self.send(&startup(0x0003_0000, parameters));
        let mut scram = None;
        let mut frames = Vec::new();
        loop {
            let frame = self.frame();
            if frame.tag == b'R' {
                self.authenticate(&frame, user, password, &mut scram);
            }
            let ends = matches!(frame.tag, b'Z' | b'E');
            frames.push(frame);
            if ends {
                return Reply(frames);
            }
        }
    }

    fn authenticate(
        &mut self,
        frame: &Frame,
        user: &str,
        password: &str,
        scram: &mut Option<ScramSha256>,
    ) {
        let (kind, data) = frame.body.split_at(4);
        match kind[3] {
            3 => self.send(&message(b'p', &string(password))),
            5 => {
                let hash = md5_hash(
                    user.as_bytes(),
                    password.as_bytes(),
                    data.try_into().unwrap(),
                );
                self.send(&message(b'p', &string(&hash)));
            }
            10 => {
                let client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                let mut body = string("SCRAM-SHA-256");
                body.extend(i32::try_from(client.message().len()).unwrap().to_be_bytes());
                body.extend(client.message());
                self.send(&message(b'p', &body));
                *scram = Some(client);
            }
            11 => {
                let client = scram.as_mut().expect("SASLContinue without SASL");
                client.update(data).unwrap();
                let body = client.message().to_vec();
                self.send(&message(b'p', &body));
            }
            12 => scram
                .as_mut()
                .expect("SASLFinal without SASL")
                .finish(data)
                .unwrap(),
            0 => {}
            other => panic!("authentication request {other} is unknown"),
        }
    }

    /// Bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The same, where the other end may be gone.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// One raw byte, as the answer to an SSLRequest is.
    pub fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    pub fn frame(&mut self) -> Frame {
        self.try_frame()
            .unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// An error of kind `UnexpectedEof` when the other end has closed.
    pub fn try_frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        assert!(
            (4..1 << 30).contains(&length),
            "a frame {:?} of length {length}",
            char::from(head[0])
        );
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body)?;
        let frame = Frame { tag: head[0], body };
        match frame.tag {
            b'S' => {
                let mut words = frame.strings();
                self.parameters.insert(
                    words.next().unwrap_or_default(),
                    words.next().unwrap_or_default(),
                );
            }
            b'K' => self.cancel_key.clone_from(&frame.body),
            _ => {}
        }
        Ok(frame)
    }

    /// All frames up to and with ReadyForQuery.
    pub fn reply(&mut self) -> Reply {
        self.until(b'Z')
    }

    /// All frames up to and with one of this tag.
    pub fn until(&mut self, tag: u8) -> Reply {
        let mut frames = Vec::new();
        loop {
            let frame = match self.try_frame() {
                Ok(frame) => frame,
                Err(error) => panic!("no answer: {error}; so far: {}", Reply(frames)),
            };
            let ends = frame.tag == tag;
            frames.push(frame);
            if ends {
                return Reply(frames);
            }
        }
    }

    /// Whether the other end closes (after any number of frames).
    pub fn is_closed(&mut self) -> bool {
        loop {
            match self.try_frame() {
                Ok(_) => {}
                Err(error) => {
                    return matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::BrokenPipe
                    );
                }
            }
        }
    }

    /// A simple query.
    pub fn query(&mut self, sql: &str) -> Reply {
        self.send(&query(sql));
        self.reply()
    }

    /// The server process that answers.
    pub fn server_pid(&mut self) -> String {
        self.query("SELECT pg_backend_pid()").lines()[0].clone()
    }

    /// Unnamed Parse, Bind, Describe, Execute, Sync with text parameters and text results.
    pub fn run(&mut self, sql: &str, parameters: &[Option<&str>]) -> Reply {
        let parameters: Vec<_> = parameters
            .iter()
            .map(|value| value.map(str::as_bytes))
            .collect();
        let mut bytes = parse("", sql, &[]);
        bytes.extend(bind("", "", &parameters));
        bytes.extend(describe(b'P', ""));
        bytes.extend(execute("", 0));
        bytes.extend(sync());
        self.send(&bytes);
        self.reply()
    }
}

impl Frame {
    /// The zero-terminated strings at its beginning.
    pub fn strings(&self) -> impl Iterator<Item = String> {
        self.body
            .split(|byte| *byte == 0)
            .map(|part| String::from_utf8_lossy(part).into_owned())
    }

    /// A field of an error or a notice: `C` SQLSTATE, `M` message, `D` detail, `H` hint.
    pub fn field(&self, code: u8) -> Option<String> {
        self.strings()
            .find(|field| field.as_bytes().first() == Some(&code))
            .map(|field| field[1..].to_owned())
    }

    /// The columns of a DataRow.
    pub fn columns(&self) -> Vec<Option<Vec<u8>>> {
        let mut rest = &self.body[2..];
        (0..u16::from_be_bytes(self.body[..2].try_into().unwrap()))
            .map(|_| {
                let (length, after) = rest.split_at(4);
                rest = after;
                let length = i32::from_be_bytes(length.try_into().unwrap());
                (length >= 0).then(|| {
                    let (value, after) = rest.split_at(usize::try_from(length).unwrap());
                    rest = after;
                    value.to_vec()
                })
            })
            .collect()
    }

    /// The names in a RowDescription.
    pub fn names(&self) -> Vec<String> {
        let mut rest = &self.body[2..];
        (0..u16::from_be_bytes(self.body[..2].try_into().unwrap()))
            .map(|_| {
                let end = rest.iter().position(|byte| *byte == 0).unwrap();
                let name = String::from_utf8_lossy(&rest[..end]).into_owned();
                rest = &rest[end + 1 + 18..];
                name
            })
            .collect()
    }
}

impl Reply {
    /// The rows as text.
    pub fn rows(&self) -> Vec<Vec<Option<String>>> {
        let text = |value: Option<Vec<u8>>| {
            value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        self.of(b'D')
            .map(|frame| frame.columns().into_iter().map(text).collect())
            .collect()
    }

    /// The rows as `a|b` lines in order, NULL as nothing.
    pub fn lines(&self) -> Vec<String> {
        let line = |row: &Vec<Option<String>>| {
            row.iter()
                .map(|value| value.clone().unwrap_or_default())
                .collect::<Vec<_>>()
                .join("|")
        };
        self.rows().iter().map(line).collect()
    }

    /// SQLSTATE of the first error.
    pub fn sqlstate(&self) -> Option<String> {
        self.of(b'E').next().and_then(|frame| frame.field(b'C'))
    }

    /// Command tags, in order.
    pub fn tags(&self) -> Vec<String> {
        self.of(b'C')
            .filter_map(|frame| frame.strings().next())
            .collect()
    }

    pub fn of(&self, tag: u8) -> impl Iterator<Item = &Frame> {
        self.0.iter().filter(move |frame| frame.tag == tag)
    }

    /// Panics with the transcript if there was an error.
    #[track_caller]
    pub fn ok(self) -> Reply {
        assert!(self.sqlstate().is_none(), "{self}");
        self
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&words.join(" "))
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = char::from(self.tag);
        match self.tag {
            b'R' => write!(f, "R({})", self.body.get(3).copied().unwrap_or_default()),
            b'S' => {
                let words: Vec<_> = self.strings().take(2).collect();
                write!(f, "S({})", words.join("="))
            }
            b'Z' => write!(f, "Z({})", char::from(self.body[0])),
            b'C' => write!(f, "C({})", self.strings().next().unwrap_or_default()),
            b'T' => write!(f, "T({})", self.names().join(",")),
            b'D' => {
                let text = |value: &Option<Vec<u8>>| {
                    value.as_ref().map_or("NULL".to_owned(), |bytes| {
                        String::from_utf8_lossy(bytes).into_owned()
                    })
                };
                write!(
                    f,
                    "D({})",
                    self.columns()
                        .iter()
                        .map(text)
                        .collect::<Vec<_>>()
                        .join(",")
                )
            }
            b'E' | b'N' => {
                let field = |code| self.field(code).unwrap_or_default();
                write!(f, "{tag}({} {})", field(b'C'), field(b'M'))
            }
            _ => write!(f, "{tag}"),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Messages, as bytes.

/// A message with its length.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(string(name));
        body.extend(string(value));
    }
    body.push(0);
    untagged(&body)
}

pub fn ssl_request() -> Vec<u8> {
    untagged(&80_877_103_u32.to_be_bytes())
}

/// `key` is the body of BackendKeyData ([`Client::cancel_key`]).
pub fn cancel_request(key: &[u8]) -> Vec<u8> {
    let mut body = 80_877_102_u32.to_be_bytes().to_vec();
    body.extend(key);
    untagged(&body)
}

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &string(sql))
}

pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = string(name);
    body.extend(string(sql));
    body.extend(count(types.len()));
    for oid in types {
        body.extend(oid.to_be_bytes());
    }
    message(b'P', &body)
}

/// Text parameters, text results.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&[u8]>]) -> Vec<u8> {
    bind_as(portal, statement, &[], parameters, &[])
}

/// With format codes (0 text, 1 binary) for parameters and results.
pub fn bind_as(
    portal: &str,
    statement: &str,
    formats: &[i16],
    parameters: &[Option<&[u8]>],
    results: &[i16],
) -> Vec<u8> {
    let mut body = string(portal);
    body.extend(string(statement));
    body.extend(count(formats.len()));
    for format in formats {
        body.extend(format.to_be_bytes());
    }
    body.extend(count(parameters.len()));
    for value in parameters {
        let length = value.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap());
        body.extend(length.to_be_bytes());
        body.extend(value.unwrap_or_default());
    }
    body.extend(count(results.len()));
    for format in results {
        body.extend(format.to_be_bytes());
    }
    message(b'B', &body)
}

/// `kind`: `S` a statement, `P` a portal.
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    named(b'D', kind, name)
}

/// `kind`: `S` a statement, `P` a portal.
pub fn close(kind: u8, name: &str) -> Vec<u8> {
    named(b'C', kind, name)
}

pub fn execute(portal: &str, rows_max: i32) -> Vec<u8> {
    let mut body = string(portal);
    body.extend(rows_max.to_be_bytes());
    message(b'E', &body)
}

pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

pub fn flush() -> Vec<u8> {
    message(b'H', &[])
}

pub fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

pub fn copy_data(bytes: &[u8]) -> Vec<u8> {
    message(b'd', bytes)
}

pub fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

fn named(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend(string(name));
    message(tag, &body)
}

fn untagged(body: &[u8]) -> Vec<u8> {
    message(0, body).split_off(1)
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn count(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap().to_be_bytes()
}
