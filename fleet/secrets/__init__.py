"""Sealing keys and sealed documents: what opens a secret on its way to the cluster it was sealed for.

Formats are pure: bytes and keys in, bytes out. Nothing here talks to a cluster or to Git, and no plaintext stays.
"""
