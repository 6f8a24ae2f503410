-- Version 1 of what two-phase commit needs on a shard. Client roles have no right
-- on the tables: they come here only through note_seen and decide, which run as
-- the schema's owner under a search_path of their own.

CREATE TABLE sharding.decision (
    gid          text COLLATE "C" PRIMARY KEY,
    verdict      text NOT NULL CHECK (verdict IN ('commit', 'abort')),
    participants text[] NOT NULL DEFAULT '{}', -- the shards that were prepared
    login        name,                         -- who decided: the session's role
    role         name,                         -- and the role it had SET, or the same
    xid          bigint NOT NULL DEFAULT pg_catalog.txid_current(),
    decided_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- A row is there if and only if this shard's branch of the transaction committed.
CREATE TABLE sharding.seen (
    gid text COLLATE "C" PRIMARY KEY,
    at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- Locked by whoever decides, against the commit barrier; never written.
CREATE TABLE sharding.commit_gate ();

REVOKE ALL ON sharding.decision, sharding.seen, sharding.commit_gate FROM PUBLIC;

-- A client's session may run with synchronous_commit = off or local. The decision
-- and the marks must not: a decision that a crash forgets after another shard has
-- acted on it would halve the transaction.
CREATE FUNCTION sharding.note_seen(gid text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
     WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local');
    INSERT INTO sharding.seen (gid) VALUES ($1);
$$;

CREATE FUNCTION sharding.decide(gid text, participants text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
     WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local');
    LOCK TABLE sharding.commit_gate IN ROW EXCLUSIVE MODE;
    INSERT INTO sharding.decision (gid, verdict, participants, login, role)
    VALUES ($1, 'commit', pg_catalog.string_to_array($2, ','), session_user,
            CASE pg_catalog.current_setting('role')
                WHEN 'none' THEN session_user
                ELSE pg_catalog.current_setting('role')::pg_catalog.name END);
$$;

-- The verdict, which is abort from now on if there was none. It waits for a
-- decision that is being committed. Only READ COMMITTED sees what it waited for.
CREATE FUNCTION sharding.verdict_or_abort(gid text) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    answer text;
BEGIN
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the verdict is asked for at READ COMMITTED only'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    INSERT INTO sharding.decision AS d (gid, verdict) VALUES ($1, 'abort') ON CONFLICT DO NOTHING;
    SELECT d.verdict INTO STRICT answer FROM sharding.decision d WHERE d.gid = $1;
    RETURN answer;
END
$$;

REVOKE ALL ON FUNCTION sharding.note_seen(text), sharding.decide(text, text), sharding.verdict_or_abort(text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sharding.note_seen(text), sharding.decide(text, text) TO PUBLIC;
GRANT USAGE ON SCHEMA sharding TO PUBLIC;
