//! What `pgherd check --connect` says of schemas: where shards differ, and what one shard alone cannot keep.

use super::connect::Finding;
use super::drift;
use super::load::{catalog_rows, catalog_rules};
use super::{SnapshotError, controls};
use crate::backend::control::ControlLimits;
use crate::catalog::{Catalog, Constraint, Facts, Relation};
use crate::config::Database;
use crate::error::Severity;

const ADD_THE_KEY: &str = "add the sharding key to it, or drop it";
const MEET: &str = "make the table that it refers to a reference table, or drop it";
const IDENTITY: &str = "add the sharding key to the primary key, or name a replica identity that has it (ALTER TABLE … REPLICA IDENTITY)";

/// Everything that can be said with the shards that answer; the others are told of elsewhere.
pub(super) async fn of_schemas(database: &Database) -> Result<Vec<Finding>, SnapshotError> {
    let controls = controls(database, ControlLimits::default())?;
    let facts = drift::facts(&controls).await?;
    let facts: Vec<Option<Facts>> = facts.into_iter().map(Result::ok).collect();
    let rules = catalog_rules(database);
    let mut findings = Vec::new();
    for found in drift::compare(database, facts.iter().map(Option::as_ref), &rules) {
        let difference = found.difference;
        let refuses = difference
            .setting
            .as_ref()
            .is_some_and(|name| name != "search_path");
        let severity = if difference.breaks.is_some() || refuses {
            Severity::Error
        } else {
            Severity::Warning
        };
        let path = format!("databases.{}.shards.{}", database.name, found.shard);
        let problem = format!("{}: {}", difference.object, difference.what);
        findings.push(Finding::new(
            severity,
            &path,
            problem,
            Some(difference.remedy),
        ));
    }
    if let (Some(authoritative), Some(Some(facts))) = (controls.first(), facts.first()) {
        let rows = catalog_rows(authoritative).await?;
        let catalog = Catalog::from_changed_rows(&rows, rules)?;
        findings.extend(of_tables(database, &catalog, facts));
    }
    Ok(findings)
}

fn of_tables(database: &Database, catalog: &Catalog, facts: &Facts) -> Vec<Finding> {
    let mut tables: Vec<&Relation> = catalog
        .placed_tables()
        .filter(|relation| catalog.is_named(relation))
        .collect();
    tables.sort_by_key(|relation| relation.full_name());
    let mut findings = Vec::new();
    for relation in tables {
        let path = format!(
            "databases.{}.tables.\"{}\"",
            database.name,
            relation.full_name()
        );
        let mut warn = |problem: String, remedy| {
            findings.push(Finding::new(
                Severity::Warning,
                &path,
                problem,
                Some(remedy),
            ));
        };
        let own = relation
            .loose_constraints
            .iter()
            .filter(|each| !each.referenced);
        for constraint in own {
            let (problem, remedy) = loose(relation, constraint);
            warn(problem, remedy);
        }
        if let Some(key) = relation.key()
            && !facts.identifies(&relation.schema, &relation.name, &key.column)
        {
            let problem = format!(
                "its replica identity lacks the sharding key {}, by which rows are followed when they move",
                key.column
            );
            warn(problem, IDENTITY);
        }
    }
    findings
}

fn loose(relation: &Relation, constraint: &Constraint) -> (String, &'static str) {
    let columns: Vec<&str> = constraint
        .columns
        .iter()
        .map(|column| {
            if column.is_empty() {
                "an expression"
            } else {
                column
            }
        })
        .collect();
    let columns = columns.join(", ");
    let name = &constraint.name;
    match relation.key() {
        Some(key) if !constraint.columns.contains(&key.column) => (
            format!(
                "constraint {name} ({columns}) lacks the sharding key {}: each shard keeps it for itself",
                key.column
            ),
            ADD_THE_KEY,
        ),
        _ => (
            format!("constraint {name} ({columns}) refers to rows that may be on other shards"),
            MEET,
        ),
    }
}
