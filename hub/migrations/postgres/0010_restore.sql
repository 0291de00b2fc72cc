-- The last time that this store came back from the past. While nobody has confirmed it, no definition is pushed.
CREATE TABLE restores (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    noticed_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    confirmed_at BIGINT
);

-- The latest mark that each cluster was given: milliseconds since 1970, and growing.
CREATE TABLE marks (
    cluster TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    mark BIGINT NOT NULL
);

-- Random keys of the hub, by what they are for.
CREATE TABLE secrets (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    secret BYTEA NOT NULL
);
