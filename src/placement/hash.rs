//! The hash that `PARTITION BY HASH` computes, byte for byte.
//!
//! Sources: PostgreSQL's `src/common/hashfn.c` (Jenkins' lookup3 with a 64-bit seed), `access/hash/hashfunc.c` (how
//! each type is fed to it) and `partitioning/partbounds.c` (the seed, and how columns are combined). Stable across
//! major versions: partitioned tables on disk depend on it.
//!
//! What would surprise: a NULL column contributes nothing, so a row whose whole key is NULL has hash 0. Words are read
//! as little-endian whatever this machine is; PostgreSQL reads them in its own order, so shards on big-endian machines
//! are not supported (`docs/placement.md`).

use super::KeyValue;

/// `HASH_PARTITION_SEED`.
pub const PARTITION_SEED: u64 = 0x7A5B_2236_7996_DCFD;
/// What combining the first column adds to its hash.
pub const COMBINE: u64 = 0x49a0_f4dd_15e5_a8e3;

/// The row hash of a key of several columns, in the order of the key.
#[must_use]
pub fn row_hash(values: &[KeyValue]) -> u64 {
    values.iter().filter_map(hash_value).fold(0, combine)
}

/// The row hash of a key of one column: what every statement with a key pays for.
#[inline]
pub(super) fn row_hash_of_one(value: &KeyValue) -> u64 {
    hash_value(value).map_or(0, |hash| hash.wrapping_add(COMBINE))
}

#[inline]
fn hash_value(value: &KeyValue) -> Option<u64> {
    match value {
        KeyValue::Int(value) => Some(hash_int(*value, PARTITION_SEED)),
        KeyValue::Text(bytes) => Some(hash_bytes(bytes, PARTITION_SEED)),
        KeyValue::Uuid(bytes) => Some(hash_bytes(bytes, PARTITION_SEED)),
        KeyValue::Null => None,
    }
}

/// `hash_combine64`.
#[inline]
fn combine(hash: u64, column: u64) -> u64 {
    hash ^ column
        .wrapping_add(COMBINE)
        .wrapping_add(hash << 54)
        .wrapping_add(hash >> 7)
}

/// `hashint8extended`; the narrower integers give the same value by construction.
#[inline]
pub(super) fn hash_int(value: i64, seed: u64) -> u64 {
    let (high, low) = halves(value.cast_unsigned());
    let word = low ^ if value >= 0 { high } else { !high };
    let mut state = State::new(4, seed);
    state.a = state.a.wrapping_add(word);
    state.finish()
}

/// `hash_bytes_extended`.
pub(super) fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    // PostgreSQL's lengths are 31-bit; the addition wraps as its does.
    let length = halves(bytes.len() as u64).1;
    let mut state = State::new(length, seed);
    let (blocks, tail) = bytes.as_chunks::<12>();
    for block in blocks {
        state.add(block);
        state.mix();
    }
    let mut block = [0u8; 12];
    // The lowest byte of the third word is reserved for the length, so bytes from the ninth on sit one further.
    for (i, byte) in tail.iter().enumerate() {
        if let Some(slot) = block.get_mut(if i < 8 { i } else { i + 1 }) {
            *slot = *byte;
        }
    }
    state.add(&block);
    state.finish()
}

fn halves(value: u64) -> (u32, u32) {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the low half is what is wanted"
    )]
    let low = value as u32;
    #[allow(
        clippy::cast_possible_truncation,
        reason = "32 bits are left after the shift"
    )]
    let high = (value >> 32) as u32;
    (high, low)
}

/// The three words of lookup3.
#[derive(Clone, Copy)]
struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    #[inline]
    fn new(length: u32, seed: u64) -> Self {
        let start = 0x9e37_79b9u32.wrapping_add(length).wrapping_add(3_923_095);
        let mut state = Self {
            a: start,
            b: start,
            c: start,
        };
        if seed != 0 {
            let (high, low) = halves(seed);
            state.a = state.a.wrapping_add(high);
            state.b = state.b.wrapping_add(low);
            state.mix();
        }
        state
    }

    #[inline]
    fn add(&mut self, block: &[u8; 12]) {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = *block;
        self.a = self.a.wrapping_add(u32::from_le_bytes([a0, a1, a2, a3]));
        self.b = self.b.wrapping_add(u32::from_le_bytes([b0, b1, b2, b3]));
        self.c = self.c.wrapping_add(u32::from_le_bytes([c0, c1, c2, c3]));
    }

    #[inline]
    fn mix(&mut self) {
        let Self {
            mut a,
            mut b,
            mut c,
        } = *self;
        (a, c) = (a.wrapping_sub(c) ^ c.rotate_left(4), c.wrapping_add(b));
        (b, a) = (b.wrapping_sub(a) ^ a.rotate_left(6), a.wrapping_add(c));
        (c, b) = (c.wrapping_sub(b) ^ b.rotate_left(8), b.wrapping_add(a));
        (a, c) = (a.wrapping_sub(c) ^ c.rotate_left(16), c.wrapping_add(b));
        (b, a) = (b.wrapping_sub(a) ^ a.rotate_left(19), a.wrapping_add(c));
        (c, b) = (c.wrapping_sub(b) ^ b.rotate_left(4), b.wrapping_add(a));
        *self = Self { a, b, c };
    }

    #[inline]
    fn finish(self) -> u64 {
        let Self {
            mut a,
            mut b,
            mut c,
        } = self;
        c = (c ^ b).wrapping_sub(b.rotate_left(14));
        a = (a ^ c).wrapping_sub(c.rotate_left(11));
        b = (b ^ a).wrapping_sub(a.rotate_left(25));
        c = (c ^ b).wrapping_sub(b.rotate_left(16));
        a = (a ^ c).wrapping_sub(c.rotate_left(4));
        b = (b ^ a).wrapping_sub(a.rotate_left(14));
        c = (c ^ b).wrapping_sub(b.rotate_left(24));
        (u64::from(b) << 32) | u64::from(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> KeyValue {
        KeyValue::Text(value.as_bytes().to_vec())
    }

    #[test]
    fn the_vectors_that_postgresql_gave() {
        // value, hash…extended(value, seed), row hash of a partitioned table
        let vectors: [(KeyValue, i64, u64); 7] = [
            (
                KeyValue::Int(1),
                5_968_994_663_651_403_477,
                11_274_504_255_086_170_040,
            ),
            (
                KeyValue::Int(42),
                7_363_975_540_656_877_951,
                12_669_485_132_091_644_514,
            ),
            (
                KeyValue::Int(-1),
                -5_017_072_347_659_237_694,
                288_437_243_775_528_869,
            ),
            (
                KeyValue::Int(1 << 40),
                5_769_331_814_454_937_003,
                11_074_841_405_889_703_566,
            ),
            (
                text(""),
                -5_700_645_584_453_517_373,
                18_051_608_080_690_800_806,
            ),
            (
                text("a"),
                -6_705_225_459_120_232_837,
                17_047_028_206_024_085_342,
            ),
            (
                text("tenant-1"),
                -8_558_707_084_186_436_496,
                15_193_546_580_957_881_683,
            ),
        ];
        for (value, hash, row) in vectors {
            assert_eq!(
                hash_value(&value).map(u64::cast_signed),
                Some(hash),
                "{value:?}"
            );
            assert_eq!(row_hash(std::slice::from_ref(&value)), row, "{value:?}");
            assert_eq!(row_hash_of_one(&value), row, "{value:?}");
        }
    }

    #[test]
    fn the_seed_is_the_one_in_the_sql_expression() {
        assert_eq!(PARTITION_SEED, 8_816_678_312_871_386_365);
        assert_eq!(COMBINE, 5_305_509_591_434_766_563);
    }

    #[test]
    fn null_leaves_the_row_hash_as_it_is() {
        assert_eq!(row_hash(&[KeyValue::Null]), 0);
        assert_eq!(row_hash(&[]), 0);
        let one = row_hash(&[KeyValue::Int(7)]);
        assert_eq!(row_hash(&[KeyValue::Null, KeyValue::Int(7)]), one);
        assert_eq!(row_hash(&[KeyValue::Int(7), KeyValue::Null]), one);
    }

    #[test]
    fn the_order_of_the_columns_matters() {
        let (a, b) = (KeyValue::Int(1), text("a"));
        assert_ne!(row_hash(&[a.clone(), b.clone()]), row_hash(&[b, a]));
    }

    #[test]
    fn every_length_of_the_last_block_has_its_own_hash() {
        let bytes = [0u8; 40];
        let hashes: std::collections::BTreeSet<u64> = (0..=40)
            .map(|length| hash_bytes(&bytes[..length], PARTITION_SEED))
            .collect();
        assert_eq!(hashes.len(), 41);
    }
}
