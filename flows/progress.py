"""Progress bars on stderr for whatever takes long; lines instead of bars where nobody watches a terminal."""

from __future__ import annotations

import threading
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SILENT_SECONDS = 2.0
_LINE_EVERY_SECONDS = 15.0


class Bars:
    """One bar per piece of work, shown after two seconds; a `ReportProgress` that threads may call."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}", style="cyan", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
            transient=True,
        )
        self._lock = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        self._first: dict[str, tuple[float, float]] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> Bars:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, name: str, done: float, total: float | None, unit: str, note: str = "") -> None:
        """Show how far `name` is, with its throughput in `unit` per second."""
        now = time.monotonic()
        with self._lock:
            since, before = self._first.setdefault(name, (now, done))
            finished = total is not None and done >= total
            if finished:
                self._forget(name)
                return
            if now - since < _SILENT_SECONDS:
                return
            rate = (done - before) / (now - since)
            amount = f"{_number(done)}{'/' + _number(total) if total else ''} {unit} · {_speed(rate, unit)}"
            if self.console.is_terminal:
                self._bar(name, done, total, amount, note)
            elif now - self._said.get(name, since) > _LINE_EVERY_SECONDS:
                self._said[name] = now
                self.console.print(f"{name}: {amount} {note}", markup=False, highlight=False)

    def _bar(self, name: str, done: float, total: float | None, amount: str, note: str) -> None:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=total, amount=amount, note=note)
        self._progress.update(self._bars[name], completed=done, total=total, amount=amount, note=note)

    def _forget(self, name: str) -> None:
        self._first.pop(name, None)
        self._said.pop(name, None)
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))


def _speed(rate: float, unit: str) -> str:
    return f"{_number(1 / rate)} s each" if 0 < rate < 0.5 else f"{_number(rate)} {unit}/s"


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scale = 1e3 if sign == "k" else limit
            return f"{value / scale:.1f}{sign}"
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.1f}"
