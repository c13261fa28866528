"""The record schemas as JSON Schema, for readers in other languages.

They are kept in ``record.schema.json`` and ``timing.schema.json``; ``python -m results.schema`` writes both anew.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from results.record import Record
from results.timing_record import TimingRecord

SCHEMA_FILE = Path(__file__).with_name("record.schema.json")
TIMING_SCHEMA_FILE = Path(__file__).with_name("timing.schema.json")
SCHEMAS: Mapping[Path, type[BaseModel]] = {SCHEMA_FILE: Record, TIMING_SCHEMA_FILE: TimingRecord}


def schema_text(model: type[BaseModel] = Record) -> str:
    """The JSON Schema (draft 2020-12) of the current version of a record, as its file holds it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    for file, schema_of in SCHEMAS.items():
        file.write_text(schema_text(schema_of))
