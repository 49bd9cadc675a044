"""One meaning a word: class names, retired names, riddles in prose. The rules: CONTRIBUTING.md, "Words".

A failure names the file, the line and the word. Rename it, or say in CONTRIBUTING.md (or in `SHARED_CLASS_NAMES`) why
it stays.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = ("ledger", "projections", "api", "scripts")

SHARED_CLASS_NAMES: Final = {
    "api/schemas/": "names the OpenAPI component after the domain's class of which it is the wire form",
}
"""The start of a path → why a class there may have the name of a class elsewhere."""

RIDDLES: Final = (
    (r"(?:^|[.:;!?] )(?:Who|Whoever|Whatever|What|Whose|Whom)\b(?![- ]if\b)(?![^.]*\?)", "name the noun that acts"),
    (r"\bcom(?:es?|ing) to (?:the same|its|what)\b", "say: is the same, gives, returns"),
    (r"\b(?:that|which) (?:is|are|was|were) none\b", "say: is not a …, or is missing"),
    (r"\b(?:is|are|was|were) told\b", "say: learns, gets, is shown"),
    (r"\b(?:is|are) (?:to be )?had\b", "say: exists, is available"),
)
"""A pattern in prose → what to write instead."""


@cache
def python_files(*folders: str) -> tuple[Path, ...]:
    return tuple(sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")))


@cache
def pages() -> tuple[Path, ...]:
    markdown = [*ROOT.glob("*.md"), *(page for folder in (*SOURCE, "tests") for page in (ROOT / folder).rglob("*.md"))]
    return tuple(sorted(page for page in markdown if page.name != "CHANGELOG.md"))


def retired_names() -> dict[str, str]:
    """Name → its replacement, from the table "Retired names" of CONTRIBUTING.md."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.partition("| retired name | use |")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split("|") for row in table.splitlines() if row.startswith("| `")]
    return {name: use.strip() for names, use in rows for name in re.findall(r"`([^`]+)`", names)}


def tokens(path: Path) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline))


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_a_class_name_is_defined_once() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in python_files(*SOURCE):
        relative = str(path.relative_to(ROOT))
        if relative.startswith(tuple(SHARED_CLASS_NAMES)):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(place(path, node.lineno))
    twice = {name: lines for name, lines in places.items() if len(lines) > 1}
    assert not twice, "give each class a name of its own: " + repr(twice)


def test_the_table_of_retired_names_is_read() -> None:
    assert {"Footing", "Runner", "said"} <= retired_names().keys()


def bound_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of everything that a module gives a name: classes, functions, parameters, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.ImportFrom(names=names) | ast.Import(names=names):
                yield from ((node.lineno, alias.asname) for alias in names if alias.asname)


@pytest.mark.parametrize("folder", [*SOURCE, "tests"])
def test_nothing_has_a_retired_name(folder: str) -> None:
    retired = retired_names()
    used = [
        f"{place(path, line)}: {name}: use {retired[name.lstrip('_')]}"
        for path in python_files(folder)
        for line, name in bound_names(ast.parse(path.read_text(encoding="utf-8")))
        if name.lstrip("_") in retired
    ]
    assert not used, f"{len(used)} retired names\n" + "\n".join(used)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of each docstring, comment and paragraph, with line breaks made spaces."""
    if path.suffix == ".md":
        text = re.sub(r"```.*?```", lambda block: "\n" * block[0].count("\n"), path.read_text("utf-8"), flags=re.S)
        line = 1
        for paragraph in re.split(r"(\n\s*\n)", text):
            yield line, paragraph
            line += paragraph.count("\n")
        return
    comment: list[str] = []
    first = 0
    previous: tokenize.TokenInfo | None = None
    for token in tokens(path):
        if token.type == tokenize.COMMENT:
            if not comment:
                first = token.start[0]
            comment.append(token.string.lstrip("#: "))
            continue
        if token.type == tokenize.NL and comment and previous is not None and previous.type == tokenize.COMMENT:
            previous = token
            continue
        if comment:
            yield first, " ".join(comment)
            comment = []
        if token.type == tokenize.STRING and token.string.startswith('"""'):
            yield token.start[0], token.string.strip('"')
        previous = token


@pytest.mark.parametrize("folder", [*SOURCE, "tests", "pages"])
def test_prose_has_no_riddles(folder: str) -> None:
    files = pages() if folder == "pages" else python_files(folder)
    riddles = []
    for path in files:
        for line, text in prose(path):
            flat = " ".join(text.split())
            riddles += [
                f"{place(path, line)}: …{flat[max(0, match.start() - 10) : match.end() + 40]}…: {advice}"
                for pattern, advice in RIDDLES
                for match in re.finditer(pattern, flat)
            ]
    assert not riddles, f"{len(riddles)} riddles\n" + "\n".join(riddles)


def test_the_patterns_find_riddles_and_leave_questions_alone() -> None:
    def riddle(text: str) -> bool:
        return any(re.search(pattern, text) for pattern, _ in RIDDLES)

    assert riddle("Who writes in turns leaves others theirs.")
    assert riddle("Kept apart. Whatever is not at hand goes the long way.")
    assert riddle("Slower, and comes to the same.")
    assert riddle("An actor that is none.")
    assert not riddle("Answers who changed what.")
    assert not riddle("What was in force when the request was made?")
