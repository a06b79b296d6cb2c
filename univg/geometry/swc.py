"""Vessel trees as SWC, the exchange format of neuron and vessel tracing tools.

SWC holds x to the right and y downwards, here in pixels, so ``(x, y, z)`` is ``(col, row, 0)``; nowhere else do the two
orders meet. What SWC has no column for stands in comments that other tools skip: ``# univg shape 512 512``,
``# univg link 3 17`` and ``# univg meta {...}``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import numpy as np

from univg.errors import InputError
from univg.geometry.tree import VesselTree

_COLUMNS = "id type x y z radius parent"
_UNDEFINED = 0  # SWC's types are parts of a neuron


def write_swc(tree: VesselTree) -> str:
    """`tree` as SWC text, the first node 1; `read_swc` gives back the same numbers, bit for bit.

    Parameters
    ----------
    tree : VesselTree

    Returns
    -------
    str
        Lines end in a line feed.
    """
    height, width = tree.shape
    lines = [
        "# vessel tree; x is the column and y the row, in pixels",
        f"# univg shape {height} {width}",
        *(f"# univg link {first + 1} {second + 1}" for first, second in tree.links.tolist()),
        *([f"# univg meta {json.dumps(tree.meta)}"] if tree.meta else []),
        f"# {_COLUMNS}",
    ]
    nodes = zip(tree.positions.tolist(), tree.radii.tolist(), tree.parents.tolist(), strict=True)
    for index, ((row, col), radius, parent) in enumerate(nodes, start=1):
        lines.append(f"{index} {_UNDEFINED} {col!r} {row!r} 0 {radius!r} {parent + 1 if parent >= 0 else -1}")
    return "\n".join(lines) + "\n"


def read_swc(text: str, shape: tuple[int, int] | None = None) -> VesselTree:
    """The vessel tree of SWC text.

    Parameters
    ----------
    text : str
        Nodes in any order, with any ids from 0 up; they stay in this order except that parents come first. Types are
        not kept.
    shape : tuple of int, optional
        ``(height, width)`` of the frame in pixels, for text that does not say it.

    Returns
    -------
    VesselTree

    Raises
    ------
    InputError
        A ValueError that names the line: of the wrong form, not in the plane, an id twice, a parent that is missing, a
        cycle. Also for a frame that is not known, or is not `shape`.
    """
    file = _parse(text)
    if shape is not None and file.shape is not None and tuple(shape) != file.shape:
        raise InputError(f"`shape` is {tuple(shape)} but the SWC text says {file.shape}", fix="Leave `shape` out.")
    shape = shape or file.shape
    if shape is None:
        raise InputError("The SWC text does not say how large its frame is", fix="Give `shape` as (height, width).")

    order = _parents_first(file)
    rank = {node: index for index, node in enumerate(order)}
    for line, *ends in file.links:
        for end in ends:
            if end not in rank:
                raise _error(line, f"joins node {end}, which is not in the file")
    return VesselTree(
        positions=np.array([file.nodes[node].position for node in order], np.float64).reshape(-1, 2),
        parents=np.array([rank.get(file.nodes[node].parent, -1) for node in order], np.int64),
        radii=np.array([file.nodes[node].radius for node in order], np.float64),
        shape=(int(shape[0]), int(shape[1])),
        meta=file.meta,
        links=np.array([(rank[first], rank[second]) for _, first, second in file.links], np.int64).reshape(-1, 2),
    )


@dataclass(frozen=True)
class _Node:
    line: int
    position: tuple[float, float]
    radius: float
    parent: int


@dataclass
class _File:
    nodes: dict[int, _Node] = field(default_factory=dict)
    links: list[tuple[int, int, int]] = field(default_factory=list)  # line, node, node
    shape: tuple[int, int] | None = None
    meta: dict = field(default_factory=dict)


def _parse(text: str) -> _File:
    file = _File()
    for line, content in enumerate(text.split("\n"), start=1):
        content = content.strip()
        if content.startswith("#"):
            _parse_comment(line, content.removeprefix("#").split(maxsplit=2), file)
        elif content:
            index, node = _parse_node(line, content.split())
            if index in file.nodes:
                raise _error(line, f"has the id {index}, as line {file.nodes[index].line} has")
            file.nodes[index] = node
    return file


def _parse_node(line: int, cells: list[str]) -> tuple[int, _Node]:
    if len(cells) != 7:
        raise _error(line, f"has {len(cells)} columns")
    try:
        index, _, parent = int(cells[0]), int(cells[1]), int(cells[6])
        x, y, z, radius = map(float, cells[2:6])
    except ValueError as error:
        raise _error(line, f"holds no such numbers ({error})") from None
    if not all(map(math.isfinite, (x, y, z, radius))) or radius < 0:
        raise _error(line, "holds a number that is not finite, or a negative radius")
    if z != 0:
        raise _error(line, f"lies at z = {z:g}; a vessel tree lies in the plane z = 0")
    if index < 0 or parent < -1:
        raise _error(line, f"has the id {index} and the parent {parent}; ids are 0 or more, and only roots have -1")
    return index, _Node(line, (y, x), radius, parent)


def _parse_comment(line: int, words: list[str], file: _File) -> None:
    if words[:1] != ["univg"]:
        return
    try:
        match words[1:]:
            case ["shape", rest]:
                height, width = map(int, rest.split())
                if min(height, width) < 1:
                    raise ValueError("a frame has at least one pixel")
                file.shape = (height, width)
            case ["link", rest]:
                first, second = map(int, rest.split())
                file.links.append((line, first, second))
            case ["meta", rest]:
                file.meta = dict(json.loads(rest))
            case _:
                raise ValueError("neither shape, link nor meta")
    except (TypeError, ValueError, RecursionError) as error:
        raise _error(line, f"is a comment of UniVG that cannot be read ({error})") from None


def _parents_first(file: _File) -> list[int]:
    """Ids in the order of the file, except that each comes after its parent."""
    order: dict[int, None] = {}
    for node in file.nodes:
        way: dict[int, None] = {}
        while node != -1 and node not in order:
            if node in way:
                raise _error(file.nodes[node].line, f"leads from node {node} back to itself")
            way[node] = None
            parent = file.nodes[node].parent
            if parent != -1 and parent not in file.nodes:
                raise _error(file.nodes[node].line, f"has the parent {parent}, which is not in the file")
            node = parent
        order.update(dict.fromkeys(reversed(way)))
    return list(order)


def _error(line: int, problem: str) -> InputError:
    return InputError(f"Line {line} of the SWC text {problem}", fix=f"A node is one line: {_COLUMNS}.")
