-- Which versions a cluster had from when on: one row where they differ from the row before. Outlives its cluster.
CREATE TABLE agent_versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster TEXT NOT NULL,
    at INTEGER NOT NULL,
    agent TEXT NOT NULL,
    kubernetes TEXT NOT NULL
) STRICT;

CREATE INDEX agent_versions_by_cluster ON agent_versions (cluster, id);
CREATE INDEX agent_versions_by_time ON agent_versions (at);
