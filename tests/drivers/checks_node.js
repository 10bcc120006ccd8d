// The ten checks with node-postgres (`pg`).
"use strict";

const assert = require("node:assert/strict");
const { randomUUID } = require("node:crypto");
const { Client } = require("pg");

const DSN = process.env.PGHERD_DSN;
const SHARDED = process.env.PGHERD_SHARDED === "1";
const INSERT = "INSERT INTO customers (id, name) VALUES ($1, $2)";
const NAME = "SELECT name FROM customers WHERE id = $1";

// Above every key of the demo, and another range for each run; node reads bigint as text.
const base = 3_000_000_000_000n + (process.hrtime.bigint() / 1000n) % 1_000_000_000n * 1000n;
const keys = [];
const key = () => keys[keys.push(String(base + BigInt(keys.length))) - 1];
const names = async (client, id) => (await client.query(NAME, [id])).rows.map((row) => row.name);

const all = [
  ["connect, and a first statement", async (client) => {
    assert.deepEqual((await client.query("SELECT 1 AS one")).rows, [{ one: 1 }]);
  }],
  ["version and parameters", async (client) => {
    assert.ok(Number.parseInt(client.told.server_version, 10) >= 12, client.told.server_version);
    assert.equal(client.told.client_encoding, "UTF8");
    assert.equal(client.told.standard_conforming_strings, "on");
    assert.equal(client.told.integer_datetimes, "on");
  }],
  ["insert with parameters, read back", async (client) => {
    const id = key();
    assert.equal((await client.query(INSERT, [id, "Ada"])).rowCount, 1);
    const found = await client.query("SELECT id, name FROM customers WHERE id = $1", [id]);
    assert.deepEqual(found.rows, [{ id, name: "Ada" }]);
  }],
  ["UPDATE and DELETE count their rows", async (client) => {
    const id = key();
    await client.query(INSERT, [id, "Bob"]);
    const count = async (sql) => (await client.query(sql, [id])).rowCount;
    assert.equal(await count("UPDATE customers SET name = 'Rob' WHERE id = $1"), 1);
    assert.equal(await count("UPDATE customers SET name = 'Rob' WHERE id = $1 AND name = 'Bob'"), 0);
    assert.equal(await count("DELETE FROM customers WHERE id = $1"), 1);
    assert.deepEqual(await names(client, id), []);
  }],
  ["COMMIT keeps, ROLLBACK undoes", async (client) => {
    const id = key();
    await client.query("BEGIN");
    await client.query(INSERT, [id, "one"]);
    await client.query("UPDATE customers SET name = 'two' WHERE id = $1", [id]);
    await client.query("COMMIT");
    assert.deepEqual(await names(client, id), ["two"]);
    await client.query("BEGIN");
    await client.query("UPDATE customers SET name = 'three' WHERE id = $1", [id]);
    assert.deepEqual(await names(client, id), ["three"]);
    await client.query("ROLLBACK");
    assert.deepEqual(await names(client, id), ["two"]);
  }],
  ["an error has its SQLSTATE, the session goes on", async (client) => {
    const id = key();
    await client.query(INSERT, [id, "only"]);
    await assert.rejects(client.query(INSERT, [id, "twice"]), { code: "23505" });
    assert.deepEqual(await names(client, id), ["only"]);
  }],
  ["a prepared statement, many keys", async (client) => {
    const ids = Array.from({ length: 30 }, key);
    for (const [number, id] of ids.entries()) {
      await client.query({ name: "insert", text: INSERT, values: [id, `p${number}`] });
    }
    for (const [number, id] of ids.entries()) {
      const found = await client.query({ name: "select", text: NAME, values: [id] });
      assert.deepEqual(found.rows, [{ name: `p${number}` }]);
    }
  }],
  ["a projection over all shards", async (client) => {
    const ids = Array.from({ length: 24 }, key);
    const mark = `scatter ${ids[0]}`;
    for (const id of ids) await client.query(INSERT, [id, mark]);
    const found = await client.query("SELECT id, name FROM customers WHERE name = $1", [mark]);
    assert.deepEqual(found.rows.map((row) => row.id).sort(), [...ids].sort());
  }],
  ["refused by number, or runs on one shard", async (client) => {
    const sql = "SELECT id, rank() OVER (ORDER BY id) FROM customers WHERE name = 'nobody'";
    if (SHARDED) {
      await assert.rejects(client.query(sql), (error) => error.code === "0A000" && /PGH\d/.test(error.message));
      assert.deepEqual((await client.query("SELECT 1 AS one")).rows, [{ one: 1 }]);
    } else {
      assert.deepEqual((await client.query(sql)).rows, []);
    }
  }],
  ["values of every kind", async (client) => {
    const columns = "name, credit, joined, active, token, notes, photo";
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, number) => number));
    const rows = [
      ["Žluťoučký kůň 🐎 'quoted'", "1234567.89", new Date("2026-02-28T23:59:59.123Z"), true, randomUUID(), { a: [1, null, "ü"] }, bytes],
      ["", "-0.01", new Date(0), false, "00000000-0000-0000-0000-000000000000", {}, Buffer.alloc(0)],
      ["nothing", null, null, null, null, null, null],
    ];
    for (const row of rows) {
      const id = key();
      await client.query(`INSERT INTO customers (id, ${columns}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, [id, ...row]);
      const sql = { text: `SELECT ${columns} FROM customers WHERE id = $1`, values: [id], rowMode: "array" };
      assert.deepEqual((await client.query(sql)).rows, [row]);
    }
  }],
];

async function connected(work) {
  const client = new Client({ connectionString: DSN, connectionTimeoutMillis: 10_000, query_timeout: 20_000 });
  client.told = {};
  client.on("error", () => {});
  client.connection.on("parameterStatus", (message) => { client.told[message.parameterName] = message.parameterValue; });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

(async () => {
  let passed = 0;
  let failed = 0;
  for (const [number, [what, check]] of all.entries()) {
    try {
      await connected(check);
      passed += 1;
      console.log(`ok ${String(number + 1).padStart(2)} ${what}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${String(number + 1).padStart(2)} ${what}: ${error.code ?? ""} ${error.message}`);
    }
  }
  try {
    await connected(async (client) => {
      for (const id of keys) await client.query("DELETE FROM customers WHERE id = $1", [id]);
    });
  } catch (error) {
    console.log(`the rows could not be removed: ${error.message}`);
  }
  console.log(`node: ${passed} passed, ${failed} failed`);
  process.exitCode = failed || !passed ? 1 : 0;
})();
