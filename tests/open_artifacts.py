"""Opens every table of an artifact folder with Python's polars and with DuckDB, and checks columns, types and order.

Usage: open_artifacts.py FOLDER. Prints a line for each table; exits with 1 at the first that is not as promised.
"""
import sys
from pathlib import Path

import duckdb
import polars as pl

U16, U32, U64, F32, F64, TEXT = pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64, pl.String
TABLES = {
    "documents": dict(document=U32, source=TEXT, tokens=U32, half=TEXT),
    "tokens": dict(context=U32, document=U32, start=U32, tokens=pl.List(U32)),
    "prompts": dict(task=TEXT, prompt=U32, template=TEXT, text=TEXT, tokens=pl.List(U32), correct=U32, counter=U32,
                    corrupted=pl.List(U32)),
    "nodes": dict(task=TEXT, prompt=U32, node=U32, kind=TEXT, layer=U32, position=U32, source=U32, head=U32, feature=U32,
                  activation=F32),
    "edges": {"task": TEXT, "prompt": U32, "from": U32, "to": U32, "slot": TEXT, "effect": F32, "share": F32},
    "components": dict(task=TEXT, component=TEXT, layer=U32, head=U32, frequency=F64, features=U32),
    "circuit_features": dict(task=TEXT, component=TEXT, feature=TEXT, prompts=U32, share=F64),
    "rankings": dict(task=TEXT, ranking=TEXT, rank=U32, feature=TEXT, score=F64, chosen=pl.Boolean),
    "hook_scores": dict(task=TEXT, dictionary=TEXT, supporting=F64, opposing=F64, error=F64),
    "faithfulness": dict(task=TEXT, level=TEXT, variant=TEXT, stratum=TEXT, circuit=TEXT, size=U32, metric=TEXT, value=F64, low=F64,
                         high=F64),
    "activations": dict(context=U32, position=U16),
    "scores": dict(feature=U32, context=U32, position=U16, activation=F32),
    "features": dict(key=U32, feature=TEXT, page=pl.Boolean, kind=TEXT, layer=U32, index=U32, active=U64, density=F64, mean_active=F64,
                     max=F32, special_active=U64, histogram=pl.List(U64), tasks=pl.List(TEXT), components=pl.List(TEXT)),
    "examples": dict(subject=TEXT, half=TEXT, band=TEXT, rank=U32, context=U32, document=U32, peak=U16, value=F32,
                     tokens=pl.List(U32), activations=pl.List(F32)),
    "logits": dict(subject=TEXT, side=TEXT, rank=U32, token=U32, text=TEXT, logit=F32),
    "pairs_circuit": dict(task=TEXT, component_a=TEXT, component_b=TEXT, feature_a=TEXT, feature_b=TEXT, prompts=U32,
                          share=F64),
    "pairs_corpus": dict(feature_a=TEXT, feature_b=TEXT, lag=TEXT, n_a=U64, n_b=U64, n_ab=U64, expected=F64, lift=F64,
                         npmi=F64, jaccard=F64, phi=F64, p=F64, q=F64),
    "component_clusters": dict(component=TEXT, features=U32, members=pl.List(TEXT)),
    "explanations": dict(subject=TEXT, kind=TEXT, explainer=TEXT, model=TEXT, status=TEXT, input_side=TEXT,
                         output_side=TEXT, text=TEXT, reason=TEXT, prompt_hash=TEXT, sample=U32, matching=TEXT,
                         carried=TEXT, clauses=pl.List(TEXT), causes=pl.List(TEXT), claims=pl.List(TEXT)),
    "exchanges": dict(prompt_hash=TEXT, subject=TEXT, purpose=TEXT, model=TEXT, served=TEXT, roles=pl.List(TEXT),
                      messages=pl.List(TEXT), reply=TEXT, status=TEXT),
    "evaluations": dict(subject=TEXT, explainer=TEXT, method=TEXT, examples=U32, clause=U32, score=F64, low=F64, high=F64,
                        null=F64, judge=TEXT, null_subject=TEXT, rule=F64),
    "judgements": dict(subject=TEXT, method=TEXT, judge=TEXT, explained=TEXT, sample=U32, text=U32, band=TEXT, context=U32,
                       start=U16, tokens=U32, marked=pl.List(U32), truth=pl.Boolean, said=pl.Boolean, clause=U32, similarity=F32, prompt_hash=TEXT),
    "agreements": dict(subject=TEXT, between=TEXT, of=TEXT, compared=U32, value=F64),
    "causal": dict(subject=TEXT, positions=U32, strength=F32, promoted=F64, low=F64, high=F64, promoted_null=F64,
                   claimed=F64, claimed_low=F64, claimed_high=F64, claimed_null=F64, claims=U32, risen=pl.List(U32),
                   rise=pl.List(F32)),
    "judge_ledger": dict(prompt_hash=TEXT, subject=TEXT, purpose=TEXT, model=TEXT, prompt_tokens=U32,
                         completion_tokens=U32, cost=F64, seconds=F64, attempts=U32, status=TEXT),
    "ledger": dict(prompt_hash=TEXT, subject=TEXT, purpose=TEXT, model=TEXT, prompt_tokens=U32, completion_tokens=U32,
                   cost=F64, seconds=F64, attempts=U32, status=TEXT),
    "conformance": dict(dictionary=TEXT, layer=U32, kind=TEXT, width=U32, l0=F64, variance_explained=F64, dead=F64,
                        loss_recovered=F64, loss_recovered_low=F64, loss_recovered_high=F64, loss_tokens=U64,
                        loss_contexts=U64, warnings=pl.List(TEXT)),
}
# The leading columns by which each table is sorted.
BY_LEADING = {
    "documents": ["document"], "tokens": ["context"], "prompts": ["task", "prompt"], "nodes": ["task", "prompt", "node"],
    "edges": ["task", "prompt", "from", "to"], "components": ["task", "component"],
    "circuit_features": ["task", "component", "feature"], "faithfulness": ["task", "level", "variant", "circuit", "size", "metric", "ablation", "errors"],
    "rankings": ["task", "ranking", "rank"], "hook_scores": ["task"],
    "activations": ["context", "position"], "scores": ["feature", "context", "position"], "features": ["key"],
    "examples": ["subject", "half", "band", "rank"], "logits": ["subject", "side", "rank"],
    "pairs_circuit": ["task", "component_a", "component_b", "feature_a", "feature_b"],
    "pairs_corpus": ["feature_a", "feature_b", "lag"], "component_clusters": ["component"],
    "explanations": ["subject", "kind", "explainer", "sample"], "exchanges": ["prompt_hash", "subject", "purpose"],
    "evaluations": ["subject", "explainer", "method", "judge"],
    "judgements": ["subject", "method", "judge", "explained", "sample", "text"], "agreements": ["subject", "between", "of"],
    "causal": ["subject"], "ledger": ["prompt_hash", "subject", "purpose"],
    "judge_ledger": ["prompt_hash", "subject", "purpose"], "conformance": ["dictionary"],
}
BY_FEATURE = {"examples", "logits"}


def check(folder: Path, name: str, columns: dict) -> None:
    whole = folder / f"{name}.parquet"
    files = [whole] if whole.exists() else sorted((folder / name).glob("part-*.parquet"))
    assert files, f"{name}: no file"
    rows = 0
    for file in files:
        frame = pl.read_parquet(file)
        for column, dtype in columns.items():
            assert frame.schema.get(column) == dtype, f"{file}: {column} is {frame.schema.get(column)}, not {dtype}"
        keys, by = frame.select(BY_LEADING[name]), BY_LEADING[name]
        if name in BY_FEATURE:
            # Features in the order of their table, behind them other subjects by name.
            features = pl.read_parquet(folder / "features.parquet")["feature"]
            places = {feature: place for place, feature in enumerate(features)}
            place = pl.col("subject").replace_strict(places, default=len(places), return_dtype=U32)
            keys, by = keys.with_columns(place.alias("place")), ["place", *by]
        assert keys.equals(keys.sort(by)), f"{file} is not sorted"
        said = pl.read_parquet_metadata(file)
        assert said["circuit-atlas.artifact"] == name and len(said["circuit-atlas.fingerprint"]) == 32, said
        counted = duckdb.sql(f"select count(*) from read_parquet('{file}')").fetchall()[0][0]
        described = {row[0] for row in duckdb.sql(f"describe select * from read_parquet('{file}')").fetchall()}
        assert counted == frame.height and set(frame.columns) == described, f"{file}: DuckDB reads something else"
        rows += frame.height
    print(f"{name}: {len(files)} files, {rows} rows")


for table, promised in TABLES.items():
    check(Path(sys.argv[1]), table, promised)
