//! What the model keeps of a text, and what is refused rather than misread.

use super::*;
use crate::sql::statement::{Expr, From, Item, Literal, Slotted, Type};

/// The first output expression.
fn expr(text: &str) -> Expr {
    let statement = understand(&format!("SELECT {text}")).unwrap();
    match statement.query.body {
        Body::Select(mut select) => unslotted(select.items.swap_remove(0).expr),
        other => panic!("{other:?}"),
    }
}

/// As if no other literal could ever stand there.
fn unslotted(expr: Expr) -> Expr {
    let each = |exprs: Vec<Expr>| exprs.into_iter().map(unslotted).collect();
    let inner = |expr: Box<Expr>| Box::new(unslotted(*expr));
    match expr {
        Expr::Literal(Literal::Integer(value)) => integer(*value.parts().0),
        Expr::Literal(Literal::Text(text)) => string(text.parts().0),
        Expr::Cast { inner: of, to } => Expr::Cast {
            inner: inner(of),
            to,
        },
        Expr::All(members) => Expr::All(each(members)),
        Expr::Any(members) => Expr::Any(each(members)),
        Expr::Row(members) => Expr::Row(each(members)),
        Expr::IsNull(of) => Expr::IsNull(inner(of)),
        Expr::ElementOf(left, right) => Expr::ElementOf(inner(left), inner(right)),
        Expr::Equal(left, right) => Expr::Equal(inner(left), inner(right)),
        Expr::OneOf(left, members) => Expr::OneOf(inner(left), each(members)),
        Expr::Operation(operands) => Expr::Operation(each(operands)),
        Expr::Call(mut call) => {
            call.arguments = each(call.arguments);
            Expr::Call(call)
        }
        Expr::Field { inner: of, name } => Expr::Field {
            inner: inner(of),
            name,
        },
        other => other,
    }
}

fn error(text: &str) -> Unparsed {
    understand(text).unwrap_err()
}

fn column(name: &str) -> Expr {
    Expr::Column(vec![name.to_owned()])
}

fn integer(value: i64) -> Expr {
    Expr::Literal(Literal::Integer(Slotted::new(value, None)))
}

fn string(value: &str) -> Expr {
    Expr::Literal(Literal::Text(Slotted::new(value.to_owned(), None)))
}

#[test]
fn literals_know_their_slots_and_the_others_are_hidden() {
    let slots = |text: &str| {
        let statement = understand(text).unwrap();
        let Body::Select(select) = statement.query.body else {
            panic!("{text}");
        };
        let shown: Vec<_> = select
            .items
            .iter()
            .filter_map(|item| match &item.expr {
                Expr::Literal(Literal::Integer(value)) => value.parts().1,
                Expr::Literal(Literal::Text(text)) => text.parts().1,
                _ => None,
            })
            .map(|slot| (slot.index, slot.negated))
            .collect();
        (shown, statement.hidden)
    };
    assert_eq!(
        slots("SELECT 1, a, 'é', -3, 'x'\n, 5"),
        (
            vec![(0, false), (1, false), (2, true), (3, false), (4, false)],
            vec![]
        )
    );
    assert_eq!(slots("SELECT E'a', $$b$$, 7"), (vec![(0, false)], vec![]));
    assert_eq!(
        slots("SELECT x::varchar(3), 5"),
        (vec![(1, false)], vec![0])
    );
    assert_eq!(
        slots("SELECT interval '1 day', 5"),
        (vec![(1, false)], vec![])
    );
}

#[test]
fn names_are_folded_unless_quoted() {
    assert_eq!(expr("Total"), column("total"));
    assert_eq!(expr("\"Total\""), column("Total"));
    assert_eq!(expr("\"a\"\"b\""), column("a\"b"));
    let parts = ["s", "T", "c"].map(str::to_owned).into();
    assert_eq!(expr("S.\"T\".C"), Expr::Column(parts));
    let long = "x".repeat(70);
    assert_eq!(expr(&long), column(&"x".repeat(63)));
}

#[test]
fn literals_keep_the_value_that_they_have_in_postgresql() {
    assert_eq!(expr("42"), integer(42));
    assert_eq!(expr("-42"), integer(-42));
    assert_eq!(expr("'it''s'"), string("it's"));
    assert_eq!(expr("'back\\slash'"), string("back\\slash"));
    assert_eq!(expr("$$a'b$$"), string("a'b"));
    assert_eq!(expr("E'plain'"), string("plain"));
    for other in ["4.2", "1e3", "9223372036854775808", "true"] {
        assert_eq!(expr(other), Expr::Literal(Literal::Other), "{other}");
    }
    assert_eq!(expr("E'a\\x62'"), Expr::Literal(Literal::Escaped));
    // Bit strings are not told apart from a name and a string yet.
    assert!(understand("SELECT B'01'").is_err());
    assert_eq!(expr("NULL"), Expr::Literal(Literal::Null));
    assert_eq!(expr("$3"), Expr::Parameter(3));
    assert_eq!(understand("SELECT $3, $1").unwrap().parameters, 3);
}

#[test]
fn conjunctions_are_flat_and_disjunctions_are_not_conjunctions() {
    let equal = |name, value| Expr::Equal(Box::new(column(name)), Box::new(integer(value)));
    let all = Expr::All(vec![equal("a", 1), equal("b", 2), equal("c", 3)]);
    assert_eq!(expr("a = 1 AND b = 2 AND c = 3"), all);
    assert_eq!(expr("a = 1 AND (b = 2 AND c = 3)"), all);
    let any = |left, right| Expr::Any(vec![left, right]);
    assert_eq!(
        expr("a = 1 AND b = 2 OR c = 3"),
        any(Expr::All(vec![equal("a", 1), equal("b", 2)]), equal("c", 3))
    );
    assert_eq!(
        expr("a = 1 OR b = 2 AND c = 3"),
        any(equal("a", 1), Expr::All(vec![equal("b", 2), equal("c", 3)]))
    );
    assert_eq!(expr("NOT a = 1"), Expr::Operation(vec![equal("a", 1)]));
    assert_eq!(
        expr("(a = 1 OR b = 2) OR c = 3"),
        Expr::Any(vec![equal("a", 1), equal("b", 2), equal("c", 3)])
    );
}

#[test]
fn memberships_rows_and_nulls_keep_their_parts() {
    let a = || Box::new(column("a"));
    let one_and_two = || vec![integer(1), integer(2)];
    assert_eq!(expr("a IN (1, 2)"), Expr::OneOf(a(), one_and_two()));
    for text in ["a = ANY (ARRAY[1, 2])", "a = SOME ((ARRAY[1, 2]))"] {
        assert_eq!(expr(text), Expr::OneOf(a(), one_and_two()), "{text}");
    }
    let array = Box::new(Expr::Parameter(1));
    assert_eq!(expr("a = ANY ($1)"), Expr::ElementOf(a(), array));
    for text in ["a <> ANY ($1)", "a = ALL ($1)", "a NOT IN (1, 2)"] {
        assert!(matches!(expr(text), Expr::Operation(_)), "{text}");
    }
    assert_eq!(expr("a IS NULL"), Expr::IsNull(a()));
    assert!(matches!(expr("a IS NOT NULL"), Expr::Operation(_)));
    assert_eq!(
        expr("(a, b) = (1, 2)"),
        Expr::Equal(
            Box::new(Expr::Row(vec![column("a"), column("b")])),
            Box::new(Expr::Row(one_and_two()))
        )
    );
}

#[test]
fn casts_name_the_types_that_feed_keys() {
    let cast = |text: &str| match expr(text) {
        Expr::Cast { to, .. } => to,
        other => panic!("{other:?}"),
    };
    for (text, expected) in [
        ("1::int8", Type::Int8),
        ("1::bigint", Type::Int8),
        ("1::pg_catalog.int4", Type::Int4),
        ("CAST(1 AS smallint)", Type::Int2),
        ("1::text", Type::Text),
        ("1::varchar", Type::Text),
        ("uuid '1'", Type::Uuid),
        ("1::int[]", Type::Array(Box::new(Type::Int4))),
        ("1::text[][]", Type::Array(Box::new(Type::Text))),
    ] {
        assert_eq!(cast(text), expected, "{text}");
    }
    for plain in [
        "1::varchar(3)",
        "1::numeric",
        "1::char(3)",
        "1::date[]",
        "'x'::jsonb",
    ] {
        assert!(matches!(cast(plain), Type::Plain(_)), "{plain}");
    }
    for other in ["1::regclass", "1::mood", "1::x.int8", "1::mood[]"] {
        assert!(matches!(cast(other), Type::Other(_)), "{other}");
    }
}

#[test]
fn row_locks_keep_the_names_of_their_tables() {
    let locks = |text: &str| {
        let query = understand(&format!("SELECT * FROM a, b {text}"))
            .unwrap()
            .query;
        let names = query.locks.into_iter().map(|lock| lock.of.join("."));
        names.collect::<Vec<String>>()
    };
    assert_eq!(locks("FOR UPDATE"), [""]);
    assert_eq!(locks("FOR NO KEY UPDATE NOWAIT"), [""]);
    assert_eq!(locks("FOR KEY SHARE SKIP LOCKED"), [""]);
    assert_eq!(locks("FOR UPDATE OF a"), ["a"]);
    assert_eq!(locks("FOR UPDATE OF a, B, \"C\""), ["a", "b", "C"]);
    assert_eq!(
        locks("FOR NO KEY UPDATE OF a, b SKIP LOCKED FOR SHARE OF c"),
        ["a", "b", "c"]
    );
    assert!(locks("").is_empty());
}

#[test]
fn an_alias_may_rename_columns() {
    let statement = understand("SELECT * FROM orders AS o (k, n), LATERAL (SELECT 1) x").unwrap();
    let Body::Select(select) = statement.query.body else {
        panic!("no SELECT");
    };
    let [From::Table(table), From::Derived { lateral: true, .. }] = select.from.as_slice() else {
        panic!("{:?}", select.from);
    };
    assert_eq!(table.known_as(), "o");
    assert_eq!(table.alias.as_ref().unwrap().columns, ["k", "n"]);
    let star = Item {
        expr: Expr::Wildcard(Vec::new()),
        alias: None,
    };
    assert_eq!(select.items, [star]);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for text in [
        "SELECT a = b = c",
        "SELECT a < b < c",
        "SELECT a FROM t WHERE a IS NULL = b",
        "SELECT U&\"d\\0061t\"",
        "SELECT E'a'\n'b'",
        "SELECT * FROM t qualify",
        "SELECT a FROM t PREWHERE b",
        "SELECT TOP 5 a FROM t",
    ] {
        let error = error(text);
        assert!(
            matches!(error, Unparsed::Unknown(_) | Unparsed::Syntax(_)),
            "{text}: {error:?}"
        );
    }
}

#[test]
fn other_commands_and_other_numbers_of_statements_are_told_apart() {
    assert_eq!(
        error("VACUUM orders"),
        Unparsed::Utility("VACUUM".to_owned())
    );
    assert_eq!(
        error("create table x ()"),
        Unparsed::Utility("CREATE".to_owned())
    );
    assert!(matches!(error("frobnicate"), Unparsed::Syntax(_)));
    assert_eq!(error(""), Unparsed::NotOne);
    assert_eq!(error("-- nothing"), Unparsed::NotOne);
    assert_eq!(error("SELECT 1; SELECT 2"), Unparsed::NotOne);
    assert!(understand("SELECT 1;").is_ok());
    let long = format!("SELECT '{}'", "x".repeat(TEXT_BYTES_MAX));
    assert_eq!(
        error(&long),
        Unparsed::TooLong {
            max: TEXT_BYTES_MAX
        }
    );
}

#[test]
fn depth_is_counted_where_trees_nest_and_not_where_they_are_wide() {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let run = thread.spawn(deep_and_wide).unwrap();
    run.join().unwrap();
}

fn deep_and_wide() {
    let deep = [
        format!("SELECT {}1{}", "(".repeat(65), ")".repeat(65)),
        format!("SELECT {}1", "NOT ".repeat(101)),
        format!("SELECT {}1", "- ".repeat(110)),
        format!("SELECT a{}", " IS NULL".repeat(101)),
        format!("SELECT 1{}", "::int".repeat(51)),
        format!("SELECT {}1", "+".repeat(150)),
        format!("SELECT 1{}", " BETWEEN 1 AND 1".repeat(101)),
        format!(
            "SELECT {} 1{}",
            "CASE WHEN a THEN ".repeat(65),
            " END".repeat(65)
        ),
        format!("{}SELECT 1{}", "SELECT (".repeat(25), ")".repeat(25)),
    ];
    for text in deep {
        assert_eq!(error(&text), Unparsed::TooDeep, "{text}");
    }
    let wide = [
        format!("SELECT {}", vec!["a IS NULL"; 300].join(" AND ")),
        format!("SELECT {}", vec!["NOT a"; 300].join(", ")),
        format!(
            "SELECT {}",
            vec!["a::int"; 300].join(" + ").replace("::int", "")
        ),
        format!("SELECT {}", vec!["(a)"; 300].join(" || ")),
        format!("SELECT * FROM a {}", "JOIN b ON b.x = a.x ".repeat(300)),
        format!("SELECT a IN ({})", vec!["-1"; 300].join(", ")),
        format!("SELECT {}", vec!["CASE WHEN a THEN b END"; 300].join(", ")),
        format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(300)),
    ];
    for text in wide {
        assert!(understand(&text).is_ok(), "{:?}: {text}", error(&text));
    }
}

/// Found by PostgreSQL's own parser (`tests/oracle.rs`) among texts that nobody writes: the parser reads them otherwise.
#[test]
fn what_postgresql_reads_otherwise_is_refused() {
    let texts = [
        "SELECT 1 end FROM t",
        "SELECT 1 and FROM t",
        "SELECT a like FROM t",
        "SELECT a collate FROM t",
        "SELECT interval FROM t",
        "SELECT * FROM current_user",
        "SELECT * FROM user u",
        "SELECT (VALUES (1))",
        "SELECT 'foo' ilike where (a)",
        "SELECT 1 FROM t WHERE id == 1",
        "SELECT 1 FROM t WHERE id =@ 1",
        "SELECT 1 FROM t WHERE id !=-1",
        // the parser's operator, not PostgreSQL's
        "SELECT 1 FROM t WHERE id >-1",
        "SELECT 1 FROM t WHERE NOT EXISTS (SELECT 1) = a",
        "INSERT INTO t VALUES (1) ON CONFLICT (current_date) DO NOTHING",
    ];
    for text in texts {
        assert!(understand(text).is_err(), "{text}");
    }
    for text in [
        "SELECT 1 FROM t WHERE id =-1",
        "SELECT 1 FROM t WHERE a<-1",
        "SELECT 1 FROM t WHERE b <=-2",
        "SELECT 1 FROM t WHERE b *-2 = a/-1",
        "SELECT 1 FROM t WHERE c @@ d",
        "SELECT \"end\" FROM \"user\" WHERE t.end = interval '1 day'",
        "SELECT current_user, left(a, 1), current_timestamp(3), array(SELECT 1)",
    ] {
        assert!(understand(text).is_ok(), "{text}");
    }
}

#[test]
fn functions_with_a_syntax_of_their_own_keep_their_names() {
    for (text, name) in [
        ("ceil(a)", "ceil"),
        ("floor(a)", "floor"),
        ("substr(a, 1)", "substr"),
        ("substring(a)", "substring"),
        ("substring(a, 1, 2)", "substring"),
    ] {
        let Expr::Call(call) = expr(text) else {
            panic!("{text}");
        };
        assert_eq!((call.schema, call.name.as_str()), (None, name), "{text}");
    }
    // The grammar itself says pg_catalog here.
    assert!(matches!(expr("substring(a from 1)"), Expr::Operation(_)));
}
