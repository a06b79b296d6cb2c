"""Generative engines: vessel masks, and images of them, by latent diffusion."""

import importlib

_EXPORTS = {
    "univg.engines.adapters": ("Adapter", "attach_adapter", "import_loha", "load_adapter", "save_adapter"),
    "univg.engines.backbone": ("DiffusionBackbone",),
    "univg.engines.conditions": ("CONDITIONS", "condition_picture", "vessel_condition"),
    "univg.engines.config": (
        "AdapterConfig",
        "AutoencoderConfig",
        "DiffusionTrainConfig",
        "ImageTrainConfig",
        "SamplingConfig",
    ),
    "univg.engines.folders": ("load_autoencoder", "load_backbone", "load_controlnet"),
    "univg.engines.image_engine": ("ImageEngine", "synthesize_images", "train_image_engine"),
    "univg.engines.mask_engine": ("MaskEngine", "finetune_mask_engine", "nearest_dice", "sample_masks"),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'univg.engines' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
