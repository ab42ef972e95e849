"""Real programs on the kernel and on TAS: one recipe per program and way of running it (README.md)."""

from recipes._recipe import CLIENT, LOCAL, SERVER, Mode, Recipe, every, recipe
from recipes._run import Run

__all__ = ["CLIENT", "LOCAL", "SERVER", "Mode", "Recipe", "Run", "every", "recipe"]
