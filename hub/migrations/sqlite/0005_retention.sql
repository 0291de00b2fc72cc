-- What is older than it is kept for is found without reading what is younger.
CREATE INDEX runs_by_time ON runs (recorded_at);
CREATE INDEX runs_with_logs ON runs (recorded_at) WHERE log_tail <> '';
CREATE INDEX audit_by_time ON audit (at);
-- What is remembered of a check beside its state: JSON.
ALTER TABLE check_states ADD COLUMN health TEXT NOT NULL DEFAULT '{}';
