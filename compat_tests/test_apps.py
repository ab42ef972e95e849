"""The short recipes of apps/recipes; `make apps` runs all."""

from __future__ import annotations

import re

import pytest
from _lab import KERNEL_ONLY, ROOT, missing
from recipes import Mode, Recipe, every
from recipes import _packages as packages
from recipes._run import compare

QUICK = [
    pytest.param(r, mode, id=f"{r.name}-{mode.value}", marks=pytest.mark.timeout(4 * r.limit))
    for r in every()
    for mode in r.quick
]


@pytest.mark.skipif(KERNEL_ONLY, reason="compares with the kernel itself")
@pytest.mark.parametrize(("recipe", "mode"), QUICK)
def test_a_program_does_on_tas_what_it_does_on_the_kernel(recipe: Recipe, mode: Mode) -> None:
    if why := missing():
        pytest.skip(why)
    if needed := packages.missing(recipe):
        pytest.skip(f"not installed: {' '.join(needed)} (make test-deps)")
    differences = compare(recipe, mode).differences
    assert not differences, "\n".join(differences)


def test_packages_of_quick_recipes_are_installed_for_tests() -> None:
    listed = re.search(r"^test=\(([^)]*)\)", (ROOT / ".ci/deps").read_text(), re.M)
    assert listed
    wanted = {p for r in every() if r.quick for p in r.debian}
    assert wanted <= set(listed[1].split()), wanted - set(listed[1].split())
    assert not [r.name for r in every() if r.quick and (r.pip or r.npm)], "quick recipes use Debian packages only"
