"""Texts that nobody wrote and PostgreSQL's parser takes all the same, made of the page's queries: what a misreading hides in.

    target/oracle/venv/bin/python tests/oracle/mutate.py --seconds 60
    ORACLE_PAGE=target/oracle/mutated.txt cargo test --test oracle understood

Needs `make oracle` before. Another `--seed` makes other texts; a disagreement belongs into the tests of `src/sql`.
"""

import argparse
import pathlib
import random
import re
import time

from corpus import TOKEN, comment_end
from describe import QUERIES, describe

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "tests" / "data" / "oracle.txt"
MUTATED = ROOT / "target" / "oracle" / "mutated.txt"
QUERY_CHARACTERS_MAX = 400
# What is put between, or in the place of, the tokens that are there: words of the grammar, operators, literals.
PIECES = r"""
all and any array as asc at between both case cast coalesce collate collation cross cube current_date current_user
current_schema default distinct do document double else end except exists extract false fetch filter first following for
from full greatest group grouping having ilike in inner insert intersect interval into is isnull join lateral leading
least left like limit localtime materialized natural next no normalize not nothing notnull null nullif of offset on only
operator or order ordinality outer over overlaps overlay partition placing position preceding range recursive returning
right rollup row rows select session_user set sets similar some substring symmetric table tablesample then ties time
timestamp to trailing trim true unbounded union unique unknown update user using values variadic when where window with
within xmlparse zone ( ) [ ] , . : ; :: := => = <> != < > <= >= == =@ !=- + - * / % ^ | & # ~ ! @ || -> @> <@ ? $1 1 'x'
E'a\'b' U&'x' $$a$$ B'1' X'1F' N'x' "A" "select" a.b a.b.c a.* (a).b (select(1)) (values(1)) row(1,2) array[1] a[1:2]
interval'1' date'x' 1.5 1e5 .5 and or not =
""".split()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments = arguments.parse_args()
    chance = random.Random(arguments.seed)
    queries = [list(tokens(text)) for text in texts()]
    words = [token for query in queries for token in query]
    lines = {}
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        text = mutated(chance, queries, words)
        if text in lines:
            continue
        row = describe(text)
        if row:
            kind, flags, shape, names, functions = row
            lines[text] = "\t".join([kind, flags, shape, ",".join(names), ",".join(functions), escaped(text)])
    MUTATED.write_text("".join(f"{line}\n" for line in lines.values()), encoding="utf-8", newline="\n")
    print(f"{len(lines)} texts in {MUTATED.relative_to(ROOT)}")


def mutated(chance, queries, words):
    text = list(chance.choice(queries))
    for _ in range(chance.choice((1, 1, 2, 3))):
        if len(text) < 2:
            break
        at = chance.randrange(len(text))
        piece = chance.choice(PIECES) if chance.random() < 0.6 else chance.choice(words)
        other = chance.choice(queries)
        begin = chance.randrange(len(other))
        part = other[begin : begin + chance.randrange(1, 8)]
        what = chance.random()
        if what < 0.3:
            text[at] = piece
        elif what < 0.6:
            text.insert(at, piece)
        elif what < 0.7:
            del text[at]
        elif what < 0.8:
            place = chance.randrange(len(text))
            text[at], text[place] = text[place], text[at]
        elif what < 0.9:
            text[at:at] = part
        else:
            text[at : at + chance.randrange(1, 4)] = part
    whole = " ".join(text)
    if chance.random() < 0.3:
        whole = re.sub(r" ?([^\w\s'\"$]) ?", r"\1", whole)
    # The page's statements have neither blanks nor semicolons around them.
    return whole.strip().rstrip(";").strip()


def texts():
    """The shorter queries of the page."""
    for line in PAGE.read_text(encoding="utf-8").split("\n"):
        fields = line.split("\t")
        if fields[0] in QUERIES.values() and len(fields[-1]) <= QUERY_CHARACTERS_MAX:
            yield re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": "\t", "r": "\r"}.get(escape[1], "\\"), fields[-1])


def tokens(text):
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        stop = match.end()
        if match.lastgroup == "comment":
            stop = comment_end(text, at)
        elif match.lastgroup == "dollar":
            close = text.find(match.group(), stop)
            stop = len(text) if close < 0 else close + len(match.group())
        if match.lastgroup not in ("blank", "comment"):
            yield text[at:stop]
        at = stop


def escaped(text):
    for character, escape in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        text = text.replace(character, escape)
    return text


main()
