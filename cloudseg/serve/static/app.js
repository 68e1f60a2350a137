// The map: two maps on top of each other, of which the swipe shows parts. Everything is read from this server.
import { Map as MapView, NavigationControl, ScaleControl } from "./maplibre-gl.mjs";

const $ = (id) => document.getElementById(id);
const base = new URL(".", document.baseURI).href;
const LAYERS = ["image", "probability", "mask"];
const SHOWN = 50;
const MOSAIC_MIN_ZOOM = 6;
let key = new URLSearchParams(location.search).get("api_key") || sessionStorage.getItem("api_key") || "";
let features = [];
let days = [];
let asked = 0;

const headers = () => (key ? { "X-API-Key": key } : {});

async function get(path, parameters = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(parameters)) if (value !== "" && value != null) url.searchParams.set(name, value);
  const answer = await fetch(url, { headers: headers() });
  if (answer.status === 401 && (answer.headers.get("WWW-Authenticate") || "").startsWith("ApiKey")) {
    $("key").hidden = false;
    throw new Error("An API key is needed.");
  }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.description || answer.statusText);
  return body;
}

const say = (text) => { $("message").textContent = text; };
const until = () => (days.length ? `../${days[$("day").value]}T23:59:59Z` : "");
const version = (side) => $(`version-${side}`).value;

function tilesOf(layer, side) {
  const url = new URL(`mosaic/${layer}/`, base).href + "{z}/{x}/{y}.png";
  const parameters = new URLSearchParams();
  if (layer === "mask") parameters.set("style", "overlay");
  if (until()) parameters.set("datetime", until());
  if (version(side)) parameters.set("model_version", version(side));
  return `${url}?${parameters}`;
}

function styleOf() {
  return { version: 8, sources: {}, layers: [{ id: "ground", type: "background", paint: { "background-color": "#dfe5ec" } }] };
}

function makeMap(id) {
  return new MapView({
    container: id,
    style: styleOf(),
    center: [0, 20],
    zoom: 1,
    attributionControl: false,
    dragRotate: false,
    pitchWithRotate: false,
    fadeDuration: 0,
    transformRequest: (url) => ({ url, headers: url.startsWith(base) ? headers() : {} }),
  });
}

const maps = { left: makeMap("left"), right: makeMap("right") };
maps.left.getCanvas().setAttribute("aria-label", "Map, left model. Arrow keys move it, plus and minus zoom.");
maps.right.getCanvas().setAttribute("aria-label", "Map, right model. Arrow keys move it, plus and minus zoom.");
maps.right.addControl(new NavigationControl({ showCompass: false }), "top-right");
maps.right.addControl(new ScaleControl(), "bottom-right");

function drawLayers(side) {
  const map = maps[side];
  for (const layer of LAYERS) {
    if (map.getLayer(layer)) map.removeLayer(layer);
    if (map.getSource(layer)) map.removeSource(layer);
    if (!$(`${layer}-on`).checked || version(side) === "none" || !days.length) continue;
    map.addSource(layer, { type: "raster", tiles: [tilesOf(layer, side)], tileSize: 256, minzoom: MOSAIC_MIN_ZOOM, maxzoom: 16 });
    const above = map.getLayer("outline") ? "outline" : undefined;
    map.addLayer({ id: layer, type: "raster", source: layer, minzoom: MOSAIC_MIN_ZOOM,
      paint: { "raster-opacity": $(`${layer}-opacity`).value / 100, "raster-resampling": layer === "image" ? "linear" : "nearest" } }, above);
  }
}

function drawOutlines(side) {
  const map = maps[side];
  const last = days[$("day").value];
  const shown = features.filter((feature) => !feature.properties.datetime || feature.properties.datetime.slice(0, 10) <= last);
  const data = { type: "FeatureCollection", features: $("footprints-on").checked ? shown : [] };
  if (map.getSource("outline")) map.getSource("outline").setData(data);
  else {
    map.addSource("outline", { type: "geojson", data });
    map.addLayer({ id: "outline", type: "line", source: "outline", paint: { "line-color": "#0b57d0", "line-width": 2 } });
  }
}

function draw() {
  for (const side of ["left", "right"]) {
    drawOutlines(side);
    drawLayers(side);
    const chosen = $(`version-${side}`).selectedOptions[0];
    $(`tag-${side}`).textContent = chosen ? chosen.textContent : "";
  }
  $("day-name").textContent = days[$("day").value] || "";
}

function swipe() {
  const share = $("swipe").value;
  $("left").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  $("right").style.clipPath = `inset(0 0 0 ${share}%)`;
  $("line").style.left = `${share}%`;
  $("line").hidden = share === "0" || share === "100";
  $("tag-right").hidden = share === "100";
  $("tag-left").hidden = share === "0";
}

function listMasks() {
  const list = $("list");
  list.replaceChildren();
  for (const feature of features.slice(0, SHOWN)) {
    const { name, datetime, cloud_cover: cover, model_version: number } = feature.properties;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${name}, ${(datetime || "no date").slice(0, 10)}: ${cover.toFixed(0)} % cloud, model ${number}`;
    button.addEventListener("click", () => {
      const [west, south, east, north] = boundsOf([feature]);
      fit([west, south, east, north]);
      show(feature, [(west + east) / 2, (south + north) / 2]);
    });
    list.append(document.createElement("li"));
    list.lastChild.append(button);
  }
}

function boundsOf(found) {
  const bounds = [180, 90, -180, -90];
  const add = (part) => {
    if (typeof part[0] === "number") {
      bounds[0] = Math.min(bounds[0], part[0]);
      bounds[1] = Math.min(bounds[1], part[1]);
      bounds[2] = Math.max(bounds[2], part[0]);
      bounds[3] = Math.max(bounds[3], part[1]);
    } else part.forEach(add);
  };
  found.forEach((feature) => {
    // Of a footprint that is cut at 180°, the first part.
    add(feature.geometry.type === "MultiPolygon" ? feature.geometry.coordinates[0] : feature.geometry.coordinates);
  });
  return bounds;
}

const fit = (bounds) => maps.left.fitBounds([[bounds[0], bounds[1]], [bounds[2], bounds[3]]], { padding: 30, animate: false, maxZoom: 14 });

async function load(bbox) {
  const turn = ++asked;
  const found = await get("features/footprints", { limit: 500, bbox });
  if (turn !== asked) return;
  features = found.features;
  const wanted = days[$("day").value];
  const seen = features.map((feature) => (feature.properties.datetime || "").slice(0, 10)).filter(Boolean);
  days = [...new Set([...days, ...seen])].sort();
  $("day").max = Math.max(0, days.length - 1);
  $("day").value = wanted ? days.indexOf(wanted) : days.length - 1;
  const more = found.links.some((link) => link.rel === "next");
  say(features.length === 0 ? "No masks here." : more ? "The 500 newest masks are shown." : "");
  listMasks();
  draw();
}

async function loadVersions() {
  const found = await get("stac/collections/models/items", { limit: 100 });
  const versions = found.features.map((item) => item.properties.version).sort((a, b) => b - a);
  for (const side of ["left", "right"]) {
    const select = $(`version-${side}`);
    select.replaceChildren(new Option("newest", ""), ...versions.map((number) => new Option(`model ${number}`, number)), new Option("nothing", "none"));
  }
  if (versions.length > 1) {
    $("version-left").value = versions[0];
    $("version-right").value = versions[1];
  }
}

async function inspect(point, side) {
  const bbox = [point.lng, point.lat, point.lng, point.lat].join(",");
  const wanted = version(side) === "none" ? "" : version(side);
  const found = await get("features/footprints", { limit: 1, bbox, datetime: until(), model_version: wanted });
  if (found.features.length === 0) {
    $("answer").hidden = false;
    $("answer").textContent = "No mask here.";
    return;
  }
  await show(found.features[0], [point.lng, point.lat]);
}

async function show(feature, [lon, lat]) {
  const id = feature.properties.mask_id;
  const [value, lineage] = await Promise.all([get(`point/${id}`, { lon, lat }), get(`lineage/${id}`)]);
  const entries = [
    ["Class", value.class || "no data"],
    ["Probability", value.probability === null ? "–" : `${value.probability.toFixed(3)} (cloud from ${value.threshold})`],
    ["Scene", `${lineage.scene.name} (${lineage.scene.scene_id})`],
    ["Time", feature.properties.datetime || "unknown"],
    ["Cloud", `${feature.properties.cloud_cover.toFixed(1)} %`],
    ["Mask", id],
    ["Model", `version ${lineage.weights.version} (${lineage.weights.weights_id})`],
    ["Training run", lineage.run ? `${lineage.run.run_id}, recipe ${lineage.run.recipe_name}` : "imported"],
    ["Snapshot", lineage.snapshot ? lineage.snapshot.snapshot_id : "–"],
    ["Labels", `${lineage.labels.length}`],
  ];
  const list = document.createElement("dl");
  for (const [name, text] of entries) {
    const term = document.createElement("dt");
    const words = document.createElement("dd");
    term.textContent = name;
    words.textContent = text;
    list.append(term, words);
  }
  const answer = $("answer");
  answer.hidden = false;
  answer.replaceChildren(list);
  if (lineage.labels.length) {
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = "The labels behind the model";
    const labels = document.createElement("ul");
    for (const label of lineage.labels.slice(0, 200)) {
      const line = document.createElement("li");
      line.textContent = `${label.label_id} (${label.split}, ${label.source}) of ${label.scene_name}`;
      labels.append(line);
    }
    details.append(summary, labels);
    answer.append(details);
  }
  const links = document.createElement("p");
  for (const [name, path] of [["Mask", `assets/${id}/mask`], ["Probability", `assets/${id}/probability`], ["Scene", `assets/${id}/image`],
    ["Clouds as GeoJSON", `features/${id}/clouds`], ["STAC item", `stac/collections/masks/items/${id}`]]) {
    if (links.childNodes.length) links.append(" · ");
    links.append(linkTo(name, path));
  }
  const qgis = document.createElement("p");
  qgis.append(linkTo("Open in QGIS (WMTS)", `tiles/${id}/mask/WMTSCapabilities.xml`), ", or add the raster layer ");
  const path = document.createElement("code");
  path.textContent = `/vsicurl/${new URL(`assets/${id}/mask`, base).href}`;
  qgis.append(path);
  answer.append(links, qgis);
}

function linkTo(name, path) {
  const link = document.createElement("a");
  const url = new URL(path, base);
  if (key) url.searchParams.set("api_key", key);
  link.href = url.href;
  link.textContent = name;
  return link;
}

const failed = (error) => say(error.message);

function inView() {
  const bounds = maps.left.getBounds();
  const wrap = (lon) => ((lon + 540) % 360 + 360) % 360 - 180;
  const all = bounds.getEast() - bounds.getWest() >= 360;
  const clip = (lat) => Math.max(-90, Math.min(90, lat));
  return [all ? -180 : wrap(bounds.getWest()), clip(bounds.getSouth()), all ? 180 : wrap(bounds.getEast()), clip(bounds.getNorth())].join(",");
}

function follow(one, other) {
  one.on("move", () => {
    if (one.following) return;
    other.following = true;
    other.jumpTo({ center: one.getCenter(), zoom: one.getZoom() });
    other.following = false;
  });
}

async function start() {
  try {
    await loadVersions();
    await load("");
    if (features.length) fit(boundsOf(features.slice(0, 20)));
    $("key").hidden = true;
    document.body.dataset.ready = "yes";
  } catch (error) {
    failed(error);
  }
}

follow(maps.left, maps.right);
follow(maps.right, maps.left);
let waiting;
maps.left.on("moveend", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { if (document.body.dataset.ready) load(inView()).catch(failed); }, 300);
});
for (const side of ["left", "right"]) maps[side].on("click", (event) => inspect(event.lngLat, side).catch(failed));
for (const layer of LAYERS) {
  $(`${layer}-on`).addEventListener("change", draw);
  $(`${layer}-opacity`).addEventListener("input", (event) => {
    for (const map of Object.values(maps)) if (map.getLayer(layer)) map.setPaintProperty(layer, "raster-opacity", event.target.value / 100);
  });
}
for (const id of ["footprints-on", "version-left", "version-right", "day"]) $(id).addEventListener("change", draw);
$("day").addEventListener("input", () => { $("day-name").textContent = days[$("day").value] || ""; });
$("swipe").addEventListener("input", swipe);
$("inspect").addEventListener("click", () => inspect(maps.left.getCenter(), "left").catch(failed));
$("key-save").addEventListener("click", () => {
  key = $("key-value").value.trim();
  sessionStorage.setItem("api_key", key);
  start();
});
swipe();
Promise.all(Object.values(maps).map((map) => new Promise((resolve) => { map.once("load", resolve); }))).then(start);
window.maps = maps;
