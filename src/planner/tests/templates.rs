//! A template with other literals says what planning anew says.

use std::fmt::Write;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{PLACEMENT, knowledge, planned};
use crate::planner::{Plan, Template, template};
use crate::sql::scan::tokens;
use crate::sql::slots::{Class, Stripped, class};
use crate::sql::understand;

/// Cases of the property; each is one text planned anew and from the template of another.
const CASES: usize = 100_000;
/// Texts with other literals for each template.
const OTHERS: usize = 8;

fn template_of(sql: &str) -> Option<Template> {
    let statement = understand(sql).ok()?;
    template(&statement, &knowledge(), &Stripped::of(sql)).ok()
}

/// Literals of each class that could make a difference: keys of several shards and spellings, words that read the
/// clock, what is no value of a key's type, ordinals.
fn literal(class: Class, random: &mut SmallRng) -> String {
    let pool: &[&str] = match class {
        Class::Text => &[
            "'1'",
            "'42'",
            "' 042 '",
            "'-1'",
            "'x'",
            "''",
            "'now'",
            "'to''day'",
            "'a now b'",
            "'1234567 '",
            "'123456789'",
            "'12345678  '",
            "'00000000-0000-0000-0000-000000000001'",
            "'é'",
            "'9223372036854775808'",
            "'1 day'",
            "'{1,2}'",
        ],
        Class::Int4 => &["0", "1", "2", "3", "42", "042", "7", "32768", "2147483647"],
        Class::Int8 => &["2147483648", "9223372036854775807", "5000000000"],
        Class::Numeric => &["1.5", ".5", "1e3", "42.0", "9223372036854775808"],
    };
    (*pool.choose(random).unwrap()).to_owned()
}

/// The text with other literals of the same classes; sometimes several of them the same, and some as they were.
fn vary(sql: &str, random: &mut SmallRng) -> String {
    let mut varied = String::new();
    let mut end = 0;
    let mut last: Vec<(Class, String)> = Vec::new();
    for token in tokens(sql.as_bytes(), true) {
        let piece = &sql[token.span.clone()];
        let Some(class) = class(token.kind, piece.as_bytes()) else {
            continue;
        };
        varied.push_str(&sql[end..token.span.start]);
        end = token.span.end;
        let same = last.iter().find(|(of, _)| *of == class);
        let other = match (same, random.random_range(0..4)) {
            (_, 0) => piece.to_owned(),
            (Some((_, same)), 1) => same.clone(),
            _ => literal(class, random),
        };
        varied.push_str(&other);
        last.insert(0, (class, other));
    }
    varied.push_str(&sql[end..]);
    varied
}

/// What the template of one text says of another, `None` where it has to be planned anew.
fn compare(template: &Template, sql: &str) -> Option<Plan> {
    let stripped = Stripped::of(sql);
    let from_template = template.plan(&stripped, &PLACEMENT)?;
    let anew = planned(sql);
    assert_eq!(
        Some(&from_template),
        anew.as_ref().ok(),
        "{sql}\n{template:?}\n{anew:?}"
    );
    Some(from_template)
}

/// The property for one example; it also holds for its own text.
pub(super) fn holds_for_other_literals(sql: &str) {
    let Some(template) = template_of(sql) else {
        return;
    };
    let own = template.plan(&Stripped::of(sql), &PLACEMENT);
    assert_eq!(own, planned(sql).ok(), "{sql}");
    let mut random = SmallRng::seed_from_u64(sql.len() as u64);
    for _ in 0..OTHERS {
        let other = vary(sql, &mut random);
        assert_eq!(
            Stripped::of(&other).key(),
            Stripped::of(sql).key(),
            "{other}"
        );
        compare(&template, &other);
    }
}

/// Statements made of parts that matter to a proof.
struct Maker(SmallRng);

impl Maker {
    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices.choose(&mut self.0).unwrap()
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.0.random_range(0..count) == 0
    }

    fn value(&mut self) -> String {
        let class = *[
            Class::Int4,
            Class::Int4,
            Class::Int4,
            Class::Text,
            Class::Int8,
            Class::Numeric,
        ]
        .choose(&mut self.0)
        .unwrap();
        let literal = literal(class, &mut self.0);
        match self.0.random_range(0..8) {
            0 if class != Class::Text => format!("-{literal}"),
            1 => format!("{literal}::int8"),
            2 => format!("{literal}::text"),
            3 => format!("CAST({literal} AS int4)"),
            _ => literal,
        }
    }

    fn condition(&mut self, table: &str) -> String {
        let key = match table {
            "accounts" => "code",
            _ => "customer_id",
        };
        let value = self.value();
        match self.0.random_range(0..9) {
            0 => format!("{value} = {table}.{key}"),
            1 => format!("{table}.{key} IN ({value})"),
            2 => format!("{table}.{key} IN ({value}, {})", self.value()),
            3 => format!("{table}.{key} > {value}"),
            4 => format!("({table}.{key} = {value} OR 1 = {})", self.value()),
            5 => format!("EXISTS (SELECT 1 FROM orders e WHERE e.customer_id = {value})"),
            _ => format!("{table}.{key} = {value}"),
        }
    }

    fn conditions(&mut self, tables: &[&str]) -> String {
        let count = self.0.random_range(1..4);
        let each: Vec<String> = (0..count)
            .map(|_| {
                let table = self.of(tables);
                self.condition(table)
            })
            .collect();
        each.join(" AND ")
    }

    fn select(&mut self) -> String {
        let (from, tables): (&str, &[&str]) = *[
            ("orders", &["orders"][..]),
            ("orders o", &["o"]),
            ("customers c", &["c"]),
            ("accounts", &["accounts"]),
            ("countries", &["orders"]),
            (
                "orders o JOIN customers c ON c.customer_id = o.customer_id",
                &["o", "c"],
            ),
            ("orders o, customers c", &["o", "c"]),
            (
                "orders o LEFT JOIN customers c ON c.customer_id = o.customer_id",
                &["o", "c"],
            ),
            (
                "customers c LEFT JOIN orders o ON c.customer_id = o.customer_id AND o.customer_id = 42",
                &["o", "c"],
            ),
            (
                "(SELECT customer_id, count(*) FROM orders GROUP BY 1) o",
                &["o"],
            ),
            (
                "(SELECT count(*), customer_id FROM orders GROUP BY 2) o",
                &["o"],
            ),
            (
                "(SELECT customer_id, order_id FROM orders GROUP BY 1, 2) o",
                &["o"],
            ),
            ("(SELECT * FROM orders WHERE customer_id = 1) o", &["o"]),
        ]
        .choose(&mut self.0)
        .unwrap();
        let items = self.of(&[
            "*",
            "1",
            "'x'",
            "count(*)",
            "'now'::timestamptz",
            "date '2020-01-01'",
            "-5, 'a'",
        ]);
        let mut text = format!("SELECT {items} FROM {from}");
        if !self.one_in(6) {
            let _ = write!(text, " WHERE {}", self.conditions(tables));
        }
        text.push_str(self.of(&[
            "",
            "",
            "",
            " ORDER BY 1",
            " LIMIT 5",
            " GROUP BY 1",
            " FOR UPDATE",
            " ORDER BY 1 LIMIT 3 OFFSET 2",
        ]));
        text
    }

    fn write(&mut self) -> String {
        let value = self.value();
        match self.0.random_range(0..7) {
            0 => format!("INSERT INTO orders (customer_id, order_id) VALUES ({value}, 1)"),
            1 => format!("INSERT INTO accounts (code, owner) VALUES ({value}, 'x')"),
            2 => format!(
                "INSERT INTO accounts (code, owner) VALUES ({value}, (SELECT 'y' FROM accounts WHERE code = {}))",
                self.value()
            ),
            3 => format!(
                "INSERT INTO orders VALUES ({value}, {}, {})",
                self.value(),
                self.value()
            ),
            4 => format!(
                "UPDATE orders SET total = {value} WHERE {}",
                self.conditions(&["orders"])
            ),
            5 => format!(
                "DELETE FROM customers WHERE {}",
                self.conditions(&["customers"])
            ),
            _ => format!(
                "UPDATE orders SET total = 1 FROM customers c WHERE c.customer_id = orders.customer_id AND {}",
                self.conditions(&["orders", "c"])
            ),
        }
    }

    fn statement(&mut self) -> String {
        match self.0.random_range(0..8) {
            0 => self.write(),
            1 => format!("WITH w AS ({}) SELECT * FROM w", self.select()),
            2 => format!("{} UNION ALL {}", self.select(), self.select()),
            _ => self.select(),
        }
    }
}

/// How often the template was of use.
#[derive(Default)]
struct Tally {
    cases: usize,
    hits: usize,
    keyed: usize,
}

fn search(seed: u64, cases: usize) -> Tally {
    let mut maker = Maker(SmallRng::seed_from_u64(seed));
    let mut tally = Tally::default();
    while tally.cases < cases {
        let sql = maker.statement();
        let Some(template) = template_of(&sql) else {
            continue;
        };
        for _ in 0..OTHERS {
            let other = vary(&sql, &mut maker.0);
            tally.cases += 1;
            if compare(&template, &other).is_some() {
                tally.hits += 1;
                tally.keyed += usize::from(template.keys.is_some());
            }
        }
    }
    tally
}

#[test]
fn a_template_says_what_planning_anew_says() {
    let halves = [1, 2].map(|seed| std::thread::spawn(move || search(seed, CASES / 2)));
    for half in halves {
        let tally = half.join().unwrap();
        // If hardly any text passed, nothing was tried.
        assert!(
            tally.hits * 2 > tally.cases,
            "{} of {}",
            tally.hits,
            tally.cases
        );
        assert!(
            tally.keyed * 3 > tally.cases,
            "{} of {}",
            tally.keyed,
            tally.cases
        );
    }
}

#[test]
fn what_values_decided_is_decided_anew() {
    let passes = |from: &str, other: &str| {
        let template = template_of(from).unwrap();
        assert_eq!(Stripped::of(from).key(), Stripped::of(other).key());
        compare(&template, other).is_some()
    };
    let select = |condition: &str| format!("SELECT * FROM orders WHERE customer_id = {condition}");
    assert!(passes(&select("1"), &select("42")));
    assert!(passes(&select("-1"), &select("-42")));
    assert!(passes(&select("'1'"), &select("' 42 '")));
    assert!(passes(
        &select("1 AND note = 'a'"),
        &select("1 AND note = 'now'")
    ));
    // Over all shards no text may read the clock.
    assert!(passes(
        "SELECT * FROM orders WHERE note = 'a'",
        "SELECT * FROM orders WHERE note = 'b'"
    ));
    assert!(!passes(
        "SELECT * FROM orders WHERE note = 'a'",
        "SELECT * FROM orders WHERE note = 'now'"
    ));
    // Two keys that were the same, and are not.
    let both = |one: u32, other: u32| {
        format!(
            "SELECT * FROM orders WHERE customer_id = {one} AND EXISTS (SELECT 1 FROM customers c WHERE c.customer_id = {other})"
        )
    };
    assert!(passes(&both(1, 1), &both(42, 42)));
    assert!(!passes(&both(1, 1), &both(1, 42)));
    // An ordinal names a column.
    let grouped = |ordinal: u32| {
        format!(
            "SELECT * FROM (SELECT customer_id, order_id FROM orders GROUP BY {ordinal}, 1, 2) o WHERE customer_id = 1"
        )
    };
    assert!(passes(&grouped(1), &grouped(1)));
    assert!(!passes(&grouped(1), &grouped(2)));
}

#[test]
fn a_template_of_somebodys_megabyte_is_not_kept() {
    let grouped = |ordinal: &str| {
        let sql = format!(
            "SELECT * FROM (SELECT customer_id FROM orders GROUP BY {ordinal}) o WHERE customer_id = 1"
        );
        template_of(&sql).unwrap().is_small()
    };
    assert!(grouped("1"));
    assert!(!grouped(&format!("{}1", "0".repeat(2000))));
    let listed = |count: usize| {
        let sql = format!(
            "SELECT * FROM orders WHERE note IN ({})",
            vec!["''"; count].join(", ")
        );
        template_of(&sql).unwrap().is_small()
    };
    assert!(listed(10));
    assert!(!listed(1000));
}
