//! The sample shop: its tables, its rules in `sharding.toml`, and its rows as SQL. Pure, and the same at every run.
//!
//! What would surprise: every column type of the driver checks is in `customers`, so that they run on the demo too.

use std::path::Path;

use super::server::Server;

pub const DATABASE: &str = "shop";
pub const USER: &str = "shop";
pub const PASSWORD: &str = "shop";

/// What is created on every shard. Customers, their orders and the lines of these share a key, so all that belongs to
/// one customer is on one shard; countries are everywhere.
pub const SCHEMA: &str = include_str!("shop.sql");

/// The rules of these tables, as they stand in `sharding.toml`.
pub const RULES: &str = r#"
[databases.shop.tables.customers]
key = "id"
[databases.shop.tables.orders]
key = "customer_id"
[databases.shop.tables.order_lines]
key = "customer_id"
[databases.shop.tables.countries]
reference = true
"#;

const CUSTOMERS: u64 = 200;
const ORDERS: u64 = 600;
const LINES_PER_ORDER: u64 = 2;

const COUNTRIES: [(&str, &str, &str); 20] = [
    ("AR", "Argentina", "South America"),
    ("AU", "Australia", "Oceania"),
    ("BR", "Brazil", "South America"),
    ("CA", "Canada", "North America"),
    ("CH", "Switzerland", "Europe"),
    ("CL", "Chile", "South America"),
    ("CZ", "Czechia", "Europe"),
    ("DE", "Germany", "Europe"),
    ("EG", "Egypt", "Africa"),
    ("ES", "Spain", "Europe"),
    ("FR", "France", "Europe"),
    ("GB", "United Kingdom", "Europe"),
    ("IN", "India", "Asia"),
    ("IT", "Italy", "Europe"),
    ("JP", "Japan", "Asia"),
    ("KE", "Kenya", "Africa"),
    ("MX", "Mexico", "North America"),
    ("NZ", "New Zealand", "Oceania"),
    ("SE", "Sweden", "Europe"),
    ("US", "United States", "North America"),
];
const FIRST_NAMES: [&str; 20] = [
    "Ada", "Alan", "Barbara", "Dennis", "Edgar", "Frances", "Grace", "Hedy", "Jean", "John",
    "Karen", "Ken", "Leslie", "Margaret", "Mary", "Niklaus", "Radia", "Robin", "Sophie", "Tony",
];
const LAST_NAMES: [&str; 10] = [
    "Adler", "Baker", "Castillo", "Dvořák", "Eriksen", "Fischer", "Gupta", "Hayashi", "Ivanova",
    "Jansen",
];
const PRODUCTS: [(&str, u64); 8] = [
    ("bell", 1250),
    ("bucket", 890),
    ("crook", 3400),
    ("dog whistle", 595),
    ("fence, 10 m", 7900),
    ("hay, 1 bale", 650),
    ("salt lick", 420),
    ("shears", 5675),
];
const STATUSES: [&str; 4] = ["paid", "shipped", "delivered", "returned"];

/// The configuration with which the demo runs.
pub fn config(servers: &[Server], listen: u16, http: u16, users_file: &Path) -> String {
    let shards: String = servers
        .iter()
        .enumerate()
        .map(|(number, server)| {
            let primary = server.dsn_of(DATABASE, USER, PASSWORD);
            format!("\n[[databases.shop.shards]]\nname = \"s{number}\"\nprimary = \"{primary}\"\n")
        })
        .collect();
    let users_file = users_file.display();
    format!(
        "# Written by `pgherd demo`; gone when it ends.\n\
         [proxy]\nlisten = [\"127.0.0.1:{listen}\"]\nhttp = \"127.0.0.1:{http}\"\nadmin_users = [\"{USER}\"]\n\n\
         [auth]\nmethod = \"scram-sha-256\"\nusers_file = \"{users_file}\"\n\n\
         [databases.shop]\n{shards}{RULES}"
    )
}

/// One INSERT for all countries: a reference table has all its rows on every shard.
pub fn countries() -> String {
    let rows: Vec<_> = COUNTRIES
        .iter()
        .map(|(code, name, continent)| format!("('{code}', '{name}', '{continent}')"))
        .collect();
    format!(
        "INSERT INTO countries (code, name, continent) VALUES {}",
        rows.join(", ")
    )
}

/// The sharded rows, one INSERT each, in an order that the foreign keys accept.
pub fn rows() -> impl Iterator<Item = String> {
    let customers = (1..=CUSTOMERS).map(customer);
    customers
        .chain((1..=ORDERS).map(order))
        .chain((1..=ORDERS).flat_map(|id| (1..=LINES_PER_ORDER).map(move |n| line(id, n))))
}

/// How many rows `rows` has of each table.
pub fn counts() -> [(&'static str, u64); 3] {
    [
        ("customers", CUSTOMERS),
        ("orders", ORDERS),
        ("order lines", ORDERS * LINES_PER_ORDER),
    ]
}

fn customer(id: u64) -> String {
    // 20 first names by 10 last names: no two customers are called alike.
    let (first, last) = (pick(&FIRST_NAMES, id), pick(&LAST_NAMES, id / 20));
    let (code, _, _) = pick(&COUNTRIES, mix(id));
    let credit = mix(id) % 100_000;
    format!(
        "INSERT INTO customers (id, name, country, credit, joined, active) VALUES ({id}, '{first} {last}', '{code}', \
         {}.{:02}, '2025-{:02}-{:02} 12:00:00+00', {})",
        credit / 100,
        credit % 100,
        mix(id) % 12 + 1,
        mix(id + 1) % 28 + 1,
        !id.is_multiple_of(7),
    )
}

fn order(id: u64) -> String {
    let status = pick(&STATUSES, mix(id));
    format!(
        "INSERT INTO orders (customer_id, id, placed, status) VALUES ({}, {id}, '2026-{:02}-{:02}', '{status}')",
        buyer(id),
        mix(id) % 10 + 1,
        mix(id + 7) % 28 + 1,
    )
}

fn line(order: u64, line: u64) -> String {
    let (product, cents) = pick(&PRODUCTS, mix(order * LINES_PER_ORDER + line));
    format!(
        "INSERT INTO order_lines (customer_id, order_id, line, product, quantity, price) \
         VALUES ({}, {order}, {line}, '{product}', {}, {}.{:02})",
        buyer(order),
        mix(order + line) % 5 + 1,
        cents / 100,
        cents % 100,
    )
}

/// Whose order it is: some buy often, everybody of the first two hundred at least once.
fn buyer(order: u64) -> u64 {
    if order <= CUSTOMERS {
        order
    } else {
        mix(order) % CUSTOMERS + 1
    }
}

fn pick<T: Copy + Default, const N: usize>(list: &[T; N], number: u64) -> T {
    let index = usize::try_from(number % N as u64).unwrap_or_default();
    list.get(index).copied().unwrap_or_default()
}

/// Something that looks random and is the same everywhere (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let a = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ (b >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (c ^ (c >> 31)) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shop_has_as_many_rows_as_it_says_and_every_customer_buys() {
        let rows: Vec<_> = rows().collect();
        let counted = |table: &str| {
            rows.iter()
                .filter(|row| row.starts_with(&format!("INSERT INTO {table} ")))
                .count()
        };
        assert_eq!(
            [
                counted("customers"),
                counted("orders"),
                counted("order_lines")
            ],
            [200, 600, 1200]
        );
        assert_eq!(counts().map(|(_, count)| count), [200, 600, 1200]);
        assert!((1..=CUSTOMERS).all(|id| (1..=ORDERS).any(|order| buyer(order) == id)));
        assert!((1..=ORDERS).all(|order| (1..=CUSTOMERS).contains(&buyer(order))));
        let names: std::collections::BTreeSet<_> = rows
            .iter()
            .filter_map(|row| row.split_once("', '")?.0.split_once(", '"))
            .map(|(_, name)| name)
            .collect();
        assert!(names.len() >= 200, "names differ: {}", names.len());
    }
}
