// Line charts as SVG. The charts of a group share the cursor and the stretch of steps that is looked at.
//
// A spec is {title, series, percent, fromZero, stacked, axis: "step", level: {name, y}, a line across}; a series {name, color, x, y, and optionally low and high for
// whiskers, or points: true}; values that are null or not finite leave a gap.

const PALETTE = ["#2f6fe0", "#cf3a85", "#b8690c", "#16a085", "#8b6cef", "#7a8290"];
const HEIGHT = 190, LEFT = 50, RIGHT = 12, TOP = 10, BOTTOM = 34;

function svg(tag, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Round numbers (1, 2 or 5 times a power of ten apart) from at most `low` to at least `high`.
function ticks(low, high, most) {
  if (!(high > low)) { low -= Math.abs(low) / 2 || 0; high = low + (Math.abs(low) || 1); }
  const power = 10 ** Math.floor(Math.log10((high - low) / most));
  const step = [1, 2, 5, 10, 20].map(factor => factor * power).find(size => (high - low) / size <= most - 1);
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9), found = [];
  for (let count = first; count <= last; count++) found.push(Number((count * step).toPrecision(12)));
  return found;
}

// The mean of up to `window` values around each value; gaps stay.
function smoothed(y, window) {
  if (window < 2) return y;
  const half = Math.floor(window / 2), sums = [0], counts = [0];
  y.forEach((value, i) => { const there = Number.isFinite(value); sums.push(sums[i] + (there ? value : 0)); counts.push(counts[i] + there); });
  return y.map((value, i) => {
    if (!Number.isFinite(value)) return null;
    const near = Math.min(half, i, y.length - 1 - i), from = i - near, to = i + near + 1;
    return (sums[to] - sums[from]) / (counts[to] - counts[from]);
  });
}

// At most `most` points: means over equal stretches.
function shortened(x, y, most) {
  if (x.length <= most) return [x, y];
  const size = Math.ceil(x.length / most), xs = [], ys = [];
  for (let from = 0; from < x.length; from += size) {
    const known = y.slice(from, from + size).filter(Number.isFinite);
    xs.push(mean(x.slice(from, from + size)));
    ys.push(known.length ? mean(known) : null);
  }
  return [xs, ys];
}

function stack(series) {
  const below = new Map();
  return series.map(one => ({...one, base: one.x.map(x => below.get(x) || 0),
    y: one.y.map((value, i) => { const top = (below.get(one.x[i]) || 0) + (value || 0); below.set(one.x[i], top); return top; }), own: one.y}));
}

function chartGroup(container) {
  const group = {zoom: null, charts: new Map()};
  const all = act => { for (const chart of group.charts.values()) act(chart); };
  function moveCursor(x) { all(chart => setCursor(chart, x)); }
  function setZoom(zoom) { group.zoom = zoom; all(chart => drawChart(chart, group.zoom)); }

  function create(title) {
    const chart = {figure: element("figure", "chart card"), legend: element("div", "legend"), plot: svg("svg", {role: "img"})};
    chart.figure.append(element("h3", "", title), chart.legend, chart.plot);
    let from = null, shade = null;
    const at = event => (event.clientX - chart.plot.getBoundingClientRect().left) * chart.width / chart.plot.getBoundingClientRect().width;
    chart.plot.addEventListener("pointermove", event => {
      if (!chart.scale) return;
      moveCursor(chart.scale.step(at(event)));
      if (shade) { shade.setAttribute("x", Math.min(from, at(event))); shade.setAttribute("width", Math.abs(at(event) - from)); }
    });
    chart.plot.addEventListener("pointerleave", () => { moveCursor(null); if (shade) shade.remove(); from = shade = null; });
    chart.plot.addEventListener("pointerdown", event => {
      if (event.pointerType !== "mouse" || !chart.scale) return;
      from = at(event);
      shade = svg("rect", {class: "zoom", x: from, y: TOP, width: 0, height: HEIGHT - TOP - BOTTOM});
      chart.plot.append(shade);
    });
    chart.plot.addEventListener("pointerup", event => {
      if (shade && Math.abs(at(event) - from) > 8) setZoom([from, at(event)].sort((a, b) => a - b).map(chart.scale.step));
      if (shade) shade.remove();
      from = shade = null;
    });
    chart.plot.addEventListener("dblclick", () => setZoom(null));
    return chart;
  }

  window.addEventListener("resize", () => all(chart => drawChart(chart, group.zoom)));
  return {
    show(specs) {
      for (const title of [...group.charts.keys()]) if (!specs.some(spec => spec.title === title)) group.charts.delete(title);
      for (const spec of specs) if (!group.charts.has(spec.title)) group.charts.set(spec.title, create(spec.title));
      const figures = specs.map(spec => group.charts.get(spec.title).figure);
      if (figures.some((figure, i) => container.children[i] !== figure) || figures.length !== container.children.length) container.replaceChildren(...figures);
      for (const spec of specs) { const chart = group.charts.get(spec.title); chart.spec = spec; drawChart(chart, group.zoom); }
    },
    zoom: setZoom,
  };
}

const shown = (value, spec) => spec.percent && Number.isFinite(value) ? percent(value) : figure(value);

function drawChart(chart, zoom) {
  const {spec, plot} = chart, width = chart.width = Math.max(280, plot.clientWidth || 440), given = spec.series.filter(one => one.x.length);
  const within = x => !zoom || (x >= zoom[0] && x <= zoom[1]);
  const series = (spec.stacked ? stack(given) : given).map(one => {
    const keep = one.x.map((x, i) => i).filter(i => within(one.x[i])), pick = values => values && keep.map(i => values[i]);
    return {...one, x: pick(one.x), y: pick(one.y), base: pick(one.base), low: pick(one.low), high: pick(one.high), own: pick(one.own || one.y)};
  });
  const xs = series.flatMap(one => one.x);
  const ys = series.flatMap(one => [...one.y, ...(one.low || []), ...(one.high || []), ...(spec.level ? [spec.level.y] : [])]).filter(Number.isFinite);
  plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  plot.setAttribute("aria-label", `${spec.title}. ${series.map(one => inWords(one, spec)).join("; ")}`);
  chart.series = series;
  chart.scale = null;
  if (!xs.length || !ys.length) { plot.replaceChildren(svg("text", {x: 0, y: 30}, "nothing was logged")); chart.legend.replaceChildren(); return; }
  const smallest = extreme(ys, Math.min), low = spec.fromZero === false ? smallest : Math.min(0, smallest);
  const yTicks = ticks(low, extreme(ys, Math.max), 5), bottom = HEIGHT - BOTTOM;
  const first = extreme(xs, Math.min), span = Math.max(extreme(xs, Math.max) - first, 1e-9), range = yTicks.at(-1) - yTicks[0];
  const across = x => LEFT + (x - first) / span * (width - LEFT - RIGHT), down = y => bottom - (y - yTicks[0]) / range * (bottom - TOP);
  chart.scale = {across, step: px => first + (px - LEFT) / (width - LEFT - RIGHT) * span};
  const marks = yTicks.flatMap(tick => [
    svg("line", {class: "axis", x1: LEFT, x2: width - RIGHT, y1: down(tick), y2: down(tick)}),
    svg("text", {x: LEFT - 7, y: down(tick) + 4, "text-anchor": "end"}, spec.percent ? `${Math.round(tick * 1000) / 10}%` : figure(tick))]);
  for (const tick of ticks(first, first + span, Math.max(3, Math.min(7, width / 70))).filter(tick => Number.isInteger(tick) && tick >= first && tick <= first + span))
    marks.push(svg("text", {x: across(tick), y: bottom + 16, "text-anchor": "middle"}, number(tick)));
  marks.push(svg("text", {x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle"}, spec.axis || "step"));
  if (spec.level) marks.push(svg("line", {class: "level", x1: LEFT, x2: width - RIGHT, y1: down(spec.level.y), y2: down(spec.level.y)}),
    svg("text", {x: width - RIGHT, y: down(spec.level.y) + 14, "text-anchor": "end"}, `${spec.level.name} ${shown(spec.level.y, spec)}`));
  for (const one of spec.stacked ? series.toReversed() : series) marks.push(...lines(one, across, down, width, spec));
  chart.cursor = svg("line", {class: "cursor", y1: TOP, y2: bottom, visibility: "hidden"});
  plot.replaceChildren(...marks, chart.cursor);
  setCursor(chart, null);
}

const extreme = (values, choose) => values.reduce((a, b) => choose(a, b));

function lines(one, across, down, width, spec) {
  const marks = [], [x, y] = shortened(one.x, one.y, 2 * width);
  const style = {fill: "none", stroke: one.color, "stroke-width": 2, "stroke-linejoin": "round"};
  if (spec.stacked) {
    const [, base] = shortened(one.x, one.base, 2 * width), back = x.map((step, i) => `L${px(across(step))} ${px(down(base[i]))}`).reverse();
    marks.push(svg("path", {d: path(x, y, across, down) + back.join("") + "Z", fill: one.color, opacity: .75}));
    return marks;
  }
  if (spec.smooth > 1 && !one.points) {
    marks.push(svg("path", {...style, d: path(x, y, across, down), opacity: .22, "stroke-width": 1}));
    const [, soft] = shortened(one.x, smoothed(one.y, spec.smooth), 2 * width);
    marks.push(svg("path", {...style, d: path(x, soft, across, down)}));
  } else marks.push(svg("path", {...style, d: path(x, y, across, down)}));
  one.x.forEach((step, i) => {
    if (one.low && Number.isFinite(one.low[i])) marks.push(svg("line", {x1: across(step), x2: across(step), y1: down(one.low[i]), y2: down(one.high[i]), stroke: one.color, opacity: .5}));
    if ((one.points || one.x.length === 1) && Number.isFinite(one.y[i])) marks.push(svg("circle", {cx: across(step), cy: down(one.y[i]), r: 3.5, fill: one.color}));
  });
  return marks;
}

const px = value => value.toFixed(1);
function path(x, y, across, down) {
  let pen = "M";
  return x.map((step, i) => {
    if (!Number.isFinite(y[i])) { pen = "M"; return ""; }
    const place = `${pen}${px(across(step))} ${px(down(y[i]))}`;
    pen = "L";
    return place;
  }).join("");
}

// Moves the cursor to the step nearest to `x`, and shows its values; with null, the last ones.
function setCursor(chart, x) {
  if (!chart.scale) return;
  const steps = chart.series.flatMap(one => one.x), near = x === null ? null : steps.reduce((a, b) => Math.abs(b - x) < Math.abs(a - x) ? b : a);
  chart.cursor.setAttribute("visibility", near === null ? "hidden" : "visible");
  if (near !== null) for (const end of ["x1", "x2"]) chart.cursor.setAttribute(end, chart.scale.across(near));
  const values = chart.series.map(one => near === null ? one.own.findLast(Number.isFinite) : one.own[one.x.indexOf(near)]);
  chart.legend.replaceChildren(...chart.series.map((one, i) => {
    const key = element("i");
    key.style.borderTopColor = one.color;
    return element("span", "", key, chart.series.length > 1 ? `${one.name} ` : "", element("b", "", shown(values[i], chart.spec)));
  }), ...(near === null ? [] : [element("span", "", `step ${number(near)}`)]));
}

function inWords(one, spec) {
  const known = one.own.filter(Number.isFinite);
  return known.length ? `${one.name}: from ${shown(known[0], spec)} to ${shown(known.at(-1), spec)}` : `${one.name}: nothing was logged`;
}
