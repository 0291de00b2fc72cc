-- What was shown of a check, and from when on; the status is empty where the check was gone.
CREATE TABLE transitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    at INTEGER NOT NULL,
    status TEXT NOT NULL
) STRICT;

-- Covers what is asked of a check, and of all of them in their order.
CREATE INDEX transitions_by_check ON transitions (cluster, namespace, name, at, status);
CREATE INDEX transitions_by_time ON transitions (at);

-- When a hub was there to see: between two rows nobody was.
CREATE TABLE hub_lives (
    started_at INTEGER NOT NULL PRIMARY KEY,
    alive_at INTEGER NOT NULL
) STRICT;
