"""The pages point at files that exist, docstrings name tests that exist, and a folder's README stays a page long."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = ("ledger", "projections", "api", "scripts")
FOLDERS: Final = (*SOURCE, "tests")
LINES_MAX: Final = 150
PAGES: Final = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
MODULES: Final = sorted(module for folder in FOLDERS for module in (ROOT / folder).rglob("*.py"))
PATH: Final = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w/?")
OUTSIDE: Final = re.compile(r"\b(?:DESIGN|WIRE|STYLE|LAYOUT|LOGS|FACTS)\.md\b")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=relative)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    """As seen from the root, or from the page's own folder."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    named = {path for code in re.findall(r"`([^`\n]+)`", text) for path in PATH.findall(code)}
    assert not {path for path in named if not (ROOT / path).exists() and not (page.parent / path).exists()}


def test_every_path_that_a_docstring_or_comment_names_exists() -> None:
    named = {
        (relative(module), path)
        for module in MODULES
        for path in re.findall(
            r"(?<![\w./-])(?:tests|ledger|projections|api|scripts)/[\w/-]+(?:\.py|\.md)?(?![\w.])",
            module.read_text("utf-8"),
        )
    }
    missing = {
        (module, path) for module, path in named if not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists()
    }
    assert not {one for one in missing if one[1].startswith("tests/") or one[1].endswith((".py", ".md"))}


def test_nothing_cites_a_page_that_is_not_in_the_repository() -> None:
    citing = [relative(file) for file in (*MODULES, *PAGES) if OUTSIDE.search(file.read_text(encoding="utf-8"))]
    assert [file for file in citing if file != relative(Path(__file__))] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folders_readme_is_a_page_long(folder: str) -> None:
    for page in (ROOT / folder).rglob("README.md"):
        assert len(page.read_text(encoding="utf-8").splitlines()) <= LINES_MAX, relative(page)


def test_the_top_level_holds_what_it_is_for() -> None:
    pages = {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"}
    folders = {"ledger", "projections", "api", "scripts", "tests"}
    locks = {"requirements.txt", "requirements-dev.txt"}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = {path.split("/")[0] for path in listed.splitlines()}
    assert {name for name in names if not name.startswith(".")} == pages | folders | locks | {"pyproject.toml"}
