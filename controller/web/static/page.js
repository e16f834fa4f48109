// Keeps the page fresh: swaps the parts whose text changed. The page is complete without it.
"use strict";
if (typeof SharedWorkerGlobalScope !== "undefined" && self instanceof SharedWorkerGlobalScope) {
  // One stream of events for all tabs: a browser holds only six connections to a host.
  const ports = new Set();
  let stream = null;
  const tell = (word) => ports.forEach((port) => port.postMessage(word));
  const open = () => {
    stream = new EventSource("/events");
    stream.onopen = () => tell("open");
    stream.onerror = () => tell("lost");
    stream.onmessage = () => tell("news");
    stream.addEventListener("version", () => tell("news"));
  };
  self.onconnect = (event) => {
    const port = event.ports[0];
    ports.add(port);
    port.onmessage = (message) => {
      if (message.data !== "bye") return;
      ports.delete(port);
      if (!ports.size && stream) { stream.close(); stream = null; }
    };
    if (!stream) open();
    else if (stream.readyState === EventSource.OPEN) port.postMessage("open");
  };
} else {
  const POLL_MS = 5000;
  const live = document.getElementById("live");
  let etag = null, busy = false, again = false, timer = null;

  const say = (text) => { if (live) { live.hidden = false; live.textContent = text; } };

  const swap = (fresh) => {
    for (const part of document.querySelectorAll("[data-live][id]")) {
      const next = fresh.getElementById(part.id);
      if (!next || next.isEqualNode(part) || part.dataset.shown === next.outerHTML) continue;
      const focus = part.contains(document.activeElement) ? document.activeElement : null;
      const at = focus ? [...part.querySelectorAll("a,button,input,select,[tabindex]")].indexOf(focus) : -1;
      const scroll = part.scrollTop;
      const put = document.importNode(next, true);
      put.dataset.shown = next.outerHTML;
      part.replaceWith(put);
      put.scrollTop = scroll;
      if (at >= 0) put.querySelectorAll("a,button,input,select,[tabindex]")[at]?.focus({ preventScroll: true });
      copies(put);
    }
    document.title = fresh.title;
  };

  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.pathname + location.search, {
        headers: etag ? { "If-None-Match": etag } : {}, cache: "no-store", credentials: "same-origin", redirect: "manual",
      });
      if (answer.type === "opaqueredirect") { location.reload(); return; }
      if (answer.status === 200 || answer.status === 404) {
        etag = answer.headers.get("ETag");
        swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
      }
    } catch { say("page's server away"); }
    busy = false;
    if (again) { again = false; refresh(); }
  };

  const poll = (on) => {
    if (on && !timer) timer = setInterval(() => { if (!document.hidden) refresh(); }, POLL_MS);
    if (!on && timer) { clearInterval(timer); timer = null; }
  };

  const copies = (root) => {
    for (const button of root.querySelectorAll("[data-copy]")) {
      if (!navigator.clipboard) continue;
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(button.dataset.copy);
        button.textContent = "copied";
        setTimeout(() => { button.textContent = "copy"; }, 1500);
      });
    }
  };

  const ages = () => {
    for (const each of document.querySelectorAll("[data-age]")) {
      const s = Math.max(0, (Date.now() - Date.parse(each.dataset.age)) / 1000);
      if (Number.isNaN(s)) continue;
      const unit = [[86400, "d"], [3600, "h"], [60, "min"]].find(([size]) => s >= size);
      each.textContent = "(" + (unit ? Math.floor(s / unit[0]) + " " + unit[1] : "now") + ")";
    }
  };

  const heard = (word) => {
    if (word === "news") refresh();
    if (word === "open") { say("live"); poll(false); refresh(); }
    if (word === "lost") { say("every 5 s"); poll(true); }
  };

  copies(document);
  if (document.body.dataset.version !== undefined || document.getElementById("state")) {
    setInterval(ages, 30000);
    poll(true);
    say("every 5 s");
    try {
      const worker = new SharedWorker("/static/page.js");
      worker.port.onmessage = (event) => heard(event.data);
      worker.port.start();
      addEventListener("pagehide", () => worker.port.postMessage("bye"));
    } catch { /* polling goes on */ }
    document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  }
}
