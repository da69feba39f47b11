// The demo: how its models learned, and what each wrote for every held-out problem.

const {stages, problems, curves} = embedded("data");
const state = {filter: "all"}, list = paged(byId("list"), 8, "problems");
const right = (problem, name) => problem.outputs[stages.findIndex(stage => stage.name === name)]?.right;
const FILTERS = [
  ["all", "All", () => true],
  ["learned", "Base wrong, R1-Zero right", p => !right(p, "base") && right(p, "zero")],
  ["any", "Some model wrong", p => p.outputs.some(output => !output.right)],
  ["every", "Wrong everywhere", p => p.outputs.every(output => !output.right)],
];

function drawOutput(output, stage) {
  const box = element("section", "sample", sampleHead(stage.title, {...output, verdict: output.right ? "right" : "wrong"}),
    drawText(output.text, {query: byId("search").value, unfolded: true}));
  box.style.setProperty("--stage", stage.color);
  return box;
}

const drawProblem = ({problem, gold, outputs}) => element("article", "problem card",
  element("h3", "", written(problem), " ", element("small", "", "right answer: ", written(gold))),
  element("div", "beside", ...outputs.map((output, i) => drawOutput(output, stages[i]))));

function draw() {
  const words = byId("search").value.trim().toLowerCase(), passes = filterPills(FILTERS, problems, state, draw);
  const hits = problems.filter(p => passes(p) && (!words || [p.problem, p.gold, ...p.outputs.map(output => output.text)].some(text => text.toLowerCase().includes(words))));
  byId("count").textContent = `${number(hits.length)} of ${plural(problems.length, "problem")}`;
  list.show(hits, drawProblem);
}

for (const [id, specs] of Object.entries(curves)) chartGroup(byId(id)).show(specs);
onTyping(byId("search"), draw);
byId("controls").addEventListener("submit", event => event.preventDefault());
draw();
