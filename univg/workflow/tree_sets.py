"""Sets of many trees in a project: one folder each, ``trees/set-001`` and so on."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

from univg.errors import InputError
from univg.sca import TreeScene
from univg.workflow.bulk import MANIFEST_FILE
from univg.workflow.project import Project

_SETTLED_NS = 100_000_000


def tree_set_params(project: Project, scene: TreeScene, *, count: int, every_mask: bool) -> dict:
    """Parameters of a ``trees`` job that grows `count` trees as `scene` says into a new folder of the project.

    Parameters
    ----------
    project : Project
    scene : TreeScene
    count : int
    every_mask : bool
        Along all masks of the project in turn, where `scene` grows along one.

    Raises
    ------
    InputError
        When the project does not hold the mask that `scene` grows along, or what was drawn on it would be put on other
        masks.
    """
    held, masks = project.support_names(), []
    if scene.mask_name:
        masks = held if every_mask else [scene.mask_name]
        if not masks or not set(masks) <= set(held):
            raise InputError(
                f"The project does not hold the mask of “{scene.mask_name}” yet",
                fix="Approve it and retrain, which takes it into the project, or grow from a preset.",
            )
        if masks != [scene.mask_name] and (scene.roots or scene.boundary or scene.obstacles):
            raise InputError(
                f"Roots and shapes were drawn on “{scene.mask_name}” and do not fit the other masks",
                fix="Do not grow along all masks in turn, or clear what was drawn.",
            )
    number = 1
    while (project.trees_folder / (folder := f"set-{number:03d}")).exists():
        number += 1
    return {"count": count, "scene": scene.to_json(), "masks": masks, "folder": folder}


def tree_sets(project: Project) -> list[tuple[str, int]]:
    """(folder, number of trees) of the sets that are there, begun ones too, by name."""
    folders = sorted(path.parent for path in project.trees_folder.glob(f"*/{MANIFEST_FILE}"))
    return [(folder.name, _count(folder)) for folder in folders]


def _count(folder: Path) -> int:
    """The pictures in `folder`, which may be many thousands and are asked for with every tick of a page."""
    changed = folder.stat().st_mtime_ns
    # The time of a folder has steps of some milliseconds: another picture may come within the same one.
    settled = time.time_ns() - changed > _SETTLED_NS
    return _counted(folder, changed) if settled else _listed(folder)


def _listed(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*.png"))


@lru_cache(maxsize=256)
def _counted(folder: Path, changed: int) -> int:
    return _listed(folder)
