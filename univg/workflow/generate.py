"""Synthetic pairs for a project: a tree, a mask of it, an image of the mask, and checks of both (eqs. 16 and 17).

Pair i depends on the seed, on i and on what it is made with alone, so neither an interruption nor the number of
machines changes a pixel.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from univg.engines import MaskEngine, SamplingConfig, sample_masks
from univg.errors import Cancelled, InputError
from univg.io import file_stamp, read_json, write_json_atomic
from univg.progress import OnProgress, ProgressEvent, ShouldStop, StageClock, ignore_progress, never_stop
from univg.segmentation.inputs import shrink_support
from univg.types import SupportSet
from univg.workflow.engines import load_mask_engine, support_without
from univg.workflow.image_engines import draw_pair, load_image_engine
from univg.workflow.job_context import JobContext
from univg.workflow.live_pictures import SavePicture, pair_sheet, saver
from univg.workflow.model_versions import kept_apart_in
from univg.workflow.near_duplicates import update_near_duplicates
from univg.workflow.pair_checks import check_synthetic_pair
from univg.workflow.presets import CONDITIONING, IMAGE_STRENGTH
from univg.workflow.project import Project
from univg.workflow.stages import MAX_PAIRS
from univg.workflow.start_trees import engine_size, grow_starts
from univg.workflow.verdicts import flags_of

if TYPE_CHECKING:
    from univg.workflow.bulk.dask_workers import Refusal

STAGE = "pairs"
_PICTURE_EVERY = 5  # pairs


@dataclass(frozen=True)
class GenerateConfig:
    """How pairs are made.

    Attributes
    ----------
    count : int
    seed : int
        Pair i is made with ``seed`` + i.
    alpha : float
        α of the mask engine.
    strength : float
        How far noise covers the tree that a mask starts from.
    conditioning : float
        How strongly a mask conditions its image.
    image_strength : float
        How far noise covers the rendered image that an image starts from: the mask drawn on the background of an
        annotated image. 1 starts from noise alone.
    steps : int
        Denoising steps.
    mask_engine, image_engine : str
        Versions; the newest by default. Without any adapted mask engine, trees themselves are the masks.
    """

    count: int
    seed: int = 0
    alpha: float = 0.7
    strength: float = 0.45
    conditioning: float = CONDITIONING
    image_strength: float = IMAGE_STRENGTH
    steps: int = 12
    mask_engine: str = ""
    image_engine: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or not 1 <= self.count <= MAX_PAIRS:
            raise ValueError(f"`count` must be a whole number from 1 to {MAX_PAIRS}, got {self.count!r}")
        for name, most in (("alpha", math.inf), ("conditioning", math.inf), ("strength", 1), ("image_strength", 1)):
            value = getattr(self, name)
            if not 0 <= value <= most or value == math.inf:
                upper = "" if most == math.inf else " and at most 1"
                raise ValueError(f"`{name}` must be 0 or more{upper}, got {value}")
        self.mask_sampling(64)  # they check the rest
        self.image_sampling(64)

    def mask_sampling(self, size: int, index: int = 0) -> SamplingConfig:
        seed = self.seed + index
        return SamplingConfig(steps=self.steps, scale=self.alpha, strength=self.strength, size=size, seed=seed)

    def image_sampling(self, size: int, index: int = 0) -> SamplingConfig:
        seed = self.seed + index
        return SamplingConfig(
            steps=self.steps, scale=self.conditioning, strength=self.image_strength, size=size, seed=seed
        )

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> GenerateConfig:
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]!r}")
        return cls(**data)


def generate_pairs(
    project: Project,
    config: GenerateConfig,
    *,
    device: str = "auto",
    scheduler: str | None = None,
    without: str | None = None,
    engines: Sequence[str] | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    save_picture: SavePicture | None = None,
) -> dict:
    """Write synthetic pairs to a project, or those of them that are missing there.

    Trees are grown along all annotated masks but that of the pair called `without`.

    Parameters
    ----------
    project : Project
        With an adapted image engine.
    config : GenerateConfig
    device : {'auto', 'cpu', 'cuda', 'mps'}
    scheduler : str, optional
        Address of a Dask scheduler whose workers reach the project folder under the same name; this process does the
        work by default.
    engines : sequence of str, optional
        What an earlier attempt found with `choose_engines`; they are chosen now by default.
    on_progress, should_stop : callable
    save_picture : callable, optional
        Gets a picture of the newest pairs every few of them, where this process makes them.

    Returns
    -------
    dict
        ``{"pairs", "made", "flagged", "agreement", "names"}``: how many there are, were made now and carry a flag, the
        mean agreement of all, and their names.

    Raises
    ------
    InputError
        If there is no annotated image or no adapted image engine, or the cluster cannot be reached.
    Cancelled
        When `should_stop` says so; finished pairs stay.
    """
    plan = _Plan.of(project, config, without, engines or choose_engines(project, config))
    there = set(project.pair_names())
    missing = [index for index in range(config.count) if plan.name(index) not in there]
    done, clock = config.count - len(missing), StageClock(first_step=config.count - len(missing), warmup_steps=1)
    on_progress(ProgressEvent(STAGE, done, config.count))
    with closing(_made(plan, missing, device, scheduler, should_stop)) as made:
        for agreement in made:
            done += 1
            picture, drawn = None, done - (config.count - len(missing))
            if save_picture and scheduler is None and (drawn % _PICTURE_EVERY == 1 or drawn == len(missing)):
                newest = [project.synthetic_pair(plan.name(index)) for index in missing[max(drawn - 3, 0) : drawn]]
                picture = save_picture("pairs", pair_sheet(newest))
            event = ProgressEvent(STAGE, done, config.count, metrics={"agreement": agreement}, picture=picture)
            on_progress(clock.timed(event))
    twins = update_near_duplicates(project, should_stop=should_stop)
    if should_stop():
        raise Cancelled
    names = [plan.name(index) for index in range(config.count)]
    records = {name: project.pair_record(name) for name in names}
    return {
        "pairs": config.count,
        "made": len(missing),
        "flagged": sum(bool(flags_of(record, name in twins)) for name, record in records.items()),
        "agreement": float(np.mean([record["checks"]["agreement"] for record in records.values()])),
        "names": names,
    }


def run_generate_job(project: Project, params: dict, context: JobContext) -> dict:
    """The work of a ``generate`` job: `params` are those of `GenerateConfig`, ``device`` and ``scheduler``."""
    settings = {key: value for key, value in params.items() if key not in ("device", "scheduler")}
    try:
        config = GenerateConfig.from_json(settings)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error
    engines = _engines_of_job(project, config, context)
    summary = generate_pairs(
        project,
        config,
        device=params.get("device", "auto"),
        scheduler=params.get("scheduler"),
        without=kept_apart_in(context, project, params),
        engines=engines,
        on_progress=context.on_progress,
        should_stop=context.should_stop,
        save_picture=saver(context.folder),
    )
    return {key: value for key, value in summary.items() if key != "names"}


def choose_engines(project: Project, config: GenerateConfig) -> list[str]:
    """The versions of the mask engine, empty where none is adapted, and of the image engine that `config` means now."""
    if not project.support_names():
        raise InputError("The project has no annotated image", path=project.path, fix="Add some: Data tab.")
    chosen = []
    for name, wanted, known in (
        ("mask_engine", config.mask_engine, project.mask_engine_versions()),
        ("image_engine", config.image_engine, project.image_engine_versions()),
    ):
        if wanted and wanted not in known:
            raise InputError(f"There is no {name.replace('_', ' ')} {wanted!r}", path=project.path)
        chosen.append(wanted or (known[-1] if known else ""))
    if not chosen[1]:
        raise InputError(
            "The image engine is not adapted yet", path=project.path, fix="Adapt it first, in the Images tab."
        )
    return chosen


def _engines_of_job(project: Project, config: GenerateConfig, context: JobContext) -> list[str]:
    """`choose_engines`, put on record in the checkpoint: others may be adapted before the job is resumed."""
    record = context.checkpoint_folder / "engines.json"
    if not record.is_file():
        write_json_atomic(record, choose_engines(project, config))
    return read_json(record)


@dataclass(frozen=True)
class _Plan:
    """What decides every pair of a run; it travels to workers."""

    path: Path
    config: GenerateConfig
    mask_engine: str
    image_engine: str
    without: str | None
    key: str

    @classmethod
    def of(cls, project: Project, config: GenerateConfig, without: str | None, engines: Sequence[str]) -> _Plan:
        # Pairs of the same engines are the same, whether these were named or are the newest.
        config = replace(config, mask_engine=engines[0], image_engine=engines[1])
        settings = {key: value for key, value in config.to_json().items() if key not in ("count", "seed")}
        made_of = [settings, list(engines), project.support_hashes(), without]
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:8]
        return cls(project.path, config, *engines, without, key)

    def name(self, index: int) -> str:
        return f"synthetic-{self.key}-{self.config.seed + index:06d}"


def _made(
    plan: _Plan, missing: list[int], device: str, scheduler: str | None, should_stop: ShouldStop
) -> Iterator[float]:
    """Make the `missing` pairs, here or on workers, and yield the agreement of each."""
    if scheduler is not None and missing:
        yield from _made_by_workers(plan, missing, device, scheduler, should_stop)
        return
    for index in missing:
        if should_stop():
            raise Cancelled
        yield _make_pair(plan, index, device)


def _made_by_workers(
    plan: _Plan, missing: list[int], device: str, scheduler: str, should_stop: ShouldStop
) -> Iterator[float]:
    from univg.workflow.bulk.dask_workers import check_workers, cluster, results_of

    with cluster(scheduler, None, len(missing)) as client:
        check_workers(client, should_stop)
        yield from results_of(
            client,
            lambda index: client.submit(_make_pair_or_refuse, plan, index, device, pure=False),
            missing,
            what="pair",
            folder=plan.path,
            should_stop=should_stop,
        )


def _make_pair_or_refuse(plan: _Plan, index: int, device: str) -> float | Refusal:
    """One task of a worker."""
    from univg.workflow.bulk.dask_workers import Refusal

    try:
        return _make_pair(plan, index, device)
    except InputError as error:
        return Refusal(error.problem, error.path, error.fix)


# A worker may have several threads, and what an adapter changes in a network while it draws is seen by all of them.
_one_at_a_time = threading.Lock()


def _make_pair(plan: _Plan, index: int, device: str) -> float:
    """Make one pair, check it and write it; returns the agreement."""
    with _one_at_a_time:
        return _made_pair(plan, index, device)


def _made_pair(plan: _Plan, index: int, device: str) -> float:
    project, config = Project.open(plan.path), plan.config
    support, mask_engine, image_engine, critic = _parts(plan, device, _engine_stamps(project, plan))
    size = engine_size(project.working_size)

    # 1. A tree, and a mask of it
    (mask,) = grow_starts(support, 1, seed=config.seed + index)
    if mask_engine is not None:
        mask = sample_masks(mask_engine, 1, config=config.mask_sampling(size, index), trees=[mask])[0]

    # 2. An image of the mask, from noise or from a rendered one
    sampling = config.image_sampling(size, index)
    pair = draw_pair(image_engine, mask, support, sampling, name=plan.name(index))

    # 3. Checks, and the record of all of it
    checks = check_synthetic_pair(pair, support.pairs, critic.segmenter, expected_agreement=critic.expected_agreement)
    learnt = [engine.card.get("support_sha256") or {} for engine in (mask_engine, image_engine) if engine is not None]
    seen = {sha for hashes in (support.sha256, *learnt) for sha in hashes.values()}
    record = {
        "settings": {**config.to_json(), "count": None, "seed": config.seed + index},
        "mask_engine": plan.mask_engine,
        "image_engine": plan.image_engine,
        "support_sha256": sorted(seen),  # without names: the pair may be handed on
        "checks": checks.to_json(),
    }
    project.add_synthetic_pair(pair, record)
    return checks.agreement


def _engine_stamps(project: Project, plan: _Plan) -> tuple[tuple[int, int, int], ...]:
    """Of the engines' cards: a worker outlives a project, and one made in its place has versions of the same names."""
    folders = (project.adapters_folder / plan.mask_engine, project.image_engines_folder / plan.image_engine)
    return tuple(file_stamp(folder / "engine.json") for folder in folders)


@lru_cache(maxsize=1)
def _parts(plan: _Plan, device: str, _: tuple) -> tuple[SupportSet, MaskEngine | None, object, object]:
    """What a run needs, loaded once in a process."""
    project = Project.open(plan.path)
    masks = load_mask_engine(project, plan.mask_engine, device=device) if plan.mask_engine else None
    support = shrink_support(support_without(project, plan.without), engine_size(project.working_size))
    return support, masks, *load_image_engine(project, plan.image_engine, device=device)
