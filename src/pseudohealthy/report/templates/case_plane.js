// One plane on plain canvases: pictures, and volumes where there is no WebGL.
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
    for (let n = 0; n < width * height; n++)
      fill(picture.data, 4 * n, n + state.at[0] * width * height);
    context.putImageData(picture, 0, 0);
    return sheet;
  };
  const grey = (volume) => (pixels, to, from) => {
    const value = volume.values[from] * volume.slope + volume.intercept;
    pixels[to] =
      pixels[to + 1] =
      pixels[to + 2] =
        (255 * (value - state.low)) / (state.high - state.low);
    pixels[to + 3] = 255;
  };
  const heat = (pixels, to, from) => {
    const code = volumes.map.values[from];
    if (painted(code, from)) pixels.set([...colour(code / ceiling()), 255], to);
  };
  const outline = (context, sx, sy) => {
    const on = (r, c) =>
      r >= 0 &&
      c >= 0 &&
      r < height &&
      c < width &&
      volumes.truth.values[(state.at[0] * height + r) * width + c] > 0;
    context.beginPath();
    for (let r = 0; r <= height; r++)
      for (let c = 0; c <= width; c++) {
        if (on(r, c) !== on(r, c - 1)) {
          context.moveTo(c * sx, r * sy);
          context.lineTo(c * sx, (r + 1) * sy);
        }
        if (on(r, c) !== on(r - 1, c)) {
          context.moveTo(c * sx, r * sy);
          context.lineTo((c + 1) * sx, r * sy);
        }
      }
    for (const [style, wide] of [
      ["black", 3.5],
      [`rgb(${TRUTH})`, 2],
    ]) {
      context.strokeStyle = style;
      context.lineWidth = wide;
      context.stroke();
    }
  };
  const draw = () =>
    panes.forEach((pane, index) => {
      const context = pane.getContext("2d");
      const [sx, sy] = [pane.width / width, pane.height / height];
      context.globalAlpha = 1;
      context.drawImage(
        paint(sheets[index], grey(index === 1 ? volumes.healthy : volumes.image)),
        0,
        0,
        pane.width,
        pane.height,
      );
      if (index === 2 && state.overlay) {
        context.imageSmoothingEnabled = false;
        context.globalAlpha = state.opacity;
        context.drawImage(
          paint(new OffscreenCanvas(width, height), heat),
          0,
          0,
          pane.width,
          pane.height,
        );
        context.globalAlpha = 1;
        context.imageSmoothingEnabled = true;
      }
      if (index !== 1 && volumes.truth && state.outline) outline(context, sx, sy);
      const [x, y] = [(state.at[2] + 0.5) * sx, (state.at[1] + 0.5) * sy];
      context.fillStyle = "rgba(86, 180, 233, 0.7)";
      if (state.pointed) {
        context.fillRect(x - 0.5, 0, 1, y - 8);
        context.fillRect(x - 0.5, y + 8, 1, pane.height);
        context.fillRect(0, y - 0.5, x - 8, 1);
        context.fillRect(x + 8, y - 0.5, pane.width, 1);
      }
      if (data.letters) {
        context.font = "bold 16px sans-serif";
        context.textAlign = "center";
        const places = [
          [12, pane.height / 2],
          [pane.width - 12, pane.height / 2],
          [pane.width / 2, 18],
          [pane.width / 2, pane.height - 8],
        ];
        data.letters.forEach((letter, n) => {
          context.strokeStyle = "black";
          context.lineWidth = 3;
          context.strokeText(letter, ...places[n]);
          context.fillStyle = "white";
          context.fillText(letter, ...places[n]);
        });
      }
    });
  panes.forEach((pane) => {
    const point = (event) => {
      const box = pane.getBoundingClientRect();
      const row = Math.floor(((event.clientY - box.top) / box.height) * height);
      const column = Math.floor(((event.clientX - box.left) / box.width) * width);
      go([state.at[0], row, column]);
    };
    pane.addEventListener("pointerdown", point);
    pane.addEventListener("pointermove", (event) => {
      if (event.buttons === 1) point(event);
    });
    if (data.volume)
      pane.addEventListener(
        "wheel",
        (event) => {
          event.preventDefault();
          go([state.at[0] + Math.sign(event.deltaY), state.at[1], state.at[2]]);
        },
        { passive: false },
      );
  });
  return { kind: "canvas", draw, move: draw };
};
