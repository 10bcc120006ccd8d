#!/bin/sh
# The ten checks with psql: simple queries, text format.
set -u

: "${PGHERD_DSN:?a postgresql:// URI}"
PSQL=${PSQL:-psql}
export PGCONNECT_TIMEOUT=10 PGCLIENTENCODING=UTF8

# Above every key of the demo, and another range for each run.
next=$((7000000000000 + $(date +%s) % 1000000 * 100000 + $$ % 1000 * 100))
keys=""
passed=0 failed=0 number=0
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT

# The variable `key`, new each time.
new_key() { next=$((next + 1)); key=$next; keys="$keys $key"; }

# sql TEXT: rows as a|b, NULL as (null); errors begin with their SQLSTATE.
sql() { "$PSQL" -X -A -t -q -P null='(null)' -v ON_ERROR_STOP=1 -v VERBOSITY=verbose -d "$PGHERD_DSN" -f - 2>&1 <<SQL
$1
SQL
}

is() { # FOUND EXPECTED
    [ "$1" = "$2" ] && return
    echo "found: $1; expected: $2" >>"$out"
    return 1
}

has() { # TEXT PART
    case $1 in *"$2"*) return ;; esac
    echo "not in it: $2; found: $1" >>"$out"
    return 1
}

connects() { is "$(sql 'SELECT 1')" 1; }

tells_parameters() {
    is "$(sql '\echo :ENCODING')" UTF8 || return 1
    version=$(sql '\echo :SERVER_VERSION_NUM')
    [ "$version" -ge 120000 ] || { echo "version: $version" >>"$out"; return 1; }
    is "$(sql 'SHOW standard_conforming_strings')" on
}

inserts_and_reads_back() {
    new_key
    is "$(sql "\\set id $key
INSERT INTO customers (id, name) VALUES (:id, 'Ada');
SELECT id, name FROM customers WHERE id = :id;")" "$key|Ada"
}

counts_rows() {
    new_key
    is "$(sql "INSERT INTO customers (id, name) VALUES ($key, 'Bob');
UPDATE customers SET name = 'Rob' WHERE id = $key;
\\echo :ROW_COUNT
UPDATE customers SET name = 'Rob' WHERE id = $key AND name = 'Bob';
\\echo :ROW_COUNT
DELETE FROM customers WHERE id = $key;
\\echo :ROW_COUNT
SELECT id FROM customers WHERE id = $key;" | tr '\n' ' ')" "1 0 1 "
}

keeps_transactions() {
    new_key
    is "$(sql "BEGIN;
INSERT INTO customers (id, name) VALUES ($key, 'one');
UPDATE customers SET name = 'two' WHERE id = $key;
COMMIT;
SELECT name FROM customers WHERE id = $key;
BEGIN;
UPDATE customers SET name = 'three' WHERE id = $key;
SELECT name FROM customers WHERE id = $key;
ROLLBACK;
SELECT name FROM customers WHERE id = $key;" | tr '\n' ' ')" "two three two "
}

survives_errors() {
    new_key
    found=$(sql "\\set ON_ERROR_STOP 0
INSERT INTO customers (id, name) VALUES ($key, 'only');
INSERT INTO customers (id, name) VALUES ($key, 'twice');
SELECT name FROM customers WHERE id = $key;")
    has "$found" 23505 && is "$(echo "$found" | tail -n 1)" only
}

runs_many_keys() {
    text="" expected="" count=0
    while [ $count -lt 30 ]; do
        new_key
        text="$text
INSERT INTO customers (id, name) VALUES ($key, 'p$count');
SELECT name FROM customers WHERE id = $key;"
        expected="${expected}p$count "
        count=$((count + 1))
    done
    is "$(sql "$text" | tr '\n' ' ')" "$expected"
}

reads_every_shard() {
    text="" expected="" count=0 mark="scatter $next"
    while [ $count -lt 24 ]; do
        new_key
        text="$text
INSERT INTO customers (id, name) VALUES ($key, '$mark');"
        expected="$expected$key|$mark
"
        count=$((count + 1))
    done
    is "$(sql "$text")" "" || return 1
    is "$(sql "SELECT id, name FROM customers WHERE name = '$mark'" | sort)" "$(printf '%s' "$expected" | sort)"
}

refuses_by_number() {
    found=$(sql "SELECT id, rank() OVER (ORDER BY id) FROM customers WHERE name = 'nobody'")
    if [ "${PGHERD_SHARDED:-0}" = 1 ]; then
        has "$found" 0A000 && has "$found" PGH
    else
        is "$found" ""
    fi
}

round_trips() {
    new_key
    is "$(sql "INSERT INTO customers (id, name, credit, joined, active, token, notes, photo) VALUES ($key,
    'Žluťoučký kůň 🐎 ''quoted''', 1234567.89, '2026-02-28 23:59:59.123456+00', true,
    '6f1c1c0e-3a63-4c43-9d3e-0d7f7c1f6a01', '{\"a\": [1, null, \"ü\"]}', '\\x00ff10');
SELECT name, credit, joined AT TIME ZONE 'UTC', active, token, notes, photo FROM customers WHERE id = $key;")" \
        "Žluťoučký kůň 🐎 'quoted'|1234567.89|2026-02-28 23:59:59.123456|t|6f1c1c0e-3a63-4c43-9d3e-0d7f7c1f6a01|{\"a\": [1, null, \"ü\"]}|\\x00ff10" || return 1
    new_key
    is "$(sql "INSERT INTO customers (id, name) VALUES ($key, '');
SELECT name, credit, token, notes, photo FROM customers WHERE id = $key;")" "|(null)|(null)|(null)|(null)"
}

check() { # FUNCTION WHAT
    number=$((number + 1))
    : >"$out"
    if "$1"; then
        passed=$((passed + 1))
        printf 'ok %2d %s\n' "$number" "$2"
    else
        failed=$((failed + 1))
        printf 'FAILED %2d %s: %s\n' "$number" "$2" "$(cat "$out")"
    fi
}

check connects "connect, and a first statement"
check tells_parameters "version and parameters"
check inserts_and_reads_back "insert, read back"
check counts_rows "UPDATE and DELETE count their rows"
check keeps_transactions "COMMIT keeps, ROLLBACK undoes"
check survives_errors "an error has its SQLSTATE, the session goes on"
check runs_many_keys "many keys in one session"
check reads_every_shard "a projection over all shards"
check refuses_by_number "refused by number, or runs on one shard"
check round_trips "values of every kind"

text=""
for key in $keys; do
    text="$text
DELETE FROM customers WHERE id = $key;"
done
left=$(sql "$text")
[ -z "$left" ] || echo "the rows could not be removed: $left"
echo "psql: $passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
