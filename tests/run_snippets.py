"""Runs the snippets of a site's data/index.html: run_snippets.py SITE [http | duckdb]

With "http" the site has an address, and it is served here in its place; with "duckdb" too, for DuckDB alone, which
needs its extension httpfs for that.
"""

import functools
import html
import http.server
import os
import re
import sys
import threading
from pathlib import Path

import duckdb


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A server of files that also sends parts of them, as web servers do."""

    def send_head(self):
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        path = Path(self.translate_path(self.path))
        if not wanted or not path.is_file():
            return super().send_head()
        size = path.stat().st_size
        first, last = wanted.groups()
        first, last = (int(first), int(last or size - 1)) if first else (max(size - int(last), 0), size - 1)
        last = min(last, size - 1)
        file = path.open("rb")
        file.seek(first)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.left = last - first + 1
        return file

    def copyfile(self, source, out):
        left = getattr(self, "left", None)
        if left is None:
            return super().copyfile(source, out)
        self.left = None
        out.write(source.read(left))

    def log_message(self, *_):
        pass


def tables(site):
    page = (site / "data/index.html").read_text()
    found = re.findall(r'<pre class="snippet" data-for="(\w+)" tabindex="0"><code>(.*?)</code></pre>', page, re.S)
    return {tool: html.unescape(code) for tool, code in found}


def expected(site):
    import polars

    features = polars.read_parquet(site / "data/features.parquet")
    explanations = polars.read_parquet(site / "data/explanations.parquet")
    rows = features.join(explanations, left_on="feature", right_on="subject").height
    assert rows > 0
    return rows


def run(code):
    names = {}
    exec(compile(code, "snippet", "exec"), names)
    return len(names["table"])


site = Path(sys.argv[1]).resolve()
snippets = tables(site)
assert list(snippets) == ["polars", "duckdb", "pandas"], list(snippets)
how = (sys.argv[2:] or ["disk"])[0]
os.chdir(site)
if how == "disk":
    import pandas
    import polars

    rows = expected(site)
    assert run(snippets["polars"]) == run(snippets["pandas"]) == rows
    assert len(duckdb.sql(snippets["duckdb"]).fetchall()) == rows
    # Every table says the same to all.
    for path in Path("data").rglob("*.parquet"):
        table, other = polars.read_parquet(path), pandas.read_parquet(path)
        assert list(other.columns) == table.columns and len(other) == table.height, path
        assert duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall() == [(table.height,)], path
else:
    # What stands for the address is a literal of its language, whatever is in it.
    address = 'http://127.0.0.1:1/it\'s "here"'
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Ranges, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_address[1]}"
    if how == "http":
        rows = expected(site)
        for tool in ["polars", "pandas"]:
            names = {}
            data = next(line for line in snippets[tool].splitlines() if line.startswith("data = "))
            exec(data, names)
            assert names["data"] == f"{address}/data", names["data"]
            assert run(snippets[tool].replace(data, f"data = {here + '/data'!r}")) == rows
        print("over http: polars, pandas")
    else:
        import duckdb_extension_httpfs

        extension = next(Path(duckdb_extension_httpfs.__file__).parent.rglob("httpfs.duckdb_extension"))
        code, literal = snippets["duckdb"], address.replace("'", "''")
        assert code.count(f"'{literal}/data/") == 2, code
        local = duckdb.connect().execute(code.replace(literal, str(site))).fetchall()
        connection = duckdb.connect()
        connection.execute(f"LOAD '{extension}'")
        assert connection.execute(code.replace(literal, here)).fetchall() == local and local
        print("over http: duckdb")
    server.shutdown()
print(", ".join(snippets))
