"""fleet: GitOps for every Kubernetes cluster you run, from one process."""

__version__ = "0.1.0"
