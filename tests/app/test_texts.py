"""Every text that the interfaces ask for exists, and none is left over."""

from __future__ import annotations

import re
from pathlib import Path

from app import texts

APP = Path(texts.__file__).parent


def test_problems_end_without_a_full_stop_as_the_way_out_follows_it():
    sources = "\n".join(file.read_text(encoding="utf-8") for file in APP.rglob("*.py"))
    problems = set(re.findall(r"InputError\(\s*texts\.([A-Z][A-Z0-9_]*)", sources))
    assert len(problems) > 30
    assert not {name for name in problems if getattr(texts, name).endswith(".")}


def test_texts_asked_for_exist_and_all_are_asked_for():
    sources = "\n".join(file.read_text(encoding="utf-8") for file in APP.rglob("*.py"))
    asked = set(re.findall(r"\btexts\.([A-Z][A-Z0-9_]*)", sources))
    there = {name for name in vars(texts) if name.isupper()}
    assert not asked - there
    named = re.findall(r"^([A-Z][A-Z0-9_]*) = ", Path(texts.__file__).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(named) == len(set(named))
    assert not {name for name in there - asked if len(re.findall(rf"\b{name}\b", sources)) < 2}
