// Regions: connected voxels above the level, listed by what they weigh.
const BEFORE = []; // of a voxel's 26 neighbours those that come before it
for (const p of [-1, 0])
  for (const r of [-1, 0, 1])
    for (const c of [-1, 0, 1]) {
      if ((p * 3 + r) * 3 + c < 0) BEFORE.push([p, r, c, (p * height + r) * width + c]);
    }

const connect = (codes, level) => {
  // union and find; returns the regions, the most conspicuous first (see Finding.regions)
  const parent = [0];
  const root = (n) => {
    while (parent[n] !== n) n = parent[n] = parent[parent[n]];
    return n;
  };
  for (let p = 0, n = 0; p < depth; p++)
    for (let r = 0; r < height; r++)
      for (let c = 0; c < width; c++, n++) {
        let own = 0;
        if (codes[n] > level) {
          for (let k = 0; k < 13; k++) {
            const [dp, dr, dc, back] = BEFORE[k];
            if (
              p + dp < 0 ||
              r + dr < 0 ||
              r + dr >= height ||
              c + dc < 0 ||
              c + dc >= width ||
              !labels[n + back]
            )
              continue;
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
    const own = (labels[n] = root(labels[n]));
    const region = (found[own] ??= { name: own, voxels: 0, excess: 0, code: 0, at: 0 });
    region.voxels += area;
    region.excess += data.thresholds[codes[n] - 1] - data.thresholds[level];
    if (codes[n] > region.code) {
      region.code = codes[n];
      region.at = n;
    }
  }
  return found.filter(Boolean).sort((a, b) => b.excess - a.excess);
};

const counted = (count, several) => `${count} ${count === 1 ? several.replace(/s$/, "") : several}`;
const sized = (voxels) =>
  data.ml === null ? counted(voxels, data.unit) : `${Number((voxels * data.ml).toPrecision(3))} ml`;
const told = (region) => {
  // as the page was written, but for the peak: a code knows only what it is above
  const [plane, row, column] = native([
    Math.floor(region.at / width / height),
    Math.floor(region.at / width) % height,
    region.at % width,
  ]);
  const about = area > 1 ? "about " : "",
    peak = `peak above ${number(data.thresholds[region.code - 1])}`;
  const size = sized(region.voxels);
  const text = data.volume
    ? `plane ${plane + 1}: ${about}${size}, ${peak}`
    : `row ${row + 1}, column ${column + 1}: ${about}${size}, ${peak}`;
  return { text, plane, row, column };
};

const list = () => {
  labels ??= new Uint32Array(depth * height * width);
  regions = connect(volumes.map.values, state.level);
  const small = regions.filter((region) => region.voxels * (data.ml ?? 1) < state.least);
  hidden = small.length
    ? new Uint8Array(small.reduce((most, { name }) => Math.max(most, name), 0) + 1)
    : null; // 1 for each name
  for (const region of small) hidden[region.name] = 1;
  const kept = regions.filter((region) => !hidden?.[region.name]);
  const rows =
    state.level === data.start && !hidden && data.regions.length
      ? data.regions
      : kept.slice(0, MOST).map(told);
  $("regions").replaceChildren(
    ...rows.map(({ text, ...place }) => {
      const item = document.createElement("li"),
        button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: text });
      Object.assign(button.dataset, place);
      item.append(button);
      return item;
    }),
  );
  $("limit").textContent = number(data.thresholds[state.level]);
  const gone = small.reduce((sum, region) => sum + region.voxels, 0);
  $("more").textContent = [
    !kept.length && "none",
    kept.length > MOST && `and ${kept.length - MOST} more`,
    small.length &&
      `${small.length} smaller one${small.length > 1 ? "s" : ""} (${sized(gone)} together)` +
        " neither listed nor painted",
  ]
    .filter(Boolean)
    .join("; ");
};

const painted = (code, at) => code > state.level && !(hidden && hidden[labels[at]]);
