// Review: the next pair is on screen before the server has heard of the verdict; verdicts reach it in order.
(function () {
  "use strict";
  const VERDICTS = { a: "accepted", r: "rejected" };
  const ZOOM = { "+": 1.25, "=": 1.25, "-": 0.8 };
  const AHEAD = 3;
  let zoom = 1;
  let layerShown = true;
  let maskAlone = false;
  let queue = Promise.resolve();
  let pending = 0;
  let held = new Map();
  let turning = false; // the last pair of the grid was judged or left; the next part of it is on its way

  const stage = () => document.querySelector(".review-stage");
  const cells = () => [...document.querySelectorAll(".review-grid .cell")];
  const cellOf = (name) => cells().find((cell) => cell.dataset.name === name);
  const noteBox = () => document.querySelector("#review-note textarea, #review-note input");

  function address(layer, name) {
    const at = stage().dataset;
    return `${at.base}/${layer}/${encodeURIComponent(name)}?of=${at.of}`;
  }

  // Pictures of the pairs around the one on screen; held, so that the browser keeps them decoded.
  function fetchAround(list, index) {
    const wanted = new Map();
    for (const cell of [...list.slice(index + 1, index + 1 + AHEAD), ...list.slice(Math.max(index - 1, 0), index + 1)]) {
      for (const layer of ["image", "mask", "white"]) {
        const at = address(layer, cell.dataset.name);
        wanted.set(at, held.get(at) || load(at));
      }
    }
    held = wanted;
  }

  function load(at) {
    const image = new Image();
    image.src = at;
    image.decode().catch(() => null); // now, and not when it is put on screen
    return image;
  }

  function show(cell) {
    const place = stage();
    if (!place || !cell) return;
    const name = cell.dataset.name;
    if (place.dataset.name !== name) {
      for (const image of place.querySelectorAll("[data-layer]")) image.src = address(image.dataset.layer, name);
      place.dataset.name = name;
      place.querySelector(".alone img").alt = place.dataset.alt.replace("{name}", name);
    }
    badge(place, cell.dataset.verdict);
    const line = document.querySelector("#review-line");
    if (line) line.textContent = cell.dataset.facts;
    const current = document.querySelector(".review-grid .cell[aria-current]");
    if (current !== cell) {
      if (current) current.removeAttribute("aria-current");
      cell.setAttribute("aria-current", "true");
    }
    const list = cells();
    fetchAround(list, list.indexOf(cell));
  }

  function badge(place, verdict) {
    const mark = place.querySelector(".verdict");
    mark.className = `verdict ${verdict}`;
    mark.textContent = place.getAttribute(`data-word-${verdict}`);
  }

  function mark(cell, verdict) {
    if (!cell) return;
    cell.dataset.verdict = verdict;
    cell.className = `cell ${verdict}`;
    cell.querySelector("b").textContent = stage().getAttribute(`data-word-${verdict}`).split(" ")[0];
  }

  function say(text) {
    const place = document.querySelector("#review-message");
    if (!place) return;
    place.textContent = text;
    place.hidden = !text;
  }

  function send(act) {
    const at = stage();
    if (!at) return;
    const grid = document.querySelector(".review-grid");
    act.page = grid ? Number(grid.dataset.page) : -1;
    pending += 1;
    queue = queue
      .then(() =>
        fetch(`${at.dataset.base}/act`, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify(act),
        })
      )
      .then((response) => response.json())
      .catch(() => ({ error: document.querySelector("#review-message").dataset.lost }))
      .then((answer) => {
        pending -= 1;
        take(answer, act);
      });
  }

  // What the server says counts, once nothing more is on its way to it.
  function take(answer, act) {
    if (!pending) turning = false;
    if (answer.error) {
      say(answer.error);
      if (act.do === "judge") {
        // It is not on record, so it must not look as if it were.
        const cell = cellOf(act.name);
        mark(cell, act.before);
        if (cell) show(cell);
      }
      return;
    }
    say("");
    const tally = document.querySelector(".review-count");
    if (tally) tally.outerHTML = answer.tally;
    if (answer.grid !== undefined && !pending) {
      document.querySelector(".review-grid").parentElement.innerHTML = answer.grid;
    }
    for (const [name, facts] of Object.entries(answer.facts || {})) {
      const cell = cellOf(name);
      if (cell) cell.dataset.facts = facts;
    }
    if (pending) return;
    for (const [name, verdict] of Object.entries(answer.verdicts)) {
      const cell = cellOf(name);
      if (cell && cell.dataset.verdict !== verdict) mark(cell, verdict);
    }
    show(cellOf(answer.name));
  }

  function judge(verdict) {
    const place = stage();
    if (!place || turning) return;
    const list = cells();
    const cell = cellOf(place.dataset.name);
    const box = noteBox();
    const act = { do: "judge", name: place.dataset.name, verdict, note: box ? box.value : "" };
    act.before = cell ? cell.dataset.verdict : "undecided";
    if (box && box.value) {
      box.value = "";
      box.dispatchEvent(new Event("input", { bubbles: true }));
    }
    mark(cell, verdict);
    const next = list[list.indexOf(cell) + 1];
    if (cell && next) show(next);
    else turning = true;
    send(act);
  }

  function step(by) {
    const place = stage();
    if (!place || turning) return;
    const list = cells();
    const target = list[list.indexOf(cellOf(place.dataset.name)) + by];
    const name = place.dataset.name;
    if (target) {
      show(target);
      send({ do: "go", name: target.dataset.name });
    } else {
      turning = true;
      send({ do: "step", name, by });
    }
  }

  const set = (name, value) => document.body.style.setProperty(name, value);

  function showLayer(shown) {
    layerShown = shown;
    set("--layer-shown", shown ? 1 : 0);
  }

  function showMask(alone) {
    maskAlone = alone;
    set("--mask-alone", alone ? 1 : 0);
    set("--image-caption", alone ? "none" : "inline");
    set("--mask-caption", alone ? "inline" : "none");
  }

  function help() {
    const dialog = document.querySelector("#review-help");
    if (dialog && !dialog.open) dialog.showModal();
  }

  window.univg.review = {
    judge,
    step,
    help,
    undo: () => send({ do: "undo" }),
    showMask,
  };

  function reviewing() {
    const tab = document.querySelector("#tab-review-button");
    return tab && tab.getAttribute("aria-selected") === "true" && stage();
  }

  document.addEventListener("keydown", (event) => {
    if (!reviewing() || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("dialog")) return;
    if (window.univg.isTyping(event.target)) return;
    const key = event.key.toLowerCase();
    // Arrows belong to a slider, a choice or the tabs while one of those has the focus.
    if (key.startsWith("arrow") && event.target.closest("input, [role=tab], [role=listbox]")) return;
    if (VERDICTS[key]) judge(VERDICTS[key]);
    else if (key === "u") window.univg.review.undo();
    else if (key === "arrowleft") step(-1);
    else if (key === "arrowright") step(1);
    else if (key === "o") showLayer(!layerShown);
    else if (key === "b") set("--layer-shown", 0);
    else if (key === "m") showMask(!maskAlone);
    else if (key === "?") help();
    else if (ZOOM[key]) {
      zoom = Math.min(4, Math.max(1, zoom * ZOOM[key]));
      document.body.style.setProperty("--zoom", zoom);
    } else return;
    event.preventDefault();
  });

  // Blink: the mask is hidden while B is held, and comes back however that ends.
  const unblink = () => set("--layer-shown", layerShown ? 1 : 0);
  document.addEventListener("keyup", (event) => event.key.toLowerCase() === "b" && unblink());
  window.addEventListener("blur", unblink);

  document.addEventListener("click", (event) => {
    const cell = event.target.closest(".review-grid .cell");
    if (!cell) return;
    show(cell);
    send({ do: "go", name: cell.dataset.name });
  });

  // A page that has just been drawn knows nothing of the pictures that come next.
  let drawn = "";
  window.setInterval(() => {
    const place = stage();
    if (!place || place.dataset.drawn === drawn) return;
    drawn = place.dataset.drawn;
    const list = cells();
    fetchAround(list, list.indexOf(cellOf(place.dataset.name)));
  }, 300);
})();
