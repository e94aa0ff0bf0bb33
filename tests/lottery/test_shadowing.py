"""A user's own `pruning.py` or folder `es/` is found in the place of our package: one line says so."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

import lottery
from lottery.state.machine.shadowing import ShadowedPackage, is_our_command, refuse_shadows, shadowed

ROOT = Path(__file__).parents[2]
RAN = "raise SystemExit('the user\\'s file was run')"


def python(*words: str, folder: Path, path: object = ROOT) -> subprocess.CompletedProcess[str]:
    """Python in a folder, with our packages on its search path."""
    where = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["pruning.py", "es/__init__.py"])
@pytest.mark.parametrize("line", ["import lottery", "from lottery import find_ticket"])
def test_a_script_beside_a_file_of_that_name_ends_with_what_to_do(tmp_path, name, line):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(RAN)
    (tmp_path / "script.py").write_text(line)
    done = python("script.py", folder=tmp_path)
    package, thing = name.split("/")[0].removesuffix(".py"), "file" if name.endswith("pruning.py") else "folder"
    said = (
        f"{tmp_path / name.split('/')[0]} shadows the package {package!r} of lottery-tickets: rename that {thing}, or"
        " move your script to another folder"
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1].endswith(f"ShadowedPackage: {said}")
    assert done.stderr.count("Traceback") == 1 and "user's file" not in done.stderr


@pytest.mark.parametrize("words", [("-m", "lottery"), ("-m", "lottery.cli.app", "list"), ("-mlottery", "prune")])
def test_the_command_in_such_a_folder_says_one_line_and_ends_with_2(tmp_path, words):
    (tmp_path / "pruning.py").write_text(RAN)
    done = python(*words, folder=tmp_path)
    said = f"lottery: {tmp_path / 'pruning.py'} shadows the package 'pruning' of lottery-tickets: rename that file, or "
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{said}run from another folder\n")


def test_so_does_the_command_that_an_installer_made(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lottery").write_text("from lottery.cli.app import main\nmain()\n")
    (tmp_path / "es").mkdir()
    (tmp_path / "es" / "__init__.py").touch()
    done = python("bin/lottery", "prune", folder=tmp_path, path=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"{tmp_path / 'es'} shadows the package 'es'" in done.stderr


def test_a_folder_without_init_shadows_nothing(tmp_path):
    (tmp_path / "es").mkdir()
    (tmp_path / "es" / "run.py").touch()
    done = python("-c", "import lottery, es, pruning; print(es.__path__[0])", folder=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, str(ROOT / "es")), done.stderr


def test_our_own_checkout_is_no_clash_whatever_else_is_installed(tmp_path):
    other = tmp_path / "elsewhere"
    for package in ("lottery", "pruning", "es"):
        (other / package).mkdir(parents=True)
        (other / package / "__init__.py").touch()
    done = python("-c", "import lottery; print(lottery.find_ticket.__module__)", folder=ROOT, path=other)
    assert (done.returncode, done.stdout.strip()) == (0, "lottery.api"), done.stderr


def test_our_packages_may_be_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "ours.zip", "w") as archive:
        for file in [*ROOT.glob("lottery/**/*.py*"), *ROOT.glob("pruning/*.py"), *ROOT.glob("es/*.py")]:
            archive.write(file, file.relative_to(ROOT))
    script = "import lottery; print(lottery.__path__[0])"
    done = python("-c", script, folder=tmp_path, path=tmp_path / "ours.zip")
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "ours.zip" / "lottery")), done.stderr
    (tmp_path / "pruning.py").write_text(RAN)
    done = python("-c", script, folder=tmp_path, path=tmp_path / "ours.zip")
    assert done.returncode == 1 and "pruning.py shadows the package 'pruning'" in done.stderr


def test_our_packages_may_lie_apart_from_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT)])
    monkeypatch.delitem(sys.modules, "pruning", raising=False)
    assert shadowed([str(tmp_path / "lottery")]) is None


def test_a_package_of_that_name_that_was_installed_is_to_be_uninstalled(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages" / "es"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(folder.parent), *sys.path])
    monkeypatch.delitem(sys.modules, "es", raising=False)
    assert f"{folder} shadows the package 'es' of lottery-tickets: uninstall what brought it" in str(
        shadowed(lottery.__path__)
    )


def test_a_module_of_that_name_that_was_loaded_without_a_spec_is_found_too(tmp_path, monkeypatch):
    made = types.ModuleType("es")
    made.__file__ = str(tmp_path / "es.py")
    (tmp_path / "es.py").touch()
    monkeypatch.setitem(sys.modules, "es", made)
    with pytest.raises(ShadowedPackage, match=r"es\.py shadows the package 'es'"):
        refuse_shadows(lottery.__path__)


def test_a_package_that_is_missing_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "es", raising=False)
    (tmp_path / "es").mkdir()
    assert "the package 'es' is missing beside" in str(shadowed(lottery.__path__, {"es": "program_cache"}))


def test_a_search_path_that_changes_after_the_import_is_looked_at_again(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pruning.py").write_text(RAN)
    script = "import lottery, sys; sys.path.insert(0, 'mine'); lottery.find_ticket"
    done = python("-c", script, folder=tmp_path)
    assert "shadows the package 'pruning'" in done.stderr.splitlines()[-1]


def test_another_command_is_not_ours():
    assert is_our_command([r"lottery.exe"], []) and not is_our_command([], [])
    assert not is_our_command(["mine.py", "lottery"], ["python", "mine.py", "lottery"])
