"""The project folder: everything about one segmenter, from its annotated images to its results.

Nothing in it is overwritten or deleted: segmenters get new numbers, replaced masks go to a history and
removed pairs to a bin. Files are written beside their place and renamed into it, so a crash leaves the old or
the new one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

import numpy as np

from univg.errors import InputError
from univg.io import read_json, write_json_atomic
from univg.io.write import replace_patiently
from univg.types import ImageMaskPair, Modality, SupportSet
from univg.workflow import support_store
from univg.workflow.folder_access import locked, partial_name, remove_dead_partials, sync_tree, utc_now, writing

PROJECT_SCHEMA = 1
SETTINGS_FILE = "project.json"
WORKING_SIZES = (64, 2048)

_FOLDERS = ("support/images", "support/masks", "trees", "adapters", "pairs", "segmenters", "jobs", "results")
_SETTING_KEYS = ("modality", "working_size", "pixel_spacing_mm")
_VERSION = re.compile(r"v(\d{3,})")


@dataclass(frozen=True)
class Project:
    """A project folder that exists; `open` or `create` one.

    Attributes
    ----------
    path : Path
        Absolute.
    modality : Modality
    working_size : int
        Side in pixels of the square that the segmenter works on.
    pixel_spacing_mm : float or None
        Millimetres per pixel of the images as given, when known.
    """

    path: Path
    modality: Modality
    working_size: int = 512
    pixel_spacing_mm: float | None = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        modality: Modality | str,
        working_size: int = 512,
        pixel_spacing_mm: float | None = None,
    ) -> Project:
        """Make a project in a new or empty folder; `InputError` when that cannot be, with nothing left."""
        project = cls(_absolute(path), *_checked_settings(modality, working_size, pixel_spacing_mm))
        new_folders = [folder for folder in (project.path, *project.path.parents) if not folder.exists()]
        try:
            with writing(project.path):
                project.path.mkdir(parents=True, exist_ok=True)
                _refuse_used_folder(project.path)
            with project._locked():
                _refuse_used_folder(project.path)
                write_json_atomic(project.path / SETTINGS_FILE, project._settings())
                for folder in _FOLDERS:
                    (project.path / folder).mkdir(parents=True, exist_ok=True)
        except BaseException:
            if new_folders and not (project.path / SETTINGS_FILE).exists():
                _remove_empty(new_folders)
            raise
        return project

    @classmethod
    def open(cls, path: str | Path) -> Project:
        """The project in `path`; `InputError` when there is none, or none that this version can read."""
        folder = _absolute(path)
        file = folder / SETTINGS_FILE
        if not file.is_file():
            problem = "This folder is not a UniVG project" if folder.is_dir() else "There is no such folder"
            raise InputError(problem, path=folder, fix="Choose a folder with a project.json, or create a project.")
        broken = InputError(
            "project.json is damaged", path=file, fix="Restore it from a backup, or create a new project."
        )
        try:
            settings = read_json(file)
        except InputError as error:
            if isinstance(error.__cause__, OSError):
                raise
            raise broken from None
        if not isinstance(settings, dict) or not isinstance(settings.get("schema"), int):
            raise broken
        if settings["schema"] > PROJECT_SCHEMA:
            raise InputError(
                "This project was made by a newer version of UniVG", path=file, fix="Update UniVG to open it."
            )
        try:
            checked = _checked_settings(*(settings.get(key) for key in _SETTING_KEYS))
        except InputError as error:
            raise InputError(f"project.json is damaged: {error.problem}", path=file, fix=broken.fix) from None
        return cls(folder, *checked)

    @classmethod
    def open_or_create(
        cls,
        path: str | Path,
        *,
        modality: Modality | str,
        working_size: int | None = None,
        pixel_spacing_mm: float | None = None,
    ) -> Project:
        """Open the project in `path`, which must have the settings named here, or create it with them."""
        if not (_absolute(path) / SETTINGS_FILE).exists():
            size = 512 if working_size is None else working_size
            return cls.create(path, modality=modality, working_size=size, pixel_spacing_mm=pixel_spacing_mm)
        project = cls.open(path)
        asked = (Modality.parse(modality), working_size, pixel_spacing_mm)
        for label, got, wanted in zip(_SETTING_KEYS, project._settings_tuple(), asked, strict=True):
            if wanted is not None and got != wanted:
                raise InputError(
                    f"This project has {label} {got}, not {wanted}",
                    path=project.path,
                    fix="Use a new project folder for the other setting.",
                )
        return project

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def jobs_folder(self) -> Path:
        return self.path / "jobs"

    @property
    def results_folder(self) -> Path:
        return self.path / "results"

    @property
    def pairs_folder(self) -> Path:
        return self.path / "pairs"

    @property
    def trees_folder(self) -> Path:
        return self.path / "trees"

    @property
    def segmenters_folder(self) -> Path:
        return self.path / "segmenters"

    @property
    def adapters_folder(self) -> Path:
        """Of the mask engines: what they learnt, without the backbone."""
        return self.path / "adapters"

    @property
    def image_engines_folder(self) -> Path:
        return self.path / "image_engines"

    @property
    def support_folder(self) -> Path:
        return self.path / "support"

    def support_names(self) -> list[str]:
        """Names of the annotated pairs, sorted."""
        return support_store.pair_names(self.support_folder)

    def support_pair(self, name: str) -> ImageMaskPair:
        return support_store.read_pair(self.support_folder, name)

    def support_source(self, name: str) -> dict:
        """Original file names, their SHA-256 and the date of adding, for the pair `name`."""
        return support_store.read_sidecar(self.support_folder, name)

    def support_hashes(self) -> dict[str, str]:
        """SHA-256 of the files of the annotated pairs, as `load_support` gives them; no image is decoded."""
        return support_store.content_hashes(self.support_folder, self.support_names())

    def load_support(self) -> SupportSet:
        """Every annotated pair, with the SHA-256 of its stored files; `InputError` when there is none."""
        names = self.support_names()
        return SupportSet(
            self.modality,
            tuple(self.support_pair(name) for name in names),
            pixel_spacing_mm=self.pixel_spacing_mm,
            sha256=self.support_hashes(),
        )

    def add_support_pair(self, pair: ImageMaskPair, *, source: Mapping[str, str | Path] | None = None) -> bool:
        """Copy a pair into the project without loss (float images at 16 bits).

        Parameters
        ----------
        pair : ImageMaskPair
        source : mapping, optional
            The files it was read from, under ``"image"``, ``"mask"`` and ``"fov"``; their names and SHA-256
            are kept.

        Returns
        -------
        bool
            False when the project already held exactly this pair.

        Raises
        ------
        InputError
            When another pair has that name, or the name or the folder cannot be used.
        """
        with self._locked():
            return support_store.write_pair(self.support_folder, pair, source=source)

    def holds_support_pair(self, pair: ImageMaskPair) -> bool:
        """Whether `add_support_pair` would find exactly this pair; `InputError` when another one has its name."""
        return support_store.holds_pair(self.support_folder, pair)

    def replace_support_mask(self, name: str, mask: np.ndarray) -> Path | None:
        """Correct the mask of `name`; the old one is kept, and the path of that copy returned."""
        with self._locked():
            return support_store.replace_mask(self.support_folder, name, mask)

    def remove_support_pair(self, name: str) -> None:
        """Take a pair out of use; `restore_support_pair` brings it back."""
        with self._locked():
            support_store.remove_pair(self.support_folder, name)

    def removed_support_names(self) -> list[str]:
        return support_store.removed_names(self.support_folder)

    def restore_support_pair(self, name: str) -> None:
        with self._locked():
            support_store.restore_pair(self.support_folder, name)

    def segmenter_versions(self) -> list[str]:
        """Names of the finished segmenters, oldest first: ``["v001", "v002"]``."""
        return _versions_in(self.segmenters_folder)

    def latest_segmenter(self) -> Path | None:
        versions = self.segmenter_versions()
        return self.segmenters_folder / versions[-1] if versions else None

    def mask_engine_versions(self) -> list[str]:
        """Names of the adapted mask engines, oldest first."""
        return _versions_in(self.adapters_folder)

    def latest_mask_engine(self) -> Path | None:
        versions = self.mask_engine_versions()
        return self.adapters_folder / versions[-1] if versions else None

    def new_mask_engine_folder(self) -> NewVersionFolder:
        """As `new_segmenter_folder`, for a mask engine."""
        return NewVersionFolder(self, self.adapters_folder)

    def new_segmenter_folder(self) -> NewVersionFolder:
        """A context manager for saving a segmenter under the next free number.

        Examples
        --------
        >>> new = project.new_segmenter_folder()   # doctest: +SKIP
        >>> with new as folder:                    # doctest: +SKIP
        ...     segmenter.save(folder)
        >>> new.version                            # doctest: +SKIP
        'v003'
        """
        return NewVersionFolder(self, self.segmenters_folder)

    def pair_names(self) -> list[str]:
        """Names of the synthetic pairs, sorted."""
        return support_store.pair_names(self.pairs_folder)

    def synthetic_pair(self, name: str) -> ImageMaskPair:
        return replace(support_store.read_pair(self.pairs_folder, name), synthetic=True)

    def synthetic_pair_files(self, name: str) -> tuple[Path, Path]:
        """The files of a pair's image and mask."""
        return support_store.pair_files(self.pairs_folder, name)

    def pair_record(self, name: str) -> dict:
        """What the synthetic pair `name` was made from, and what its checks found."""
        return support_store.read_sidecar(self.pairs_folder, name)

    def add_synthetic_pair(self, pair: ImageMaskPair, record: Mapping) -> bool:
        """Write a synthetic pair with its record; False when the project already held exactly this pair."""
        with self._locked():
            return support_store.write_pair(self.pairs_folder, pair, record={"synthetic": True, **record})

    def image_engine_versions(self) -> list[str]:
        """Names of the adapted image engines, oldest first."""
        return _versions_in(self.image_engines_folder)

    def latest_image_engine(self) -> Path | None:
        versions = self.image_engine_versions()
        return self.image_engines_folder / versions[-1] if versions else None

    def new_image_engine_folder(self) -> NewVersionFolder:
        """As `new_segmenter_folder`, for an image engine."""
        return NewVersionFolder(self, self.image_engines_folder)

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.path / ".lock")

    def _settings_tuple(self) -> tuple[Modality, int, float | None]:
        return self.modality, self.working_size, self.pixel_spacing_mm

    def _settings(self) -> dict:
        return {
            "schema": PROJECT_SCHEMA,
            **dict(zip(_SETTING_KEYS, self._settings_tuple(), strict=True)),
            "created": utc_now(),
        }


class NewVersionFolder:
    """Gives out a hidden folder and, when the block ends well, renames it to the next free ``v###``.

    Attributes
    ----------
    version : str or None
        The name it got; None before the block has ended, and when it failed.
    """

    def __init__(self, project: Project, parent: Path) -> None:
        self._project = project
        self._parent = parent
        self._folder: Path | None = None
        self.version: str | None = None

    def __enter__(self) -> Path:
        folder = self._parent / partial_name(self._next_version())
        with writing(self._parent):
            self._parent.mkdir(parents=True, exist_ok=True)
            remove_dead_partials(self._parent, _VERSION.pattern)
            folder.mkdir()
        self._folder = folder
        return folder

    def __exit__(self, kind, error, traceback) -> None:
        if error is not None:
            rmtree(self._folder, ignore_errors=True)
            return
        with self._project._locked():
            sync_tree(self._folder)
            version = self._next_version()
            replace_patiently(self._folder, self._folder.with_name(version))
            self.version = version

    def _next_version(self) -> str:
        versions = _versions_in(self._parent)
        return f"v{int(versions[-1][1:]) + 1 if versions else 1:03d}"


def _versions_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    found = (_VERSION.fullmatch(entry.name) for entry in folder.iterdir() if entry.is_dir())
    return [match[0] for match in sorted(filter(None, found), key=lambda match: int(match[1]))]


def version_of_job(versions_folder: Path, card_file: str, job: str) -> tuple[str, dict] | None:
    """The version that the job with the id `job` made, and its card; None where it has made none.

    A job that was killed once its version was published, before that was on record, would else publish another.
    """
    for version in reversed(_versions_in(versions_folder)):
        try:
            card = read_json(versions_folder / version / card_file)["card"]
            if card.get("job") == job:
                return version, card
        except (InputError, KeyError, TypeError, AttributeError):
            continue  # whoever uses that version is told that its card is damaged
    return None


def _absolute(path: str | Path) -> Path:
    if not str(path).strip():
        raise InputError("No project folder was named", fix="Choose a folder.")
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"This is not a usable folder name: {error}") from None


def _refuse_used_folder(path: Path) -> None:
    if (path / SETTINGS_FILE).exists():
        raise InputError("There is a project here already", path=path, fix="Open it, or choose another.")
    if any(not entry.name.startswith(".") for entry in path.iterdir()):
        raise InputError(
            "This folder holds other files", path=path, fix="Choose a new or empty folder for the project."
        )


def _remove_empty(folders: list[Path]) -> None:
    """Undo the making of `folders`, innermost first, unless somebody has put files there meanwhile."""
    with suppress(OSError):
        (folders[0] / ".lock").unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()


def _checked_settings(
    modality: object, working_size: object, pixel_spacing_mm: object
) -> tuple[Modality, int, float | None]:
    smallest, largest = WORKING_SIZES
    if isinstance(working_size, bool) or not isinstance(working_size, int):
        raise InputError(f"Working size must be a whole number of pixels, got {working_size!r}")
    if not smallest <= working_size <= largest or working_size % 32:
        raise InputError(
            f"Working size must be a multiple of 32 from {smallest} to {largest}, got {working_size}",
            fix="512 suits most images.",
        )
    if pixel_spacing_mm is not None:
        number = isinstance(pixel_spacing_mm, (int, float)) and not isinstance(pixel_spacing_mm, bool)
        if not number or not (math.isfinite(pixel_spacing_mm) and pixel_spacing_mm > 0):
            raise InputError(
                f"Pixel spacing must be a positive number of millimetres, got {pixel_spacing_mm!r}",
                fix="Leave it empty when it is not known.",
            )
        pixel_spacing_mm = float(pixel_spacing_mm)
    return Modality.parse(modality), working_size, pixel_spacing_mm
