"""The record schema as JSON Schema, for readers in other languages.

It is kept in ``record.schema.json``; ``python -m results.schema`` writes that file anew.
"""

import json
from pathlib import Path

from results.record import Record

SCHEMA_FILE = Path(__file__).with_name("record.schema.json")


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of the current version of a record, as the file holds it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Record.model_json_schema()}
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text())
