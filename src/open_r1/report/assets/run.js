// Puts the page of a run together, and, where it is live, asks for what is new.

const POLL = 2000;
const TABS = [["overview", "Overview"], ["rollouts", "Rollouts"], ["problems", "Problems"], ["benchmarks", "Benchmarks"], ["options", "Options"]];
const runs = Array.from({length: RUNS}, () => ({generation: 0, lines: []}));
const charts = chartGroup(byId("charts"));
const sampled = run => "num_generations" in run.config || run.steps.length > 0;
const tabs = () => TABS.filter(([name]) => !["rollouts", "problems"].includes(name) || runs.some(sampled));
let tab = "overview";
const problems = problemsView(() => runs), rollouts = rolloutsView(() => runs, (run, key) => { open("problems"); problems.follow(run, key); });

async function refresh(index) {
  const run = runs[index];
  const news = await get(`figures/${index}/${LIVE ? `${run.generation}/${run.lines.length}` : "0/0"}`);
  const lines = [...run.lines.slice(0, news.from), ...news.lines];
  const fresh = news.lines.length > 0 || news.generation !== run.generation;
  Object.assign(run, news, {lines});
  return fresh;
}

function drawOverview() {
  byId("health").replaceChildren(...runs.flatMap(run => run.health.slice(-3).map(({step, text}) => element("p", "warning", element("b", "", `${RUNS > 1 ? `${run.name}, ` : ""}step ${number(step)}: `), text))));
  if (RUNS === 1) drawTiles(runs[0]);
  charts.show(specs(runs, Number(byId("smooth").value)));
}

function open(name) {
  tab = name;
  pills(byId("tabs"), "tab", tabs(), tab, open);
  for (const [other] of TABS) byId(other).hidden = other !== tab;
  if (tab === "overview") drawOverview();
  if (tab === "rollouts") rollouts.show();
  if (tab === "problems") problems.show();
  if (tab === "benchmarks") drawBenchmarks(runs);
  if (tab === "options") drawOptions(runs);
}

async function poll() {
  try {
    const fresh = await Promise.all(runs.map((run, index) => refresh(index)));
    byId("heads").replaceChildren(...runs.map(drawHead));
    byId("connection").textContent = LIVE ? "" : CARRIED.length < runs[0].steps.length ? `a saved copy, with the completions of ${number(CARRIED.length)} of ${number(runs[0].steps.length)} steps` : "a saved copy";
    if (fresh.some(Boolean) && tab === "overview") drawOverview();
    if (fresh.some(Boolean) && tab === "rollouts") rollouts.grown();
  } catch (error) {
    byId("connection").textContent = error.message;
  }
}

async function start() {
  await poll();
  for (const select of document.querySelectorAll(".which")) {
    select.append(...runs.map((run, index) => new Option(run.name, index)));
    select.hidden = RUNS < 2;
    select.addEventListener("change", event => (tab === "problems" ? problems : rollouts).pick(Number(event.target.value)));
  }
  byId("smooth").value = runs.some(run => run.lines.length > 200) ? "10" : "1";
  byId("smooth").addEventListener("change", drawOverview);
  byId("whole").addEventListener("click", () => charts.zoom(null));
  open("overview");
  if (LIVE) setInterval(poll, POLL);
}
start();
