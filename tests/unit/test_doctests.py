"""Examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

import fleet

PACKAGE = Path(fleet.__file__).parent
FILES = [file.relative_to(PACKAGE.parent) for file in sorted(PACKAGE.rglob("*.py")) if ">>> " in file.read_text()]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_examples(file: Path) -> None:
    """What a module's docstrings show is what happens."""
    name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
