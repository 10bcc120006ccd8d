"""What SQLAlchemy's inspector and Django's introspection find in a database, as text: the same through the proxy."""

import os
import urllib.parse

import django
from django.conf import settings
from django.db import connection
from sqlalchemy import create_engine, inspect

DSN = os.environ["PGHERD_DSN"]


def with_sqlalchemy():
    engine = create_engine(DSN.replace("postgresql://", "postgresql+psycopg://"))
    inspector = inspect(engine)
    for schema in inspector.get_schema_names():
        if schema == "information_schema":
            continue
        print("schema", schema, sorted(inspector.get_sequence_names(schema)), inspector.get_enums(schema))
        for table in sorted(inspector.get_table_names(schema) + inspector.get_view_names(schema)):
            print(
                table,
                [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in inspector.get_columns(table, schema)],
                inspector.get_pk_constraint(table, schema),
                inspector.get_foreign_keys(table, schema),
                inspector.get_indexes(table, schema),
                inspector.get_unique_constraints(table, schema),
                inspector.get_check_constraints(table, schema),
                inspector.get_table_comment(table, schema),
            )
        for view in sorted(inspector.get_view_names(schema)):
            print(view, inspector.get_view_definition(view, schema))


def with_django():
    url = urllib.parse.urlsplit(DSN)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path[1:],
        "USER": url.username,
        "HOST": url.hostname,
        "PORT": url.port,
    }
    settings.configure(DATABASES={"default": database}, USE_TZ=True, TIME_ZONE="Europe/Prague")
    django.setup()
    # All that inspectdb asks but the columns, for which it reads a row of each table.
    with connection.cursor() as cursor:
        found = connection.introspection
        for table in sorted(found.get_table_list(cursor)):
            print(
                table,
                found.get_relations(cursor, table.name),
                found.get_primary_key_columns(cursor, table.name),
                found.get_constraints(cursor, table.name),
                found.get_sequences(cursor, table.name),
            )


with_sqlalchemy()
with_django()
