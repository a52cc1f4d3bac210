# The hub as an image: `make image`. Runs as a user without rights, with a read-only root file system:
#   docker run --read-only --tmpfs /tmp -v fleet-data:/data -v ./clusters.d:/clusters.d:ro fleet
# docs/how-to/run-in-a-container.md says how to reach it. tests/integration/test_dockerfile.py runs the steps without Docker.

FROM golang:1.26 AS kustomize
WORKDIR /src/kustomize
COPY tools/envtest/kustomize ./
RUN CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w" -o /out/kustomize sigs.k8s.io/kustomize/kustomize/v5

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src/fleet
# Dependencies first: they change less often than fleet, and the layer stays.
COPY requirements/build.txt requirements/run.txt requirements/
RUN python -m venv /opt/build && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt
RUN python -m venv /opt/fleet && /opt/fleet/bin/pip install --require-hashes --only-binary :all: -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY clusters.d clusters.d
COPY fleet fleet
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist .
RUN /opt/fleet/bin/pip install --no-deps --no-index /dist/*.whl
# Read, but never written, by whoever the hub runs as; the empty directory becomes the data directory.
RUN mkdir -p /opt/data && chmod 0700 /opt/data

FROM python:3.11-slim
# Git is read through libgit2, which the wheel of pygit2 brings: no git binary is needed. Kustomize is.
COPY --from=kustomize /out/kustomize /usr/local/bin/kustomize
COPY --from=build /opt/fleet /opt/fleet
COPY --from=build --chown=65532:65532 /opt/data /data
ENV PATH=/opt/fleet/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 \
    FLEET_INVENTORY=/clusters.d FLEET_DATA=/data FLEET_PROBE_LISTEN=0.0.0.0:8421
USER 65532:65532
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8420 8421
# Liveness, not readiness: a hub that cannot read its inventory yet is not ill, and a restart would not help it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8421, timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["fleet"]
CMD ["run"]
