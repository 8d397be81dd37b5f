"use strict";
// The token has become a cookie: it must not stay in the address bar, the history or a bookmark.
if (location.search) history.replaceState(null, "", location.pathname);

const by = (id) => document.getElementById(id);
const send = by("send");

if (send) {
  const drop = by("drop"),
    problem = by("problem"),
    queue = by("queue");
  const kept = [...send.querySelectorAll("[name=run]")].find(
    (box) => box.value === localStorage.getItem("run"),
  );
  if (kept) kept.checked = true;
  send.addEventListener("change", (event) => {
    if (event.target.name === "run") localStorage.setItem("run", event.target.value);
  });
  let request = null,
    shown = queue.innerHTML.trim(),
    timer = 0;

  const complain = (text) => {
    problem.hidden = !text;
    problem.textContent = text;
  };

  const local = () => {
    for (const time of queue.querySelectorAll("time")) {
      const date = new Date(time.dateTime);
      if (!isNaN(date))
        time.textContent = date.toLocaleString([], { dateStyle: "short", timeStyle: "short" });
    }
  };

  const running = () => {
    // counted here, so that the list need not be drawn anew each second
    for (const place of queue.querySelectorAll("[data-began]")) {
      const seconds = Math.max(
        0,
        Math.round((Date.now() - Date.parse(place.dataset.began)) / 1000),
      );
      const passed = seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
      place.textContent = `running for ${passed}`;
    }
  };

  async function refresh() {
    clearTimeout(timer);
    try {
      const answer = await fetch("/queue");
      if (!answer.ok) throw new Error((await answer.text()).trim());
      const text = (await answer.text()).trim();
      if (text !== shown) {
        const focus = document.activeElement && document.activeElement.id;
        queue.innerHTML = shown = text; // escaped by the template; the policy lets no handler run
        local();
        if (focus && by(focus)) by(focus).focus();
      }
      running();
      if (problem.dataset.lost) {
        delete problem.dataset.lost;
        complain("");
      }
    } catch (error) {
      problem.dataset.lost = "1";
      complain(
        error instanceof TypeError
          ? "The app does not answer; has it been stopped?"
          : error.message,
      );
    }
    timer = setTimeout(refresh, queue.querySelector(".jobs") ? 1000 : 5000);
  }

  function upload(files) {
    complain("");
    files = files
      .map((file) =>
        file instanceof File ? { file, name: file.webkitRelativePath || file.name } : file,
      ) // or from `walk`
      .filter(({ name }) => !name.split("/").some((part) => part.startsWith(".")));
    if (request) return complain("An upload is on its way already.");
    if (!files.length) return complain("There is no file in that.");
    const total = files.reduce((sum, { file }) => sum + file.size, 0);
    if (total > Number(send.dataset.most)) {
      const gib = (bytes) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
      return complain(`That is ${gib(total)}; at most ${gib(send.dataset.most)} go at once.`);
    }
    const form = new FormData();
    form.append("run", new FormData(send).get("run"));
    for (const { file, name } of files) form.append("files", file, name);
    request = new XMLHttpRequest();
    request.open("POST", "/jobs");
    request.upload.onprogress = (event) => {
      by("sent").value = event.total ? event.loaded / event.total : 0;
      const named = `${files.length} file${files.length > 1 ? "s" : ""}`;
      by("share").textContent = `${named}, ${Math.floor(100 * by("sent").value)} % sent`;
    };
    request.onload = () => {
      if (request.status !== 201) complain(request.responseText.trim());
    };
    request.onerror = () =>
      complain("The upload was cut off: the app has been stopped, or refuses it.");
    request.onloadend = () => {
      request = null;
      by("sending").hidden = true;
      refresh();
    };
    by("sent").value = 0;
    by("share").textContent = "";
    by("sending").hidden = false;
    request.send(form);
  }

  async function walk(entry) {
    if (entry.isFile)
      return [
        {
          name: entry.fullPath.replace(/^\//, ""),
          file: await new Promise((good, bad) => entry.file(good, bad)),
        },
      ];
    const reader = entry.createReader(),
      found = [];
    for (;;) {
      // a hundred entries at a time
      const part = await new Promise((good, bad) => reader.readEntries(good, bad));
      if (!part.length) return found;
      for (const child of part) found.push(...(await walk(child)));
    }
  }

  for (const id of ["files", "folder"]) {
    by(id).addEventListener("change", (event) => {
      upload([...event.target.files]);
      event.target.value = "";
    });
  }
  by("stop").addEventListener("click", () => request && request.abort());
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    });
  }
  document.addEventListener("drop", async (event) => {
    const entries = [...event.dataTransfer.items]
      .map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry())
      .filter(Boolean);
    try {
      upload(
        entries.length
          ? (await Promise.all(entries.map(walk))).flat()
          : [...event.dataTransfer.files],
      );
    } catch (error) {
      complain(`That cannot be read: ${error.message}`);
    }
  });
  queue.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-post]");
    if (!button || (button.dataset.ask && !confirm(button.dataset.ask))) return;
    button.disabled = true;
    try {
      await fetch(button.dataset.post, { method: "POST" });
    } catch {
      /* refresh says that nobody answers */
    }
    refresh();
  });
  local();
  running();
  timer = setTimeout(refresh, 1000);
}
document.body.dataset.ready = "page";
