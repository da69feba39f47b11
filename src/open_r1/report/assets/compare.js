// Two models' answers to the same problems, side by side.

const {names, tasks} = embedded("data");
const state = {task: 0, filter: "all"}, list = paged(byId("list"), 15, "problems");
const change = p => p.rates[1] - p.rates[0];
const FILTERS = [["all", "All", () => true], ["better", "Better in B", p => change(p) > 0], ["worse", "Better in A", p => change(p) < 0], ["same", "The same", p => change(p) === 0]];

function drawSample(name, [text, correct, tokens, cut, extracted]) {
  const verdict = correct === null ? "ungradable" : correct ? "right" : "wrong";
  const head = element("div", "head", element("b", "", name), element("span", `verdict ${verdict}`, {right: "✓ right", wrong: "✗ wrong", ungradable: "? ungradable"}[verdict]),
    extracted === null ? element("span", "none", "no answer found") : element("span", "extracted", written(extracted)));
  if (tokens !== null) head.append(element("small", "", plural(tokens, "token")));
  if (cut) head.append(element("span", "tag doubt", "cut off"));
  return element("div", "sample", head, drawText(text));
}

function drawProblem(index) {
  const problem = tasks[state.task].problems[index], box = element("details", "problem card");
  box.append(element("summary", "", element("div", "", element("span", "id", problem.id), element("span", "ask", written(problem.problem))),
    element("div", "rate", `${percent(problem.rates[0])} → ${percent(problem.rates[1])}`, element("small", "", "right, A → B"))));
  box.addEventListener("toggle", async () => {
    if (!box.open || box.childNodes.length > 1) return;
    const inside = element("div", "inside", element("p", "", "Right answer: ", element("span", "extracted", written(problem.gold))));
    box.append(inside);
    const [a, b] = await unpack(`${state.task}-${index}`);
    for (let i = 0; i < Math.max(a.length, b.length); i++) inside.append(element("div", "beside", ...[a, b].map((samples, m) => samples[i] && drawSample(`${"AB"[m]}: ${names[m]}`, samples[i]))), element("br"));
  });
  return box;
}

function draw() {
  const {problems} = tasks[state.task], passes = FILTERS.find(([name]) => name === state.filter)[2], words = byId("search").value.trim().toLowerCase();
  const hits = [...problems.keys()].filter(i => passes(problems[i]) && (!words || `${problems[i].id} ${problems[i].problem}`.toLowerCase().includes(words)));
  hits.sort((a, b) => Math.abs(change(problems[b])) - Math.abs(change(problems[a])) || a - b);
  pills(byId("filters"), "filter", FILTERS.map(([name, label, fits]) => [name, `${label} ${number(problems.filter(fits).length)}`]), state.filter, value => { state.filter = value; draw(); });
  byId("count").textContent = `${number(hits.length)} of ${plural(problems.length, "problem")}`;
  list.show(hits, drawProblem);
}

byId("task").append(...tasks.map((task, index) => new Option(task.task, index)));
byId("task").hidden = tasks.length < 2;
byId("task").addEventListener("change", event => { state.task = Number(event.target.value); draw(); });
onTyping(byId("search"), draw);
byId("controls").addEventListener("submit", event => event.preventDefault());
draw();
