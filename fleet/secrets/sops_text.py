"""A parsed file of SOPS: its leaves in order, its block, and how it is written with the leaves opened."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.secrets.sops_leaf import Leaf, Opened


@dataclass(frozen=True, slots=True, kw_only=True)
class SopsFile:
    """What every format parses to."""

    leaves: Sequence[Leaf]
    metadata: Mapping[str, Any] = field(repr=False)
    write: Callable[[Sequence[Opened | None]], bytes] = field(repr=False)
    """Return the file without SOPS's block, with each leaf replaced by what is given for it (None: left as it is)."""
