// Rollouts of a step, by group, and problems over the steps.

const PROBLEM_ORDERS = {seen: "Seen most often", gained: "Gained most", lost: "Lost most", hard: "Lowest reward at the end"};
const GROUP_FILTERS = [
  ["all", "All", () => true],
  ["divided", "With signal", g => g.high > g.low],
  ["silent", "Without signal", g => !(g.high > g.low)],
  ["cut", "Cut off", g => g.cut > 0],
];
const GROUP_ORDERS = {
  best: ["Highest reward first", g => -(g.mean ?? -Infinity)], worst: ["Lowest reward first", g => g.mean ?? Infinity],
  divided: ["Most divided first", g => -(g.high - g.low || 0)], long: ["Longest first", g => -g.tokens], given: ["As sampled", g => g.start],
};

// A chat template's marks around the last question are no help to a reader of a list.
const question = prompt => prompt.slice(-2000).replace(/<\|?[\w｜▁ -]{1,30}\|?>(system|user|assistant)?/g, " ").replace(/\s+/g, " ").trim() || prompt;

function summed(data, group) {
  const rows = [...Array(group.end - group.start).keys()].map(i => group.start + i);
  const known = rows.map(row => data.reward[row]).filter(Number.isFinite);
  return {...group, rows, mean: known.length ? mean(known) : null, low: Math.min(...known), high: Math.max(...known),
    tokens: Math.max(...rows.map(row => data.tokens[row] || 0)), cut: rows.filter(row => data.finish[row] === "length").length};
}

function drawCompletion(data, row, text, query) {
  const head = element("div", "head", element("b", "", `reward ${figure(data.reward[row])}`));
  for (const [name, values] of Object.entries(data.rewards)) head.append(element("span", "tag", `${name} ${figure(values[row])}`));
  head.append(element("span", "tag", `advantage ${figure(data.advantage[row])}`), element("small", "", plural(data.tokens[row] || 0, "token")));
  if (data.finish[row] === "length") head.append(element("span", "tag doubt", "cut off"));
  if (data.finish[row] === "error") head.append(element("span", "verdict", "failed"));
  return element("div", "sample", head, drawText(text, {query}));
}

// A group, whose completions are read when it is opened: side by side, the best first.
function drawGroup(run, data, group, {query = "", only = null, title = null, follow = null} = {}) {
  const box = element("details", "problem card"), head = element("summary"), dots = element("div", "dots");
  const best = [...group.rows].sort((a, b) => (data.reward[b] ?? -Infinity) - (data.reward[a] ?? -Infinity));
  const low = Math.min(...data.reward.filter(Number.isFinite)), high = Math.max(...data.reward.filter(Number.isFinite));
  for (const row of best) {
    const dot = element("i", Number.isFinite(data.reward[row]) ? "scaled" : "unknown");
    dot.style.setProperty("--share", high > low ? (data.reward[row] - low) / (high - low) : high > 0 ? 1 : 0);
    dots.append(dot);
  }
  head.append(element("div", "", title ? element("span", "id", title) : null, element("span", "ask", written(question(group.prompt), query))),
    element("div", "rate", figure(group.mean), element("small", "", group.high > group.low ? "mean reward" : "no signal")), dots);
  box.append(head);
  whenOpened(box, async () => {
    const texts = await textsOf(run, data.step, group);
    const facts = element("p", "", "Right answer: ", group.gold === null ? element("span", "none", "none") : element("span", "extracted", begun(group.gold)));
    if (follow) {
      const button = element("button", "plain", "This problem at other steps");
      button.type = "button";
      button.addEventListener("click", () => follow(group.key));
      facts.append(" · ", button);
    }
    const prompt = element("div", "text prompt", begun(group.prompt, query)), shown = best.filter(row => !only || only.has(row));
    prompt.dir = "auto";
    return [element("div", "inside", element("details", "", element("summary", "", "The whole prompt"), prompt), facts,
      element("div", "beside", ...shown.map(row => drawCompletion(data, row, texts[row - group.start], query))))];
  });
  return box;
}

function rolloutsView(runs, follow) {
  const state = {run: 0, step: null, filter: "all", order: "best", latest: true, searching: 0};
  const list = paged(byId("groups"), 12, "groups");
  const steps = () => LIVE ? runs()[state.run].steps : CARRIED;

  const show = () => read().catch(error => { byId("count").textContent = ""; list.say(error.message); });
  async function read() {
    const all = steps(), turn = ++state.searching;
    if (!all.length) throw new Error("No rollouts yet: they come with the first step of GRPO.");
    if (state.latest || !all.includes(state.step)) state.step = all.at(-1);
    const slider = byId("step"), at = all.indexOf(state.step);
    Object.assign(slider, {min: 0, max: all.length - 1, value: at});
    byId("step-name").textContent = `step ${number(state.step)}`;
    byId("step-before").disabled = at === 0;
    byId("step-after").disabled = at === all.length - 1;
    const query = byId("search").value, words = query.trim();
    const data = await get(`rollouts/${state.run}/${state.step}`), rows = words ? await searchStep(state.run, state.step, words) : null;
    if (turn !== state.searching) return;
    const groups = data.groups.map(group => summed(data, group)), passes = filterPills(GROUP_FILTERS, groups, state, show);
    const named = group => group.prompt.toLowerCase().includes(words.toLowerCase()) || (group.gold || "").toLowerCase() === words.toLowerCase();
    const hits = groups.filter(group => passes(group) && (!words || named(group) || group.rows.some(row => rows.has(row))));
    const key = GROUP_ORDERS[state.order][1];
    hits.sort((a, b) => key(a) - key(b) || a.start - b.start);
    byId("count").textContent = `${number(hits.length)} of ${plural(groups.length, "group")}`;
    list.show(hits, group => drawGroup(state.run, data, group, {query, follow: key => follow(state.run, key), only: words && !named(group) ? rows : null}));
  }

  // From the last step back, as long as nobody types or stops it.
  async function searchAll() {
    const words = byId("search").value.trim(), turn = ++state.searching;
    byId("hits").replaceChildren();
    if (!words) { byId("search").focus(); return; }
    let found = 0;
    for (const step of [...steps()].reverse()) {
      const rows = await searchStep(state.run, step, words).catch(() => new Set());  // a file that cannot be read
      if (turn !== state.searching) return;
      byId("count").textContent = `searched back to step ${number(step)}`;
      if (!rows.size) continue;
      const button = element("button", "", `step ${number(step)}: ${number(rows.size)}`);
      button.type = "button";
      button.addEventListener("click", () => go(step));
      byId("hits").append(button);
      if (++found === 100) break;
    }
    byId("count").textContent = found ? `${plural(found, "step")} with “${words}”` : `no step has “${words}”`;
  }

  const go = step => { state.latest = step === steps().at(-1); state.step = step; show(); };
  const move = by => go(steps()[steps().indexOf(state.step) + by]);
  byId("step").addEventListener("input", event => go(steps()[Number(event.target.value)]));
  byId("step-before").addEventListener("click", () => move(-1));
  byId("step-after").addEventListener("click", () => move(1));
  byId("order").append(...Object.entries(GROUP_ORDERS).map(([value, [label]]) => new Option(label, value)));
  byId("order").addEventListener("change", event => { state.order = event.target.value; show(); });
  byId("rollout-controls").addEventListener("submit", event => event.preventDefault());
  onTyping(byId("search"), () => { byId("hits").replaceChildren(); show(); });
  byId("everywhere").addEventListener("click", searchAll);
  // Follows the last step unless a group is being read; a step may have gone because the run went back.
  function grown() {
    const all = steps(), moved = !all.includes(state.step) || (state.latest && all.at(-1) !== state.step);
    if (moved && !byId("groups").querySelector("[open]")) show();
  }
  return {show, grown, pick(run) { state.run = run; state.latest = true; show(); }};
}

function problemsView(runs) {
  const state = {run: 0, order: "seen", wanted: null}, list = paged(byId("problem-list"), 15, "problems");
  const gain = p => (p.visits.at(-1).reward ?? 0) - (p.visits[0].reward ?? 0);
  const orders = {seen: p => -p.visits.length, gained: p => -gain(p), lost: gain, hard: p => p.visits.at(-1).reward ?? Infinity};

  function drawVisit(visit, carried) {
    const box = element("div", "visit");
    if (!carried) { box.append(element("p", "none", `step ${number(visit.step)}: mean reward ${figure(visit.reward)}; this page does not contain its texts`)); return box; }
    const button = element("button", "", `step ${number(visit.step)}: mean reward ${figure(visit.reward)}, ${figure(visit.tokens)} tokens`);
    button.type = "button";
    button.addEventListener("click", async () => {
      try {
        const data = await get(`rollouts/${state.run}/${visit.step}`), group = data.groups.find(g => g.start === visit.start);
        const drawn = drawGroup(state.run, data, summed(data, group), {title: `step ${number(visit.step)}`});
        box.replaceChildren(drawn);
        drawn.open = true;
      } catch (error) { box.append(element("p", "none", error.message)); }
    });
    box.append(button);
    return box;
  }

  function drawProblem(problem) {
    const box = element("details", "problem card"), {visits} = problem;
    const change = visits.length > 1 ? `${figure(visits[0].reward)} → ${figure(visits.at(-1).reward)}` : figure(visits[0].reward);
    box.append(element("summary", "", element("div", "", element("span", "id", `seen at ${plural(visits.length, "step")}`), element("span", "ask", written(question(problem.prompt)))), element("div", "rate", change, element("small", "", "mean reward"))));
    whenOpened(box, () => {
      const charts = element("div", "charts"), x = visits.map(visit => visit.step);
      chartGroup(charts).show([["Mean reward", "reward"], ["Completion length (tokens)", "tokens"]].map(([title, name]) =>
        ({title, series: [{name: title, color: PALETTE[0], x, y: visits.map(visit => visit[name]), points: true}]})));
      return [element("div", "inside", charts, ...visits.map(visit => drawVisit(visit, LIVE || CARRIED.includes(visit.step))))];
    });
    if (problem.key === state.wanted) box.open = true;
    return box;
  }

  const show = () => read().catch(error => { byId("problem-count").textContent = ""; list.say(error.message); });
  async function read() {
    if (!runs()[state.run].steps.length) throw new Error("No rollouts yet.");
    byId("problem-count").textContent = "reading …";
    const all = await get(`problems/${state.run}`), words = byId("problem-search").value.trim().toLowerCase();
    const hits = all.filter(p => (!words || p.prompt.toLowerCase().includes(words)) && (!state.wanted || p.key === state.wanted));
    hits.sort((a, b) => orders[state.order](a) - orders[state.order](b));
    byId("problem-count").textContent = `${number(hits.length)} of ${plural(all.length, "problem")}`;
    list.show(hits, drawProblem);
  }
  byId("problem-order").append(...Object.entries(PROBLEM_ORDERS).map(([value, label]) => new Option(label, value)));
  byId("problem-order").addEventListener("change", event => { state.order = event.target.value; state.wanted = null; show(); });
  onTyping(byId("problem-search"), () => { state.wanted = null; show(); });
  return {show, pick(run) { state.run = run; state.wanted = null; show(); }, follow(run, key) { state.run = run; state.wanted = key; show(); }};
}
