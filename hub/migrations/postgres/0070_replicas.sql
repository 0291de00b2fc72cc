-- The fence is part of a key, so that a new holder waits for what the one before is writing (FOR KEY SHARE), and prolonging,
-- which changes no key, does not.
CREATE UNIQUE INDEX replica_leases_by_fence ON replica_leases (name, fence);

-- What was revoked, so that each replica has it in its own revoked.json, which no backup holds: JSON, as that file is.
CREATE TABLE replica_revocations (
    subject TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (subject, key)
);

CREATE TRIGGER replica_change_begins BEFORE INSERT OR UPDATE OR DELETE ON replica_revocations
    FOR EACH STATEMENT EXECUTE FUNCTION replica_change_begins();
CREATE TRIGGER replica_change AFTER INSERT OR UPDATE OR DELETE ON replica_revocations
    FOR EACH ROW EXECUTE FUNCTION replica_change('');
