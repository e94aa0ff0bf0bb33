"""Facts of the structure, from the imports alone."""

from __future__ import annotations

import ast
import re

import pytest

from tests.structure.house import FLOORS, PACKAGES, ROOT, below, circle, imports, modules, public_functions

FOLDERS = sorted({path.parent for path in modules().values()})
BETWEEN = {"pruning": (), "es": ("pruning",), "lottery": ("es", "pruning")}


def test_arrows_between_the_packages_point_one_way():
    for name, targets in imports().items():
        package = name.split(".")[0]
        for target in targets:
            assert target.split(".")[0] in (package, *BETWEEN[package]), f"{name} imports {target}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_room_imports_from_lower_floors_only(package):
    floor = {room: number for number, rooms in enumerate(FLOORS[package]) for room in rooms}
    for room, targets in below(package).items():
        for target in targets:
            assert floor[room] < floor[target], f"{package}/{room} imports {package}/{target}, which is no lower floor"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_stands_on_one_floor(package):
    listed = [room for rooms in FLOORS[package] for room in rooms]
    assert sorted(listed) == sorted(below(package))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_parts_of_a_folder_import_each_other_one_way(folder):
    assert circle(below(".".join(folder.relative_to(ROOT).parts))) == []


def test_no_circle_of_modules():
    assert circle(imports()) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_folder_has_sixteen_modules_at_most(folder):
    assert len(list(folder.glob("*.py"))) <= 16
    assert (folder / "__init__.py").is_file()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_package_defines_no_name_that_one_of_its_modules_has(folder):
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert defined & {path.name.removesuffix(".py") for path in folder.iterdir()} == set()


def test_lottery_has_a_dozen_folders_and_a_handful_of_modules():
    top = ROOT / "lottery"
    assert len([path for path in top.iterdir() if (path / "__init__.py").is_file()]) <= 12
    assert len(list(top.glob("*.py"))) <= 5


def test_no_file_is_longer_than_three_hundred_lines():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: count for name, count in lines.items() if count > 300} == {}


def test_nine_of_ten_public_functions_have_an_example_or_a_test_that_names_them():
    words = set()
    for path in (ROOT / "tests").rglob("*.py"):
        words |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    found = list(public_functions())
    bare = [
        f"{m}.{node.name}"
        for m, node in found
        if ">>>" not in (ast.get_docstring(node) or "") and node.name not in words
    ]
    assert len(bare) <= 0.1 * len(found), bare


def test_a_circle_is_found():
    assert circle({"a": ["b"], "b": ["c"], "c": ["a"], "d": []}) == ["a", "b", "c"]
    assert circle({"a": ["b"], "b": []}) == []
