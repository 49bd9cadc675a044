"""The same audit by other engines: `python -m scripts.bench.audit_peers CASE LOG OUT GIVEN`.

`polars` and `duckdb` compute the verdict, its reasons, the governing subject, four permissions and the deciding
positions, with as-of joins over the tables of audit_tables.py. `inforce audit` computes more: hindsight, lag, regions,
networks and providers; and it keeps the order of the log, which DuckDB does not. `floor` decides nothing: it reads
every row of the log and writes real verdicts with the request's own id and time. `floor-lines` and
`floor-lines-duckdb` only read the rows of a JSON Lines log.

GIVEN is the folder that audit_tables.py wrote; for `floor`, a verdict file that `inforce audit` wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from projections.audit.index.schema import ACCOUNT, KEY, ORG, PROJECT
from scripts.bench.audit_tables import DEFAULTS, TABLES

if TYPE_CHECKING:
    import polars as pl

_IDS: Final = ("request_id", "key_id", "account_id", "org_id", "project_id", "model_id")
_FLAGS: Final = ("stored", "cached", "trained")
_TEXTS: Final = ("forwarded_to", "region", "network")
_OBSERVED: Final = tuple(f"handling.{name}" for name in (*_FLAGS, *_TEXTS))


def write_verdicts(log: str, out: str, verdicts: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from projections.audit.verdict_files import GROUP_ROWS, parquet_writer

    source = pq.ParquetFile(verdicts)
    schema = source.schema_arrow.remove_metadata()
    pattern = next(source.iter_batches(GROUP_ROWS))
    with open(out, "wb") as file:
        writer = parquet_writer(file, schema)
        for batch in pq.ParquetFile(log).iter_batches(GROUP_ROWS):
            table = pa.table(dict(zip(schema.names, pattern.slice(0, batch.num_rows).columns, strict=True)))
            for name in ("request_id", "at"):
                table = table.set_column(schema.get_field_index(name), name, batch.column(name))
            writer.write_table(table.cast(schema), row_group_size=batch.num_rows)
        writer.close()


def read_lines(log: str, _out: str, _given: str) -> None:
    import pyarrow as pa
    from pyarrow import json

    handling = pa.struct([*((name, pa.bool_()) for name in _FLAGS), *((name, pa.string()) for name in _TEXTS)])
    schema = pa.schema(
        [
            ("at", pa.timestamp("us", tz="UTC")),
            ("enforced_position", pa.int64()),
            ("handling", handling),
            *((name, pa.string()) for name in _IDS),
        ]
    )
    reader = json.open_json(
        log,
        read_options=json.ReadOptions(block_size=1 << 22),
        parse_options=json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    )
    for _batch in reader:
        pass


def read_lines_with_duckdb(log: str, _out: str, _given: str) -> None:
    import duckdb

    handling = ", ".join([*(f"{name} BOOLEAN" for name in _FLAGS), *(f"{name} VARCHAR" for name in _TEXTS)])
    columns = {"at": "TIMESTAMPTZ", "enforced_position": "BIGINT", "handling": f"STRUCT({handling})"}
    columns |= dict.fromkeys(_IDS, "VARCHAR")
    with duckdb.connect() as connection:
        rows = connection.read_json(log, columns=columns, format="newline_delimited")
        for _batch in rows.to_arrow_reader(100_000):
            pass


def audit_with_duckdb(log: str, out: str, given: str) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        # The fastest setting: the verdicts come in any order.
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(_SQL.format(log=log, out=out, **_tables(given), **_sql_booleans(_defaults(given))))


def audit_with_polars(log: str, out: str, given: str) -> None:
    defaults = _defaults(given)
    rows = _polars_states(log, _tables(given), defaults)
    _polars_verdicts(rows, defaults).sink_parquet(out, compression="zstd", compression_level=1)


def _polars_states(log: str, tables: dict[str, str], defaults: dict[str, bool]) -> pl.LazyFrame:
    """The requests with their governing subject, its switches, and the hosting and provider of the model."""
    import polars as pl

    col = pl.col
    subjects = pl.scan_parquet(tables["subjects"])
    links = pl.scan_parquet(tables["links"]).sort("at")

    def coded(rows: pl.LazyFrame, kind: int, column: str, code: str) -> pl.LazyFrame:
        numbers = subjects.filter(col("kind") == kind).select(col("id").alias(column), col("code").alias(code))
        return rows.join(numbers, on=column, how="left", maintain_order="left")

    rows = pl.scan_parquet(log)
    for kind, column, code in (
        (KEY, "key_id", "key"),
        (PROJECT, "project_id", "project"),
        (ORG, "org_id", "org"),
        (ACCOUNT, "account_id", "account"),
    ):
        rows = coded(rows, kind, column, code)
    owners = links.rename(
        {"code": "key", "target": "key_owner", "target_kind": "owner_kind", "link_position": "key_position"}
    )
    rows = rows.join_asof(owners, on="at", by="key", check_sortedness=False)
    by_project = pl.when(col("project").is_not_null()).then(col("project")).when(col("owner_kind") == PROJECT)
    rows = rows.with_columns(project=by_project.then(col("key_owner")))
    owners = links.select("at", project="code", project_owner="target", project_position="link_position")
    rows = rows.join_asof(owners, on="at", by="project", check_sortedness=False)
    owned = pl.when(col("owner_kind") == ORG).then(col("key_owner"))
    rows = rows.with_columns(code=pl.coalesce("org", "account", owned, "project_owner"))
    policies = pl.scan_parquet(tables["policies"]).sort("at")
    rows = rows.join_asof(policies, on="at", by="code", check_sortedness=False)
    rows = rows.with_columns(col(name).fill_null(default) for name, default in defaults.items())
    rows = rows.join(subjects.select("code", "reference"), on="code", how="left", maintain_order="left")
    rows = rows.with_columns(
        governed_by=pl.coalesce("reference", "org:" + col("org_id"), "account:" + col("account_id"))
    )
    models = pl.scan_parquet(tables["models"]).rename({"id": "model_id"}).sort("at")
    return rows.join_asof(models, on="at", by="model_id", check_sortedness=False)


def _polars_verdicts(rows: pl.LazyFrame, defaults: dict[str, bool]) -> pl.LazyFrame:
    import polars as pl

    col = pl.col
    passed = (col("hosting") == "passthrough").fill_null(False)
    named = col("model_id").is_not_null()
    receiver = col("handling.forwarded_to")
    other = (col("provider") != receiver).fill_null(False)
    resolved = col("governed_by").is_not_null()
    provider_unknown = ~named | (passed & col("provider").is_null())
    reasons = {
        "unknown_owner": ~resolved,
        "unknown_model": (named & col("hosting").is_null())
        | (receiver.is_not_null() & col("passthrough") & provider_unknown),
        "passthrough_not_allowed": passed & ~col("passthrough"),
        "left_platform": receiver.is_not_null()
        & pl.when(col("hosting") == "hosted").then(True).when(passed).then(False).otherwise(~col("passthrough")),
        "wrong_provider": passed & col("passthrough") & other,
    }
    for flag, switch, reason in (
        ("stored", "storage", "stored_against_setting"),
        ("cached", "caching", "cached_against_setting"),
        ("trained", "training", "trained_without_opt_in"),
    ):
        reasons[reason] = col(f"handling.{flag}").fill_null(False) & ~col(switch)
    rows = rows.with_columns(applies.alias(reason) for reason, applies in reasons.items())
    breach = pl.any_horizontal(list(reasons)[2:])
    observed = pl.any_horizontal(col(name).is_not_null() for name in _OBSERVED)
    verdict = (
        pl.when(~resolved)
        .then(pl.lit("indeterminate"))
        .when(breach)
        .then(pl.when(observed).then(pl.lit("violation")).otherwise(pl.lit("denied")))
        .when("unknown_model")
        .then(pl.lit("indeterminate"))
        .otherwise(pl.when(observed).then(pl.lit("compliant")).otherwise(pl.lit("allowed")))
    )
    names = [
        pl.when(col(reason) if reason == "unknown_owner" else resolved & col(reason)).then(pl.lit(reason))
        for reason in reasons
    ]
    positions = [col("key_position"), col("project_position")]
    positions += [pl.when(resolved).then(col(f"{name}_position")) for name in (*defaults, "hosting", "provider")]
    return rows.select(
        "request_id",
        "at",
        verdict.alias("verdict"),
        "governed_by",
        reasons=pl.concat_list(names).list.drop_nulls(),
        may_store=resolved & col("storage"),
        may_cache=resolved & col("caching"),
        may_train=resolved & col("training"),
        may_leave_platform=resolved & col("passthrough") & (~named | passed),
        deciding_positions=pl.concat_list(positions).list.drop_nulls(),
    )


_SQL: Final = f"""
COPY (
WITH subjects AS (FROM '{{subjects}}'),
links AS (FROM '{{links}}'),
coded AS (
  SELECT log.*, k.code AS key, p.code AS project, coalesce(o.code, a.code) AS named FROM '{{log}}' log
  LEFT JOIN (SELECT id, code FROM subjects WHERE kind = {KEY}) k ON log.key_id = k.id
  LEFT JOIN (SELECT id, code FROM subjects WHERE kind = {PROJECT}) p ON log.project_id = p.id
  LEFT JOIN (SELECT id, code FROM subjects WHERE kind = {ORG}) o ON log.org_id = o.id
  LEFT JOIN (SELECT id, code FROM subjects WHERE kind = {ACCOUNT}) a ON log.account_id = a.id),
keyed AS (
  SELECT coded.*, l.target AS key_owner, l.target_kind AS owner_kind, l.link_position AS key_position
  FROM coded ASOF LEFT JOIN links l ON coded.key = l.code AND coded."at" >= l."at"),
projected AS (
  SELECT keyed.*, l.target AS project_owner, l.link_position AS project_position FROM keyed ASOF LEFT JOIN links l
  ON CASE WHEN project IS NOT NULL THEN project WHEN owner_kind = {PROJECT} THEN key_owner END = l.code
  AND keyed."at" >= l."at"),
governed AS (
  SELECT *, coalesce(named, CASE WHEN owner_kind = {ORG} THEN key_owner END, project_owner) AS governing
  FROM projected),
stated AS (
  SELECT g.*, coalesce(p.training, {{training}}) AS may_train, coalesce(p.storage, {{storage}}) AS may_store,
  coalesce(p.caching, {{caching}}) AS may_cache, coalesce(p.passthrough, {{passthrough}}) AS passthrough,
  training_position, storage_position, caching_position, passthrough_position
  FROM governed g ASOF LEFT JOIN '{{policies}}' p ON g.governing = p.code AND g."at" >= p."at"),
worded AS (
  SELECT stated.*, coalesce(s.reference, 'org:' || org_id, 'account:' || account_id) AS governed_by
  FROM stated LEFT JOIN subjects s ON stated.governing = s.code),
modelled AS (
  SELECT w.*, m.hosting, m.provider, m.hosting_position, m.provider_position, "handling.forwarded_to" AS receiver
  FROM worded w ASOF LEFT JOIN '{{models}}' m ON w.model_id = m.id AND w."at" >= m."at"),
judged AS (
  SELECT *, governed_by IS NOT NULL AS resolved,
  passthrough AND (model_id IS NULL OR coalesce(hosting = 'passthrough', false)) AS may_leave_platform,
  {" OR ".join(f'"{name}" IS NOT NULL' for name in _OBSERVED)} AS observed,
  (model_id IS NOT NULL AND hosting IS NULL) OR (receiver IS NOT NULL AND passthrough AND (model_id IS NULL
    OR (hosting = 'passthrough' AND provider IS NULL))) AS unknown_model,
  list_filter([
    CASE WHEN hosting = 'passthrough' AND NOT passthrough THEN 'passthrough_not_allowed' END,
    CASE WHEN receiver IS NOT NULL AND CASE hosting WHEN 'hosted' THEN true WHEN 'passthrough' THEN false
      ELSE NOT passthrough END THEN 'left_platform' END,
    CASE WHEN hosting = 'passthrough' AND passthrough AND provider <> receiver THEN 'wrong_provider' END,
    CASE WHEN "handling.stored" AND NOT may_store THEN 'stored_against_setting' END,
    CASE WHEN "handling.cached" AND NOT may_cache THEN 'cached_against_setting' END,
    CASE WHEN "handling.trained" AND NOT may_train THEN 'trained_without_opt_in' END
  ], lambda reason: reason IS NOT NULL) AS breaches
  FROM modelled)
SELECT request_id, "at", CASE WHEN NOT resolved THEN 'indeterminate'
  WHEN len(breaches) > 0 THEN CASE WHEN observed THEN 'violation' ELSE 'denied' END
  WHEN unknown_model THEN 'indeterminate' WHEN observed THEN 'compliant' ELSE 'allowed' END AS verdict,
  governed_by,
  CASE WHEN NOT resolved THEN ['unknown_owner'] WHEN unknown_model THEN list_prepend('unknown_model', breaches)
  ELSE breaches END AS reasons,
  resolved AND may_store AS may_store, resolved AND may_cache AS may_cache, resolved AND may_train AS may_train,
  resolved AND may_leave_platform AS may_leave_platform,
  list_filter(CASE WHEN resolved THEN [key_position, project_position, training_position, storage_position,
    caching_position, passthrough_position, hosting_position, provider_position]
  ELSE [key_position, project_position] END, lambda position: position IS NOT NULL) AS deciding_positions
FROM judged
) TO '{{out}}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)
"""  # noqa: S608 - numbers and names of our own


def _tables(folder: str) -> dict[str, str]:
    return {name: str(Path(folder) / f"{name}.parquet") for name in TABLES}


def _defaults(folder: str) -> dict[str, bool]:
    return msgspec.json.decode((Path(folder) / DEFAULTS).read_bytes(), type=dict[str, bool])


def _sql_booleans(defaults: dict[str, bool]) -> dict[str, str]:
    return {name: str(default).lower() for name, default in defaults.items()}


CASES: Final[dict[str, Callable[[str, str, str], Any]]] = {
    "floor": write_verdicts,
    "floor-lines": read_lines,
    "floor-lines-duckdb": read_lines_with_duckdb,
    "polars": audit_with_polars,
    "duckdb": audit_with_duckdb,
}

if __name__ == "__main__":
    CASES[sys.argv[1]](*sys.argv[2:])
