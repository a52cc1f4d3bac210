"""Finds what must not be in Git, or not like this: Secrets in the clear, and sealed files whose recipients are stale. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fleet.document import Document, Path, format_path
from fleet.errors import Problem, SealError
from fleet.secrets.bundle import Bundle
from fleet.secrets.document import is_sealed, parse_sealed
from fleet.secrets.recipient import judge
from fleet.secrets.source import has_values

PLAIN: Final = "PlainSecret"
STALE: Final = "StaleRecipients"
_HOWTO: Final = "change it at its source if it was ever pushed, then seal it: fleet seal FILE --for environment=NAME"


def find_faults(document: Document, bundle: Bundle | None, is_encrypted: Callable[[str], bool]) -> Iterator[Problem]:
    """Yield what is wrong with one document; no message holds a value.

    Without a list of keys recipients are not judged. `is_encrypted` tells of a file, by its path beside the document's,
    whether SOPS encrypted it (also where there is no such file).
    """
    for value, path in _unfold(document.value, ()):
        if has_values(value):
            yield _plain(document, path, value)
        elif is_sealed(value):
            yield from _judge(document, path, value, bundle)
        elif _is_kustomization(value, document.file):
            yield from _judge_generators(document, value, is_encrypted)


def _unfold(value: Any, path: Path) -> Iterator[tuple[Any, Path]]:
    """Yield a document, or the objects of a `List`."""
    yield value, path
    items = value.get("items") if isinstance(value, Mapping) and str(value.get("kind", "")).endswith("List") else None
    for number, item in enumerate(items if isinstance(items, list) else []):
        yield item, (*path, "items", number)


def _plain(document: Document, path: Path, value: Mapping[str, Any]) -> Problem:
    held = next(name for name in ("stringData", "data") if has_values({**_bare(value), name: value.get(name)}))
    item = next(iter(value[held]))
    return _problem(document, (*path, held, item), f"{PLAIN}: this value is in the clear; {_HOWTO}")


def _bare(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": value["apiVersion"], "kind": value["kind"]}


def _judge(document: Document, path: Path, value: Mapping[str, Any], bundle: Bundle | None) -> Iterator[Problem]:
    try:
        sealed = parse_sealed(value)
    except SealError as error:
        yield _problem(document, (*path, "spec"), f"{error.reason}: {error.message}")
        return
    for row in judge(bundle, sealed) if bundle is not None else ():
        if row.stale:
            what = (
                f"cluster {row.cluster} cannot open it"
                if row.state == "missing"
                else f"its key {row.kid} is {row.state}"
            )
            where = (*path, "spec", "recipients") if not row.kid else (*path, "spec", "recipients", row.kid)
            yield _problem(document, where, f"{STALE}: {what}; fleet seal rewrap {document.file} brings it up to date")


def _is_kustomization(value: Any, file: str) -> bool:
    named = file.rpartition("/")[2] in ("kustomization.yaml", "kustomization.yml", "Kustomization")
    return isinstance(value, Mapping) and (named or value.get("kind") in ("Kustomization", "Component"))


def _judge_generators(
    document: Document, value: Mapping[str, Any], is_encrypted: Callable[[str], bool]
) -> Iterator[Problem]:
    generators = value.get("secretGenerator")
    for number, generator in enumerate(generators if isinstance(generators, list) else []):
        for name in ("literals", "files", "envs"):
            entries = generator.get(name) if isinstance(generator, Mapping) else None
            for at, entry in enumerate(entries if isinstance(entries, list) else []):
                if name == "literals" or not is_encrypted(str(entry).rpartition("=")[2]):
                    where = ("secretGenerator", number, name, at)
                    yield _problem(
                        document, where, f"{PLAIN}: a value in the clear; encrypt it in a file with sops for age"
                    )


def _problem(document: Document, path: Path, message: str) -> Problem:
    line, column = document.position(path, key=True)
    return Problem(document.file, line, column, format_path(path), message)
