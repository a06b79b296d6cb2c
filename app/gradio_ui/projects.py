"""Where projects are kept when the user names no folder."""

from __future__ import annotations

import os
from pathlib import Path

from app import texts
from univg.errors import InputError
from univg.io import check_stem
from univg.workflow.project import SETTINGS_FILE, Project
from univg.workflow.sample import create_sample_project

FOLDER_VARIABLE = "UNIVG_PROJECTS"


def projects_folder() -> Path:
    """``~/UniVG projects``; the environment variable UNIVG_PROJECTS overrides it."""
    override = os.environ.get(FOLDER_VARIABLE)
    return Path(override).expanduser() if override else Path.home() / "UniVG projects"


def known_projects() -> list[Path]:
    """The projects in `projects_folder`, the one changed last first."""
    try:
        found = [folder for folder in projects_folder().iterdir() if (folder / SETTINGS_FILE).is_file()]
    except OSError:
        return []
    return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)


def new_project_path(name_or_folder: str) -> Path:
    """The folder that `name_or_folder` means: a plain name is put in `projects_folder`."""
    typed = name_or_folder.strip()
    if not typed:
        raise InputError("The project has no name", fix="Give it one, for example the kind of images.")
    path = Path(typed).expanduser()
    if path.is_absolute():
        return path
    return projects_folder() / check_stem(typed)


def create_sample() -> Project:
    """A fresh copy of the sample project, called Sample, Sample 2, and so on."""
    number = 1
    while True:
        path = projects_folder() / (texts.SAMPLE_NAME if number == 1 else f"{texts.SAMPLE_NAME} {number}")
        if not path.exists():
            return create_sample_project(path)
        number += 1
