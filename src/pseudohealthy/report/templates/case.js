"use strict";
// One case. Codes of the map count the thresholds a voxel exceeds: "above the j-th threshold" is
// code > j, exactly. case_regions.js, case_plane.js, case_volume.js and case_controls.js follow.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("case").textContent);
const INFERNO = [
  [0, 0, 0, 4],
  [32, 31, 12, 72],
  [64, 85, 15, 109],
  [96, 136, 34, 106],
  [128, 186, 54, 85],
  [160, 227, 89, 51],
  [192, 249, 140, 10],
  [224, 249, 201, 50],
  [255, 252, 255, 164],
];
// Colours of tokens.css; over scans those of its dark theme, as in panel.png.
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
const TRUTH = [86, 180, 233];
const [depth, height, width] = data.shape;
const panes = [0, 1, 2].map((n) => $(`pane-${n}`));
const number = (value) => String(Number(value.toPrecision(4)));
const volumes = {};
const state = {
  low: 0,
  high: 1,
  level: data.start,
  least: 0,
  opacity: 0.6,
  overlay: true,
  outline: true,
  at: [0, 0, 0],
};
const MOST = 20; // regions in the list
const area = data.factor ** 2; // voxels of the scan behind one of the pictures
let viewer = null,
  labels = null,
  hidden = null,
  regions = [],
  later = 0;

const unpack = async (base64) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  return new Response(
    new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")),
  ).arrayBuffer();
};

const nifti = (buffer) => {
  // our own files: little-endian, uint8 or int16, one scaling
  const header = new DataView(buffer);
  const Kind = header.getInt16(70, true) === 4 ? Int16Array : Uint8Array;
  return {
    buffer,
    values: new Kind(buffer, 352),
    slope: header.getFloat32(112, true) || 1,
    intercept: header.getFloat32(116, true),
  };
};

const colour = (share) => {
  // 0..1 -> [r, g, b]
  const place = Math.min(Math.max(share, 0), 1) * 255;
  const next = INFERNO.findIndex((stop) => stop[0] >= place);
  const [a, b] = [INFERNO[Math.max(next - 1, 0)], INFERNO[next]];
  const part = b[0] === a[0] ? 0 : (place - a[0]) / (b[0] - a[0]);
  return [1, 2, 3].map((n) => Math.round(a[n] + part * (b[n] - a[n])));
};

// Codes of the colour scale's end; the scale runs from 0 to twice the stored threshold, or further
// if the slider does.
const step = data.thresholds[1];
const ceiling = () => Math.max(data.top / step, state.level + 1);
