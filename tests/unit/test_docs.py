"""The checks of the documentation find what is wrong, and nothing is wrong with ours."""

from collections.abc import Iterable
from pathlib import Path

import click
import pytest

from tools.docs import (
    ROOT,
    Fault,
    check_all,
    check_commands,
    check_links,
    check_reachable,
    check_reasons,
    check_snippets,
    find_anchors,
    find_reasons,
)


def messages(faults: Iterable[Fault]) -> list[str]:
    """Return line and message of each fault."""
    return [f"{fault.line}: {fault.message}" for fault in faults]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page to be written."""
    return tmp_path / "page.md"


@pytest.fixture
def program() -> click.Group:
    """A command line with one command and one group."""
    sub = click.Group("token", commands={"create": click.Command("create", params=[click.Option(["--role"])])})
    return click.Group(
        "fleet", commands={"run": click.Command("run", params=[click.Option(["-o", "--output"])]), "token": sub}
    )


def test_our_documentation_is_right() -> None:
    """Links, commands, snippets, reasons and generated pages of this checkout hold."""
    assert [str(fault) for fault in check_all(ROOT)] == []


def test_links_lead_somewhere(page: Path) -> None:
    """A missing file and a missing heading are found; addresses and code are passed over."""
    page.write_text(
        "# A *title*, here\n[a](page.md#a-title-here) [b](gone.md)\n[c](#nowhere) [d](https://example.com/x)\n`[e](gone)`\n"
    )
    assert messages(check_links(page)) == [
        "2: the link gone.md leads nowhere",
        "3: there is no heading #nowhere in page.md",
    ]


def test_anchors_are_as_github_makes_them() -> None:
    """Punctuation goes, spaces become hyphens, and comments in code are no headings."""
    assert find_anchors("## How-to: `fleet run`\n```sh\n# not one\n```\n") == {"how-to-fleet-run"}


def test_orphans_are_found(tmp_path: Path) -> None:
    """A page that no chain of links from the index reaches is named."""
    index, middle, last, orphan = (tmp_path / name for name in ("README.md", "middle.md", "last.md", "orphan.md"))
    index.write_text("[m](middle.md)")
    middle.write_text("[l](last.md#top)")
    last.write_text("")
    orphan.write_text("[i](README.md)")
    assert [fault.file for fault in check_reachable([index, middle, last, orphan], index)] == [orphan]


def test_inventory_snippets_are_read_as_inventory(page: Path) -> None:
    """A wrong field is named at its line of the page."""
    page.write_text(
        "text\n\n```yaml\napiVersion: fleet/v1\nkind: Environment\nmetadata:\n  name: dev\nspec:\n  afetr: [x]\n```\n"
    )
    assert messages(check_snippets(page)) == ["9: spec.afetr: no such field; did you mean after?"]


def test_other_snippets_must_be_yaml(page: Path) -> None:
    """Kubernetes manifests are only parsed."""
    page.write_text("```yaml\napiVersion: v1\nkind: [\n```\n\n```yaml\nkind: Pod\n```\n")
    assert len(list(check_snippets(page))) == 1


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("    fleet run -o json | head", None),
        ("    FLEET_X=1 fleet token create ada --role admin", None),
        ("    fleet rnu", "there is no command rnu"),
        ("    fleet run --outputs x", "there is no option --outputs"),
        ("    fleet token create ada --rule x  # why", "there is no option --rule"),
        ("see `fleet token make`", "there is no command make"),
        ("    make test ARGS=x", None),
        ("    make tset", "there is no `make tset`"),
    ],
)
def test_command_lines_name_what_exists(page: Path, program: click.Group, line: str, complaint: str | None) -> None:
    """Commands, sub-commands, options and make targets are looked up, in blocks and in spans."""
    page.write_text(f"text\n\n{line}\n")
    found = [fault.message for fault in check_commands(page, program, {"test"})]
    assert found == [] if complaint is None else found[0].endswith(complaint)


def test_reasons_are_explained(tmp_path: Path) -> None:
    """A reason of the code that the page lacks is named with its place, and one that the code lacks as well."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text(
        'class E:\n    default_reason = "Base"\nraise E("x", reason="Given" if y else "Other")\nchange(a, "Planned")\n'
    )
    page = tmp_path / "reasons.md"
    page.write_text("| `Base`, `Given`, `Other` | x |\n| `Stranger` | y |\n")
    assert set(find_reasons(package)) == {"Base", "Given", "Other", "Planned"}
    assert messages(check_reasons(page, package)) == [
        "0: Planned is not explained (a.py:4)",
        "0: Stranger is explained, but the code does not give it",
    ]
