"""What a recipe is, and the list of all."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipes._run import Run


class Mode(Enum):
    """Who is the subject: on TAS in one run and on the kernel in the other; the far side is always the kernel's."""

    SERVER = "server"
    CLIENT = "client"
    LOCAL = "local"  # both, on 127.0.0.1


SERVER, CLIENT, LOCAL = Mode.SERVER, Mode.CLIENT, Mode.LOCAL


@dataclass(frozen=True)
class Recipe:
    name: str
    """``program`` or ``program-way``: APP=program selects all its ways."""
    run: Callable[[Run], None]
    exercises: str
    modes: tuple[Mode, ...]
    quick: tuple[Mode, ...]
    """Modes that ``make test`` runs, too."""
    debian: tuple[str, ...]
    pip: tuple[str, ...]
    npm: tuple[str, ...]
    limit: float
    """Seconds, for one run."""
    kernel_opens: int
    """Connections that the subject may make on the kernel's TCP while on TAS."""


_all: dict[str, Recipe] = {}


def recipe(
    name: str,
    *,
    exercises: str,
    modes: tuple[Mode, ...] = (SERVER,),
    quick: tuple[Mode, ...] = (),
    debian: tuple[str, ...] = (),
    pip: tuple[str, ...] = (),
    npm: tuple[str, ...] = (),
    limit: float = 60,
    kernel_opens: int = 0,
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Declares the function below it as a recipe."""

    def declare(run: Callable[[Run], None]) -> Callable[[Run], None]:
        assert name not in _all, f"two recipes are called {name}"
        assert set(quick) <= set(modes)
        _all[name] = Recipe(name, run, exercises, modes, quick, debian, pip, npm, limit, kernel_opens)
        return run

    return declare


def every() -> list[Recipe]:
    """All recipes of this folder, by name."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("_"):
            importlib.import_module(f"recipes.{module.name}")
    return sorted(_all.values(), key=lambda r: r.name)
