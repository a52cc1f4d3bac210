"""The running process: inventory and Git in, sessions with clusters out, one board that says what is.

`app` wires, `supervisor` keeps wanted and running equal, `feed` turns commits into desired releases, `session` holds one
cluster, `board` is what everybody reads. Decisions live in `reconcile`; HTTP lives in `server`.
"""
