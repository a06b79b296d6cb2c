"""Growth parameters that a user saved under a name, in the project's ``trees/presets``."""

from __future__ import annotations

from univg.errors import InputError
from univg.io import check_stem, read_json, write_json_atomic
from univg.sca import TreeScene
from univg.workflow.folder_access import locked, writing
from univg.workflow.project import Project


def save_tree_preset(project: Project, name: str, scene: TreeScene) -> str:
    """Keep `scene` under `name`; one of that name is never overwritten.

    Returns
    -------
    str
        The name without surrounding blanks.

    Raises
    ------
    InputError
        If the name cannot be one of a file or is taken by other parameters, or the folder cannot be written to.
    """
    stem = check_stem(name.strip())
    folder = project.trees_folder / "presets"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            file = folder / f"{stem}.json"
            if file.exists() and read_json(file) != scene.to_json():
                raise InputError("A preset of this name is already there", path=file, fix="Choose another name.")
            write_json_atomic(file, scene.to_json())
    return stem


def tree_presets(project: Project) -> dict[str, TreeScene]:
    """The saved scenes by name; a file that is damaged, or of another version, is left out."""
    found = {}
    for path in sorted((project.trees_folder / "presets").glob("*.json")):
        try:
            found[path.stem] = TreeScene.from_json(read_json(path))
        except InputError:
            continue
    return found
