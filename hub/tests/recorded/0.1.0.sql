BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'initial','2026-11-25 21:43:08',1,X'6524756F82B3D0BD20902E9002CAA99C3C5055AF70B26488C9423B817040DF4EB4891E58991480D619DF02B805CDEEB7',2335359);
INSERT INTO "_sqlx_migrations" VALUES(2,'run logs','2026-11-25 21:43:08',1,X'4A22CA9E40DCCE49EA0FE5C93373BFB6BB270C218B75238351E68DD81A9BFC140A98F8F061D6857DB73AE7A60BCDEA55',10340689);
INSERT INTO "_sqlx_migrations" VALUES(3,'agent keys','2026-11-25 21:43:08',1,X'4AFB3BFB05DC0EE7663DF44FD8D068A3419B7C40D16E8B05035EE0402D207D856F033C375B77053C5B67C645C2F71564',35200734);
INSERT INTO "_sqlx_migrations" VALUES(4,'pauses','2026-11-25 21:43:08',1,X'B2BF6EC4CEB1F7B9BAE85165C1138863205BBD5697DD0C8E6D58C0ADC41347A68E7CC55EEC0EFE021429FADFC001BE1B',9694599);
INSERT INTO "_sqlx_migrations" VALUES(5,'retention','2026-11-25 21:43:08',1,X'0CA1B82025717343E3A22DBB3C4D258BC4CE72FAF9AC7E3B3B5DBF4B6766D774FE0F7F63BBFD7E142A9240797AF28A51',18129828);
INSERT INTO "_sqlx_migrations" VALUES(6,'gaps','2026-11-25 21:43:08',1,X'ABABE215B41547D85171C38B5F190B9E83137015F4387A2FA6EAFE273F0064FE06BDBBA0C46077424858C071EEEAA204',15372323);
INSERT INTO "_sqlx_migrations" VALUES(7,'transitions','2026-11-25 21:43:08',1,X'49A818270769ED05D5A53782AAB264C1A94B307A2898765EA5B6EE7EB6303A94E480A736E4F37B46E1C1CA6B418C2C64',8236754);
INSERT INTO "_sqlx_migrations" VALUES(8,'care','2026-11-25 21:43:08',1,X'54651AB7DE967C1DCA8559C2BB2D0647782DAB4CF1FE733053A0132AFC80EA4A32A1177C9DA372C7F943CCB93E365783',7046005);
CREATE TABLE acknowledgements (
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    acknowledgement TEXT NOT NULL,
    PRIMARY KEY (cluster, namespace, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE api_tokens (
    name TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    hash BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO "api_tokens" VALUES('admin','admin',X'6EFE066687C69E70F498887BA508565131278EEF2743923177169A691895A2DF',1795642988781739);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL
) STRICT;
INSERT INTO "audit" VALUES(1,1795642989000079,'enrolment','cluster.enrol','c1');
CREATE TABLE check_states (
    cluster TEXT NOT NULL,
    uid TEXT NOT NULL,
    state TEXT NOT NULL, health TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (cluster, uid)
) STRICT, WITHOUT ROWID;
INSERT INTO "check_states" VALUES('c1','uid-dns','{"uid":"uid-dns","namespace":"health","name":"dns","phase":"Succeeded","schedule":"@every 1h","nextSlot":"2026-11-25T22:43:09Z","timeoutSeconds":60,"check":{"succeeded":0,"failed":0}}','{"since":"2026-11-25T21:43:09.16407219Z","soft":false,"flapping":false,"changePercent":0.0}');
CREATE TABLE clusters (
    name TEXT NOT NULL PRIMARY KEY,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    cluster_uid TEXT,
    created_at INTEGER NOT NULL,
    token_hash BLOB,
    token_expires_at INTEGER,
    token_spent_by BLOB
, agent_keys TEXT NOT NULL DEFAULT '[]', valid_from INTEGER) STRICT;
INSERT INTO "clusters" VALUES('c1','{}','{}','uid-1',1795642988941358,X'1B53AC1F44BCE51F1D70B051316E44D98A727E0CA288C873A391B789B4CFD2E1',1795646588941358,X'DF5E5865DD4EE0C33A2B174F0F716E1BB9BD21DF131C144215DB51E90BF4287D','[{"hash":[223,94,88,101,221,78,224,195,58,43,23,79,15,113,110,27,185,189,33,223,19,28,20,66,21,219,81,233,11,244,40,125],"issuedAt":"2026-11-25T21:43:09.000079461Z","notAfter":"2026-11-26T21:43:09.000079461Z","bundle":[242,131,97,165,222,234,27,244,144,56,152,26,137,17,185,18,149,115,192,81,160,121,243,90,108,204,41,217,172,194,113,120]}]',1795642989000079);
CREATE TABLE definition_statuses (
    cluster TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    PRIMARY KEY (cluster, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "definition_statuses" VALUES('c1','dns-all','{"name":"dns-all","generation":1,"result":"Applied"}');
CREATE TABLE definitions (
    name TEXT NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    definition TEXT
) STRICT;
INSERT INTO "definitions" VALUES('dns-all',1,'{"apiVersion":"fleet.activemonitor.keikoproj.io/v1alpha1","kind":"FleetHealthCheck","metadata":{"name":"dns-all"},"spec":{"clusterSelector":{"matchLabels":{"env":"prod"}},"template":{"metadata":{"namespace":"health"},"spec":{"description":"x","repeatAfterSec":60}}}}');
CREATE TABLE gaps (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster TEXT NOT NULL,
    after_run INTEGER NOT NULL,
    reports INTEGER NOT NULL,
    noticed_at INTEGER NOT NULL
) STRICT;
INSERT INTO "gaps" VALUES(1,'c1',2,2,1795642989164042);
CREATE TABLE hub_lives (
    started_at INTEGER NOT NULL PRIMARY KEY,
    alive_at INTEGER NOT NULL
) STRICT;
INSERT INTO "hub_lives" VALUES(1795642988895862,1795642989175007);
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
CREATE TABLE report_cursors (
    cluster TEXT NOT NULL,
    journal TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (cluster, journal)
) STRICT, WITHOUT ROWID;
INSERT INTO "report_cursors" VALUES('c1','j',5,1795642989164046);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster TEXT NOT NULL,
    check_uid TEXT NOT NULL,
    kind TEXT NOT NULL,
    slot INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    workflow TEXT,
    outcome TEXT NOT NULL,
    reason TEXT,
    message TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL, warning TEXT NOT NULL DEFAULT '', log_tail TEXT NOT NULL DEFAULT '',
    UNIQUE (cluster, check_uid, kind, slot)
) STRICT;
INSERT INTO "runs" VALUES(1,'c1','uid-dns','healthCheck',1800000060000000,'health','dns','health/dns-1','Succeeded',NULL,'',1800000060000000,1800000060000000,1795642989164015,'','');
INSERT INTO "runs" VALUES(2,'c1','uid-dns','healthCheck',1800000120000000,'health','dns','health/dns-1','Succeeded',NULL,'',1800000120000000,1800000120000000,1795642989164015,'','');
INSERT INTO "runs" VALUES(3,'c1','uid-dns','healthCheck',1800000300000000,'health','dns','health/dns-1','Succeeded',NULL,'',1800000300000000,1800000300000000,1795642989164046,'','');
CREATE TABLE transitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    at INTEGER NOT NULL,
    status TEXT NOT NULL
, maintenance INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO "transitions" VALUES(1,'c1','health','dns',1795642989164072,'Succeeded',0);
CREATE TABLE windows (
    name TEXT NOT NULL PRIMARY KEY,
    spec TEXT NOT NULL
) STRICT;
CREATE INDEX runs_by_check ON runs (cluster, namespace, name, id);
CREATE INDEX runs_by_time ON runs (recorded_at);
CREATE INDEX runs_with_logs ON runs (recorded_at) WHERE log_tail <> '';
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX gaps_by_place ON gaps (cluster, after_run);
CREATE INDEX transitions_by_time ON transitions (at);
CREATE INDEX transitions_by_check ON transitions (cluster, namespace, name, at, status, maintenance);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('audit',1);
INSERT INTO "sqlite_sequence" VALUES('runs',3);
INSERT INTO "sqlite_sequence" VALUES('gaps',1);
INSERT INTO "sqlite_sequence" VALUES('transitions',1);
COMMIT;
