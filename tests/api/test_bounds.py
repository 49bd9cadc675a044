"""The pages and the OpenAPI document name the bounds that the server has, with today's numbers."""

from pathlib import Path

import pytest

from api import connections, event_stream, responses
from api.app import create_app
from api.check_requests import BYTES_MAX, VALUES_MAX
from api.http import bodies, sending, shared
from ledger.catalog import SET_SIZE_MAX, VALUE_BYTES_MAX
from ledger.strict_json import MAX_BYTES
from projections.decisions.encoding import ANSWER_BYTES, INLINE_BYTES

API = Path(__file__).resolve().parents[2] / "api"
MIB = 1024 * 1024

STATED = {
    f"{MAX_BYTES // MIB} MiB (submissions)",
    f"{BYTES_MAX // MIB} MiB and {VALUES_MAX:,} JSON values (checks)",
    f"arrives within {bodies.SECONDS_MAX:.0f} s",
    f"all bodies that are being read or worked on share {shared.BODIES_BYTES_MAX // MIB} MiB",
    f"the item that reaches {responses.PAGE_BYTES // MIB} MiB",
    f"the one that reaches {ANSWER_BYTES // MIB} MiB",
    f"nothing of an answer for {sending.SECONDS_MAX:.0f} s",
    f"nothing of an answer for {connections.UNREAD_MS_MAX // 1000} s",
    f"less than {sending.BYTES_PER_SECOND_MIN // 1024} KiB a second",
    f"all large answers share {shared.ANSWERS_BYTES_MAX // MIB} MiB",
    f"At most {shared.REQUESTS_MAX} requests",
    f"{event_stream.STREAMS_MAX} of them streams",
    f"beyond {connections.CONNECTIONS_MAX} connections",
}


@pytest.mark.parametrize("sentence", sorted(STATED))
def test_the_openapi_document_states_the_bound(sentence: str) -> None:
    assert sentence in str(create_app("sqlite:///:memory:", sign_in=False).openapi()["info"]["description"])


def test_the_page_of_the_api_states_the_bounds_of_values_and_answers() -> None:
    page = " ".join((API / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"A value or a definition has at most {VALUE_BYTES_MAX:,} bytes as JSON, a set at most {SET_SIZE_MAX} members"
        in page
    )
    assert f"larger than {INLINE_BYTES // MIB} MiB" in page
    assert f"reaches {ANSWER_BYTES // MIB} MiB" in page
    assert f"reaches {responses.PAGE_BYTES // MIB} MiB" in page
