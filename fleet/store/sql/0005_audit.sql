CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    act INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    cluster TEXT NOT NULL,
    app TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    was TEXT NOT NULL,
    becomes TEXT NOT NULL,
    result TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX audit_by_act ON audit (act);

CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_keeps_values BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_replaces_nothing BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TABLE checkup (
    cluster TEXT NOT NULL,
    app TEXT NOT NULL,
    due_at TEXT NOT NULL,
    PRIMARY KEY (cluster, app)
);
