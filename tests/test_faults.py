"""Every fault point of the product is armed by some test, and none that there is not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.conftest import CHECKOUT

_POINT = re.compile(
    r"^((?:checkpoint|journal|loop|step|store)\.[a-z]+(?:-[a-z]+)+|(?:doctor|migrate|repair)\.[a-z]+(?:-[a-z]+)*)(?==|$)"
)


def named() -> set[str]:
    """The points that the product passes."""
    found: list[str] = []
    for file in (CHECKOUT / "lamdatui").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault":
                assert len(node.args) == 1 and isinstance(node.args[0], ast.Constant), (
                    f"{file}: a point without a name of its own"
                )
                found.append(str(node.args[0].value))
    assert len(set(found)) == len(found), "two points of one name"
    return set(found)


def armed(folder: Path) -> set[str]:
    """The points that tests name in a text of its own, alone or with what is done there."""
    texts = (
        str(node.value)
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {found[1] for text in texts if (found := _POINT.match(text))}


def test_every_fault_point_is_armed_by_a_test() -> None:
    points = named()
    assert len(points) >= 28 and armed(CHECKOUT / "tests") == points
