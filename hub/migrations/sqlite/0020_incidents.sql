-- What was wrong in the fleet: the incident as JSON. An id comes back with what it is about, so its beginning is a part of the key.
CREATE TABLE incidents (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    closed_at INTEGER,
    incident TEXT NOT NULL,
    UNIQUE (id, first_seen)
) STRICT;
CREATE INDEX incidents_by_end ON incidents (closed_at);
