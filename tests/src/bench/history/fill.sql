-- 90 days of a fleet, in words that both data bases understand; `numbers` has been made before. What is written in @ is
-- filled in: CLUSTERS, LONG (clusters whose runs are kept for 90 days), NOW (microseconds) and TODAY (days since 1970).
CREATE TEMP TABLE places AS SELECT n AS c, 'cluster-' || (1000 + n) AS cluster FROM numbers WHERE n < @CLUSTERS@;
CREATE TEMP TABLE names AS SELECT n AS k, 'check-' || (100 + n) AS name FROM numbers WHERE n < 100;

INSERT INTO clusters (name, labels, annotations, cluster_uid, created_at)
SELECT cluster, '{"region":"region-' || (c % 8) || '"}', '{}', 'uid-' || c, @NOW@ - 7862400000000 FROM places;
INSERT INTO hub_lives (started_at, alive_at) VALUES (@NOW@ - 7862400000000, @NOW@);

-- Each check fails for ten minutes every twenty days, and one in twenty did today.
INSERT INTO transitions (cluster, namespace, name, at, status)
SELECT cluster, 'health', name, @NOW@ - 7862400000000, 'Succeeded' FROM places CROSS JOIN names;
INSERT INTO transitions (cluster, namespace, name, at, status)
SELECT cluster, 'health', name, (@TODAY@ - n) * 86400000000 + (c * k % 1000) * 1000, 'Failed'
FROM numbers CROSS JOIN places CROSS JOIN names WHERE n <= 90 AND (c + k + n) % 20 = 0;
INSERT INTO transitions (cluster, namespace, name, at, status)
SELECT cluster, 'health', name, (@TODAY@ - n) * 86400000000 + (c * k % 1000) * 1000 + 600000000, 'Succeeded'
FROM numbers CROSS JOIN places CROSS JOIN names WHERE n <= 90 AND (c + k + n) % 20 = 0;

INSERT INTO check_days (day, cluster, namespace, name, up, down, unknown, stopped, maintenance, outages, ends)
SELECT @TODAY@ - 91 + n, cluster, 'health', name,
       CASE WHEN (c + k + 91 - n) % 20 = 0 THEN 85800000000 ELSE 86400000000 END,
       CASE WHEN (c + k + 91 - n) % 20 = 0 THEN 600000000 ELSE 0 END,
       0, 0, 0, CASE WHEN (c + k + 91 - n) % 20 = 0 THEN 1 ELSE 0 END, 'Up'
FROM numbers CROSS JOIN places CROSS JOIN names WHERE n < 91;
INSERT INTO cluster_days (day, cluster, checks, up, down, unknown, stopped, maintenance, outages)
SELECT day, cluster, count(*), sum(up), sum(down), 0, 0, 0, sum(outages) FROM check_days GROUP BY day, cluster;

-- Runs of the whole fleet for a week, one every four hours; and of some clusters for 90 days, one every half hour.
INSERT INTO runs (cluster, check_uid, kind, slot, namespace, name, workflow, outcome, reason, message, started_at, finished_at, recorded_at)
SELECT cluster, '8a1e6a6e-7f1e-4f5e-9c1b-' || (100000000000 + k), 'healthCheck', @NOW@ - 604800000000 + n * 14400000000,
       'health', name, 'health/' || name || '-0123456789ab', 'Succeeded', NULL, '',
       @NOW@ - 604800000000 + n * 14400000000, @NOW@ - 604799000000 + n * 14400000000, @NOW@ - 604799000000 + n * 14400000000
FROM numbers CROSS JOIN places CROSS JOIN names WHERE n < 42;
INSERT INTO runs (cluster, check_uid, kind, slot, namespace, name, workflow, outcome, reason, message, started_at, finished_at, recorded_at)
SELECT cluster, '8a1e6a6e-7f1e-4f5e-9c1b-' || (100000000000 + k), 'healthCheck', @NOW@ - 7776000000000 + n * 1800000000,
       'health', name, 'health/' || name || '-0123456789ab', 'Succeeded', NULL, '',
       @NOW@ - 7776000000000 + n * 1800000000, @NOW@ - 7775999000000 + n * 1800000000, @NOW@ - 7775999000000 + n * 1800000000
FROM numbers CROSS JOIN places CROSS JOIN names WHERE n < 3984 AND c < @LONG@;

INSERT INTO rollups (name, through) VALUES ('days', @TODAY@ - 1);
INSERT INTO rollups (name, through) SELECT 'reports', max(id) FROM runs;
