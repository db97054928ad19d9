"""Writes `tokenizer.json.gz` and `documents.jsonl` from GPT-2's `tokenizer.json` and the validation text of WikiText-2. Needs
tokenizers:

    python make.py tokenizer.json wikitext2-valid.txt
"""
import gzip
import json
import re
import sys
from pathlib import Path

from tokenizers import Tokenizer

BYTES = 80_000
HERE = Path(__file__).resolve().parent
tokenizer_file, text_file = map(Path, sys.argv[1:])
tokenizer = Tokenizer.from_file(str(tokenizer_file))
(HERE / "tokenizer.json.gz").write_bytes(gzip.compress(tokenizer_file.read_bytes(), 9, mtime=0))

# A document is a section, its heading first.
sections = re.split(r"(?m)^(?= = )", text_file.read_bytes().decode("utf8"))
lines, size = [], 0
for text in sections:
    if size > BYTES:
        break
    size += len(text.encode("utf8"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    lines.append(json.dumps({"text": text, "ids": ids}, ensure_ascii=False, separators=(",", ":")) + "\n")
(HERE / "documents.jsonl").write_text("".join(lines), encoding="utf8", newline="")
