"""Appending to PostgreSQL: one function in the database, called by one statement, in one round trip.

The append lock is held for that statement and its commit, so several server processes share a ledger and none of them
waits for another's network. The function does the work of `assign_positions`, fills the placeholders of the templates
as `codec.fill_templates` does, hashes, and inserts. Its text is a released step of the schema, so it is never edited
(see `postgres_schema`). Proved by tests/contracts/test_append.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from ledger.recorders.contract import EVENTS_TABLE, AppendRequest, KnownSubmission, Outcome, Placement
from ledger.recorders.postgres_server import CHANNEL, SCHEMA

APPEND_LOCK: Final = 0x494E464F52434501
"""The advisory lock under which events are appended: one per database, so one ledger per database."""

APPEND_FUNCTION: Final = f"""
CREATE FUNCTION {SCHEMA}.append_group(
    now_us bigint,
    -- The subjects relied on, and the version of each that the first proposal to rely on it found.
    base_subjects text[], base_versions bigint[],
    -- One of each per proposal; how many of the next two lists and of the events are the proposal's.
    relied_counts bigint[], event_counts bigint[], recorded_at_maxes bigint[],
    callers text[], keys text[], bodies_sha256 bytea[],
    -- Places in base_subjects, and whether the proposal adds events to that subject.
    relied_places bigint[], relied_drafted boolean[],
    -- One of each per event: its proposal, its place among the proposal's events from 0, and what is stored.
    event_proposals bigint[], event_places bigint[],
    subjects text[], versions bigint[], topics text[], states bytea[],
    -- One of each per event that has personal data.
    personal_proposals bigint[], personal_places bigint[], salts bytea[], contents text[],
    -- One of each per proposal: where it was recorded and when, or where it had been before; neither: stale.
    OUT firsts bigint[], OUT recorded_ats bigint[],
    OUT known_firsts bigint[], OUT known_counts bigint[], OUT known_bodies_sha256 bytea[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    proposals CONSTANT integer := cardinality(event_counts);
    texts text[] := array_fill(NULL::text, ARRAY[proposals]);
    asked_at timestamptz;
    position_last bigint;
    recorded_at_last bigint;
    moment bigint;
    day bigint;
    of_day bigint;
    missing boolean[];
    missing_any boolean;
    relied_from bigint := 0;
    taken boolean;
    written boolean := false;
BEGIN
    -- Each statement below must see what the lock's last holder committed.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'events are appended in READ COMMITTED only' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    -- Accepted means durable, whatever the server's or the role's default says.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF NOT pg_try_advisory_xact_lock({APPEND_LOCK}) THEN
        asked_at := clock_timestamp();
        PERFORM pg_advisory_xact_lock({APPEND_LOCK});
        now_us := now_us + (extract(epoch FROM clock_timestamp() - asked_at) * 1000000)::bigint;
    END IF;

    SELECT e.position, e.recorded_at INTO position_last, recorded_at_last
        FROM {SCHEMA}.{EVENTS_TABLE} e ORDER BY e.position DESC LIMIT 1;
    position_last := coalesce(position_last, 0);
    SELECT array_agg(b.moved ORDER BY b.place), bool_or(b.moved) INTO missing, missing_any FROM (
        SELECT r.place, r.version <> coalesce(
                (SELECT max(e.originator_version) FROM {SCHEMA}.{EVENTS_TABLE} e WHERE e.originator_id = r.subject), 0
            ) AS moved
        FROM unnest(base_subjects, base_versions) WITH ORDINALITY AS r(subject, version, place)) b;
    IF cardinality(array_remove(keys, NULL)) = 0 THEN
        known_firsts := array_fill(NULL::bigint, ARRAY[proposals]);
    ELSE
        SELECT array_agg(s.first_position ORDER BY k.place), array_agg(s.event_count ORDER BY k.place),
                array_agg(s.body_sha256 ORDER BY k.place)
            INTO known_firsts, known_counts, known_bodies_sha256
            FROM unnest(callers, keys) WITH ORDINALITY AS k(caller, key, place)
            LEFT JOIN {SCHEMA}.submissions s ON s.caller = k.caller AND s.key = k.key;
    END IF;

    firsts := array_fill(NULL::bigint, ARRAY[proposals]);
    recorded_ats := firsts;
    FOR proposal IN 1 .. proposals LOOP
        moment := greatest(now_us, recorded_at_last + 1);
        taken := known_firsts[proposal] IS NULL AND (moment > recorded_at_maxes[proposal]) IS NOT TRUE;
        IF taken AND missing_any THEN
            FOR relied IN relied_from + 1 .. relied_from + relied_counts[proposal] LOOP
                taken := taken AND NOT missing[relied_places[relied]];
            END LOOP;
        END IF;
        IF taken THEN
            firsts[proposal] := position_last + 1;
            recorded_ats[proposal] := moment;
            day := (moment - ((moment % 86400000000) + 86400000000) % 86400000000) / 86400000000;
            of_day := moment - day * 86400000000;
            texts[proposal] := to_char(date '1970-01-01' + day::integer, 'YYYY-MM-DD') || 'T'
                || lpad((of_day / 3600000000)::text, 2, '0') || ':'
                || lpad((of_day / 60000000 % 60)::text, 2, '0') || ':'
                || lpad((of_day / 1000000 % 60)::text, 2, '0') || '.'
                || lpad((of_day % 1000000)::text, 6, '0') || 'Z';
            position_last := position_last + event_counts[proposal];
            recorded_at_last := moment;
            written := true;
        ELSE
            missing_any := true;
            FOR relied IN relied_from + 1 .. relied_from + relied_counts[proposal] LOOP
                IF relied_drafted[relied] THEN
                    missing[relied_places[relied]] := true;
                END IF;
            END LOOP;
        END IF;
        relied_from := relied_from + relied_counts[proposal];
    END LOOP;
    IF NOT written THEN
        RETURN;
    END IF;

    -- The marks are filled in a text of single bytes, so that no encoding of the database can touch the others.
    INSERT INTO {SCHEMA}.{EVENTS_TABLE}
            (position, originator_id, originator_version, topic, state, recorded_at, leaf_hash)
        SELECT n.position, n.subject, n.version, n.topic, n.leaf, n.recorded_at, sha256(decode('00', 'hex') || n.leaf)
        FROM (
            SELECT d.position, d.subject, d.version, d.topic, d.recorded_at,
                decode(replace(replace(replace(replace(encode(d.state, 'escape'),
                    E'\\x01I', overlay(lpad(to_hex(d.position), 12, '0') PLACING '-' FROM 9 FOR 0)),
                    E'\\x01T', d.recorded_text),
                    E'\\x01S', lpad(d.position::text, 20, '0')),
                    E'\\x01P', d.position::text), 'escape') AS leaf
            FROM (
                SELECT p.first + e.place AS position, e.subject, e.version, e.topic, e.state, p.recorded_at,
                    p.recorded_text
                FROM unnest(event_proposals, event_places, subjects, versions, topics, states)
                    AS e(proposal, place, subject, version, topic, state)
                JOIN unnest(firsts, recorded_ats, texts) WITH ORDINALITY
                    AS p(first, recorded_at, recorded_text, proposal) ON p.proposal = e.proposal
                WHERE p.first IS NOT NULL) d
            -- Filled in once, though used twice.
            OFFSET 0) n;
    IF cardinality(personal_places) > 0 THEN
        INSERT INTO {SCHEMA}.personal_data (position, salt, content)
            SELECT p.first + d.place, d.salt, d.content
            FROM unnest(personal_proposals, personal_places, salts, contents) AS d(proposal, place, salt, content)
            JOIN unnest(firsts) WITH ORDINALITY AS p(first, proposal) ON p.proposal = d.proposal
            WHERE p.first IS NOT NULL;
    END IF;
    IF cardinality(array_remove(keys, NULL)) > 0 THEN
        INSERT INTO {SCHEMA}.submissions (caller, key, body_sha256, first_position, event_count, recorded_at)
            SELECT s.caller, s.key, s.body_sha256, s.first, s.event_count, s.recorded_at
            FROM unnest(callers, keys, bodies_sha256, firsts, event_counts, recorded_ats)
                AS s(caller, key, body_sha256, first, event_count, recorded_at)
            WHERE s.key IS NOT NULL AND s.first IS NOT NULL;
    END IF;
    PERFORM pg_notify('{CHANNEL}', position_last::text);
END
$function$"""

APPEND: Final = (
    f"SELECT * FROM {SCHEMA}.append_group(%s::bigint, %b::text[], %s::bigint[], %s::bigint[], %s::bigint[],"
    " %s::bigint[], %b::text[], %b::text[], %b::bytea[], %s::bigint[], %s::boolean[], %s::bigint[], %s::bigint[],"
    " %b::text[], %s::bigint[], %b::text[], %b::bytea[], %s::bigint[], %s::bigint[], %b::bytea[], %b::text[])"
)

_NEVER: Final = -(2**63)
"""As a `recorded_at_max`: always stale. Such a request is sent only for its key, which may be known."""


class AppendCall:
    """The arguments and the result of one call of the function."""

    def __init__(self, requests: Sequence[AppendRequest]) -> None:
        self._requests = requests
        # Subject → version, as the first request that relies on the subject expects it.
        self._base: dict[str, int] = {}
        # For each request: the subjects it relies on, its key, and its `recorded_at_max`, as the function gets them.
        self._relied: list[Collection[str]] = []
        self._keys: list[tuple[Any, ...]] = []
        self._recorded_at_maxes: list[int | None] = []
        # Marks the requests that are stale whatever the database holds, because of a request before them.
        versions: dict[str, int] = {}
        not_appended: set[str] = set()
        keys: set[tuple[str, str]] = set()
        for request in requests:
            relied, drafts, key = request.plan.versions, request.plan.drafts, request.key
            key_repeats = key in keys
            self._keys.append((None, None, None) if key_repeats or request.idempotency is None else request.idempotency)
            if key is not None:
                keys.add(key)
            if key_repeats or any(
                subject in not_appended or versions.get(subject, version) != version
                for subject, version in relied.items()
            ):
                not_appended.update(draft.subject for draft in drafts)
                self._relied.append(())
                self._recorded_at_maxes.append(_NEVER)
                continue
            for subject, version in relied.items():
                if subject not in versions:
                    versions[subject] = self._base[subject] = version
            for draft in drafts:
                versions[draft.subject] = draft.version
            self._relied.append(relied)
            self._recorded_at_maxes.append(request.plan.recorded_at_max)

    def arguments(self, now: int) -> list[Any]:
        """The arguments of `APPEND`. `now`: read the clock at the last moment before the call."""
        places = {subject: place for place, subject in enumerate(self._base, 1)}
        relied_places: list[int] = []
        relied_drafted: list[str] = []
        numbers: list[tuple[int, int]] = []
        personal: list[tuple[int, int, bytes, str]] = []
        for number, (request, relied) in enumerate(zip(self._requests, self._relied, strict=True), 1):
            drafted = {draft.subject for draft in request.plan.drafts}
            for subject in relied:
                relied_places.append(places[subject])
                relied_drafted.append("true" if subject in drafted else "false")
            for place, draft in enumerate(request.plan.drafts):
                numbers.append((number, place))
                if draft.personal is not None:
                    personal.append((number, place, *draft.personal))
        drafts = [draft for request in self._requests for draft in request.plan.drafts]
        return [
            now,
            list(self._base),
            _array(self._base.values()),
            _array(map(len, self._relied)),
            _array(len(request.plan.drafts) for request in self._requests),
            _array("NULL" if latest is None else latest for latest in self._recorded_at_maxes),
            *([key[field] for key in self._keys] for field in range(3)),
            _array(relied_places),
            _array(relied_drafted),
            _array(number for number, _ in numbers),
            _array(place for _, place in numbers),
            [draft.subject for draft in drafts],
            _array(draft.version for draft in drafts),
            [draft.topic for draft in drafts],
            [template for request in self._requests for template in request.templates],
            _array(row[0] for row in personal),
            _array(row[1] for row in personal),
            [row[2] for row in personal],
            [row[3] for row in personal],
        ]

    @staticmethod
    def outcomes(row: tuple[Any, ...]) -> list[Outcome]:
        """The outcome of each request, from the row that the function answers."""
        firsts, recorded_ats, known_firsts, known_counts, known_bodies = row
        outcomes: list[Outcome] = []
        for place, first in enumerate(firsts):
            if first is not None:
                outcomes.append(Placement(first, recorded_ats[place]))
            elif known_firsts[place] is not None:
                outcomes.append(KnownSubmission(bytes(known_bodies[place]), known_firsts[place], known_counts[place]))
            else:
                outcomes.append(None)
        return outcomes


def _array(items: Iterable[int | str]) -> str:
    """PostgreSQL's text form of an array of numbers: one type whatever their size, so one prepared statement."""
    return f"{{{','.join(map(str, items))}}}"
