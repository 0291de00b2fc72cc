-- The keys that certificates were issued for: JSON, the newest last; at most the present one and the one before it.
ALTER TABLE clusters ADD COLUMN agent_keys TEXT NOT NULL DEFAULT '[]';
-- Certificates that were issued before are refused.
ALTER TABLE clusters ADD COLUMN valid_from INTEGER;
