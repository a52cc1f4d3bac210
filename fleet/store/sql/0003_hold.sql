CREATE TABLE hold (
    id INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    app TEXT NOT NULL,
    environment TEXT NOT NULL,
    cluster TEXT NOT NULL,
    release INTEGER NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at TEXT NOT NULL
);

CREATE TABLE render (
    digest TEXT PRIMARY KEY,
    manifests BLOB NOT NULL
);

CREATE TABLE release_target (
    app TEXT NOT NULL,
    cluster TEXT NOT NULL,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    inputs TEXT NOT NULL,
    applied_at TEXT NOT NULL,
    PRIMARY KEY (app, cluster, number)
);
CREATE INDEX release_target_by_digest ON release_target (digest);

CREATE TABLE applied (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    cluster TEXT NOT NULL,
    app TEXT NOT NULL,
    release INTEGER NOT NULL,
    revision TEXT NOT NULL
);
CREATE INDEX applied_by_target ON applied (cluster, app, id);

INSERT INTO release_target (app, cluster, number, digest, inputs, applied_at)
    SELECT app, cluster, release, render_digest, inputs,
        CASE WHEN applied_release = release THEN applied_at ELSE '' END
    FROM target WHERE release > 0;

INSERT INTO applied (at, cluster, app, release, revision)
    SELECT applied_at, cluster, app, applied_release, applied_revision FROM target WHERE applied_at <> '';
