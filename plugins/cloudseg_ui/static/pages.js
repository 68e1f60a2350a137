// Two things that a page in a frame cannot do without a script. Without it, links to Airflow open inside the frame, and
// a page that changes loads itself again.
"use strict";
(() => {
  // Links to Airflow's own pages. Airflow shows these pages in a frame whose sandbox allows no navigation of the window
  // around it. That document is of the same origin: it follows the link itself.
  const outer = () => {
    try {
      return parent !== window && parent.location.origin === location.origin ? parent.document : null;
    } catch {
      return null; // framed by another origin
    }
  };
  addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[data-airflow]") : null;
    const around = link === null ? null : outer();
    if (around === null || event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) {
      return;
    }
    event.preventDefault();
    const same = around.createElement("a");
    same.href = link.href;
    around.body.append(same);
    same.click();
    same.remove();
  });

  // A page that changes names the seconds after which its parts with the attribute data-live are read again. The
  // position of the reader, and the focus, stay.
  const seconds = Number(document.body.dataset.every);
  if (!seconds) {
    return;
  }
  const again = async () => {
    if (document.hidden) {
      return;
    }
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.status === 401) {
      location.reload();
      return;
    }
    if (!answer.ok) {
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(part.id);
      if (fresh === null || fresh.innerHTML === part.innerHTML) {
        continue;
      }
      const href = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      part.replaceChildren(...fresh.childNodes);
      if (href !== null) {
        [...part.querySelectorAll("a")].find((link) => link.getAttribute("href") === href)?.focus();
      }
    }
    if (page.body.dataset.every === undefined) {
      clearInterval(timer);
    }
  };
  // A server that does not answer now is asked again: the page stays as it is, with the times that it shows.
  const timer = setInterval(() => again().catch(() => undefined), 1000 * seconds);
})();
