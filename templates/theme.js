// The reader's choice of light or dark, before anything is drawn; without one, the system's.
"use strict";
(() => {
  const KEY = "circuit-atlas-theme";
  const kept = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // a browser that keeps nothing
    }
  };
  const show = (theme) => {
    const chosen = ["light", "dark"].includes(theme) ? theme : "";
    const root = document.documentElement;
    if (chosen) root.dataset.theme = chosen;
    else delete root.dataset.theme;
    const choice = document.getElementById("theme");
    if (choice) choice.value = chosen;
  };
  const keep = (theme) => {
    try {
      if (theme) localStorage.setItem(KEY, theme);
      else localStorage.removeItem(KEY);
    } catch {
      // It holds for this page.
    }
  };

  show(kept());
  document.addEventListener("DOMContentLoaded", () => {
    show(kept());
    document.getElementById("theme")?.addEventListener("change", (event) => {
      keep(event.target.value);
      show(event.target.value);
    });
  });
  // Chosen on another page of the site, or on one that the reader comes back from.
  addEventListener("storage", (event) => { if (event.key === KEY || event.key === null) show(kept()); });
  addEventListener("pageshow", (event) => { if (event.persisted) show(kept()); });
})();
