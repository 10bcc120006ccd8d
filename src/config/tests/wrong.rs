//! Wrong texts and what each is answered.

use super::*;

#[test]
fn a_text_that_is_not_toml_is_answered_with_its_place_alone() {
    check(
        "[proxy",
        &["line 1, column 7: this is not TOML: unclosed table, expected `]`"],
    );
    check(
        "unknown = 1\n[proxy]\nlisten = [\"a\"",
        &["line 5, column 1: this is not TOML: missing comma between array elements, expected `,`"],
    );
    check(
        "[pool]\nsize = 1\nsize = 2",
        &["line 3, column 1: this is not TOML: duplicate key"],
    );
    check(
        "[pool]\nmode = hunter2",
        &[
            "line 2, column 8: this is not TOML: string values must be quoted, expected literal string",
        ],
    );
}

#[test]
fn every_unknown_key_is_found_in_one_run() {
    check(
        "hello = 1\n[proxy]\nlisten_address = 1\nclient_max = 1\nsize = 3\n[pool]\nsiez = 3\npool_mode = 1\n[users.ann]\nx = 1",
        &[
            "hello: is not a known key",
            "pool.pool_mode: is not a known key here",
            "pool.siez: is not a known key",
            "proxy.client_max: is not a known key",
            "proxy.listen_address: is not a known key",
            "proxy.size: is not a known key here",
            "users.ann.x: is not a known key",
        ],
    );
    check_after(
        "[databases.shop.tables.t]\nkey = \"id\"\nkind = 1",
        &["databases.shop.tables.t.kind: is not a known key"],
    );
    check_after("[auth.more]\nx = 1", &["auth.more: is not a known key"]);
}

#[test]
fn several_shards_have_one_mode_and_one_name() {
    for mode in ["session", "statement"] {
        let problem = format!("mode: a database of several shards has no {mode} mode");
        check_after(
            &format!("[databases.shop.pool]\nmode = \"{mode}\""),
            &[&format!("databases.shop.pool.{problem}")],
        );
        check_after(
            &format!("[users.ann.pool]\nmode = \"{mode}\""),
            &[&format!("users.ann.pool.{problem}")],
        );
    }
    let any = SHOP.replace("databases.shop", "databases.\"*\"");
    assert_eq!(
        problems(&any),
        ["databases.\"*\": a database of several shards has one name"]
    );
}

#[test]
fn an_unknown_key_is_told_what_was_meant() {
    for (text, remedy) in [
        ("[proxy]\nclient_max = 1", "did you mean `clients_max`?"),
        (
            "[pool]\nmax_client_conn = 1",
            "did you mean `proxy.clients_max`?",
        ),
        ("[proxy]\nusers_file = 1", "did you mean `auth.users_file`?"),
        ("[log]\nxyz = 1", "remove it; known here are format, level"),
        (
            "[pool]\nmax_db_connections = 1",
            "did you mean `databases.*.connections_max`?",
        ),
    ] {
        let Problems(found) = read(&format!("{text}\n{SHOP}")).expect_err(text);
        assert_eq!(
            found
                .iter()
                .map(|problem| problem.remedy.as_str())
                .collect::<Vec<_>>(),
            [remedy],
            "{text}"
        );
    }
}

#[test]
fn every_wrong_type_is_found_in_one_run() {
    check(
        "log = 3\n[proxy]\nlisten = \"x\"\nadmin_users = [1]\nlogin_timeout = 30\nmessage_bytes_max = 1\nworkers = \"2\"\n[pool]\nsize = 0\nconnect_parallelism = 1.5\nmode = true",
        &[
            "log: must be a table, but is an integer",
            "pool.connect_parallelism: must be a whole number, but is a number with a fraction",
            "pool.mode: must be a text, but is true or false",
            "pool.size: 0 is out of range",
            "proxy.admin_users[0]: must be a text, but is an integer",
            "proxy.listen: must be a list of texts, but is a text",
            "proxy.login_timeout: must be a duration in quotes, but is an integer",
            "proxy.message_bytes_max: must be a size in quotes, but is an integer",
            "proxy.workers: must be a whole number, but is a text",
        ],
    );
    check(
        "[proxy]\nworkers = -1\nclients_max = 0",
        &[
            "proxy.clients_max: 0 is out of range",
            "proxy.workers: -1 is out of range",
        ],
    );
    check_after(
        "[databases.shop.tables.t]\nreference = \"yes\"",
        &["databases.shop.tables.t.reference: must be true or false, but is a text"],
    );
    assert_eq!(
        problems("[auth]\nmethod = \"trust\"\n[databases.shop.shards]\nname = \"s0\""),
        ["databases.shop.shards: must be a list of tables, but is a table",]
    );
    assert_eq!(
        problems("databases = 1\n[auth]\nmethod = \"trust\""),
        ["databases: must be a table, but is an integer"]
    );
}

#[test]
fn form_and_meaning_are_checked_in_the_same_run() {
    assert_eq!(
        problems(
            r#"
            [proxy]
            listen = ["127.0.0.1"]
            lissten = 1
            [pool]
            mode = "transactoin"
            [databases.shop]
            default_table = "s9"
            [[databases.shop.shards]]
            name = "s0"
            primry = "host=h"
            [[databases.shop.shards]]
            name = "s1"
            primary = "port=x"
            replicas = ["host=r dbname=other"]
            [databases.shop.tables.t]
            shard = "s7"
            "#
        ),
        [
            "databases.shop.shards[0].primry: is not a known key",
            "proxy.lissten: is not a known key",
            "proxy.listen[0]: \"127.0.0.1\" is no address to listen on",
            "auth.users_file: is missing: there is nothing to check a password against",
            "pool.mode: \"transactoin\" is none of the choices",
            "databases.shop.shards[1].primary: a port is not a number from 1 to 65535",
            "databases.shop.tables.t.shard: there is no shard \"s7\" in this database",
            "databases.shop.default_table: there is no shard \"s9\" in this database",
        ],
    );
}

#[test]
fn a_slip_beside_the_right_key_hides_nothing() {
    check(
        "[proxy]\nhttp = \"x\"\nhtpt = \"off\"",
        &[
            "proxy.htpt: is not a known key",
            "proxy.http: \"x\" is not an IP address with a port",
        ],
    );
}

#[test]
fn addresses_to_listen_on() {
    for (text, problem) in [
        (
            "\"127.0.0.1\"",
            "proxy.listen[0]: \"127.0.0.1\" is no address to listen on",
        ),
        (
            "\"h:x\"",
            "proxy.listen[0]: \"h:x\" is no address to listen on",
        ),
        (
            "\"h:65536\"",
            "proxy.listen[0]: \"h:65536\" is no address to listen on",
        ),
        (
            "\":6432\"",
            "proxy.listen[0]: \":6432\" is no address to listen on",
        ),
        (
            "\"*:6432\"",
            "proxy.listen[0]: \"*:6432\" is no address to listen on",
        ),
        (
            "\"::1:6432\"",
            "proxy.listen[0]: \"::1:6432\" is no address to listen on",
        ),
        (
            "\"[::x]:6432\"",
            "proxy.listen[0]: \"[::x]:6432\" is no address to listen on",
        ),
        (
            "\"a b:1\"",
            "proxy.listen[0]: \"a b:1\" is no address to listen on",
        ),
        (
            "\"/tmp:0\"",
            "proxy.listen[0]: \"/tmp:0\" does not end with a port from 1 to 65535",
        ),
        (
            "\"a:1\", \"b:1\", \"a:1\"",
            "proxy.listen[2]: \"a:1\" is listed twice",
        ),
        (
            "\"/a\", \"/a:6432\"",
            "proxy.listen[1]: \"/a:6432\" is listed twice",
        ),
        ("", "proxy.listen: names no address"),
    ] {
        check(&format!("[proxy]\nlisten = [{text}]"), &[problem]);
    }
    let long = format!("/{}", "x".repeat(100));
    check(
        &format!("[proxy]\nlisten = [{long:?}]"),
        &["proxy.listen[0]: the path of the unix socket is longer than 107 bytes"],
    );
    check("[proxy]\nlisten = [\"h:0\", \"h:0\"]", &[]);
}

#[test]
fn the_sections_of_the_proxy() {
    for (text, expected) in [
        (
            "[proxy]\nhttp = \"x\"",
            "proxy.http: \"x\" is not an IP address with a port",
        ),
        (
            "[proxy]\nhttp = \"127.0.0.1:6432\"",
            "proxy.http: \"127.0.0.1:6432\" is also in proxy.listen",
        ),
        (
            "[proxy]\nadmin_users = [\"\"]",
            "proxy.admin_users: a user name is empty",
        ),
        (
            "[proxy]\nlogin_timeout = \"0\"",
            "proxy.login_timeout: must be longer than nothing",
        ),
        (
            "[proxy]\nlogin_timeout = \"30\"",
            "proxy.login_timeout: \"30\" is not a duration",
        ),
        (
            "[proxy]\nmessage_bytes_max = \"2GiB\"",
            "proxy.message_bytes_max: is out of range",
        ),
        (
            "[proxy]\nmessage_bytes_max = \"1kB\"",
            "proxy.message_bytes_max: is out of range",
        ),
        (
            "[proxy]\nmessage_bytes_max = \"1\"",
            "proxy.message_bytes_max: \"1\" is not a size",
        ),
        (
            "[log]\nformat = \"jsno\"",
            "log.format: \"jsno\" is none of the choices",
        ),
        (
            "[log]\nlevel = \"inof\"",
            "log.level: \"inof\" is not a log filter",
        ),
        (
            "[log]\nlevel = \"info,pgherd=loud\"",
            "log.level: \"info,pgherd=loud\" is not a log filter",
        ),
        (
            "[log]\nlevel = \"${NOPE}\"",
            "log.level: the environment variable NOPE is not set",
        ),
        (
            "[tls]\nkey_file = \"/dev/null\"",
            "tls.cert_file: is missing",
        ),
        (
            "[pool]\nreuse = \"fifo\"",
            "pool.reuse: \"fifo\" is none of the choices",
        ),
        (
            "[users.ann.pool]\nreset = \"never\"",
            "users.ann.pool.reset: \"never\" is none of the choices",
        ),
        (
            "[pool]\nsize_min = 21",
            "pool.size_min: 21 is more than the size of the pool, 20",
        ),
        (
            "[proxy]\nmemory_max = \"1MiB\"",
            "proxy.memory_max: is less than the proxy itself needs",
        ),
        (
            "[pool]\nwait_timeout = \"0s\"",
            "pool.wait_timeout: must be longer than nothing",
        ),
        (
            "[pool]\nlifetime = \"forever\"",
            "pool.lifetime: \"forever\" is not a duration",
        ),
    ] {
        let found = problems(&format!("{text}\n{SHOP}"));
        assert_eq!(
            found.first().map(String::as_str),
            Some(expected),
            "{text}: {found:?}"
        );
    }
    check(
        "[tls]\ncert_file = \"cert.pem\"\nkey_file = \"/dev/null\"\nmode = \"off\"",
        &[
            "tls.cert_file: the file /nowhere/cert.pem cannot be read: entity not found",
            "tls.key_file: the file /dev/null has no \"PRIVATE KEY-----\" in it",
            "tls.mode: \"off\" is none of the choices",
        ],
    );
}

#[test]
fn who_may_log_in() {
    let shop = SHOP.replace("[auth]\nmethod = \"trust\"", "");
    for (text, expected) in [
        (
            "",
            "auth.users_file: is missing: there is nothing to check a password against",
        ),
        (
            "[auth]\nmethod = \"md5\"",
            "auth.users_file: is missing: there is nothing to check a password against",
        ),
        (
            "[auth]\nmethod = \"hba\"",
            "auth.method: \"hba\" is not supported yet",
        ),
        (
            "[auth]\nmethod = \"cert\"",
            "auth.method: \"cert\" is not supported yet",
        ),
        (
            "[auth]\nmethod = \"scram\"",
            "auth.method: \"scram\" is none of the choices",
        ),
        (
            "[auth]\nusers_file = \"list\"",
            "auth.users_file: the file /nowhere/list cannot be read: entity not found",
        ),
        (
            "[auth]\nquery = \"SELECT 1\"\nmethod = \"trust\"",
            "auth.query: is not supported yet",
        ),
    ] {
        assert_eq!(problems(&format!("{text}\n{shop}")), [expected], "{text}");
    }
}

#[test]
fn databases_and_shards() {
    let shard = |body: &str| format!("[auth]\nmethod = \"trust\"\n[[databases.d.shards]]\n{body}");
    for (text, expected) in [
        (
            "[auth]\nmethod = \"trust\"".to_owned(),
            "databases: there is no database to serve",
        ),
        (
            "[auth]\nmethod = \"trust\"\n[databases.d]".to_owned(),
            "databases.d.shards: the database has no shard",
        ),
        (
            shard("name = \"s\""),
            "databases.d.shards[0].primary: is missing",
        ),
        (
            shard("primary = \"host=h\""),
            "databases.d.shards[0].name: is missing",
        ),
        (
            shard("name = \"a b\"\nprimary = \"host=h\""),
            "databases.d.shards[0].name: \"a b\" is not a shard name",
        ),
        (
            shard("name = \"refuse\"\nprimary = \"host=h\""),
            "databases.d.shards[0].name: \"refuse\" has a meaning of its own in default_table",
        ),
        (
            shard("name = \"s\"\nprimary = \"user=u\""),
            "databases.d.shards[0].primary: names no host",
        ),
        (
            shard("name = \"s\"\nprimary = \"host=h password=hunter2\""),
            "databases.d.shards[0].primary: there is a password but no user",
        ),
        (
            shard("name = \"s\"\nprimary = \"host=h\"\ncontrol = \"host=h\""),
            "databases.d.shards[0].control: has no user",
        ),
        (
            shard("name = \"s\"\nprimary = \"host=h\"\ncontrol = \"host=h user=u dbname=e\""),
            "databases.d.shards[0].control: names the database \"e\", but the primary's string names \"d\"",
        ),
        (
            shard(
                "name = \"s\"\nprimary = \"host=h\"\nreplicas = [\"host=r\", \"host=r dbname=e\"]",
            ),
            "databases.d.shards[0].replicas[1]: names the database \"e\", but the primary's string names \"d\"",
        ),
        (
            shard("name = \"s\"\nprimary = \"host=h\"\nreplicas = [\"x\"]"),
            "databases.d.shards[0].replicas[0]: setting 1 of the connection string has no \"=\"",
        ),
        (
            shard("name = \"s\"\nprimary = \"host=h user=u\"\nprimary_password_file = \"pw\""),
            "databases.d.shards[0].primary_password_file: the file /nowhere/pw cannot be read: entity not found",
        ),
        (
            shard(
                "name = \"s\"\nprimary = \"host=h user=u\"\nprimary_password_file = \"/dev/null\"",
            ),
            "databases.d.shards[0].primary_password_file: the file /dev/null does not hold one line with a password",
        ),
        (
            shard(
                "name = \"s\"\nprimary = \"host=h user=u\"\ncontrol_password_file = \"/dev/null\"",
            ),
            "databases.d.shards[0].control_password_file: there is no control string that it belongs to",
        ),
        (
            shard(
                "name = \"s\"\nprimary = \"host=h user=u\"\n[[databases.d.shards]]\nname = \"s\"\nprimary = \"host=i user=u\"",
            ),
            "databases.d.shards[1].name: another shard of this database is called \"s\"",
        ),
        (
            shard(
                "name = \"s\"\nprimary = \"host=g,h user=u\"\n[[databases.d.shards]]\nname = \"t\"\nprimary = \"host=h user=v\"",
            ),
            "databases.d.shards[1].primary: is the same database as the primary of \"s\"",
        ),
        (
            shard(
                "name = \"s\"\nprimary = \"host=g user=u\"\n[[databases.d.shards]]\nname = \"t\"\nprimary = \"host=h\"",
            ),
            "databases.d.shards[1].control: is missing, and the primary's string has no user: nobody could read the catalogue of this shard",
        ),
        (
            shard("name = \"s\"\nprimary = \"host=h\"")
                .replace("databases.d", "databases.pgbouncer"),
            "databases.pgbouncer: the name pgbouncer is reserved for the console",
        ),
        (
            shard("name = \"s\"\nprimary = \"host=h\"").replace("databases.d", "databases.\"\""),
            "databases.\"\": is not a name that a client can ask for",
        ),
        (
            format!(
                "{}\n[databases.d.pool]\nmode = \"x\"",
                shard("name = \"s\"\nprimary = \"host=h\"")
            ),
            "databases.d.pool.mode: \"x\" is none of the choices",
        ),
    ] {
        assert_eq!(problems(&text), [expected], "{text}");
    }
}

#[test]
fn rules_of_tables() {
    let path = "databases.shop.tables";
    for (rules, expected) in [
        ("[$.t]", "t: does not say where the rows of the table are"),
        (
            "[$.t]\nreference = false",
            "t: does not say where the rows of the table are",
        ),
        (
            "[$.t]\nkey = \"id\"\nreference = true",
            "t: has more than one rule",
        ),
        (
            "[$.t]\nshard = \"s0\"\nreference = true",
            "t: has more than one rule",
        ),
        (
            "[$.t]\nshard = \"s0\"\nkey = \"id\"",
            "t: has more than one rule",
        ),
        (
            "[$.t]\nshard = \"s7\"",
            "t.shard: there is no shard \"s7\" in this database",
        ),
        (
            "[$.t]\nkey = [\"a\", \"b\"]",
            "t.key: a sharding key is exactly one column for now",
        ),
        (
            "[$.t]\nkey = []",
            "t.key: a sharding key is exactly one column for now",
        ),
        (
            "[$.t]\nkey = \"a, b\"",
            "t.key: \"a, b\" is not a column name",
        ),
        (
            "[$.t]\nkey = \"t.a\"",
            "t.key: \"t.a\" is not a column name",
        ),
        (
            "[$.\"a.b.c\"]\nkey = \"id\"",
            "\"a.b.c\": is not a table name",
        ),
        ("[$.\"a b\"]\nkey = \"id\"", "\"a b\": is not a table name"),
        (
            "[$.\"public.t\"]\nkey = \"id\"\n[$.T]\nreference = true",
            "\"public.t\": the table t has another rule already",
        ),
    ] {
        let text = rules.replace('$', path);
        check_after(&text, &[&format!("{path}.{expected}")]);
    }
    check_after(
        "[databases.shop.tables]\nt = 3",
        &["databases.shop.tables.t: must be a table, but is an integer"],
    );
}
