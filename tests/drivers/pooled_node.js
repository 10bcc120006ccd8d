// Fifty clients with node-postgres (`pg`), its cursors and its COPY streams: half of them with settings at the start-up,
// half with SET.
"use strict";

const { isDeepStrictEqual, inspect } = require("node:util");
const { randomUUID } = require("node:crypto");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const { Client } = require("pg");
const Cursor = require("pg-cursor");
const { from: copyFrom, to: copyTo } = require("pg-copy-streams");

const DSN = process.env.PGHERD_DSN;
const CLIENTS = Number(process.env.PGHERD_CLIENTS ?? 50);
const ROUNDS = Number(process.env.PGHERD_ROUNDS ?? 1);
// One client changes a setting behind its own back: its checks must notice.
const BREAKS = process.env.PGHERD_BREAKS === "1";
const FAILURES_SHOWN_MAX = 12;

// With what noon of 1 July 2024 is in it, and with what day '01/02/03' is. See pooled.py, which asks the same.
const ZONES = [
  ["Europe/Prague", 1719828000], ["Asia/Tokyo", 1719802800], ["America/New_York", 1719849600],
  ["UTC", 1719835200], ["Asia/Kathmandu", 1719814500],
];
const ORDERS = [["MDY", "2003-01-02"], ["DMY", "2003-02-01"], ["YMD", "2001-02-03"]];
const NOON = new Map(ZONES);
const DAY = new Map(ORDERS.map(([order, day]) => [`ISO, ${order}`, day]));
const SETTINGS = ["application_name", "TimeZone", "DateStyle", "search_path", "work_mem", "statement_timeout", "app.tenant"];
const READ = `SELECT $1::text AS mark, ${SETTINGS.map((name) => `current_setting('${name}')`).join(", ")},
  current_user::text, '01/02/03'::date::text, extract(epoch FROM '2024-07-01 12:00'::timestamptz)::int,
  (SELECT name::text FROM here), (SELECT string_agg(body, ',') FROM notes)`;
const READ_NAMES = ["mark", ...SETTINGS, "current_user", "a day", "a noon", "here", "notes"];
const INSERT = "INSERT INTO marks (client, what, mark) VALUES ($1, $2, $3)";
const COUNT = "SELECT count(*)::int AS n FROM marks WHERE client = $1 AND mark = $2";

let checks = 0;
const failures = [];

class Own {
  constructor(number) {
    this.number = number;
    this.marks = 0;
    this.user = number % 5 === 0 ? "pooled_keeper" : "shop";
    this.atStartup = number % 2 === 0;
    this.told = {};
    this.settings = {
      "application_name": `node-${number}`,
      "TimeZone": ZONES[number % ZONES.length][0],
      "DateStyle": `ISO, ${ORDERS[number % ORDERS.length][0]}`,
      "search_path": this.place(0),
      "work_mem": `${2049 + number}kB`,
      "statement_timeout": `${60001 + number}ms`,
      "app.tenant": `tenant-${number}`,
    };
    // What RESET leads to.
    this.startup = this.atStartup ? { ...this.settings } : {};
  }

  place(further) { return `place_${(this.number + further) % 4},public`; }

  mark() { this.marks += 1; return `node-${this.number}-${this.marks}`; }

  equal(what, found, expected) {
    checks += 1;
    if (!isDeepStrictEqual(found, expected)) {
      failures.push(`client ${this.number}, ${what}: ${inspect(found)} instead of ${inspect(expected)}`);
    }
  }

  read(what, mark, row, changed = {}) {
    const now = { ...this.settings, ...changed };
    const expected = [mark, ...SETTINGS.map((name) => now[name]), this.user, DAY.get(now.DateStyle), NOON.get(now.TimeZone),
      now.search_path.split(",")[0], `note of ${now["app.tenant"].slice("tenant-".length)}`];
    this.equal(`${what}: columns`, row.length, expected.length);
    for (const [at, name] of READ_NAMES.entries()) this.equal(`${what}: ${name}`, row[at], expected[at]);
  }
}

async function connected(own) {
  const config = { connectionString: DSN, connectionTimeoutMillis: 30_000 };
  if (own.atStartup) {
    const inOptions = ["TimeZone", "DateStyle", "search_path", "work_mem", "app.tenant"];
    config.options = inOptions.map((name) => `-c ${name}=${own.settings[name].replaceAll(" ", "\\ ")}`).join(" ");
    // Parameters of the start-up message by themselves.
    config.application_name = own.settings.application_name;
    config.statement_timeout = 60001 + own.number;
  }
  const client = new Client(config);
  client.on("error", () => {});
  client.connection.on("parameterStatus", (message) => { own.told[message.parameterName] = message.parameterValue; });
  await client.connect();
  if (!own.atStartup) {
    for (const [name, value] of Object.entries(own.settings)) {
      // SET takes no parameters; a list would be one name in quotes.
      await client.query(`SET ${name} TO ${name === "search_path" ? value : `'${value}'`}`);
    }
    own.settings.search_path = own.settings.search_path.replace(",", ", ");
  }
  if (own.user !== "shop") await client.query(`SET ROLE ${own.user}`);
  return client;
}

async function read(own, client, what, changed) {
  const mark = own.mark();
  // Named statements are prepared once; the others each time.
  const named = own.number % 3 === 0 ? {} : { name: "read" };
  const found = await client.query({ ...named, text: READ, values: [mark], rowMode: "array" });
  own.read(what, mark, found.rows[0], changed);
}

async function reads(own, client, what) {
  await read(own, client, what);
  own.equal(`${what}: told zone`, own.told.TimeZone, own.settings.TimeZone);
  own.equal(`${what}: told name`, own.told.application_name, own.settings.application_name);
}

async function fails(own, what, sqlstate, work) {
  const found = await work.then(() => undefined, (error) => error.code ?? error.message);
  own.equal(what, found, sqlstate);
}

const insert = (own, client, what, mark) => client.query({ name: "insert", text: INSERT, values: [own.number, what, mark] });
const count = async (own, client, mark) => (await client.query({ name: "count", text: COUNT, values: [own.number, mark] })).rows[0].n;

const steps = [
  async function commits(own, client, round) {
    const mark = own.mark();
    const workMem = `${3073 + own.number + round}kB`;
    await client.query("BEGIN");
    await insert(own, client, `kept ${round}`, mark);
    await client.query("SAVEPOINT a");
    await client.query("SET work_mem = '99MB'");
    own.equal("set in a savepoint", (await client.query("SHOW work_mem")).rows, [{ work_mem: "99MB" }]);
    await client.query("ROLLBACK TO SAVEPOINT a");
    await fails(own, "the same row twice", "23505", insert(own, client, `kept ${round}`, "twice"));
    await client.query("ROLLBACK TO SAVEPOINT a");
    await client.query("RELEASE SAVEPOINT a");
    await client.query(`SET work_mem = '${workMem}'`);
    await client.query("COMMIT");
    own.settings.work_mem = workMem;
    own.equal("committed", await count(own, client, mark), 1);
    await reads(own, client, "after a commit");
  },
  async function rollsBack(own, client, round) {
    const mark = own.mark();
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await insert(own, client, `gone ${round}`, mark);
    await client.query("SET app.tenant = 'tenant-77'");
    await client.query("SELECT set_config('search_path', $1, false)", [own.place(1)]);
    await read(own, client, "before a rollback", { "app.tenant": "tenant-77", "search_path": own.place(1) });
    await client.query("ROLLBACK");
    await reads(own, client, "after a rollback");
    own.equal("rolled back", await count(own, client, mark), 0);
  },
  async function setsLocally(own, client) {
    await client.query("BEGIN; SET LOCAL TIME ZONE 'Asia/Tokyo'");
    await client.query("SELECT set_config('app.tenant', $1, true)", ["tenant-55"]);
    await client.query("SELECT set_config('search_path', $1, true)", [own.place(2)]);
    const changed = { "app.tenant": "tenant-55", "search_path": own.place(2), "TimeZone": "Asia/Tokyo" };
    await read(own, client, "set locally", changed);
    await client.query("COMMIT");
    await reads(own, client, "after SET LOCAL");
  },
  async function errs(own, client) {
    await fails(own, "an error alone", "22012", client.query("SELECT 1 / $1::int", [0]));
    await client.query("BEGIN");
    await fails(own, "an error", "22012", client.query({ name: "divides", text: "SELECT 1 / $1::int", values: [0] }));
    await fails(own, "behind an error", "25P02", client.query({ name: "divides", text: "SELECT 1 / $1::int", values: [1] }));
    await client.query("ROLLBACK");
    const slow = "BEGIN; SET LOCAL statement_timeout = '5ms'; SELECT pg_sleep(5)";
    await fails(own, "too slow", "57014", client.query(slow));
    await client.query("ROLLBACK");
    const found = await client.query({ name: "divides", text: "SELECT 1 / $1::int AS one", values: [1] }).catch((error) => error.message);
    own.equal("a name for another text", /must be unique/.test(found), true);
    await reads(own, client, "after errors");
  },
  async function batches(own, client, round) {
    const mark = own.mark();
    for (let at = 0; at < 20; at += 1) await insert(own, client, `many ${round} ${at}`, mark);
    const whats = Array.from({ length: 20 }, (_, at) => `unnested ${round} ${at}`);
    const made = await client.query("INSERT INTO marks (client, what, mark) SELECT $1, unnest($2::text[]), $3 RETURNING what", [own.number, whats, mark]);
    own.equal("returned", made.rows.map((row) => row.what), whats);
    own.equal("all of them", await count(own, client, mark), 40);
    const several = await client.query(`SELECT '${mark}' AS mark; SELECT current_setting('app.tenant') AS tenant`);
    own.equal("several statements", several.map((one) => one.rows[0]), [{ mark }, { tenant: own.settings["app.tenant"] }]);
  },
  async function streams(own, client) {
    const mark = own.mark();
    const rows = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => ({ mark: `${mark}-${from + at}` }));
    await client.query("BEGIN");
    const cursor = client.query(new Cursor("SELECT $1::text || '-' || n AS mark FROM generate_series(1, 120) AS n", [mark]));
    own.equal("the first of a cursor", await cursor.read(25), rows(1, 25));
    own.equal("more of a cursor", await cursor.read(50), rows(26, 75));
    own.equal("the rest of a cursor", await cursor.read(1000), rows(76, 120));
    await cursor.close();
    await client.query(`DECLARE c CURSOR FOR SELECT '${mark}-' || n AS mark FROM generate_series(1, 120) AS n`);
    own.equal("fetched", (await client.query("FETCH 40 FROM c")).rows, rows(1, 40));
    await read(own, client, "beside a cursor");
    own.equal("fetched more", (await client.query("FETCH 40 FROM c")).rows, rows(41, 80));
    await client.query("COMMIT");
    // Outside of a transaction it may be left half-way: closing it ends the implicit one.
    const left = client.query(new Cursor("SELECT $1::text || '-' || n AS mark FROM generate_series(1, 120) AS n", [mark]));
    own.equal("a cursor alone", await left.read(10), rows(1, 10));
    await left.close();
    await read(own, client, "after a cursor");
  },
  async function copies(own, client, round) {
    const mark = own.mark();
    const lines = Array.from({ length: 30 }, (_, at) => `${own.number}\tcopied ${round} ${at}\t${mark}\n`);
    await pipeline(Readable.from(lines), client.query(copyFrom("COPY marks (client, what, mark) FROM STDIN")));
    own.equal("copied in", await count(own, client, mark), 30);
    const chunks = [];
    for await (const chunk of client.query(copyTo(`COPY (SELECT client, mark FROM marks WHERE mark = '${mark}') TO STDOUT`))) chunks.push(chunk);
    own.equal("copied out", Buffer.concat(chunks).toString(), `${own.number}\t${mark}\n`.repeat(30));
  },
  async function types(own, client, round) {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
    const seen = new Date(Date.UTC(2026, 1, 1 + own.number, 23, 59, 59, 123));
    const row = [{ mark: own.mark(), n: [1, null, "ü"] }, [own.number, round], ["a,b", 'q"q', "ž"], seen, `${own.number}.12345`,
      bytes, randomUUID(), round % 2 ? "cross" : "calm"];
    const columns = "doc, list, words, seen, amount, photo, token, feel";
    const text = `INSERT INTO kinds (client, ${columns}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING ${columns}`;
    own.equal("types", (await client.query({ name: "kinds", text, values: [own.number, ...row], rowMode: "array" })).rows[0], row);
  },
  async function resets(own, client) {
    const before = own.settings.work_mem;
    await client.query("RESET work_mem");
    own.settings.work_mem = own.startup.work_mem ?? "4MB";
    await reads(own, client, "after RESET");
    await client.query(`SET SESSION work_mem TO '${before}'`);
    own.settings.work_mem = before;
  },
];

(async () => {
  const clients = await Promise.all(Array.from({ length: CLIENTS }, async (_, number) => {
    const own = new Own(number);
    return { own, client: await connected(own) };
  }));
  // All are connected before any works.
  await Promise.all(clients.map(async ({ own, client }) => {
    try {
      for (let round = 0; round < ROUNDS; round += 1) {
        await reads(own, client, "at first");
        if (BREAKS && own.number === 0) await client.query("SET app.tenant = 'tenant-1'");
        for (const step of steps) await step(own, client, round);
        await reads(own, client, "at last");
        const name = SETTINGS[own.number % SETTINGS.length];
        const shown = await client.query({ text: `SHOW ${name}`, rowMode: "array" });
        own.equal(`shown ${name}`, shown.rows, [[own.settings[name]]]);
      }
      await client.end();
    } catch (error) {
      failures.push(`client ${own.number}: ${error.stack}`);
    }
  }));
})().catch((error) => failures.push(error.stack)).finally(() => {
  for (const failure of failures.slice(0, FAILURES_SHOWN_MAX)) console.log("FAILED", failure);
  console.log(`node: ${CLIENTS} clients, ${checks} checks, ${failures.length} failed`);
  process.exit(failures.length || !checks ? 1 : 0);
});
