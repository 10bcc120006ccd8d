//! How often the proxy asks the allocator for memory in the steady state of each workload: never, but where the table
//! says otherwise. `cargo bench --bench allocations` prints the table; `cargo test` runs a short form of it.
//!
//! The proxy runs in this process and the counter counts all of its threads, so clients here are plain sockets that
//! allocate nothing once they are connected. What would surprise: the least of a few measurements counts, since duties
//! in the background (a look at the memory, at the catalogue) fall into some of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::alloc::System;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use pgherd::app::Proxy;
use pgherd::demo::shop;
use pgherd::telemetry::Exporter;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::client::{
    Client, bind, bind_as, copy_data, copy_done, describe, execute, parse, query, sync,
};
use support::{PATIENCE, database, servers};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Background duties that fall into every measurement, such as the tick of a clock, stay below this.
const ALLOCATIONS_MAX: f64 = 0.01;

/// A workload has failed when none of so many measurements is below the limit.
const MEASUREMENTS_MAX: u32 = 5;

/// Larger than any read of the proxy's.
const READ_BYTES: usize = 256 * 1024;

const POOL_SIZE: usize = 2;

fn main() -> ExitCode {
    // What `cargo bench` says, and `cargo test` does not.
    let thorough = std::env::args().any(|argument| argument == "--bench");
    let rounds = if thorough { 2_000 } else { 300 };
    let stage = Stage::start();
    println!("workload | transactions | allocations each | bytes each");
    println!("---|--:|--:|--:");
    let mut failed = false;
    for workload in &workloads(&stage) {
        let figures = measure(&stage, workload, rounds);
        let allocates = figures.allocations > ALLOCATIONS_MAX;
        let verdict = if allocates { "  <- allocates" } else { "" };
        failed |= allocates;
        println!(
            "{} | {} | {:.4} | {:.1}{verdict}",
            workload.name, figures.transactions, figures.allocations, figures.bytes
        );
    }
    stage.stop();
    if failed {
        println!("more than {ALLOCATIONS_MAX} allocations for each transaction: see above");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// One round of a client: bytes to send, and how many messages of which type to wait for then.
type Step = (Vec<u8>, u8, u32);

struct Workload {
    name: &'static str,
    database: String,
    clients: usize,
    /// Once, before the rounds.
    prepare: Vec<Step>,
    round: Vec<Step>,
    transactions_per_round: u32,
    /// For what is so slow that a fraction of the rounds will do.
    rounds_divisor: u32,
}

fn workloads(stage: &Stage) -> Vec<Workload> {
    let (single, sharded) = (&stage.single, &stage.sharded);
    let select = "SELECT name FROM customers WHERE id = 7";
    let by_key = "SELECT name FROM customers WHERE id = $1";
    let prepare = |text| {
        let messages = [parse("s", text, &[20]), describe(b'S', "s"), sync()];
        (messages.concat(), b'Z', 1)
    };
    let run = |key: u64| {
        let key = key.to_be_bytes();
        let bind = bind_as("", "s", &[1], &[Some(&key)], &[1]);
        [bind, execute("", 0), sync()].concat()
    };
    let extended = || {
        let messages = [
            parse("", by_key, &[20]),
            bind("", "", &[Some(b"7")]),
            describe(b'P', ""),
            execute("", 0),
            sync(),
        ];
        messages.concat()
    };
    let simple = |database: &str| Workload {
        name: "",
        database: database.to_owned(),
        clients: 1,
        prepare: Vec::new(),
        round: vec![(query(select), b'Z', 1)],
        transactions_per_round: 1,
        rounds_divisor: 1,
    };
    // Its rows go away again with their transaction.
    let insert = |bytes: usize| {
        let text = format!("INSERT INTO notes VALUES ('{}')", "x".repeat(bytes));
        vec![
            (query("BEGIN"), b'Z', 1),
            (query(&text), b'Z', 1),
            (query("ROLLBACK"), b'Z', 1),
        ]
    };
    let copied = copy_data(&[b"y".repeat(99), b"\n".to_vec()].concat()).repeat(10_000);
    vec![
        Workload {
            name: "simple",
            ..simple(single)
        },
        Workload {
            name: "extended",
            round: vec![(extended(), b'Z', 1)],
            ..simple(single)
        },
        Workload {
            name: "prepared",
            prepare: vec![prepare(by_key)],
            round: vec![(run(7), b'Z', 1)],
            ..simple(single)
        },
        Workload {
            name: "BEGIN, prepared, simple, COMMIT",
            prepare: vec![prepare(by_key)],
            round: vec![
                (query("BEGIN"), b'Z', 1),
                (run(7), b'Z', 1),
                (query(select), b'Z', 1),
                (query("COMMIT"), b'Z', 1),
            ],
            ..simple(single)
        },
        Workload {
            name: "pipeline of 100 prepared",
            prepare: vec![prepare(by_key)],
            round: vec![(run(7).repeat(100), b'Z', 100)],
            transactions_per_round: 100,
            rounds_divisor: 20,
            ..simple(single)
        },
        Workload {
            name: "pipeline of 100 extended, one Sync",
            round: vec![(
                [
                    [
                        parse("", by_key, &[20]),
                        bind("", "", &[Some(b"7")]),
                        execute("", 0),
                    ]
                    .concat()
                    .repeat(100),
                    sync(),
                ]
                .concat(),
                b'Z',
                1,
            )],
            rounds_divisor: 20,
            ..simple(single)
        },
        Workload {
            name: "1 MB result",
            round: vec![(
                query("SELECT repeat('x', 1000) FROM generate_series(1, 1000)"),
                b'Z',
                1,
            )],
            rounds_divisor: 3,
            ..simple(single)
        },
        Workload {
            name: "64 KB insert, in a transaction",
            round: insert(64 * 1024),
            rounds_divisor: 3,
            ..simple(single)
        },
        Workload {
            name: "COPY in, 1 MB in lines",
            round: vec![
                (query("BEGIN"), b'Z', 1),
                (query("COPY notes FROM STDIN"), b'G', 1),
                ([copied, copy_done()].concat(), b'Z', 1),
                (query("ROLLBACK"), b'Z', 1),
            ],
            rounds_divisor: 10,
            ..simple(single)
        },
        Workload {
            name: "10 clients, simple",
            clients: 10,
            transactions_per_round: 10,
            rounds_divisor: 5,
            ..simple(single)
        },
        Workload {
            name: "10 clients on 2 servers, simple",
            clients: 10,
            transactions_per_round: 10,
            rounds_divisor: 5,
            ..simple(&stage.narrow)
        },
        Workload {
            name: "10 clients on 2 servers, prepared",
            clients: 10,
            prepare: vec![prepare(by_key)],
            round: vec![(run(7), b'Z', 1)],
            transactions_per_round: 10,
            rounds_divisor: 5,
            ..simple(&stage.narrow)
        },
        Workload {
            name: "3 shards, prepared by key",
            prepare: vec![prepare(by_key)],
            round: (1..=10).map(|key| (run(key), b'Z', 1)).collect(),
            transactions_per_round: 10,
            rounds_divisor: 5,
            ..simple(sharded)
        },
        Workload {
            name: "3 shards, extended by key",
            round: vec![(extended(), b'Z', 1)],
            ..simple(sharded)
        },
        Workload {
            name: "3 shards, simple by key",
            ..simple(sharded)
        },
    ]
}

struct Figures {
    transactions: u32,
    allocations: f64,
    bytes: f64,
}

fn measure(stage: &Stage, workload: &Workload, rounds: u32) -> Figures {
    let mut clients: Vec<_> = (0..workload.clients)
        .map(|_| Raw::connect(stage.port, &workload.database))
        .collect();
    for client in &mut clients {
        workload.prepare.iter().for_each(|step| client.step(step));
    }
    let rounds = (rounds / workload.rounds_divisor).max(10);
    // Until all servers were used and every buffer has its size.
    all_rounds(&mut clients, &workload.round, rounds / 2);
    let mut least: Option<Figures> = None;
    for _ in 0..MEASUREMENTS_MAX {
        let region = Region::new(ALLOCATOR);
        all_rounds(&mut clients, &workload.round, rounds);
        let change = region.change();
        let transactions = rounds * workload.transactions_per_round;
        let each = |count: usize| {
            u32::try_from(count).map_or(f64::MAX, f64::from) / f64::from(transactions)
        };
        let figures = Figures {
            transactions,
            allocations: each(change.allocations + change.reallocations),
            bytes: each(change.bytes_allocated),
        };
        if least
            .as_ref()
            .is_none_or(|least| figures.allocations < least.allocations)
        {
            least = Some(figures);
        }
        if least.as_ref().is_some_and(|least| least.allocations == 0.0) {
            break;
        }
    }
    least.unwrap()
}

fn all_rounds(clients: &mut [Raw], round: &[Step], rounds: u32) {
    for _ in 0..rounds {
        for (bytes, tag, count) in round {
            // All of them first, so that they meet in the queue of the pool.
            for client in &mut *clients {
                client.stream.write_all(bytes).unwrap();
            }
            for client in &mut *clients {
                client.wait_for(*tag, *count);
            }
        }
    }
}

/// A client that allocates nothing once it is there.
struct Raw {
    stream: TcpStream,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    _logged_in: Client,
}

impl Raw {
    fn connect(port: u16, database: &str) -> Raw {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client::over(stream.try_clone().unwrap());
        client.login(&[("user", "postgres"), ("database", database)], "");
        Raw {
            stream,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            _logged_in: client,
        }
    }

    fn step(&mut self, (bytes, tag, count): &Step) {
        self.stream.write_all(bytes).unwrap();
        self.wait_for(*tag, *count);
    }

    /// Reads messages until so many of this type have come.
    fn wait_for(&mut self, tag: u8, count: u32) {
        let mut left = count;
        while left > 0 {
            let rest = &self.buffer[self.start..self.end];
            let length = rest
                .get(1..5)
                .map(|it| u32::from_be_bytes(it.try_into().unwrap()));
            match length.map(|length| length as usize + 1) {
                Some(whole) if whole <= rest.len() => {
                    assert!(
                        rest[0] != b'E',
                        "{}",
                        String::from_utf8_lossy(&rest[..whole])
                    );
                    left -= u32::from(rest[0] == tag);
                    self.start += whole;
                }
                _ => self.read(),
            }
        }
    }

    fn read(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let count = self.stream.read(&mut self.buffer[self.end..]).unwrap();
        assert!(count > 0, "the proxy closed the connection");
        self.end += count;
    }
}

/// A proxy in this process before servers of its own.
struct Stage {
    runtime: tokio::runtime::Runtime,
    proxy: Proxy,
    port: u16,
    single: String,
    /// With few servers.
    narrow: String,
    sharded: String,
}

impl Stage {
    fn start() -> Stage {
        let servers = servers().all();
        let schema = format!("{} CREATE TABLE notes (text text);", shop::SCHEMA);
        let sharded = database(servers, "allocations", &schema);
        let rules = shop::RULES.replace("databases.shop.", &format!("databases.{sharded}."));
        let (single, narrow) = (format!("{sharded}_single"), format!("{sharded}_narrow"));
        let shard = |name: &str, pool_size: usize| {
            format!(
                "[databases.{name}]\npool = {{ size = {pool_size} }}\n\
                 [[databases.{name}.shards]]\nname = \"s0\"\nprimary = \"{}\"\n",
                servers[0].dsn(&sharded)
            )
        };
        let config = [
            support::proxy::Proxy::config(&sharded, servers, &rules),
            shard(&single, 10),
            shard(&narrow, POOL_SIZE),
        ];
        let config = config
            .concat()
            .replace("workers = 2", "workers = 1")
            .replace("{listen}", "127.0.0.1:0")
            .replace("{http}", "127.0.0.1:0");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join(format!("allocations-{}.toml", std::process::id()));
        fs::write(&path, config).unwrap();
        support::proxy::init(folder, &path);
        let config = pgherd::config::load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
        fs::remove_file(&path).unwrap();
        // As in the program: duties have a thread of their own.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let started = runtime.block_on(Proxy::start(&config, Exporter::start()));
        let proxy = started.unwrap_or_else(|error| panic!("{error}"));
        let port = proxy.addresses[0]
            .rsplit(':')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        Stage {
            runtime,
            proxy,
            port,
            single,
            narrow,
            sharded,
        }
    }

    fn stop(self) {
        self.runtime
            .block_on(self.proxy.drain(Duration::from_secs(1)));
    }
}
