//! The built program as a script sees it: exit codes, and what is said on which stream. No server is needed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Exit code, standard output, standard error.
type Said = (Option<i32>, String, String);

fn pgherd(args: &[&str], environment: &[(&str, &str)]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .args(args)
        .env_remove("PGHERD_CONFIG")
        .env_remove("SHOP_PASSWORD")
        .envs(environment.iter().copied())
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A folder with `sharding.toml` and the users file that it names, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, config: &str) -> Folder {
        let name = format!("command-line-{name}-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("sharding.toml"), config).unwrap();
        fs::write(folder.join("userlist.txt"), "\"shop\" \"hush\"\n").unwrap();
        Folder(folder)
    }

    fn config(&self) -> String {
        self.0.join("sharding.toml").to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn shipped() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("sharding.toml")).unwrap()
}

/// One shard where nobody listens.
const NOBODY: &str = "[auth]\nmethod = \"trust\"\n[databases.shop]\n[[databases.shop.shards]]\nname = \"s0\"\n\
                      primary = \"host=127.0.0.1 port=1 user=shop password=hush\"\n";

#[test]
fn help_names_every_command_with_examples_and_exit_codes() {
    let (code, help, errors) = pgherd(&["--help"], &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    for word in ["run", "check", "init", "explain", "demo"] {
        assert!(help.contains(&format!("\n  {word} ")), "{word}:\n{help}");
        let (code, of_command, _) = pgherd(&[word, "--help"], &[]);
        assert_eq!(code, Some(0), "{word}");
        assert!(of_command.contains("--config"), "{word}");
    }
    for word in ["Examples:", "Exit codes:", "PGHERD_CONFIG"] {
        assert!(help.contains(word), "{word}:\n{help}");
    }
    assert!(
        help.lines().all(|line| line.chars().count() <= 120),
        "{help}"
    );
    let (code, version, _) = pgherd(&["--version"], &[]);
    let expected = format!("pgherd {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((code, version), (Some(0), expected));
}

#[test]
fn wrong_usage_ends_with_2_and_a_hint() {
    for (args, expected) in [
        (&["serve"][..], "unrecognized subcommand 'serve'"),
        (&["chek"], "'check'"),
        (&["run", "--listen"], "unexpected argument '--listen'"),
        (&["explain"], "<SQL>"),
        (&["demo", "--shards", "0"], "0 is not in 1..=16"),
    ] {
        let (code, out, errors) = pgherd(args, &[]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}");
        assert!(errors.contains(expected), "{args:?}:\n{errors}");
    }
}

#[test]
fn without_a_configuration_every_command_that_needs_one_ends_with_2_and_says_where_to_begin() {
    for args in [
        &["run"][..],
        &[],
        &["check"],
        &["init"],
        &["explain", "SELECT 1"],
    ] {
        let (code, out, errors) = pgherd(args, &[("PGHERD_CONFIG", "nowhere/none.toml")]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}");
        assert!(
            errors.contains("nowhere/none.toml: the configuration file cannot be read"),
            "{errors}"
        );
        assert!(errors.contains("--config FILE"), "{errors}");
    }
}

#[test]
fn all_problems_are_shown_at_once_each_with_its_path_and_remedy_and_without_secrets() {
    let wrong = NOBODY
        .replace("\"trust\"", "\"turst\"")
        .replace("port=1", "prot=1")
        + "[pool]\nsize = 0\nwait_timeout = \"30\"\n";
    let folder = Folder::new("wrong", &wrong);
    for command in ["check", "run", "init"] {
        let (code, out, errors) = pgherd(&[command, "--config", &folder.config()], &[]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{command}");
        assert!(errors.contains("has 4 problems"), "{errors}");
        for expected in [
            "auth.method: \"turst\" is none of the choices\n    did you mean \"trust\"?",
            "databases.shop.shards[0].primary: ",
            "pool.size: 0 is out of range\n    write a whole number from 1 to ",
            "pool.wait_timeout: \"30\" is not a duration\n    write a number with a unit",
        ] {
            assert!(errors.contains(expected), "{command}: {expected}\n{errors}");
        }
        assert!(!errors.contains("hush"), "{errors}");
    }
}

#[test]
fn the_shipped_file_passes_when_its_secret_is_set_and_says_so_when_not() {
    let folder = Folder::new("shipped", &shipped());
    let args = ["check", "--config", &folder.config()];
    let (code, out, errors) = pgherd(&args, &[("SHOP_PASSWORD", "hush")]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(
        out.ends_with("database shop: 3 shards (s0, s1, s2), rules for 4 tables\n"),
        "{out}"
    );
    assert!(!out.contains("hush"), "{out}");
    let (code, _, errors) = pgherd(&args, &[]);
    assert_eq!(code, Some(2));
    assert_eq!(
        errors
            .matches("the environment variable SHOP_PASSWORD is not set")
            .count(),
        3,
        "{errors}"
    );
}

#[test]
fn a_server_that_is_down_is_a_failure_at_run_time_and_no_secret_is_told() {
    let folder = Folder::new("down", NOBODY);
    let (code, out, errors) = pgherd(&["check", "--connect", "-c", &folder.config()], &[]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        errors.contains("error: databases.shop.shards.s0.control: shop/s0: "),
        "{errors}"
    );
    assert!(!(out + &errors).contains("hush"));
    // A check that does not look is content.
    let (code, ..) = pgherd(&["check", "-c", &folder.config()], &[]);
    assert_eq!(code, Some(0));
    let sharded = NOBODY.to_owned()
        + "[[databases.shop.shards]]\nname = \"s1\"\nprimary = \"host=127.0.0.1 port=2 user=shop password=hush\"\n";
    let folder = Folder::new("sharded", &sharded);
    for args in [&["run"][..], &["init"], &["explain", "SELECT 1"]] {
        let config = folder.config();
        let args = [args, &["--config", &config]].concat();
        let (code, out, errors) = pgherd(&args, &[]);
        assert_eq!(code, Some(1), "{args:?}: {errors}");
        assert!(errors.contains("shop/s"), "{args:?}: {errors}");
        assert!(!(out + &errors).contains("hush"), "{args:?}");
    }
}

#[test]
fn explain_on_one_shard_asks_nobody_and_a_database_that_is_not_there_is_wrong_usage() {
    let folder = Folder::new("explain", NOBODY);
    let explain = |more: &[&str]| {
        let config = folder.config();
        let args = [&["explain", "-c", &config], more].concat();
        pgherd(&args, &[])
    };
    let expected = "one shard s0, as it is\nshards: s0\n";
    for more in [&["SELECT 1"][..], &["--database", "shop", "not even SQL"]] {
        assert_eq!(
            explain(more),
            (Some(0), expected.to_owned(), String::new()),
            "{more:?}"
        );
    }
    let (code, _, errors) = explain(&["-d", "shoop", "SELECT 1"]);
    assert_eq!(code, Some(2));
    assert_eq!(
        errors,
        "pgherd: there is no database shoop\n    the file has: shop\n"
    );
}
