"""Importing Gradio in half the time, without files written into its installation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_MODULE, _FUNCTION = "gradio.component_meta", "create_or_modify_pyi"


def leave_interface_files_alone() -> None:
    """To be called before Gradio is imported.

    For each class of its components Gradio otherwise parses the source, renders a template and writes a ``.pyi`` beside
    it, for editors: 2.4 of the 5.5 s that its import takes, and a change to an installation that others may share.
    """
    if _MODULE not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if hasattr(module, _FUNCTION):  # a later Gradio may do without it
            setattr(module, _FUNCTION, _write_nothing)


def _write_nothing(*_: object) -> None:
    pass
