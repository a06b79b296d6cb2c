"""Trees: grow a vessel tree live, from roots, a boundary and obstacles that are drawn in the viewer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QComboBox, QLineEdit, QSpinBox, QVBoxLayout, QWidget

from app import texts
from app.napari_plugin import layers, parts, tree_scene
from app.napari_plugin.background import Newest, in_words
from app.napari_plugin.helpers import TOOLS
from app.napari_plugin.tree_parts import ManyTrees, Variations
from app.napari_plugin.tree_scene import CHANGED, MASK, PRESET, Grown, Growth
from univg.errors import InputError
from univg.overlay import AGREEMENT
from univg.sca import SCAConfig, TreeScene
from univg.workflow.tree_presets import save_tree_preset

if TYPE_CHECKING:
    from napari.viewer import Viewer

_DRAWN = ("roots", "boundary", "obstacles")
_TREE, _GROWTH = "tree", "growth"
_FRAME_MS, _LAST_FRAME_MS = 60, 1200


class TreesPanel(parts.Panel):
    """Roots are points, boundary and obstacles are shapes; each change grows the tree anew."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.scene: TreeScene | None = None
        self.grown: Grown | None = None
        failed = self.while_open(self._say_error)
        self._newest = Newest(self.while_open(self._show), failed)
        self._extra = Newest(self.while_open(lambda show: show()), failed)
        self._varied: TreeScene | None = None  # what the variations on screen, or on their way to it, are of
        self._growth: Growth | None = None
        self._frame = 0
        self._film = QTimer(self)
        self._film.timeout.connect(self.guarded(self._next_frame))
        self.source = QComboBox()
        self.source.setToolTip(texts.TREES_SOURCE_HELP)
        self.recipe = QComboBox()
        self.recipe.setToolTip(texts.TREES_RECIPE_HELP)
        fields = parts.form()
        fields.addRow(texts.TREES_SOURCE, self.source)
        fields.addRow(texts.TREES_RECIPE, self.recipe)
        self.body.addLayout(fields)

        self.body.addWidget(parts.heading(texts.NAPARI_DRAW))
        draw = [
            self.button(texts.TREES_CLICKS[kind], lambda name=name: self.draw(name), tip=texts.NAPARI_DRAW_TIPS[name])
            for name, kind in zip(_DRAWN, ("root", "boundary", "obstacle"), strict=True)
        ]
        self.clear_button = self.button(texts.TREES_CLEAR, self.clear, tip=texts.NAPARI_CLEAR_TIP)
        self._cleared: dict[str, tuple] = {}
        self.body.addLayout(parts.row(*draw, self.clear_button))

        self.sliders: dict[str, parts.Slider] = {}
        more = QWidget()
        below = QVBoxLayout(more)
        below.setContentsMargins(0, 0, 0, 0)
        for number, (name, (label, tip, low, high, step)) in enumerate(texts.TREE_SLIDERS.items()):
            slider = parts.Slider(label, tip, low, high, step)
            slider.moved.connect(self.guarded(lambda _value: self._settings_moved()))
            self.sliders[name] = slider
            (self.body if number < texts.TREES_MAIN else below).addWidget(slider)
        self.closed = QCheckBox(texts.TREES_CLOSED)
        self.closed.setToolTip(texts.TREES_CLOSED_HELP)
        self.closed.toggled.connect(self.guarded(lambda _on: self._settings_moved()))
        below.addWidget(self.closed)
        self.advanced = parts.Fold(texts.ADVANCED, more)
        self.body.addWidget(self.advanced)

        self.seed = QSpinBox()
        self.seed.setRange(0, 2**31 - 1)
        self.seed.setToolTip(texts.TREES_SEED_HELP)
        self.seed.valueChanged.connect(self.guarded(self._seed_moved))
        self.reroll_button = self.button(texts.TREES_REROLL, lambda: self.seed.setValue(tree_scene.new_seed()))
        seed_line = parts.row(self.seed, self.reroll_button)
        fields = parts.form()
        fields.addRow(texts.SEED, seed_line)
        self.preset_name = QLineEdit()
        self.preset_name.setPlaceholderText(texts.TREES_PRESET_NAME)
        self.save_button = self.button(texts.TREES_PRESET_SAVE, self._save_preset)
        self.body.addLayout(fields)
        self.body.addWidget(self.preset_name)
        self.body.addWidget(self.save_button)
        self.facts = parts.words(texts.TREES_EMPTY)
        self.body.addWidget(self.facts)
        self.animate_button = self.button(texts.TREES_ANIMATE, self.watch_it_grow, tip=texts.NAPARI_ANIMATE_TIP)
        self.variations_button = self.button(texts.TREES_VARIATIONS, self.vary, tip=texts.TREES_VARIATIONS_HELP)
        self.body.addLayout(parts.row(self.animate_button, self.variations_button))
        self.variations = Variations()
        self.variations.chosen.connect(self.seed.setValue)
        self.body.addWidget(self.variations)
        self.many = ManyTrees(self.session, self._required_scene, self.guarded)
        self.many_part = parts.Fold(texts.TREES_MANY_TITLE, self.many)
        self.body.addWidget(self.many_part)
        self.body.addWidget(parts.words(texts.TREES_UNIT_HELP))
        self.body.addStretch(1)

        self.source.currentIndexChanged.connect(self.guarded(lambda _: self._source_chosen()))
        self.recipe.currentIndexChanged.connect(self.guarded(lambda _: self._recipe_chosen()))
        self.session.project_changed.connect(self.guarded(self._project_changed))
        self.session.image_changed.connect(self.guarded(self.refresh))
        self.session.mask_changed.connect(self.while_open(self._mask_painted))  # not guarded: that empties the message
        self.session.project_changed.connect(self.guarded(self.many.project_changed))
        for name in _DRAWN:  # by a panel that was closed since
            if (layer := self.session.layer(name)) is not None:
                layer.events.data.connect(self._drawn_changed)
        self.guarded(self.refresh)()
        self.guarded(self.many.project_changed)()

    def refresh(self) -> None:
        """Offer what can be grown from now, and go on with the source that was chosen where it still is there."""
        project = self.session.project
        self.setEnabled(project is not None)
        self._stop_film()
        self._offer_back({})
        self.grown = None
        self._forget_variations()
        if project is None:
            self.scene = None
            return
        on_screen = self.session.open.name if self.session.open else ""
        choices = tree_scene.sources(project, on_screen)
        values = [value for _, value in choices]
        chosen = self.source.currentData()
        if on_screen and (chosen is None or not chosen.startswith(PRESET)):
            chosen = f"{MASK}{on_screen}"
        elif chosen not in values or not on_screen:
            chosen = next(value for value in values if value.startswith(PRESET))
        parts.fill(self.source, choices, chosen)
        self._start(chosen)

    def _project_changed(self) -> None:
        self.scene = None
        self.refresh()

    def leave(self) -> None:
        self._stop_film()

    def draw(self, name: str) -> None:
        """Turn to the layer that roots, the boundary or obstacles are drawn in."""
        self._required_scene()
        layer = self._drawn_layer(name)
        self.session.viewer.layers.selection.active = layer
        layer.mode = "add" if name == "roots" else "add_polygon"

    def clear(self) -> None:
        """Take away all that was drawn; pressed once more, bring it back. The tree itself stays."""
        cleared = self._cleared
        if cleared:
            for name, drawn in cleared.items():
                layers.give_back(self._drawn_layer(name), drawn)
        else:
            found = {name: layer for name in _DRAWN if (layer := self.session.layer(name)) is not None}
            cleared = {name: layers.drawn_in(layer) for name, layer in found.items() if len(layer.data)}
            for name in found:
                self.session.drop_layer(name)
            self._offer_back(cleared)
        self.grow()

    def _offer_back(self, cleared: dict[str, tuple]) -> None:
        """Let the button bring back what it took away, until something else is drawn."""
        self._cleared = cleared
        label, tip = texts.NAPARI_UNCLEAR if cleared else (texts.TREES_CLEAR, texts.NAPARI_CLEAR_TIP)
        self.clear_button.setText(label)
        self.clear_button.setToolTip(tip)

    def grow(self) -> None:
        """Grow what the controls and the drawn layers say; of several wishes in a row the newest is met."""
        scene = self._required_scene()
        drawn = {name: self.session.layer(name) for name in _DRAWN}
        boundary = layers.polygons_in(drawn["boundary"]) if drawn["boundary"] is not None else ()
        try:
            scene = replace(
                scene,
                seed=self.seed.value(),
                roots=layers.points_in(drawn["roots"]) if drawn["roots"] is not None else (),
                boundary=boundary[-1] if boundary else (),
                obstacles=layers.polygons_in(drawn["obstacles"]) if drawn["obstacles"] is not None else (),
            )
        except ValueError as error:
            raise InputError(texts.tree_problem(error)) from error
        self.scene = scene
        if self._varied is not None and tree_scene.without_seed(scene) != self._varied:
            self._forget_variations()
        mask, image = self._guide()
        self._newest.ask(lambda: TOOLS.call(tree_scene.grow, scene, mask, image))

    def watch_it_grow(self) -> None:
        """Show how the tree grew, or stop showing it."""
        if self._film.isActive():
            self._stop_film()
            return
        self._required_scene()
        grown = self.grown
        if grown is None:
            raise InputError(texts.NAPARI_NO_TREE, fix=texts.NAPARI_NO_TREE_FIX)

        def work():
            growth = TOOLS.call(tree_scene.growth_of, grown.tree)
            return lambda: self._start_film(grown, growth)

        self._extra.ask(work)

    def vary(self) -> None:
        """Grow nine more trees of the same parameters, to choose one of."""
        scene, (mask, image) = self._required_scene(), self._guide()
        varied = self._varied = tree_scene.without_seed(scene)

        def work():
            trees = TOOLS.call(tree_scene.variations, scene, mask, image)
            return lambda: self.variations.show_trees(trees) if self._varied is varied else None

        self._extra.ask(work)

    def _forget_variations(self) -> None:
        """A click on one would grow another tree than it shows."""
        self._varied = None
        self.variations.show_trees([])

    def _mask_painted(self) -> None:
        if self.scene is not None and self._guide()[0] is not None:
            self._forget_variations()

    def _guide(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The mask and image that the scene grows along; None for a preset."""
        current = self.session.open
        if self.scene.mask_name and current is not None and current.name == self.scene.mask_name:
            return self.session.mask(), current.image
        return None, None

    # --- changes of the controls

    def _source_chosen(self) -> None:
        source = self.source.currentData()
        name = source.removeprefix(MASK)
        on_screen = self.session.open.name if self.session.open else ""
        if source.startswith(MASK) and name != on_screen:
            self.session.open_image(name)  # which calls `refresh` when it is there
            return
        self._start(source)

    def _start(self, source: str) -> None:
        """A scene of `source`, without anything drawn."""
        project, current = self.session.required_project(), self.session.open
        side = project.working_size
        shape = current.image.shape[:2] if current is not None else (side, side)
        config = self._kept_config(source) or tree_scene.default_config(source, project.modality)
        which = (
            {"preset": source.removeprefix(PRESET)}
            if source.startswith(PRESET)
            else {"mask_name": source.removeprefix(MASK)}
        )
        self.scene = TreeScene(project.modality, tuple(shape), config, self.seed.value(), **which)
        self._show_settings()
        self.grow()

    def _kept_config(self, source: str) -> SCAConfig | None:
        """The parameters so far, as the user left them: from mask to mask, and for a preset until another is chosen."""
        if self.scene is None or self.scene.modality is not self.session.required_project().modality:
            return None
        same_preset = source == f"{PRESET}{self.scene.preset}"
        return self.scene.config if same_preset or (source.startswith(MASK) and self.scene.mask_name) else None

    def _recipe_chosen(self) -> None:
        key = self.recipe.currentData()
        if key == CHANGED:
            return
        found = tree_scene.recipes(self.session.required_project(), self.source.currentData())
        self.scene = replace(self._required_scene(), config=found[key][1])
        self._show_settings()
        self.grow()

    def _settings_moved(self) -> None:
        values = {name: slider.value for name, slider in self.sliders.items()}
        scene = self._required_scene()
        config = tree_scene.with_settings(scene.config, values, closed=self.closed.isChecked())
        self.scene = replace(scene, config=config)
        self._show_recipe()
        self.grow()

    def _seed_moved(self, _value: int) -> None:
        if self.scene is not None:
            self.grow()

    def _save_preset(self) -> None:
        name = save_tree_preset(self.session.required_project(), self.preset_name.text(), self._required_scene())
        self._show_recipe()
        self.say(texts.TREES_PRESET_SAVED.format(name=name))

    # --- what is shown

    def _show(self, result: tuple) -> None:
        scene, grown = result
        if self.scene is None or tuple(scene.shape) != tuple(self.scene.shape):
            return
        if scene.mask_name == self.scene.mask_name:
            self.scene = replace(self.scene, hub=scene.hub)
        self._stop_film()
        self.grown = grown
        layer = self.session.layer(_TREE)
        if layer is not None and layer.data.shape == grown.mask.shape:
            layer.data = grown.mask.astype(np.uint8)
        else:
            active = self.session.viewer.layers.selection.active
            layer = layers.add_mask(self.session.viewer, grown.mask, name=_TREE, spacing_mm=self._spacing())
            layer.colormap = layers.mask_colours(AGREEMENT)
            layer.editable = False
            self.session.keep_layer(_TREE, layer)
            if active is not None:
                self.session.viewer.layers.selection.active = active
        roots = len(grown.tree.roots)
        self.facts.setText(
            texts.TREES_FACTS.format(
                nodes=len(grown.tree),
                roots=roots,
                noun=texts.noun(roots, "root"),
                density=100 * grown.mask.mean(),
                ms=grown.milliseconds,
            )
        )
        self.say("")

    def _start_film(self, grown: Grown, growth: Growth) -> None:
        if grown is not self.grown:  # another tree grew meanwhile
            return
        layer = self.session.layer(_GROWTH)
        if layer is None:
            viewer = self.session.viewer
            active = viewer.layers.selection.active
            layer = layers.add_mask(viewer, growth.frame(0).astype(bool), name=_GROWTH, spacing_mm=self._spacing())
            layer.colormap = layers.mask_colours(AGREEMENT)
            layer.editable = False
            self.session.keep_layer(_GROWTH, layer)
            if active is not None:
                viewer.layers.selection.active = active
        layers.show_growth(layer, growth.frame(0), factor=growth.factor, spacing_mm=self._spacing())
        layer.visible = True
        if (tree := self.session.layer(_TREE)) is not None:
            tree.visible = False
        self._growth, self._frame = growth, 0
        self.animate_button.setText(texts.NAPARI_STOP)
        self._film.start(_FRAME_MS)

    def _next_frame(self) -> None:
        layer = self.session.layer(_GROWTH)
        self._frame += 1
        if layer is None or self._growth is None or self._frame > self._growth.frames:
            self._stop_film()
            return
        layer.data = self._growth.frame(self._frame)
        self._film.setInterval(_LAST_FRAME_MS if self._frame == self._growth.frames else _FRAME_MS)

    def _stop_film(self) -> None:
        self._film.stop()
        self._growth = None
        self.animate_button.setText(texts.TREES_ANIMATE)
        growth, tree = self.session.layer(_GROWTH), self.session.layer(_TREE)
        if growth is not None and growth.visible:
            growth.visible = False
            if tree is not None:
                tree.visible = True

    def _show_settings(self) -> None:
        config = self._required_scene().config
        for name, slider in self.sliders.items():
            slider.set_quietly(getattr(config, name))
        self.closed.blockSignals(True)
        self.closed.setChecked(config.venation == "closed")
        self.closed.blockSignals(False)
        self._show_recipe()

    def _show_recipe(self) -> None:
        found = tree_scene.recipes(self.session.required_project(), self.source.currentData())
        config = self._required_scene().config
        chosen = next((key for key, (_, recipe) in found.items() if recipe == config), CHANGED)
        choices = [(text, key) for key, (text, _) in found.items()]
        if chosen == CHANGED:
            choices.insert(0, (texts.TREES_RECIPE_CHANGED, CHANGED))
        parts.fill(self.recipe, choices, chosen)

    def _drawn_layer(self, name: str):
        layer = self.session.layer(name)
        if layer is not None:
            return layer
        if name == "roots":
            layer = layers.add_roots(self.session.viewer, spacing_mm=self._spacing())
        else:
            layer = layers.add_outlines(self.session.viewer, name=name, spacing_mm=self._spacing())
        layer.events.data.connect(self._drawn_changed)
        return self.session.keep_layer(name, layer)

    def _drawn_changed(self, _event=None) -> None:
        self._offer_back({})
        self.guarded(self.grow)()

    def _spacing(self) -> float | None:
        return self.session.open.spacing_mm if self.session.open is not None else None

    def _required_scene(self) -> TreeScene:
        if self.scene is None:
            raise InputError(texts.NO_PROJECT, fix=texts.NAPARI_OPEN_FIRST)
        return self.scene

    def _say_error(self, error: Exception) -> None:
        self.say(in_words(error), "error")
