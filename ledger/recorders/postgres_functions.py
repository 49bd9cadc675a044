"""The functions of a PostgreSQL ledger, each as a released step of the schema creates it (see `postgres_schema`).

The text of a released step is never edited: a later function replaces an earlier one in a further step.
Proved by tests/contracts/test_append.py and tests/contracts/test_read_back.py.
"""

from __future__ import annotations

from typing import Final

from ledger.recorders.contract import EVENTS_TABLE
from ledger.recorders.postgres_server import CHANNEL, NOT_STORED, SCHEMA

APPEND_LOCK: Final = 0x494E464F52434501
"""The advisory lock under which events are appended: one per database, so one ledger per database."""

REFUSE_CHANGE: Final = (
    f"CREATE FUNCTION {SCHEMA}.refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN RAISE EXCEPTION 'the ledger is immutable: % of events is refused', TG_OP"
    " USING ERRCODE = 'integrity_constraint_violation'; END$$"
)

_ARGUMENTS: Final = """(
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
    OUT known_firsts bigint[], OUT known_counts bigint[], OUT known_bodies_sha256 bytea[])"""

_VARIABLES: Final = """    proposals CONSTANT integer := cardinality(event_counts);
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
    written boolean := false;"""

_ASSIGN_POSITIONS: Final = f"""BEGIN
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
    END IF;"""

# The marks are filled in a text of single bytes, so that no encoding of the database can touch the others.
_LEAVES: Final = """        FROM (
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
                WHERE p.first IS NOT NULL) d"""

_INSERT_SIDE_ROWS: Final = f"""    IF cardinality(personal_places) > 0 THEN
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
    END IF;"""

_END: Final = f"""    PERFORM pg_notify('{CHANNEL}', position_last::text);
END
$function$"""

APPEND_GROUP_2: Final = f"""
CREATE FUNCTION {SCHEMA}.append_group{_ARGUMENTS}
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
{_VARIABLES}
{_ASSIGN_POSITIONS}

    -- The marks are filled in a text of single bytes, so that no encoding of the database can touch the others.
    INSERT INTO {SCHEMA}.{EVENTS_TABLE}
            (position, originator_id, originator_version, topic, state, recorded_at, leaf_hash)
        SELECT n.position, n.subject, n.version, n.topic, n.leaf, n.recorded_at, sha256(decode('00', 'hex') || n.leaf)
{_LEAVES}
            -- Filled in once, though used twice.
            OFFSET 0) n;
{_INSERT_SIDE_ROWS}
{_END}"""
"""Of format 2."""

_READ_BACK: Final = f"""
    -- A foreign trigger or rule can drop, change or add rows without an error. Deferred ones run now, not at commit.
    SET CONSTRAINTS ALL IMMEDIATE;
    SELECT count(*), array_agg(e.position) = positions AND array_agg(e.originator_id) = streams
            AND array_agg(e.originator_version) = stream_versions AND array_agg(e.topic) = stream_topics
            AND array_agg(e.state) = leaves AND array_agg(e.recorded_at) = moments AND array_agg(e.leaf_hash) = hashes
        INTO stored, is_whole
        FROM (SELECT * FROM {SCHEMA}.{EVENTS_TABLE} w WHERE w.position > position_last - cardinality(positions)
            ORDER BY w.position OFFSET 0) e;
    IF is_whole IS NOT TRUE THEN
        RAISE EXCEPTION 'events,%,%', cardinality(positions), stored USING ERRCODE = '{NOT_STORED}';
    END IF;
    IF cardinality(personal_places) > 0 THEN
        SELECT count(*), count(x.position) INTO expected, stored
            FROM unnest(personal_proposals, personal_places, salts, contents) AS d(proposal, place, salt, content)
            JOIN unnest(firsts) WITH ORDINALITY AS p(first, proposal) ON p.proposal = d.proposal
            LEFT JOIN {SCHEMA}.personal_data x ON x.position = p.first + d.place AND x.salt = d.salt
                AND x.content = d.content
            WHERE p.first IS NOT NULL;
        IF stored <> expected THEN
            RAISE EXCEPTION 'reasons,%,%', expected, stored USING ERRCODE = '{NOT_STORED}';
        END IF;
    END IF;
    IF cardinality(array_remove(keys, NULL)) > 0 THEN
        SELECT count(*), count(x.key) INTO expected, stored
            FROM unnest(callers, keys, bodies_sha256, firsts, event_counts, recorded_ats)
                AS s(caller, key, body_sha256, first, event_count, recorded_at)
            LEFT JOIN {SCHEMA}.submissions x ON x.caller = s.caller AND x.key = s.key AND x.body_sha256 = s.body_sha256
                AND x.first_position = s.first AND x.event_count = s.event_count AND x.recorded_at = s.recorded_at
            WHERE s.key IS NOT NULL AND s.first IS NOT NULL;
        IF stored <> expected THEN
            RAISE EXCEPTION 'idempotency keys,%,%', expected, stored USING ERRCODE = '{NOT_STORED}';
        END IF;
    END IF;"""

APPEND_GROUP_3: Final = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.append_group{_ARGUMENTS}
LANGUAGE plpgsql VOLATILE
-- TimeZone: to_char takes a date for an instant. The others: rows are looked up by their keys, in whatever order of
-- magnitude the planner believes the tables to be.
SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $function$
#variable_conflict error
DECLARE
{_VARIABLES}
    positions bigint[];
    streams text[];
    stream_versions bigint[];
    stream_topics text[];
    leaves bytea[];
    moments bigint[];
    hashes bytea[];
    expected bigint;
    stored bigint;
    is_whole boolean;
{_ASSIGN_POSITIONS}

    -- The marks are filled in a text of single bytes, so that no encoding of the database can touch the others.
    SELECT array_agg(n.position), array_agg(n.subject), array_agg(n.version), array_agg(n.topic), array_agg(n.leaf),
            array_agg(n.recorded_at), array_agg(sha256(decode('00', 'hex') || n.leaf))
        INTO positions, streams, stream_versions, stream_topics, leaves, moments, hashes
{_LEAVES}
            -- Filled in once, though used twice. In order: a foreign trigger may look at the events before each one.
            ORDER BY d.position OFFSET 0) n;
    INSERT INTO {SCHEMA}.{EVENTS_TABLE}
            (position, originator_id, originator_version, topic, state, recorded_at, leaf_hash)
        SELECT w.position, w.subject, w.version, w.topic, w.leaf, w.recorded_at, w.leaf_hash
        FROM unnest(positions, streams, stream_versions, stream_topics, leaves, moments, hashes)
            AS w(position, subject, version, topic, leaf, recorded_at, leaf_hash);
{_INSERT_SIDE_ROWS}
{_READ_BACK}
{_END}"""
"""Of format 3: reads back what it wrote, in the same transaction."""

APPEND_GROUP: Final = APPEND_GROUP_3
"""The newest."""


def body_of(function: str) -> str:
    """The text of the function that PostgreSQL stores."""
    quotes = "$function$" if "$function$" in function else "$$"
    return function.split(quotes)[1]
