-- How far the store is rolled up: 'reports' is the id of the last run that was looked at for late results, 'days' the last
-- day of which there are sums. A day is a number of days since 1970 (UTC).
CREATE TABLE rollups (
    name TEXT NOT NULL PRIMARY KEY,
    through INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a check was by results that were reported long after they came about: it counts where nothing else is known.
CREATE TABLE late_results (
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (cluster, namespace, name, since)
) STRICT, WITHOUT ROWID;
CREATE INDEX late_results_by_time ON late_results (until);

-- Days of clusters whose sums are to be made anew, since a late result concerns them.
CREATE TABLE changed_days (
    day INTEGER NOT NULL,
    cluster TEXT NOT NULL,
    PRIMARY KEY (day, cluster)
) STRICT, WITHOUT ROWID;

-- Microseconds of a day that a check was what; and what it was when the day ended. Both outlive their cluster.
CREATE TABLE check_days (
    day INTEGER NOT NULL,
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    up INTEGER NOT NULL,
    down INTEGER NOT NULL,
    unknown INTEGER NOT NULL,
    stopped INTEGER NOT NULL,
    maintenance INTEGER NOT NULL,
    outages INTEGER NOT NULL,
    ends TEXT NOT NULL,
    PRIMARY KEY (day, cluster, namespace, name)
) STRICT, WITHOUT ROWID;

-- The sum of all checks of a cluster, and how many they are.
CREATE TABLE cluster_days (
    day INTEGER NOT NULL,
    cluster TEXT NOT NULL,
    checks INTEGER NOT NULL,
    up INTEGER NOT NULL,
    down INTEGER NOT NULL,
    unknown INTEGER NOT NULL,
    stopped INTEGER NOT NULL,
    maintenance INTEGER NOT NULL,
    outages INTEGER NOT NULL,
    PRIMARY KEY (day, cluster)
) STRICT, WITHOUT ROWID;
