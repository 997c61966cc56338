// The page of `reconverge view`: asks the server every two seconds and draws what has changed.
// Everything that comes from a run is put in as text, never as HTML: names may be anybody's.
"use strict";

const POLL_MS = 2000;
const chosen = new Set();   // paths of the runs to compare
const drawn = new Map();    // section -> the data it was drawn from, as text
const rows = new Map();     // path -> its row of the list, and the data it was drawn from
let filter = "", asked = 0;

// Building ------------------------------------------------------------------------------------------------------------------------

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "width%") node.style.width = `${value}%`;
    else if (key === "shade") node.style.background = shade(value);
    else if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
  return node;
}

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// A section is drawn anew only when its data changed, so that a video goes on playing and a scrolled table stays where it is.
function section(parent, id, data, draw) {
  const text = JSON.stringify(data);
  let node = document.getElementById(`s-${id}`);
  if (node && drawn.get(id) === text) return;
  drawn.set(id, text);
  const fresh = el("section", { id: `s-${id}` }, draw(data));
  if (node) node.replaceWith(fresh); else parent.append(fresh);
}

// Wording -------------------------------------------------------------------------------------------------------------------------

const known = value => value !== null && value !== undefined;
const percent = rate => known(rate) ? `${(100 * rate).toFixed(1)} %` : "–";
const whole = rate => known(rate) ? `${Math.round(100 * rate)}` : "–";
const points = rate => known(rate) ? `${100 * rate < 0 ? "−" : ""}${Math.abs(100 * rate).toFixed(1)}` : "–";
const range = (found, write) => known(found.low) ? `${write(found.low)} to ${write(found.high)}` : "";
const count = number => Number(number).toLocaleString("en-US");
const shade = rate => known(rate) ? `color-mix(in srgb, var(--good) ${Math.round(8 + 46 * rate)}%, var(--paper))` : "var(--soft)";

function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function bytes(size) {
  if (!known(size)) return "–";
  const step = size >= 1e9 ? [1e9, "GB"] : size >= 1e6 ? [1e6, "MB"] : size >= 1e3 ? [1e3, "kB"] : [1, "B"];
  return `${(size / step[0]).toFixed(step[0] === 1 ? 0 : 1)} ${step[1]}`;
}

const STATES = { running: "running", finished: "finished", stopped: "stopped, resumable", killed: "killed, resumable", failed: "failed" };
const badge = run => el("span", { class: `badge ${run.state}` }, STATES[run.state] || run.state);
const link = path => `#run/${encodeURIComponent(path)}`;
const fileOf = (path, name) => `files/${[...(path === "." ? [] : path.split("/")), ...name.split("/")].map(encodeURIComponent).join("/")}`;

function whereWords(run) {
  if (run.starting) return "getting ready";
  if (run.state !== "running") return `${run.stages_done} of ${run.stages} stages`;
  const stage = run.stage ? `stage ${run.stage} of ${run.stages}, ${run.task}` : "before stage 1";
  const update = known(run.update) ? `update ${count(run.update)} of ${count(run.updates)}` : null;
  const inside = run.phase && run.phase !== "update" ? run.phase + (run.total ? ` ${Math.floor(100 * run.done / run.total)} %` : "") : null;
  const pace = run.phase === "update" && run.rate ? `${run.rate.toFixed(1)} a second` : null;
  return [stage, update, inside, pace].filter(known).join(" · ");
}

function timeWords(run) {
  if (run.state === "running" && known(run.left_s)) return `${run.left_is_whole ? "about" : "at least"} ${duration(run.left_s)} left`;
  return known(run.spent_s) ? `${duration(run.spent_s)}${run.state === "running" ? " so far" : ""}` : "";
}

// Charts --------------------------------------------------------------------------------------------------------------------------

function sparkline(values) {
  const width = 120, height = 30, picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "training loss" });
  if (values.length < 2) return picture;
  const ys = values.map(point => Math.log(Math.max(point[1], 1e-12)));
  const low = Math.min(...ys), high = Math.max(...ys), first = values[0][0], last = values[values.length - 1][0];
  const path = values.map((point, i) =>
    `${(2 + (width - 4) * (point[0] - first) / (last - first || 1)).toFixed(1)},${(2 + (height - 4) * (high - ys[i]) / (high - low || 1)).toFixed(1)}`);
  picture.append(svg("polyline", { class: "trace c0", points: path.join(" ") }));
  return picture;
}

// series: [{name, points: [[x, y], ...]}]; `log` is for losses; `bounds` are where stages begin, on the axis of x.
function chart(series, { log = false, top = null, bounds = [], names = [], xlabel = "", dots = false } = {}) {
  series = series.filter(one => one.points.length);
  if (!series.length) return el("p", { class: "note" }, "Nothing yet.");
  const W = Math.max(320, document.getElementById("page").clientWidth - 32), H = 250, L = 46, R = 12, T = 18, B = 34, all = series.flatMap(one => one.points);
  const f = log ? value => Math.log10(Math.max(value, 1e-12)) : value => value;
  const x0 = dots ? 1 : 0, x1 = Math.max(x0 + 1e-9, ...bounds, ...all.map(point => point[0]));
  const y0 = log ? Math.min(...all.map(point => f(point[1]))) : 0, y1 = top ?? Math.max(...all.map(point => f(point[1])));
  const X = x => L + (W - L - R) * (x - x0) / (x1 - x0), Y = y => T + (H - T - B) * (y1 - f(y)) / (y1 - y0 || 1);
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": series.map(one => one.name).join(", ") });
  const text = (x, y, words, anchor) => picture.append(svg("text", { x, y, "text-anchor": anchor }, words));
  const marks = log ? logMarks(y0, y1) : [0, .25, .5, .75, 1].map(part => part * y1);
  for (const mark of marks) {
    picture.append(svg("line", { class: "axis", x1: L, x2: W - R, y1: Y(mark), y2: Y(mark) }));
    text(L - 6, Y(mark) + 4, log ? String(Number(mark.toPrecision(2))) : `${Math.round(100 * mark)} %`, "end");
  }
  bounds.slice(0, -1).forEach((start, i) => {
    if (i) picture.append(svg("line", { class: "axis", x1: X(start), x2: X(start), y1: T, y2: H - B, "stroke-dasharray": "3 3" }));
    const room = X(bounds[i + 1]) - X(start), name = names[i] || "";
    if (room > 6.4 * name.length) text(X(start) + 4, T - 6, name, "start"); else if (room > 16) text(X(start) + 4, T - 6, String(i + 1), "start");
  });
  series.forEach((one, i) => {
    const colour = `c${i % 8}`;
    picture.append(svg("polyline", { class: `trace ${colour}`, points: one.points.map(([x, y]) => `${X(x).toFixed(1)},${Y(y).toFixed(1)}`).join(" ") }));
    if (dots) for (const [x, y] of one.points) picture.append(svg("circle", { class: colour, cx: X(x), cy: Y(y), r: 3 }, svg("title", {}, `${one.name}, ${x}: ${percent(y)}`)));
  });
  if (dots) for (let stage = 1; stage <= x1; stage += Math.ceil(x1 / 20)) text(X(stage), H - B + 16, String(stage), "middle");
  else { text(L, H - B + 16, "0", "middle"); text(W - R, H - B + 16, count(x1), "end"); }
  text((L + W - R) / 2, H - 4, xlabel, "middle");
  return el("figure", { class: "figure" }, picture, legend(series.map(one => one.name)));
}

function logMarks(low, high) {
  const marks = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++)
    for (const digit of high - low > 2 ? [1] : [1, 2, 5]) if (Math.log10(digit) + power >= low && Math.log10(digit) + power <= high) marks.push(digit * 10 ** power);
  return marks;
}

const legend = names => el("div", { class: "legend" }, names.map((name, i) => el("span", {}, el("i", { class: `c${i % 8}` }), name)));

// The list ------------------------------------------------------------------------------------------------------------------------

function taskChips(run) {
  return run.tasks.map(task => el("span", {
    class: task.learned ? "learned" : "", shade: task.learned ? task.now : null,
    title: task.learned ? `${task.task}: ${percent(task.now)}, just after learning ${percent(task.then)}` : `${task.task}: not learned yet`,
  }, task.learned ? whole(task.now) : "·"));
}

function row(run) {
  const tick = el("input", { type: "checkbox", "aria-label": `compare ${run.path}`, checked: chosen.has(run.path), onchange: event => {
    if (event.target.checked) chosen.add(run.path); else chosen.delete(run.path);
    compareButton();
  } });
  if (!run.method)
    return el("li", { class: `run ${run.state}` }, el("span"), el("div", { class: "who" }, el("span", { class: "name" }, run.path), el("small", {}, badge(run))),
      el("div", { class: "wide small" }, run.starting ? "getting ready" : run.error));
  return el("li", { class: `run ${run.state}` }, tick,
    el("div", { class: "who" }, el("a", { class: "name", href: link(run.path) }, `${run.method}, seed ${run.seed}`), el("small", {}, run.path)),
    el("div", { class: "at" }, badge(run), el("div", { class: "meter" }, el("i", { "width%": 100 * run.share })), el("small", {}, run.error || whereWords(run))),
    el("div", { class: run.loss.length > 1 ? "spark" : "spark none" }, sparkline(run.loss)),
    el("div", { class: "tasks" }, taskChips(run)),
    el("div", { class: "success" }, el("b", {}, percent(run.success.mean)), el("small", {}, timeWords(run))));
}

function drawList(page, answer) {
  const shown = answer.runs.filter(run => `${run.path} ${run.curriculum || ""} ${run.method || ""} ${run.state}`.toLowerCase().includes(filter.toLowerCase()));
  const states = Object.keys(STATES).map(state => [state, answer.runs.filter(run => run.state === state).length]).filter(([, number]) => number);
  head("Runs", `${answer.runs.length} below ${answer.folder}${states.length ? ": " : ""}${states.map(([state, number]) => `${number} ${state}`).join(", ")}`);
  if (!document.getElementById("s-tools")) section(page, "tools", 0, () => el("div", { class: "bar" },
    el("input", { type: "search", placeholder: "filter by path, method, state …", value: filter, "aria-label": "filter", oninput: event => { filter = event.target.value; refresh(); } }),
    el("button", { id: "compare", onclick: () => { location.hash = `compare/${[...chosen].map(encodeURIComponent).join("&")}`; } }, "Compare")));
  for (const path of [...chosen]) if (!answer.runs.some(run => run.path === path)) chosen.delete(path);
  compareButton();
  section(page, "runs", shown.map(run => run.path), () => shown.length
    ? [el("ul", { class: "runs" }, shown.map(freshRow)), el("p", { class: "note" }, "Numbers in the squares: success on each task in percent, in the order of the curriculum, after the last finished stage. "
      + "The mean is over the tasks learned so far. The line is the training loss, on a logarithmic scale.")]
    : el("p", { class: "note" }, answer.runs.length ? "No run fits the filter." : "No run here yet: `reconverge train --preset smoke` makes one in twenty seconds. This page finds it."));
  for (const run of shown) if (rows.get(run.path).text !== JSON.stringify(run)) rows.get(run.path).node.replaceWith(freshRow(run));
}

function freshRow(run) {
  const node = row(run);
  rows.set(run.path, { text: JSON.stringify(run), node });
  return node;
}

function compareButton() {
  const button = document.getElementById("compare");
  if (button) { button.disabled = chosen.size < 2; button.textContent = chosen.size < 2 ? "Tick runs to compare" : `Compare ${chosen.size} runs`; }
}

const RUN_SECTIONS = ["state", "headlines", "failures", "matrix", "loss", "links", "summary", "videos", "cost", "command"];

// One run -------------------------------------------------------------------------------------------------------------------------

function drawRun(page, run) {
  if (page.dataset.readable !== String(!!run.method)) {  // what was said of a run that could not be read goes, and every section has its place
    page.dataset.readable = String(!!run.method);
    page.replaceChildren(...(run.method ? RUN_SECTIONS.map(id => el("section", { id: `s-${id}` })) : []));
    drawn.clear();
  }
  if (!run.method) { head(run.path, ""); section(page, "error", run.error || "getting ready", text => el("p", { class: "callout" }, text)); return; }
  head(`${run.method}, seed ${run.seed}`, `${run.path} · curriculum ${run.curriculum}`);
  section(page, "state", [run.state, whereWords(run), timeWords(run), run.share, run.error], () => el("div", { class: run.state },
    el("p", {}, badge(run), " ", whereWords(run), timeWords(run) ? ` · ${timeWords(run)}` : ""),
    el("div", { class: "meter" }, el("i", { "width%": 100 * run.share })),
    run.error ? el("p", { class: "callout" }, run.error) : null,
    ["stopped", "killed", "failed"].includes(run.state) ? el("p", { class: "note" }, "Go on with ", el("code", {}, `reconverge train --resume ${run.folder}`), ", from where it was started.") : null));
  if (run.stages_done) section(page, "headlines", run.headlines, drawHeadlines);
  if (run.failures.length) section(page, "failures", run.failures, list => list.map(words => el("p", { class: "callout" }, words)));
  section(page, "matrix", [run.cells, run.experts, run.columns], () => [el("h2", {}, "Success matrix"), run.cells.length ? matrix(run) : el("p", { class: "note" }, "The first row comes with the first evaluation.")]);
  section(page, "loss", run.curves, curves => [el("h2", {}, "Loss"),
    chart(Object.entries(curves).map(([name, values]) => ({ name, points: values })), { log: true, bounds: run.stage_starts, names: run.stage_tasks, xlabel: "updates" })]);
  section(page, "links", [run.report, run.tables], () => [el("h2", {}, "Report and tables"),
    el("div", { class: "links" }, run.report ? el("a", { href: fileOf(run.path, "report.html"), target: "_blank", rel: "noopener" }, el("b", {}, "report.html")) : el("span", { class: "note" }, "The report comes at the end."),
      run.tables.map(name => el("a", { href: fileOf(run.path, name), target: "_blank", rel: "noopener" }, name)))]);
  if (run.summary) section(page, "summary", [run.summary, run.stages_done], () => [el("h2", {}, "Summary"), el("img", { class: "picture", src: fileOf(run.path, "summary.png"), alt: "success matrix and last frames", loading: "lazy" })]);
  if (run.videos.length) section(page, "videos", run.videos, () => drawVideos(run));
  section(page, "cost", run.phases, rows => [el("h2", {}, "Where the time went"), cost(rows)]);
  section(page, "command", run.command, text => [el("h2", {}, "Command"), el("pre", {}, text)]);
}

function drawHeadlines(found) {
  const tile = (title, value, interval, words) => el("div", {}, el("div", { class: "small" }, title), el("div", { class: "value" }, value), el("div", { class: "small" }, interval || "\u00a0"), el("div", { class: "small" }, words));
  const back = found.recovery;
  return el("div", { class: "headlines" },
    tile("Mean success", percent(found.success.mean), range(found.success, percent), "tasks learned so far, last stage"),
    tile("Forgetting, points", points(found.forgetting.mean), range(found.forgetting, points), "just learned minus now"),
    tile("Forward transfer, points", points(found.forward.mean), range(found.forward, points), "before learning, above untrained"),
    tile(`Recovery to ${back.threshold} %`, !back.pairs ? "–" : !back.dipped ? "no dip" : known(back.median) ? `${count(back.median)} updates` : "never",
      back.pairs ? `${back.dipped} of ${back.pairs} dipped${back.dipped ? `, ${back.never} never back` : ""}` : "", "median of those that dipped after a task switch"));
}

function matrix(run) {
  const tasks = run.columns, at = new Map(run.cells.map(cell => [`${cell.stage} ${cell.task}`, cell]));
  const stages = [...new Set(run.cells.map(cell => cell.stage))];
  const short = new Map(tasks.map((task, i) => [task, run.tasks[i].task]));
  const line = stage => el("tr", {}, el("th", { class: "l" }, stage ? `${stage} ${run.stage_tasks[stage - 1]}` : "untrained"), tasks.map(task => {
    const cell = at.get(`${stage} ${task}`);
    if (!cell) return el("td");
    const interval = `${whole(cell.low)} to ${whole(cell.high)}`;
    return el("td", { class: `cell${cell.own ? " own" : ""}`, shade: cell.rate, title: `${cell.successes} of ${cell.episodes} episodes; 95 % interval ${interval}` },
      cell.episodes ? whole(cell.rate) : "failed", el("small", {}, interval));
  }));
  const experts = Object.keys(run.experts).length ? el("tr", {}, el("th", { class: "l" }, "expert"), tasks.map(task => el("td", { class: "cell" }, whole(run.experts[task])))) : null;
  return [el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { class: "l" }, "after stage"), tasks.map(task => el("th", { class: "tilt" }, short.get(task))))),
    el("tbody", {}, stages.map(line), experts))),
    el("p", { class: "note" }, "Success in percent over its 95 % interval. Outlined: a stage in which the task was learned. Read down a column to watch a task being learned and kept.")];
}

function drawVideos(run) {
  const film = video => el("video", { controls: true, loop: true, muted: true, playsinline: true, preload: "none", src: fileOf(run.path, `videos/${video.name}`),
    poster: video.poster ? fileOf(run.path, `videos/${video.name.replace(/mp4$/, "png")}`) : undefined });
  const grid = run.videos.filter(video => video.name === "grid.mp4"), cells = run.videos.filter(video => video.name !== "grid.mp4").reverse();
  return [el("h2", {}, "Videos"), grid.map(film), cells.length ? el("details", {}, el("summary", {}, `${cells.length} videos, one per stage and task`),
    el("div", { class: "videos" }, cells.map(video => el("figure", {}, film(video), el("figcaption", { class: "small" }, video.name.replace(/\.mp4$/, "")))))) : null];
}

function cost(rows, most = Math.max(...rows.map(one => one.seconds))) {
  const whole = rows.reduce((sum, one) => sum + one.seconds, 0);
  if (!rows.length) return el("p", { class: "note" }, "Not known yet.");
  return el("div", { class: "cost" }, rows.filter(one => one.seconds >= whole / 500).flatMap(one =>
    [el("span", {}, one.phase), el("div", { class: "meter" }, el("i", { "width%": 100 * one.seconds / (most || 1) })), el("span", { class: "small" }, duration(one.seconds))]));
}

// Several runs --------------------------------------------------------------------------------------------------------------------

function drawComparison(page, found) {
  const names = found.runs.map(run => found.runs.filter(other => other.name === run.name).length > 1 ? run.path : run.name);
  head(`${found.runs.length} runs compared`, [...new Set(found.runs.map(run => run.curriculum))].join(", "));
  section(page, "unlike", found.unlike, list => list.length ? el("p", { class: "callout" }, `Not like for like: these runs differ in ${list.join("; in ")}.`) : null);
  section(page, "table", found.runs, runs => el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ["run", "stages", "success at the end", "forgetting, points", "just learned", "time", "kept", "past data"].map((title, i) => el("th", { class: i ? "" : "l" }, title)))),
    el("tbody", {}, runs.map((run, i) => el("tr", {}, el("td", { class: "l" }, el("a", { href: link(run.path) }, names[i])),
      el("td", {}, `${run.stages_done}/${run.stages}`), el("td", {}, percent(run.success.mean), el("span", { class: "small" }, range(run.success, percent))),
      el("td", {}, points(run.forgetting.mean), el("span", { class: "small" }, range(run.forgetting, points))),
      [percent(run.just_learned), duration(run.total_s), bytes(run.kept_bytes), bytes(run.past_data_bytes)].map(text => el("td", {}, text))))))));
  section(page, "stages", found.runs, runs => [el("h2", {}, "Success over stages"), chart(runs.map((run, i) => ({ name: names[i], points: run.over_stages })), { top: 1, dots: true, xlabel: "stage" }),
    el("p", { class: "note" }, "Mean over the tasks learned up to each stage. A run that learns all tasks at once has one point.")]);
  section(page, "per-task", found.runs, runs => [el("h2", {}, "Success per task, after the last stage"), el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", { class: "l" }, "run"), runs[0].tasks.map(task => el("th", { class: "tilt" }, task.task)))),
    el("tbody", {}, runs.map((run, i) => el("tr", {}, el("th", { class: "l" }, names[i]), run.tasks.map(task => el("td", { class: "cell", shade: task.now, title: `${task.task}: ${percent(task.now)}` }, whole(task.now))))))))]);
  const longest = Math.max(...found.runs.flatMap(run => run.phases.map(one => one.seconds)), 0);
  section(page, "costs", found.runs, runs => [el("h2", {}, "Where the time went"), el("div", { class: "two" }, runs.map((run, i) => el("div", {}, el("p", {}, el("b", {}, names[i])), cost(run.phases.slice(0, 6), longest))))]);
  section(page, "note", 0, () => el("p", { class: "note" }, "The intervals are over the episodes of each trained policy. `reconverge report FOLDER` averages over seeds and compares methods pair by pair."));
}

// Asking --------------------------------------------------------------------------------------------------------------------------

function head(title, lead) {
  document.getElementById("title").textContent = title;
  document.getElementById("lead").textContent = lead;
  document.title = `${title} · reconverge`;
}

async function ask(address) {
  const answer = await fetch(address, { cache: "no-store" });
  if (!answer.ok) throw new Error(answer.status === 404 ? "this run is no longer there" : `the server answered ${answer.status}`);
  return answer.json();
}

async function refresh() {
  const page = document.getElementById("page"), turn = ++asked, [what, ...rest] = location.hash.slice(1).split("/"), given = rest.join("/");
  const query = given.split("&").filter(Boolean).map(path => `path=${path}`).join("&");
  try {
    const answer = await ask(what === "run" ? `api/run?${query}` : what === "compare" ? `api/comparison?${query}` : "api/runs");
    if (turn !== asked) return;   // the reader went elsewhere meanwhile
    (what === "run" ? drawRun : what === "compare" ? drawComparison : drawList)(page, answer);
    document.getElementById("alive").textContent = "";
  } catch (error) {
    if (turn === asked) document.getElementById("alive").textContent = ` · ${error instanceof TypeError ? "the server is gone; start `reconverge view` again" : error.message}`;
  }
}

function goto() {
  document.getElementById("page").replaceChildren();
  delete document.getElementById("page").dataset.readable;
  drawn.clear();
  window.scrollTo(0, 0);
  refresh();
}

window.addEventListener("hashchange", goto);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setInterval(() => { if (!document.hidden) refresh(); }, POLL_MS);
goto();
