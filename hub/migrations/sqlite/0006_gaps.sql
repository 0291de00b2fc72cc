-- How far the reports of each of a cluster's journals are on disk. A number that is left out is a report that is gone.
CREATE TABLE report_cursors (
    cluster TEXT NOT NULL,
    journal TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (cluster, journal)
) STRICT, WITHOUT ROWID;

-- Reports that never came; in the history behind the run of that id. Outlives its cluster, as the history does.
CREATE TABLE gaps (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster TEXT NOT NULL,
    after_run INTEGER NOT NULL,
    reports INTEGER NOT NULL,
    noticed_at INTEGER NOT NULL
) STRICT;

CREATE INDEX gaps_by_place ON gaps (cluster, after_run);
