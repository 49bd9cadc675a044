"""The plain reader of checks returns either None or the result of the strict one."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.check_requests import read_plain, read_records
from ledger.errors import BadInput

NOW = 1_700_000_000_000_000

IDS = st.from_regex(r"[A-Za-z0-9._~@/+:-]{1,12}", fullmatch=True) | st.sampled_from(
    ["org:a", "model:m", "key:k", "ft:gpt-4"]
)
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, -1, 1.0, 2**70, "", "x" * 257, "a b", "é", "\ud800", '":', [], {}]
)
TIMES = st.sampled_from(
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01t00:00:00.123456789+02:00",
        "2026-02-30T00:00:00Z",
        "2026-01-01T00:00:00",
        "now",
    ]
)
OBSERVED = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.booleans() | ODD for name in ("stored", "cached", "trained")},
        **{name: st.text("abc \x7f", min_size=1, max_size=4) | ODD for name in ("forwarded_to", "region")},
        "network": st.sampled_from(["public", "private", "other"]) | ODD,
        **{name: st.booleans() | ODD for name in ("distilled", "system_prompt_forced", "censored")},
        **{name: st.text("abc \x7f", min_size=1, max_size=4) | ODD for name in ("precision", "revision")},
        "other": ODD,
    },
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("key_id", "account_id", "org_id", "project_id", "model_id", "request_id"), IDS | ODD),
        "at": TIMES | ODD,
        "enforced_position": st.integers(-2, 2**65) | ODD,
        "handling": OBSERVED | ODD,
    },
)
LIKELY = st.fixed_dictionaries(
    {"org_id": IDS},
    optional={
        "model_id": IDS,
        "at": st.just("2026-01-01T00:00:00Z"),
        "handling": st.fixed_dictionaries(
            {}, optional={"stored": st.booleans() | st.none(), "region": IDS, "precision": IDS}
        ),
        "enforced_position": st.integers(0, 99),
        "request_id": IDS | st.none(),
    },
)
BODIES = (
    LIKELY
    | RECORDS
    | st.fixed_dictionaries(
        {"requests": st.lists(LIKELY | RECORDS, max_size=3)}, optional={"org_id": IDS, "other": ODD}
    )
    | ODD
)


def _strictly(sent: bytes) -> Any:
    try:
        return read_records(sent, NOW)
    except BadInput:
        return None


def _agree(sent: bytes) -> None:
    plain = read_plain(sent, NOW)
    if plain is not None:
        strict = _strictly(sent)
        assert plain == strict
        assert repr(plain) == repr(strict), "the types agree too"


@given(BODIES, st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]), st.booleans())
def test_the_plain_reader_agrees_with_the_strict_one(body: Any, separators: tuple[str, str], ascii_only: bool) -> None:
    _agree(json.dumps(body, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@given(
    LIKELY | st.fixed_dictionaries({"requests": st.lists(LIKELY, min_size=1, max_size=3)}),
    st.data(),
)
@example({"org_id": "a"}, None)
def test_both_readers_agree_on_mutated_bodies(body: Any, data: Any) -> None:
    sent = bytearray(json.dumps(body, separators=(",", ":")).encode())
    for _ in range(0 if data is None else data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(sent) - 1))
        piece = data.draw(
            st.sampled_from(
                [b"", b'"', b":", b'":', b",", b"{", b"}", b"[", b"]", b" ", b"\n", b"\\", b"\x00", b"\xff"]
            )
            | st.sampled_from(
                [b'"org_id":"a",', b'"at":null,', b"1.0", b"NaN", b"-0", b"01", b"\xef\xbb\xbf", b"\\u0022"]
            )
        )
        sent[place : place + data.draw(st.integers(0, 2))] = piece
        if not sent:
            return
    _agree(bytes(sent))


@pytest.mark.parametrize("count", [1, 3])
def test_usual_bodies_are_read_by_the_plain_reader(count: int) -> None:
    one = {
        "key_id": "k1",
        "model_id": "a/b",
        "at": "2026-01-01T00:00:00Z",
        "handling": {"stored": True, "region": "eu"},
    }
    for separators in ((",", ":"), (", ", ": ")):
        for body in (one, {"requests": [one] * count}):
            sent = json.dumps(body, separators=separators).encode()
            plain = read_plain(sent, NOW)
            assert plain is not None
            assert plain == read_records(sent, NOW)


@pytest.mark.parametrize(
    "sent",
    [
        b'{"org_id":"a","org_id":"a"}',
        b'{"org_id":"a","handling":{"stored":true,"stored":true}}',
        b'{"org_id":"a","org_id" :"b"}',
        b'{"requests":[{"org_id":"a","at":null,"at":null}]}',
        b'{"org_id":"a","or\\u0067_id":"b"}',
        b'{"org_id":"a","enforced_position":1.0}',
        b'{"org_id":"a","enforced_position":true}',
        b'{"org_id":"a","other":1}',
        b'{"org_id":"a"}{}',
        b'\xef\xbb\xbf{"org_id":"a"}',
        b'{"requests":[],"org_id":"a"}',
        b'{"requests":[{"org_id":"a"}],"org_id":"a"}',
        b"[" * 100_000,
    ],
)
def test_invalid_bodies_are_left_to_the_strict_reader(sent: bytes) -> None:
    assert read_plain(sent, NOW) is None
    assert _strictly(sent) is None
