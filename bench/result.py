"""What was measured, as a table for people and JSON for tools."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line: a figure, where there is one the bare loop's beside it, and where there is one its aim."""

    name: str
    value: float
    unit: str
    bare: float | None = None
    aim: float | None = None
    """The most that `value` should be."""
    samples: tuple[float, ...] = ()
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the bare loop's figure."""
        return self.value / self.bare if self.bare else None

    @property
    def met(self) -> bool | None:
        """Whether the aim was met; None without one."""
        return self.value <= self.aim if self.aim is not None else None


def describe_machine() -> dict[str, Any]:
    """Say what the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def to_json(measures: Sequence[Measure], about: dict[str, Any]) -> str:
    """Encode everything."""
    rows = [{**asdict(measure), "ratio": measure.ratio, "met": measure.met} for measure in measures]
    return json.dumps({"about": about, "measures": rows}, indent=2)


def show(measures: Sequence[Measure], about: dict[str, Any]) -> None:
    """Print the table."""
    console = Console()
    table = Table(caption=", ".join(f"{name} {value}" for name, value in about.items()), box=None, pad_edge=False)
    for title in ("measure", "fleet", "bare loop", "ratio", "aim", "", "note"):
        table.add_column(title, justify="left" if title in ("measure", "", "note") else "right")
    for measure in measures:
        met = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[measure.met]
        table.add_row(
            measure.name,
            _figure(measure.value, measure.unit),
            _figure(measure.bare, measure.unit),
            f"{measure.ratio:.2f}" if measure.ratio is not None else "",
            f"≤ {_figure(measure.aim, measure.unit)}" if measure.aim is not None else "",
            met,
            measure.note,
        )
    console.print(table)


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if unit == "" else f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}"
