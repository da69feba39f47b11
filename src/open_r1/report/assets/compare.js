// Two models' answers to the same problems, side by side.

const {names, tasks} = embedded("data");
const state = {task: 0, filter: "all"}, list = paged(byId("list"), 15, "problems");
const change = p => p.rates[1] - p.rates[0];
const FILTERS = [["all", "All", () => true], ["better", "Better in B", p => change(p) > 0], ["worse", "Better in A", p => change(p) < 0], ["same", "No difference", p => change(p) === 0]];

const drawSample = (name, [text, correct, tokens, cut, extracted]) => element("div", "sample",
  sampleHead(name, {verdict: correct === null ? "ungradable" : correct ? "right" : "wrong", extracted, tokens, cut}), drawText(text));

function drawProblem(index) {
  const {task} = state, problem = tasks[task].problems[index], box = element("details", "problem card");
  box.append(element("summary", "", element("div", "", element("span", "id", problem.id), element("span", "ask", written(problem.problem))),
    element("div", "rate", problem.rates.map(rate => `${Math.round(rate * 100)}%`).join(" → "), element("small", "", "right, A → B"))));
  whenOpened(box, async () => {
    const [a, b] = await unpack(`${task}-${index}`), pairs = [...Array(Math.max(a.length, b.length)).keys()];
    return [element("div", "inside", element("p", "", "Right answer: ", element("span", "extracted", begun(problem.gold))),
      ...pairs.map(i => element("div", "beside", ...[a, b].map((samples, m) => samples[i] && drawSample(`${"AB"[m]}: ${names[m]}`, samples[i])))))];
  });
  return box;
}

function draw() {
  const {problems} = tasks[state.task], passes = filterPills(FILTERS, problems, state, draw), words = byId("search").value.trim().toLowerCase();
  const hits = [...problems.keys()].filter(i => passes(problems[i]) && (!words || `${problems[i].id} ${problems[i].problem}`.toLowerCase().includes(words)));
  hits.sort((a, b) => Math.abs(change(problems[b])) - Math.abs(change(problems[a])) || a - b);
  byId("count").textContent = `${number(hits.length)} of ${plural(problems.length, "problem")}`;
  list.show(hits, drawProblem);
}

byId("task").append(...tasks.map((task, index) => new Option(task.task, index)));
byId("task").hidden = tasks.length < 2;
byId("task").addEventListener("change", event => { state.task = Number(event.target.value); draw(); });
onTyping(byId("search"), draw);
byId("controls").addEventListener("submit", event => event.preventDefault());
draw();
