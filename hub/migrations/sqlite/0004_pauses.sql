-- The pauses that agents have taken, until they end: an agent that takes over from another gets them again. Empty texts
-- are for all namespaces, all checks.
CREATE TABLE pauses (
    cluster TEXT NOT NULL,
    subject TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    id TEXT NOT NULL,
    until INTEGER NOT NULL,
    reason TEXT NOT NULL,
    who TEXT NOT NULL,
    PRIMARY KEY (cluster, subject, namespace, name)
) STRICT, WITHOUT ROWID;
