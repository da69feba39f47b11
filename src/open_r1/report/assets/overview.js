// Progress, figures and charts of the runs.

const ACCURACY = "rewards/accuracy/mean";
const CHARTS = [
  // title, key, options
  ["Reward", "reward"],
  ["Accuracy", ACCURACY, {percent: true}],
  ["Loss", "loss", {fromZero: false}],
  ["Completion length (tokens)", "completions/mean_length"],
  ["Completions cut off", "completions/clipped_ratio", {percent: true}],
  ["Groups without signal", "frac_reward_zero_std", {percent: true}],
  ["Distinct answers per group", "completions/distinct_answers"],
  ["Entropy (nats per token)", "entropy"],
  ["KL to the reference model", "kl"],
  ["Tokens clipped at the upper bound", "clip_ratio/high", {percent: true}],
  ["Tokens clipped at the lower bound", "clip_ratio/low", {percent: true}],
  ["Gradient norm", "grad_norm"],
  ["Learning rate", "learning_rate"],
  ["Logprob gap, sampler to trainer", "sampling/logprob_difference"],
  ["Age of rollouts (steps)", "sampling/staleness"],
  ["Tokens per second", "tokens_per_second"],
  ["Peak memory (GiB)", "memory/peak_gib"],
];

const color = run => PALETTE[run % PALETTE.length];
const trained = run => run.lines.filter(line => "loss" in line || "reward" in line);
const secondsOf = line => Object.entries(line).reduce((sum, [key, value]) => sum + (key.startsWith("time/") ? value || 0 : 0), 0);

// One line for each step: what was logged last counts.
function series(run, index, key) {
  const values = new Map();
  for (const line of run.lines) if (key in line) values.set(line.step, line[key]);
  const x = [...values.keys()].sort((a, b) => a - b);
  return {name: run.name, color: color(index), x, y: x.map(step => values.get(step))};
}

function progressOf(run) {
  const lines = trained(run), last = lines.at(-1), {max_steps: most, num_train_epochs: epochs} = run.config;
  const step = last ? last.step : 0;
  const total = most > 0 ? most : last && last.epoch > 0 && epochs ? Math.max(step, Math.round(step * epochs / last.epoch)) : null;
  const recent = lines.slice(-20).map(secondsOf).filter(seconds => seconds > 0), pace = recent.length ? mean(recent) : null;
  const done = total !== null && step >= total;
  const state = run.idle === null ? "gone" : done ? "finished" : run.idle < Math.max(120, 5 * (pace || 0)) ? "running" : "quiet";
  return {step, total, state, left: total && pace ? (total - step) * pace : null, spent: lines.reduce((sum, line) => sum + secondsOf(line), 0)};
}

function drawHead(run, index) {
  const {step, total, state, left, spent} = progressOf(run), key = element("i", "key"), bar = element("i"), line = element("div", "line");
  key.style.background = bar.style.background = color(index);
  bar.style.width = total ? `${step / total * 100}%` : "0";
  const words = !LIVE && state !== "finished" ? "not finished" : {gone: "its folder is gone", quiet: `nothing new for ${duration(run.idle)}`}[state] || state;
  line.append(element("b", "", key, run.name), element("span", LIVE ? `state ${state}` : "state", words),
    element("span", "", total ? `step ${number(step)} of ${number(total)}` : `step ${number(step)}`));
  if (LIVE && state === "running" && left) line.append(element("span", "", `${duration(left)} left`));
  if (spent) line.append(element("small", "", `${duration(spent)} spent`));
  const base = run.config.model_name_or_path, data = run.config.dataset_name;
  if (base) line.append(element("small", "", base, data ? ` on ${data}` : ""));
  return element("div", "head", line, element("div", "bar", bar));
}

function tile(run, label, key, show = figure) {
  const known = trained(run).map(line => line[key]).filter(Number.isFinite);
  if (!known.length) return null;
  const width = Math.min(10, Math.ceil(known.length / 2)), now = mean(known.slice(-width)), before = mean(known.slice(0, width));
  return element("div", "tile card", element("span", "", label), element("b", "", show(now)), element("small", "", known.length > 1 ? `${show(before)} at the start` : ""));
}

function drawTiles(run) {
  const made = [["Reward", "reward"], ["Accuracy", ACCURACY, percent], ["Loss", "loss"], ["Tokens per completion", "completions/mean_length"],
    ["Cut off", "completions/clipped_ratio", percent], ["No signal", "frac_reward_zero_std", percent], ["Entropy (nats per token)", "entropy"],
    ["Tokens/s", "tokens_per_second"], ["Peak memory (GiB)", "memory/peak_gib"]].map(([label, key, show]) => tile(run, label, key, show));
  byId("tiles").replaceChildren(...made.filter(Boolean));
}

function specs(runs, smooth) {
  const found = [], keys = new Set(runs.flatMap(run => run.lines.flatMap(Object.keys)));
  const add = (title, key, options = {}) => { if (keys.has(key)) found.push({title, smooth, ...options, series: runs.map((run, i) => series(run, i, key))}); };
  for (const [title, key, options] of CHARTS.slice(0, 2)) add(title, key, options);
  for (const key of keys) if (/^rewards\/.*\/mean$/.test(key) && key !== ACCURACY) add(`Reward: ${key.split("/").slice(1, -1).join("/")}`, key);
  for (const [title, key, options] of CHARTS.slice(2)) add(title, key, options);
  runs.forEach((run, index) => {
    const times = [...new Set(run.lines.flatMap(Object.keys))].filter(key => key.startsWith("time/"));
    const title = runs.length > 1 ? `Seconds per step: ${run.name}` : "Seconds per step";
    if (times.length) found.push({title, stacked: true, series: times.map((key, i) => ({...series(run, index, key), name: key.slice(5).replace("_", " "), color: PALETTE[i % PALETTE.length]}))});
  });
  for (const key of keys) {
    const [, task, what] = key.match(/^eval_(.*)_(pass@1|reward)$/) || [];
    if (task) found.push({title: `${task}: ${what}`, percent: what === "pass@1", series: runs.map((run, i) => ({...series(run, i, key), points: true,
      ...(what === "pass@1" ? {low: series(run, i, `eval_${task}_ci95_low`).y, high: series(run, i, `eval_${task}_ci95_high`).y} : {})}))});
  }
  return found;
}

function drawBenchmarks(runs) {
  const rows = runs.flatMap(run => run.benchmarks.map(found => element("tr", "", element("th", "", found.task), element("td", "", run.name),
    element("td", "", found.step === null ? "at the end" : `step ${number(found.step)}`), element("td", "", element("b", "", percent(found["pass@1"]))),
    element("td", "", found.ci95 ? `${percent(found.ci95[0])} – ${percent(found.ci95[1])}` : "–"), element("td", "", `${number(found.n_problems)} × ${found.num_samples}`),
    element("td", "", figure(found.mean_tokens)), element("td", "", Number.isFinite(found.truncated) ? percent(found.truncated) : "–"), element("td", "command", element("code", "", found.command)))));
  const head = element("tr", "", ...["Task", "Run", "When", "pass@1", "95% interval", "Samples", "Tokens", "Cut off"].map(name => element("th", "", name)), element("th", "command", "Read the answers with"));
  const table = element("table", "", element("thead", "", head), element("tbody", "", ...rows));
  byId("benchmarks").replaceChildren(rows.length ? element("div", "card scroll", table) : element("p", "empty", "No benchmarks yet. The option benchmarks makes a run evaluate itself."));
}

// The options, and side by side where several runs differ.
function drawOptions(runs) {
  const text = value => value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
  const keys = [...new Set(runs.flatMap(run => Object.keys(run.config)))].filter(key => runs.some(run => run.config[key] !== null && run.config[key] !== ""));
  const differ = key => new Set(runs.map(run => text(run.config[key]))).size > 1;
  const ordered = [...keys.filter(differ), ...keys.filter(key => !differ(key))];
  const row = key => element("tr", "", element("th", "", differ(key) ? element("mark", "", key) : key), ...runs.map(run => element("td", "", written(text(run.config[key])))));
  const machine = runs.map(run => element("p", "", element("b", "", `${run.name}: `), [...(run.environment.devices || []), `open-r1 ${run.environment.open_r1}`,
    ...Object.entries(run.environment.packages || {}).map(pair => pair.join(" "))].join(", "), element("br"), element("code", "", (run.environment.command || []).join(" "))));
  byId("options").replaceChildren(element("div", "card", ...machine), element("h2", "", "Options"),
    element("div", "card scroll", element("table", "", element("tbody", "", ...ordered.map(row)))));
}
