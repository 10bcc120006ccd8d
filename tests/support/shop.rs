//! A shop on three shards, a customer of each, and short ways to speak of them.

use std::sync::OnceLock;

use pgherd::demo::shop;

use super::client::{Client, Reply, bind, execute, parse, sync};
use super::proxy::{Proxy, init};
use super::{database, servers, sql, until};

pub const CUSTOMERS: i64 = 30;

pub struct Shop {
    pub proxy: Proxy,
    pub name: String,
    /// A customer of each shard.
    pub on: [i64; 3],
}

impl Shop {
    pub fn client(&self) -> Client {
        self.proxy.client(&self.name, "postgres", "")
    }

    /// Straight on a shard.
    pub fn ask(&self, shard: usize, text: &str) -> String {
        sql(&servers().all()[shard], &self.name, text)
    }

    /// The customer's name, straight from its shard.
    pub fn name_on(&self, shard: usize) -> String {
        let text = format!("SELECT name FROM customers WHERE id = {}", self.on[shard]);
        self.ask(shard, &text)
    }

    /// Open transactions on each shard.
    pub fn open(&self) -> [u32; 3] {
        let text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND pid <> pg_backend_pid() AND xact_start IS NOT NULL";
        [0, 1, 2].map(|shard| self.ask(shard, text).parse().unwrap())
    }

    /// How many wait for a lock on this shard.
    pub fn waiting(&self, shard: usize) -> String {
        let text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND wait_event_type = 'Lock'";
        self.ask(shard, text)
    }

    pub fn all_ends(&self) {
        until("no shard has a transaction", || self.open() == [0, 0, 0]);
    }

    pub fn select(&self, shard: usize) -> String {
        format!("SELECT name FROM customers WHERE id = {}", self.on[shard])
    }

    pub fn update(&self, shard: usize, name: &str) -> String {
        let id = self.on[shard];
        format!("UPDATE customers SET name = '{name}' WHERE id = {id}")
    }

    pub fn fail(&self, shard: usize) -> String {
        let id = self.on[shard];
        format!("SELECT 1 / (id - id) FROM customers WHERE id = {id}")
    }
}

pub fn start(name: &str) -> Shop {
    start_with(name, "")
}

/// `pool`: lines for the section of the pool.
pub fn start_with(name: &str, pool: &str) -> Shop {
    start_over(name, "", |_| format!("[pool]\n{pool}\n"))
}

/// `more`: what the schema has besides. `sections`: what the configuration of the database of this name has besides.
pub fn start_over(name: &str, more: &str, sections: impl Fn(&str) -> String) -> Shop {
    let servers = servers().all();
    let name = database(servers, name, &format!("{}; {more}", shop::SCHEMA));
    for server in servers {
        let text = "INSERT INTO countries VALUES ('CZ', 'Czechia', 'Europe'); \
                    ALTER TABLE orders ALTER CONSTRAINT orders_customer_id_fkey DEFERRABLE INITIALLY DEFERRED";
        sql(server, &name, text);
    }
    let rules = shop::RULES.replace("databases.shop.", &format!("databases.{name}."));
    let rules = format!("{rules}\n{}", sections(&name));
    let proxy = Proxy::start_with(&Proxy::config(&name, servers, &rules), init);
    let mut shop = Shop {
        proxy,
        name,
        on: [0; 3],
    };
    let mut client = shop.client();
    for id in 1..=CUSTOMERS {
        let text = format!("INSERT INTO customers (id, name, country) VALUES ({id}, 'old', 'CZ')");
        client.query(&text).ok();
    }
    for shard in 0..3 {
        let id = shop.ask(shard, "SELECT min(id) FROM customers");
        shop.on[shard] = id.parse().unwrap();
    }
    shop
}

/// Shared by tests that leave nothing behind.
pub fn shared() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| start("shared"))
}

/// One statement in one of the two protocols.
pub fn say(client: &mut Client, extended: bool, text: &str) -> Reply {
    if extended {
        client.run(text, &[])
    } else {
        client.query(text)
    }
}

/// As messages of a pipeline, without Sync.
pub fn step(text: &str) -> Vec<u8> {
    [parse("", text, &[]), bind("", "", &[]), execute("", 0)].concat()
}

pub fn pipeline(texts: &[&str]) -> Vec<u8> {
    let mut bytes: Vec<u8> = texts.iter().flat_map(|text| step(text)).collect();
    bytes.extend(sync());
    bytes
}

pub fn ends(reply: &Reply, status: char) -> bool {
    reply.to_string().ends_with(&format!("Z({status})"))
}

#[track_caller]
pub fn refused(reply: &Reply, number: &str) {
    assert_eq!(reply.sqlstate().as_deref(), Some("0A000"), "{reply}");
    let error = reply.of(b'E').next().unwrap();
    assert!(error.field(b'M').unwrap().starts_with(number), "{reply}");
    assert!(error.field(b'D').is_some() && error.field(b'H').is_some());
}

#[track_caller]
pub fn fails(reply: &Reply, sqlstate: &str) {
    assert_eq!(reply.sqlstate().as_deref(), Some(sqlstate), "{reply}");
    assert_eq!(reply.of(b'E').count(), 1, "{reply}");
    assert!(ends(reply, 'E'), "{reply}");
}
