"""The installation: what `pip install inforce` brings is what the source imports, and only two things are extras."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OURS: Final = ("ledger", "projections", "api", "scripts")
OF_POSTGRES: Final = {"psycopg", "psycopg-pool"}
OF_SPARK: Final = {"pyspark", "py4j", "pandas"}
OF_TRACING: Final = {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"}


def names(requirements: list[Any]) -> set[str]:
    return {re.split(r"[\[<>=;! ]", one)[0].lower() for one in requirements if isinstance(one, str)}


def imported(path: Path) -> set[str]:
    """The top packages of the modules that a file imports, wherever it does so."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=aliases):
                modules |= {alias.name.partition(".")[0] for alias in aliases}
            case ast.ImportFrom(module=str(module), level=0):
                modules.add(module.partition(".")[0])
    return modules - set(sys.stdlib_module_names) - set(OURS)


def distributions(folder: str, without: str = "") -> set[str]:
    by_package = packages_distributions()
    packages = set[str]()
    for path in (ROOT / folder).rglob("*.py"):
        if not without or without not in path.parts:
            packages |= imported(path)
    return {by_package[package][0].lower().replace("_", "-") for package in packages if package in by_package}


def test_only_postgresql_spark_and_tracing_are_extras() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert {name: names(extra) for name, extra in extras.items()} == {
        "postgres": OF_POSTGRES,
        "spark": OF_SPARK - {"py4j"},
        "tracing": OF_TRACING,
    }


def test_the_readme_says_what_each_extra_brings() -> None:
    install = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Install")[2].partition("\n## ")[0]
    assert [extra for extra in PROJECT["project"]["optional-dependencies"] if f"`{extra}` for " not in install] == []


def test_the_default_installation_has_all_that_the_source_imports() -> None:
    installed = names(PROJECT["project"]["dependencies"])
    # starlette is a part of fastapi, pydantic-core of pydantic, typing-extensions of both, markupsafe of jinja2.
    parts = {"starlette", "pydantic-core", "typing-extensions", "annotated-types", "markupsafe"}
    needed = {name for folder in OURS for name in distributions(folder, without="bench")}
    assert len(needed) > 8
    assert needed - installed - parts - OF_POSTGRES - OF_SPARK - OF_TRACING == set()
    assert {"pyarrow", "numpy", "numba", "jinja2"} <= installed
