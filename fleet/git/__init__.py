"""One Git remote: polled, fetched into a bare clone of our own, read by commit and path.

Lives here: choosing a revision, talking to remotes, reading trees. Does not live here: what files mean, and which app
wants them. libgit2 runs in worker processes only (`library`, `tree`, `worker`); the hub's side never imports it.
"""
