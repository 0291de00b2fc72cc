-- The latest self-test since the cluster enrolled: JSON.
ALTER TABLE clusters ADD COLUMN self_test TEXT;
-- The agent that has shown the token and waits for a person's approval: JSON.
ALTER TABLE clusters ADD COLUMN token_pending TEXT;
