"""Writes tests/data/oracle.txt: what PostgreSQL's own parser says of the statements of PostgreSQL's regression tests.

    make oracle                            the tests of Debian's source package, whose servers this machine's tests use
    make oracle ORACLE_SOURCE=FOLDER       those of a source tree of PostgreSQL 15 that is already there

Everything but the page is left below target/oracle.
"""

import argparse
import collections
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

from pglast import parser

from corpus import statements
from describe import describe

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "oracle"
PAGE = ROOT / "tests" / "data" / "oracle.txt"
# Longer ones are tables of data or whole programs in a string.
STATEMENT_BYTES_MAX = 4096
# Statements that differ in their literals only, by the parser's fingerprint. More of them show nothing new.
SAME_SHAPE_MAX = 3
SCRIPTS = re.compile(r"(?:^|/)(?:src/test/regress|contrib/[^/]+)/sql/[^/]+\.sql$")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--source", help="a source tree of PostgreSQL 15, instead of Debian's package")
    arguments.add_argument("--all", action="store_true", help="for one run of the test: statements of a shape, too")
    arguments = arguments.parse_args()
    source, shapes_max = arguments.source, sys.maxsize if arguments.all else SAME_SHAPE_MAX
    version, scripts, notice = from_folder(pathlib.Path(source)) if source else from_archive(fetch())
    rows = {}
    shapes = collections.Counter()
    refused = 0
    for script in scripts:
        try:
            text = script.decode()
        except UnicodeDecodeError:
            continue  # the few in another encoding
        for statement in statements(text):
            if len(statement.encode()) > STATEMENT_BYTES_MAX or statement in rows:
                continue
            row = rows[statement] = describe(statement)
            if row is None:
                refused += 1
                continue
            shape = parser.fingerprint(statement)
            shapes[shape] += 1
            if shapes[shape] > shapes_max:
                rows[statement] = None
    kept = {statement: row for statement, row in rows.items() if row}
    lines = [header(version, notice)]
    for statement, (kind, flags, shape, names, functions) in sorted(kept.items(), key=order):
        lines.append("\t".join([kind, flags, shape, ",".join(names), ",".join(functions), escaped(statement)]))
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    print(f"{len(scripts)} scripts, {len(rows)} statements: {len(kept)} kept, {refused} refused by the parser")


def order(row):
    statement, (kind, *_) = row
    return kind, statement


def escaped(statement):
    """On one line."""
    for character, escape in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        statement = statement.replace(character, escape)
    return statement


def header(version, notice):
    about = f"""What PostgreSQL's own parser says of the statements of PostgreSQL {version}'s regression tests.
Made by `make oracle`, read by tests/oracle.rs. One statement a line, with tabs between the fields:

kind, or the tag of the parse tree; w for writes, l for locks rows, t for makes something temporary;
how many there are, at all levels: c what AND joins in conditions, e equalities among that, i lists of IN among that,
d DISTINCT, g GROUP BY, w WINDOW, o ORDER BY, l LIMIT, s set operations, q subqueries in expressions, v OVER,
a calls with DISTINCT, FILTER or ORDER BY, J L R F joins (inner, left, right, full);
relations, or the names of a command of the session; functions;
the statement, with \\n, \\t, \\r and \\\\ for the characters that would end a field.

The statements are PostgreSQL's and under its licence, not under pgherd's:

{notice}"""
    return "\n".join(f"# {line}".rstrip() for line in about.splitlines()) + "\n"


def fetch():
    """The source archive of this system's postgresql-15, by apt with lists of its own: nothing of the system changes."""
    found = sorted(WORK.glob("postgresql-15_*.orig.tar.*"))
    if found:
        return found[-1]
    if not shutil.which("apt-get"):
        sys.exit("oracle: there is no apt-get here; name a source tree of PostgreSQL 15: make oracle ORACLE_SOURCE=FOLDER")
    lists = WORK / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (lists / folder).mkdir(parents=True, exist_ok=True)
    (lists / "sources.list").write_text("\n".join(sources()) + "\n")
    options = [
        f"-oDir::Etc::SourceList={lists}/sources.list",
        "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={lists}/lists",
        f"-oDir::Cache={lists}",
        "-oAPT::Sandbox::User=",
    ]
    subprocess.run(["apt-get", *options, "-q", "update"], check=True)
    known = subprocess.run(
        ["apt-cache", *options, "showsrc", "postgresql-15"], check=True, capture_output=True, text=True
    ).stdout
    # Mirrors may list a version whose sources they do not keep.
    for version in reversed(sorted(set(re.findall(r"^Version: (.*)$", known, re.MULTILINE)))):
        command = ["apt-get", *options, "-q", "source", "--download-only", "--tar-only", f"postgresql-15={version}"]
        if subprocess.run(command, cwd=WORK).returncode == 0:
            return sorted(WORK.glob("postgresql-15_*.orig.tar.*"))[-1]
    sys.exit("oracle: this system's packages have no sources of postgresql-15; use make oracle ORACLE_SOURCE=FOLDER")


def sources():
    """This system's own places of packages, asked for sources. Only what has PostgreSQL 15: Debian 12."""
    lines = []
    for file in pathlib.Path("/etc/apt").glob("sources.list"):
        lines += [line.replace("deb ", "deb-src ", 1) for line in file.read_text().splitlines() if line.startswith("deb ")]
    for file in pathlib.Path("/etc/apt/sources.list.d").glob("*.list"):
        lines += [line.replace("deb ", "deb-src ", 1) for line in file.read_text().splitlines() if line.startswith("deb ")]
    for file in pathlib.Path("/etc/apt/sources.list.d").glob("*.sources"):
        for paragraph in file.read_text().split("\n\n"):
            fields = dict(re.findall(r"^([\w-]+):\s*(.*)$", paragraph, re.MULTILINE))
            signed = f"[signed-by={fields['Signed-By']}] " if fields.get("Signed-By", "").startswith("/") else ""
            for uri in fields.get("URIs", "").split():
                lines += [f"deb-src {signed}{uri} {suite} main" for suite in fields.get("Suites", "").split()]
    return lines


def from_archive(archive):
    scripts = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            if SCRIPTS.search(name) or name in ("COPYRIGHT", "configure"):
                scripts[name] = tar.extractfile(member).read()
    return parts(scripts)


def from_folder(folder):
    names = [name for name in folder.rglob("*.sql") if SCRIPTS.search(name.relative_to(folder).as_posix())]
    names += [folder / "COPYRIGHT", folder / "configure"]
    return parts({name.relative_to(folder).as_posix(): name.read_bytes() for name in names})


def parts(files):
    """The version, the scripts in order, and the notice."""
    version = re.search(r"PACKAGE_VERSION='([^']+)'", files.pop("configure").decode()).group(1)
    notice = files.pop("COPYRIGHT").decode()
    return version, [files[name] for name in sorted(files)], notice


main()
