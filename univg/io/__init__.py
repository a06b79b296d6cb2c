"""Reading and writing files: images, masks, pairs of them, JSON, with errors a person can act on."""

from __future__ import annotations

from univg.io.pairs import (
    Finding,
    PairFiles,
    check_pair,
    check_pairs,
    check_stem,
    is_synthetic,
    load_support_set,
    match_pair_files,
    refuse_synthetic,
    stem_of,
)
from univg.io.read import read_image, read_image_info, read_mask
from univg.io.source import MAX_PIXELS, ImageInfo
from univg.io.write import (
    file_stamp,
    read_json,
    read_provenance,
    sha256_file,
    write_atomic,
    write_bytes_atomic,
    write_image,
    write_json_atomic,
    write_mask,
)

__all__ = [
    "MAX_PIXELS",
    "Finding",
    "ImageInfo",
    "PairFiles",
    "check_pair",
    "check_pairs",
    "check_stem",
    "file_stamp",
    "is_synthetic",
    "load_support_set",
    "match_pair_files",
    "read_image",
    "read_image_info",
    "read_json",
    "read_mask",
    "read_provenance",
    "refuse_synthetic",
    "sha256_file",
    "stem_of",
    "write_atomic",
    "write_bytes_atomic",
    "write_image",
    "write_json_atomic",
    "write_mask",
]
