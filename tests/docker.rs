//! What of `docker/` can be held without a Docker daemon: the health check's command against an HTTP server, the
//! configuration against `pgherd check`, and that every file which is named exists.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::proxy::pgherd;

fn docker(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docker")
        .join(file)
}

/// Runs the command of HEALTHCHECK against a server on loopback that answers once with this line.
fn is_healthy(status: &str) -> bool {
    let text = fs::read_to_string(docker("Dockerfile")).unwrap();
    let (_, rest) = text.split_once("HEALTHCHECK").unwrap();
    let line = rest
        .lines()
        .find_map(|line| line.trim().strip_prefix("CMD "))
        .unwrap();
    let table: toml::Table = format!("command = {line}").parse().unwrap();
    let command: Vec<_> = table["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();

    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let script = command[2].replace("9632", &port);
    assert!(
        script.contains(&port),
        "the health check asks another port than 9632"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (stream, _) = listener.accept().unwrap();
            let request = BufReader::new(&stream).lines().next().unwrap().unwrap();
            assert_eq!(request, "GET /readyz HTTP/1.0");
            write!(&stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        Command::new(command[0])
            .args([command[1], &script])
            .status()
            .unwrap()
            .success()
    })
}

#[test]
fn the_health_check_believes_a_200_and_nothing_else() {
    assert!(is_healthy("200 OK"));
    assert!(!is_healthy("503 Service Unavailable"));
}

#[test]
fn the_configuration_has_no_problem() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("docker-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let text = fs::read_to_string(docker("sharding.toml")).unwrap();
    let here = text.replace(
        "/etc/pgherd/userlist.txt",
        docker("userlist.txt").to_str().unwrap(),
    );
    assert_ne!(here, text, "the users file is another one");
    let path = folder.join("sharding.toml");
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        let output = pgherd(&["check", "--config", path.to_str().unwrap()]);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), said)
    };
    let (good, misspelt) = (check(&here), check(&here.replace("key = ", "kee = ")));
    fs::remove_dir_all(&folder).unwrap();
    assert!(good.0, "{}", good.1);
    assert!(!misspelt.0, "a misspelt key passes the check");
}

#[test]
fn every_file_that_is_mounted_exists() {
    let text = fs::read_to_string(docker("compose.yaml")).unwrap();
    let mounts: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- .")?.split_once(':'))
        .map(|(path, _)| path)
        .collect();
    assert!(mounts.len() >= 4, "{mounts:?}");
    for path in mounts {
        assert!(docker(&format!(".{path}")).is_file(), ".{path} is missing");
    }
}
