"""UniVG: five annotated images in, a trustworthy blood-vessel segmenter out."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# Loaded on first use, so that `import univg` stays fast and needs no torch.
_EXPORTS = {
    "univg.types": ("ImageMaskPair", "Modality", "SupportSet"),
    "univg.errors": ("Cancelled", "InputError", "JobRunningError"),
    "univg.progress": ("ProgressEvent",),
    "univg.io": ("load_support_set", "read_image", "read_mask"),
    "univg.metrics": ("SegmentationMetrics", "evaluate"),
    "univg.overlay": ("overlay_mask",),
    "univg.geometry": ("TreeMorphometry", "VesselTree", "extract_tree", "measure_tree", "rasterize_tree"),
    "univg.sca": (
        "SCAConfig",
        "assign_radii",
        "find_centreline",
        "generate_tree",
        "grow_tree",
        "sample_attraction_points",
    ),
    "univg.engines": (
        "AdapterConfig",
        "DiffusionBackbone",
        "DiffusionTrainConfig",
        "ImageEngine",
        "ImageTrainConfig",
        "MaskEngine",
        "SamplingConfig",
        "attach_adapter",
        "finetune_mask_engine",
        "load_backbone",
        "load_controlnet",
        "sample_masks",
        "synthesize_images",
        "train_image_engine",
    ),
    "univg.segmentation": ("SegmentationConfig", "Segmenter", "render_pairs", "segment", "train_segmenter"),
    "univg.workflow": ("PRESETS", "Job", "Preset", "Project", "run_pipeline"),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'univg' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
