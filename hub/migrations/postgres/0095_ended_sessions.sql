-- Sessions of people whom a provider vouched for, ended before their time: by a session's id, or by a person's name, whose
-- sessions until then are all meant.
CREATE TABLE ended_sessions (
    subject TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL
);
