CREATE TABLE takeover (
    cluster TEXT NOT NULL,
    hub TEXT NOT NULL,
    pending INTEGER NOT NULL,
    PRIMARY KEY (cluster, hub)
);

CREATE TABLE drain (
    cluster TEXT NOT NULL,
    app TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (cluster, app)
);
