// The theme that Airflow's user chose: Airflow keeps it in localStorage under "theme", on this origin. Without a choice
// the style sheet follows the setting of the browser. Runs before the page is drawn.
"use strict";
(() => {
  const apply = () => {
    let chosen = null;
    try {
      chosen = localStorage.getItem("theme");
    } catch {
      // No storage is allowed: the setting of the browser holds.
    }
    if (chosen === "light" || chosen === "dark") {
      document.documentElement.dataset.theme = chosen;
    } else {
      delete document.documentElement.dataset.theme;
    }
  };
  apply();
  addEventListener("storage", apply); // fired when the document around this frame changes it
})();
