// Curves over steps: small panels of one scale, one per training.
"use strict";

report.curves = (() => {
  const { svg, el } = report;
  const WIDTH = 300, HEIGHT = 120, LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 20;
  const NEIGHBORS = 12; // of a point on each side that the drawn line is the mean over

  // A number in few characters, as axes and tips print it.
  function short(value) {
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
    if (size >= 1e4) return `${(value / 1e3).toFixed(size >= 1e5 ? 0 : 1)}k`;
    if (size >= 100) return value.toFixed(0);
    if (size < 0.01) return value.toExponential(1).replace("e-", "e−");
    return value.toPrecision(3).replace(/\.?0+$/, "");
  }

  // Highest and lowest of what is drawn of all panels, so that they compare; peaks of single points are cut.
  function scale(lines, curve) {
    const steps = lines.flatMap((line) => (line.curves[curve] || []).map(([step]) => step));
    const values = lines.flatMap((line) => (line.curves[curve] || []).map(([, value]) => value)).sort((a, b) => a - b);
    if (!values.length) return null;
    const most = values[Math.min(values.length - 1, Math.ceil(0.995 * values.length))];
    const least = Math.min(0, values[0]);
    return { last: Math.max(1, ...steps), least, most: most > least ? most : least + 1 };
  }

  function draw(line, curve, bounds, onTip) {
    const points = line.curves[curve.name];
    if (!points || !points.length) return el("p", { class: "none" }, line.cells ? "not measured" : "missing");
    const x = (step) => LEFT + ((WIDTH - LEFT - RIGHT) * step) / bounds.last;
    const y = (value) => TOP + (HEIGHT * (bounds.most - Math.min(bounds.most, value))) / (bounds.most - bounds.least);
    const few = points.length <= 40;
    const path = (all) => all.map(([step, value], index) => `${index ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const drawn = few || curve.name === "learning_rate" ? points : smooth(points);
    const ticks = [bounds.least, (bounds.least + bounds.most) / 2, bounds.most];
    const marks = few && x(points.at(-1)[0]) - x(points[0][0]) > 6 * points.length ? points.map(([step, value]) => svg("circle", { cx: x(step), cy: y(value), r: 2.6 })) : [];
    const parts = [
      ...ticks.flatMap((tick) => [
        svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick), class: "grid" }),
        svg("text", { x: LEFT - 6, y: y(tick) + 3.5, "text-anchor": "end", class: "tick" }, short(tick))]),
      svg("text", { x: LEFT, y: TOP + HEIGHT + 14, class: "tick" }, "0"),
      svg("text", { x: WIDTH - RIGHT, y: TOP + HEIGHT + 14, "text-anchor": "end", class: "tick" }, `${bounds.last.toLocaleString("en")} steps`),
      few ? "" : svg("path", { d: path(points), class: "raw" }),
      svg("path", { d: path(drawn), class: "line" }),
      ...marks,
      ...points.map((point, index) => {
        const [from, to] = [index ? points[index - 1][0] : 0, points[index + 1] ? points[index + 1][0] : bounds.last];
        const [left, right] = [x((from + point[0]) / 2), x((point[0] + to) / 2)];
        const say = () => [el("strong", {}, `after step ${point[0].toLocaleString("en")}`), el("p", {}, `${curve.title} ${short(point[1])}`)];
        return svg("rect", { x: left, y: TOP, width: Math.max(0.5, right - left), height: HEIGHT, class: "target", ...onTip(say) });
      }),
    ];
    return svg("svg", { width: "100%", viewBox: `0 0 ${WIDTH} ${TOP + HEIGHT + BOTTOM}`, role: "img", class: "curve", "aria-label": `${curve.title} of ${line.name}` }, ...parts);
  }

  function smooth(points) {
    return points.map(([step], index) => {
      const reach = Math.min(index, points.length - 1 - index, NEIGHBORS); // as far on both sides, so that ends are not drawn inward
      const near = points.slice(index - reach, index + reach + 1);
      return [step, near.reduce((sum, [, value]) => sum + value, 0) / near.length];
    });
  }

  return { draw, scale };
})();
