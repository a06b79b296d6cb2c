"""Sets of many trees in a project: one folder each, ``trees/set-001`` and so on."""

from __future__ import annotations

from univg.errors import InputError
from univg.sca import TreeScene
from univg.workflow.bulk import MANIFEST_FILE
from univg.workflow.project import Project


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
        When the project does not hold the mask that `scene` grows along.
    """
    held, masks = project.support_names(), []
    if scene.mask_name:
        masks = held if every_mask else [scene.mask_name]
        if not masks or not set(masks) <= set(held):
            raise InputError(
                f"The project does not hold the mask of “{scene.mask_name}” yet",
                fix="Approve it and retrain, which takes it into the project, or grow from a preset.",
            )
    number = 1
    while (project.trees_folder / (folder := f"set-{number:03d}")).exists():
        number += 1
    return {"count": count, "scene": scene.to_json(), "masks": masks, "folder": folder}


def tree_sets(project: Project) -> list[tuple[str, int]]:
    """(folder, number of trees) of the sets that are there, begun ones too, by name."""
    folders = sorted(path.parent for path in project.trees_folder.glob(f"*/{MANIFEST_FILE}"))
    return [(folder.name, sum(1 for _ in folder.glob("*.png"))) for folder in folders]
