//! The pooled checks with tokio-postgres: a task for each client, named statements, pipelines, portals and COPY. See
//! `pooled.py`, which asks the same.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::future::Future;
use std::pin::pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::{SinkExt, StreamExt, TryStreamExt, future::try_join_all};
use tokio::sync::Barrier;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Error, GenericClient, NoTls, Row};

/// With what noon of 1 July 2024 is in it.
const ZONES: [(&str, i64); 5] = [
    ("Europe/Prague", 1_719_828_000),
    ("Asia/Tokyo", 1_719_802_800),
    ("America/New_York", 1_719_849_600),
    ("UTC", 1_719_835_200),
    ("Asia/Kathmandu", 1_719_814_500),
];

/// With what day '01/02/03' is.
const STYLES: [(&str, &str); 3] = [
    ("ISO, MDY", "2003-01-02"),
    ("ISO, DMY", "2003-02-01"),
    ("ISO, YMD", "2001-02-03"),
];

const SETTINGS: [&str; 7] = [
    "application_name",
    "TimeZone",
    "DateStyle",
    "search_path",
    "work_mem",
    "statement_timeout",
    "app.tenant",
];

const INSERT: &str = "INSERT INTO marks (client, what, mark) VALUES ($1, $2, $3)";
const COUNT: &str = "SELECT count(*) FROM marks WHERE client = $1 AND mark = $2";
const MANY: &str = "SELECT $1::text || '-' || n FROM generate_series(1, 120) AS n";
const FAILURES_SHOWN_MAX: usize = 12;

type Settings = BTreeMap<&'static str, String>;

#[derive(Default)]
struct Tally {
    checks: usize,
    failures: Vec<String>,
}

/// What one client has set, as it knows it, and its marks, which nobody else has.
struct Own {
    number: usize,
    id: i32,
    user: &'static str,
    settings: Settings,
    /// What RESET leads to.
    startup: Settings,
    marks: usize,
    tally: Arc<Mutex<Tally>>,
}

fn read_text() -> String {
    let mut text = "SELECT $1::text AS mark".to_owned();
    for name in SETTINGS {
        write!(text, ", current_setting('{name}')").unwrap();
    }
    text + ", current_user::text, '01/02/03'::date::text, extract(epoch FROM '2024-07-01 12:00'::timestamptz)::bigint::text, \
         (SELECT name::text FROM here), (SELECT string_agg(body, ',') FROM notes)"
}

impl Own {
    fn new(number: usize, tally: Arc<Mutex<Tally>>) -> Own {
        let mut own = Own {
            number,
            id: i32::try_from(number).unwrap(),
            user: if number.is_multiple_of(5) {
                "pooled_keeper"
            } else {
                "shop"
            },
            settings: Settings::new(),
            startup: Settings::new(),
            marks: 0,
            tally,
        };
        let values = [
            format!("tokio-{number}"),
            ZONES[number % ZONES.len()].0.to_owned(),
            STYLES[number % STYLES.len()].0.to_owned(),
            own.place(0),
            format!("{}kB", 2049 + number),
            format!("{}ms", 60001 + number),
            format!("tenant-{number}"),
        ];
        own.settings = SETTINGS.into_iter().zip(values).collect();
        own
    }

    fn place(&self, further: usize) -> String {
        format!("place_{},public", (self.number + further) % 4)
    }

    fn mark(&mut self) -> String {
        self.marks += 1;
        format!("tokio-{}-{}", self.number, self.marks)
    }

    #[allow(
        clippy::needless_pass_by_value,
        reason = "a check reads best with values as they are"
    )]
    fn equal<T: PartialEq + Debug>(&self, what: &str, found: T, expected: T) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.checks += 1;
        if found != expected {
            tally.failures.push(format!(
                "client {}, {what}: {found:?} instead of {expected:?}",
                self.number
            ));
        }
    }

    async fn fails<T>(
        &self,
        what: &str,
        sqlstate: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) {
        let error = work.await.err();
        let found = error.as_ref().and_then(|error| Some(error.code()?.code()));
        self.equal(what, found, Some(sqlstate));
    }

    /// Holds a row of the question to what this client has set, and to what it has `changed` for a while.
    fn holds(&self, what: &str, mark: String, row: &Row, changed: &[(&'static str, String)]) {
        let mut now = self.settings.clone();
        now.extend(changed.iter().cloned());
        let day = STYLES
            .iter()
            .find(|(style, _)| *style == now["DateStyle"])
            .unwrap()
            .1;
        let noon = ZONES
            .iter()
            .find(|(zone, _)| *zone == now["TimeZone"])
            .unwrap()
            .1;
        let tenant = now["app.tenant"].trim_start_matches("tenant-");
        let mut expected = vec![mark];
        expected.extend(SETTINGS.iter().map(|name| now[name].clone()));
        expected.extend([self.user.to_owned(), day.to_owned(), noon.to_string()]);
        expected.push(now["search_path"].split(',').next().unwrap().to_owned());
        expected.push(format!("note of {tenant}"));
        self.equal(&format!("{what}: columns"), row.len(), expected.len());
        for (at, expected) in expected.into_iter().enumerate() {
            let name = at.checked_sub(1).and_then(|at| SETTINGS.get(at));
            let name = name.map_or_else(|| format!("column {at}"), ToString::to_string);
            let found: Option<String> = row.get(at);
            self.equal(&format!("{what}: {name}"), found, Some(expected));
        }
    }

    async fn read(
        &mut self,
        client: &impl GenericClient,
        what: &str,
        changed: &[(&'static str, String)],
    ) -> Result<(), Error> {
        let mark = self.mark();
        let row = client.query_one(&read_text(), &[&mark]).await?;
        self.holds(what, mark, &row, changed);
        Ok(())
    }

    async fn insert(
        &self,
        client: &impl GenericClient,
        what: &str,
        mark: &str,
    ) -> Result<u64, Error> {
        client.execute(INSERT, &[&self.id, &what, &mark]).await
    }

    async fn count(&self, client: &impl GenericClient, mark: &str) -> Result<i64, Error> {
        Ok(client.query_one(COUNT, &[&self.id, &mark]).await?.get(0))
    }

    async fn connect(&mut self, dsn: &str) -> Result<Client, Error> {
        let mut config = Config::from_str(dsn)?;
        config.connect_timeout(Duration::from_secs(30));
        let at_startup = self.number.is_multiple_of(2);
        if at_startup {
            self.startup = self.settings.clone();
            let mut options = String::new();
            for (name, value) in self
                .settings
                .iter()
                .filter(|(name, _)| **name != "application_name")
            {
                write!(options, "-c {name}={} ", value.replace(' ', "\\ ")).unwrap();
            }
            config.options(options.trim_end());
            config.application_name(&self.settings["application_name"]);
        }
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        if !at_startup {
            for (name, value) in &self.settings {
                let text = format!("SELECT set_config('{name}', $1, false)");
                client.execute(&text, &[value]).await?;
            }
        }
        if self.user != "shop" {
            client
                .batch_execute(&format!("SET ROLE {}", self.user))
                .await?;
        }
        Ok(client)
    }

    async fn commits(&mut self, client: &mut Client, round: usize) -> Result<(), Error> {
        let (mark, what) = (self.mark(), format!("kept {round}"));
        let work_mem = format!("{}kB", 3073 + self.number + round);
        let mut transaction = client.transaction().await?;
        self.insert(&transaction, &what, &mark).await?;
        let inner = transaction.savepoint("a").await?;
        inner.batch_execute("SET work_mem = '99MB'").await?;
        let shown: String = inner.query_one("SHOW work_mem", &[]).await?.get(0);
        self.equal("set in a savepoint", shown.as_str(), "99MB");
        inner.rollback().await?;
        let inner = transaction.savepoint("b").await?;
        self.fails(
            "the same row twice",
            "23505",
            self.insert(&inner, &what, "twice"),
        )
        .await;
        inner.rollback().await?;
        transaction
            .batch_execute(&format!("SET work_mem = '{work_mem}'"))
            .await?;
        transaction.commit().await?;
        self.settings.insert("work_mem", work_mem);
        self.equal("committed", self.count(client, &mark).await?, 1);
        self.read(client, "after a commit", &[]).await
    }

    async fn rolls_back(&mut self, client: &mut Client, round: usize) -> Result<(), Error> {
        let (mark, path) = (self.mark(), self.place(1));
        // Prepared outside, used inside and after: it must follow the search_path.
        let statement = client.prepare(&read_text()).await?;
        let transaction = client.build_transaction().read_only(false).start().await?;
        self.insert(&transaction, &format!("gone {round}"), &mark)
            .await?;
        transaction
            .batch_execute("SET app.tenant = 'tenant-77'")
            .await?;
        transaction
            .execute("SELECT set_config('search_path', $1, false)", &[&path])
            .await?;
        let row = transaction.query_one(&statement, &[&mark]).await?;
        let changed = [
            ("app.tenant", "tenant-77".to_owned()),
            ("search_path", path),
        ];
        self.holds("before a rollback", mark.clone(), &row, &changed);
        transaction.rollback().await?;
        let row = client.query_one(&statement, &[&mark]).await?;
        self.holds(
            "the same statement after a rollback",
            mark.clone(),
            &row,
            &[],
        );
        self.read(client, "after a rollback", &[]).await?;
        self.equal("rolled back", self.count(client, &mark).await?, 0);
        Ok(())
    }

    async fn sets_locally(&mut self, client: &mut Client) -> Result<(), Error> {
        let path = self.place(2);
        let transaction = client.transaction().await?;
        transaction
            .batch_execute("SET LOCAL TIME ZONE 'Asia/Tokyo'")
            .await?;
        transaction
            .execute("SELECT set_config('app.tenant', $1, true)", &[&"tenant-55"])
            .await?;
        transaction
            .execute("SELECT set_config('search_path', $1, true)", &[&path])
            .await?;
        let changed = [
            ("app.tenant", "tenant-55".to_owned()),
            ("search_path", path),
            ("TimeZone", "Asia/Tokyo".to_owned()),
        ];
        self.read(&transaction, "set locally", &changed).await?;
        transaction.commit().await?;
        self.read(client, "after SET LOCAL", &[]).await
    }

    async fn errs(&mut self, client: &mut Client) -> Result<(), Error> {
        let divides = client.prepare("SELECT 1 / $1::int").await?;
        self.fails("an error alone", "22012", client.query(&divides, &[&0]))
            .await;
        let transaction = client.transaction().await?;
        self.fails("an error", "22012", transaction.query(&divides, &[&0]))
            .await;
        self.fails(
            "behind an error",
            "25P02",
            transaction.query(&divides, &[&1]),
        )
        .await;
        transaction.rollback().await?;
        let transaction = client.transaction().await?;
        transaction
            .batch_execute("SET LOCAL statement_timeout = '5ms'")
            .await?;
        self.fails(
            "too slow",
            "57014",
            transaction.query("SELECT pg_sleep($1)", &[&5.0_f64]),
        )
        .await;
        transaction.rollback().await?;
        self.read(client, "after errors", &[]).await
    }

    /// All are sent before the first answer is there; each has a Sync of its own.
    async fn pipelines(&mut self, client: &mut Client, round: usize) -> Result<(), Error> {
        let mark = self.mark();
        let insert = client.prepare(INSERT).await?;
        let whats: Vec<String> = (0..40).map(|at| format!("many {round} {at}")).collect();
        let rows: Vec<[&(dyn ToSql + Sync); 3]> = whats
            .iter()
            .map(|what| [&self.id as &(dyn ToSql + Sync), what, &mark])
            .collect();
        let counts = try_join_all(rows.iter().map(|row| client.execute(&insert, row))).await?;
        self.equal("a pipeline", counts, vec![1; 40]);
        self.equal("all of it", self.count(client, &mark).await?, 40);
        let transaction = client.transaction().await?;
        let divides = transaction.prepare("SELECT $1::int / $2::int").await?;
        let by_one: [&(dyn ToSql + Sync); 2] = [&self.id, &1];
        let by_zero: [&(dyn ToSql + Sync); 2] = [&self.id, &0];
        let (good, bad, behind) = tokio::join!(
            transaction.query_one(&divides, &by_one),
            transaction.query_one(&divides, &by_zero),
            transaction.query_one(&divides, &by_one),
        );
        self.equal("before the error", good?.get(0), self.id);
        self.fails("in the middle of a pipeline", "22012", async { bad })
            .await;
        self.fails("behind it", "25P02", async { behind }).await;
        transaction.rollback().await
    }

    async fn streams(&mut self, client: &mut Client) -> Result<(), Error> {
        let mark = self.mark();
        let expected: Vec<String> = (1..=120).map(|at| format!("{mark}-{at}")).collect();
        let first = |row: Row| row.get::<_, String>(0);
        let transaction = client.transaction().await?;
        let portal = transaction.bind(MANY, &[&mark]).await?;
        let mut found: Vec<String> = Vec::new();
        found.extend(
            transaction
                .query_portal(&portal, 25)
                .await?
                .into_iter()
                .map(first),
        );
        self.equal("the first of a portal", found.as_slice(), &expected[..25]);
        self.read(&transaction, "beside a portal", &[]).await?;
        found.extend(
            transaction
                .query_portal(&portal, 0)
                .await?
                .into_iter()
                .map(first),
        );
        self.equal("a portal", &found, &expected);
        transaction.commit().await?;
        let rows = client.query_raw(MANY, [&mark]).await?;
        let found: Vec<String> = rows.map_ok(first).try_collect().await?;
        self.equal("a stream", found, expected);
        Ok(())
    }

    async fn copies(&mut self, client: &mut Client, round: usize) -> Result<(), Error> {
        let (mark, number) = (self.mark(), self.number);
        let mut sink = pin!(
            client
                .copy_in("COPY marks (client, what, mark) FROM STDIN")
                .await?
        );
        for at in 0..30 {
            let line = format!("{number}\tcopied {round} {at}\t{mark}\n");
            sink.send(bytes::Bytes::from(line)).await?;
        }
        self.equal("copied in", sink.finish().await?, 30);
        let text = format!("COPY (SELECT client, mark FROM marks WHERE mark = '{mark}') TO STDOUT");
        let mut out = Vec::new();
        let mut stream = pin!(client.copy_out(&text).await?);
        while let Some(chunk) = stream.next().await {
            out.extend_from_slice(&chunk?);
        }
        let expected = format!("{number}\t{mark}\n").repeat(30);
        self.equal(
            "copied out",
            String::from_utf8_lossy(&out).as_ref(),
            expected.as_str(),
        );
        Ok(())
    }

    async fn types(&mut self, client: &mut Client) -> Result<(), Error> {
        let doc = format!("{{\"n\": [1, null, \"ü\"], \"mark\": \"{}\"}}", self.mark());
        let list = vec![self.id, -1];
        let words = vec!["a,b".to_owned(), "q\"q".to_owned(), "ž".to_owned()];
        let seen = SystemTime::UNIX_EPOCH
            + Duration::from_micros(1_772_323_199_123_456 + self.number as u64);
        let photo: Vec<u8> = (0..=255).collect();
        let amount = format!("{}.12345", self.number);
        let row = client
            .query_one(
                "INSERT INTO kinds (client, doc, list, words, seen, photo, amount, feel) VALUES \
                 ($1, $2::text::jsonb, $3, $4, $5, $6, $7::text::numeric, $8::text::mood) \
                 RETURNING doc = $2::text::jsonb, list, words, seen, photo, amount::text, feel::text",
                &[&self.id, &doc, &list, &words, &seen, &photo, &amount, &"cross"],
            )
            .await?;
        self.equal("jsonb", row.get(0), true);
        self.equal("int[]", row.get(1), list);
        self.equal("text[]", row.get(2), words);
        self.equal("timestamptz", row.get(3), seen);
        self.equal("bytea", row.get(4), photo);
        self.equal("numeric", row.get(5), amount);
        self.equal("an enum", row.get(6), "cross".to_owned());
        Ok(())
    }

    async fn resets(&mut self, client: &mut Client) -> Result<(), Error> {
        let before = self.settings["work_mem"].clone();
        client.batch_execute("RESET work_mem").await?;
        let reset = self.startup.get("work_mem").map_or("4MB", String::as_str);
        self.settings.insert("work_mem", reset.to_owned());
        self.read(client, "after RESET", &[]).await?;
        client
            .batch_execute(&format!("SET SESSION work_mem TO '{before}'"))
            .await?;
        self.settings.insert("work_mem", before);
        Ok(())
    }

    async fn works(
        &mut self,
        dsn: &str,
        together: &Barrier,
        rounds: usize,
        breaks: bool,
    ) -> Result<(), Error> {
        let connected = self.connect(dsn).await;
        // All are connected before any works; who is not must not keep the others waiting.
        together.wait().await;
        let mut client = connected?;
        for round in 0..rounds {
            self.read(&client, "at first", &[]).await?;
            if breaks && self.number == 0 {
                client.batch_execute("SET app.tenant = 'tenant-1'").await?;
            }
            self.commits(&mut client, round).await?;
            self.rolls_back(&mut client, round).await?;
            self.sets_locally(&mut client).await?;
            self.errs(&mut client).await?;
            self.pipelines(&mut client, round).await?;
            self.streams(&mut client).await?;
            self.copies(&mut client, round).await?;
            self.types(&mut client).await?;
            self.resets(&mut client).await?;
            self.read(&client, "at last", &[]).await?;
            let name = SETTINGS[self.number % SETTINGS.len()];
            let row = client.query_one(&format!("SHOW {name}"), &[]).await?;
            let expected = self.settings[name].as_str();
            self.equal(&format!("shown {name}"), row.get(0), expected);
        }
        Ok(())
    }
}

/// All clients at once; gives what the scripts in other languages print.
pub fn run(dsn: &str, clients: usize, rounds: usize, breaks: bool) -> String {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let together = Arc::new(Barrier::new(clients));
        let tasks: Vec<_> = (0..clients)
            .map(|number| {
                let (tally, together, dsn) =
                    (Arc::clone(&tally), Arc::clone(&together), dsn.to_owned());
                tokio::spawn(async move {
                    let mut own = Own::new(number, Arc::clone(&tally));
                    if let Err(error) = own.works(&dsn, &together, rounds, breaks).await {
                        let said = format!("client {number}, after {} marks: {error:?}", own.marks);
                        tally
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .failures
                            .push(said);
                    }
                })
            })
            .collect();
        for task in tasks {
            // A panic is one of the test itself.
            task.await.unwrap();
        }
    });
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let mut said = String::new();
    for failure in tally.failures.iter().take(FAILURES_SHOWN_MAX) {
        writeln!(said, "FAILED {failure}").unwrap();
    }
    let (checks, failed) = (tally.checks, tally.failures.len());
    said + &format!("tokio: {clients} clients, {checks} checks, {failed} failed\n")
}
