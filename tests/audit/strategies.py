"""Ledgers and logs of every kind for Hypothesis, with few names and close instants, so that they interact."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
from hypothesis import strategies as st

from ledger.errors import BadInput, NotFound
from ledger.times import BEGINNING, END
from projections.audit.reference import decide_slowly
from projections.audit.run import Decider
from projections.audit.schemas import REQUESTS, DecidedBatch
from projections.decisions.published import PUBLISHED
from projections.decisions.rule_settings import MODEL_REGIONS, OF_MODEL, POLICY, RESIDENCY
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery, Query
from projections.temporal.changes import Change, read_assertion
from tests.support.ledgers import open_with_clock
from tests.support.older_catalog import older_definitions
from tests.support.questions import NOON, START, QueryLedger, changed, cleared, defined, retracted
from tests.support.reference import Json

LONG = "L" * 256
KEYS = ("k1", "k2", LONG)
PROJECTS = ("p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9")
ORGS = ("acme", "beta", "@/+:-._~")
ACCOUNTS = ("u1", "u2", LONG)
MODELS = ("m1", "a/b:c")
REGIONS = ("eu", "us", "Zürich", "東" * 85, "Zu\u0308rich ", "eu-1", "world")
PARTIES = ("deep", "Ünïcode GmbH", "😀" * 256, "x", "DEEP", "Deep Labs", "U\u0308NÏCODE GMBH")
REGION_IDS = ("eu", "eu-1", "us", "world")
PROVIDER_IDS = ("deep", "X", "other")
PRECISIONS = ("bf16", " bf16", "fp8", "Zürich", "Zu\u0308rich ")
"""As settings and as observed: some are the same after trimming and NFC; one is a region's text, too."""
UNHEARD = "never-heard-of"


class HistoryStep(NamedTuple):
    """A submission `after` µs after the one before. `retracts`: number of an earlier change to retract as well."""

    after: int
    events: list[Json]
    retracts: int | None


def _periods(draw: st.DrawFn, event: Json) -> Json:
    start = draw(st.none() | st.integers(-6, 40) | st.sampled_from((-(10**12), 10**12)))
    if start is None:
        return event
    until = draw(st.none() | st.integers(1, 12)) if event["type"] != "setting.defined" else None
    at = NOON + start
    of_change = changed("org:acme", "owner", None, at, None if until is None else at + until)
    return event | {name: of_change[name] for name in ("effective_from", "effective_until") if of_change[name]}


@st.composite
def _changes(draw: st.DrawFn) -> Json:
    kind = draw(
        st.sampled_from(
            (
                *("owner", "owner", "attached", "policy", "policy", "policy", "model", "model", "define"),
                *("place", "place", "published", "published"),
            )
        )
    )
    if kind == "define":
        return _periods(draw, draw(_definitions()))
    if kind == "place":
        return draw(_places())
    if kind == "owner":
        owned = [f"key:{id_}" for id_ in KEYS] + [f"project:{id_}" for id_ in PROJECTS]
        ends = [*_of("project", PROJECTS), *_of("org", ORGS), *_of("account", ACCOUNTS)]
        subject, setting, values = draw(st.sampled_from(owned)), "owner", st.sampled_from(ends)
    elif kind == "attached":
        ends = [*_of("org", ORGS), "account:u2", "project:p1"]
        subject, setting, values = draw(st.sampled_from(_of("account", ACCOUNTS))), "attached_to", st.sampled_from(ends)
    elif kind == "policy":
        subject = draw(st.sampled_from((*_of("org", ORGS), *_of("account", ACCOUNTS))))
        setting = draw(st.sampled_from(POLICY))
        values = _values(setting)
    else:
        subject = draw(st.sampled_from(_of("model", MODELS)))
        setting = draw(st.sampled_from(PUBLISHED if kind == "published" else OF_MODEL))
        values = _values(setting)
    if draw(st.integers(0, 5)) == 0:
        return _periods(draw, cleared(subject, setting))
    return _periods(draw, changed(subject, setting, draw(values)))


@st.composite
def _places(draw: st.DrawFn) -> Json:
    """A change of a region or a provider, or one that makes them count."""
    regions, providers = st.sampled_from(_of("region", REGION_IDS)), st.sampled_from(_of("provider", PROVIDER_IDS))
    names = st.lists(st.sampled_from(PARTIES), max_size=3, unique=True)
    subject, setting, values = draw(
        st.sampled_from(
            (
                (regions, "region.within", st.sampled_from(_of("region", (*REGION_IDS, "beyond")))),
                (regions, "region.within", st.sampled_from(_of("region", (*REGION_IDS, "beyond")))),
                (regions, "region.names", _values(RESIDENCY)),
                (providers, "provider.names", names),
                (providers, "provider.trains", st.booleans()),
                (providers, "provider.stores", st.booleans()),
                (providers, "provider.policy_url", st.sampled_from(PARTIES)),
                (providers, "provider.retention_days", st.integers(0, 3)),
                (providers, "provider.regions", _values(RESIDENCY)),
                (st.sampled_from(_of("org", ORGS)), RESIDENCY, _values(RESIDENCY)),
                (st.sampled_from(_of("org", ORGS)), "passthrough.allowed", st.just(True)),
                (st.sampled_from(_of("model", MODELS)), "model.hosting", st.just("passthrough")),
            )
        )
    )
    if draw(st.integers(0, 5)) == 0:
        return _periods(draw, cleared(draw(subject), setting))
    return _periods(draw, changed(draw(subject), setting, draw(values)))


def _of(kind: str, ids: tuple[str, ...]) -> list[str]:
    return [f"{kind}:{id_}" for id_ in ids]


def _values(setting: str) -> st.SearchStrategy[Any]:
    if setting in (RESIDENCY, MODEL_REGIONS):
        return st.lists(st.sampled_from(REGIONS), max_size=3, unique=True)
    if setting == "model.hosting":
        return st.sampled_from(("hosted", "passthrough", "passthrough", "elsewhere"))
    if setting in ("model.provider", "model.policy_url"):
        return st.sampled_from((*PARTIES, ""))
    if setting in ("model.precision", "model.revision"):
        return st.sampled_from((*PRECISIONS, ""))
    return st.booleans()


@st.composite
def _definitions(draw: st.DrawFn) -> Json:
    """A definition of a setting that decisions use, with other kinds, another default or another protective value."""
    setting = draw(st.sampled_from((*POLICY, *OF_MODEL, *PUBLISHED, "owner", "attached_to", "subjects.must_be_known")))
    kinds = draw(st.lists(st.sampled_from(("account", "org", "project", "key", "model")), min_size=1, unique=True))
    members: Json = {"kinds": kinds}
    values = st.none() | _values(setting)
    if setting == "subjects.must_be_known":
        # An index does not hold the kinds of this setting, because no definition may change them.
        demandable = ["account", "org", "project", "key"]
        members |= {"kinds": demandable, "value_type": "set_of", "members": demandable}
        values = st.lists(st.sampled_from(members["members"]), unique=True)
    elif setting in (RESIDENCY, MODEL_REGIONS):
        members["value_type"] = "set_of"
    elif setting == "model.hosting":
        members |= {"value_type": "one_of", "members": ["hosted", "passthrough", "elsewhere"]}
    elif setting in (*OF_MODEL, "model.precision", "model.revision"):
        members["value_type"] = "text"
    elif setting in ("owner", "attached_to"):
        members |= {"value_type": "subject_ref", "ref_kinds": ["org", "account", "project", "model"]}
        values = st.none() | st.sampled_from(("org:acme", "account:u1", "project:p1", "model:m1"))
    members |= {"default": draw(values), "protective": draw(values)}
    return defined(setting, **members)


@st.composite
def histories(draw: st.DrawFn, submissions_max: int = 30) -> list[HistoryStep]:
    """Submissions to a ledger, one after the other."""
    history = []
    for number in range(draw(st.integers(1, submissions_max))):
        retracts = draw(st.none() | st.integers(0, number)) if draw(st.integers(0, 3)) == 0 else None
        history.append(
            HistoryStep(draw(st.integers(1, 3)), draw(st.lists(_changes(), min_size=1, max_size=4)), retracts)
        )
    return history


def slow_decider(query: PinnedQuery, known_at: KnownAt) -> Decider:
    """Decides without an index, row by row: the reference for every faster way."""
    return lambda requests: DecidedBatch(decide_slowly(query, requests, known_at))


LONG_CHAIN = HistoryStep(
    1,
    [changed("key:k1", "owner", "project:p1")]
    + [changed(f"project:p{n}", "owner", f"project:p{n + 1}") for n in range(1, 9)]
    + [changed("project:p9", "owner", "org:acme"), changed("key:k2", "owner", "project:p4")],
    None,
)
"""A chain of ten links from `k1`, of which the rules follow eight, and a shorter one from `k2`."""


@contextmanager
def grown(history: list[HistoryStep]) -> Iterator[QueryLedger]:
    """A ledger with these submissions, some by an older inforce, without those that even that one refuses."""
    with TemporaryDirectory() as folder:
        ledger, clock = open_with_clock(f"sqlite:///{Path(folder)}/ledger.db", START)
        bench = QueryLedger(ledger, clock, Query(ledger))
        try:
            with older_definitions():
                _grow(bench, history)
            yield bench
        finally:
            ledger.close()


def _grow(bench: QueryLedger, history: list[HistoryStep]) -> None:
    now, event_ids = NOON, list[str]()
    for submission in history:
        now += submission.after
        batches = [[event] for event in submission.events] if submission.after == 3 else [submission.events]
        if submission.retracts is not None and submission.retracts < len(event_ids):
            batches.append([retracted(event_ids[submission.retracts])])
        for batch in batches:
            try:
                receipts = bench.submit(now, *batch)
            except (BadInput, NotFound):
                # The setting no longer applies to that kind, or the change is retracted already.
                continue
            changes = zip(batch, receipts, strict=True)
            event_ids += [receipt.event_id for event, receipt in changes if event["type"] in _RETRACTABLE]


_RETRACTABLE = ("setting.changed", "setting.cleared")


def instants(bench: QueryLedger) -> list[int]:
    """The instants at which anything begins, ends or becomes known, each with the microsecond before and after."""
    events = {BEGINNING, START, NOON + 10**13, END - 1}
    for entry in bench.ledger.page(0, 1_000_000):
        assertion = read_assertion(entry.leaf)
        events.add(assertion.recorded_at)
        if isinstance(assertion, Change):
            events |= {assertion.effective_from, assertion.effective_until or assertion.effective_from}
    near = {at + by for at in events for by in (-1, 0, 1)}
    return sorted(at for at in near if BEGINNING <= at < END)


def rows(positions: int) -> st.SearchStrategy[Json]:
    """Rows of REQUESTS without `at`. `positions`: the number of events in the ledger."""
    ids = {
        "key_id": (*KEYS, UNHEARD),
        "project_id": (*PROJECTS, UNHEARD),
        "org_id": (*ORGS, UNHEARD),
        "account_id": (*ACCOUNTS, UNHEARD),
    }
    named = st.fixed_dictionaries({}, optional={name: st.sampled_from(known) for name, known in ids.items()})
    flag = st.none() | st.booleans()
    rest = st.fixed_dictionaries(
        {},
        optional={
            "request_id": st.text(st.characters(codec="utf-8"), min_size=1, max_size=256),
            "model_id": st.sampled_from((*MODELS, UNHEARD)),
            "enforced_position": st.integers(0, positions + 2) | st.just(2**62),
            "stored": flag,
            "cached": flag,
            "trained": flag,
            "forwarded_to": st.sampled_from((*PARTIES, "nobody we know")),
            "region": st.sampled_from((*REGIONS, "mars", " eu ", "beyond")),
            "network": st.sampled_from(("public", "private")),
            **dict.fromkeys(("precision", "revision"), st.sampled_from((*PRECISIONS, " ", "int4"))),
            **dict.fromkeys(("distilled", "system_prompt_forced", "censored"), flag),
        },
    )
    # A record must name a sender.
    return st.builds(lambda who, done: (who or {"account_id": "u1"}) | done, named, rest)


def known_ats(moments: list[int]) -> st.SearchStrategy[KnownAt]:
    """In force, now, or an instant of the ledger."""
    return st.one_of(st.just(IN_FORCE), st.none(), st.sampled_from(moments))


def batch_of(rows: list[Json]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=REQUESTS)
