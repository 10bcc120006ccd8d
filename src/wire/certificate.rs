//! The few fields of an X.509 certificate that PostgreSQL's rules need and rustls does not give: which hash its
//! signature uses (for SCRAM's channel binding), its time of validity, and the common name of its subject.
//!
//! Reads DER (ITU-T X.690) with a total, borrowed reader; checks no signature. Whoever trusts these fields has had the
//! certificate checked, or compared byte for byte, before.

use ring::digest;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Context-specific, constructed.
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_3: u8 = 0xa3;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 1.2.840.113549.1.1: the RSA signatures.
const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const RSA_PSS: u8 = 10;
/// 1.2.840.10045.4: the ECDSA signatures.
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
/// 2.16.840.1.101.3.4.2: the hashes of the SHA-2 family.
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// The fields, borrowed from the DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate<'a> {
    der: &'a [u8],
    signature_algorithm: &'a [u8],
    validity: &'a [u8],
    subject: &'a [u8],
    pub(super) has_alternative_names: bool,
}

/// One value: its tag, its content, and what follows it.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest
            .split_first()
            .map(|(&a, rest)| (usize::from(a), rest))?,
        0x82 => {
            let (&bytes, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(bytes)), rest)
        }
        // Longer than 64 KiB, or not DER.
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The content of the next value, which must have this tag, and what follows.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = value(der)?;
    (found == tag).then_some((content, rest))
}

impl<'a> Certificate<'a> {
    pub(super) fn read(der: &'a [u8]) -> Option<Certificate<'a>> {
        let (certificate, _) = expect(der, SEQUENCE)?;
        let (signed, rest) = expect(certificate, SEQUENCE)?;
        let (signature_algorithm, _) = expect(rest, SEQUENCE)?;
        // version [0] is left out of certificates of version 1
        let rest = expect(signed, CONTEXT_0).map_or(signed, |(_, rest)| rest);
        let (_, _serial, rest) = value(rest)?;
        let (_algorithm, rest) = expect(rest, SEQUENCE)?;
        let (_issuer, rest) = expect(rest, SEQUENCE)?;
        let (validity, rest) = expect(rest, SEQUENCE)?;
        let (subject, rest) = expect(rest, SEQUENCE)?;
        Some(Certificate {
            der,
            signature_algorithm,
            validity,
            subject,
            has_alternative_names: has_extension(rest, SUBJECT_ALT_NAME),
        })
    }

    /// The certificate's hash for `tls-server-end-point` (RFC 5929): by the hash of its signature, or SHA-256 where
    /// that is MD5 or SHA-1; `None` for signatures without a hash of their own, such as Ed25519.
    pub(super) fn end_point_hash(&self) -> Option<Vec<u8>> {
        let algorithm = signature_hash(self.signature_algorithm)?;
        Some(digest::digest(algorithm, self.der).as_ref().to_vec())
    }

    /// Whether `now`, in seconds since 1970, lies within the certificate's time.
    pub(super) fn is_valid_at(&self, now: u64) -> bool {
        let Some((tag, content, rest)) = value(self.validity) else {
            return false;
        };
        let Some((tag_after, content_after, _)) = value(rest) else {
            return false;
        };
        match (seconds(tag, content), seconds(tag_after, content_after)) {
            (Some(from), Some(to)) => (from..=to).contains(&now),
            _ => false,
        }
    }

    /// The last common name of the subject.
    pub(super) fn common_name(&self) -> Option<&'a str> {
        let mut found = None;
        let mut rest = self.subject;
        while let Some((set, after)) = expect(rest, SET) {
            rest = after;
            let Some((pair, _)) = expect(set, SEQUENCE) else {
                continue;
            };
            let Some((COMMON_NAME, text)) = expect(pair, OBJECT_ID) else {
                continue;
            };
            let Some((_, text, _)) = value(text) else {
                continue;
            };
            found = std::str::from_utf8(text).ok().or(found);
        }
        found
    }

    /// libpq's rule for a certificate without alternative names: the common name is the host, or a wildcard for its
    /// first label.
    pub(super) fn common_name_matches(&self, host: &str) -> bool {
        let Some(name) = self.common_name() else {
            return false;
        };
        let Some(suffix) = name.strip_prefix('*') else {
            return name.eq_ignore_ascii_case(host);
        };
        match host.find('.').and_then(|dot| host.get(dot..)) {
            Some(domain) => suffix.starts_with('.') && domain.eq_ignore_ascii_case(suffix),
            None => false,
        }
    }
}

fn has_extension(after_subject: &[u8], wanted: &[u8]) -> bool {
    let mut rest = after_subject;
    while let Some((tag, content, after)) = value(rest) {
        rest = after;
        if tag != CONTEXT_3 {
            continue;
        }
        let Some((mut extensions, _)) = expect(content, SEQUENCE) else {
            return false;
        };
        while let Some((extension, after)) = expect(extensions, SEQUENCE) {
            extensions = after;
            if expect(extension, OBJECT_ID).is_some_and(|(id, _)| id == wanted) {
                return true;
            }
        }
    }
    false
}

fn signature_hash(algorithm: &[u8]) -> Option<&'static digest::Algorithm> {
    let (id, parameters) = expect(algorithm, OBJECT_ID)?;
    let (&last, family) = id.split_last()?;
    match (family, last) {
        (PKCS1, RSA_PSS) => pss_hash(parameters),
        // MD5 and SHA-1 are replaced by SHA-256, by the RFC.
        (PKCS1, 4 | 5 | 11) => Some(&digest::SHA256),
        (PKCS1, 12) => Some(&digest::SHA384),
        (PKCS1, 13) => Some(&digest::SHA512),
        (ECDSA, 1) => Some(&digest::SHA256),
        _ => match (family.strip_prefix(ECDSA), last) {
            (Some([3]), 2) => Some(&digest::SHA256),
            (Some([3]), 3) => Some(&digest::SHA384),
            (Some([3]), 4) => Some(&digest::SHA512),
            _ => None,
        },
    }
}

/// RSASSA-PSS names its hash in its parameters (RFC 4055); SHA-1 where it does not.
fn pss_hash(parameters: &[u8]) -> Option<&'static digest::Algorithm> {
    let (parameters, _) = expect(parameters, SEQUENCE)?;
    let Some((hash, _)) = expect(parameters, CONTEXT_0) else {
        return Some(&digest::SHA256);
    };
    let (hash, _) = expect(hash, SEQUENCE)?;
    let (id, _) = expect(hash, OBJECT_ID)?;
    match id.strip_prefix(SHA2) {
        Some([1]) => Some(&digest::SHA256),
        Some([2]) => Some(&digest::SHA384),
        Some([3]) => Some(&digest::SHA512),
        _ => None,
    }
}

/// A time of a certificate in seconds since 1970 (RFC 5280: always in UTC, always with seconds).
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = text.split_at_checked(2)?;
            let year = year.parse::<u64>().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let mut fields = [0_u64; 5];
    for (index, field) in fields.iter_mut().enumerate() {
        *field = rest.get(index * 2..index * 2 + 2)?.parse().ok()?;
    }
    let [month, day, hour, minute, second] = fields;
    let days = days_since_1970(year, month, day)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days of the Gregorian calendar; `None` before 1970 or outside of it.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years counted from March, so that the leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let from_march = (153 * month + 2) / 5 + day - 1;
    // Days from March of year 0 to 1970-01-01.
    (year * 365 + leap_days + from_march).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_rfc_writes_them() {
        let table: &[(u8, &str, Option<u64>)] = &[
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "000301000000Z", Some(951_868_800)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (GENERALIZED_TIME, "20501231235959Z", Some(2_556_143_999)),
            (GENERALIZED_TIME, "20240229120000Z", Some(1_709_208_000)),
            (UTC_TIME, "500101000000Z", None),
            (UTC_TIME, "7001010000Z", None),
            (UTC_TIME, "700101000000+0100", None),
            (UTC_TIME, "7013010000000Z", None),
            (GENERALIZED_TIME, "", None),
        ];
        for (tag, text, expected) in table {
            assert_eq!(seconds(*tag, text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn der_that_ends_too_early_or_lies_about_its_length_is_no_certificate() {
        for der in [
            &b""[..],
            b"\x30",
            b"\x30\x05\x00",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x82\x01",
        ] {
            assert_eq!(Certificate::read(der), None);
        }
    }
}
