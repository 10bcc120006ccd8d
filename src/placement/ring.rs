//! Proposes the first map of buckets to shards, and the few moves that adding shards needs. The only file that names
//! the `consistent_hash_ring` package.
//!
//! Does not know what is stored: a proposal becomes the truth when `pgherd init` has written it to the shards, so
//! neither this package's internals nor its hasher are a storage format.
//!
//! What would surprise: the ring alone is uneven (a fifth above the mean at its default of ten virtual nodes), so its
//! proposal is levelled afterwards until no two shards differ by more than one bucket.

use std::hash::{BuildHasher, Hash, Hasher};

use super::hash::{PARTITION_SEED, hash_bytes};
use super::{Bucket, PlacementError, check_bucket_count};
use crate::names::ShardId;

/// Places of each shard on the ring: enough that levelling moves a few per cent of the buckets.
const VIRTUAL_NODES: usize = 128;

/// One bucket that changes its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub bucket: Bucket,
    pub from: ShardId,
    pub to: ShardId,
}

/// The first map for `shard_count` shards: `map[bucket]`, the same on every run, no two shards more than one bucket
/// apart.
///
/// # Errors
/// When the number of buckets is no power of two in range, or there are no shards or more shards than buckets.
pub fn propose(shard_count: usize, bucket_count: usize) -> Result<Vec<ShardId>, PlacementError> {
    check_bucket_count(bucket_count)?;
    let ring = Ring::new(shard_count, bucket_count)?;
    let mut map: Vec<ShardId> = (0..bucket_count).map(|bucket| ring.owner(bucket)).collect();
    for step in level(&map, &ring, shard_count) {
        if let Some(slot) = map.get_mut(usize::from(step.bucket.0)) {
            *slot = step.to;
        }
    }
    Ok(map)
}

/// The moves that even out `map` over `shard_count` shards, of which some are new: no more than the new shards' fair
/// part, and none between old shards that need none.
///
/// # Errors
/// When the map's length is no power of two in range, it names a shard beyond `shard_count`, or there are no shards or
/// more shards than buckets.
pub fn plan_growth(map: &[ShardId], shard_count: usize) -> Result<Vec<Move>, PlacementError> {
    check_bucket_count(map.len())?;
    for (shard, bucket) in map.iter().zip(0u16..) {
        if shard.index() >= shard_count {
            return Err(PlacementError::UnknownShard {
                bucket,
                shard: shard.0,
                shard_count,
            });
        }
    }
    let ring = Ring::new(shard_count, map.len())?;
    Ok(level(map, &ring, shard_count))
}

/// The fewest moves to within one bucket of the mean. Buckets that the ring would have elsewhere go first, and go
/// where the ring has them when there is room.
fn level(map: &[ShardId], ring: &Ring, shard_count: usize) -> Vec<Move> {
    let mut loads = Loads::of(map, shard_count);
    let mut levelled = map.to_vec();
    for follow_ring in [true, false] {
        for (shard, bucket) in levelled.iter_mut().zip(0usize..) {
            if !loads.has_surplus(*shard) {
                continue;
            }
            let owner = ring.owner(bucket);
            let to = if follow_ring {
                Some(owner).filter(|to| loads.has_room(*to))
            } else {
                loads.emptiest()
            };
            if let Some(to) = to {
                loads.carry(*shard, to);
                *shard = to;
            }
        }
    }
    let changes = map.iter().zip(&levelled).zip(0u16..);
    changes
        .filter(|((from, to), _)| from != to)
        .map(|((from, to), bucket)| Move {
            bucket: Bucket(bucket),
            from: *from,
            to: *to,
        })
        .collect()
}

/// How many buckets each shard has, and how many it should have.
struct Loads {
    held: Vec<usize>,
    fair: Vec<usize>,
}

impl Loads {
    fn of(map: &[ShardId], shard_count: usize) -> Self {
        let mut held = vec![0usize; shard_count];
        for shard in map {
            if let Some(count) = held.get_mut(shard.index()) {
                *count += 1;
            }
        }
        // The buckets that do not divide stay with the shards that have most already: fewest moves.
        let mut by_load: Vec<usize> = (0..shard_count).collect();
        by_load.sort_by_key(|shard| std::cmp::Reverse(held.get(*shard).copied()));
        let mut fair = vec![map.len() / shard_count; shard_count];
        for shard in by_load.into_iter().take(map.len() % shard_count) {
            if let Some(count) = fair.get_mut(shard) {
                *count += 1;
            }
        }
        Self { held, fair }
    }

    fn get(&self, shard: ShardId) -> (usize, usize) {
        let of = |counts: &[usize]| counts.get(shard.index()).copied().unwrap_or(0);
        (of(&self.held), of(&self.fair))
    }

    fn has_surplus(&self, shard: ShardId) -> bool {
        let (held, fair) = self.get(shard);
        held > fair
    }

    fn has_room(&self, shard: ShardId) -> bool {
        let (held, fair) = self.get(shard);
        held < fair
    }

    fn emptiest(&self) -> Option<ShardId> {
        let room = self
            .held
            .iter()
            .zip(&self.fair)
            .map(|(held, fair)| fair.saturating_sub(*held));
        let (shard, room) = (0u16..)
            .zip(room)
            .max_by_key(|(shard, room)| (*room, std::cmp::Reverse(*shard)))?;
        (room > 0).then_some(ShardId(shard))
    }

    fn carry(&mut self, from: ShardId, to: ShardId) {
        if let Some(count) = self.held.get_mut(from.index()) {
            *count -= 1;
        }
        if let Some(count) = self.held.get_mut(to.index()) {
            *count += 1;
        }
    }
}

struct Ring(consistent_hash_ring::Ring<Node, SteadyHash>);

impl Ring {
    fn new(shard_count: usize, bucket_count: usize) -> Result<Self, PlacementError> {
        let refused = PlacementError::ShardCount { count: shard_count };
        if shard_count == 0 || shard_count > bucket_count {
            return Err(refused);
        }
        let shards = u16::try_from(shard_count).map_err(|_| refused)?;
        let ring = consistent_hash_ring::RingBuilder::new(SteadyHash)
            .vnodes(VIRTUAL_NODES)
            .nodes_iter((0..shards).map(|shard| Node(ShardId(shard))))
            .build();
        Ok(Self(ring))
    }

    fn owner(&self, bucket: usize) -> ShardId {
        // There is at least one node, so there always is an owner.
        self.0
            .try_get(BucketKey(bucket))
            .map_or(ShardId(0), |node| node.0)
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Node(ShardId);

struct BucketKey(usize);

// Both feed a fixed number of bytes with a leading kind, so that a shard and a bucket never fall on the same point.
impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [high, low] = self.0.0.to_be_bytes();
        state.write(&[b's', 0, high, low]);
    }
}

impl Hash for BucketKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [.., high, low] = self.0.to_be_bytes();
        state.write(&[b'b', 0, high, low]);
    }
}

/// The same on every machine and in every release, unlike the standard library's hashers.
#[derive(Clone)]
struct SteadyHash;

struct SteadyHasher(u64);

impl BuildHasher for SteadyHash {
    type Hasher = SteadyHasher;
    fn build_hasher(&self) -> SteadyHasher {
        SteadyHasher(PARTITION_SEED)
    }
}

impl Hasher for SteadyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash_bytes(bytes, self.0);
    }
    fn write_u64(&mut self, value: u64) {
        self.write(&value.to_le_bytes());
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(map: &[ShardId], shard_count: usize) -> (usize, usize) {
        let held = Loads::of(map, shard_count).held;
        (
            held.iter().min().copied().unwrap(),
            held.iter().max().copied().unwrap(),
        )
    }

    #[test]
    fn the_first_map_is_even_to_one_bucket() {
        for (shards, buckets) in [
            (1, 4096),
            (2, 4096),
            (3, 4096),
            (4, 4096),
            (5, 4096),
            (16, 4096),
            (100, 4096),
            (7, 1024),
            (64, 16384),
        ] {
            let map = propose(shards, buckets).unwrap();
            assert_eq!(map.len(), buckets);
            let (min, max) = loads(&map, shards);
            assert!(
                max - min <= 1,
                "{shards} shards: between {min} and {max} buckets"
            );
        }
    }

    #[test]
    fn the_first_map_is_the_same_on_every_run_and_machine() {
        let map = propose(4, 4096).unwrap();
        assert_eq!(map, propose(4, 4096).unwrap());
        let bytes: Vec<u8> = map.iter().flat_map(|shard| shard.0.to_be_bytes()).collect();
        assert_eq!(hash_bytes(&bytes, 1), 18_023_912_062_084_972_119);
    }

    #[test]
    fn neighbouring_buckets_are_spread() {
        // A ring hashes the bucket numbers: contiguous ranges would put a range of keys' worth of load together when
        // buckets are moved one after another.
        let map = propose(4, 4096).unwrap();
        let changes = map.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes > 2500, "{changes}");
    }

    #[test]
    fn adding_a_shard_moves_only_its_fair_part_and_only_to_it() {
        for (before, after) in [(4usize, 5usize), (1, 2), (2, 3), (3, 4), (16, 17), (4, 8)] {
            let mut map = propose(before, 4096).unwrap();
            let moves = plan_growth(&map, after).unwrap();
            let ideal = 4096 * (after - before) / after;
            assert!(
                moves.len() <= ideal + after,
                "{before} to {after}: {} moves, ideal {ideal}",
                moves.len()
            );
            for step in &moves {
                assert!(step.to.index() >= before, "{step:?}");
                assert_eq!(map[usize::from(step.bucket.0)], step.from);
                map[usize::from(step.bucket.0)] = step.to;
            }
            let (min, max) = loads(&map, after);
            assert!(
                max - min <= 1,
                "{before} to {after}: between {min} and {max} buckets"
            );
        }
        let moves = plan_growth(&propose(4, 4096).unwrap(), 5).unwrap();
        assert!(
            moves.len() * 100 <= 4096 * 21,
            "{} of 4096 buckets",
            moves.len()
        );
    }

    #[test]
    fn an_even_map_needs_no_moves() {
        assert_eq!(plan_growth(&propose(5, 4096).unwrap(), 5).unwrap(), []);
    }

    #[test]
    fn impossible_counts_are_refused() {
        assert_eq!(
            propose(0, 4096),
            Err(PlacementError::ShardCount { count: 0 })
        );
        assert_eq!(
            propose(1025, 1024),
            Err(PlacementError::ShardCount { count: 1025 })
        );
        assert_eq!(
            propose(4, 1000),
            Err(PlacementError::BucketCount { count: 1000 })
        );
        let map = propose(4, 1024).unwrap();
        assert!(matches!(
            plan_growth(&map, 3),
            Err(PlacementError::UnknownShard { shard: 3, .. })
        ));
    }
}
