//! The statements of `tests/data`, which other tests run through the whole proxy.

use std::collections::BTreeMap;

use super::{planned, said};

const ROUTED: &str = include_str!("../../../tests/data/routed.sql");
const REFUSED: &str = include_str!("../../../tests/data/refused.sql");
const ROWS: &str = include_str!("../../../tests/data/rows.sql");

fn statements(text: &str) -> Vec<&str> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("--"));
    lines.collect()
}

#[test]
fn every_statement_to_be_routed_has_a_plan() {
    for (text, least) in [(ROUTED, 200), (ROWS, 150)] {
        let statements = statements(text);
        assert!(statements.len() >= least, "{}", statements.len());
        let refused: Vec<String> = statements
            .iter()
            .filter_map(|sql| match planned(sql) {
                Ok(plan) if plan.must_fail => Some(format!("must fail: {sql}")),
                Ok(_) => None,
                Err(refusal) => Some(format!("{refusal:?}: {sql}")),
            })
            .collect();
        assert!(
            refused.is_empty(),
            "{} refused:\n{}",
            refused.len(),
            refused.join("\n")
        );
    }
}

#[test]
fn every_statement_to_be_refused_has_its_number() {
    let lines = statements(REFUSED);
    assert!(lines.len() >= 200, "{}", lines.len());
    let mut wrong = Vec::new();
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let (number, sql) = line.split_once('\t').unwrap();
        *numbers.entry(number).or_default() += 1;
        let said = said(sql);
        if said != number {
            wrong.push(format!("{said} not {number}: {sql}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        numbers.len() > 45,
        "only {} numbers: {numbers:?}",
        numbers.len()
    );
}
