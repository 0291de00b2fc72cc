-- Times are microseconds since 1970 (UTC), JSON is text, hashes are 32 bytes.

CREATE TABLE clusters (
    name TEXT NOT NULL PRIMARY KEY,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    cluster_uid TEXT,
    created_at INTEGER NOT NULL,
    token_hash BLOB,
    token_expires_at INTEGER,
    token_spent_by BLOB
) STRICT;

-- The history outlives its cluster.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster TEXT NOT NULL,
    check_uid TEXT NOT NULL,
    kind TEXT NOT NULL,
    slot INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    workflow TEXT,
    outcome TEXT NOT NULL,
    reason TEXT,
    message TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    UNIQUE (cluster, check_uid, kind, slot)
) STRICT;

CREATE INDEX runs_by_check ON runs (cluster, namespace, name, id);

CREATE TABLE check_states (
    cluster TEXT NOT NULL,
    uid TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (cluster, uid)
) STRICT, WITHOUT ROWID;

-- A deleted definition leaves its generation, so that an old answer is never taken for one to a later namesake.
CREATE TABLE definitions (
    name TEXT NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    definition TEXT
) STRICT;

CREATE TABLE definition_statuses (
    cluster TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    PRIMARY KEY (cluster, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_tokens (
    name TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    hash BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL
) STRICT;
