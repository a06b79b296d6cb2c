"""The tabs in the order of the work, and what they are called."""

from __future__ import annotations

from app import texts
from univg.weights import is_shipped
from univg.workflow.project import Project

TITLES = {
    "data": texts.TAB_DATA,
    "trees": texts.TAB_TREES,
    "masks": texts.TAB_MASKS,
    "images": texts.TAB_IMAGES,
    "adapt": texts.TAB_ADAPT,
    "review": texts.TAB_REVIEW,
    "segment": texts.TAB_SEGMENT,
}
# A tab exists only when it works: those of the engines need their weights, and Review pairs or what draws them.
_NEEDS = {"masks": "masks", "images": "images"}
TABS = tuple(tab for tab in TITLES if tab not in _NEEDS or is_shipped("models", _NEEDS[tab]))


def tabs_of(project: Project | None) -> tuple[str, ...]:
    """The tabs that work for `project`: pairs that came with it can be reviewed without the image engine."""
    has_pairs = project is not None and bool(project.pair_names())
    return tuple(tab for tab in TABS if tab != "review" or "images" in TABS or has_pairs)


def tab_title(tab: str, project: Project | None) -> str:
    """As it stands above the tab, without the mark of its state: "6 Review"."""
    tabs = tabs_of(project)
    return f"{tabs.index(tab) + 1} {TITLES[tab]}" if tab in tabs else TITLES[tab]
