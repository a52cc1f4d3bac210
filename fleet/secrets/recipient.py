"""For whom a value is sealed, worked out from public keys alone; and how a sealed document stands by them. Pure."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fleet.errors import SealError
from fleet.secrets.bundle import Bundle
from fleet.secrets.document import AGE_PREFIX, Audience, Sealed
from fleet.secrets.key import Algorithm, KeyState, PublicKey
from fleet.secrets.native import BreakGlass, Recipient

_OPENING: Final = (KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One recipient of a document, or one that it lacks."""

    cluster: str
    """A cluster, or `break-glass`."""
    kid: str
    """Empty for a cluster that is none of the recipients."""
    state: str
    """The state of its key; `unknown` where the list of keys has none of that name, `missing` for no recipient."""
    items: Sequence[str]
    """What it can open."""

    @property
    def stale(self) -> bool:
        """Tell whether something is to be done."""
        return self.state not in (KeyState.ACTIVE, "break-glass")


def choose_recipients(bundle: Bundle, wanted: Sequence[str]) -> tuple[list[PublicKey], Audience]:
    """Return the keys and the audience of `environment=NAME`, `cluster=NAME`, ...

    One cluster is an audience of its own; several, or an environment, are that environment; of several environments
    there is no audience but the recipients.
    Raises: SealError NotARecipient naming what has no key, with the nearest name that does.
    """
    keys: dict[str, PublicKey] = {}
    for each in wanted:
        kind, _, name = each.partition("=")
        if kind not in ("environment", "cluster") or not name:
            raise SealError(f"write environment=NAME or cluster=NAME, not {each!r}", reason="NotARecipient")
        keys |= {key.kid: key for key in _offered(bundle, kind, name)}
    found = list(keys.values())
    environments = {key.environment for key in found}
    if len(wanted) == 1 and wanted[0].startswith("cluster="):
        return found, Audience(cluster=found[0].cluster)
    if len(environments) == 1 and "" not in environments:
        return found, Audience(environment=environments.pop())
    return found, Audience()


def _offered(bundle: Bundle, kind: str, name: str) -> list[PublicKey]:
    offered = bundle.offered()
    found = [key for key in offered if getattr(key, kind) == name]
    if not found:
        known = sorted({str(getattr(key, kind)) for key in offered})
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
        raise SealError(f"no key is offered for {kind} {name}; {hint}", reason="NotARecipient")
    return found


def renew_recipients(bundle: Bundle, document: Sealed) -> list[Recipient]:
    """Return who should be able to open a document today: its audience's keys, or those of the clusters it names.

    Its break-glass recipients stay. Raises: SealError NotARecipient.
    """
    audience = document.audience
    if audience.cluster:
        keys = _offered(bundle, "cluster", audience.cluster)
    elif audience.environment:
        keys = _offered(bundle, "environment", audience.environment)
    else:
        clusters = _name_clusters(bundle, document)
        keys = [key for key in bundle.offered() if key.cluster in clusters]
        if not keys:
            raise SealError("no cluster of the document has a key that is offered; say --for", reason="NotARecipient")
    return [*keys, *(BreakGlass(recipient=kid) for kid in list_break_glass(document))]


def list_break_glass(document: Sealed) -> list[str]:
    """Return the age recipients of a document."""
    return sorted({kid for key in document.keys.values() for kid in key.wraps if kid.startswith(AGE_PREFIX)})


def judge(bundle: Bundle, document: Sealed) -> list[Standing]:
    """Say how each recipient stands, and which clusters of the audience are none."""
    kids = sorted({kid for key in document.keys.values() for kid in key.wraps})
    rows = [_stand(bundle, document, kid) for kid in kids]
    held = {row.cluster for row in rows if row.state == KeyState.ACTIVE}
    opening = {row.cluster for row in rows if row.state in _OPENING}
    missing = [key.cluster for key in _expected(bundle, document) if key.cluster not in opening]
    lacking = [Standing(cluster=each, kid="", state="missing", items=()) for each in missing]
    # an old key beside the cluster's new one is no fault while all can be opened with the new one
    rows = [row for row in rows if not (row.cluster in held and row.state == KeyState.RETIRING)]
    return sorted([*rows, *lacking], key=lambda row: (row.cluster, row.kid))


def _stand(bundle: Bundle, document: Sealed, kid: str) -> Standing:
    items = [item for item, value in sorted(document.values.items()) if kid in document.keys[value.key_id].wraps]
    if kid.startswith(AGE_PREFIX):
        return Standing(cluster="break-glass", kid=kid, state="break-glass", items=items)
    key = bundle.find(kid)
    named = document.recipients.get(kid, "?")
    state = key.state.value if key else "unknown"
    opens = items if key is None or state in _OPENING else []
    return Standing(cluster=key.cluster if key else named, kid=kid, state=state, items=opens)


def _expected(bundle: Bundle, document: Sealed) -> Iterable[PublicKey]:
    audience = document.audience
    clusters = _name_clusters(bundle, document)
    for key in bundle.offered(Algorithm.X25519):
        if audience.environment:
            wanted = key.environment == audience.environment
        else:
            wanted = key.cluster == audience.cluster if audience.cluster else key.cluster in clusters
        if wanted:
            yield key


def _name_clusters(bundle: Bundle, document: Sealed) -> set[str]:
    """Return the clusters a document is sealed for, as the list of keys names them."""
    found = (bundle.find(kid) for key in document.keys.values() for kid in key.wraps)
    return {key.cluster for key in found if key is not None}


def refuse_compromised(bundle: Bundle, document: Sealed) -> None:
    """Refuse to spread values that somebody else may have read: a recipient's key is compromised.

    Raises: SealError CompromisedKey.
    """
    for row in judge(bundle, document):
        if row.state == KeyState.COMPROMISED:
            raise SealError(
                f"key {row.kid} of {row.cluster} is compromised, and whoever has it has read these values: change them at"
                " their source, and seal the new ones",
                reason="CompromisedKey",
            )
