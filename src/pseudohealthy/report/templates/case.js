"use strict";
// One case. Codes of the map count the thresholds a voxel exceeds: "above the j-th threshold" is code > j, exactly.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("case").textContent);
const INFERNO = [[0, 0, 0, 4], [32, 31, 12, 72], [64, 85, 15, 109], [96, 136, 34, 106], [128, 186, 54, 85], [160, 227, 89, 51],
  [192, 249, 140, 10], [224, 249, 201, 50], [255, 252, 255, 164]];
const TRUTH = [86, 180, 233];
const [depth, height, width] = data.shape;
const panes = [0, 1, 2].map((n) => $(`pane-${n}`));
const number = (value) => String(Number(value.toPrecision(4)));
const volumes = {};
const state = { low: 0, high: 1, level: data.start, least: 0, opacity: 0.6, overlay: true, outline: true, at: [0, 0, 0] };
const MOST = 20; // regions in the list
const area = data.factor ** 2; // voxels of the scan behind one of the pictures
let viewer = null, labels = null, hidden = null, regions = [], later = 0;

const unpack = async (base64) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
};

const nifti = (buffer) => { // our own files: little-endian, uint8 or int16, one scaling
  const header = new DataView(buffer);
  const Kind = header.getInt16(70, true) === 4 ? Int16Array : Uint8Array;
  return { buffer, values: new Kind(buffer, 352), slope: header.getFloat32(112, true) || 1, intercept: header.getFloat32(116, true) };
};

const colour = (share) => { // 0..1 -> [r, g, b]
  const place = Math.min(Math.max(share, 0), 1) * 255;
  const next = INFERNO.findIndex((stop) => stop[0] >= place);
  const [a, b] = [INFERNO[Math.max(next - 1, 0)], INFERNO[next]];
  const part = b[0] === a[0] ? 0 : (place - a[0]) / (b[0] - a[0]);
  return [1, 2, 3].map((n) => Math.round(a[n] + part * (b[n] - a[n])));
};

// codes of the colour scale's end; the scale runs from 0 to twice the stored threshold, or further if the slider does
const step = data.thresholds[1];
const ceiling = () => Math.max(data.top / step, state.level + 1);

// -- regions ----------------------------------------------------------------------------------------------------------
const BEFORE = []; // of a voxel's 26 neighbours those that come before it
for (const p of [-1, 0]) for (const r of [-1, 0, 1]) for (const c of [-1, 0, 1]) {
  if ((p * 3 + r) * 3 + c < 0) BEFORE.push([p, r, c, (p * height + r) * width + c]);
}

const connect = (codes, level) => { // union and find; returns the regions, the most conspicuous first (see Finding.regions)
  const parent = [0];
  const root = (n) => {
    while (parent[n] !== n) n = parent[n] = parent[parent[n]];
    return n;
  };
  for (let p = 0, n = 0; p < depth; p++) for (let r = 0; r < height; r++) for (let c = 0; c < width; c++, n++) {
    let own = 0;
    if (codes[n] > level) {
      for (let k = 0; k < 13; k++) {
        const [dp, dr, dc, back] = BEFORE[k];
        if (p + dp < 0 || r + dr < 0 || r + dr >= height || c + dc < 0 || c + dc >= width || !labels[n + back]) continue;
        if (labels[n + back] === own) continue;
        const other = root(labels[n + back]);
        if (own && own !== other) parent[Math.max(own, other)] = Math.min(own, other);
        own = own ? Math.min(own, other) : other;
      }
      if (!own) own = parent.push(parent.length) - 1;
    }
    labels[n] = own;
  }
  const found = [];
  for (let n = 0; n < labels.length; n++) {
    if (!labels[n]) continue;
    const own = labels[n] = root(labels[n]);
    const region = found[own] ??= { name: own, voxels: 0, excess: 0, code: 0, at: 0 };
    region.voxels += area;
    region.excess += data.thresholds[codes[n] - 1] - data.thresholds[level];
    if (codes[n] > region.code) { region.code = codes[n]; region.at = n; }
  }
  return found.filter(Boolean).sort((a, b) => b.excess - a.excess);
};

const counted = (count, several) => `${count} ${count === 1 ? several.replace(/s$/, "") : several}`;
const sized = (voxels) => (data.ml === null ? counted(voxels, data.unit) : `${Number((voxels * data.ml).toPrecision(3))} ml`);
const told = (region) => { // as the page was written, but for the peak: a code knows only what it is above
  const [plane, row, column] = native([Math.floor(region.at / width / height), Math.floor(region.at / width) % height, region.at % width]);
  const about = area > 1 ? "about " : "", peak = `peak above ${number(data.thresholds[region.code - 1])}`;
  const size = sized(region.voxels);
  const text = data.volume ? `plane ${plane + 1}: ${about}${size}, ${peak}` : `row ${row + 1}, column ${column + 1}: ${about}${size}, ${peak}`;
  return { text, plane, row, column };
};

const list = () => {
  labels ??= new Uint32Array(depth * height * width);
  regions = connect(volumes.map.values, state.level);
  const small = regions.filter((region) => region.voxels * (data.ml ?? 1) < state.least);
  hidden = small.length ? new Uint8Array(small.reduce((most, { name }) => Math.max(most, name), 0) + 1) : null; // 1 for each name
  for (const region of small) hidden[region.name] = 1;
  const kept = regions.filter((region) => !hidden?.[region.name]);
  const rows = state.level === data.start && !hidden && data.regions.length ? data.regions : kept.slice(0, MOST).map(told);
  $("regions").replaceChildren(...rows.map(({ text, ...place }) => {
    const item = document.createElement("li"), button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: text });
    Object.assign(button.dataset, place);
    item.append(button);
    return item;
  }));
  $("limit").textContent = number(data.thresholds[state.level]);
  const gone = small.reduce((sum, region) => sum + region.voxels, 0);
  $("more").textContent = [
    !kept.length && "none", kept.length > MOST && `and ${kept.length - MOST} more`,
    small.length && `${small.length} smaller one${small.length > 1 ? "s" : ""} (${sized(gone)} together) neither listed nor painted`,
  ].filter(Boolean).join("; ");
};

const painted = (code, at) => code > state.level && !(hidden && hidden[labels[at]]);

// -- one plane on plain canvases --------------------------------------------------------------------------------------
const flat = () => {
  const sheets = panes.map(() => new OffscreenCanvas(width, height));
  const enlarge = Math.max(1, Math.ceil(480 / width));
  panes.forEach((pane) => {
    pane.width = width * enlarge;
    pane.height = Math.round(height * enlarge * data.aspect);
  });
  const paint = (sheet, fill) => {
    const context = sheet.getContext("2d");
    const picture = context.createImageData(width, height);
    for (let n = 0; n < width * height; n++) fill(picture.data, 4 * n, n + state.at[0] * width * height);
    context.putImageData(picture, 0, 0);
    return sheet;
  };
  const grey = (volume) => (pixels, to, from) => {
    const value = volume.values[from] * volume.slope + volume.intercept;
    pixels[to] = pixels[to + 1] = pixels[to + 2] = 255 * (value - state.low) / (state.high - state.low);
    pixels[to + 3] = 255;
  };
  const heat = (pixels, to, from) => {
    const code = volumes.map.values[from];
    if (painted(code, from)) pixels.set([...colour(code / ceiling()), 255], to);
  };
  const outline = (context, sx, sy) => {
    const on = (r, c) => r >= 0 && c >= 0 && r < height && c < width
      && volumes.truth.values[(state.at[0] * height + r) * width + c] > 0;
    context.beginPath();
    for (let r = 0; r <= height; r++) for (let c = 0; c <= width; c++) {
      if (on(r, c) !== on(r, c - 1)) { context.moveTo(c * sx, r * sy); context.lineTo(c * sx, (r + 1) * sy); }
      if (on(r, c) !== on(r - 1, c)) { context.moveTo(c * sx, r * sy); context.lineTo((c + 1) * sx, r * sy); }
    }
    for (const [style, wide] of [["black", 3.5], [`rgb(${TRUTH})`, 2]]) {
      context.strokeStyle = style;
      context.lineWidth = wide;
      context.stroke();
    }
  };
  const draw = () => panes.forEach((pane, index) => {
    const context = pane.getContext("2d");
    const [sx, sy] = [pane.width / width, pane.height / height];
    context.globalAlpha = 1;
    context.drawImage(paint(sheets[index], grey(index === 1 ? volumes.healthy : volumes.image)), 0, 0, pane.width, pane.height);
    if (index === 2 && state.overlay) {
      context.imageSmoothingEnabled = false;
      context.globalAlpha = state.opacity;
      context.drawImage(paint(new OffscreenCanvas(width, height), heat), 0, 0, pane.width, pane.height);
      context.globalAlpha = 1;
      context.imageSmoothingEnabled = true;
    }
    if (index !== 1 && volumes.truth && state.outline) outline(context, sx, sy);
    const [x, y] = [(state.at[2] + 0.5) * sx, (state.at[1] + 0.5) * sy];
    context.fillStyle = "rgba(86, 180, 233, 0.7)";
    if (state.pointed) {
      context.fillRect(x - 0.5, 0, 1, y - 8); context.fillRect(x - 0.5, y + 8, 1, pane.height);
      context.fillRect(0, y - 0.5, x - 8, 1); context.fillRect(x + 8, y - 0.5, pane.width, 1);
    }
    if (data.letters) {
      context.font = "bold 16px sans-serif";
      context.textAlign = "center";
      const places = [[12, pane.height / 2], [pane.width - 12, pane.height / 2], [pane.width / 2, 18], [pane.width / 2, pane.height - 8]];
      data.letters.forEach((letter, n) => {
        context.strokeStyle = "black"; context.lineWidth = 3; context.strokeText(letter, ...places[n]);
        context.fillStyle = "white"; context.fillText(letter, ...places[n]);
      });
    }
  });
  panes.forEach((pane) => {
    const point = (event) => {
      const box = pane.getBoundingClientRect();
      const row = Math.floor((event.clientY - box.top) / box.height * height);
      const column = Math.floor((event.clientX - box.left) / box.width * width);
      go([state.at[0], row, column]);
    };
    pane.addEventListener("pointerdown", point);
    pane.addEventListener("pointermove", (event) => { if (event.buttons === 1) point(event); });
    if (data.volume) pane.addEventListener("wheel", (event) => {
      event.preventDefault();
      go([state.at[0] + Math.sign(event.deltaY), state.at[1], state.at[2]]);
    }, { passive: false });
  });
  return { kind: "canvas", draw, move: draw };
};

// -- a volume in NiiVue -----------------------------------------------------------------------------------------------
const niivueViewer = async () => {
  if (!document.createElement("canvas").getContext("webgl2")) return null;
  const library = document.createElement("script"); // allowed by the hash of its text
  library.textContent = new TextDecoder().decode(await unpack($("library").textContent));
  document.head.append(library);
  const kit = window.niivue;
  document.querySelector(".panes").classList.add("webgl");
  const stops = [INFERNO[0], [1, ...colour(1 / 255)], ...INFERNO.slice(1)]; // clear at 0 and nowhere else
  const all = [];
  for (const [index, pane] of panes.entries()) {
    const nv = new kit.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.34, 0.71, 0.91, 0.7], crosshairWidth: 0.6, crosshairGap: 8, fontMinPx: 14,
      isOrientationTextVisible: data.geometry, showAllOrientationMarkers: true, fontColor: [1, 1, 1, 1], isRadiologicalConvention: data.geometry, dragAndDropEnabled: false,
      multiplanarShowRender: kit.SHOW_RENDER.NEVER, dragMode: kit.DRAG_MODE.pan, loadingText: "", show3Dcrosshair: false, logLevel: "error",
    });
    await nv.attachToCanvas(pane);
    const usual = nv.updateInterpolation.bind(nv);
    nv.updateInterpolation = (layer, linear) => { // what lies over the picture keeps its edges: nothing is tinted that is not counted
      nv.opts.isNearestInterpolation = layer > 0;
      usual(layer, linear);
    };
    const column = (n) => stops.map((stop) => stop[n]);
    nv.addColormap("anomaly", { I: column(0), R: column(1), G: column(2), B: column(3), A: column(0).map((at) => (at ? 255 : 0)) });
    nv.addColormap("reference", { I: [0, 255], R: [0, TRUTH[0]], G: [0, TRUTH[1]], B: [0, TRUTH[2]], A: [0, 255] });
    await nv.loadFromArrayBuffer(volumes[index === 1 ? "healthy" : "image"].buffer.slice(0), "grey.nii");
    const over = async (buffer, colormap) => { // a colour map resets the range, so once
      await nv.loadFromArrayBuffer(buffer, `${colormap}.nii`);
      Object.assign(nv.volumes.at(-1), { colormap });
    };
    if (index === 2) await over(volumes.map.buffer.slice(0), "anomaly");
    if (index !== 1 && volumes.truth) await over(border(), "reference");
    all.push(nv);
  }
  all.forEach((nv) => nv.broadcastTo(all.filter((other) => other !== nv), { "2d": true, "3d": true }));
  const draw = () => all.forEach((nv, index) => {
    nv.volumes.forEach((volume, n) => {
      if (n === 0) Object.assign(volume, { cal_min: state.low, cal_max: state.high });
      else if (index === 2 && n === 1) {
        volume.img.set(volumes.map.values.map((code, at) => (painted(code, at) ? code : 0))); // NiiVue would tint below cal_min
        Object.assign(volume, { cal_min: 0, cal_max: ceiling(), opacity: state.overlay ? state.opacity : 0 });
      } else Object.assign(volume, { cal_min: 0.5, cal_max: 1, opacity: state.outline ? 1 : 0 });
    });
    nv.updateGLVolume();
  });
  const move = () => all.forEach((nv) => {
    nv.scene.crosshairPos = nv.mm2frac(world(state.at));
    nv.drawScene();
  });
  all.forEach((nv) => {
    nv.onLocationChange = (where) => {
      const at = index3(Array.from(where.mm).slice(0, 3));
      if (at.some((v, n) => v !== state.at[n])) { state.at = at; tell(); }
    };
  });
  const views = { axial: kit.SLICE_TYPE.AXIAL, coronal: kit.SLICE_TYPE.CORONAL, sagittal: kit.SLICE_TYPE.SAGITTAL, all: kit.SLICE_TYPE.MULTIPLANAR };
  const turn = () => all.forEach((nv) => {
    nv.opts.isRadiologicalConvention = data.geometry && $("radiological").checked;
    nv.setSliceType(views[$("view").value]);
    nv.updateGLVolume();
  });
  $("view").value = data.view;
  $("view").addEventListener("change", turn);
  $("radiological").addEventListener("change", turn);
  turn();
  return { kind: "niivue", draw, move };
};

const border = () => { // the reference without what it surrounds in its own plane
  const { buffer, values } = volumes.truth;
  const copy = buffer.slice(0);
  const edge = new Uint8Array(copy, 352);
  values.forEach((value, n) => {
    const c = n % width, r = Math.floor(n / width) % height;
    const inner = c > 0 && c < width - 1 && r > 0 && r < height - 1;
    if (value && inner && values[n - 1] && values[n + 1] && values[n - width] && values[n + width]) edge[n] = 0;
  });
  return copy;
};

const apply = (matrix, [a, b, c]) => matrix.slice(0, 3).map((row) => row[0] * a + row[1] * b + row[2] * c + row[3]);
const world = (at) => apply(data.affine, at);
const limit = (at) => at.map((v, n) => Math.min(Math.max(Math.round(v), 0), data.shape[n] - 1));
const index3 = (mm) => limit(apply(data.inverse, mm));
const native = ([plane, row, column]) => [plane, ...[row, column].map((v, n) => // the middle one of those behind a pixel
  data.origin[n + 1] + v * data.factor + Math.floor((data.factor - 1) / 2))];
const shown = ([plane, row, column]) => limit([plane, (row - data.origin[1] - (data.factor - 1) / 2) / data.factor,
  (column - data.origin[2] - (data.factor - 1) / 2) / data.factor]);

// -- controls ---------------------------------------------------------------------------------------------------------
const tell = () => {
  const [plane, row, column] = state.at;
  const n = (plane * height + row) * width + column;
  const value = (name) => number(volumes[name].values[n] * volumes[name].slope + volumes[name].intercept);
  const code = volumes.map.values[n];
  const map = code === 0 ? "0" : code >= data.thresholds.length ? `above ${number(data.thresholds.at(-1))}` : `at most ${number(data.thresholds[code])}`;
  const place = data.volume ? `plane ${plane + 1} of ${depth}, ` : "";
  const mm = data.geometry ? ` (${world(state.at).map((v, i) => `${"RAS"[i]} ${v.toFixed(1)}`).join(", ")} mm)` : "";
  const at = `row ${data.origin[1] + row * data.factor + 1}, column ${data.origin[2] + column * data.factor + 1}`;
  $("where").textContent = `${place}${at}${mm}: input ${value("image")}, healthy twin ${value("healthy")}${data.grey && ` ${data.grey}`}, map ${map}`;
  if (data.volume) { $("plane").value = plane + 1; strip(); }
};

const go = (at) => {
  state.at = limit(at);
  state.pointed = true;
  tell();
  viewer.move();
};

const strip = () => {
  const canvas = $("bars"), context = canvas.getContext("2d");
  const most = Math.max(...data.plane_scores, 1e-12), wide = canvas.width / depth;
  context.clearRect(0, 0, canvas.width, canvas.height);
  data.plane_scores.forEach((score, n) => {
    context.fillStyle = n === state.at[0] ? "#d55e00" : "#0072b2";
    const tall = Math.max(1, (canvas.height - 4) * score / most);
    context.fillRect(n * wide + (wide > 3 ? 1 : 0), canvas.height - tall, wide > 3 ? wide - 1 : wide, tall);
  });
};

const threshold = () => {
  const count = data.counts[state.level], many = regions.filter((region) => !hidden?.[region.name]).length;
  $("level").textContent = `> ${number(data.thresholds[state.level])}`;
  $("above").textContent = data.ml === null ? `${counted(count, data.unit)} above` : `${(count * data.ml).toFixed(2)} ml above (${counted(count, data.unit)})`;
  $("many").textContent = hidden ? `${many} of ${counted(regions.length, "regions")} shown` : `in ${counted(many, "regions")}`;
  const bar = $("bar").getContext("2d");
  for (let x = 0; x < 120; x++) {
    const code = x / 120 * ceiling();
    bar.fillStyle = code > state.level ? `rgb(${colour(x / 120)})` : "#d5d9de";
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
  if (typeof DecompressionStream === "undefined" || typeof OffscreenCanvas === "undefined") throw new Error("this browser is too old");
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
    panes.forEach((_, n) => { panes[n] = $(`pane-${n}`); });
    document.querySelector(".panes").classList.remove("webgl");
    document.querySelectorAll(".controls .webgl").forEach((label) => { label.hidden = true; });
    viewer = flat();
    if (data.volume) complain("This browser has no WebGL2: planes are shown as they were taken, without other views.");
  } else if ($("mosaic")) $("mosaic").open = false;
  const redraw = () => { threshold(); viewer.draw(); };
  const relist = () => { list(); redraw(); };
  const on = (id, event, act) => $(id)?.addEventListener(event, (e) => { act(e.target); redraw(); });
  on("window", "change", (box) => { const w = data.windows[box.value]; if (w) window_(w.low, w.high, box.value); });
  for (const id of ["low", "high"]) on(id, "change", () => window_(Number($("low").value), Number($("high").value), "own"));
  on("overlay", "change", (box) => { state.overlay = box.checked; });
  on("outline", "change", (box) => { state.outline = box.checked; });
  on("opacity", "input", (box) => { state.opacity = box.value / 100; });
  on("threshold", "input", (box) => {
    state.level = Number(box.value);
    clearTimeout(later); // a large volume takes a moment
    later = setTimeout(relist, 60);
  });
  on("least", "input", (box) => { state.least = Number(box.value); list(); });
  on("reset", "click", () => {
    state.level = data.start;
    $("threshold").value = data.start;
    window_(data.windows[0].low, data.windows[0].high, "0");
    list();
  });
  $("plane")?.addEventListener("input", (event) => go([event.target.value - 1, state.at[1], state.at[2]]));
  $("bars")?.addEventListener("click", (event) => {
    const box = $("bars").getBoundingClientRect();
    go([Math.floor((event.clientX - box.left) / box.width * depth), state.at[1], state.at[2]]);
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
