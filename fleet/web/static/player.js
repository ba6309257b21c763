// Plays a robot's last seconds: poses it from joint angles, a time slider, and the joints that moved most.
import { Scene, colorOf, ofQuaternion, posed, times } from "/static/scene.js";

const TRACES = 3;

export class Player {
  constructor({ canvas, slider, button, clock, traces }) {
    Object.assign(this, { canvas, slider, button, clock, traces });
    this.scene = new Scene(canvas);
    slider.addEventListener("input", () => { this.stop(); this.at(Number(slider.value)); });
    button.addEventListener("click", () => (this.playing ? this.stop() : this.play()));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.report && this.at(this.frame));
  }

  show(shape, report) {
    this.stop();
    Object.assign(this, { shape, report });
    this.slider.max = report.time_s.length - 1;
    const { items, lowest } = this.#pose(report.time_s.length - 1);
    const low = [0, 1, 2].map((k) => Math.min(...items.map((i) => i.place[k]))), high = [0, 1, 2].map((k) => Math.max(...items.map((i) => i.place[k])));
    const radius = Math.max(0.05, Math.hypot(...high.map((v, k) => v - low[k])) / 2);
    this.floor = shape.floating ? 0 : lowest - 0.25 * radius;
    this.square = 0.5 * 10 ** Math.floor(Math.log10(2 * radius));
    const middle = low.map((v, k) => (v + high[k]) / 2);
    if (shape.floating) middle[2] -= lowest;
    this.scene.look(middle, radius);
    this.hardest = Math.max(1, ...report.tip_force_n.flat()); // newtons that are drawn fully red
    this.#drawTraces();
    this.at(report.time_s.length - 1);
  }

  at(frame) {
    this.frame = frame;
    const { items, lowest } = this.#pose(frame), { shape } = this;
    const bone = colorOf("--control"), accent = colorOf("--accent"), hot = colorOf("--bad");
    const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);
    const force = this.report.tip_force_n[frame] ?? [];
    for (const item of items) {
      if (shape.floating) item.place[2] -= lowest;
      const tip = this.#tipOf(item.link);
      item.color = tip >= 0 ? mix(accent, hot, Math.min(1, (force[tip] ?? 0) / this.hardest)) : mix(bone, accent, 0.5 * (item.link / Math.max(1, shape.links.length - 1)));
    }
    this.scene.put(items, { floor: this.floor, square: this.square });
    this.slider.value = frame;
    this.clock.textContent = `${this.report.time_s[frame].toFixed(2)} s`;
    const cursor = this.traces.querySelector(".cursor");
    if (cursor) { const x = this.#x(frame); cursor.setAttribute("x1", x); cursor.setAttribute("x2", x); }
  }

  play() {
    const times = this.report.time_s, from = this.frame >= times.length - 1 ? 0 : this.frame, begun = performance.now();
    this.button.textContent = "Stop";
    const step = (now) => {
      if (!this.playing) return;
      const due = times[from] + (now - begun) / 1000;
      let frame = from;
      while (frame < times.length - 1 && times[frame + 1] <= due) frame += 1;
      this.at(frame);
      if (frame >= times.length - 1) this.stop();
      else this.playing = requestAnimationFrame(step);
    };
    this.playing = requestAnimationFrame(step);
  }

  stop() {
    if (this.playing) cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.button.textContent = "Play";
  }

  #pose(frame) {
    const quaternion = this.report.quat_xyzw[frame];
    const base = this.shape.floating && quaternion ? times(ofQuaternion(quaternion), this.shape.base_turn) : this.shape.base_turn;
    return posed(this.shape, this.report.q_rad[frame], base);
  }

  /** Which fingertip a link carries, -1 for none. */
  #tipOf(link) {
    return this.shape.tips.indexOf(this.shape.links[link].name);
  }

  #x(frame) {
    const t = this.report.time_s;
    return ((t[frame] - t[0]) / Math.max(1e-6, t.at(-1) - t[0])) * 600;
  }

  #drawTraces() {
    const { report, shape } = this, height = 90, ns = "http://www.w3.org/2000/svg";
    const column = (j) => report.q_rad.map((row) => row[j] ?? 0);
    const moving = shape.joints.map((joint, j) => { const c = column(j); return [Math.max(...c) - Math.min(...c), j]; }).sort((a, b) => b[0] - a[0]).slice(0, TRACES).map(([, j]) => j);
    const values = moving.flatMap(column), low = Math.min(...values), high = Math.max(...values, low + 0.1);
    const svg = document.createElementNS(ns, "svg");
    svg.setAttribute("viewBox", `0 0 600 ${height}`); svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img"); svg.setAttribute("aria-label", "The joints that moved most");
    moving.forEach((j, n) => {
      const path = document.createElementNS(ns, "path");
      path.setAttribute("class", `t${n}`);
      path.setAttribute("d", column(j).map((q, i) => `${i ? "L" : "M"}${this.#x(i).toFixed(1)} ${(4 + (height - 8) * (1 - (q - low) / (high - low))).toFixed(1)}`).join(""));
      svg.append(path);
    });
    const cursor = document.createElementNS(ns, "line");
    cursor.setAttribute("class", "cursor"); cursor.setAttribute("y1", 0); cursor.setAttribute("y2", height);
    svg.append(cursor);
    const legend = document.createElement("div");
    legend.className = "legend";
    moving.forEach((j, n) => { const s = document.createElement("span"); s.className = `t${n}`; s.textContent = shape.joints[j].name; legend.append(s); });
    this.traces.replaceChildren(svg, legend);
  }
}
