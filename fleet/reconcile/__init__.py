"""One target: desired manifests, the ledger and the live cache in; the changes that make them equal out.

`plan`, `order`, `drift`, `prune`, `ignore`, `status` and `health` are pure. `target` is the one page that runs them in
order; `carry` does the requests. Nothing here knows Git, HTTP servers or the inventory's files.
"""
