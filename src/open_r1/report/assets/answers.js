// Reading a model's answers: problems with their samples, filtered, sorted and searched.

const {tasks, carried, pattern} = embedded("data");
const [VERDICT, TOKENS, CUT, EXTRACTED, DOUBTS] = [0, 1, 2, 3, 4];
const FILTERS = [
  ["all", "All", () => true],
  ["wrong", "Wrong", s => s[VERDICT] === "wrong"],
  ["right", "Right", s => s[VERDICT] === "right"],
  ["cut", "Cut off", s => s[CUT] === 1],
  ["none", "No answer", s => s[EXTRACTED] === null && s[VERDICT] !== "ungradable"],
  ["ungradable", "Ungradable", s => s[VERDICT] === "ungradable"],
];
const rate = problem => mean(problem.samples.map(s => s[VERDICT] === "right"));
const ORDERS = {
  given: () => 0,
  hard: rate,
  mixed: p => Math.abs(rate(p) - .5),
  long: p => -p.samples.reduce((sum, s) => sum + (s[TOKENS] || 0), 0),
  doubt: p => -p.samples.reduce((sum, s) => sum + s[DOUBTS], 0),
};
const state = {task: 0, filter: "all", inTexts: null, searching: 0}, list = paged(byId("list"), 20, "problems");
const query = () => byId("search").value;

const drawProgram = ([program, ending]) => element("div", "inside",
  ...(program === null ? [] : [element("b", "", "Program"), element("div", "text program", begun(program))]),
  element("b", "", "Tests"), element("div", "text", begun(ending || "")));

function drawSample(task, problem, index) {
  const [verdict, tokens, cut, extracted, doubts] = tasks[task].problems[problem].samples[index];
  const head = sampleHead(`#${index + 1}`, {verdict, tokens, cut, extracted}, "summary");
  if (doubts) head.append(element("small", "", plural(doubts, "second thought")));
  const box = element("details", "sample", head);
  whenOpened(box, async () => {
    if (index >= carried) return [element("div", "text none", "This text is not in the page; it is in samples.parquet.")];
    const text = (await unpack(`${task}-${problem}`))[index];
    const program = tasks[task].programs ? (await unpack(`${task}-${problem}-programs`))[index] : null;
    return [drawText(text, {query: query(), pattern}), program && drawProgram(program)];
  });
  return box;
}

function drawProblem(index) {
  const {task} = state, {id, problem, gold, samples} = tasks[task].problems[index];
  const right = samples.filter(s => s[VERDICT] === "right").length, passes = FILTERS.find(([name]) => name === state.filter)[2];
  const box = element("details", "problem card", element("summary", "",
    element("div", "", element("span", "id", id), element("span", "ask", written(problem, query()))), element("div", "rate", `${right} of ${samples.length} right`),
    samples.length > 1 ? element("div", "dots", ...samples.map(s => element("i", s[VERDICT]))) : null));
  whenOpened(box, () => {
    const shown = [...samples.keys()].filter(i => passes(samples[i])).map(i => drawSample(task, index, i));
    if (shown.length === 1) shown[0].open = true;
    return [element("div", "inside", element("p", "", tasks[task].programs ? "Judged by " : "Right answer: ", element("span", "extracted", begun(gold))), ...shown)];
  });
  return box;
}

function draw() {
  const {problems} = tasks[state.task], words = query().trim().toLowerCase();
  const passes = filterPills(FILTERS, problems.flatMap(p => p.samples), state, draw);
  const said = p => [p.id, p.problem, p.gold, ...p.samples.map(s => s[EXTRACTED] || "")].some(text => text.toLowerCase().includes(words));
  const hits = [...problems.keys()].filter(i => problems[i].samples.some(passes) && (!words || state.inTexts?.has(i) || said(problems[i])));
  const keys = problems.map(ORDERS[byId("order").value]);
  hits.sort((a, b) => keys[a] - keys[b] || a - b);
  byId("count").textContent = `${number(hits.length)} of ${plural(problems.length, "problem")}`;
  list.show(hits, drawProblem);
}

// Looks into the compressed texts too, a problem at a time, so that the page stays responsive.
async function search() {
  const {task} = state, words = query().trim().toLowerCase(), turn = ++state.searching, found = new Set();
  state.inTexts = null;
  draw();
  if (words.length < 2) return;
  for (const index of tasks[task].problems.keys()) {
    const texts = await unpack(`${task}-${index}`);
    if (turn !== state.searching) return;
    if (texts.some(text => text.toLowerCase().includes(words))) found.add(index);
  }
  state.inTexts = found;
  draw();
}

byId("task").append(...tasks.map((task, index) => new Option(task.results.task, index)));
byId("task").hidden = tasks.length < 2;
byId("task").addEventListener("change", event => { state.task = Number(event.target.value); search(); });
byId("order").addEventListener("change", draw);
onTyping(byId("search"), search);
byId("controls").addEventListener("submit", event => event.preventDefault());
draw();
