"""One API server: credentials, requests, watches, server-side apply, ownership.

Knows Kubernetes' wire and its rules; knows nothing of Git, apps or what should be written.
"""
