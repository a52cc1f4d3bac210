"""The documents of `clusters.d`: Repository, Environment, App and Cluster.

Field names in files are camelCase. A field's description is its reference text (`fleet schema`). Fields accept what has
an effect and nothing else: a key that does nothing is refused.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from pydantic.alias_generators import to_camel

from fleet.document import Document, Path, format_path
from fleet.errors import Problem
from fleet.inventory.field import (
    CommitSha,
    FilePath,
    GitName,
    GitUrl,
    HttpUrl,
    InlineText,
    JsonPointer,
    LabelKey,
    LabelValue,
    Name,
    Seconds,
    ServiceAccount,
    TreePath,
    Variables,
    VersionRange,
    is_plain_beyond_loopback,
)
from fleet.inventory.rollout import AppRollout, Rules
from fleet.object import Adopt, Origin

API_VERSION = "fleet/v1"


class Model(BaseModel):
    """A part of a document: immutable, without unknown fields, silent about values in its errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, alias_generator=to_camel
    )


def _given(model: Model, *names: str) -> list[str]:
    """Return those of `names` that are set, as files spell them."""
    return [to_camel(name) for name in names if getattr(model, name)]


def _require_one(model: Model, *names: str) -> None:
    given = _given(model, *names)
    if len(given) != 1:
        wanted = ", ".join(map(to_camel, names))
        raise ValueError(f"needs exactly one of {wanted}" + (f"; {' and '.join(given)} are given" if given else ""))


class Requirement(Model):
    """One condition of `matchExpressions`."""

    key: LabelKey = Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How `values` are compared.")
    values: tuple[LabelValue, ...] = Field(default=(), description="Label values, for In and NotIn.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.values) != (self.operator in ("In", "NotIn")):
            raise ValueError("In and NotIn need values; Exists and DoesNotExist take none")
        return self


class Selector(Model):
    """A Kubernetes label selector; an empty one matches every cluster."""

    match_labels: dict[LabelKey, LabelValue] = Field(default={}, description="Labels that must have these values.")
    match_expressions: tuple[Requirement, ...] = Field(default=(), description="Conditions that must all hold.")

    def matches(self, labels: dict[str, str]) -> bool:
        """Tell whether all conditions hold."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            _holds(requirement, labels) for requirement in self.match_expressions
        )


def _holds(requirement: Requirement, labels: dict[str, str]) -> bool:
    match requirement.operator:
        case "In":
            return labels.get(requirement.key) in requirement.values
        case "NotIn":
            return labels.get(requirement.key) not in requirement.values
        case "Exists":
            return requirement.key in labels
        case "DoesNotExist":
            return requirement.key not in labels


class Metadata(Model):
    """Name and labels, as in Kubernetes."""

    name: Name = Field(description="Unique among the documents of its kind.")
    labels: dict[LabelKey, LabelValue] = Field(default={}, description="What `clusterSelector` selects by.")
    annotations: dict[str, str] = Field(default={}, description="Notes; fleet reads none of them.")


class Entry(Model):
    """What every document has. Equal documents are equal wherever they stand."""

    api_version: Literal["fleet/v1"]
    kind: str
    metadata: Metadata
    _source: Document | None = PrivateAttr(default=None)

    def place(self, source: Document) -> Self:
        """Return the entry that remembers which lines it was read from."""
        self._source = source
        return self

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def labels(self) -> dict[str, str]:
        """`metadata.labels`."""
        return self.metadata.labels

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name: the identity of a document."""
        return self.kind, self.metadata.name

    @property
    def origin(self) -> Origin:
        """File and line."""
        return Origin(self._source.file, self._source.line) if self._source else Origin("", 0)

    def problem(self, path: Path, message: str) -> Problem:
        """Return a problem at a field of this document."""
        if self._source is None:
            return Problem("", 0, 0, format_path(path), message)
        return Problem(self._source.file, *self._source.position(path), format_path(path), message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(self.key)


class Ref(Model):
    """What to follow: exactly one of the four."""

    branch: GitName | None = Field(default=None, description="A branch; its newest commit is deployed.")
    tag: GitName | None = Field(default=None, description="A tag.")
    semver: VersionRange | None = Field(
        default=None, description="The highest tag in a version range, such as `>=1.2 <2`."
    )
    commit: CommitSha | None = Field(default=None, description="A commit, by its full sha.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_one(self, "branch", "tag", "semver", "commit")
        return self


class Auth(Model):
    """Credentials, always by file: the inventory itself holds no secret."""

    username: str | None = Field(default=None, description="User for basic authentication.")
    password_file: FilePath | None = Field(default=None, description="File with the password of `username`.")
    token_file: FilePath | None = Field(
        default=None, description="File with a bearer token; read again when it changes."
    )
    ca_file: FilePath | None = Field(default=None, description="PEM certificates to trust instead of the system's.")
    ssh_key_file: FilePath | None = Field(default=None, description="Private key for an ssh URL (not supported yet).")
    known_hosts_file: FilePath | None = Field(default=None, description="Host keys for an ssh URL (not supported yet).")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and passwordFile belong together")
        if self.username is not None and self.token_file is not None:
            raise ValueError("needs either username and passwordFile or tokenFile, not both")
        if (self.ssh_key_file is None) != (self.known_hosts_file is None):
            raise ValueError("sshKeyFile and knownHostsFile belong together: an unknown host is never trusted")
        return self


class RepositorySpec(Model):
    """A Git remote, fetched once however many apps read it."""

    url: GitUrl = Field(description="https, http or file URL, or a path, relative to the file that names it.")
    ref: Ref = Field(default=Ref.model_construct(branch="main"), description="What to follow; branch main by default.")
    interval: Annotated[Seconds, Field(ge=1.0)] = Field(
        default=30.0, description="Time between polls; at least 1s.", json_schema_extra={"default": "30s"}
    )
    auth: Auth | None = Field(default=None, description="Credentials.")
    allow_rewrites: bool = Field(default=False, description="Follow a branch whose history was rewritten.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.auth is not None and self.auth.ssh_key_file is not None:
            raise ValueError("auth.sshKeyFile needs an ssh URL, and ssh is not supported yet; use tokenFile over https")
        return self


class EnvironmentSpec(Model):
    """A named stage that holds clusters."""

    after: tuple[Name, ...] = Field(default=(), description="Environments that come before this one.")
    variables: Variables = Field(default={}, description="Variables of every cluster in it.")
    rollout: Rules | None = Field(
        default=None, description="How its clusters follow a release; all at once, behind `after`, if absent."
    )


class Targets(Model):
    """Which clusters get an app: those for which everything given holds. At least one must be given."""

    environments: tuple[Name, ...] = Field(default=(), description="Clusters in one of these environments.")
    clusters: tuple[Name, ...] = Field(default=(), description="Clusters with one of these names.")
    cluster_selector: Selector | None = Field(
        default=None, description="Clusters with these labels; `{}` is every cluster."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.environments and not self.clusters and self.cluster_selector is None:
            raise ValueError(
                "selects nothing: give environments, clusters or clusterSelector ({} selects every cluster)"
            )
        return self


class Override(Model):
    """Other variables or another path on some clusters; later overrides win."""

    environment: Name | None = Field(default=None, description="Applies to the clusters of this environment.")
    cluster: Name | None = Field(default=None, description="Applies to this cluster.")
    cluster_selector: Selector | None = Field(default=None, description="Applies to clusters with these labels.")
    variables: Variables = Field(default={}, description="Variables, stronger than any others.")
    path: TreePath | None = Field(default=None, description="Path in place of the app's.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        conditions = (self.environment, self.cluster, self.cluster_selector)
        if sum(condition is not None for condition in conditions) != 1:
            raise ValueError("needs exactly one of environment, cluster, clusterSelector")
        if not self.variables and self.path is None:
            raise ValueError("changes nothing: give variables or path")
        return self


class Dependency(Model):
    """Another app that must be in place on the same cluster first."""

    app: Name = Field(description="Name of the app.")


class Ignore(Model):
    """Fields that others may change: not drift."""

    group: str | None = Field(default=None, description='API group; any if absent, `""` is the core group.')
    kind: str = Field(description="Kind.")
    name: str | None = Field(default=None, description="Object name; any if absent.")
    namespace: str | None = Field(default=None, description="Namespace; any if absent.")
    paths: Annotated[tuple[JsonPointer, ...], Field(min_length=1)] = Field(
        description="JSON pointers, such as /spec/replicas."
    )


class Impersonate(Model):
    """Whose rights fleet uses: exactly one of serviceAccount and user."""

    service_account: ServiceAccount | None = Field(default=None, description="NAMESPACE:NAME of a service account.")
    user: str | None = Field(default=None, description="User name.")
    groups: tuple[str, ...] = Field(default=(), description="Groups of `user`.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_one(self, "service_account", "user")
        if self.groups and self.user is None:
            raise ValueError("groups need user")
        return self

    @property
    def username(self) -> str:
        """The value of `Impersonate-User`."""
        return f"system:serviceaccount:{self.service_account}" if self.service_account else self.user or ""


class Allow(Model):
    """What an app may contain; anything else is refused before any call."""

    namespaces: tuple[str, ...] | None = Field(
        default=None, description="Namespaces, with * as a wildcard; any if absent."
    )
    cluster_scoped: bool = Field(default=False, description="Whether objects outside namespaces are allowed.")
    kinds: tuple[str, ...] | None = Field(
        default=None, description="Kinds such as `Deployment.apps` or `ConfigMap`; any if absent."
    )


class Paused(Model):
    """Stops writing; what is observed is still shown."""

    reason: Annotated[str, Field(min_length=1)] = Field(description="Shown wherever the app is shown.")
    until: AwareDatetime | None = Field(default=None, description="RFC 3339 time at which the pause ends by itself.")


class Decryption(Model):
    """Opens what is encrypted in the app's files; keys come from the hub's keyring."""

    provider: Literal["sops"] = Field(description="SOPS, with age keys: the cluster's own and imported ones.")


class AppSpec(Model):
    """A path in a repository, delivered to clusters."""

    repository: Name = Field(description="Name of a Repository.")
    path: TreePath = Field(
        description="Directory in the repository; `${environment}`, `${cluster}` and `${label:KEY}` are replaced."
    )
    targets: Targets = Field(description="Which clusters get it.")
    namespace: Name | None = Field(
        default=None, description="For namespaced objects that name none; `default` if absent. Never overrides."
    )
    create_namespace: bool = Field(default=False, description="Create `namespace` where it does not exist.")
    substitute: bool = Field(default=False, description="Replace `${VAR}` in manifests by `variables`.")
    variables: Variables = Field(default={}, description="Variables, weaker than those of environment and cluster.")
    overrides: tuple[Override, ...] = Field(default=(), description="Differences on some clusters.")
    depends_on: tuple[Dependency, ...] = Field(
        default=(), description="Apps that must be in place on the cluster first."
    )
    prune: bool = Field(default=True, description="Delete what is no longer in Git.")
    on_remove: Literal["prune", "orphan"] = Field(
        default="prune", description="What happens to the objects when this document goes."
    )
    adopt: Adopt = Field(default=Adopt.UNOWNED, description="What happens to objects that existed before.")
    drift: Literal["repair", "report"] = Field(default="repair", description="Whether drift is undone or only shown.")
    apply: Literal["auto", "report"] = Field(default="auto", description="Whether changes are applied or only shown.")
    drift_managers: tuple[str, ...] = Field(
        default=("kubectl*",), description="Field managers whose additions are undone, with * as a wildcard."
    )
    ignore: tuple[Ignore, ...] = Field(default=(), description="Fields that others may change.")
    impersonate: Impersonate | None = Field(
        default=None, description="Whose rights are used; stronger than the cluster's."
    )
    allow: Allow | None = Field(default=None, description="What the app may contain; anything if absent.")
    decryption: Decryption | None = Field(
        default=None, description="Open files encrypted with SOPS; refused by name if absent."
    )
    paused: Paused | None = Field(default=None, description="A pause that no command can end.")
    rollout: AppRollout | None = Field(
        default=None, description="What it wants otherwise than its environments, field by field."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.create_namespace and self.namespace is None:
            raise ValueError("createNamespace needs namespace")
        return self


class Kubeconfig(Model):
    """A kubeconfig by file or in place: exactly one of the two."""

    file: FilePath | None = Field(default=None, description="File; read again when it changes.")
    inline: InlineText | None = Field(default=None, description="The kubeconfig itself, as text or as a mapping.")
    context: str | None = Field(default=None, description="Context; the current one if absent.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_one(self, "file", "inline")
        return self


class Connection(Model):
    """How the API server is reached: exactly one of kubeconfig, server and inCluster."""

    kubeconfig: Kubeconfig | None = Field(default=None, description="A kubeconfig.")
    server: HttpUrl | None = Field(default=None, description="URL of the API server.")
    in_cluster: bool = Field(default=False, description="The cluster the hub runs in, with its service account.")
    ca_file: FilePath | None = Field(default=None, description="PEM certificates to trust, with `server`.")
    ca: str | None = Field(default=None, description="PEM certificates to trust, in place.")
    token_file: FilePath | None = Field(
        default=None, description="Bearer token, with `server`; read again when it changes."
    )
    client_cert_file: FilePath | None = Field(default=None, description="PEM client certificate, with `server`.")
    client_key_file: FilePath | None = Field(default=None, description="PEM private key of `clientCertFile`.")
    tls_server_name: str | None = Field(default=None, description="Name to expect in the server's certificate.")
    proxy_url: HttpUrl | None = Field(default=None, description="HTTP proxy on the way to the API server.")

    _with_server: ClassVar = ("ca_file", "ca", "token_file", "client_cert_file", "client_key_file")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_one(self, "kubeconfig", "server", "in_cluster")
        stray = _given(self, *self._with_server)
        if stray and self.server is None:
            raise ValueError(f"{', '.join(stray)}: only with server")
        if self.server and self.token_file and is_plain_beyond_loopback(self.server):
            raise ValueError("tokenFile: over http a token would go in clear; use https")
        if self.in_cluster and _given(self, "tls_server_name", "proxy_url"):
            raise ValueError("inCluster takes no other field")
        if self.ca_file and self.ca:
            raise ValueError("needs either caFile or ca, not both")
        if (self.client_cert_file is None) != (self.client_key_file is None):
            raise ValueError("clientCertFile and clientKeyFile belong together")
        return self


class Limits(Model):
    """Bounds on what fleet asks of one cluster."""

    parallel_applies: Annotated[int, Field(ge=1, le=256)] = Field(default=16, description="Requests in flight at most.")


class Secrets(Model):
    """What happens to sealed documents on their way to one cluster."""

    bitnami: Literal["open", "passthrough"] = Field(
        default="open",
        description="`passthrough` leaves `bitnami.com` SealedSecrets to a controller in the cluster.",
    )


class ClusterSpec(Model):
    """One Kubernetes API server."""

    environment: Name = Field(description="Environment that holds it.")
    connection: Connection = Field(description="How it is reached.")
    uid: str | None = Field(
        default=None, description="Expected uid of namespace kube-system; recorded at first contact if absent."
    )
    impersonate: Impersonate | None = Field(default=None, description="Whose rights are used for apps that name none.")
    variables: Variables = Field(default={}, description="Variables of this cluster.")
    limits: Limits = Field(default=Limits.model_construct(), description="Bounds on requests.")
    secrets: Secrets = Field(default=Secrets.model_construct(), description="What happens to sealed documents.")


class Repository(Entry):
    """A Git remote, fetched once however many apps read it."""

    kind: Literal["Repository"]
    spec: RepositorySpec


class Environment(Entry):
    """A named stage that holds clusters; ordered by `after`."""

    kind: Literal["Environment"]
    spec: EnvironmentSpec = EnvironmentSpec()


class App(Entry):
    """A path in a repository, delivered to clusters."""

    kind: Literal["App"]
    spec: AppSpec


class Cluster(Entry):
    """One Kubernetes API server."""

    kind: Literal["Cluster"]
    spec: ClusterSpec


KINDS: dict[str, type[Entry]] = {"Repository": Repository, "Environment": Environment, "App": App, "Cluster": Cluster}

NOT_YET: dict[tuple[str, str], str] = {
    ("App", "spec.decryption.secretRef"): "keys are not read from a cluster; import them with fleet keys import, and remove this field",
    ("Repository", "spec.verify"): "verifying signatures is not available yet; remove this field",
    ("Cluster", "spec.connection.bastion"): "bastions are not available yet; remove this field",
    ("Cluster", "spec.connection.tunnel"): "tunnels are not available yet; remove this field",
}  # fmt: skip
"""Fields that will exist; until then they are refused by name, since they would do nothing."""


def build_schema(kind: str | None = None) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one kind of document, or of all."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    if kind is not None:
        return dialect | KINDS[kind].model_json_schema()
    definitions: dict[str, Any] = {}
    for model in KINDS.values():
        schema = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.pop("$defs", {})
        definitions[model.__name__] = schema
    choices = [{"$ref": f"#/$defs/{name}"} for name in KINDS]
    return dialect | {"title": "fleet inventory", "oneOf": choices, "$defs": dict(sorted(definitions.items()))}
