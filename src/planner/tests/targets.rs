//! What is left to decide when parameters are bound.

use super::{PLACEMENT, planned};
use crate::placement::{KeyType, KeyValue};
use crate::planner::proof::Constant;
use crate::planner::target::{Found, resolve};
use crate::planner::{Assigned, Bound, Number, Parameters, Target};

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

#[test]
fn the_elements_of_a_bound_array_name_their_shards() {
    const INT8_ARRAY: u32 = 1016;
    const TEXT_ARRAY: u32 = 1009;
    let any = "SELECT * FROM orders WHERE customer_id = ANY ($1)";
    let shard = |key| PLACEMENT.shard(&KeyValue::Int(key));
    let one = Ok(Target::One(shard(42)));
    let both = Ok(Target::Some([shard(1), shard(42)].into()));
    assert_eq!(target(any, text(b"{42}", INT8_ARRAY)), one);
    assert_eq!(target(any, text(b"{42, 1,42}", INT8_ARRAY)), both);
    assert_eq!(target(any, text(b"{NULL,42}", INT8_ARRAY)), one);
    for empty in [
        text(b"{}", INT8_ARRAY),
        text(b"{NULL}", INT8_ARRAY),
        null(INT8_ARRAY),
    ] {
        assert_eq!(target(any, empty), Ok(Target::Any));
    }
    let int = |value: i32| value.to_be_bytes();
    let array = [
        &[int(1), int(0), int(20), int(2), int(1), int(8)].concat()[..],
        &42i64.to_be_bytes(),
        &int(8),
        &1i64.to_be_bytes(),
    ]
    .concat();
    assert_eq!(target(any, binary(&array, INT8_ARRAY)), both);
    // an element that is no integer is an error of PostgreSQL's; what is not understood goes nowhere
    assert_eq!(
        target(any, text(b"{42,x}", INT8_ARRAY)),
        Ok(Target::Authoritative)
    );
    for bad in [
        text(b"[2:2]={42}", INT8_ARRAY),
        text(b"{42", INT8_ARRAY),
        text(b"{42}", TEXT_ARRAY),
    ] {
        assert_eq!(target(any, bad), Err(Number::ParameterType));
    }
    // a write stays on one shard
    let update = "UPDATE orders SET note = 'x' WHERE customer_id = ANY ($1)";
    assert_eq!(target(update, text(b"{42,42}", INT8_ARRAY)), one);
    assert_eq!(
        target(update, text(b"{42,1}", INT8_ARRAY)),
        Err(Number::WriteOverShards)
    );
}

#[test]
fn a_char_key_is_compared_and_stored_without_its_blanks() {
    let found = |bound: Bound<'_>, assigned: Option<Assigned>| {
        let constant = Constant::Parameter {
            index: 0,
            key_type: KeyType::Bpchar,
            assigned,
        };
        let mut values = Vec::new();
        let mut add = |value: &KeyValue| values.push(value.clone());
        assert_eq!(resolve(&constant, &One(bound), &mut add), Ok(Found::Values));
        values
    };
    let value = |text: &str| vec![KeyValue::Text(text.as_bytes().to_vec())];
    let stored = Some(Assigned {
        characters_max: None,
    });
    assert_eq!(found(text(b"a  ", BPCHAR), None), value("a"));
    // as a text it equals no char
    assert_eq!(found(text(b"a  ", VARCHAR), None), value("a  "));
    assert_eq!(found(text(b"a  ", VARCHAR), stored), value("a"));
}
