// A conversation: the page holds the turns, and the server writes the answers.

const given = embedded("data");
let turns = [], writing = null;

async function* lines(path, body, signal) {
  const reply = await ask(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body), signal});
  if (!reply.ok) throw new Error(`The server refuses this (${reply.status}).`);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const whole = (held + value).split("\n");
    held = whole.pop();
    for (const line of whole) yield JSON.parse(line);
  }
}

const sent = () => ({system: byId("system").value, turns: turns.map(({question, content, whole}) => ({question, content, whole}))});

// `turns` are of the conversation that the question was asked in; a new one may have begun before the answer ends.
async function say(question, turns) {
  const reply = element("div", "reply"), think = element("details", "think"), title = element("summary", "", "Thinking"), thoughts = element("div"), content = element("div");
  reply.dir = "auto";
  think.append(title, thoughts);
  think.hidden = true;
  reply.append(think, content);
  const asked = element("div", "question", written(question));
  asked.dir = "auto";
  byId("turns").append(asked, reply);
  scrollTo(0, document.documentElement.scrollHeight);
  const turn = {question, content: "", whole: "", reasoning: ""}, began = performance.now();
  let thought = null, waiting = false;
  function draw() {
    waiting = false;
    const low = innerHeight + scrollY > document.documentElement.scrollHeight - 60;
    think.hidden = !turn.reasoning.trim();
    thoughts.replaceChildren(written(turn.reasoning.trim()));
    content.replaceChildren(written(turn.content.trim()));
    if (low) scrollTo(0, document.documentElement.scrollHeight);
  }
  writing = new AbortController();
  byId("send").textContent = "Stop";
  try {
    const body = {...sent(), question, temperature: Number(byId("temperature").value), limit: Number(byId("limit").value) || null};
    for await (const {kind, text} of lines("say", body, writing.signal)) {
      const seconds = (performance.now() - began) / 1000;
      if (kind === "reasoning") { turn.reasoning += text; title.textContent = `Thinking, ${duration(seconds)}`; }
      if (kind === "content") { thought ??= seconds; turn.content += text; title.textContent = `Thought for ${duration(thought)}`; }
      if (kind === "error") reply.append(element("p", "problem-line", text));
      if (kind === "end") turn.whole = text;
      else if (!waiting) { waiting = true; setTimeout(draw, 50); }
    }
  } catch (error) {
    const stopped = error.name === "AbortError";
    reply.append(element("p", stopped ? "none" : "problem-line", stopped ? "stopped" : error.message));
  }
  draw();
  turn.whole ||= (turn.reasoning ? `<think>\n${turn.reasoning.trim()}\n</think>\n\n` : "") + turn.content.trim();
  if (turn.whole) turns.push(turn);
  else reply.append(element("p", "none", "There is no answer."));
  writing = null;
  byId("send").textContent = "Ask";
}

byId("asking").addEventListener("submit", event => {
  event.preventDefault();
  if (writing) { writing.abort(); return; }
  const question = byId("question").value.trim();
  if (!question) return;
  byId("question").value = "";
  say(question, turns);
});
byId("question").addEventListener("keydown", event => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); if (!writing) byId("asking").requestSubmit(); } });
byId("new").addEventListener("click", () => { if (writing) writing.abort(); turns = []; byId("turns").replaceChildren(); byId("status").textContent = ""; });
byId("save").addEventListener("click", async () => {
  if (!turns.length) { byId("status").textContent = "There is nothing to save yet."; return; }
  try {
    for await (const {kind, text} of lines("save", sent())) byId("status").textContent = kind === "saved" ? `saved to ${text}` : text;
  } catch (error) { byId("status").textContent = error.message; }
});
byId("temperature").value = given.temperature;
byId("limit").value = given.limit ?? "";
byId("system").value = given.system ?? "";
