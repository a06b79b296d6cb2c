// Light and dark, keys, and labels that Gradio leaves out. No library, nothing fetched.
(function () {
  "use strict";
  const KEY = "univg-theme";

  function apply(theme) {
    document.body.classList.toggle("dark", theme === "dark");
  }

  function wanted() {
    const asked = new URLSearchParams(window.location.search).get("__theme");
    if (asked === "dark" || asked === "light") return asked;
    const stored = window.localStorage.getItem(KEY);
    if (stored) return stored;
    return window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  }

  window.univg = {
    toggleTheme() {
      const theme = document.body.classList.contains("dark") ? "light" : "dark";
      window.localStorage.setItem(KEY, theme);
      apply(theme);
    },
  };

  window.univg.isTyping = isTyping;
  function isTyping(target) {
    return target.closest("input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, [contenteditable]");
  }

  // Blink: while B is held, the overlay is hidden.
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "b" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!isTyping(event.target)) document.body.classList.add("blink");
  });
  document.addEventListener("keyup", (event) => {
    if (event.key.toLowerCase() === "b") document.body.classList.remove("blink");
  });
  window.addEventListener("blur", () => document.body.classList.remove("blink"));

  // Sliders moved by keys: Gradio tells handlers that wait for a slider to be let go of the pointer alone.
  const SLIDER_KEYS = /^(arrow(left|right|up|down)|page(up|down)|home|end)$/;
  document.addEventListener("keyup", (event) => {
    if (!event.target.matches("input[type=range]") || !SLIDER_KEYS.test(event.key.toLowerCase())) return;
    event.target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
  });

  // Models: a row of the table says which one to use.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-use-version]");
    const use = document.querySelector("#version-use");
    if (!button || !use) return;
    window.univg.chosenVersion = button.dataset.useVersion;
    use.click();
  });

  const LABELS = [
    ["#job-chip", "Running job"],
    ["#data-strip", "Annotated images"],
    ["#segment-strip", "Images to segment"],
    ["#segment-picture", "Original and result; hold B to see the original alone"],
    ["#editor", "Mask painter"],
    ["#review-grid", "Synthetic pairs"],
  ];

  function label() {
    for (const [selector, text] of LABELS) {
      const element = document.querySelector(selector);
      if (element && element.getAttribute("aria-label") !== text) {
        element.setAttribute("role", "group");
        element.setAttribute("aria-label", text);
      }
    }
    document.querySelectorAll("#segment-picture img").forEach((image, at) => {
      const alt = at === 0 ? "Image to segment" : "What the model found in it";
      if (image.alt !== alt) image.alt = alt;
    });
    // On what stays when its text changes: a new element with this role is not read by all.
    const said = document.querySelector("#job-said");
    if (said && !said.hasAttribute("role")) said.setAttribute("role", "status");
  }

  // Which views are on screen, where the style finds it.
  function showViews() {
    const state = document.getElementById("page-state");
    for (const name of state ? ["view", "painting"] : []) {
      if (document.body.dataset[name] !== state.dataset[name]) document.body.dataset[name] = state.dataset[name];
    }
  }

  // A page that is loaded anew shows the tab that it showed before.
  const TAB = "univg-tab";
  let restored = false;
  let leaving = false;
  function keepTab() {
    if (leaving || document.body.dataset.view !== "work") return;
    const stored = restored ? null : document.getElementById(window.sessionStorage.getItem(TAB));
    restored = true;
    if (stored && stored.getAttribute("aria-selected") !== "true") {
      stored.click();
      return;
    }
    const chosen = document.querySelector("#tabs button[role=tab][aria-selected=true]");
    if (chosen) window.sessionStorage.setItem(TAB, chosen.id);
  }
  window.univg.openAnother = () => {
    leaving = true;
    window.sessionStorage.removeItem(TAB);
    window.location.reload();
  };

  const WATCHED = ["data-view", "data-painting", "aria-selected"];

  function start() {
    apply(wanted());
    // Gradio sets its own class while it starts.
    window.setTimeout(() => apply(wanted()), 300);
    label();
    let due = 0;
    new MutationObserver(() => {
      showViews();
      keepTab();
      window.clearTimeout(due);
      due = window.setTimeout(label, 200);
    }).observe(document.body, { childList: true, subtree: true, attributeFilter: WATCHED });
  }

  // Strokes are in the browser alone until they are saved or put aside.
  window.addEventListener("beforeunload", (event) => {
    if (document.body.dataset.painting === "yes") event.preventDefault();
  });

  // Gradio may put this into a page that is there already.
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
