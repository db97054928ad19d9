"""Validates every graph of a site against a JSON schema.

Usage: check_graphs.py SCHEMA FOLDER. Prints how many there were; exits with 1 at the first that is not as promised.
"""
import json
import sys
from pathlib import Path

from jsonschema import Draft7Validator

schema = json.loads(Path(sys.argv[1]).read_text("utf-8"))
Draft7Validator.check_schema(schema)
files = sorted(Path(sys.argv[2]).glob("*.json"))
assert files, "no graph"
for file in files:
    for error in Draft7Validator(schema).iter_errors(json.loads(file.read_text("utf-8"))):
        sys.exit(f"{file.name}: {error.json_path}: {error.message}")
print(f"{len(files)} graphs")
