-- What Git owns, and of which commit it is: JSON, at most one row.
CREATE TABLE source (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 0),
    ownership TEXT NOT NULL
);
