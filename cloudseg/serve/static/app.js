// The page: what is chosen, which masks are in view, and what a click answers.
import { get, Refused, reason, useKey, wantsKey } from "./client.js";
import { describe, nothing } from "./answer.js";
import { drawGrid } from "./grid.js";
import { addButtons, attribution, boundsOf, centerOf, drawRasters, follow, makeMap, MIN_ZOOM, setOpacity, viewOf } from "./views.js";

const $ = (id) => document.getElementById(id);
const LAYERS = ["image", "probability", "mask"];
const NAMES = { image: "Scene", probability: "Probability", mask: "Mask", base: "Base map", land: "Land" };
const LISTED = 50;
const LOADED = 500;
const maps = {};
let features = []; // masks in view, newest first
let truncated = false;
let anyMask = false;
let days = [];
let day = ""; // chosen by hand; the newest one when empty
let alone = null; // the mask that is shown alone
let partner = null; // the mask of the same scene by the model on the right; undefined while it is looked for
let turn = 0;
let answers = 0;
let trouble = ""; // of the last request
const problems = new globalThis.Map(); // of tiles, by layer

// --- what is chosen

const dayOf = (feature) => (feature.properties.datetime || "").slice(0, 10);
const shownDay = () => days[$("day").value] || "";
const comparing = () => $("compare").checked;
const version = (side) => $(`version-${side}`).value;
const nameOf = (side) => $(`version-${side}`).selectedOptions[0]?.textContent || "";
const sides = () => (comparing() && maps.right ? ["left", "right"] : ["left"]);

function firstDay() {
  if ($("period").value === "") return "";
  const date = new Date(`${shownDay()}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() - Number($("period").value));
  return date.toISOString().slice(0, 10);
}

function interval() {
  if (!shownDay()) return "";
  return `${firstDay() ? `${firstDay()}T00:00:00Z` : ".."}/${shownDay()}T23:59:59.999Z`;
}

// Masks of the period and the left model; of several masks of a scene, that of the newest model.
function shown() {
  const found = features.filter((feature) => {
    const at = dayOf(feature);
    const inPeriod = !at ? $("period").value === "" : at <= shownDay() && at >= firstDay();
    return inPeriod && (version("left") === "" || String(feature.properties.model_version) === version("left"));
  });
  const newest = new globalThis.Map();
  for (const feature of found) {
    const known = newest.get(feature.properties.scene_id);
    if (!known || known.properties.model_version < feature.properties.model_version) newest.set(feature.properties.scene_id, feature);
  }
  return [...newest.values()];
}

// --- messages

// A button that goes away when it is used, so the focus needs another place.
function buttonTo(name, run) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
  button.addEventListener("click", () => {
    run();
    $("inspect").focus({ preventScroll: true });
  });
  return button;
}

const say = (text, action, run) => {
  $("message").textContent = text;
  if (action) $("message").append(" ", buttonTo(action, run));
};

function failed(error) {
  if (!(error instanceof Refused)) console.error(error);
  trouble = error.message;
  tell();
  if (wantsKey()) $("key").hidden = false;
}

function report() {
  if (!anyMask) {
    say("The catalog has no published mask yet. Ingest scenes (cloudseg ingest), make masks (cloudseg predict), then reload this page.");
  } else if (features.length === 0) {
    say("No masks in this part of the map.", "Go to the newest mask", () => toNewest().catch(failed));
  } else if (shown().length === 0 && !alone) {
    const model = version("left") ? ` by ${nameOf("left")}` : "";
    say(`No mask${model} in this period (until ${shownDay()}). Masks in view: ${features.length}. Choose another day, period or model.`);
  } else if (maps.left.getZoom() < MIN_ZOOM && !alone) {
    say("Zoom in to see masks and scenes: from here only their footprints are drawn.");
  } else if (truncated) {
    say(`The ${LOADED} newest masks in view are listed. For the others, zoom in or go to an earlier day.`);
  } else say("");
}

async function tileFailed(event) {
  const source = (event.sourceId || "").split("-")[0];
  const { status = 0, body } = event.error || {};
  if (status === 401 && wantsKey()) $("key").hidden = false;
  let description = "";
  try {
    description = JSON.parse(await body.text()).description;
  } catch { /* not an answer of this server */ }
  if (source && !LAYERS.includes(source)) description = "the host that the operator has set does not answer as expected";
  const missing = status === 500 ? "Whoever runs the service: cloudseg doctor. The rest of the map works." : "";
  const text = status ? reason(status, description) : description || String(event.error?.message || "unknown error");
  problems.set(source, `${NAMES[source] || "Map"} cannot be drawn everywhere: ${text}${text.endsWith(".") ? "" : "."} ${missing}`.trim());
  tell();
}

function tell() {
  $("problem").textContent = [trouble, ...problems.values()].join(" ").trim();
  if (problems.size) $("problem").append(" ", buttonTo("Draw again", drawAgain));
}

function drawAgain() {
  for (const side of sides()) drawRasters(maps[side], null, () => false, () => 0);
  draw();
}

// --- drawing

function whatIsShown(side) {
  if (alone) {
    const feature = side === "left" ? alone : partner;
    return feature && { feature };
  }
  return days.length || anyMask ? { datetime: interval(), version: version(side) } : null;
}

function drawTags() {
  const left = alone ? `model ${alone.properties.model_version}` : nameOf("left");
  let right = nameOf("right");
  if (alone && partner === null) right += ": no mask of this scene";
  $("tag-left").textContent = left;
  $("tag-right").textContent = comparing() && !(alone && partner === undefined) ? right : "";
}

function draw() {
  let changed = false;
  const outlines = $("footprints-on").checked ? (alone ? [alone] : shown()) : [];
  for (const side of sides()) {
    maps[side].getSource("outline").setData({ type: "FeatureCollection", features: outlines });
    changed = drawRasters(maps[side], whatIsShown(side), (layer) => $(`${layer}-on`).checked, (layer) => $(`${layer}-opacity`).value / 100) || changed;
  }
  if (changed) problems.clear();
  tell();
  $("day-name").textContent = shownDay() || "none";
  $("day").setAttribute("aria-valuetext", shownDay() || "none");
  $("when").disabled = Boolean(alone);
  $("version-left").disabled = Boolean(alone);
  $("alone").hidden = !alone;
  if (alone) $("alone-name").textContent = `Only ${alone.properties.name}, ${dayOf(alone) || "no date"}, is shown.`;
  drawTags();
  listMasks();
  report();
}

function listMasks() {
  const found = shown();
  const list = $("list");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.mask : "";
  list.replaceChildren();
  for (const feature of found.slice(0, LISTED)) {
    const { mask_id: id, name, cloud_cover: cover, model_version: number } = feature.properties;
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.dataset.mask = id;
    button.setAttribute("aria-pressed", String(alone?.properties.mask_id === id));
    const more = document.createElement("small");
    more.textContent = ` ${dayOf(feature) || "no date"} · ${cover.toFixed(0)} % cloud · model ${number}`;
    button.append(document.createElement("br"), more);
    button.addEventListener("click", () => showAlone(feature).catch(failed));
    list.append(document.createElement("li"));
    list.lastChild.append(button);
    if (id === focused) button.focus({ preventScroll: true });
  }
  $("count").textContent = found.length ? `(${found.length}${found.length > LISTED ? `, the ${LISTED} newest are listed` : ""})` : "";
}

function swipe(share) {
  $("swipe").value = share;
  const both = comparing();
  const at = both ? $("swipe").value : "100";
  $("left").style.clipPath = `inset(0 ${100 - at}% 0 0)`;
  $("right").style.clipPath = `inset(0 0 0 ${at}%)`;
  $("line").style.left = `${at}%`;
  $("line").hidden = !both;
  $("tag-right").hidden = !both || at === "100";
  $("tag-left").hidden = at === "0";
  $("swipe-name").textContent = `${at} %`;
}

// --- loading

const latest = () => (day ? `../${day}T23:59:59.999Z` : "");

async function load(bbox) {
  const mine = ++turn;
  const found = await get("features/footprints", { limit: LOADED, bbox, datetime: latest(), model_version: version("left") });
  if (mine !== turn) return;
  const before = shownDay();
  trouble = "";
  features = found.features;
  anyMask ||= features.length > 0;
  truncated = found.links.some((link) => link.rel === "next");
  days = [...new Set([...features.map(dayOf), day, $("day").dataset.moved ? before : ""].filter(Boolean))].sort();
  const slider = $("day");
  slider.max = Math.max(0, days.length - 1);
  slider.disabled = days.length < 2;
  slider.value = slider.dataset.moved ? days.indexOf(before) : days.length - 1;
  draw();
}

const loadView = () => load(viewOf(maps.left)).catch(failed);

async function loadVersions() {
  const found = await get("stac/collections/models/items", { limit: 100 });
  const versions = found.features.map((item) => item.properties.version).sort((a, b) => b - a);
  const options = () => versions.map((number) => new Option(`model ${number}`, number));
  $("version-left").replaceChildren(new Option("what readers see", ""), ...options());
  $("version-right").replaceChildren(...options());
  $("compare").disabled = versions.length < 2;
  $("compare-name").textContent = versions.length < 2 ? "Compare models (there is only one)" : "Compare with another model";
  if (versions.length > 1) $("version-right").value = versions[1];
}

const fit = ([west, south, east, north]) => maps.left.fitBounds([[west, south], [east, north]], { padding: 40, animate: false, maxZoom: 14 });

async function toNewest() {
  const found = await get("features/footprints", { limit: 1, datetime: latest(), model_version: version("left") });
  if (found.features.length) fit(boundsOf(found.features[0]));
}

// --- questions

async function answer(parts) {
  const mine = ++answers;
  const found = await Promise.all(parts);
  if (mine !== answers) return;
  const close = buttonTo("Close", () => {
    $("answer").hidden = true;
    $("said").textContent = "";
    mark(null);
  });
  close.className = "close";
  $("answer").replaceChildren(close, ...found.map(({ part }) => part));
  $("answer").hidden = false;
  $("controls").scrollTop = 0;
  $("said").textContent = found.map(({ sentence }) => sentence).join(" ");
}

function mark(point) {
  const features = point ? [{ type: "Feature", properties: {}, geometry: { type: "Point", coordinates: point } }] : [];
  for (const side of sides()) maps[side].getSource("asked").setData({ type: "FeatureCollection", features });
}

async function ask(point) {
  const lon = ((point.lng + 540) % 360 + 360) % 360 - 180;
  const at = [lon, Math.max(-90, Math.min(90, point.lat))];
  mark([point.lng, point.lat]);
  await answer(sides().map((side) => askOne(side, at)));
}

async function askOne(side, at) {
  const title = comparing() ? (side === "left" ? "Left: " : "Right: ") : "";
  const wanted = whatIsShown(side);
  let feature = wanted && wanted.feature;
  if (wanted && !feature) {
    const asked = { limit: 1, bbox: [...at, ...at].join(","), datetime: wanted.datetime, model_version: wanted.version };
    feature = (await get("features/footprints", asked)).features[0];
  }
  if (feature) return describe(feature, at, title);
  const where = `${Math.abs(at[1]).toFixed(4)}°${at[1] < 0 ? "S" : "N"} ${Math.abs(at[0]).toFixed(4)}°${at[0] < 0 ? "W" : "E"}`;
  return nothing(title, `No mask at ${where} in this period. Click inside a footprint, or choose another day or model.`);
}

async function showAlone(feature) {
  alone = feature;
  await findPartner();
  const bounds = boundsOf(feature);
  fit(bounds);
  draw();
  if (matchMedia("(max-width: 720px)").matches) $("maps").scrollIntoView();
  const [lng, lat] = centerOf(bounds);
  await ask({ lng, lat });
}

async function findPartner() {
  partner = undefined;
  if (!alone || !comparing()) return;
  const [lon, lat] = centerOf(boundsOf(alone));
  const { scene_id: scene, datetime } = alone.properties;
  const asked = { limit: 100, bbox: [lon, lat, lon, lat].join(","), datetime, model_version: version("right") };
  partner = (await get("features/footprints", asked)).features.find((found) => found.properties.scene_id === scene) || null;
}

function showAll() {
  alone = null;
  partner = null;
  draw();
  $("inspect").focus();
}

// --- the two maps

const loaded = (map) => new Promise((resolve) => { map.once("load", resolve); });

function prepare(map) {
  map.on("click", (event) => ask(event.lngLat).catch(failed));
  map.on("error", tileFailed);
  map.getCanvas().addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    ask(map.getCenter()).catch(failed);
  });
}

async function compare() {
  $("comparison").hidden = !comparing();
  $("right").hidden = !comparing();
  $("name-left").textContent = comparing() ? "Left:" : "Model";
  if (comparing() && !maps.right) {
    const right = makeMap("right", "Map, right model", { center: maps.left.getCenter(), zoom: maps.left.getZoom() });
    prepare(right);
    await loaded(right);
    maps.right = right;
    follow(maps.left, maps.right);
    follow(maps.right, maps.left);
  }
  if (comparing() && version("left") === "" && !alone) {
    $("version-left").selectedIndex = 1;
    await load(viewOf(maps.left));
  }
  if (comparing()) {
    maps.right.resize();
    maps.right.jumpTo({ center: maps.left.getCenter(), zoom: maps.left.getZoom() });
  }
  swipe($("swipe").value);
  await findPartner();
  draw();
}

function dragLine() {
  const move = (event) => {
    const box = $("maps").getBoundingClientRect();
    swipe(Math.round((100 * (event.clientX - box.left)) / box.width));
  };
  $("line").addEventListener("pointerdown", (event) => {
    event.preventDefault();
    $("line").setPointerCapture(event.pointerId);
    $("line").addEventListener("pointermove", move);
  });
  $("line").addEventListener("pointerup", () => $("line").removeEventListener("pointermove", move));
}

async function start() {
  try {
    await loadVersions();
    await load("");
    $("key").hidden = true;
    if (features.length) fit(boundsOf(features[0]));
  } catch (error) {
    failed(error);
  }
  document.body.dataset.ready = "yes";
}

let waiting;
function listen() {
  const redraw = () => draw();
  maps.left.on("move", () => drawGrid(maps.left, $("grid"), $("grid-on").checked));
  maps.left.on("resize", () => drawGrid(maps.left, $("grid"), $("grid-on").checked));
  maps.left.on("moveend", () => {
    clearTimeout(waiting);
    waiting = setTimeout(loadView, 250);
  });
  for (const layer of LAYERS) {
    $(`${layer}-on`).addEventListener("change", redraw);
    $(`${layer}-opacity`).addEventListener("input", (event) => {
      for (const map of Object.values(maps)) setOpacity(map, layer, event.target.value / 100);
    });
  }
  for (const id of ["footprints-on", "period"]) $(id).addEventListener("change", redraw);
  $("version-left").addEventListener("change", loadView);
  $("grid-on").addEventListener("change", () => drawGrid(maps.left, $("grid"), $("grid-on").checked));
  $("version-right").addEventListener("change", () => findPartner().then(redraw).catch(failed));
  $("day").addEventListener("input", () => {
    $("day").dataset.moved = "yes";
    $("day-name").textContent = shownDay();
  });
  $("day").addEventListener("change", redraw);
  $("date").addEventListener("change", (event) => {
    day = event.target.value;
    delete $("day").dataset.moved;
    loadView();
  });
  $("compare").addEventListener("change", () => compare().catch(failed));
  $("swipe").addEventListener("input", (event) => swipe(event.target.value));
  $("inspect").addEventListener("click", () => ask(maps.left.getCenter()).catch(failed));
  for (const name of ["focus", "mouseenter"]) $("inspect").addEventListener(name, () => $("maps").classList.add("aiming"));
  for (const name of ["blur", "mouseleave"]) $("inspect").addEventListener(name, () => $("maps").classList.remove("aiming"));
  $("all").addEventListener("click", showAll);
  $("key").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey($("key-value").value.trim());
    start();
  });
  dragLine();
}

maps.left = makeMap("left", "Map", { center: [0, 20], zoom: 1 });
addButtons(maps.left, $("buttons"), $("scale"));
$("attribution").textContent = attribution();
prepare(maps.left);
swipe(50);
loaded(maps.left).then(() => {
  drawGrid(maps.left, $("grid"), true);
  listen();
  return start();
});
window.maps = maps;
