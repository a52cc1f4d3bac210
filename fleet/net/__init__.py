"""Ways to open a byte stream to somebody else, and HTTP over it.

Knows addresses, TLS and deadlines; knows nothing of Kubernetes or Git.
"""
