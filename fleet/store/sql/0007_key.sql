CREATE TABLE master_key (
    id TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    salt BLOB NOT NULL,
    verifier BLOB NOT NULL,
    created_at TEXT NOT NULL
);

CREATE TABLE seal_key (
    cluster TEXT NOT NULL CHECK (cluster <> ''),
    kid TEXT NOT NULL CHECK (length(kid) = 20),
    uid TEXT NOT NULL,
    algorithm TEXT NOT NULL CHECK (algorithm IN ('x25519', 'rsa4096', 'age')),
    public BLOB NOT NULL,
    age_public BLOB NOT NULL,
    private BLOB,
    master TEXT NOT NULL REFERENCES master_key (id) DEFERRABLE INITIALLY DEFERRED,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'retiring', 'retired', 'destroyed', 'compromised')),
    origin TEXT NOT NULL CHECK (origin IN ('made', 'imported')),
    created_at TEXT NOT NULL,
    renew_at TEXT NOT NULL,
    changed_at TEXT NOT NULL,
    backed_up_at TEXT NOT NULL,
    reason TEXT NOT NULL,
    replaced_by TEXT NOT NULL,
    PRIMARY KEY (cluster, kid),
    CHECK (state <> 'destroyed' OR private IS NULL),
    CHECK (private IS NOT NULL OR state IN ('destroyed', 'compromised'))
);
CREATE UNIQUE INDEX seal_key_one_active ON seal_key (cluster, algorithm) WHERE state = 'active';

CREATE TRIGGER seal_key_lives_forward BEFORE UPDATE OF state ON seal_key
WHEN OLD.state <> NEW.state AND NOT (
    NEW.state = 'compromised'
    OR (OLD.state = 'pending' AND NEW.state IN ('active', 'retiring', 'retired'))
    OR (OLD.state = 'active' AND NEW.state = 'retiring')
    OR (OLD.state = 'retiring' AND NEW.state = 'retired')
    OR (OLD.state = 'retired' AND NEW.state IN ('retiring', 'destroyed'))
    OR (OLD.state = 'compromised' AND NEW.state = 'destroyed')
)
BEGIN
    SELECT RAISE(ABORT, 'a sealing key does not go back to an earlier state');
END;

CREATE TRIGGER seal_key_is_backed_up BEFORE UPDATE OF state ON seal_key
WHEN NEW.state = 'active' AND NEW.backed_up_at = ''
BEGIN
    SELECT RAISE(ABORT, 'a sealing key is used only when a confirmed backup holds it');
END;

CREATE TABLE signing_key (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    public BLOB NOT NULL,
    private BLOB NOT NULL,
    master TEXT NOT NULL REFERENCES master_key (id) DEFERRABLE INITIALLY DEFERRED,
    created_at TEXT NOT NULL
);

CREATE TABLE key_backup (
    digest TEXT PRIMARY KEY,
    made_at TEXT NOT NULL,
    confirmed_at TEXT NOT NULL,
    place TEXT NOT NULL,
    holds TEXT NOT NULL
);

CREATE TABLE seal_usage (
    repository TEXT NOT NULL,
    app TEXT NOT NULL,
    revision TEXT NOT NULL,
    cluster TEXT NOT NULL,
    kid TEXT NOT NULL,
    path TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    item TEXT NOT NULL,
    PRIMARY KEY (repository, app, cluster, kid, path, namespace, name, item)
);
CREATE INDEX seal_usage_by_kid ON seal_usage (kid);
