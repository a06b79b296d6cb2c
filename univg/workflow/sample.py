"""The sample project: five made-up annotated fundus images and two unseen ones, shipped with the software."""

from __future__ import annotations

from pathlib import Path

from univg.io import load_support_set
from univg.types import Modality
from univg.weights import shipped_folder
from univg.workflow.project import Project

SAMPLE_MODALITY = Modality.FUNDUS


def sample_folder() -> Path:
    """The folder with ``images``, ``masks`` and ``unseen``; `InputError` if this installation lacks it."""
    return shipped_folder("assets", "sample")


def create_sample_project(path: str | Path) -> Project:
    """A new project in `path` that holds the five sample pairs."""
    folder = sample_folder()
    project = Project.create(path, modality=SAMPLE_MODALITY)
    for pair in load_support_set(folder / "images", folder / "masks", modality=SAMPLE_MODALITY):
        project.add_support_pair(pair, source={"image": folder / "images" / f"{pair.name}.png"})
    return project


def sample_unseen_images() -> list[Path]:
    """Images of the sample that no project has trained on; their masks are in ``masks`` beside their folder."""
    return sorted((sample_folder() / "unseen" / "images").glob("*.png"))
