// What moves, what is told, and the start.
const tell = () => {
  const [plane, row, column] = state.at;
  const n = (plane * height + row) * width + column;
  const value = (name) =>
    number(volumes[name].values[n] * volumes[name].slope + volumes[name].intercept);
  const code = volumes.map.values[n];
  const map =
    code === 0
      ? "0"
      : code >= data.thresholds.length
        ? `above ${number(data.thresholds.at(-1))}`
        : `at most ${number(data.thresholds[code])}`;
  const place = data.volume ? `plane ${plane + 1} of ${depth}, ` : "";
  const mm = data.geometry
    ? ` (${world(state.at)
        .map((v, i) => `${"RAS"[i]} ${v.toFixed(1)}`)
        .join(", ")} mm)`
    : "";
  const seen = (index, axis) => data.origin[axis] + index * data.factor + 1;
  const at = `row ${seen(row, 1)}, column ${seen(column, 2)}`;
  $("where").textContent =
    `${place}${at}${mm}: input ${value("image")}, healthy twin ${value("healthy")}` +
    `${data.grey && ` ${data.grey}`}, map ${map}`;
  if (data.volume) {
    $("plane").value = plane + 1;
    strip();
  }
};

const go = (at) => {
  state.at = limit(at);
  state.pointed = true;
  tell();
  viewer.move();
};

const strip = () => {
  const canvas = $("bars"),
    context = canvas.getContext("2d");
  const most = Math.max(...data.plane_scores, 1e-12),
    wide = canvas.width / depth;
  context.clearRect(0, 0, canvas.width, canvas.height);
  data.plane_scores.forEach((score, n) => {
    context.fillStyle = n === state.at[0] ? token("anomalous") : token("healthy");
    const tall = Math.max(1, ((canvas.height - 4) * score) / most);
    context.fillRect(
      n * wide + (wide > 3 ? 1 : 0),
      canvas.height - tall,
      wide > 3 ? wide - 1 : wide,
      tall,
    );
  });
};

const threshold = () => {
  const count = data.counts[state.level],
    many = regions.filter((region) => !hidden?.[region.name]).length;
  $("level").textContent = `> ${number(data.thresholds[state.level])}`;
  $("above").textContent =
    data.ml === null
      ? `${counted(count, data.unit)} above`
      : `${(count * data.ml).toFixed(2)} ml above (${counted(count, data.unit)})`;
  $("many").textContent = hidden
    ? `${many} of ${counted(regions.length, "regions")} shown`
    : `in ${counted(many, "regions")}`;
  const bar = $("bar").getContext("2d");
  for (let x = 0; x < 120; x++) {
    const code = (x / 120) * ceiling();
    bar.fillStyle = code > state.level ? `rgb(${colour(x / 120)})` : token("line");
    bar.fillRect(x, 0, 1, 10);
  }
  $("scale").textContent = `0 to ${number(ceiling() * step)}`;
};

const window_ = (low, high, name) => {
  if (!(high > low)) return;
  Object.assign(state, { low, high });
  $("low").value = number(low);
  $("high").value = number(high);
  $("window").value = name;
};

const start = async () => {
  if (typeof DecompressionStream === "undefined" || typeof OffscreenCanvas === "undefined")
    throw new Error("this browser is too old");
  for (const name of ["image", "healthy", "map", "truth"]) {
    const held = $(`volume-${name}`);
    if (held) volumes[name] = nifti(await unpack(held.textContent));
    held?.remove();
  }
  window_(data.windows[0].low, data.windows[0].high, "0");
  $("viewer").hidden = false;
  state.at = shown(data.first);
  try {
    viewer = data.volume ? await niivueViewer() : null;
  } catch (error) {
    console.warn(error);
  }
  if (!viewer) {
    panes.forEach((pane) => pane.replaceWith(Object.assign(pane.cloneNode(), { id: pane.id })));
    panes.forEach((_, n) => {
      panes[n] = $(`pane-${n}`);
    });
    document.querySelector(".panes").classList.remove("webgl");
    document.querySelectorAll(".controls .webgl").forEach((label) => {
      label.hidden = true;
    });
    viewer = flat();
    if (data.volume)
      complain(
        "This browser has no WebGL2: planes are shown as they were taken, without other views.",
      );
  } else if ($("mosaic")) $("mosaic").open = false;
  const redraw = () => {
    threshold();
    viewer.draw();
  };
  const relist = () => {
    list();
    redraw();
  };
  const on = (id, event, act) =>
    $(id)?.addEventListener(event, (e) => {
      act(e.target);
      redraw();
    });
  on("window", "change", (box) => {
    const w = data.windows[box.value];
    if (w) window_(w.low, w.high, box.value);
  });
  for (const id of ["low", "high"])
    on(id, "change", () => window_(Number($("low").value), Number($("high").value), "own"));
  on("overlay", "change", (box) => {
    state.overlay = box.checked;
  });
  on("outline", "change", (box) => {
    state.outline = box.checked;
  });
  on("opacity", "input", (box) => {
    state.opacity = box.value / 100;
  });
  on("threshold", "input", (box) => {
    state.level = Number(box.value);
    clearTimeout(later); // a large volume takes a moment
    later = setTimeout(relist, 60);
  });
  on("least", "input", (box) => {
    state.least = Number(box.value);
    list();
  });
  on("reset", "click", () => {
    state.level = data.start;
    $("threshold").value = data.start;
    window_(data.windows[0].low, data.windows[0].high, "0");
    list();
  });
  $("plane")?.addEventListener("input", (event) =>
    go([event.target.value - 1, state.at[1], state.at[2]]),
  );
  $("bars")?.addEventListener("click", (event) => {
    const box = $("bars").getBoundingClientRect();
    go([Math.floor(((event.clientX - box.left) / box.width) * depth), state.at[1], state.at[2]]);
  });
  $("regions").addEventListener("click", ({ target: { dataset } }) => {
    if (dataset.plane) go(shown([dataset.plane, dataset.row, dataset.column].map(Number)));
  });
  relist();
  tell();
  viewer.move();
  document.body.dataset.ready = viewer.kind;
};

const complain = (text) => {
  $("problem").textContent = text;
  $("problem").hidden = false;
};

start().catch((error) => {
  $("viewer").hidden = true;
  complain(`The viewer cannot start (${error.message}); the picture below shows the case.`);
  document.body.dataset.ready = "failed";
});
