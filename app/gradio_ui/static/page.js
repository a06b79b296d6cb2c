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

  // Review: keys press the buttons, thumbnails tell the server where to go.
  const REVIEW_KEYS = { a: "accept", r: "reject", u: "undo", arrowleft: "back", arrowright: "forth" };
  const ZOOM = { "+": 1.25, "=": 1.25, "-": 0.8 };
  let zoom = 1;

  function reviewing() {
    const tab = document.querySelector("#tab-review-button");
    return tab && tab.getAttribute("aria-selected") === "true";
  }

  document.addEventListener("keydown", (event) => {
    if (!reviewing() || event.ctrlKey || event.metaKey || event.altKey) return;
    if (isTyping(event.target) || event.target.closest("input[type=range], input[type=radio], [role=tab]")) return;
    const key = event.key.toLowerCase();
    if (REVIEW_KEYS[key]) {
      const button = document.querySelector(`#review-${REVIEW_KEYS[key]}`);
      if (button) button.click();
    } else if (key === "o") {
      document.body.classList.toggle("no-layer");
    } else if (ZOOM[key]) {
      zoom = Math.min(4, Math.max(1, zoom * ZOOM[key]));
      document.body.style.setProperty("--zoom", zoom);
    } else {
      return;
    }
    event.preventDefault();
  });

  document.addEventListener("click", (event) => {
    const cell = event.target.closest(".review-grid .cell");
    const box = document.querySelector("#review-goto textarea, #review-goto input");
    if (!cell || !box) return;
    box.value = cell.dataset.name;
    box.dispatchEvent(new Event("input", { bubbles: true }));
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
    for (const image of document.querySelectorAll("#segment-picture img:not([data-named])")) {
      image.dataset.named = "1";
      image.alt = "Image to segment, or its result";
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    apply(wanted());
    // Gradio sets its own class while it starts.
    window.setTimeout(() => apply(wanted()), 300);
    label();
    let due = 0;
    new MutationObserver(() => {
      window.clearTimeout(due);
      due = window.setTimeout(label, 200);
    }).observe(document.body, { childList: true, subtree: true });
  });
})();
