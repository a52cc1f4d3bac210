"""Files at a revision become manifests: plain YAML, Kustomize, substitution, normalisation, a cache by what was read.

Untrusted bytes are read only in `worker`, which runs in child processes; `renderer` is the hub's side. What is done
with manifests (labels, order, apply) lives in `reconcile`; fetching the revision in `git`.
"""
