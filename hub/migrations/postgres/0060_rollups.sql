-- How far the store is rolled up: 'reports' is the id of the last run that was looked at for late results, 'days' the last
-- day of which there are sums. A day is a number of days since 1970 (UTC).
CREATE TABLE rollups (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    through BIGINT NOT NULL
);

-- What a check was by results that were reported long after they came about: it counts where nothing else is known.
CREATE TABLE late_results (
    cluster TEXT COLLATE "C" NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    since BIGINT NOT NULL,
    until BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (cluster, namespace, name, since)
);
CREATE INDEX late_results_by_time ON late_results (until);

-- Days of clusters whose sums are to be made anew, since a late result concerns them.
CREATE TABLE changed_days (
    day BIGINT NOT NULL,
    cluster TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (day, cluster)
);

-- Microseconds of a day that a check was what; and what it was when the day ended. Both outlive their cluster.
CREATE TABLE check_days (
    day BIGINT NOT NULL,
    cluster TEXT COLLATE "C" NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    up BIGINT NOT NULL,
    down BIGINT NOT NULL,
    unknown BIGINT NOT NULL,
    stopped BIGINT NOT NULL,
    maintenance BIGINT NOT NULL,
    outages BIGINT NOT NULL,
    ends TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (day, cluster, namespace, name)
);

-- The sum of all checks of a cluster, and how many they are.
CREATE TABLE cluster_days (
    day BIGINT NOT NULL,
    cluster TEXT COLLATE "C" NOT NULL,
    checks BIGINT NOT NULL,
    up BIGINT NOT NULL,
    down BIGINT NOT NULL,
    unknown BIGINT NOT NULL,
    stopped BIGINT NOT NULL,
    maintenance BIGINT NOT NULL,
    outages BIGINT NOT NULL,
    PRIMARY KEY (day, cluster)
);
