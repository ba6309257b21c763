// A small WebGL renderer for robots made of spheres, capsules, cylinders and boxes. Matrices: rotation as 9 numbers row by row, and a place.

const VERTEX = `
attribute vec3 point; attribute vec3 normal;
uniform mat3 turn; uniform vec3 place, scale; uniform mat4 camera;
varying vec3 facing, at;
void main() {
  vec3 p = turn * (scale * point) + place;
  facing = turn * (normal / scale); at = p;
  gl_Position = camera * vec4(p, 1.0);
}`;
const FRAGMENT = `
precision mediump float;
varying vec3 facing, at;
uniform vec3 color, ground, eye; uniform float floorOf;
void main() {
  if (floorOf > 0.0) {
    vec2 cell = abs(fract(at.xy / floorOf + 0.5) - 0.5) * 2.0;
    float line = smoothstep(0.93, 0.985, max(cell.x, cell.y));
    float fade = exp(-0.35 * dot(at.xy, at.xy) / (16.0 * floorOf * floorOf));
    gl_FragColor = vec4(mix(ground, color, 0.55 * line * fade), 1.0);
    return;
  }
  vec3 n = normalize(facing);
  float key = max(dot(n, normalize(vec3(0.5, -0.4, 0.85))), 0.0), sky = 0.5 + 0.5 * n.z;
  float rim = pow(1.0 - max(dot(n, normalize(eye - at)), 0.0), 3.0);
  gl_FragColor = vec4(color * (0.34 + 0.26 * sky + 0.52 * key) + 0.10 * rim, 1.0);
}`;

export const times = (a, b) => { // 3x3 products
  const c = new Array(9);
  for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) c[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
  return c;
};
export const moved = (turn, v, place) => [0, 1, 2].map((i) => turn[3 * i] * v[0] + turn[3 * i + 1] * v[1] + turn[3 * i + 2] * v[2] + place[i]);
export const about = ([x, y, z], angle) => { // Rodrigues
  const c = Math.cos(angle), s = Math.sin(angle), k = 1 - c;
  return [c + x * x * k, x * y * k - z * s, x * z * k + y * s, y * x * k + z * s, c + y * y * k, y * z * k - x * s, z * x * k - y * s, z * y * k + x * s, c + z * z * k];
};
export const ofQuaternion = ([x, y, z, w]) => [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), 2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), 2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)];

/** Triangles of the unit shapes: points and normals, interleaved. */
function sphere(n = 20) {
  const out = [];
  const at = (i, j) => { const a = (Math.PI * i) / n, b = (2 * Math.PI * j) / n; return [Math.sin(a) * Math.cos(b), Math.cos(a), Math.sin(a) * Math.sin(b)]; };
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++)
    for (const p of [at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j), at(i + 1, j + 1), at(i, j + 1)]) out.push(...p, ...p);
  return out;
}
function cylinder(n = 28) { // along y, from -0.5 to 0.5, radius 1
  const out = [];
  const at = (j, y) => [Math.cos((2 * Math.PI * j) / n), y, Math.sin((2 * Math.PI * j) / n)];
  for (let j = 0; j < n; j++) {
    for (const [k, y] of [[j, -0.5], [j + 1, -0.5], [j + 1, 0.5], [j, -0.5], [j + 1, 0.5], [j, 0.5]]) { const p = at(k, y); out.push(...p, p[0], 0, p[2]); }
    for (const y of [-0.5, 0.5]) for (const p of [[0, y, 0], at(j, y), at(j + 1, y)]) out.push(...p, 0, Math.sign(y), 0);
  }
  return out;
}
function box() { // edges of length 1
  const out = [];
  for (let axis = 0; axis < 3; axis++) for (const side of [-0.5, 0.5]) {
    const corner = (u, v) => { const p = [0, 0, 0]; p[axis] = side; p[(axis + 1) % 3] = u; p[(axis + 2) % 3] = v; return p; };
    const n = [0, 0, 0]; n[axis] = 2 * side;
    for (const [u, v] of [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) out.push(...corner(u, v), ...n);
  }
  return out;
}

/** The parts a geom is drawn with: [mesh, scale, shift along its own y]. */
function parts(geom) {
  const [a, b, c] = geom.size_m;
  if (geom.shape === "sphere") return [["sphere", [a, a, a], 0]];
  if (geom.shape === "box") return [["box", [a, b, c], 0]];
  if (geom.shape === "cylinder") return [["cylinder", [a, b, a], 0]];
  return [["cylinder", [a, b, a], 0], ["sphere", [a, a, a], b / 2], ["sphere", [a, a, a], -b / 2]];
}

export class Scene {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
    if (!this.gl) throw new Error("this browser has no WebGL");
    this.view = { yaw: -0.9, pitch: 0.38, distance: 1, target: [0, 0, 0] };
    this.#compile();
    this.#listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Draw these from now on: [{mesh, turn, place, scale, color}], on a floor at height `floor` with squares of `square` metres. */
  put(items, { floor, square }) { Object.assign(this, { items, floor, square }); this.draw(); }

  look(target, radius) { this.view = { ...this.view, target, distance: 2.9 * radius }; this.radius = radius; }

  draw() {
    const { gl, canvas } = this;
    if (!this.items || !canvas.clientWidth) return;
    const ratio = Math.min(2, devicePixelRatio || 1), width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const ground = colorOf("--scene");
    gl.viewport(0, 0, width, height);
    gl.clearColor(...ground, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const { camera, eye } = this.#camera(width / height);
    gl.uniformMatrix4fv(this.uniform.camera, false, camera);
    gl.uniform3fv(this.uniform.eye, eye);
    gl.uniform3fv(this.uniform.ground, ground);
    const wide = 40 * this.square;
    this.#mesh("box", [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, this.floor - 0.0005 * wide], [wide, wide, 0.001 * wide], colorOf("--quiet"), this.square);
    for (const item of this.items) this.#mesh(item.mesh, item.turn, item.place, item.scale, item.color, 0);
  }

  #mesh(name, turn, place, scale, color, floorOf) {
    const { gl, uniform } = this, { buffer, count } = this.meshes[name];
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 24, 0);
    gl.vertexAttribPointer(1, 3, gl.FLOAT, false, 24, 12);
    gl.uniformMatrix3fv(uniform.turn, false, [turn[0], turn[3], turn[6], turn[1], turn[4], turn[7], turn[2], turn[5], turn[8]]);
    gl.uniform3fv(uniform.place, place);
    gl.uniform3fv(uniform.scale, scale);
    gl.uniform3fv(uniform.color, color);
    gl.uniform1f(uniform.floorOf, floorOf);
    gl.drawArrays(gl.TRIANGLES, 0, count);
  }

  #camera(aspect) {
    const { yaw, pitch, distance, target } = this.view;
    const back = [Math.cos(pitch) * Math.cos(yaw), Math.cos(pitch) * Math.sin(yaw), Math.sin(pitch)];
    const right = [-Math.sin(yaw), Math.cos(yaw), 0];
    const up = [back[1] * right[2] - back[2] * right[1], back[2] * right[0] - back[0] * right[2], back[0] * right[1] - back[1] * right[0]];
    const eye = target.map((t, i) => t + distance * back[i]);
    const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    const f = 1 / Math.tan(0.36), near = 0.02 * distance, far = 40 * distance, rows = [right, up, back];
    const move = rows.map((row) => -dot(row, eye));
    const camera = new Float32Array(16);
    for (let j = 0; j < 4; j++) {
      const [x, y, z] = rows.map((row, i) => (j < 3 ? row[j] : move[i]));
      camera.set([(f / aspect) * x, f * y, ((far + near) / (near - far)) * z + (j === 3 ? (2 * far * near) / (near - far) : 0), -z], 4 * j);
    }
    return { camera, eye };
  }

  #compile() {
    const { gl } = this, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source); gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    gl.bindAttribLocation(program, 0, "point"); gl.bindAttribLocation(program, 1, "normal");
    gl.linkProgram(program); gl.useProgram(program);
    gl.enableVertexAttribArray(0); gl.enableVertexAttribArray(1); gl.enable(gl.DEPTH_TEST);
    this.uniform = Object.fromEntries(["turn", "place", "scale", "camera", "color", "ground", "eye", "floorOf"].map((n) => [n, gl.getUniformLocation(program, n)]));
    this.meshes = Object.fromEntries(Object.entries({ sphere: sphere(), cylinder: cylinder(), box: box() }).map(([name, numbers]) => {
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(numbers), gl.STATIC_DRAW);
      return [name, { buffer, count: numbers.length / 6 }];
    }));
  }

  #listen() {
    const { canvas } = this;
    const turn = (yaw, pitch) => { this.view.yaw += yaw; this.view.pitch = Math.min(1.5, Math.max(-0.2, this.view.pitch + pitch)); this.draw(); };
    const near = (factor) => { this.view.distance = Math.min(12 * this.radius, Math.max(0.8 * this.radius, this.view.distance * factor)); this.draw(); };
    canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); this.drag = [e.clientX, e.clientY]; });
    canvas.addEventListener("pointerup", () => { this.drag = null; });
    canvas.addEventListener("pointermove", (e) => {
      if (!this.drag) return;
      turn((this.drag[0] - e.clientX) * 0.008, (e.clientY - this.drag[1]) * 0.008);
      this.drag = [e.clientX, e.clientY];
    });
    canvas.addEventListener("wheel", (e) => { e.preventDefault(); near(Math.exp(0.001 * e.deltaY)); }, { passive: false });
    canvas.addEventListener("keydown", (e) => {
      const keys = { ArrowLeft: () => turn(-0.1, 0), ArrowRight: () => turn(0.1, 0), ArrowUp: () => turn(0, 0.08), ArrowDown: () => turn(0, -0.08), "+": () => near(0.9), "-": () => near(1.1) };
      if (keys[e.key]) { e.preventDefault(); keys[e.key](); }
    });
  }
}

/** A colour of the style sheet as three numbers. */
export function colorOf(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
}

/** Where every part of a robot is. Returns items for `Scene.put` (without colours) and the lowest point.
 *  shape: /api/model; q_rad: joint angles in its order; base: rotation of the root. */
export function posed(shape, q_rad, base) {
  const frames = new Map([[shape.base, { turn: base, place: [0, 0, 0] }]]);
  shape.joints.forEach((joint, i) => {
    const parent = frames.get(joint.parent);
    frames.set(joint.child, { turn: times(times(parent.turn, joint.turn), about(joint.axis, q_rad[i] ?? 0)), place: moved(parent.turn, joint.origin_m, parent.place) });
  });
  const items = [];
  let lowest = Infinity;
  shape.links.forEach((link, number) => {
    const frame = frames.get(link.name);
    for (const geom of link.geoms) {
      const turn = times(frame.turn, geom.turn), centre = moved(frame.turn, geom.origin_m, frame.place);
      for (const [mesh, scale, shift] of parts(geom)) {
        const place = moved(turn, [0, shift, 0], centre);
        const reach = mesh === "box" ? [0, 1, 2].reduce((sum, k) => sum + Math.abs(turn[6 + k]) * scale[k] * 0.5, 0)
          : mesh === "sphere" ? scale[0] : scale[0] * Math.hypot(turn[6], turn[8]) + 0.5 * scale[1] * Math.abs(turn[7]);
        lowest = Math.min(lowest, place[2] - reach);
        items.push({ mesh, turn, place, scale, link: number });
      }
    }
  });
  return { items, lowest };
}
