//! The tour: real statements through the proxy, each with the plan that the proxy made of it, and its rows.
//!
//! What would surprise: it does not believe the proxy. Each answer is compared with what the servers say when they are
//! asked directly; a difference ends the demo with an error.

use tokio_postgres::SimpleQueryMessage;

use super::error::DemoError;
use super::load::{Link, refusal};
use super::print::{say, table};
use super::{Explained, Proxy, shop};

/// Keys that are tried until one was seen on every shard.
const KEYS_TRIED_MAX: u32 = 100;

/// One shard, asked directly.
pub(super) struct Shard {
    pub name: String,
    pub link: Link,
}

/// Rows as text, with their column names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

/// What a statement of the tour is there to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Rows,
    Refusal,
}

pub(super) async fn tour(
    proxy: &impl Proxy,
    client: &Link,
    shards: &[Shard],
) -> Result<(), DemoError> {
    say("\nOne key, one shard. Where each of these customers lives:");
    for key in one_key_per_shard(proxy, shards).await? {
        let sql = format!("SELECT id, name, country FROM customers WHERE id = {key}");
        stop(proxy, client, shards, &sql, Shows::Rows).await?;
    }
    say("\nAll that belongs to a customer is on one shard, so it can be joined there:");
    stop(
        proxy,
        client,
        shards,
        "SELECT o.id, o.placed, l.product, l.quantity, l.price\n\
         FROM orders o JOIN order_lines l ON l.customer_id = o.customer_id AND l.order_id = o.id\n\
         WHERE o.customer_id = 42",
        Shows::Rows,
    )
    .await?;
    say("\nWithout a key every shard is asked, and the rows are put together:");
    stop(
        proxy,
        client,
        shards,
        "SELECT id, name, credit FROM customers WHERE name LIKE 'Grace %'",
        Shows::Rows,
    )
    .await?;
    say("\nReference tables are the same everywhere, so any shard will do:");
    stop(
        proxy,
        client,
        shards,
        "SELECT code, name FROM countries WHERE continent = 'Africa'",
        Shows::Rows,
    )
    .await?;
    say("\nWhat cannot be answered rightly is not answered at all. Every refusal has a number:");
    let sql = "SELECT name, rank() OVER (ORDER BY credit DESC) FROM customers";
    stop(proxy, client, shards, sql, Shows::Refusal).await
}

/// One customer for each shard, as the proxy places them.
async fn one_key_per_shard(proxy: &impl Proxy, shards: &[Shard]) -> Result<Vec<u32>, DemoError> {
    let mut seen: Vec<(String, u32)> = Vec::new();
    for key in 1..=KEYS_TRIED_MAX {
        let sql = format!("SELECT id FROM customers WHERE id = {key}");
        let explained = explain(proxy, &sql).await?;
        if let [shard] = explained.shards.as_slice()
            && seen.iter().all(|(name, _)| name != shard)
        {
            seen.push((shard.clone(), key));
        }
        if seen.len() == shards.len() {
            break;
        }
    }
    seen.sort();
    Ok(seen.into_iter().map(|(_, key)| key).collect())
}

/// Runs one statement, shows it, and checks the answer.
async fn stop(
    proxy: &impl Proxy,
    client: &Link,
    shards: &[Shard],
    sql: &str,
    shows: Shows,
) -> Result<(), DemoError> {
    say(&format!("\n    {}", sql.replace('\n', "\n    ")));
    let answered = client.simple_query(sql).await;
    match (shows, answered) {
        (Shows::Refusal, Err(error)) => {
            let (state, message, hint) = refusal(&error).ok_or(DemoError::Client(error))?;
            say(&format!("    {state}: {message}"));
            if let Some(hint) = hint {
                say(&format!("    {hint}"));
            }
            Ok(())
        }
        (Shows::Refusal, Ok(_)) => Err(DemoError::NotRefused {
            sql: sql.to_owned(),
        }),
        (Shows::Rows, Err(error)) => Err(DemoError::Client(error)),
        (Shows::Rows, Ok(messages)) => {
            let explained = explain(proxy, sql).await?;
            let answer = Answer::of(messages);
            say(&format!(
                "    → {}",
                explained.text.trim_end().replace('\n', "\n      ")
            ));
            say(&table(&answer.columns, &answer.rows, "    "));
            compare(&answer, &explained, shards, sql).await
        }
    }
}

/// The rows must be those that the named shards give when they are asked directly, in whatever order; and if the proxy
/// asked one shard only, the others must not have rows that it should have found.
async fn compare(
    answer: &Answer,
    explained: &Explained,
    shards: &[Shard],
    sql: &str,
) -> Result<(), DemoError> {
    let is_reference = sql.contains("FROM countries");
    let asked: Vec<_> = if is_reference {
        shards
            .iter()
            .filter(|shard| explained.shards.contains(&shard.name))
            .take(1)
            .collect()
    } else {
        shards.iter().collect()
    };
    let mut expected = Vec::new();
    for shard in asked {
        expected.extend(
            Answer::of(
                shard
                    .link
                    .simple_query(sql)
                    .await
                    .map_err(DemoError::Client)?,
            )
            .rows,
        );
    }
    let mut found = answer.rows.clone();
    found.sort();
    expected.sort();
    if found == expected {
        Ok(())
    } else {
        Err(DemoError::WrongAnswer {
            sql: sql.to_owned(),
            found: found.len(),
            expected: expected.len(),
        })
    }
}

async fn explain(proxy: &impl Proxy, sql: &str) -> Result<Explained, DemoError> {
    proxy
        .explain(shop::DATABASE, sql)
        .await
        .map_err(DemoError::Proxy)
}

impl Answer {
    fn of(messages: Vec<SimpleQueryMessage>) -> Answer {
        let mut answer = Answer::default();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    answer.columns = columns
                        .iter()
                        .map(|column| column.name().to_owned())
                        .collect();
                }
                SimpleQueryMessage::Row(row) => {
                    let value = |index| row.try_get(index).ok().flatten().map(str::to_owned);
                    answer.rows.push((0..row.len()).map(value).collect());
                }
                _ => {}
            }
        }
        answer
    }
}
