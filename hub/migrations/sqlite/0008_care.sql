-- Maintenance windows: JSON, as people wrote them.
CREATE TABLE windows (
    name TEXT NOT NULL PRIMARY KEY,
    spec TEXT NOT NULL
) STRICT;

-- Who knows what is wrong with a check: JSON.
CREATE TABLE acknowledgements (
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    acknowledgement TEXT NOT NULL,
    PRIMARY KEY (cluster, namespace, name)
) STRICT, WITHOUT ROWID;

-- 1 where the check is in a maintenance window from then on.
ALTER TABLE transitions ADD COLUMN maintenance INTEGER NOT NULL DEFAULT 0;
DROP INDEX transitions_by_check;
CREATE INDEX transitions_by_check ON transitions (cluster, namespace, name, at, status, maintenance);
