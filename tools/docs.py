"""Check the documentation against the code: `python tools/docs.py` prints every fault and ends with 1 if there is any.

Links lead somewhere; every page of `docs` is reached from its index; generated pages are what the code would write; `fleet`
and `make` command lines name commands, options and targets that exist; inventory snippets are right; every reason that the
code gives is explained.
"""

import ast
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, or imported by its test

from tools.reference import build_pages  # noqa: E402


class Fault(NamedTuple):
    """One thing that is wrong, and where; line 0 is the whole file."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        file = self.file.relative_to(ROOT) if self.file.is_relative_to(ROOT) else self.file
        return f"{file}:{self.line}: {self.message}" if self.line else f"{file}: {self.message}"


class Block(NamedTuple):
    """One fenced or indented block of code. `language` is empty where none is given; `line` is its first line."""

    language: str
    line: int
    text: str


def find_pages(root: Path) -> list[Path]:
    """List the Markdown files that people read."""
    return [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]


# --- reading Markdown ---


def read_blocks(text: str) -> Iterator[Block]:
    """Yield the code blocks of a page: fenced ones, and those indented by four spaces after a blank line."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        start, line = number, lines[number]
        number += 1
        if fence := re.match(r"( *)```(\w*)", line):
            while number < len(lines) and not lines[number].strip().startswith("```"):
                number += 1
            body = [each.removeprefix(fence[1]) for each in lines[start + 1 : number]]
            number += 1
            yield Block(fence[2], start + 2, "\n".join(body))
        elif line.startswith("    ") and start > 0 and not lines[start - 1].strip():
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            yield Block("", start + 1, "\n".join(each.removeprefix("    ") for each in lines[start:number]))


def blank_code(text: str) -> str:
    """Return a page with the content of fenced blocks and code spans blanked, lines kept."""
    fenced = re.sub(
        r"^ *```.*?^ *```", lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.MULTILINE | re.DOTALL
    )
    return re.sub(r"`[^`\n]+`", lambda found: " " * len(found[0]), fenced)


def find_anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ +(.+)$", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


# --- checks ---


def check_links(page: Path) -> Iterator[Fault]:
    """Every relative link names a file, and its anchor a heading of that file."""
    text = blank_code(page.read_text())
    for number, line in enumerate(text.splitlines(), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists():
                yield Fault(page, number, f"the link {target} leads nowhere")
            elif anchor and file.suffix == ".md" and anchor not in find_anchors(file.read_text()):
                yield Fault(page, number, f"there is no heading #{anchor} in {path or page.name}")


def check_reachable(pages: Iterable[Path], index: Path) -> Iterator[Fault]:
    """Every page below the index's directory is linked from the index or from a page that is."""
    wanted = {page for page in pages if page.is_relative_to(index.parent)}
    reached: set[Path] = set()
    waiting = [index]
    while waiting:
        page = waiting.pop()
        if page in reached or page not in wanted:
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)\s#]+)", blank_code(page.read_text()))
        waiting += [(page.parent / link).resolve() for link in links if not re.match(r"[a-z]+:", link)]
    for page in sorted(wanted - reached):
        yield Fault(page, 0, f"is not reached from {index.name}")


def check_generated(directory: Path) -> Iterator[Fault]:
    """Generated pages are what the code would write now."""
    for page, text in build_pages(directory).items():
        if not page.exists() or page.read_text() != text:
            yield Fault(page, 0, "is not what the code says; run `make docs`")


def check_snippets(page: Path) -> Iterator[Fault]:
    """YAML snippets can be read; those of the inventory are right."""
    from fleet.document import parse_documents
    from fleet.inventory.parse import parse_file

    for block in read_blocks(page.read_text()):
        if block.language not in ("yaml", "yml"):
            continue
        data = block.text.encode()
        # sealed documents stand in repositories, not in the inventory
        ours = "apiVersion: fleet/" in block.text and not re.search("^kind: Seal", block.text, re.MULTILINE)
        problems = parse_file(data, "snippet")[1] if ours else parse_documents(data, "")[1]
        for problem in problems:
            yield Fault(page, block.line + max(problem.line - 1, 0), f"{problem.field}: {problem.message}".strip(": "))


def find_command_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, command line) of every shell line and code span that starts with `fleet` or `make`."""
    for block in read_blocks(text):
        joined = re.sub(r" *\\\n *", lambda _: " ", block.text)
        for offset, line in enumerate(joined.splitlines()):
            command = re.sub(r"^(\$ +)?([A-Z_]+=\S+ +)*", "", line.strip())
            if command.startswith(("fleet ", "make ")):
                yield block.line + offset, command
    outside = re.sub(r"^ *```.*?^ *```", lambda f: "\n" * f[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    for number, line in enumerate(outside.splitlines(), 1):
        for span in re.findall(r"`((?:fleet|make) [^`]+)`", line):
            yield number, span


def check_commands(page: Path, group: click.Group, targets: set[str]) -> Iterator[Fault]:
    """Command lines name what exists."""
    for number, line in find_command_lines(page.read_text()):
        words = split_command(line)
        if words[0] == "make":
            for word in words[1:]:
                if "=" not in word and word not in targets:
                    yield Fault(page, number, f"there is no `make {word}`")
        elif complaint := explain_command(group, words[1:]):
            yield Fault(page, number, f"`{line}`: {complaint}")


def split_command(line: str) -> list[str]:
    """Split a line as a shell does, up to a pipe, a redirection or a comment."""
    words = shlex.split(re.sub(r"\$\([^)]*\)", "OUTPUT", line), comments=True)
    stop = next((i for i, word in enumerate(words) if word in ("|", "||", "&&", ">", ">>", ";", "&")), len(words))
    return words[:stop]


def explain_command(command: click.Command, words: list[str]) -> str:
    """Say what is wrong with a command line; empty for nothing."""
    context = click.Context(command)
    for index, word in enumerate(words):
        if word.startswith("[") or word == "COMMAND":  # placeholders of a usage line
            continue
        if isinstance(command, click.Group) and not word.startswith("-"):
            found = command.get_command(context, word)
            return explain_command(found, words[index + 1 :]) if found else f"there is no command {word}"
        if word.startswith("-") and word.strip("-"):
            known = {
                each
                for parameter in command.get_params(context)
                for each in (*parameter.opts, *parameter.secondary_opts)
            }
            name = word.partition("=")[0]
            if name not in known:
                return f"there is no option {name}"
    return ""


def find_reasons(package: Path, skipped: Iterable[str] = ("sim", "cli")) -> dict[str, tuple[Path, int]]:
    """Return every reason that the code gives, with one place: `reason="X"`, `default_reason`, and actions of a plan."""
    found: dict[str, tuple[Path, int]] = {}
    for file in sorted(package.rglob("*.py")):
        if file.relative_to(package).parts[0] in skipped:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            for value in _reason_nodes(node):
                if (
                    isinstance(value, ast.Constant)
                    and isinstance(value.value, str)
                    and re.match("[A-Z][A-Za-z]+$", value.value)
                ):
                    found.setdefault(value.value, (file, value.lineno))
    return found


def _reason_nodes(node: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.keyword(arg="reason", value=value):
            yield from _choices(value)
        case ast.AnnAssign(target=ast.Name(id="default_reason"), value=ast.expr() as value):
            yield value
        case ast.Assign(targets=[ast.Name(id="default_reason")], value=value):
            yield value
        case ast.Call(func=ast.Name(id="change" | "Verdict"), args=[_, ast.expr() as value, *_]):
            yield from _choices(value)
        case ast.Call(func=ast.Attribute(attr="_note" | "_audit"), args=arguments):
            yield from arguments
        case ast.Tuple(elts=[ast.Attribute(value=ast.Name(id="Action")), ast.expr() as value, *_]):
            yield from _choices(value)


def _choices(value: ast.expr) -> Iterator[ast.expr]:
    if isinstance(value, ast.IfExp):
        yield from _choices(value.body)
        yield from _choices(value.orelse)
    else:
        yield value


def check_reasons(page: Path, package: Path) -> Iterator[Fault]:
    """The page explains every reason of the code, and none that the code does not give."""
    text = page.read_text()
    explained = set(re.findall(r"`([A-Z][A-Za-z]+)`", "\n".join(re.findall(r"^\| (.*?) \|", text, re.MULTILINE))))
    given = find_reasons(package)
    for reason in sorted(given.keys() - explained):
        yield Fault(page, 0, f"{reason} is not explained ({given[reason][0].relative_to(package)}:{given[reason][1]})")
    source = "\n".join(file.read_text() for file in package.rglob("*.py"))
    for reason in sorted(explained - given.keys()):
        if f'"{reason}"' not in source:
            yield Fault(page, 0, f"{reason} is explained, but the code does not give it")


def check_all(root: Path) -> list[Fault]:
    """Run every check."""
    from fleet.cli.main import cli

    pages = find_pages(root)
    targets = set(re.findall(r"^([a-z-]+):(?!=)", (root / "Makefile").read_text(), re.MULTILINE))
    faults = [
        *check_reachable(pages, root / "docs" / "README.md"),
        *check_generated(root / "docs" / "reference"),
        *check_reasons(root / "docs" / "reference" / "reasons.md", root / "fleet"),
    ]
    for page in pages:
        faults += [*check_links(page), *check_snippets(page), *check_commands(page, cli, targets)]
    return faults


if __name__ == "__main__":
    for fault in (faults := check_all(ROOT)):
        print(fault)
    print(f"docs: {len(faults)} faults" if faults else "docs: links, commands, snippets and generated pages are right")
    sys.exit(1 if faults else 0)
