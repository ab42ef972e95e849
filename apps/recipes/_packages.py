"""The packages that recipes need, installed by the registries' own clients; only ``make apps`` calls ``install``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable

from _lab import BUILD, ROOT

from recipes._recipe import Recipe

FOLDER = BUILD / "apps"
PYTHON = FOLDER / "venv" / "bin" / "python"
NODE_MODULES = FOLDER / "npm" / "node_modules"


def debian_missing(names: Iterable[str]) -> list[str]:
    wanted = sorted(set(names))
    if not wanted:
        return []
    told = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *wanted],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    there = {line.split()[1] for line in told.splitlines() if line.startswith("installed ")}
    return [n for n in wanted if n not in there]


def _pip_missing(names: Iterable[str]) -> list[str]:
    noted = _note("venv")
    return [n for n in sorted(set(names)) if n not in noted or not PYTHON.exists()]


def _npm_missing(names: Iterable[str]) -> list[str]:
    return [n for n in sorted(set(names)) if not (NODE_MODULES / n).exists()]


def _note(folder: str) -> list[str]:
    path = FOLDER / folder / "installed"
    return path.read_text().split("\n") if path.exists() else []


def missing(recipe: Recipe) -> list[str]:
    """What a recipe needs and is not there."""
    return debian_missing(recipe.debian) + _pip_missing(recipe.pip) + _npm_missing(recipe.npm)


def install(recipes: Iterable[Recipe]) -> None:
    """Installs what the recipes need."""
    chosen = list(recipes)
    if names := debian_missing(n for r in chosen for n in r.debian):
        subprocess.run([ROOT / ".ci/deps", "packages", *names], check=True)
    if names := _pip_missing(n for r in chosen for n in r.pip):
        print(f"  PIP     {' '.join(names)}", flush=True)
        if not PYTHON.exists():
            subprocess.run(["/usr/bin/python3", "-m", "venv", FOLDER / "venv"], check=True)
        subprocess.run([PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", *names], check=True)
        (FOLDER / "venv" / "installed").write_text("\n".join(sorted({*_note("venv"), *names})))
    if names := _npm_missing(n for r in chosen for n in r.npm):
        print(f"  NPM     {' '.join(names)}", flush=True)
        (FOLDER / "npm").mkdir(parents=True, exist_ok=True)
        argv = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(FOLDER / "npm"), *names]
        subprocess.run(argv, check=True, stdout=sys.stderr, env={**os.environ, "CI": "1"})
