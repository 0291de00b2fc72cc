-- What a replica of the hub showed of a check; a hub on SQLite has no replicas and does not write it.
ALTER TABLE check_states ADD COLUMN status TEXT NOT NULL DEFAULT '';
