"""The statements of PostgreSQL's regression tests, cut as psql would cut them.

This is a third lexer on purpose: neither pgherd's nor sqlparser's may decide what a statement is.
"""

import re

TOKEN = re.compile(
    r"""
      (?P<blank>\s+|--[^\n\r]*)
    | (?P<comment>/\*)
    | (?P<escape>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<string>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*')
    | (?P<name>(?:[uU]&)?"(?:[^"]|"")*")
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>\d[\w.]*|\$\d+)
    | (?P<command>\\[^\n\r]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
BACKSLASHED = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
FROM_STDIN = re.compile(r"copy\b.*\bfrom\s+stdin\b", re.IGNORECASE | re.DOTALL)
CONFORMING = re.compile(r"\s*set\s+(?:local\s+|session\s+)?standard_conforming_strings\s*(?:=|to)\s*'?(\w+)", re.I)
ROUTINE = re.compile(r"c(?:or)?[fp]")
# Commands of psql that send what was typed, as a semicolon does.
SENDS = re.compile(r"\\(?:;|g(?:set|exec|desc|x)?\b|crosstabview\b|watch\b|gdesc\b|bind\b)")


def statements(text):
    """Every statement of a script, without its semicolon. What is no SQL to PostgreSQL's parser is for it to say."""
    at = 0
    begin = end = None
    parentheses = bodies = 0
    first_letters = ""
    conforming = True
    while at < len(text):
        match = TOKEN.match(text, at)
        kind, piece = match.lastgroup, match.group()
        stop = match.end()
        if kind == "comment":
            stop = comment_end(text, at)
        elif kind == "dollar":
            close = text.find(piece, stop)
            stop = len(text) if close < 0 else close + len(piece)
        elif kind == "string" and not conforming and piece[0] == "'":
            backslashed = BACKSLASHED.match(text, at)
            stop = backslashed.end() if backslashed else len(text)
        if kind in ("blank", "comment"):
            at = stop
            continue
        if kind == "command":
            sends = SENDS.match(piece)
            if sends and piece.startswith("\\;"):
                stop = at + 2
            ends = bool(sends)
        else:
            ends = piece == ";" and parentheses == 0 and bodies == 0
        at = stop
        if ends:
            if begin is not None:
                statement = text[begin:end]
                # While the setting is off the text means something that nobody else here reads it as.
                if conforming:
                    yield statement
                setting = CONFORMING.match(statement)
                if setting:
                    conforming = setting.group(1).lower() in ("on", "true", "default", "1")
                if FROM_STDIN.match(statement):
                    at = data_end(text, at)
            begin = end = None
            parentheses = bodies = 0
            first_letters = ""
            continue
        if kind == "command":
            continue
        if begin is None:
            begin = match.start()
        end = stop
        if piece == "(":
            parentheses += 1
        elif piece == ")":
            parentheses = max(0, parentheses - 1)
        elif kind == "word":
            word = piece.lower()
            if len(first_letters) < 4:
                first_letters += word[0]
            if parentheses == 0 and ROUTINE.match(first_letters):
                if word == "begin" or (word == "case" and bodies):
                    bodies += 1
                elif word == "end" and bodies:
                    bodies -= 1
    if begin is not None and conforming:
        yield text[begin:end]


def comment_end(text, at):
    """Comments nest."""
    depth = 0
    for match in re.compile(r"/\*|\*/").finditer(text, at):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def data_end(text, at):
    """Behind the rows of a COPY."""
    end = re.compile(r"^\\\.[^\n]*\n?", re.MULTILINE).search(text, at)
    return end.end() if end else len(text)
