CREATE TABLE approval (
    cluster TEXT NOT NULL,
    app TEXT NOT NULL,
    digest TEXT NOT NULL,
    objects TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (cluster, app, digest)
);
