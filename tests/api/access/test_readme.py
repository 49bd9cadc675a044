"""The table of rights in api/README.md is that of the code, and api/ACCESS.md names every role."""

import re
from pathlib import Path

from api.app import create_app
from api.routing import BareRoute
from ledger.roles import FORMS, KIND_OF_ROLE, PLATFORM_ROLES, WRITERS
from projections.access.rights import RIGHTS, Need

API = Path(__file__).resolve().parents[3] / "api"
ROLES = (*PLATFORM_ROLES, *KIND_OF_ROLE)


def cells(need: Need) -> list[str]:
    if need is Need.OPEN:
        return ["open"] * len(ROLES)
    if need is Need.SIGNED_IN:
        return ["all"] * len(ROLES)
    return [RIGHTS[need].get(role, "") for role in ROLES]


def test_the_table_of_the_readme_has_the_rights_of_the_code() -> None:
    table = (API / "README.md").read_text(encoding="utf-8").partition("| endpoint | does |")[2].partition("\n\n")[0]
    head, _, *rows = table.splitlines()
    assert [cell.strip() for cell in head.strip("| ").split("|")] == [
        *PLATFORM_ROLES,
        *(f"{one}@" for one in KIND_OF_ROLE),
    ]
    shown = {}
    for row in rows:
        for call in re.findall(r"`((?:GET|POST|DELETE) /[^`]*)`", row):
            shown[call] = [cell.strip() for cell in row.split("|")[-len(ROLES) - 1 : -1]]
    wanted = {
        f"{method} {re.sub(r':path', '', route.path)}": cells(route.need)
        for route in create_app("sqlite:///unused.db").routes
        if isinstance(route, BareRoute)
        for method in route.methods or ()
    }
    assert shown == wanted | {"GET /openapi.json": cells(Need.OPEN)}


def test_the_page_on_access_names_every_role_and_every_level_of_writing() -> None:
    page = (API / "ACCESS.md").read_text(encoding="utf-8")
    for form in FORMS:
        assert f"| `{form.replace('ID', 'X')}` |" in page
    assert set(WRITERS) == {"operator", "admin", "owner"}
