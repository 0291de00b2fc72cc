-- The fence is part of a key, so that a new holder waits for what the one before is writing (FOR KEY SHARE), and prolonging,
-- which changes no key, does not.
CREATE UNIQUE INDEX replica_leases_by_fence ON replica_leases (name, fence);

-- What was revoked, so that each replica has it in its own revoked.json, which no backup holds. Microseconds since 1970.
CREATE TABLE replica_revocations (
    subject TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (subject, key)
);

-- What the replica that keeps the fleet as Git's folder says shows of that: JSON.
CREATE TABLE replica_sources (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 0),
    replica TEXT COLLATE "C" NOT NULL,
    view TEXT NOT NULL
);

-- Which other cluster's agent was refused last under a cluster's identity, by its kube-system uid.
CREATE TABLE replica_foreign (
    cluster TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    cluster_uid TEXT NOT NULL,
    at BIGINT NOT NULL DEFAULT replica_now()
);

DO $$
DECLARE
    named TEXT[];
BEGIN
    FOREACH named SLICE 1 IN ARRAY ARRAY[
        ['replica_revocations', ''], ['replica_sources', ''], ['replica_foreign', 'cluster']
    ] LOOP
        EXECUTE format('CREATE TRIGGER replica_change_begins BEFORE INSERT OR UPDATE OR DELETE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION replica_change_begins()', named[1]);
        EXECUTE format('CREATE TRIGGER replica_change AFTER INSERT OR UPDATE OR DELETE ON %I
            FOR EACH ROW EXECUTE FUNCTION replica_change(%L)', named[1], named[2]);
    END LOOP;
END $$;
