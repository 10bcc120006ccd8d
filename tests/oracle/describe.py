"""What PostgreSQL's parse tree says of one statement. Scoping of WITH is PostgreSQL's (parse_cte.c, parse_relation.c)."""

import collections
import json

from pglast import parser

QUERIES = {
    "SelectStmt": "select",
    "InsertStmt": "insert",
    "UpdateStmt": "update",
    "DeleteStmt": "delete",
    "MergeStmt": "merge",
}
WRITES = {"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"}
# Of WHERE and HAVING, of ON, of MERGE and of its WHEN.
CONDITIONS = ("whereClause", "havingClause", "quals", "joinCondition", "condition")
CLAUSES = {
    "distinctClause": "d",
    "groupClause": "g",
    "sortClause": "o",
    "windowClause": "w",
    "SubLink": "q",
    "over": "v",
}
JOINS = {"JOIN_INNER": "J", "JOIN_LEFT": "L", "JOIN_RIGHT": "R", "JOIN_FULL": "F"}
MODES = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")


def describe(text):
    """The fields of a text but its own, or None where it is not one statement to PostgreSQL's grammar."""
    try:
        statements = json.loads(parser.parse_sql_json(text)).get("stmts", [])
    except (parser.ParseError, UnicodeError, RecursionError, ValueError):
        return None
    if len(statements) != 1:
        return None
    (tag, node), = statements[0]["stmt"].items()
    if tag not in QUERIES:
        return tag, "t" if makes_temporary(tag, node) else "", "", details(tag, node), []
    found = Found()
    found.walk(statements[0]["stmt"], frozenset())
    flags = ("w" if found.writes else "") + ("l" if found.locks else "")
    shape = "".join(f"{letter}{found.shape[letter]}" for letter in sorted(found.shape) if found.shape[letter])
    return QUERIES[tag], flags, shape, sorted(found.relations), sorted(found.functions)


class Found:
    """Relations and functions of a query, as escaped names."""

    def __init__(self):
        self.relations = set()
        self.functions = set()
        self.writes = False
        self.locks = False
        # How many there are of what a plan hangs on, at all levels; the letters are explained in the page.
        self.shape = collections.Counter()

    def walk(self, node, ctes):
        if isinstance(node, list):
            for each in node:
                self.walk(each, ctes)
            return
        if not isinstance(node, dict):
            return
        if "withClause" in node:
            ctes = self.walk_with(node["withClause"], ctes)
        for key, value in node.items():
            self.walk_field(key, value, ctes)

    def walk_field(self, key, value, ctes):
        if key == "withClause":
            return
        if key in CONDITIONS:
            self.condition(value)
        if key in CLAUSES:
            self.shape[CLAUSES[key]] += 1
        if key in ("SelectStmt", "larg", "rarg") and any(has_count(value.get(f)) for f in ("limitCount", "limitOffset")):
            self.shape["l"] += 1
        if key == "op" and value in ("SETOP_UNION", "SETOP_INTERSECT", "SETOP_EXCEPT"):
            self.shape["s"] += 1
        if key == "JoinExpr":
            self.shape[JOINS[value["jointype"]]] += 1
        if key == "FuncCall" and any(field in value for field in ("agg_order", "agg_filter", "agg_distinct")):
            self.shape["a"] += 1
        if key == "MultiAssignRef" and value["colno"] > 1:
            return  # the same source again, for the next column
        if key in WRITES:
            self.writes = True
            # The target of a write is never a common table expression, whatever its name is.
            self.relations.add(relation(value["relation"]))
            rest = {name: field for name, field in value.items() if name != "relation"}
            self.walk(rest, ctes)
        elif key == "RangeVar":
            if value.get("schemaname") or value["relname"] not in ctes:
                self.relations.add(relation(value))
        elif key == "intoClause":
            # SELECT INTO makes the relation that it names; it references none.
            self.writes = True
        elif key == "lockingClause":
            # Its names are aliases of FROM.
            self.locks = True
        elif key == "FuncCall":
            # A form with words inside, such as `position(a IN b)`, which the grammar makes a call of.
            form = "form:" if value.get("funcformat") == "COERCE_SQL_SYNTAX" else ""
            self.functions.add(form + joined(strings(value["funcname"])))
            self.walk(value, ctes)
        elif key == "RangeTableSample" and strings(value["method"]) not in (["bernoulli"], ["system"]):
            self.functions.add(joined(strings(value["method"])))
            self.walk(value, ctes)
        elif key == "SQLValueFunction":
            word = value.get("op", "SVFOP_CURRENT_DATE").removeprefix("SVFOP_").removesuffix("_N")
            self.functions.add(word.lower())
        else:
            self.walk(value, ctes)

    def condition(self, node):
        (tag, value), = node.items()
        if tag == "BoolExpr" and value["boolop"] == "AND_EXPR":
            for each in value["args"]:
                self.condition(each)
            return
        self.shape["c"] += 1
        if tag == "A_Expr" and strings(value["name"]) == ["="]:
            kind = value["kind"]
            self.shape["e"] += kind == "AEXPR_OP"
            self.shape["i"] += kind == "AEXPR_IN" or kind == "AEXPR_OP_ANY" and "A_ArrayExpr" in value["rexpr"]

    def walk_with(self, clause, ctes):
        """Without RECURSIVE an expression sees those before it; with it, all of them and itself."""
        members = [member["CommonTableExpr"] for member in clause["ctes"]]
        if clause.get("recursive"):
            ctes = ctes | {member["ctename"] for member in members}
        for member in members:
            self.walk(member, ctes)
            ctes = ctes | {member["ctename"]}
        return ctes


def has_count(node):
    """LIMIT ALL is none."""
    return node is not None and not node.get("A_Const", {}).get("isnull")


def makes_temporary(tag, node):
    """Whether a CREATE puts its object into the session's temporary schema."""
    if not (tag.startswith("Create") or tag in ("ViewStmt", "DefineStmt", "CompositeTypeStmt")):
        return False
    for field in ("relation", "view", "sequence", "typevar", "into", "base"):
        made = node.get(field, {})
        made = made.get("rel", made)
        made = made.get("relation", made) if field == "base" else made
        if made.get("relpersistence") == "t" or made.get("schemaname") == "pg_temp":
            return tag not in ("CreateTrigStmt", "CreatePolicyStmt")
    for field in ("funcname", "defnames", "typeName", "domainname"):
        if isinstance(node.get(field), list) and "pg_temp" in strings(node[field])[:-1]:
            return True
    return False


def details(tag, node):
    """What pgherd follows of a session's commands, beside their kind."""
    if tag == "TransactionStmt":
        kind = node.get("kind", "TRANS_STMT_BEGIN").removeprefix("TRANS_STMT_")
        names = ["BEGIN" if kind == "START" else kind]
        names += ["chain"] if node.get("chain") else []
        names += [escaped(node["savepoint_name"])] if node.get("savepoint_name") else []
        return names + modes(node.get("options", []))
    if tag == "VariableSetStmt":
        kind = node.get("kind", "VAR_SET_VALUE")
        name = escaped(node.get("name", ""))
        if kind == "VAR_SET_MULTI" and name in ("TRANSACTION", "SESSION\\x20CHARACTERISTICS"):
            return [name] + modes(node.get("args", []))
        if kind == "VAR_RESET_ALL":
            return ["RESET"]
        if kind == "VAR_RESET":
            return ["RESET", name]
        return ["LOCAL" if node.get("is_local") else "SET", name]
    if tag in ("VariableShowStmt", "PrepareStmt", "ExecuteStmt", "DeallocateStmt"):
        return [escaped(node["name"])] if node.get("name") else []
    if tag == "DiscardStmt":
        return [node.get("target", "DISCARD_ALL").removeprefix("DISCARD_")]
    return []


def modes(options):
    """Transaction modes; the last of each kind counts."""
    last = {}
    for option in options:
        element = option["DefElem"]
        value = element["arg"]["A_Const"]
        if "sval" in value:
            last[element["defname"]] = value["sval"]["sval"]
        else:
            last[element["defname"]] = str(value.get("ival", {}).get("ival", 0))
    return [f"{name}={escaped(last[name])}" for name in MODES if name in last]


def relation(node):
    parts = [node.get("catalogname"), node.get("schemaname"), node["relname"]]
    return joined([part for part in parts if part])


def strings(nodes):
    return [node["String"].get("sval", "") for node in nodes]


def joined(parts):
    return ".".join(escaped(part) for part in parts)


def escaped(name):
    """A name in which no separator stands."""
    return "".join(f"\\x{ord(c):02x}" if c in "\\,. \t\r\n" else c for c in name)
