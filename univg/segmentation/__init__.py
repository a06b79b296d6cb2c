"""Training a vessel segmenter on real and synthetic pairs, and using it."""

import importlib

_EXPORTS = {
    "univg.segmentation.config": ("SegmentationConfig",),
    "univg.segmentation.predict": ("Segmentation", "segment"),
    "univg.segmentation.prior": ("prior_segmenter",),
    "univg.segmentation.render": ("render_pairs",),
    "univg.segmentation.segmenter": ("Segmenter",),
    "univg.segmentation.train": ("train_segmenter",),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'univg.segmentation' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
