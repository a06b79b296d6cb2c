"""Handing on what a project holds: pairs for other software to train on, and the segmenter as ONNX."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from univg import __version__
from univg.errors import Cancelled, InputError
from univg.io import write_image, write_json_atomic, write_mask
from univg.io.write import replace_patiently, write_bytes_atomic
from univg.progress import OnProgress, ProgressEvent, ShouldStop, ignore_progress, never_stop
from univg.segmentation.config import INPUT_SETS
from univg.types import ImageMaskPair, as_float
from univg.workflow.folder_access import partial_folders, partial_name, remove_dead_partials, writing
from univg.workflow.project import Project
from univg.workflow.support_store import write_stored_image
from univg.workflow.verdicts import pairs_that_train

FORMATS = ("folder", "nnunet", "coco")
SOURCES = ("real", "synthetic", "both")
_NOT_AS_ONNX = ("swin-unetr",)  # torch writes numbers of windows into the file that hold for a single size
_REDUCED = "Images of more than 8 bits were written with 8."
_TOLERANCE = 1e-3  # between torch and ONNX, of a probability


def export_pairs(
    project: Project,
    output: str | Path,
    *,
    kind: str = "folder",
    source: str = "both",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> int:
    """Write pairs of a project to a new folder.

    Every synthetic picture carries its record, with the word synthetic, in its metadata and in its name.

    Parameters
    ----------
    project : Project
    output : path-like
        A folder that does not exist or is empty; it appears, or is filled, at the end: whole or not at all.
    kind : {'folder', 'nnunet', 'coco'}
        'folder' has ``images`` and ``masks`` of equal names, and ``fov`` where a pair has a field of view, the whole
        image for the others; 'nnunet' is a raw data set of nnU-Net v2; 'coco' has ``images`` and an
        ``annotations.json`` with one run-length encoded segmentation an image that has vessels. The latter two have
        8 bits.
    source : {'real', 'synthetic', 'both'}
        Of synthetic pairs only those that training uses, see `univg.workflow.verdicts.POLICY`.
    on_progress, should_stop : callable
        The message of the last event says what the format could not keep.

    Returns
    -------
    int
        How many pairs were written.

    Raises
    ------
    InputError
        If there is nothing to export, or the folder cannot be used.
    """
    if kind not in FORMATS or source not in SOURCES:
        raise ValueError(f"`kind` must be one of {FORMATS} and `source` of {SOURCES}, got {kind!r} and {source!r}")
    real = project.support_names() if source != "synthetic" else []
    synthetic = pairs_that_train(project) if source != "real" else []
    if not real and not synthetic:
        raise InputError("There is no pair to export", path=project.path, fix="Add pairs, or choose another source.")
    output = Path(output).expanduser()
    if output.exists() and (not output.is_dir() or _holds_anything(output)):
        raise InputError("The output folder is not empty", path=output, fix="Name a new folder.")
    writer = {"folder": _Folder, "nnunet": _NnUnet, "coco": _Coco}[kind]
    # An empty folder that is there may be where a disk is mounted, which can be neither removed nor replaced.
    beside = output if output.exists() else output.parent
    with writing(beside):
        beside.mkdir(parents=True, exist_ok=True)
        remove_dead_partials(beside, re.escape(output.name))
        work = beside / partial_name(output.name)
        work.mkdir(mode=0o700)
    try:
        writing_to, names = writer(work, project), [*((n, False) for n in real), *((n, True) for n in synthetic)]
        reduced = False
        for done, (name, made_up) in enumerate(names):
            if should_stop():
                raise Cancelled
            pair = project.synthetic_pair(name) if made_up else project.support_pair(name)
            record = {"made_by": f"UniVG {__version__}", "synthetic": made_up}
            writing_to.add(pair, record | (_without_names(project.pair_record(name)) if made_up else {}))
            reduced = reduced or (kind != "folder" and pair.image.dtype != np.uint8)
            message = _REDUCED if reduced and done + 1 == len(names) else ""
            on_progress(ProgressEvent("export", done + 1, len(names), message=message))
        writing_to.finish()
        with writing(output):
            if beside == output:
                for made in work.iterdir():
                    replace_patiently(made, output / made.name)
                work.rmdir()
            else:
                work.chmod(0o755)
                replace_patiently(work, output)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return len(names)


def _holds_anything(folder: Path) -> bool:
    """Apart from what an export that was killed left behind there."""
    return bool(set(folder.iterdir()) - set(partial_folders(folder, re.escape(folder.name))))


def _without_names(record: dict) -> dict:
    """The record of a synthetic pair; earlier ones name the files that the engines learnt from."""
    hashes = record.get("support_sha256")
    return record | {"support_sha256": sorted(hashes.values())} if isinstance(hashes, dict) else record


class _Folder:
    def __init__(self, folder: Path, project: Project) -> None:
        self.folder = folder
        self.without_field: list[tuple[str, tuple[int, int], dict]] = []
        for name in ("images", "masks"):
            (folder / name).mkdir()

    def add(self, pair: ImageMaskPair, record: dict) -> None:
        write_stored_image(self.folder / "images", pair.name, pair.image, record)
        write_mask(self.folder / "masks" / f"{pair.name}.png", pair.mask, provenance=record)
        if pair.fov is None:
            self.without_field.append((pair.name, pair.shape, record))
        else:
            self._add_field(pair.name, pair.fov, record)

    def finish(self) -> None:
        """Give all pairs a field of view if any has one: who reads the folder expects that."""
        if (self.folder / "fov").is_dir():
            for name, shape, record in self.without_field:
                self._add_field(name, np.ones(shape, bool), record)

    def _add_field(self, name: str, fov: np.ndarray, record: dict) -> None:
        (self.folder / "fov").mkdir(exist_ok=True)
        write_mask(self.folder / "fov" / f"{name}.png", fov, provenance=record)


class _NnUnet:
    """`dataset.json`, `imagesTr` and `labelsTr` as nnU-Net v2 reads them; a colour image is one file."""

    def __init__(self, folder: Path, project: Project) -> None:
        self.folder, self.project, self.count, self.colour = folder, project, 0, False
        for name in ("imagesTr", "labelsTr"):
            (folder / name).mkdir()

    def add(self, pair: ImageMaskPair, record: dict) -> None:
        if self.count and (pair.image.ndim == 3) is not self.colour:
            raise InputError(
                f"Colour and grey images are mixed: {pair.name!r}", fix="Export real and synthetic pairs apart."
            )
        self.colour = pair.image.ndim == 3
        case = f"{'synthetic' if record['synthetic'] else 'real'}_{self.count:05d}"
        write_image(self.folder / "imagesTr" / f"{case}_0000.png", _as_uint8(pair.image), provenance=record)
        write_image(self.folder / "labelsTr" / f"{case}.png", pair.mask.astype(np.uint8), provenance=record)
        self.count += 1

    def finish(self) -> None:
        channels = ("R", "G", "B") if self.colour else (str(self.project.modality),)
        card = {
            "channel_names": {str(i): name for i, name in enumerate(channels)},
            "labels": {"background": 0, "vessel": 1},
            "numTraining": self.count,
            "file_ending": ".png",
            "name": f"UniVG {self.project.modality}",
        }
        write_json_atomic(self.folder / "dataset.json", card)


class _Coco:
    """Images and one file of annotations; a mask is one uncompressed run-length encoding, columns first.

    An image without any vessel has no annotation.
    """

    def __init__(self, folder: Path, project: Project) -> None:
        self.folder, self.project = folder, project
        (folder / "images").mkdir()
        self.images: list[dict] = []
        self.annotations: list[dict] = []

    def add(self, pair: ImageMaskPair, record: dict) -> None:
        number = len(self.images) + 1
        height, width = pair.shape
        write_image(self.folder / "images" / f"{pair.name}.png", _as_uint8(pair.image), provenance=record)
        self.images.append(
            {
                "id": number,
                "file_name": f"{pair.name}.png",
                "width": width,
                "height": height,
                "synthetic": record["synthetic"],
            }
        )
        rows, cols = np.nonzero(pair.mask)
        if not len(rows):
            return
        self.annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,  # 1 has every reader ignore it, though a mask of run lengths is said to be a crowd's
                "area": len(rows),
                "bbox": [int(cols.min()), int(rows.min()), int(np.ptp(cols)) + 1, int(np.ptp(rows)) + 1],
                "segmentation": {"size": [height, width], "counts": run_lengths(pair.mask)},
            }
        )

    def finish(self) -> None:
        card = {
            "info": {"description": f"Vessel masks, {self.project.modality}", "version": __version__},
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": 1, "name": "vessel", "supercategory": "anatomy"}],
        }
        write_json_atomic(self.folder / "annotations.json", card)


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run-length encoding of a bool mask: lengths of runs, background first, columns first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def export_onnx(folder: str | Path, output: str | Path) -> float:
    """Write a segmenter's network as ONNX, for any size of image, and check that it computes the same.

    Parameters
    ----------
    folder : path-like
        Of a segmenter.
    output : path-like
        A new ``.onnx`` file. Its input is ``(batch, channels, height, width)`` float32 as
        `univg.segmentation.inputs.network_inputs` makes it, with sides that are multiples of the size in the metadata;
        its output is the logit of a vessel. The metadata hold modality, threshold and recipe.

    Returns
    -------
    float
        The largest difference of probability between torch and ONNX on a random image.

    Raises
    ------
    InputError
        If the packages are missing, the segmenter cannot be read or written so, or the results differ.
    """
    from univg.segmentation import Segmenter

    segmenter = Segmenter.load(folder)
    if segmenter.config.network in _NOT_AS_ONNX:
        raise InputError(
            f"A segmenter of the kind {segmenter.config.network} cannot be written as ONNX for any size of image",
            path=Path(folder),
            fix="Train one with another network, such as unet.",
        )
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401, torch needs it
    except ImportError as error:
        raise InputError(
            f"Exporting as ONNX needs the package {error.name}", fix="Install them: pip install 'univg[export]'."
        ) from error
    import torch

    multiple = segmenter.config.size_multiple
    channels = INPUT_SETS[segmenter.config.inputs]
    example = torch.randn(2, channels, 3 * multiple, 4 * multiple, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        axes = {0: torch.export.Dim("batch"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
        with _onnx_may_fail(folder):
            torch.onnx.export(
                segmenter.network,
                (example,),
                file,
                input_names=["image"],
                output_names=["logit"],
                dynamic_shapes=(axes,),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        model = onnx.load(file)
        metadata = {
            "made_by": f"UniVG {__version__}",
            "modality": str(segmenter.modality),
            "threshold": str(segmenter.threshold),
            "size_multiple": str(multiple),
            "config": json.dumps(segmenter.config.to_json()),
        }
        for key, value in metadata.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        onnx.checker.check_model(model)
        data = model.SerializeToString()
    batches = (example, example[:1, :, :multiple])
    with _onnx_may_fail(folder):
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        difference = max(_difference(segmenter.network, session, batch) for batch in batches)
    if not difference <= _TOLERANCE:
        raise InputError(f"ONNX computes something else: probabilities differ by {difference:.2g}", path=Path(folder))
    write_bytes_atomic(output, data)
    return difference


@contextmanager
def _onnx_may_fail(folder: str | Path) -> Iterator[None]:
    """Whatever torch and onnxruntime raise, which have dozens of kinds of errors, as an `InputError`."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error  # torch wraps the reason in a page of advice
        reason = (str(cause).splitlines() or [type(cause).__name__])[0][:200]
        raise InputError(
            f"This segmenter cannot be written as ONNX: {reason}",
            path=Path(folder),
            fix="Try other versions of torch, onnx and onnxruntime, or train one with the network unet.",
        ) from error


def _difference(network, session, batch) -> float:
    import torch

    with torch.inference_mode():
        expected = network(batch).float().sigmoid().numpy()
    (logit,) = session.run(None, {"image": batch.numpy()})
    return float(np.abs(expected - 1 / (1 + np.exp(-logit))).max())


def _as_uint8(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else np.rint(as_float(image) * 255).astype(np.uint8)
