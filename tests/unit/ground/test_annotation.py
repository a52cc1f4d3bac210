"""What annotations ask for, under fleet's, Flux's and Argo CD's names."""

import pytest

from fleet.annotation import parse_flags
from fleet.object import Adopt, Apply, Flags

FLUX = "kustomize.toolkit.fluxcd.io"
ARGO = "argocd.argoproj.io"


@pytest.mark.parametrize(
    ("annotations", "flags"),
    [
        ({}, Flags()),
        ({"unrelated": "disabled"}, Flags()),
        ({"fleet/reconcile": "disabled"}, Flags(reconcile=False)),
        ({f"{FLUX}/reconcile": "disabled"}, Flags(reconcile=False)),
        ({"fleet/reconcile": "enabled", f"{FLUX}/reconcile": "disabled"}, Flags()),
        ({"fleet/reconcile": "Disabled"}, Flags()),
        ({"fleet/reconcile": ""}, Flags()),
        ({"fleet/prune": "disabled"}, Flags(prune=False)),
        ({f"{FLUX}/prune": "disabled"}, Flags(prune=False)),
        ({f"{ARGO}/sync-options": "Prune=false"}, Flags(prune=False)),
        ({f"{ARGO}/sync-options": "ServerSideApply=true, Prune=false"}, Flags(prune=False)),
        ({f"{ARGO}/sync-options": "Prune=true"}, Flags()),
        ({"fleet/ssa": "merge"}, Flags(apply=Apply.MERGE)),
        ({f"{FLUX}/ssa": "Merge"}, Flags(apply=Apply.MERGE)),
        ({"fleet/ssa": "if-not-present"}, Flags(apply=Apply.IF_NOT_PRESENT)),
        ({f"{FLUX}/ssa": "IfNotPresent"}, Flags(apply=Apply.IF_NOT_PRESENT)),
        ({f"{FLUX}/ssa": "Override"}, Flags()),
        ({f"{FLUX}/ssa": "Ignore"}, Flags(reconcile=False)),
        ({"fleet/ssa": "nonsense"}, Flags()),
        ({"fleet/force": "enabled"}, Flags(force=True)),
        ({f"{FLUX}/force": "enabled"}, Flags(force=True)),
        ({"fleet/force": "true"}, Flags()),
        ({"fleet/substitute": "disabled"}, Flags(substitute=False)),
        ({f"{FLUX}/substitute": "disabled"}, Flags(substitute=False)),
        *(({"fleet/adopt": adopt.value}, Flags(adopt=adopt)) for adopt in Adopt),
        ({"fleet/adopt": "nonsense"}, Flags()),
        ({f"{ARGO}/sync-wave": "-5"}, Flags(wave=-5)),
        ({f"{ARGO}/sync-wave": " 7 "}, Flags(wave=7)),
        ({f"{ARGO}/sync-wave": "first"}, Flags()),
        ({f"{ARGO}/hook": "PreSync"}, Flags(hook=f"{ARGO}/hook: PreSync")),
        ({"helm.sh/hook": "test"}, Flags(hook="helm.sh/hook: test")),
    ],
)
def test_table(annotations: dict[str, str], flags: Flags) -> None:
    """Each annotation sets its flag; fleet's own name wins; what is not understood asks for nothing."""
    assert parse_flags(annotations) == flags


@pytest.mark.parametrize("text", ["9" * 5000, "1_000", "٣", "0x10", "1e3", "2147483648"])
def test_waves_are_plain_small_numbers(text: str) -> None:
    """A wave that Argo CD would not read is none here."""
    assert parse_flags({f"{ARGO}/sync-wave": text}) == Flags()
