-- The last time that this store came back from the past. While nobody has confirmed it, no definition is pushed.
CREATE TABLE restores (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    noticed_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    confirmed_at INTEGER
) STRICT;

-- The latest mark that each cluster was given: milliseconds since 1970, and growing.
CREATE TABLE marks (
    cluster TEXT NOT NULL PRIMARY KEY,
    mark INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Random keys of the hub, by what they are for.
CREATE TABLE secrets (
    name TEXT NOT NULL PRIMARY KEY,
    secret BLOB NOT NULL
) STRICT, WITHOUT ROWID;
