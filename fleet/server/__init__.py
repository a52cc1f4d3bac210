"""HTTP in: probes, metrics, `/api/v1`, its description and the status page, over `fleet.hub.view.Hub`.

Who may ask and how answers look is decided here; what is true and what happens is the hub's.
Nothing here knows Kubernetes or Git.
"""
