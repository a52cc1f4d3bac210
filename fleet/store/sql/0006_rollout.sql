CREATE TABLE rollout (
    id INTEGER PRIMARY KEY,
    app TEXT NOT NULL,
    release INTEGER NOT NULL,
    state TEXT NOT NULL,
    document TEXT NOT NULL,
    UNIQUE (app, release)
);

CREATE TABLE rollout_cluster (
    run INTEGER NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
    cluster TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (run, cluster)
);

CREATE TABLE rollout_transition (
    seq INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
    at TEXT NOT NULL,
    environment TEXT NOT NULL,
    cluster TEXT NOT NULL,
    was TEXT NOT NULL,
    becomes TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    actor TEXT NOT NULL
);
CREATE INDEX rollout_transition_by_run ON rollout_transition (run);
