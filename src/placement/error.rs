//! What can be wrong with a map of buckets. Knows nothing of where the map was read.

use crate::error::{Blame, Report, SqlState};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error("a placement has a power of two between 1024 and 16384 buckets, not {count}")]
    BucketCount { count: usize },
    #[error(
        "bucket {bucket} is placed on shard number {shard}, but there are {shard_count} shards"
    )]
    UnknownShard {
        bucket: u16,
        shard: u16,
        shard_count: usize,
    },
    #[error("a database has between 1 shard and one for each bucket, not {count}")]
    ShardCount { count: usize },
}

impl Report for PlacementError {
    fn sqlstate(&self) -> SqlState {
        SqlState::CONFIG_FILE_ERROR
    }
    fn blame(&self) -> Blame {
        Blame::Proxy
    }
}
