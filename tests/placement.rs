//! Placement against a real server: our hash is PostgreSQL's, and our reading of literals is its input functions'.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/herd.rs"]
mod herd;
mod support;

use pgherd::names::ShardId;
use pgherd::placement::{Decoded, KeyType, KeyValue, Placement, sql};

// ── the hash ────────────────────────────────────────────────────────────────────────────────────────────────────

const VALUES: usize = 10_000;

#[tokio::test]
async fn every_row_is_in_the_bucket_that_postgresql_computes() {
    let control = herd::database_of_its_own("hashes", 0).1;
    let mut random = Random(7);
    let types: [(&str, KeyType); 7] = [
        ("int2", KeyType::Int2),
        ("int4", KeyType::Int4),
        ("int8", KeyType::Int8),
        ("text", KeyType::Text),
        ("varchar", KeyType::Text),
        ("bpchar", KeyType::Bpchar),
        ("uuid", KeyType::Uuid),
    ];
    let placement = Placement::new("c", 1, vec![ShardId(0); 4096], 1).unwrap();
    for (type_name, key_type) in types {
        control
            .execute(&format!(
                "CREATE TABLE public.{type_name}s (k {type_name}, bucket int) PARTITION BY HASH (k); \
                 DO $$ BEGIN FOR r IN 0..7 LOOP EXECUTE pg_catalog.format('CREATE TABLE public.{type_name}s_%s \
                   PARTITION OF public.{type_name}s FOR VALUES WITH (MODULUS 8, REMAINDER %s)', r, r); END LOOP; END $$"
            ))
            .await
            .unwrap();
        let rows: Vec<String> = values_of(key_type, &mut random)
            .into_iter()
            .map(|text| match text {
                Some(text) => {
                    let Decoded::Value(value) = key_type.from_text(text.as_bytes()) else {
                        panic!("{type_name} {text:?} is not read")
                    };
                    format!("({}, {})", sql::literal(&text), placement.bucket(&value).0)
                }
                None => format!("(NULL, {})", placement.bucket(&KeyValue::Null).0),
            })
            .collect();
        assert_eq!(rows.len(), VALUES);
        control
            .execute(&format!(
                "INSERT INTO public.{type_name}s VALUES {}",
                rows.join(", ")
            ))
            .await
            .unwrap();
        let ours = sql::bucket_expression(key_type, "k", 4096);
        let wrong = control
            .rows(&format!(
                "SELECT k, bucket, {ours} FROM public.{type_name}s WHERE {ours} <> bucket \
                   OR NOT satisfies_hash_partition('public.{type_name}s'::regclass, 4096, bucket, k) \
                   OR tableoid <> ('public.{type_name}s_' || bucket % 8)::regclass"
            ))
            .await
            .unwrap();
        assert_eq!(wrong, Vec::<Vec<Option<String>>>::new(), "{type_name}");
        let count = control
            .rows(&format!("SELECT count(*) FROM public.{type_name}s"))
            .await
            .unwrap();
        assert_eq!(count, [[Some(VALUES.to_string())]], "{type_name}");
    }
}

fn values_of(key_type: KeyType, random: &mut Random) -> Vec<Option<String>> {
    let mut values: Vec<Option<String>> = vec![None];
    let (min, max) = match key_type {
        KeyType::Int2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        KeyType::Int4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    match key_type {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
            values.extend([min, min + 1, -1, 0, 1, max - 1, max].map(|v| Some(v.to_string())));
            while values.len() < VALUES {
                let wide = random.next().cast_signed() >> (random.next() % 64);
                values.push(Some(wide.clamp(min, max).to_string()));
            }
        }
        KeyType::Text | KeyType::Bpchar => {
            values.extend(
                [
                    "", " ", "a", "A", "á", "a\u{301}", "\\", "'", "𐍈", "a ", "\n",
                ]
                .map(|v| Some(v.to_owned())),
            );
            let alphabet: Vec<char> = "abcXYZ019 -_'\\\"%{},äßéж中文🦀\u{301}\t".chars().collect();
            while values.len() < VALUES {
                let length = random.next() % 48;
                let text = (0..length)
                    .map(|_| alphabet[usize::try_from(random.next()).unwrap() % alphabet.len()])
                    .collect();
                values.push(Some(text));
            }
        }
        KeyType::Uuid => {
            values.extend([0u128, 1, u128::MAX].map(|v| Some(format!("{v:032x}"))));
            while values.len() < VALUES {
                values.push(Some(format!(
                    "{:016x}{:016x}",
                    random.next(),
                    random.next()
                )));
            }
        }
    }
    values
}

// ── literals ────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn literals_have_the_value_that_postgresql_gives_them_or_are_refused_as_it_does() {
    let control = herd::database_of_its_own("literals", 0).1;
    control
        .execute(
            "CREATE FUNCTION public.try(t text, type text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE r text; BEGIN \
             EXECUTE pg_catalog.format('SELECT %L::%s::text', t, type) INTO r; RETURN 'is ' || r; \
             EXCEPTION WHEN data_exception THEN RETURN 'error'; END $$",
        )
        .await
        .unwrap();
    let version = control
        .rows("SELECT current_setting('server_version_num')")
        .await
        .unwrap();
    let reads_new_integers = version[0][0].as_ref().unwrap().as_str() >= "160000";
    let mut compared = 0;
    for (type_name, key_type, literals) in [
        ("int2", KeyType::Int2, integer_literals()),
        ("int4", KeyType::Int4, integer_literals()),
        ("int8", KeyType::Int8, integer_literals()),
        ("uuid", KeyType::Uuid, uuid_literals()),
        ("text", KeyType::Text, integer_literals()),
        ("varchar", KeyType::Text, uuid_literals()),
        ("bpchar", KeyType::Bpchar, integer_literals()),
    ] {
        assert!(literals.len() > 300, "{} literals", literals.len());
        let rows: Vec<String> = literals
            .iter()
            .enumerate()
            .map(|(i, text)| format!("({i}, {})", sql::literal(text)))
            .collect();
        let answers = control
            .rows(&format!(
                "SELECT public.try(t, '{type_name}') FROM (VALUES {}) AS v (i, t) ORDER BY i",
                rows.join(", ")
            ))
            .await
            .unwrap();
        assert_eq!(answers.len(), literals.len());
        for (text, answer) in literals.iter().zip(&answers) {
            let ours = match key_type.from_text(text.as_bytes()) {
                Decoded::Value(value) => format!("is {}", written(&value)),
                Decoded::Invalid => "error".to_owned(),
            };
            let theirs = answer[0].as_deref().unwrap();
            let is_new = is_integer(key_type) && is_newer_integer(text);
            if is_new && !reads_new_integers {
                // The shard that the statement reaches refuses it, whichever it is.
                assert_eq!(theirs, "error", "{type_name} {text:?}");
            } else {
                assert_eq!(ours, theirs, "{type_name} {text:?}");
            }
            compared += 1;
        }
    }
    assert!(compared > 2000, "{compared}");
}

fn is_integer(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::Int2 | KeyType::Int4 | KeyType::Int8)
}

fn is_newer_integer(text: &str) -> bool {
    text.contains(['_', 'x', 'X', 'o', 'O', 'b', 'B'])
}

fn written(value: &KeyValue) -> String {
    match value {
        KeyValue::Int(value) => value.to_string(),
        KeyValue::Text(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        KeyValue::Uuid(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!(
                "{}-{}-{}-{}-{}",
                &hex[..8],
                &hex[8..12],
                &hex[12..16],
                &hex[16..20],
                &hex[20..]
            )
        }
        KeyValue::Null => "null".to_owned(),
    }
}

fn integer_literals() -> Vec<String> {
    let cores = [
        "",
        "0",
        "5",
        "005",
        "5.0",
        "5.",
        ".5",
        "1e3",
        "1E3",
        "5a",
        "a5",
        "5 5",
        "0x1F",
        "0xG",
        "0x",
        "0o17",
        "0b101",
        "1_000",
        "1__0",
        "_1",
        "1_",
        "32767",
        "32768",
        "2147483647",
        "2147483648",
        "9223372036854775807",
        "9223372036854775808",
        "99999999999",
        "00000000000000000000000000000001",
        "NaN",
        "infinity",
        "٥",
        "１",
        "NULL",
        "'5'",
        "5\u{a0}",
    ];
    let around = [
        ("", ""),
        ("  ", " "),
        ("\t", "\n"),
        ("\u{b}", "\u{c}"),
        ("\r\n", ""),
        ("\u{a0}", ""),
        ("", "x"),
        ("(", ")"),
    ];
    let signs = ["", "-", "+", "--", "+-", "- "];
    let mut literals = Vec::new();
    for core in cores {
        for (before, after) in around {
            for sign in signs {
                literals.push(format!("{before}{sign}{core}{after}"));
            }
        }
    }
    literals
}

fn uuid_literals() -> Vec<String> {
    let cores = [
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        "a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11",
        "a0-eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a112",
        "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "",
        "-",
        "0",
    ];
    let around = [
        ("", ""),
        ("{", "}"),
        ("{", ""),
        ("", "}"),
        ("{{", "}}"),
        (" ", ""),
        ("", " "),
        ("", "-"),
        ("-", ""),
        ("{ ", " }"),
        ("0x", ""),
        ("{", "-}"),
    ];
    let mut literals = Vec::new();
    for core in cores {
        for (before, after) in around {
            literals.push(format!("{before}{core}{after}"));
        }
    }
    // One character of a good one replaced or missing, at each place.
    let good = cores[0];
    for at in 0..good.len() {
        literals.push(format!("{}{}", &good[..at], &good[at + 1..]));
        for other in ["-", "z", " ", "{", "é"] {
            literals.push(format!("{}{other}{}", &good[..at], &good[at + 1..]));
        }
    }
    literals
}

/// Small, seeded, and good enough to spread test values (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
