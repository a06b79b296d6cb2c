"""Installed from a wheel as a user does it, and taken away again."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("npe2")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "univg", "app", "assets", "models")


def run(*command, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, since building leaves files in the source tree."""
    pytest.importorskip("setuptools", minversion="77")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source / part)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", target, source, cwd=source)
    (file,) = target.glob("*.whl")
    return file


def test_the_wheel_holds_the_plugin_and_its_manifest(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        text = archive.read(entry_points).decode()
    for file in (ROOT / "app" / "napari_plugin").iterdir():
        if file.suffix in (".py", ".yaml"):
            assert f"app/napari_plugin/{file.name}" in names
    assert "[napari.manifest]" in text and "univg = app.napari_plugin:napari.yaml" in text
    assert not any(name.startswith("tests/") for name in names)


def test_installed_the_manifest_is_valid_and_uninstalled_nothing_is_left(wheel, tmp_path):
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    before = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    assert (site / "app" / "napari_plugin" / "napari.yaml").is_file()

    # What it needs comes from the environment of the tests; the plugin itself from where it was installed.
    code = (
        "import npe2, pathlib, sys, app.napari_plugin; "
        "assert pathlib.Path(app.napari_plugin.__file__).is_relative_to(sys.argv[1]); "
        "manifest = npe2.PluginManifest.from_distribution('univg'); manifest.validate_imports(); "
        "print(len(manifest.contributions.widgets), manifest.package_version)"
    )
    said = run(sys.executable, "-c", code, site, cwd=tmp_path, env={**_environment(), "PYTHONPATH": str(site)})
    assert said.startswith("6 ")

    run(python, "-m", "pip", "uninstall", "-y", "univg")
    after = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    assert after == before
    assert "univg" not in run(python, "-m", "pip", "list")


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
