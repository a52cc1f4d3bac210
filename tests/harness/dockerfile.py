"""A Dockerfile read as far as ours goes, and its install steps run below a directory, without Docker."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOTS = ("/src", "/opt", "/out", "/dist")
"""Where steps put things; each becomes a directory below the stage's own root."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: its word in capitals and the rest of the line, continuations joined."""

    word: str
    rest: str


@dataclass(frozen=True, slots=True)
class Stage:
    """What one FROM begins."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        """The rest of every instruction of this word."""
        return [step.rest for step in self.steps if step.word == word]


def parse_dockerfile(text: str) -> list[Stage]:
    """Read the stages in file order; comments and blank lines are dropped."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        else:
            stages[-1].steps.append(Step(word, rest))
    return stages


class StepFailed(Exception):
    """A RUN line ended with another code than 0; the message holds the line and what it printed."""


class Builder:
    """Runs a stage's ENV, WORKDIR, COPY and RUN below `root`, from the files of `context`."""

    def __init__(self, root: Path, context: Path, environment: Mapping[str, str] = os.environ) -> None:
        self._root = root
        self._context = context
        self._environment = dict(environment)
        self._directory = root

    def build(self, stage: Stage) -> None:
        """Run every step in order. Raises: StepFailed."""
        for step in stage.steps:
            match step.word:
                case "ENV":
                    self._environment |= dict(pair.split("=", 1) for pair in step.rest.split())
                case "WORKDIR":
                    self._directory = Path(self.place(step.rest))
                    self._directory.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    *sources, target = step.rest.split()
                    self._copy(sources, self._directory / target)
                case "RUN":
                    self._run(step.rest)
                case other:
                    raise AssertionError(f"{other} is no install step")

    def place(self, text: str) -> str:
        """Move every absolute path of `ROOTS` below the root."""
        roots = "|".join(map(re.escape, ROOTS))
        return re.sub(rf"(?<![\w./])({roots})(?=[/\s]|$)", lambda found: f"{self._root}{found[0]}", text)

    def _copy(self, sources: Sequence[str], target: Path) -> None:
        for source in (self._context / each for each in sources):
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)

    def _run(self, line: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-euc", self.place(line)],
            cwd=self._directory, env=self._environment, text=True, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise StepFailed(f"RUN {line}\n{done.stdout}{done.stderr}")
