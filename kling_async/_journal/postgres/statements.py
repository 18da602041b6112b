"""The statements of a shared journal. Each decides and writes at once, so that a process that stops leaves nothing half done."""

from __future__ import annotations

from kling_async._journal.entry import EntryState
from kling_async._journal.postgres.rows import COLUMNS, IDENTITY, NAMES, quote_name
from kling_async._journal.store import EARLIER_COLUMNS, Activity
from kling_async._journal.transitions import UNKNOWN_STATES_IN_SQL, UNPRICED_IN_SQL

# All names in these statements are our own; all values are parameters.
# ruff: noqa: S608

_E_NAMES = ", ".join(f"e.{quote_name(name)}" for name in COLUMNS)
_E_IDENTITY = ", ".join(f"e.{name}" for name in IDENTITY.split(", "))
_ARRAYS = ", ".join(f"%s::{column.type}[]" for column in COLUMNS.values())
_DIGEST = "encode(sha256(convert_to({0}, 'UTF8')), 'hex')"
"""An index takes no text as long as an id of a job can be."""
_EARLIER_NAMES = ", ".join(EARLIER_COLUMNS.values())
_EARLIER_ARRAYS = ", ".join(f"%s::{COLUMNS[field].type}[]" for field in EARLIER_COLUMNS)
_EARLIER_OR_E_NAMES = ", ".join(
    f"a.{EARLIER_COLUMNS[name]}" if name in EARLIER_COLUMNS else f"e.{quote_name(name)}" for name in COLUMNS
)
"""The columns of `COLUMNS` as they were in an earlier attempt `a` of an entry `e`."""
ENTRY = f"{IDENTITY}, {NAMES}"

LIVE_HOLDERS = """
    SELECT objid::bigint AS holder FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND classid = 'kling_async_entries'::regclass::oid
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""The processes whose session lives, in any database server that supports advisory locks."""
LOCK_SESSION = "SELECT pg_advisory_lock(('kling_async_entries'::regclass::oid::bigint << 32) | %s)"
NEXT_HOLDER = "SELECT nextval('kling_async_holders')"
CHANNEL = "SELECT 'kling_async_' || 'kling_async_entries'::regclass::oid"
"""The channel of notices: another one for each journal of a database."""

_PAGE = f"SELECT {ENTRY} FROM kling_async_entries WHERE number > %s AND {{0}} ORDER BY number LIMIT %s"
PAGE = _PAGE.format("true")
UNPRICED_PAGE = _PAGE.format(UNPRICED_IN_SQL)
FIND = f"SELECT identity, {ENTRY} FROM kling_async_entries WHERE identity = ANY(%s::text[])"
TOTAL = "SELECT spent_usd FROM kling_async_journal"
NEXT_WRITE = "SELECT nextval('kling_async_writes')"

LOCK_INTENTS = "SELECT pg_advisory_xact_lock('kling_async_entries'::regclass::oid::bigint << 32)"
"""While one process reserves POSTs or begins a reconciliation, no other does. No process has the number 0."""

CLAIM = f"""
    WITH live AS MATERIALIZED ({LIVE_HOLDERS}),
    seen AS MATERIALIZED (
        SELECT number, epoch FROM kling_async_entries
        WHERE identity = ANY(%(identities)s::text[])
            -- Its own, too: the answer to the claim can have been lost.
            AND (holder IS NULL OR holder = %(holder)s OR holder NOT IN (SELECT holder FROM live))
    ),
    free AS (  -- a row that another process has taken meanwhile has another epoch
        SELECT e.number, e.writer, e.written_no FROM kling_async_entries e JOIN seen USING (number)
        WHERE e.epoch = seen.epoch FOR UPDATE OF e SKIP LOCKED
    )
    UPDATE kling_async_entries e SET holder = %(holder)s, epoch = e.epoch + 1
    FROM free WHERE e.number = free.number
    RETURNING e.identity, e.epoch, e.writer, e.written_no, {_E_IDENTITY}, {_E_NAMES}
"""
MAKE = f"""
    INSERT INTO kling_async_entries AS e
        (identity, key, fingerprint, occurrence, model, payload, "index", holder, epoch, state)
    SELECT w.identity, w.key, w.fingerprint, w.occurrence, w.model, w.payload, w.index, %s::integer, 1, '{EntryState.NOT_SUBMITTED}'
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::integer[], %s::text[], %s::text[], %s::bigint[])
        WITH ORDINALITY AS w(identity, key, fingerprint, occurrence, model, payload, index, place)
    WHERE NOT EXISTS (SELECT FROM kling_async_entries o WHERE o.identity = w.identity)
    ORDER BY w.place
    ON CONFLICT (identity) DO NOTHING
    RETURNING e.identity, e.epoch, e.writer, e.written_no, {_E_IDENTITY}, {_E_NAMES}
"""
SET_INDEX = """
    UPDATE kling_async_entries e SET "index" = w.index
    FROM unnest(%s::text[], %s::bigint[]) AS w(identity, index)
    WHERE e.identity = w.identity AND e."index" <> w.index AND e.holder IS NULL
"""
EPOCHS = "SELECT number, epoch FROM kling_async_entries WHERE number = ANY(%s)"
FIND_CLAIMABLE = f"""
    SELECT identity, holder IS NULL OR holder = %s OR holder NOT IN ({LIVE_HOLDERS}) FROM kling_async_entries
    WHERE identity = ANY(%s::text[])
"""
"""Whether each entry can be claimed, of those that are there."""
UNKNOWN_ATTEMPTS = f"""
    SELECT {_E_IDENTITY}, {_EARLIER_OR_E_NAMES}
    FROM kling_async_earlier_attempts a JOIN kling_async_entries e USING (number)
    WHERE a.request_id IS NULL AND a.state IN {UNKNOWN_STATES_IN_SQL} AND a.attempt < e.attempts AND
"""
UNKNOWN_ATTEMPTS_OF_ENTRIES = f"{UNKNOWN_ATTEMPTS} a.number = ANY(%s::bigint[])"
UNKNOWN_ATTEMPTS_OF_MODEL = f"{UNKNOWN_ATTEMPTS} e.model = %s"
UNKNOWN_ENTRIES_OF_MODEL = f"""
    SELECT {ENTRY} FROM kling_async_entries WHERE request_id IS NULL AND state IN {UNKNOWN_STATES_IN_SQL} AND model = %s
"""

WRITE_EARLIER = f"""
    WITH done AS (INSERT INTO kling_async_earlier_attempts AS a (number, {_EARLIER_NAMES})
    SELECT w.number, {", ".join(f"w.{name}" for name in EARLIER_COLUMNS.values())}
    FROM unnest(%s::bigint[], %s::bigint[], {_EARLIER_ARRAYS}) AS w(number, epoch, {_EARLIER_NAMES})
    JOIN kling_async_entries e ON e.number = w.number AND e.holder = %s AND e.epoch = w.epoch
    ON CONFLICT (number, attempt) DO UPDATE
        SET {", ".join(f"{name} = excluded.{name}" for name in EARLIER_COLUMNS.values())}
    RETURNING a.number, a.request_id)
    INSERT INTO kling_async_jobs (id_digest, number)
    SELECT {_DIGEST.format("request_id")}, number FROM done WHERE request_id IS NOT NULL ON CONFLICT DO NOTHING
"""
WRITE = f"""
    WITH new AS (
        SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::boolean[], {_ARRAYS})
            AS w(number, epoch, is_intent, {NAMES})
    ),
    held AS MATERIALIZED (
        SELECT e.number, e.cost_usd FROM kling_async_entries e JOIN new USING (number)
        WHERE e.holder = %s AND e.epoch = new.epoch FOR UPDATE OF e
    ),
    wanted AS (  -- sorted, so that two processes wait for each other's jobs in the same order
        SELECT DISTINCT ON (id_digest) id_digest, number
        FROM (SELECT {_DIGEST.format("new.request_id")} AS id_digest, number FROM new JOIN held USING (number)) d
        WHERE id_digest IS NOT NULL ORDER BY id_digest, number
    ),
    owned AS (SELECT number FROM wanted JOIN kling_async_jobs USING (id_digest, number)),
    won AS (  -- nothing for a job that belongs to another entry, also to one that another process writes meanwhile
        INSERT INTO kling_async_jobs AS j (id_digest, number)
        SELECT id_digest, number FROM wanted WHERE number NOT IN (SELECT number FROM owned) ORDER BY id_digest
        ON CONFLICT (id_digest) DO UPDATE SET number = excluded.number WHERE j.number = excluded.number
        RETURNING j.number
    ),
    done AS (
        UPDATE kling_async_entries e
        SET {", ".join(f"{quote_name(name)} = new.{quote_name(name)}" for name in COLUMNS)},
            writer = %s, written_no = nextval('kling_async_writes')
        FROM new, held
        WHERE e.number = new.number AND e.number = held.number AND (
            new.request_id IS NULL
            OR e.number IN (SELECT number FROM owned UNION ALL SELECT number FROM won)
        )
        RETURNING e.number, new.is_intent, coalesce(e.cost_usd, 0) - coalesce(held.cost_usd, 0) AS more_usd
    ),
    spent AS (
        UPDATE kling_async_journal SET spent_usd = spent_usd + d.more_usd
        FROM (SELECT sum(more_usd) AS more_usd FROM done) d WHERE d.more_usd <> 0
    ),
    reserved AS (  -- the money is in the entry from now on
        UPDATE kling_async_activities a SET price_usd = 0 FROM done
        WHERE a.number = done.number AND a.kind = '{Activity.POST}' AND done.is_intent
    )
    SELECT new.number, new.number IN (SELECT number FROM done), new.number NOT IN (SELECT number FROM done) AND (
        new.number IN (SELECT number FROM held) OR EXISTS (
            SELECT FROM kling_async_jobs j
            WHERE j.id_digest = {_DIGEST.format("new.request_id")} AND j.number <> new.number
        )
    ), NOT EXISTS (SELECT FROM kling_async_entries e WHERE e.number = new.number AND e.epoch >= new.epoch)
    FROM new
"""
"""Whether each entry is written, whether its job belongs to another entry, and whether it is gone.

An entry with such a job is not written. An entry is gone if it was deleted, or has an epoch of the past.
"""
END_ACTIVITIES = """
    DELETE FROM kling_async_activities a USING unnest(%s::bigint[], %s::text[]) AS w(number, kind)
    WHERE a.number = w.number AND a.kind = w.kind AND a.holder = %s
"""
RELEASE = """
    UPDATE kling_async_entries e SET holder = NULL FROM unnest(%s::bigint[], %s::bigint[]) AS w(number, epoch)
    WHERE e.number = w.number AND e.epoch = w.epoch AND e.holder = %s
"""
NOTIFY = f"SELECT pg_notify(({CHANNEL}), '')"
MOVE_ENTRIES = """
    UPDATE kling_async_entries SET holder = %s, epoch = epoch + 1 WHERE holder = ANY(%s) RETURNING number, epoch
"""
END_RESERVATIONS = f"DELETE FROM kling_async_activities WHERE holder = ANY(%s) AND kind = '{Activity.POST}' AND price_usd > 0"
"""See `HeldEntries.move`."""
MOVE_ACTIVITIES = f"""
    WITH moved AS (
        UPDATE kling_async_activities SET holder = %s WHERE holder = ANY(%s) RETURNING number, kind
    )
    SELECT number FROM moved WHERE kind = '{Activity.POST}'
"""

_IS_LOOK_ALIKE = "{0}.model = {1}.model AND coalesce({0}.look_alikes = {1}.look_alikes, true)"
RESERVE_POSTS = f"""
    WITH live AS MATERIALIZED ({LIVE_HOLDERS}),
    wanted AS (
        SELECT * FROM unnest(%(numbers)s::bigint[], %(epochs)s::bigint[], %(models)s::text[], %(look_alikes)s::text[],
            %(prices)s::numeric[], %(caps)s::numeric[])
            WITH ORDINALITY AS w(number, epoch, model, look_alikes, price_usd, cap_usd, place)
    ),
    held AS (
        SELECT w.* FROM wanted w JOIN kling_async_entries e ON e.number = w.number
        WHERE e.holder = %(holder)s AND e.epoch = w.epoch AND %(holder)s IN (SELECT holder FROM live)
    ),
    unblocked AS (
        SELECT h.* FROM held h WHERE NOT EXISTS (
            SELECT FROM kling_async_activities a
            WHERE a.kind = '{Activity.RECONCILIATION}' AND a.holder <> %(holder)s AND a.holder IN (SELECT holder FROM live)
                AND {_IS_LOOK_ALIKE.format("a", "h")}
        )
    ),
    before AS (
        SELECT spent_usd + (
            SELECT coalesce(sum(price_usd), 0) FROM kling_async_activities
            WHERE kind = '{Activity.POST}' AND holder IN (SELECT holder FROM live)
                AND number NOT IN (SELECT number FROM wanted)
        ) AS total_usd FROM kling_async_journal
    ),
    priced AS (
        SELECT u.*, b.total_usd + sum(u.price_usd) OVER (ORDER BY u.place) AS total_usd FROM unblocked u, before b
    ),
    allowed AS (
        INSERT INTO kling_async_activities AS a (number, kind, holder, model, look_alikes, price_usd)
        SELECT number, '{Activity.POST}', %(holder)s, model, look_alikes, price_usd FROM priced
        WHERE cap_usd IS NULL OR total_usd <= cap_usd
        ON CONFLICT (number, kind) DO UPDATE SET holder = excluded.holder, model = excluded.model,
            look_alikes = excluded.look_alikes, price_usd = excluded.price_usd
        RETURNING a.number
    )
    SELECT %(holder)s IN (SELECT holder FROM live), w.number IN (SELECT number FROM held),
        w.number IN (SELECT number FROM unblocked), w.number IN (SELECT number FROM allowed),
        coalesce((  -- of a refused POST, the total of the first refused one: nothing after that one is sent
            SELECT least(p.total_usd, min(f.total_usd)) FROM priced p LEFT JOIN priced f
                ON f.cap_usd = p.cap_usd AND f.total_usd > f.cap_usd
            WHERE p.number = w.number GROUP BY p.total_usd
        ), 0)
    FROM wanted w ORDER BY w.place
"""
BEGIN_RECONCILIATION = f"""
    INSERT INTO kling_async_activities (number, kind, holder, model, look_alikes, price_usd)
    SELECT number, '{Activity.RECONCILIATION}', holder, %(model)s, %(look_alikes)s, 0 FROM kling_async_entries
    WHERE number = %(number)s AND holder = %(holder)s AND epoch = %(epoch)s
    ON CONFLICT (number, kind) DO UPDATE SET holder = excluded.holder, model = excluded.model,
        look_alikes = excluded.look_alikes
    RETURNING number
"""
FIND_SEARCHABLE = f"""
    WITH live AS MATERIALIZED ({LIVE_HOLDERS})
    SELECT r.number FROM kling_async_activities r
    WHERE r.number = ANY(%(numbers)s::bigint[]) AND r.kind = '{Activity.RECONCILIATION}' AND r.holder = %(holder)s
        AND r.holder IN (SELECT holder FROM live)
        AND NOT EXISTS (
            SELECT FROM kling_async_activities p
            WHERE p.kind = '{Activity.POST}' AND p.holder <> %(holder)s AND p.holder IN (SELECT holder FROM live)
                AND {_IS_LOOK_ALIKE.format("p", "r")}
        )
"""
MATCH_JOB = f"""
    WITH mine AS (
        SELECT number FROM kling_async_entries
        WHERE number = %(number)s AND holder = %(holder)s AND epoch = %(epoch)s
            AND coalesce(request_id = %(request_id)s, true) FOR UPDATE
    ),
    won AS (  -- asked again after the answer was lost, it is the same entry's job
        INSERT INTO kling_async_jobs AS j (id_digest, number)
        SELECT {_DIGEST.format("%(request_id)s::text")}, number FROM mine
        ON CONFLICT (id_digest) DO UPDATE SET number = excluded.number WHERE j.number = excluded.number
        RETURNING j.number
    )
    UPDATE kling_async_entries e SET request_id = %(request_id)s, state = '{EntryState.SUBMITTED}', writer = %(holder)s,
        written_no = nextval('kling_async_writes')
    FROM won WHERE e.number = won.number RETURNING e.number
"""
FIND_JOBS = f"""
    SELECT w.id FROM unnest(%s::text[]) AS w(id) JOIN kling_async_jobs ON id_digest = {_DIGEST.format("w.id")}
"""
TAKE_TURNS = """
    WITH turn AS (
        SELECT greatest(
            -- Turns that were taken by a clock that was set back since then come earlier by as much.
            coalesce(next_turn_at - greatest(turn_taken_at - clock_timestamp(), interval '0'), '-infinity'),
            clock_timestamp() - %(burst)s * %(interval)s
        ) AS first
        FROM kling_async_journal FOR UPDATE
    )
    UPDATE kling_async_journal SET next_turn_at = turn.first + %(count)s * %(interval)s, turn_taken_at = clock_timestamp()
    FROM turn
    RETURNING extract(epoch FROM turn.first - clock_timestamp())
"""
"""The first of `count` turns in a row; `burst` is one less than the turns of a full bucket."""
IS_LIVE = f"SELECT %s IN ({LIVE_HOLDERS})"
