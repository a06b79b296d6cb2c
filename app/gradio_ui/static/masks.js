// Masks: while α is moved, or a picture of the strip is pressed, the nearest mask that is there already shows at once.
(function () {
  "use strict";

  function show(scale) {
    const picture = document.querySelector("#mask-picture img");
    const line = document.querySelector("#mask-caption p");
    const frames = [...document.querySelectorAll("#mask-frames img")];
    if (!picture || !frames.length || !Number.isFinite(scale)) return;
    const apart = (frame) => Math.abs(Number(frame.dataset.scale) - scale);
    const nearest = frames.reduce((best, frame) => (apart(frame) < apart(best) ? frame : best));
    picture.src = nearest.src;
    picture.dataset.scale = nearest.dataset.scale;
    if (line) line.textContent = apart(nearest) < 1e-6 ? nearest.dataset.line : nearest.dataset.near;
  }

  document.addEventListener("input", (event) => {
    if (event.target.matches("#mask-scale input[type=range]")) show(Number(event.target.value));
  });
  document.addEventListener(
    "pointerdown",
    (event) => {
      const button = event.target.closest("#mask-strip button");
      const found = button && button.textContent.match(/[0-9]+([.,][0-9]+)?/);
      if (found) show(Number(found[0].replace(",", ".")));
    },
    true
  );
})();
