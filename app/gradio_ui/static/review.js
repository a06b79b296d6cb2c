// Review: the next pair is on screen before the server has heard of the verdict; verdicts reach it in order.
(function () {
  "use strict";
  const VERDICTS = { a: "accepted", r: "rejected" };
  const ZOOM = { "+": 1.25, "=": 1.25, "-": 0.8 };
  const MOVES = { arrowleft: [-10, 0], arrowright: [10, 0], arrowup: [0, -10], arrowdown: [0, 10] };
  const AHEAD = 3;
  let zoom = 1;
  let look = [50, 50]; // where both pictures are enlarged, in percent from the left and from the top
  let layerShown = true;
  let maskAlone = false;
  let queue = Promise.resolve();
  let pending = 0;
  let held = new Map();
  let turning = false; // the last pair of the grid was judged or left, and the server says what comes now
  let thumbnails = [];

  // Pages of the grid lie in one place: one on screen, those beside it in waiting as templates.
  const stage = () => document.querySelector(".review-stage");
  const grid = () => document.querySelector(".review-grid");
  const cellsIn = (page) => [...page.querySelectorAll(".cell")];
  const cells = () => (grid() ? cellsIn(grid()) : []);
  const waiting = () => [...document.querySelectorAll(".review-pages > template")];
  const pageOf = (element) => Number(element.dataset.page);
  const isBeside = (number) => Math.abs(number - pageOf(grid())) === 1;
  const beside = (by) => waiting().find((page) => pageOf(page) === pageOf(grid()) + by);
  const named = (list, name) => list.find((cell) => cell.dataset.name === name);
  const cellOf = (name) => named([...cells(), ...waiting().flatMap((page) => cellsIn(page.content))], name);
  const noteBox = () => document.querySelector("#review-note textarea, #review-note input");
  const counted = () => document.querySelector(".review-count progress");

  function write(box, text) {
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function address(layer, name) {
    const at = stage().dataset;
    return `${at.base}/${layer}/${encodeURIComponent(name)}?of=${at.of}`;
  }

  // Pictures of the pairs around the one on screen; held, so that the browser keeps them decoded.
  function fetchAround(cell) {
    const wanted = new Map();
    const next = beside(1);
    const list = [...cells(), ...(next ? cellsIn(next.content).slice(0, AHEAD) : [])];
    const index = list.indexOf(cell);
    for (const cell of [...list.slice(index + 1, index + 1 + AHEAD), ...list.slice(Math.max(index - 1, 0), index + 1)]) {
      for (const layer of ["image", "mask", "white"]) {
        const at = address(layer, cell.dataset.name);
        wanted.set(at, held.get(at) || load(at));
      }
    }
    held = wanted;
  }

  // What can wait until the pair is on screen does; frames stop coming where nobody sees the page.
  const painted = () =>
    new Promise((done) => {
      window.requestAnimationFrame(() => window.requestAnimationFrame(done));
      window.setTimeout(done, 100);
    });

  function load(at) {
    const image = new Image();
    image.src = at;
    image.decode().catch(() => null); // now, and not when it is put on screen
    return image;
  }

  function fetchThumbnails() {
    const wanted = waiting().flatMap((page) => [...page.content.querySelectorAll("img")]);
    thumbnails = wanted.map((image) => load(image.getAttribute("src")));
  }

  // Put a page in waiting on screen, and the one on screen in its place.
  function turn(page) {
    const place = page.parentElement;
    const current = grid().querySelector("[aria-current]");
    if (current) current.removeAttribute("aria-current");
    const left = document.createElement("template");
    left.dataset.page = grid().dataset.page;
    const shown = [...place.children].filter((child) => child.localName !== "template");
    left.content.append(...shown);
    page.replaceWith(left);
    place.prepend(page.content);
    for (const other of waiting()) if (!isBeside(pageOf(other))) other.remove();
  }

  // The focus stays on the pair that has it.
  function redraw(pages, html) {
    const focused = document.activeElement && document.activeElement.closest(".review-grid .cell");
    pages.outerHTML = html;
    const cell = focused && named(cells(), focused.dataset.name);
    if (cell) cell.focus({ preventScroll: true });
    fetchThumbnails();
  }

  function wait(place, pages) {
    for (const [number, html] of Object.entries(pages)) {
      if (!isBeside(Number(number)) || waiting().some((page) => pageOf(page) === Number(number))) continue;
      const page = document.createElement("template");
      page.dataset.page = number;
      page.innerHTML = html;
      place.append(page);
    }
    fetchThumbnails();
  }

  function show(cell) {
    const place = stage();
    if (!place || !cell) return;
    const page = waiting().find((other) => other.content.contains(cell));
    if (page) turn(page);
    const name = cell.dataset.name;
    if (place.dataset.name !== name) {
      for (const image of place.querySelectorAll("[data-layer]")) image.src = address(image.dataset.layer, name);
      place.dataset.name = name;
      place.querySelector(".alone img").alt = place.dataset.alt.replace("{name}", name);
    }
    badge(place, cell.dataset.verdict);
    const line = document.querySelector("#review-line");
    if (line) line.textContent = cell.dataset.facts;
    const current = grid().querySelector("[aria-current]");
    if (current !== cell) {
      if (current) current.removeAttribute("aria-current");
      cell.setAttribute("aria-current", "true");
    }
    painted().then(() => stage() && stage().dataset.name === name && fetchAround(cell));
  }

  // The cell `by` places from the one on screen, on this page or the one beside it.
  function following(by) {
    const list = cells();
    const index = list.indexOf(named(list, stage().dataset.name));
    if (index < 0) return undefined;
    const page = list[index + by] ? null : beside(by);
    return page ? cellsIn(page.content).at(by > 0 ? 0 : -1) : list[index + by];
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
    act.page = grid() ? pageOf(grid()) : -1;
    act.shown = cells().length;
    act.waiting = waiting().map(pageOf);
    pending += 1;
    queue = queue
      .then(painted)
      .then(() =>
        fetch(`${at.dataset.base}/act`, {
          method: "POST",
          keepalive: true, // a verdict is not lost with the page
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify(act),
        })
      )
      .then((response) => response.json())
      .catch(() => ({ error: document.querySelector("#review-message").dataset.lost }))
      .then((answer) => {
        pending -= 1;
        take(answer, act);
      })
      .catch((error) => console.error(error)); // of the page alone; what is sent next must not be lost with it
  }

  // What the server says counts, once nothing more is on its way to it.
  function take(answer, act) {
    if (!pending) turning = false;
    if (answer.error) {
      if (!act.quiet) say(answer.error);
      if (act.do === "judge") {
        // It is not on record, so it must not look as if it were.
        const cell = cellOf(act.name);
        mark(cell, act.before);
        if (cell) show(cell);
        const box = noteBox();
        if (act.note && box && !box.value) write(box, act.note);
      }
      return;
    }
    if (!act.quiet) say(answer.said || "");
    const tally = document.querySelector(".review-count");
    if (tally) tally.outerHTML = answer.tally;
    const pages = document.querySelector(".review-pages"); // gone when another list was asked for meanwhile
    if (pages && answer.grid !== undefined && !pending) redraw(pages, answer.grid);
    if (pages && answer.pages) wait(pages, answer.pages);
    for (const [name, facts] of Object.entries(answer.facts || {})) {
      const cell = cellOf(name);
      if (cell) cell.dataset.facts = facts;
    }
    if (pending) return;
    for (const [name, verdict] of Object.entries(answer.verdicts)) {
      const cell = cellOf(name);
      if (cell && cell.dataset.verdict !== verdict) mark(cell, verdict);
    }
    const line = document.querySelector(".review-pages > .line");
    if (line && answer.line !== undefined) line.textContent = answer.line;
    show(cellOf(answer.name));
  }

  function judge(verdict) {
    const place = stage();
    if (!place || turning) return;
    const cell = cellOf(place.dataset.name);
    const next = following(1);
    const box = noteBox();
    const act = { do: "judge", name: place.dataset.name, verdict, note: box ? box.value : "" };
    act.before = cell ? cell.dataset.verdict : "undecided";
    if (box && box.value) write(box, "");
    mark(cell, verdict);
    if (next) show(next);
    else turning = true;
    send(act);
  }

  function step(by) {
    const place = stage();
    if (!place || turning) return;
    const target = following(by);
    const name = place.dataset.name;
    if (target) {
      show(target);
      send({ do: "go", name: target.dataset.name });
    } else {
      turning = true;
      send({ do: "step", name, by });
    }
  }

  // Set on what holds both pictures, and stays when they are drawn anew.
  function lookAt(x, y) {
    look = [x, y].map((at) => Math.min(100, Math.max(0, at)));
    const place = document.querySelector("#review-picture");
    place.style.setProperty("--look-x", `${look[0]}%`);
    place.style.setProperty("--look-y", `${look[1]}%`);
  }

  document.addEventListener("pointermove", (event) => {
    const figure = event.target.closest(".review-pictures figure");
    if (!figure) return;
    const box = figure.getBoundingClientRect();
    const height = box.height - figure.querySelector("figcaption").offsetHeight;
    lookAt((100 * (event.clientX - box.left)) / box.width, (100 * (event.clientY - box.top)) / height);
  });

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

  // The choice on the page follows.
  function turnLeft(alone) {
    showMask(alone);
    const choice = document.querySelector(`#review-left input[value="${alone ? "mask" : "image"}"]`);
    if (choice) choice.click();
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
    if (document.body.dataset.view !== "work") return false; // behind the list of projects the tab stays chosen
    const tab = document.querySelector("#tab-review-button");
    return tab && tab.getAttribute("aria-selected") === "true" && stage();
  }

  document.addEventListener("keydown", (event) => {
    if (!reviewing() || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("dialog")) return;
    if (window.univg.isTyping(event.target)) return;
    const key = event.key.toLowerCase();
    // Arrows belong to a slider, a choice or the tabs while one of those has the focus.
    if (key.startsWith("arrow") && event.target.closest("input, [role=tab], [role=listbox]")) return;
    if (MOVES[key] && event.shiftKey && zoom > 1) {
      lookAt(look[0] + MOVES[key][0], look[1] + MOVES[key][1]);
    } else if (VERDICTS[key]) {
      if (!event.repeat) judge(VERDICTS[key]); // a key that is held down must not judge what nobody has seen
    } else if (key === "u") {
      if (!event.repeat) window.univg.review.undo();
    } else if (key === "arrowleft") step(-1);
    else if (key === "arrowright") step(1);
    else if (key === "o") showLayer(!layerShown);
    else if (key === "b") set("--layer-shown", 0);
    else if (key === "m") turnLeft(!maskAlone);
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

  // A page that has just been drawn knows nothing of the pictures that come next. Of pairs that are new it asks in turn
  // with its verdicts, so that no answer is older than what was judged here.
  let drawn = "";
  let all = 0;
  window.setInterval(() => {
    const place = stage();
    if (!pending && reviewing() && counted() && counted().max !== all) {
      all = counted().max;
      send({ do: "go", name: place.dataset.name, quiet: true });
    }
    if (!place || place.dataset.drawn === drawn) return;
    drawn = place.dataset.drawn;
    fetchAround(cellOf(place.dataset.name));
    fetchThumbnails();
  }, 300);
})();
