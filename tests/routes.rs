//! Live: random statements about sharding keys, through pgherd and on one PostgreSQL that holds all rows. What a plan
//! leaves out would be missing from the answer, so the answers must be equal, or be refusals with a number.
//!
//! `ROUTES_CASES` sets the number of statements (2 000), `ROUTES_SEED` the first seed. A failure names its seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/both.rs"]
mod both;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use support::client::{Client, Reply};

const CASES: u64 = 2000;
/// Of a hundred statements of each kind this many must be answered, or the test would prove little.
const ANSWERED_MIN: u64 = 10;

fn number(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name);
    text.map_or(otherwise, |text| text.parse().unwrap())
}

/// A table, its key, values in several spellings, and another column with values.
struct Table {
    name: &'static str,
    key: &'static str,
    key_type: &'static str,
    keys: &'static [&'static str],
    other: &'static str,
    others: &'static [&'static str],
}

const CUSTOMERS: &[&str] = &[
    "1",
    "2",
    "3",
    "4",
    "5",
    "7",
    "8",
    "11",
    "12",
    "42",
    "43",
    "-1",
    "1000",
    "77",
    "100",
    "101",
    "102",
    "105",
    "110",
    "117",
    "131",
    "9999999999",
    "-9223372036854775808",
    "9223372036854775807",
];

const TABLES: &[Table] = &[
    Table {
        name: "customers",
        key: "customer_id",
        key_type: "int8",
        keys: CUSTOMERS,
        other: "country_code",
        others: &["'at'", "'br'", "'de'", "NULL"],
    },
    Table {
        name: "orders",
        key: "customer_id",
        key_type: "int8",
        keys: CUSTOMERS,
        other: "order_id",
        others: &["1", "2", "3", "'2'"],
    },
    Table {
        name: "order_lines",
        key: "customer_id",
        key_type: "int8",
        keys: CUSTOMERS,
        other: "line_no",
        others: &["1", "2"],
    },
    Table {
        name: "tickets",
        key: "customer_id",
        key_type: "int4",
        keys: &["1", "2", "3", "4", "5", "7", "11", "42", "-1", "1000"],
        other: "ticket_no",
        others: &["1", "2"],
    },
    Table {
        name: "narrow",
        key: "k",
        key_type: "int2",
        keys: &["1", "2", "4", "13", "42", "-1", "40000", "5000000000"],
        other: "a",
        others: &["1", "2", "NULL"],
    },
    Table {
        name: "loose",
        key: "k",
        key_type: "int8",
        keys: &["1", "2", "4", "13", "42", "-1", "40000"],
        other: "a",
        others: &["1", "2", "NULL"],
    },
    Table {
        name: "short",
        key: "k",
        key_type: "text",
        keys: &["ab", "cd", "ef", "1", "abcd ", "abcd", "toolong"],
        other: "a",
        others: &["1", "2", "NULL"],
    },
    Table {
        name: "products",
        key: "sku",
        key_type: "text",
        keys: &[
            "tenant-1", "b-1", "b-2", "c-10", "Äpfel", "ünder", "", "x y", "z", "none", "B-1",
            "b-1 ",
        ],
        other: "stock",
        others: &["6", "36", "27"],
    },
    Table {
        name: "reviews",
        key: "sku",
        key_type: "text",
        keys: &[
            "tenant-1", "b-1", "b-2", "c-10", "Äpfel", "ünder", "", "x y", "z",
        ],
        other: "stars",
        others: &["1", "3", "5"],
    },
];

/// Keys that are narrow, that may be NULL, and that are cut.
const MORE_TABLES: &str = "
CREATE TABLE narrow (k int2 PRIMARY KEY, a int8);
CREATE TABLE loose (k int8, a int8);
CREATE TABLE short (k varchar(4), a int8);
";
const MORE_RULES: &str = "
narrow sharded k
loose sharded k
short sharded k
";

fn named(name: &str) -> &'static Table {
    TABLES.iter().find(|table| table.name == name).unwrap()
}

/// One statement in the making; parameters are numbered as they are made.
struct Maker {
    random: SmallRng,
    /// Values become parameters, in text format.
    extended: bool,
    parameters: Vec<Option<String>>,
}

impl Maker {
    fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        choices.choose(&mut self.random).unwrap()
    }

    fn parameter(&mut self, value: Option<String>) -> String {
        self.parameters.push(value);
        format!("${}", self.parameters.len())
    }

    /// A value that may equal the table's key, in one of its spellings.
    fn value(&mut self, table: &Table) -> String {
        let key = (*self.of(table.keys)).to_owned();
        let integer = table.key_type != "text";
        if self.extended && self.one_in(2) {
            if self.one_in(20) {
                return self.parameter(None);
            }
            let spelled = if integer && self.one_in(4) {
                format!(" {key} ")
            } else {
                key
            };
            return self.parameter(Some(spelled));
        }
        let quoted = format!("'{key}'");
        match self.random.random_range(0..12) {
            0 => "NULL".to_owned(),
            1 => format!("{quoted}::{}", table.key_type),
            2 if integer => format!("' {key} '"),
            3 if integer => format!("{key}::numeric"),
            4 if integer => format!("{key} + 0"),
            5 if integer => format!("{key}.0"),
            6 => format!("CAST({quoted} AS {})", table.key_type),
            7 if !integer => format!("{quoted}::varchar"),
            8 if !integer => format!("{quoted}::char(12)"),
            9 if !integer => format!("lower({quoted})"),
            10 if integer && table.key_type == "int8" => format!("bigint {quoted}"),
            _ if integer => key,
            _ => quoted,
        }
    }

    fn values(&mut self, table: &Table) -> String {
        let count = self.random.random_range(1..4);
        let each: Vec<String> = (0..count).map(|_| self.value(table)).collect();
        each.join(", ")
    }

    /// `{…}` of values without anything that would need quotes.
    fn array(&mut self, table: &Table) -> String {
        let count = self.random.random_range(0..4);
        let each: Vec<String> = (0..count)
            .map(|_| match self.random.random_range(0..8) {
                0 => "NULL".to_owned(),
                1 if table.key_type != "text" => format!("\u{b}{}\u{b}", self.of(table.keys)),
                _ => format!("\"{}\"", self.of(table.keys)),
            })
            .collect();
        format!("{{{}}}", each.join(","))
    }

    fn other(&mut self, table: &Table) -> String {
        (*self.of(table.others)).to_owned()
    }

    /// A condition on one occurrence of a table.
    fn condition(&mut self, table: &Table, alias: &str, depth: u32) -> String {
        let key = format!("{alias}.{}", table.key);
        let other = format!("{alias}.{}", table.other);
        let nested = if depth > 0 { 4 } else { 0 };
        match self.random.random_range(0..14 + nested) {
            0..=2 => format!("{key} = {}", self.value(table)),
            3 => format!("{} = {key}", self.value(table)),
            4 | 5 => format!("{key} IN ({})", self.values(table)),
            6 => {
                let array = self.array(table);
                if self.extended {
                    let parameter = self.parameter(Some(array));
                    format!("{key} = ANY ({parameter})")
                } else {
                    format!("{key} = ANY ('{array}')")
                }
            }
            7 => format!("{key} = ANY (ARRAY[{}])", self.values(table)),
            8 => format!(
                "({key}, {other}) = ({}, {})",
                self.value(table),
                self.other(table)
            ),
            9 => format!(
                "({other}, {key}) IN (({}, {}), ({}, {}))",
                self.other(table),
                self.value(table),
                self.other(table),
                self.value(table)
            ),
            10 => format!("{key} IS NULL"),
            11 => format!("{other} = {}", self.other(table)),
            12 => format!("{key} > {}", self.value(table)),
            13 => format!("{key} NOT IN ({})", self.values(table)),
            14 => format!("NOT ({})", self.condition(table, alias, depth - 1)),
            15 => self.joined(table, alias, depth, " AND "),
            _ => self.joined(table, alias, depth, " OR "),
        }
    }

    fn joined(&mut self, table: &Table, alias: &str, depth: u32, word: &str) -> String {
        let count = self.random.random_range(2..4);
        let each: Vec<String> = (0..count)
            .map(|_| self.condition(table, alias, depth - 1))
            .collect();
        format!("({})", each.join(word))
    }

    /// Another table with the same key, or one with another.
    fn partner(&mut self, table: &Table) -> &'static Table {
        loop {
            let partner = self.of(TABLES);
            let integers = |table: &Table| table.key_type != "text";
            if integers(partner) == integers(table) {
                return partner;
            }
        }
    }

    fn select(&mut self) -> (&'static str, String) {
        let table = self.of(TABLES);
        let condition = |maker: &mut Self| maker.condition(table, "a", 2);
        let name = table.name;
        let key = table.key;
        match self.random.random_range(0..12) {
            10 => {
                let kind = *self.of(&["LEFT JOIN", "RIGHT JOIN", "JOIN", "FULL JOIN"]);
                (
                    "reference",
                    format!(
                        "SELECT k.code, a.* FROM currencies k {kind} {name} a ON a.{}::text = k.digits::text WHERE {}",
                        table.other,
                        condition(self)
                    ),
                )
            }
            11 => {
                let partner = self.partner(table);
                (
                    "join by others",
                    format!(
                        "SELECT count(*) FROM {name} a LEFT JOIN {} b ON a.{}::text = b.{}::text WHERE {} AND {}",
                        partner.name,
                        table.other,
                        partner.other,
                        condition(self),
                        self.condition(partner, "b", 1)
                    ),
                )
            }
            9 => {
                let rows = self.values(table).replace(", ", "), (");
                let kind = *self.of(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
                (
                    "constants",
                    format!(
                        "SELECT a.*, v.* FROM {name} a {kind} (VALUES ({rows})) v (k) ON a.{key} = v.k::{}",
                        table.key_type
                    ),
                )
            }
            0 | 1 => (
                "one table",
                format!("SELECT a.* FROM {name} a WHERE {}", condition(self)),
            ),
            2 => {
                let kind = *self.of(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
                let partner = self.partner(table);
                let on = if self.one_in(4) {
                    format!(
                        "a.{key} = b.{} AND {}",
                        partner.key,
                        self.condition(partner, "b", 1)
                    )
                } else {
                    format!("a.{key} = b.{}", partner.key)
                };
                let filter = if self.one_in(3) {
                    format!(
                        "{} AND {}",
                        condition(self),
                        self.condition(partner, "b", 1)
                    )
                } else {
                    condition(self)
                };
                (
                    "join",
                    format!(
                        "SELECT a.*, b.{} FROM {name} a {kind} {} b ON {on} WHERE {filter}",
                        partner.other, partner.name
                    ),
                )
            }
            3 => {
                let partner = self.partner(table);
                (
                    "comma join",
                    format!(
                        "SELECT a.*, b.{} FROM {name} a, {} b WHERE {} AND {}",
                        partner.other,
                        partner.name,
                        condition(self),
                        self.condition(partner, "b", 1)
                    ),
                )
            }
            4 => (
                "aggregate",
                format!(
                    "SELECT count(*), min(a.{}::text) FROM {name} a WHERE {}",
                    table.other,
                    condition(self)
                ),
            ),
            5 => {
                let partner = self.partner(table);
                let inner = self.condition(partner, "b", 1);
                (
                    "subquery",
                    format!(
                        "SELECT a.* FROM {name} a WHERE {} AND EXISTS (SELECT 1 FROM {} b WHERE b.{} = a.{key} AND {inner})",
                        condition(self),
                        partner.name,
                        partner.key
                    ),
                )
            }
            6 => {
                let inner = self.condition(table, "b", 1);
                (
                    "derived table",
                    format!(
                        "SELECT a.* FROM (SELECT b.{key}, b.{} FROM {name} b WHERE {inner}) a WHERE {}",
                        table.other,
                        condition(self)
                    ),
                )
            }
            7 => {
                let first = condition(self);
                (
                    "union",
                    format!(
                        "SELECT a.{key} FROM {name} a WHERE {first} UNION ALL SELECT a.{key} FROM {name} a WHERE {}",
                        condition(self)
                    ),
                )
            }
            _ => {
                let inner = self.condition(table, "b", 1);
                (
                    "with",
                    format!(
                        "WITH a AS (SELECT b.{key}, b.{} FROM {name} b WHERE {inner}) SELECT a.* FROM a WHERE {}",
                        table.other,
                        condition(self)
                    ),
                )
            }
        }
    }

    fn write(&mut self) -> (&'static str, String) {
        let table = &TABLES[1];
        let condition = self.condition(table, "a", 1);
        match self.random.random_range(0..10) {
            7 => {
                let set = *self.of(&[
                    "GROUP BY a.customer_id",
                    "GROUP BY ROLLUP (a.customer_id)",
                    "GROUP BY 1",
                ]);
                (
                    "insert groups",
                    format!(
                        "INSERT INTO loose (k, a) SELECT a.customer_id, count(*) FROM orders a WHERE {condition} {set} RETURNING *"
                    ),
                )
            }
            8 => {
                let short = named("short");
                let key = self.value(short);
                let filter = self.condition(short, "a", 1);
                if self.one_in(2) {
                    (
                        "cut keys",
                        format!(
                            "INSERT INTO short SELECT {key}, a.a FROM short a WHERE {filter} RETURNING *"
                        ),
                    )
                } else {
                    (
                        "cut keys",
                        format!("UPDATE short a SET k = {key} WHERE {filter} RETURNING *"),
                    )
                }
            }
            9 => {
                let key = self.value(table);
                (
                    "merge",
                    format!(
                        "MERGE INTO orders o USING (VALUES ({key}, 1), ({key}, 77)) v (k, n) ON o.customer_id = v.k AND o.order_id = v.n \
                   WHEN MATCHED THEN UPDATE SET note = 'm' WHEN NOT MATCHED THEN INSERT (customer_id, order_id) VALUES (v.k, v.n)"
                    ),
                )
            }
            0 => (
                "update",
                format!("UPDATE orders a SET note = 'x' WHERE {condition} RETURNING a.*"),
            ),
            1 => {
                let key = self.value(table);
                (
                    "update of the key",
                    format!(
                        "UPDATE orders a SET customer_id = {key}, order_id = a.order_id + 100 WHERE {condition} RETURNING a.*"
                    ),
                )
            }
            2 => (
                "delete",
                format!(
                    "DELETE FROM order_lines a USING orders b WHERE a.customer_id = b.customer_id AND {condition} RETURNING a.*"
                ),
            ),
            3 => {
                let count = self.random.random_range(1..4);
                let rows: Vec<String> = (0..count)
                    .map(|row| format!("({}, {})", self.value(table), 500 + row))
                    .collect();
                (
                    "insert",
                    format!(
                        "INSERT INTO orders (customer_id, order_id) VALUES {} RETURNING *",
                        rows.join(", ")
                    ),
                )
            }
            4 => (
                "insert select",
                format!(
                    "INSERT INTO orders (order_id, customer_id, note) SELECT a.order_id + 700, a.customer_id, 'n' FROM orders a WHERE {condition} RETURNING *"
                ),
            ),
            5 => {
                let rows = self.values(table).replace(", ", ", 1), (");
                (
                    "insert constants",
                    format!(
                        "INSERT INTO orders (customer_id, order_id) SELECT v.k::int8, 901 + v.n FROM (VALUES ({rows}, 2)) v (k, n) RETURNING *"
                    ),
                )
            }
            _ => (
                "writing with",
                format!(
                    "WITH gone AS (DELETE FROM order_lines l WHERE {} RETURNING *) SELECT g.customer_id, g.line_no FROM gone g",
                    self.condition(&TABLES[2], "l", 1)
                ),
            ),
        }
    }
}

fn run(client: &mut Client, maker: &Maker, text: &str) -> Reply {
    if maker.extended {
        let parameters: Vec<Option<&str>> = maker.parameters.iter().map(Option::as_deref).collect();
        client.run(text, &parameters)
    } else {
        client.query(text)
    }
}

/// Rows in an order of their own, the tag, and the error's number.
fn comparable(reply: &Reply) -> String {
    let mut rows: Vec<String> = reply.of(b'D').map(ToString::to_string).collect();
    rows.sort_unstable();
    format!("{:?} {:?} {rows:?}", reply.sqlstate(), reply.tags())
}

/// The number of a refusal.
fn refusal(reply: &Reply) -> Option<String> {
    let error = reply.of(b'E').next()?;
    let said = error.field(b'M')?;
    let (number, _) = said.split_once(':')?;
    number.starts_with("PGH").then(|| number.to_owned())
}

#[test]
fn random_statements_with_keys_are_answered_as_by_one_postgresql_or_refused() {
    let both = both::start("routes", MORE_TABLES, MORE_RULES);
    both.fill();
    let (mut through, mut straight) = (both.through(), both.straight());
    // Rows of the other keys: without them some shards would have few.
    for id in 100..140 {
        for text in [
            format!("INSERT INTO customers (customer_id, name) VALUES ({id}, 'c{id}')"),
            format!("INSERT INTO orders (customer_id, order_id) VALUES ({id}, 1), ({id}, 2)"),
        ] {
            through.query(&text).ok();
            straight.query(&text).ok();
        }
    }
    for text in [
        "INSERT INTO narrow VALUES (1, 1)",
        "INSERT INTO narrow VALUES (2, 2)",
        "INSERT INTO narrow VALUES (4, 1)",
        "INSERT INTO narrow VALUES (13, NULL)",
        "INSERT INTO narrow VALUES (42, 2)",
        "INSERT INTO loose VALUES (1, 1)",
        "INSERT INTO loose VALUES (4, 2)",
        "INSERT INTO loose VALUES (13, 1)",
        "INSERT INTO loose VALUES (40000, NULL)",
        "INSERT INTO short VALUES ('ab', 1)",
        "INSERT INTO short VALUES ('cd', 2)",
        "INSERT INTO short VALUES ('ef', 1)",
        "INSERT INTO short VALUES ('abcd ', 2)",
    ] {
        through.query(text).ok();
        straight.query(text).ok();
    }
    let seed = number("ROUTES_SEED", 1);
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut wrong = String::new();
    for seed in seed..seed + number("ROUTES_CASES", CASES) {
        let mut maker = Maker {
            random: SmallRng::seed_from_u64(seed),
            extended: seed % 2 == 0,
            parameters: Vec::new(),
        };
        let writes = maker.one_in(4);
        let (kind, text) = if writes {
            maker.write()
        } else {
            maker.select()
        };
        if writes {
            through.query("BEGIN").ok();
            straight.query("BEGIN").ok();
        }
        let found = run(&mut through, &maker, &text);
        let expected = run(&mut straight, &maker, &text);
        if writes {
            through.query("ROLLBACK").ok();
            straight.query("ROLLBACK").ok();
        }
        let (all, answered) = counts.entry(kind).or_default();
        *all += 1;
        if refusal(&found).is_some() {
            continue;
        }
        *answered += 1;
        if comparable(&found) != comparable(&expected) {
            writeln!(
                wrong,
                "seed {seed}, {kind}: {text} {:?}\n  one:  {}\n  herd: {}",
                maker.parameters,
                comparable(&expected),
                comparable(&found)
            )
            .unwrap();
        }
    }
    let told: Vec<String> = counts
        .iter()
        .map(|(kind, (all, answered))| format!("{kind}: {answered} of {all}"))
        .collect();
    println!("answered: {}", told.join(", "));
    assert!(wrong.is_empty(), "\n{wrong}");
    both.compare_rows();
    for (kind, (all, answered)) in counts {
        assert!(
            answered * 100 >= all * ANSWERED_MIN,
            "{kind}: {answered} of {all} were answered"
        );
    }
}
