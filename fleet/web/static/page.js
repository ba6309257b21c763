// The fleet's page: hears the overview once a second and draws it. Nothing here writes HTML from data; text goes in as text.
import { Player } from "/static/player.js";

const $ = (id) => document.getElementById(id);
const SHOWN = 24; // rows before "show all"
const state = { token: "", all: false, overview: null, pressed: false };

/** An element with attributes and children; strings become text. */
function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return element;
}
const svg = (name, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

// --- numbers for people ---------------------------------------------------------------------------------------------

const scaled = (value, unit, steps, base) => {
  let i = 0;
  while (Math.abs(value) >= base && i < steps.length - 1) { value /= base; i += 1; }
  const digits = Math.abs(value) >= 100 || (i === 0 && Number.isInteger(value)) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return [value.toFixed(digits), `${steps[i]}${unit}`];
};
const bytes = (v) => scaled(v, "B", ["", "k", "M", "G", "T"], 1000);
const joules = (v) => (v >= 3.6e5 ? scaled(v / 3600, "Wh", ["", "k", "M"], 1000) : scaled(v, "J", ["", "k", "M"], 1000));
const watts = (v) => scaled(v, "W", ["", "k"], 1000);
const count = (v) => (v >= 1e5 ? scaled(v, "", ["", "k", "M", "G"], 1000) : [Math.round(v).toLocaleString("en"), ""]);
const span = (s) => {
  if (s === null || s === undefined) return "-";
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${(s / 3600).toFixed(1)} h` : `${Math.round(s / 86400)} d`;
};
const text = ([number, unit]) => (unit ? `${number} ${unit}` : number);
const ratio = (v) => (v === null || v === undefined ? "-" : `${(100 * v).toFixed(0)} %`);

// --- parts ----------------------------------------------------------------------------------------------------------

function drawFigures(o) {
  const online = o.states.ONLINE, total = o.robots.length;
  const lost = o.robots.reduce((sum, r) => sum + r.lost, 0);
  const parts = [
    ["robots online", [`${online}`, `of ${total}`], online < total && o.states.CONNECTIONBROKEN > 0],
    ["power", watts(o.energy.power_w)],
    ["energy since start", joules(o.energy.energy_j)],
    ["experience held", (([n, u]) => [n, `${u} steps`])(count(o.streams.steps.items))],
    ["records lost", count(lost), lost > 0],
    ["jobs waiting", count(o.jobs.backlog)],
  ];
  $("figures").replaceChildren(...parts.map(([name, [number, unit], bad]) =>
    h("div", { class: bad ? "figure bad" : "figure" }, h("b", {}, number, unit ? h("small", {}, ` ${unit}`) : null), h("span", { class: "quiet" }, name))));
}

function facts(target, pairs) {
  $(target).replaceChildren(...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function drawIngest(o) {
  const points = o.history, width = 600, height = 120;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": "Ingest rate" });
  for (const y of [0.5, height / 2, height - 0.5]) drawing.append(svg("line", { class: "rule", x1: 0, x2: width, y1: y, y2: y }));
  if (points.length > 1) {
    const first = points[0][0], last = points.at(-1)[0], top = Math.max(1, ...points.map((p) => p[1])) * 1.15;
    const xy = points.map((p) => [((p[0] - first) / Math.max(1e-6, last - first)) * width, height - (p[1] / top) * height]);
    const line = xy.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    drawing.append(svg("path", { class: "area", d: `${line}L${width} ${height}L0 ${height}Z` }), svg("path", { class: "curve", d: line }));
  }
  $("chart").replaceChildren(drawing);
  const top = points.length ? Math.max(...points.map((p) => p[1])) : 0;
  facts("ingest_facts", [
    ["now", `${text(bytes(o.rates.bytes_s))}/s`], ["records", `${text(count(o.rates.records_s))}/s`], ["most shown", `${text(bytes(top))}/s`],
    ["not held yet", text(count(o.pending))], ["oldest in a spool", span(o.spool.oldest_s)], ["disk free", ratio(o.disk_free)],
    ["acknowledged in", median(o.metrics.ack_latency_seconds)], ["sent twice, kept once", text(count(o.counts.duplicates))],
    ["digests differing", text(count(o.counts.audit_mismatch))],
    ...o.hubs.map((p) => [`hub ${p.hub}`, p.state === "ONLINE" ? `${text(count(p.only_there))} only there, ${text(count(p.only_here))} only here` : "does not answer"]),
  ]);
}

/** The bound that half of a histogram lies below. */
function median(histogram) {
  const total = histogram.le.at(-1)[1];
  if (!total) return "-";
  const bound = histogram.le.find(([, n]) => n >= total / 2)[0];
  return bound === "+Inf" ? "> 5 s" : `≤ ${(1000 * Number(bound)).toFixed(0)} ms`;
}

const STATUS = { running: "good", done: "good", paused: "warn", held: "warn", rolled_back: "bad" };
const STATUS_WORDS = { rolled_back: "rolled back" };

function drawRollout(o) {
  const r = o.rollout, body = $("rollout_body");
  if (!r) {
    body.replaceChildren(h("p", { class: "quiet" }, "No policy has been deployed yet. ", h("code", {}, "flexor fleet deploy ARTIFACT")));
    return;
  }
  const over = r.status === "done" || r.status === "rolled_back";
  const steps = h("ol", { class: r.status === "rolled_back" ? "steps back" : "steps" }, r.stages.map((name, i) =>
    h("li", { class: i < r.stage_number || r.status === "done" ? "past" : i === r.stage_number ? "now" : null }, name === "one" ? "1 robot" : name)));
  const cells = [
    ["robots", (g, name) => (name === "canary" ? r.canaries.length : o.robots.length - r.canaries.length)],
    ["episodes", (g) => g.episodes], ["falls", (g) => g.falls], ["falls per hour", (g) => (g.falls_per_hour === null ? "-" : g.falls_per_hour.toFixed(2))],
    ["success", (g) => ratio(g.success)], ["mean return", (g) => (g.return_mean === null ? "-" : g.return_mean.toFixed(2))], ["robot time", (g) => span(3600 * g.hours)],
  ];
  const table = h("table", { class: "groups" }, h("thead", {}, h("tr", {}, h("th"), h("th", { class: "number" }, "canary"), h("th", { class: "number" }, "control"))),
    h("tbody", {}, cells.map(([name, cell]) => h("tr", {}, h("td", {}, name), ...["canary", "control"].map((g) => h("td", { class: "number" }, cell(r.groups[g], g)))))));
  const worse = h("div", { class: "worse" }, Object.entries(r.worse).flatMap(([name, p]) => {
    const fill = h("i", { class: p > r.rules.rollback_above ? "bad" : p < r.rules.promote_below ? "good" : null });
    fill.style.width = `${(100 * p).toFixed(1)}%`;
    const marks = [r.rules.promote_below, r.rules.rollback_above].map((at) => { const mark = h("u"); mark.style.left = `${100 * at}%`; return mark; });
    return [h("span", { class: "quiet" }, name), h("span", { class: "bar" }, fill, marks), h("span", {}, p.toFixed(2))];
  }));
  const verdict = { rollback: "worse: roll back", promote: "no worse: go on", extend: "not enough is known yet" }[r.verdict];
  const parts = [
    h("p", { class: "line" }, h("span", {}, h("b", {}, r.artifact), h("span", { class: "quiet" }, ` ${r.policy_sha256.slice(0, 12)}`)), h("span", { class: `badge ${STATUS[r.status]}` }, STATUS_WORDS[r.status] ?? r.status)),
    steps, table, h("p", { class: "quiet verdict" }, "Probability that it is worse, by more than the margin; on below the first mark, back above the second"), worse,
    h("p", { class: "verdict" }, ...(over || r.status === "held" ? [h("b", {}, STATUS_WORDS[r.status] ?? r.status)] : ["Verdict: ", h("b", {}, verdict)]), r.reason ? h("span", { class: "quiet" }, ` · ${r.reason}`) : null),
  ];
  if (state.token && r.status !== "rolled_back") {
    const held = r.status === "held";
    parts.push(h("div", { class: "acts" },
      over ? null : h("button", { type: "button", class: "plain", "data-key": "hold", on: { click: () => act(held ? "resume" : "hold") } }, held ? "Go on" : "Hold"),
      h("button", { type: "button", class: "danger", "data-key": "back", on: { click: () => rollBack(r) } }, "Roll back")));
  }
  body.replaceChildren(...parts);
}

const STATE_BADGE = { ONLINE: "good", OFFLINE: "", CONNECTIONBROKEN: "bad", LOST: "bad", NEVER: "" };
const STATE_WORDS = { ONLINE: "online", OFFLINE: "said goodbye", CONNECTIONBROKEN: "connection broken", LOST: "lost", NEVER: "not seen yet" };
const empty = (r) => r.battery !== null && r.battery < 0.15;
const urgency = (r) => (r.state === "CONNECTIONBROKEN" || r.state === "LOST" || r.refused || r.doing === "safe" ? 0 : r.state === "ONLINE" ? (empty(r) ? 1 : 2) : r.state === "OFFLINE" ? 3 : 4);
const drawn = new Map(); // robot -> what its row was drawn from, and the row

/** A robot's row; the one that is there already where nothing changed. */
function rowOf(r) {
  const from = JSON.stringify({ ...r, silent_s: r.state === "ONLINE" ? 0 : Math.round(r.silent_s ?? 0) });
  if (drawn.get(r.name)?.from !== from) drawn.set(r.name, { from, row: robotRow(r) });
  return drawn.get(r.name).row;
}

function drawRobots(o) {
  const names = ["robot", "state", "battery", "power", "energy", "runs", "spool", "held", ""];
  $("robots_head").replaceChildren(h("tr", {}, names.map((name, i) => h("th", { class: [3, 4, 6, 7].includes(i) ? "number" : null }, name))));
  const wanted = $("filter").value.trim().toLowerCase();
  const rows = o.robots.filter((r) => !wanted || `${r.name} ${STATE_WORDS[r.state]} ${r.artifact} ${r.model} ${r.group}`.toLowerCase().includes(wanted))
    .sort((a, b) => urgency(a) - urgency(b) || a.name.localeCompare(b.name, "en", { numeric: true }));
  const shown = state.all ? rows : rows.slice(0, SHOWN);
  $("more").hidden = shown.length === rows.length;
  $("more").textContent = `Show all ${rows.length}`;
  const table = $("robots_body"), lines = shown.map(rowOf);
  if (lines.length !== table.children.length || lines.some((row, i) => row !== table.children[i])) table.replaceChildren(...lines);
  if (!shown.length) $("robots_body").replaceChildren(h("tr", {}, h("td", { colspan: names.length, class: "quiet" }, wanted ? "No robot matches." : "No robot has a key yet.")));
}

function robotRow(r) {
  const number = (name, value) => h("td", { class: "number", "data-name": name }, value);
  const since = r.state === "CONNECTIONBROKEN" || r.state === "LOST" ? `silent for ${span(r.silent_s)}` : ["running", "safe"].includes(r.doing) ? "" : r.doing;
  return h("tr", {},
    h("td", {}, h("b", {}, r.name), h("span", { class: "sub" }, [r.model, r.job ? `job ${r.job}` : "", r.allowed ? "" : "key revoked"].filter(Boolean).join(" · "))),
    h("td", {}, h("span", { class: `badge ${r.doing === "safe" ? "bad" : STATE_BADGE[r.state]}` }, r.doing === "safe" ? "stands still" : STATE_WORDS[r.state]), since ? h("span", { class: "sub" }, since) : null),
    h("td", {}, r.state === "NEVER" ? "" : battery(r.battery)),
    number("power", r.state === "ONLINE" ? text(watts(r.power_w)) : ""), h("td", { class: "number", "data-name": "energy", title: r.energy_source }, r.energy_source ? text(joules(r.energy_j)) : ""),
    h("td", {}, r.artifact, r.group ? h("span", { class: "sub" }, r.group) : null, r.shadow_steps ? h("span", { class: `sub${r.shadow_bad ? " wrong" : ""}` }, watching(r)) : null, r.refused ? h("span", { class: "sub wrong" }, r.refused) : null),
    number("spool", r.state === "NEVER" ? "" : text(bytes(r.spool_bytes))),
    h("td", { class: "number", "data-name": "held" }, text(count(r.steps)), r.lost ? h("span", { class: "sub" }, `${r.lost} lost`) : r.pending ? h("span", { class: "sub" }, `${r.pending} under way`) : null),
    h("td", {}, r.fall ? h("button", { type: "button", class: "plain", "data-key": `fall ${r.name}`, on: { click: () => showFall(r.name, true) } }, "last fall") : null));
}

function watching(r) {
  return `watches the candidate: ${text(count(r.shadow_steps))} steps, ${r.shadow_bad ? `failed at ${r.shadow_bad}` : `${r.shadow_difference.toPrecision(2)} apart`}`;
}

function battery(charge) {
  if (charge === null) return h("span", { class: "quiet" }, "mains");
  const fill = h("div", { class: `fill ${charge < 0.15 ? "bad" : charge < 0.35 ? "warn" : ""}` });
  fill.style.width = `${(100 * charge).toFixed(0)}%`;
  return h("span", { class: "meter" }, h("span", { class: "track" }, fill), ratio(charge));
}

const JOB_BADGE = { waiting: "", given: "good", done: "good", failed: "bad", cancelled: "", expired: "warn" };

function drawJobs(o) {
  const j = o.jobs;
  facts("jobs_facts", [
    ["backlog", j.backlog], ["under way", j.given], ["done", text(count(j.done))], ["tasks per hour", j.tasks_per_hour === null ? "-" : j.tasks_per_hour.toFixed(1)],
    ["Wh per task", j.wh_per_task === null ? "-" : j.wh_per_task.toPrecision(2)], ["failed", j.failed],
  ]);
  const order = { given: 0, waiting: 1 };
  const rows = [...j.jobs].sort((a, b) => (order[a.state] ?? 2) - (order[b.state] ?? 2) || b.ended_s - a.ended_s || Number(a.id) - Number(b.id)).slice(0, 12);
  $("jobs_body").replaceChildren(...rows.map((job) => h("tr", {},
    h("td", {}, job.task, h("span", { class: "sub" }, [job.place, job.skill].filter(Boolean).join(" · "))),
    h("td", {}, h("span", { class: `badge ${JOB_BADGE[job.state]}` }, job.state === "given" ? `with ${job.robot}` : job.state), job.reason ? h("span", { class: "sub" }, job.reason) : null),
    h("td", { class: "number" }, job.energy_j ? text(joules(job.energy_j)) : ""),
    h("td", { class: "number" }, state.token && order[job.state] !== undefined ? h("button", { type: "button", class: "plain", "data-key": `job ${job.id}`, on: { click: () => act("job_cancel", { id: job.id }) } }, "Cancel") : ""))));
  if (!rows.length) $("jobs_body").replaceChildren(h("tr", {}, h("td", { class: "quiet" }, "No jobs. ", h("code", {}, "flexor fleet job add TASK SKILL"))));
}

// --- the last fall --------------------------------------------------------------------------------------------------

let player = null;
const fall = { robot: "", time_ns: 0 };

function drawFallChoice(o) {
  const fallen = o.robots.filter((r) => r.fall).sort((a, b) => b.fall.time_ns - a.fall.time_ns);
  $("fall_robot").hidden = !fallen.length;
  const names = fallen.map((r) => r.name), select = $("fall_robot");
  if ([...select.options].map((option) => option.value).join() !== names.join()) {
    select.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === fall.robot }, name)));
  }
  if (!fall.robot && names.length) showFall(names[0], false);
}

async function showFall(robot, scroll) {
  fall.robot = robot;
  $("fall_robot").value = robot;
  try {
    const report = await get(`/api/fall/${encodeURIComponent(robot)}`);
    const shape = await get(`/api/model/${encodeURIComponent(report.robot_model)}`);
    if (fall.robot !== robot) return;
    fall.time_ns = report.time_ns;
    $("fall_view").hidden = false;
    player ??= new Player({ canvas: $("scene"), slider: $("time"), button: $("play"), clock: $("clock"), traces: $("traces") });
    player.show(shape, report);
    const when = new Date(report.time_ns / 1e6).toLocaleString();
    const place = shape.floating ? " Where it stands is not sensed: the lowest point is drawn on the floor." : "";
    $("fall_text").textContent = `${robot}, ${when}, under ${report.artifact}: ${report.reason}.${place}`;
  } catch (error) {
    $("fall_text").textContent = `The last fall of ${robot} cannot be shown: ${error.message}`;
    $("fall_view").hidden = true;
  }
  if (scroll) $("fall").scrollIntoView({ behavior: "smooth", block: "start" });
}

// --- talking to the hub ---------------------------------------------------------------------------------------------

async function get(path) {
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ?? answer.statusText);
  return body;
}

async function post(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json", "x-flexor-token": state.token }, body: JSON.stringify(body) });
  const got = await answer.json();
  if (!answer.ok) throw new Error(got.error ?? answer.statusText);
  return got;
}

function notice(words, bad = false) {
  $("notice").textContent = words;
  $("notice").className = bad ? "notice bad" : "notice";
  $("notice").hidden = !words;
}

async function act(command, argumentsOfIt = {}) {
  try {
    await post("/api/act", { command, arguments: argumentsOfIt });
    notice("");
    draw(await get("/api/overview"));
  } catch (error) {
    notice(error.message, true);
    await whoAmI();
  }
}

function rollBack(r) {
  $("ask_title").textContent = `Roll ${r.artifact} back?`;
  $("ask_text").textContent = "Every robot goes back to what it ran before, and this policy is banned.";
  $("ask_yes").textContent = "Roll back";
  $("ask_yes").className = "danger";
  $("asking").returnValue = "no";
  $("asking").showModal();
  $("asking").onclose = () => { if ($("asking").returnValue === "yes") act("rollback"); };
}

async function whoAmI() {
  const session = await get("/api/session");
  signedIn(session);
}

function signedIn(session) {
  state.token = session.token;
  $("who").textContent = session.signed_in ? "operator" : "read-only";
  $("sign").textContent = session.signed_in ? "Sign out" : "Sign in";
  $("job_form").hidden = !session.signed_in;
  if (state.overview) draw(state.overview);
}

function draw(o) {
  state.overview = o;
  if (state.pressed) return; // a button that is replaced between press and release would not hear the click
  const focused = document.activeElement?.dataset.key;
  if (o.away) {
    $("live").className = "dot off";
    notice(`The hub does not answer: ${o.away}. The page goes on trying.`, true);
    return;
  }
  if ($("live").className === "dot off") notice("");
  $("live").className = "dot on";
  $("hub").textContent = o.hub;
  document.title = `${o.hub}: ${o.states.ONLINE} of ${o.robots.length} robots online`;
  $("uptime").textContent = `up ${span(o.up_s)}`;
  drawFigures(o); drawIngest(o); drawRollout(o); drawRobots(o); drawJobs(o); drawFallChoice(o);
  document.body.dataset.ready = "yes";
  if (focused && document.activeElement?.dataset.key !== focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

// --- begin ----------------------------------------------------------------------------------------------------------

addEventListener("pointerdown", () => { state.pressed = true; }, true);
for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, () => setTimeout(() => { state.pressed = false; if (state.overview) draw(state.overview); }), true);
$("filter").addEventListener("input", () => state.overview && !state.overview.away && drawRobots(state.overview));
$("more").addEventListener("click", () => { state.all = true; drawRobots(state.overview); });
$("fall_robot").addEventListener("change", () => showFall($("fall_robot").value, false));
$("sign_cancel").addEventListener("click", () => $("signing").close());
$("sign").addEventListener("click", async () => {
  if (state.token) signedIn(await post("/api/sign_out", {}));
  else { $("sign_error").textContent = ""; $("secret").value = ""; $("signing").showModal(); }
});
$("sign_form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    signedIn(await post("/api/sign_in", { secret: $("secret").value.trim() }));
    $("signing").close();
  } catch (error) { $("sign_error").textContent = error.message; }
});
$("job_form").append(
  h("input", { type: "text", id: "job_task", placeholder: "task", "aria-label": "Task", required: true, maxlength: 200 }),
  h("input", { type: "text", id: "job_skill", placeholder: "skill, e.g. hand_reach", "aria-label": "Skill", required: true, maxlength: 64 }),
  h("input", { type: "text", id: "job_place", placeholder: "place", "aria-label": "Place", maxlength: 200 }), h("button", { type: "submit" }, "Add job"));
$("job_form").addEventListener("submit", async (event) => {
  event.preventDefault();
  await act("job_add", { task: $("job_task").value, skill: $("job_skill").value, place: $("job_place").value });
  $("job_form").reset();
});

const link = new URLSearchParams(location.hash.slice(1)).get("link");
if (link) {
  history.replaceState(null, "", location.pathname); // a used link need not stay in the history
  try { signedIn(await post("/api/sign_in", { link })); } catch (error) { notice(error.message, true); }
} else await whoAmI();

const live = new EventSource("/api/live");
live.onmessage = (event) => draw(JSON.parse(event.data));
live.onerror = () => { $("live").className = "dot off"; };
