CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);

CREATE TABLE cluster (
    name TEXT PRIMARY KEY,
    uid TEXT NOT NULL,
    version TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    first_seen_at TEXT NOT NULL,
    contacted_at TEXT NOT NULL
);

CREATE TABLE ledger (
    cluster TEXT NOT NULL,
    app TEXT NOT NULL,
    grp TEXT NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    desired BLOB NOT NULL,
    owned BLOB NOT NULL,
    uid TEXT NOT NULL,
    rv INTEGER NOT NULL,
    applied_at TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (cluster, grp, kind, namespace, name)
);
CREATE INDEX ledger_by_target ON ledger (cluster, app);

CREATE TABLE release (
    app TEXT NOT NULL,
    number INTEGER NOT NULL,
    repository TEXT NOT NULL,
    revision TEXT NOT NULL,
    input_digest TEXT NOT NULL,
    inputs TEXT NOT NULL,
    created_at TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (app, number)
);

CREATE TABLE target (
    cluster TEXT NOT NULL,
    app TEXT NOT NULL,
    release INTEGER NOT NULL,
    render_digest TEXT NOT NULL,
    inputs TEXT NOT NULL,
    policy TEXT NOT NULL,
    applied_release INTEGER NOT NULL,
    applied_revision TEXT NOT NULL,
    applied_digest TEXT NOT NULL,
    applied_at TEXT NOT NULL,
    PRIMARY KEY (cluster, app)
);

CREATE TABLE pause (
    id INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    cluster TEXT NOT NULL,
    app TEXT NOT NULL,
    environment TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at TEXT NOT NULL,
    until TEXT NOT NULL
);

CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    cluster TEXT NOT NULL,
    app TEXT NOT NULL,
    object TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    actor TEXT NOT NULL,
    revision TEXT NOT NULL
);
CREATE INDEX event_by_target ON event (cluster, app, seq);

CREATE TABLE token (
    name TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL,
    environments TEXT NOT NULL,
    created_at TEXT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    used_at TEXT NOT NULL,
    revoked_at TEXT NOT NULL
);
