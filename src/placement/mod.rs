//! Where a row lives: key value → PostgreSQL's partition hash → bucket → shard. Pure.
//!
//! The hash is PostgreSQL's own, so any server can say in SQL which bucket a row is in; the map from buckets to shards
//! is explicit data with an epoch. See `docs/placement.md`.
//!
//! What would surprise: nothing here computes the map of a running system. The ring only *proposes* a first map (and
//! the moves when shards are added); from then on the map is read from the shards.

pub mod array;
mod error;
mod hash;
mod key;
mod ring;
pub mod sql;

pub use error::PlacementError;
pub use hash::row_hash;
pub use key::{Decoded, KeyType, KeyValue};
pub use ring::{Move, plan_growth, propose};

use std::sync::Arc;

use crate::names::ShardId;

/// Buckets of a database that is initialised today. Fixed for the life of the database.
pub const BUCKETS_DEFAULT: usize = 4096;
pub const BUCKETS_MIN: usize = 1024;
pub const BUCKETS_MAX: usize = 16384;

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

impl Placement {
    /// A placement whose map was checked: a power of two between [`BUCKETS_MIN`] and [`BUCKETS_MAX`] long, and every
    /// bucket on one of `shard_count` shards.
    ///
    /// # Errors
    /// A [`PlacementError`] that says which of the two does not hold.
    pub fn new(
        cluster_id: impl Into<String>,
        epoch: u64,
        shards: Vec<ShardId>,
        shard_count: usize,
    ) -> Result<Self, PlacementError> {
        check_bucket_count(shards.len())?;
        for (shard, bucket) in shards.iter().zip(0u16..) {
            if shard.index() >= shard_count {
                return Err(PlacementError::UnknownShard {
                    bucket,
                    shard: shard.0,
                    shard_count,
                });
            }
        }
        Ok(Self {
            cluster_id: cluster_id.into(),
            epoch,
            shards: shards.into(),
        })
    }

    /// The bucket of a row whose sharding key is this one column.
    #[inline]
    #[must_use]
    pub fn bucket(&self, value: &KeyValue) -> Bucket {
        self.bucket_of_hash(hash::row_hash_of_one(value))
    }

    /// The bucket of a row whose sharding key is several columns, in the order of the key.
    #[must_use]
    pub fn bucket_of_row(&self, values: &[KeyValue]) -> Bucket {
        self.bucket_of_hash(row_hash(values))
    }

    /// The shard of a row whose sharding key is this one column.
    #[inline]
    #[must_use]
    pub fn shard(&self, value: &KeyValue) -> ShardId {
        self.shard_of(self.bucket(value))
    }

    /// The shard that holds a bucket. A bucket number beyond the map wraps, as the hash does.
    #[inline]
    #[must_use]
    pub fn shard_of(&self, bucket: Bucket) -> ShardId {
        let index = usize::from(bucket.0) & self.shards.len().wrapping_sub(1);
        self.shards.get(index).copied().unwrap_or(ShardId(0))
    }

    #[inline]
    fn bucket_of_hash(&self, hash: u64) -> Bucket {
        let mask = (self.shards.len() as u64).wrapping_sub(1);
        // The map is at most BUCKETS_MAX long, so what the mask leaves fits.
        Bucket(u16::try_from(hash & mask).unwrap_or(0))
    }
}

pub(crate) fn check_bucket_count(count: usize) -> Result<(), PlacementError> {
    if count.is_power_of_two() && (BUCKETS_MIN..=BUCKETS_MAX).contains(&count) {
        Ok(())
    } else {
        Err(PlacementError::BucketCount { count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four_shards() -> Placement {
        let map = (0..4096u16).map(|bucket| ShardId(bucket % 4)).collect();
        Placement::new("c", 1, map, 4).unwrap()
    }

    #[test]
    fn the_bucket_is_the_low_bits_of_the_row_hash() {
        let placement = four_shards();
        // Row hashes as PostgreSQL computes them for a hash-partitioned table.
        let examples: [(KeyValue, u64); 5] = [
            (KeyValue::Int(1), 11_274_504_255_086_170_040),
            (KeyValue::Int(42), 12_669_485_132_091_644_514),
            (KeyValue::Int(-1), 288_437_243_775_528_869),
            (
                KeyValue::Text(b"tenant-1".to_vec()),
                15_193_546_580_957_881_683,
            ),
            (KeyValue::Null, 0),
        ];
        for (value, hash) in examples {
            let bucket = placement.bucket(&value);
            assert_eq!(u64::from(bucket.0), hash % 4096, "{value:?}");
            assert_eq!(
                placement.bucket_of_row(std::slice::from_ref(&value)),
                bucket,
                "{value:?}"
            );
            assert_eq!(placement.shard(&value).0, bucket.0 % 4, "{value:?}");
        }
    }

    #[test]
    fn a_map_of_the_wrong_length_or_with_an_unknown_shard_is_refused() {
        let all_on = |shard, length| vec![ShardId(shard); length];
        let refused = |map| Placement::new("c", 1, map, 4).unwrap_err();
        assert_eq!(
            refused(all_on(0, 0)),
            PlacementError::BucketCount { count: 0 }
        );
        assert_eq!(
            refused(all_on(0, 4095)),
            PlacementError::BucketCount { count: 4095 }
        );
        assert_eq!(
            refused(all_on(0, 32768)),
            PlacementError::BucketCount { count: 32768 }
        );
        assert_eq!(
            refused(all_on(4, 1024)),
            PlacementError::UnknownShard {
                bucket: 0,
                shard: 4,
                shard_count: 4
            }
        );
        assert!(Placement::new("c", 1, all_on(3, 16384), 4).is_ok());
    }
}
