//! Soak: many clients on few servers, with everything that goes wrong in a day pressed into seconds: cancel requests,
//! killed backends, time-outs, errors in pipelines, half-sent messages, clients that leave. Every row carries its
//! client's mark, so a foreign row is seen at once.
//!
//! Ten seconds in `make test`; `make soak` sets `SOAK_SECONDS` to 120 and then holds the memory to its bound, too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::client::{Client, Frame, Reply, bind, cancel_request, execute, parse, query, sync};
use support::proxy::Proxy;
use support::{database, servers_with, sql, until};

const CLIENTS: u64 = 200;
const POOL: u64 = 5;
/// How long a statement may take, or a silence in a transaction.
const LIMIT: &str = "500ms";
/// What may happen to a statement here: the server was killed, it was cancelled, the server ended it.
const ACCIDENTS: &[&str] = &["08006", "57014", "57P01"];

/// xorshift64*: as random as a soak needs, and the same again for a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

#[derive(Default)]
struct Tally {
    rows: AtomicU64,
    accidents: AtomicU64,
    ended: AtomicU64,
}

struct Guest<'a> {
    id: u64,
    count: u64,
    client: Client,
    dice: Dice,
    proxy: &'a Proxy,
    database: &'a str,
    tally: &'a Tally,
    /// As ReadyForQuery said it last.
    status: u8,
}

/// The session ended under the statement, which only a session may that keeps its server, or is silent for too long.
struct Ended;

impl Guest<'_> {
    fn enter(&mut self) {
        loop {
            self.client = self.proxy.client(self.database, "postgres", "");
            let mark = format!("SET app.mark = 'guest-{}'", self.id);
            if let Ok(reply) = self.ask(&query(&mark))
                && reply.sqlstate().is_none()
            {
                return;
            }
        }
    }

    fn mark(&mut self) -> String {
        self.count += 1;
        format!("mark-{}-{}", self.id, self.count)
    }

    /// One answer up to ReadyForQuery; nothing for twenty seconds is a hang.
    fn answer(&mut self) -> Result<Reply, Ended> {
        let mut frames: Vec<Frame> = Vec::new();
        loop {
            match self.client.try_frame() {
                Ok(frame) => {
                    let last = frame.tag == b'Z';
                    if frame.tag != b'N' && frame.tag != b'S' {
                        frames.push(frame);
                    }
                    if last {
                        self.status = frames.last().unwrap().body[0];
                        let errors = frames.iter().filter(|frame| frame.tag == b'E').count();
                        assert!(errors <= 1, "guest {}: {}", self.id, Reply(frames));
                        return Ok(Reply(frames));
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    panic!("guest {} hangs; so far: {}", self.id, Reply(frames));
                }
                Err(_) => return Err(Ended),
            }
        }
    }

    fn ask(&mut self, bytes: &[u8]) -> Result<Reply, Ended> {
        if self.client.try_send(bytes).is_err() {
            return Err(Ended);
        }
        self.answer()
    }

    /// The reply has just this row, or an accident happened; `true` for the row.
    fn expect(&mut self, reply: &Reply, row: &str) -> bool {
        if let Some(state) = reply.sqlstate() {
            assert!(
                ACCIDENTS.contains(&state.as_str()),
                "guest {}: {reply}",
                self.id
            );
            self.tally.accidents.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        assert_eq!(reply.lines(), [row], "guest {}: {reply}", self.id);
        self.tally.rows.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn step(&mut self) -> Result<(), Ended> {
        let mark = self.mark();
        if self.dice.roll(40) == 0 {
            return self.overstay();
        }
        match self.dice.roll(12) {
            0 | 1 => {
                let reply = self.ask(&query(&format!("SELECT '{mark}'")))?;
                self.expect(&reply, &mark);
            }
            2 => {
                // The name is this client's, the statement is everybody's.
                let close = support::client::close(b'S', "s");
                let parsed = parse("s", "SELECT $1::text || current_setting('app.mark')", &[]);
                let call = [
                    bind("", "s", &[Some(mark.as_bytes())]),
                    execute("", 0),
                    sync(),
                ];
                let reply = self.ask(&[close, parsed, call.concat()].concat())?;
                self.expect(&reply, &format!("{mark}guest-{}", self.id));
            }
            3 => self.transaction(&mark)?,
            4 => {
                let fails = [
                    parse("", "SELECT 1/0", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                ];
                let behind = [
                    parse("", "SELECT 'never'", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ];
                let mine = query(&format!("SELECT '{mark}'"));
                let reply = self.ask(&[fails.concat(), behind.concat(), mine].concat())?;
                let state = reply.sqlstate().unwrap();
                assert!(
                    state == "22012" || ACCIDENTS.contains(&state.as_str()),
                    "{reply}"
                );
                let reply = self.answer()?;
                self.expect(&reply, &mark);
            }
            5 => {
                let asks = query(&format!("SELECT pg_sleep(0.05), '{mark}'"));
                self.client.try_send(&asks).map_err(|_| Ended)?;
                thread::sleep(Duration::from_millis(self.dice.roll(60)));
                Client::connect(self.proxy.port).send(&cancel_request(&self.client.cancel_key));
                let reply = self.answer()?;
                self.expect(&reply, &format!("|{mark}"));
            }
            6 => {
                let slow = "BEGIN; SET LOCAL statement_timeout = '5ms'; SELECT pg_sleep(1)";
                let reply = self.ask(&query(slow))?;
                assert!(
                    ACCIDENTS.contains(&reply.sqlstate().unwrap().as_str()),
                    "{reply}"
                );
                self.ask(&query("ROLLBACK"))?;
            }
            7 => {
                // Somebody who leaves in the middle of a message, or of a statement.
                let mut other = self.proxy.client(self.database, "postgres", "");
                let bytes = query("SELECT 'foreign', pg_sleep(0.2)");
                let cut = usize::try_from(self.dice.roll(bytes.len() as u64 + 1)).unwrap();
                let _ = other.try_send(&bytes[..cut]);
            }
            8 => {
                let reply = self.ask(&query("SHOW app.mark"))?;
                let mine = format!("guest-{}", self.id);
                self.expect(&reply, &mine);
            }
            9 => {
                let begun = self.ask(&query("CREATE TEMP TABLE mine (v text)"))?;
                if begun.sqlstate().is_none() {
                    let insert = format!("INSERT INTO mine VALUES ('{mark}') RETURNING v");
                    let reply = self.ask(&query(&insert))?;
                    self.expect(&reply, &mark);
                    let reply = self.ask(&query("SELECT v FROM mine"))?;
                    if reply.sqlstate().is_none() && !reply.lines().is_empty() {
                        self.expect(&reply, &mark);
                    }
                    self.ask(&query("DROP TABLE IF EXISTS mine"))?;
                }
            }
            10 => {
                let many = format!("SELECT '{mark}' FROM generate_series(1, 500)");
                let reply = self.ask(&query(&many))?;
                let lines = reply.lines();
                assert!(lines.iter().all(|line| *line == mark), "guest {}", self.id);
                assert!(lines.len() == 500 || reply.sqlstate().is_some(), "{reply}");
            }
            _ => {
                let calls = (0..20).map(|_| [bind("", "", &[]), execute("", 0)].concat());
                let calls: Vec<u8> = calls.collect::<Vec<_>>().concat();
                let asks = [parse("", &format!("SELECT '{mark}'"), &[]), calls, sync()];
                let reply = self.ask(&asks.concat())?;
                let lines = reply.lines();
                assert!(
                    lines.iter().all(|line| *line == mark),
                    "guest {}: {reply}",
                    self.id
                );
                assert!(lines.len() == 20 || reply.sqlstate().is_some(), "{reply}");
            }
        }
        Ok(())
    }

    /// Takes longer than it may, with a statement or in silence.
    fn overstay(&mut self) -> Result<(), Ended> {
        if self.dice.roll(2) == 0 {
            let reply = self.ask(&query("SELECT 'foreign', pg_sleep(30)"))?;
            let state = reply.sqlstate().unwrap();
            assert!(ACCIDENTS.contains(&state.as_str()), "{reply}");
            return Ok(());
        }
        self.ask(&query("BEGIN"))?;
        let reply = self.ask(&query("INSERT INTO marks VALUES ('silent')"))?;
        if reply.sqlstate().is_some() {
            return Ok(());
        }
        // Nothing comes but the end of it.
        let frame = self.client.try_frame().map_err(|_| Ended)?;
        let state = frame.field(b'C').unwrap_or_default();
        assert!(state == "25P03" || state == "08006", "{state}");
        assert!(self.client.is_closed());
        Err(Ended)
    }

    /// A transaction whose server was lost is over when ROLLBACK says so, not when it fails itself.
    fn leave_transaction(&mut self) -> Result<(), Ended> {
        for _ in 0..10 {
            if self.status == b'I' {
                return Ok(());
            }
            self.ask(&query("ROLLBACK"))?;
        }
        panic!("guest {} cannot leave its transaction", self.id);
    }

    fn transaction(&mut self, mark: &str) -> Result<(), Ended> {
        let insert = format!("INSERT INTO marks VALUES ('{mark}') RETURNING mark");
        let select = format!("SELECT mark FROM marks WHERE mark = '{mark}'");
        let commits = self.dice.roll(2) == 0;
        for text in ["BEGIN", &insert, &select] {
            let reply = self.ask(&query(text))?;
            let good = match text {
                "BEGIN" => reply.sqlstate().is_none(),
                _ => self.expect(&reply, mark),
            };
            if !good {
                self.ask(&query("ROLLBACK"))?;
                return Ok(());
            }
        }
        let reply = self.ask(&query(if commits { "COMMIT" } else { "ROLLBACK" }))?;
        if reply.sqlstate().is_none() {
            let reply = self.ask(&query(&select))?;
            if reply.sqlstate().is_none() {
                // Acknowledged is there, rolled back is not.
                assert_eq!(
                    reply.lines().len(),
                    usize::from(commits),
                    "guest {}: {reply}",
                    self.id
                );
            }
        }
        Ok(())
    }
}

#[test]
fn two_hundred_clients_on_five_servers_see_their_own_rows_and_nothing_else() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(10, |text| text.parse().unwrap());
    let seed = std::env::var("SOAK_SEED").map_or_else(
        |_| u64::from(std::process::id()) << 20 | 1,
        |text| text.parse().unwrap(),
    );
    println!("SOAK_SECONDS={seconds} SOAK_SEED={seed}");
    let servers = servers_with("soak", 1);
    let server = &servers.all()[..1];
    let name = database(server, "soak", "CREATE TABLE marks (mark text PRIMARY KEY)");
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ size = {POOL}, query_timeout = \"{LIMIT}\", idle_in_transaction_timeout = \"{LIMIT}\" }}\n"),
    );
    let proxy = Proxy::start(&config);
    let (tally, over) = (Tally::default(), AtomicBool::new(false));
    let begun = Instant::now();
    let mut early = 0;
    thread::scope(|scope| {
        for id in 1..=CLIENTS {
            let (proxy, name, tally, over) = (&proxy, name.as_str(), &tally, &over);
            scope.spawn(move || {
                let client = proxy.client(name, "postgres", "");
                let dice = Dice(seed.wrapping_add(id.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1);
                let (database, count) = (name, 0);
                let mut guest = Guest {
                    id,
                    count,
                    client,
                    dice,
                    proxy,
                    database,
                    tally,
                    status: b'I',
                };
                guest.enter();
                while !over.load(Ordering::Relaxed) {
                    if guest
                        .step()
                        .and_then(|()| guest.leave_transaction())
                        .is_err()
                    {
                        tally.ended.fetch_add(1, Ordering::Relaxed);
                        guest.enter();
                    }
                }
            });
        }
        let mut dice = Dice(seed);
        while begun.elapsed() < Duration::from_secs(seconds) {
            thread::sleep(Duration::from_millis(100 + dice.roll(200)));
            let victim = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) v";
            sql(&server[0], &name, victim);
            if early == 0 && begun.elapsed() > Duration::from_secs(seconds / 4) {
                early = proxy.resident_kib();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let late = proxy.resident_kib();
    let [rows, accidents, ended] =
        [&tally.rows, &tally.accidents, &tally.ended].map(|count| count.load(Ordering::Relaxed));
    println!(
        "{rows} rows, {accidents} accidents, {ended} sessions ended; resident {early} KiB, then {late}"
    );
    assert!(
        rows > CLIENTS && accidents > 0,
        "{rows} rows, {accidents} accidents"
    );
    // No server works for nobody, none is in a transaction, and there are no more than the pool may have.
    let idle = "SELECT count(*) FILTER (WHERE state <> 'idle') || ' of ' || (count(*) <= 5)::text FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()";
    until("all servers are idle", || {
        sql(&server[0], &name, idle) == "0 of true"
    });
    let mut clients: Vec<Client> = (0..POOL)
        .map(|_| proxy.client(&name, "postgres", ""))
        .collect();
    for client in &mut clients {
        client.query("BEGIN").ok();
        client.query("SELECT 1").ok();
    }
    if seconds >= 100 {
        assert!(
            late * 10 <= early * 11,
            "resident: {early} KiB, then {late}"
        );
    }
}
