//! What is left to decide when parameters are bound.

use super::{PLACEMENT, planned};
use crate::placement::KeyValue;
use crate::planner::{Bound, Number, Parameters, Target};

struct One<'a>(Bound<'a>);

impl Parameters for One<'_> {
    fn bound(&self, index: u16) -> Option<Bound<'_>> {
        (index == 0).then_some(self.0)
    }
}

const INT4: u32 = 23;
const INT8: u32 = 20;
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const NUMERIC: u32 = 1700;
const BPCHAR: u32 = 1042;

fn text(bytes: &[u8], type_oid: u32) -> Bound<'_> {
    Bound {
        bytes: Some(bytes),
        binary: false,
        type_oid,
    }
}

fn binary(bytes: &[u8], type_oid: u32) -> Bound<'_> {
    Bound {
        bytes: Some(bytes),
        binary: true,
        type_oid,
    }
}

fn null(type_oid: u32) -> Bound<'static> {
    Bound {
        bytes: None,
        binary: false,
        type_oid,
    }
}

fn target(sql: &str, bound: Bound<'_>) -> Result<Target, Number> {
    let plan = planned(sql).unwrap();
    plan.target(&PLACEMENT, &One(bound))
        .map_err(|refusal| refusal.number)
}

const READ: &str = "SELECT * FROM orders WHERE customer_id = $1";
const WRITE: &str = "INSERT INTO orders (customer_id, order_id) VALUES ($1, 1)";
const CUT: &str = "INSERT INTO accounts (code, owner) VALUES ($1, 'x')";

#[test]
fn a_bound_key_names_its_shard_in_any_spelling() {
    let s2 = Ok(Target::One(PLACEMENT.shard(&KeyValue::Int(42))));
    for sql in [READ, WRITE] {
        assert_eq!(target(sql, text(b"42", INT8)), s2);
        assert_eq!(target(sql, text(b" 042 ", INT8)), s2);
        assert_eq!(target(sql, text(b"42", INT4)), s2);
        assert_eq!(target(sql, binary(&42i64.to_be_bytes(), INT8)), s2);
        assert_eq!(target(sql, binary(&42i32.to_be_bytes(), INT4)), s2);
    }
}

#[test]
fn a_bound_value_that_is_none_raises_postgresqls_error() {
    assert_eq!(target(READ, text(b"x", INT8)), Ok(Target::Authoritative));
    assert_eq!(target(WRITE, text(b"x", INT8)), Ok(Target::Authoritative));
    assert_eq!(
        target(READ, binary(&[0; 4], INT8)),
        Ok(Target::Authoritative)
    );
    assert_eq!(
        target(CUT, text(b"123456789", VARCHAR)),
        Ok(Target::Authoritative)
    );
}

#[test]
fn null_finds_nothing_and_is_no_key_of_a_row() {
    assert_eq!(target(READ, null(INT8)), Ok(Target::Any));
    assert_eq!(target(WRITE, null(INT8)), Err(Number::KeyNull));
}

#[test]
fn a_type_that_hashes_otherwise_is_refused() {
    assert_eq!(
        target(READ, text(b"42", NUMERIC)),
        Err(Number::ParameterType)
    );
    assert_eq!(target(READ, text(b"42", TEXT)), Err(Number::ParameterType));
    assert_eq!(target(CUT, text(b"a", BPCHAR)), Err(Number::ParameterType));
}

#[test]
fn blanks_beyond_the_length_are_cut_before_hashing() {
    let of = |bytes: &[u8]| {
        Ok(Target::One(
            PLACEMENT.shard(&KeyValue::Text(bytes.to_vec())),
        ))
    };
    assert_eq!(target(CUT, text(b"1234567 ", VARCHAR)), of(b"1234567 "));
    assert_eq!(target(CUT, text(b"12345678  ", VARCHAR)), of(b"12345678"));
    let compared = "SELECT * FROM accounts WHERE code = $1";
    assert_eq!(
        target(compared, text(b"12345678  ", TEXT)),
        of(b"12345678  ")
    );
}

#[test]
fn a_plan_without_parameters_needs_none() {
    let without = |sql: &str| planned(sql).unwrap().target(&PLACEMENT, &()).unwrap();
    assert_eq!(without("SELECT 1"), Target::Any);
    assert_eq!(without("SELECT * FROM orders"), Target::Every);
    assert_eq!(without("SELECT * FROM pg_class"), Target::Authoritative);
    assert_eq!(without(READ), Target::Authoritative);
}
