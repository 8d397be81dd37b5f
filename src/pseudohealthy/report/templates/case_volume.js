// A volume in NiiVue.
const niivueViewer = async () => {
  if (!document.createElement("canvas").getContext("webgl2")) return null;
  const library = document.createElement("script"); // allowed by the hash of its text
  library.textContent = new TextDecoder().decode(await unpack($("library").textContent));
  document.head.append(library);
  const kit = window.niivue;
  document.querySelector(".panes").classList.add("webgl");
  // Clear at 0 and nowhere else.
  const stops = [INFERNO[0], [1, ...colour(1 / 255)], ...INFERNO.slice(1)];
  const all = [];
  for (const [index, pane] of panes.entries()) {
    const nv = new kit.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.34, 0.71, 0.91, 0.7],
      crosshairWidth: 0.6,
      crosshairGap: 8,
      fontMinPx: 14,
      isOrientationTextVisible: data.geometry,
      showAllOrientationMarkers: true,
      fontColor: [1, 1, 1, 1],
      isRadiologicalConvention: data.geometry,
      dragAndDropEnabled: false,
      multiplanarShowRender: kit.SHOW_RENDER.NEVER,
      dragMode: kit.DRAG_MODE.pan,
      loadingText: "",
      show3Dcrosshair: false,
      logLevel: "error",
    });
    await nv.attachToCanvas(pane);
    const usual = nv.updateInterpolation.bind(nv);
    nv.updateInterpolation = (layer, linear) => {
      // what lies over the picture keeps its edges: nothing is tinted that is not counted
      nv.opts.isNearestInterpolation = layer > 0;
      usual(layer, linear);
    };
    const column = (n) => stops.map((stop) => stop[n]);
    nv.addColormap("anomaly", {
      I: column(0),
      R: column(1),
      G: column(2),
      B: column(3),
      A: column(0).map((at) => (at ? 255 : 0)),
    });
    nv.addColormap("reference", {
      I: [0, 255],
      R: [0, TRUTH[0]],
      G: [0, TRUTH[1]],
      B: [0, TRUTH[2]],
      A: [0, 255],
    });
    await nv.loadFromArrayBuffer(
      volumes[index === 1 ? "healthy" : "image"].buffer.slice(0),
      "grey.nii",
    );
    const over = async (buffer, colormap) => {
      // a colour map resets the range, so once
      await nv.loadFromArrayBuffer(buffer, `${colormap}.nii`);
      Object.assign(nv.volumes.at(-1), { colormap });
    };
    if (index === 2) await over(volumes.map.buffer.slice(0), "anomaly");
    if (index !== 1 && volumes.truth) await over(border(), "reference");
    all.push(nv);
  }
  all.forEach((nv) =>
    nv.broadcastTo(
      all.filter((other) => other !== nv),
      { "2d": true, "3d": true },
    ),
  );
  const draw = () =>
    all.forEach((nv, index) => {
      nv.volumes.forEach((volume, n) => {
        if (n === 0) Object.assign(volume, { cal_min: state.low, cal_max: state.high });
        else if (index === 2 && n === 1) {
          // NiiVue would tint below cal_min.
          volume.img.set(volumes.map.values.map((code, at) => (painted(code, at) ? code : 0)));
          Object.assign(volume, {
            cal_min: 0,
            cal_max: ceiling(),
            opacity: state.overlay ? state.opacity : 0,
          });
        } else Object.assign(volume, { cal_min: 0.5, cal_max: 1, opacity: state.outline ? 1 : 0 });
      });
      nv.updateGLVolume();
    });
  const move = () =>
    all.forEach((nv) => {
      nv.scene.crosshairPos = nv.mm2frac(world(state.at));
      nv.drawScene();
    });
  all.forEach((nv) => {
    nv.onLocationChange = (where) => {
      const at = index3(Array.from(where.mm).slice(0, 3));
      if (at.some((v, n) => v !== state.at[n])) {
        state.at = at;
        tell();
      }
    };
  });
  const views = {
    axial: kit.SLICE_TYPE.AXIAL,
    coronal: kit.SLICE_TYPE.CORONAL,
    sagittal: kit.SLICE_TYPE.SAGITTAL,
    all: kit.SLICE_TYPE.MULTIPLANAR,
  };
  const turn = () =>
    all.forEach((nv) => {
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

const border = () => {
  // the reference without what it surrounds in its own plane
  const { buffer, values } = volumes.truth;
  const copy = buffer.slice(0);
  const edge = new Uint8Array(copy, 352);
  values.forEach((value, n) => {
    const c = n % width,
      r = Math.floor(n / width) % height;
    const inner = c > 0 && c < width - 1 && r > 0 && r < height - 1;
    if (value && inner && values[n - 1] && values[n + 1] && values[n - width] && values[n + width])
      edge[n] = 0;
  });
  return copy;
};

const apply = (matrix, [a, b, c]) =>
  matrix.slice(0, 3).map((row) => row[0] * a + row[1] * b + row[2] * c + row[3]);
const world = (at) => apply(data.affine, at);
const limit = (at) => at.map((v, n) => Math.min(Math.max(Math.round(v), 0), data.shape[n] - 1));
const index3 = (mm) => limit(apply(data.inverse, mm));
const native = ([plane, row, column]) => [
  plane,
  ...[row, column].map(
    (v, n) =>
      // the middle one of those behind a pixel
      data.origin[n + 1] + v * data.factor + Math.floor((data.factor - 1) / 2),
  ),
];
const shown = ([plane, row, column]) =>
  limit([
    plane,
    (row - data.origin[1] - (data.factor - 1) / 2) / data.factor,
    (column - data.origin[2] - (data.factor - 1) / 2) / data.factor,
  ]);
