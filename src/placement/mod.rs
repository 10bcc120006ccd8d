//! Where a row lives: key value → PostgreSQL's partition hash → bucket → shard. Pure.
//!
//! The hash is PostgreSQL's own, so any server can say in SQL which bucket a row is in; the map from buckets to shards
//! is explicit data with an epoch. See `docs/placement.md`.

use std::sync::Arc;

use crate::names::ShardId;

/// The types whose values can be hashed here without asking a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    Int2,
    Int4,
    Int8,
    /// text and varchar under a deterministic collation, in the server encoding.
    Text,
    Uuid,
}

/// One value of a sharding key, in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyValue {
    Int(i64),
    Text(Vec<u8>),
    Uuid([u8; 16]),
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub u16);

/// Which shard holds each bucket, at one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub cluster_id: String,
    pub epoch: u64,
    /// `shards[bucket]`; a power of two long.
    pub shards: Arc<[ShardId]>,
}

/// What the bytes of a key value turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    Value(KeyValue),
    /// The type's input function would raise an error: any shard will raise it.
    Invalid,
}

impl KeyType {
    /// PostgreSQL's input semantics of the type for a text value (a literal or a text-format parameter).
    #[must_use]
    pub fn from_text(self, text: &[u8]) -> Decoded {
        let _ = text;
        Decoded::Invalid
    }

    /// The type's binary receive format.
    #[must_use]
    pub fn from_binary(self, bytes: &[u8]) -> Decoded {
        let _ = bytes;
        Decoded::Invalid
    }
}

impl Placement {
    #[must_use]
    pub fn bucket(&self, value: &KeyValue) -> Bucket {
        let _ = value;
        Bucket(0)
    }

    #[must_use]
    pub fn shard(&self, value: &KeyValue) -> ShardId {
        let _ = value;
        ShardId(0)
    }
}
