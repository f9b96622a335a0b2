// Histograms of lengths, one per dataset, over one scale of half octaves.
"use strict";

report.lengths = (() => {
  const { svg, el } = report;
  const BAR = 10, HEIGHT = 76, TOP = 4, BOTTOM = 18;

  function draw(line, onTip) {
    const { statistics } = line;
    if (!statistics) return el("p", { class: "none" }, "missing");
    const { bins } = report.about;
    const width = BAR * (bins.length + 1);
    const most = Math.max(1, ...statistics.lengths);
    const bars = statistics.lengths.flatMap((count, index) => {
      const height = (HEIGHT * count) / most;
      const from = index ? bins[index - 1] + 1 : 0;
      const range = index < bins.length ? `${from.toLocaleString("en")}–${bins[index].toLocaleString("en")}` : `over ${bins.at(-1).toLocaleString("en")}`;
      const share = ((100 * count) / Math.max(1, statistics.instances)).toFixed(1);
      const say = () => [el("strong", {}, `${range} tokens`), el("p", {}, `${count.toLocaleString("en")} conversations, ${share} %`)];
      return [
        svg("rect", { x: index * BAR, y: TOP, width: BAR, height: HEIGHT, class: "target", ...onTip(say) }),
        svg("rect", { x: index * BAR + 0.5, y: TOP + HEIGHT - height, width: BAR - 1, height, class: "bar" }),
      ];
    });
    const ticks = [16, 64, 256, 1024, 4096].map((tick) =>
      svg("text", { x: BAR * (bins.indexOf(tick) + 1), y: TOP + HEIGHT + 14, "text-anchor": "middle", class: "tick" }, tick.toLocaleString("en")));
    const cut = BAR * statistics.cut;
    return svg("svg", { width: "100%", viewBox: `0 0 ${width} ${TOP + HEIGHT + BOTTOM}`, role: "img", "aria-label": `lengths of ${line.title}` },
      ...bars, svg("line", { x1: 0, x2: width, y1: TOP + HEIGHT, y2: TOP + HEIGHT, class: "grid" }),
      svg("line", { x1: cut, x2: cut, y1: 0, y2: TOP + HEIGHT, class: "reference" }), ...ticks);
  }

  return { draw };
})();
