// Reading a model's answers: problems with their samples, filtered, sorted and searched.

const {tasks, carried, pattern} = embedded("data");
const PER_PAGE = 20;
const [VERDICT, TOKENS, CUT, EXTRACTED, DOUBTS] = [0, 1, 2, 3, 4];
const filters = [
  ["all", "All", () => true],
  ["wrong", "Wrong", s => s[VERDICT] === "wrong"],
  ["right", "Right", s => s[VERDICT] === "right"],
  ["cut", "Cut off", s => s[CUT] === 1],
  ["none", "No answer", s => s[EXTRACTED] === null && s[VERDICT] !== "ungradable"],
  ["ungradable", "Ungradable", s => s[VERDICT] === "ungradable"],
];
const state = {task: 0, filter: "all", order: "given", query: "", page: 0, inTexts: null};
const texts = (task, problem) => unpack(`${task}-${problem}`);

function drawProgram([program, ending]) {
  const box = element("div", "inside");
  if (program !== null) box.append(element("b", "", "Program"), element("div", "text program", program));
  box.append(element("b", "", "Tests"), element("div", "text", ending || ""));
  return box;
}

function drawSample(task, problem, index) {
  const sample = tasks[task].problems[problem].samples[index];
  const box = element("details", "sample"), head = element("summary");
  const label = {right: "✓ right", wrong: "✗ wrong", ungradable: "? ungradable"}[sample[VERDICT]];
  head.append(element("b", "", `#${index + 1}`), element("span", `verdict ${sample[VERDICT]}`, label),
    sample[EXTRACTED] === null ? element("span", "none", "no answer found") : element("span", "extracted", written(sample[EXTRACTED])));
  if (sample[TOKENS] !== null) head.append(element("small", "", `${number(sample[TOKENS])} tokens`));
  if (sample[CUT]) head.append(element("span", "tag doubt", "cut off"));
  if (sample[DOUBTS]) head.append(element("small", "", `${sample[DOUBTS]} second thought${sample[DOUBTS] > 1 ? "s" : ""}`));
  box.append(head);
  box.addEventListener("toggle", async () => {
    if (!box.open || box.childNodes.length > 1) return;
    if (index >= carried) box.append(element("div", "text none", "This text is not in the page; it is in samples.parquet."));
    else {
      const text = (await texts(task, problem))[index];
      const program = tasks[task].programs ? (await texts(task, `${problem}-programs`))[index] : null;
      if (box.childNodes.length > 1) return;
      box.append(drawText(text, {query: state.query, pattern}));
      if (program) box.append(drawProgram(program));
    }
  });
  return box;
}

function drawProblem(task, problem) {
  const {id, problem: question, gold, samples} = tasks[task].problems[problem];
  const box = element("details", "problem card"), head = element("summary"), ask = element("div");
  const right = samples.filter(s => s[VERDICT] === "right").length;
  ask.append(element("span", "id", id), element("span", "ask", question));
  const dots = element("div", "dots");
  dots.append(...samples.map(s => element("i", s[VERDICT])));
  head.append(ask, element("div", "rate", `${right} of ${samples.length} right`));
  if (samples.length > 1) head.append(dots);
  box.append(head);
  box.addEventListener("toggle", () => {
    if (!box.open || box.childNodes.length > 1) return;
    const inside = element("div", "inside"), answer = element("p", "", tasks[task].programs ? "Judged by " : "Right answer: ");
    answer.append(element("span", "extracted", gold));
    const passes = filters.find(([name]) => name === state.filter)[2];
    const shown = samples.map((s, index) => index).filter(index => passes(samples[index]));
    inside.append(answer, ...shown.map(index => drawSample(task, problem, index)));
    box.append(inside);
    if (shown.length === 1) inside.querySelector(".sample").open = true;
  });
  return box;
}

const orders = {
  given: () => 0,
  hard: p => rate(p),
  mixed: p => Math.abs(rate(p) - .5),
  long: p => -p.samples.reduce((sum, s) => sum + (s[TOKENS] || 0), 0),
  doubt: p => -p.samples.reduce((sum, s) => sum + s[DOUBTS], 0),
};
function rate(problem) { return problem.samples.filter(s => s[VERDICT] === "right").length / problem.samples.length; }

function draw() {
  const problems = tasks[state.task].problems;
  const passes = filters.find(([name]) => name === state.filter)[2];
  const words = state.query.trim().toLowerCase();
  const hits = problems.map((p, index) => index).filter(index => {
    const p = problems[index];
    if (!p.samples.some(passes)) return false;
    return !words || state.inTexts?.has(index) || [p.id, p.problem, p.gold, ...p.samples.map(s => s[EXTRACTED] || "")].some(t => t.toLowerCase().includes(words));
  });
  const keys = problems.map(orders[state.order]);
  hits.sort((a, b) => keys[a] - keys[b] || a - b);
  const pages = Math.max(1, Math.ceil(hits.length / PER_PAGE));
  state.page = Math.min(state.page, pages - 1);
  const shown = hits.slice(state.page * PER_PAGE, (state.page + 1) * PER_PAGE);
  byId("list").replaceChildren(...shown.map(index => drawProblem(state.task, index)));
  if (!hits.length) byId("list").append(element("p", "empty", "No problem fits."));
  byId("count").textContent = `${number(hits.length)} of ${number(problems.length)} problem${problems.length === 1 ? "" : "s"}`;
  byId("page").textContent = `page ${state.page + 1} of ${pages}`;
  byId("pager").hidden = pages < 2;
  byId("previous").disabled = state.page === 0;
  byId("next").disabled = state.page === pages - 1;
}

// Looks into the compressed texts too, a problem at a time, so that the page stays responsive.
async function searchTexts() {
  const query = state.query, task = state.task, words = query.trim().toLowerCase();
  state.inTexts = null;
  draw();
  if (words.length < 2) return;
  const found = new Set();
  for (let index = 0; index < tasks[task].problems.length; index++) {
    const written = await texts(task, index);
    if (state.query !== query || state.task !== task) return;
    if (written.some(text => text.toLowerCase().includes(words))) found.add(index);
  }
  state.inTexts = found;
  draw();
}

function drawFilters() {
  const samples = tasks[state.task].problems.flatMap(p => p.samples);
  byId("filters").replaceChildren(byId("filters").querySelector("legend"), ...filters.map(([name, label, passes]) => {
    const pill = element("label"), input = element("input");
    input.type = "radio"; input.name = "filter"; input.value = name; input.checked = name === state.filter;
    input.addEventListener("change", () => { state.filter = name; state.page = 0; draw(); });
    pill.append(input, element("span", "", `${label} ${number(samples.filter(passes).length)}`));
    return pill;
  }));
}

function turn(by) { state.page += by; draw(); byId("controls").scrollIntoView(); }

byId("task").append(...tasks.map((task, index) => new Option(task.results.task, index)));
byId("task").hidden = tasks.length < 2;
byId("task").addEventListener("change", event => { state.task = Number(event.target.value); state.page = 0; drawFilters(); searchTexts(); });
byId("order").addEventListener("change", event => { state.order = event.target.value; state.page = 0; draw(); });
let typed;
byId("search").addEventListener("input", event => { state.query = event.target.value; state.page = 0; clearTimeout(typed); typed = setTimeout(searchTexts, 200); });
byId("controls").addEventListener("submit", event => event.preventDefault());
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
byId("controls").hidden = false;
drawFilters();
draw();
