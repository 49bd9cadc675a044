"""api/README.md lists every endpoint, and its examples fit the documented models."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api.app import create_app
from api.schemas import decisions, requests, responses

README = Path(__file__).resolve().parents[2].joinpath("api/README.md").read_text(encoding="utf-8")
EXAMPLES = [
    (re.findall(r"\*\*([A-Z][a-z]+[A-Za-z]*)\*\*", before)[-1], after.partition("\n```")[0])
    for before, after in pairwise(README.split("```json\n"))
]
"""(model named last before the block, block)."""


def test_every_endpoint_is_in_the_table_and_nothing_else() -> None:
    table = set(re.findall(r"`(GET|POST|DELETE) (/[^`]*)`", README.partition("| endpoint | does |")[2]))
    app = create_app("sqlite:///unused.db", sign_in=False)
    routes = {
        (method, re.sub(r":path\}", "}", route.path))
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert table == routes | {("GET", "/openapi.json")}


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _text in EXAMPLES])
def test_every_example_fits_its_model(name: str, text: str) -> None:
    models = [module for module in (responses, decisions, requests) if hasattr(module, name)]
    model: type[BaseModel] = getattr(models[0], name)
    model.model_validate_json(text)
