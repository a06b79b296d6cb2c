"""The models of a project: which there are, and whether the newest still fits the annotated images."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from univg.errors import InputError
from univg.io import read_json
from univg.workflow import support_store
from univg.workflow.project import Project


def is_stale(project: Project) -> bool:
    """Whether the annotated images are others than those that the newest model was made from."""
    folder = project.latest_segmenter()
    if folder is None:
        return False
    trained_on = _trained_on(folder)
    if not trained_on:
        return False
    masks = project.support_folder / "masks"
    stamps = tuple((name, (masks / f"{name}.png").stat().st_mtime_ns) for name in project.support_names())
    return _hashes(project.support_folder, stamps) != dict(trained_on)


@lru_cache(maxsize=16)
def _trained_on(folder: Path) -> tuple[tuple[str, str], ...]:
    try:
        card = read_json(folder / "segmenter.json")
        return tuple(sorted(card["card"]["support_sha256"].items()))
    except (InputError, KeyError, TypeError, AttributeError):
        return ()


@lru_cache(maxsize=16)
def _hashes(folder: Path, stamps: tuple[tuple[str, int], ...]) -> dict[str, str]:
    return support_store.content_hashes(folder, [name for name, _ in stamps])
