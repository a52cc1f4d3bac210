"""One release of one app on its way through environments: what happens next, and why.

Everything a rollout does comes out of `decide`. Nothing here talks to a cluster, to Git or to the database.
"""
