// One or two maps in the same place: a base of land, and rasters of the masks over it.
import { Map as MapView, NavigationControl, ScaleControl } from "./maplibre-gl.mjs";
import { base, get, headers } from "./client.js";

export const MIN_ZOOM = 6;
const LAYERS = ["image", "probability", "mask"];
const TILE = 512;
const { baseTiles, baseAttribution } = document.body.dataset;

function style() {
  const nothing = { type: "FeatureCollection", features: [] };
  const sources = { land: { type: "geojson", data: nothing } };
  const layers = [
    // The outline of the land is kilometers off, so it fades out before it could be compared with a scene.
    { id: "ground", type: "background", paint: { "background-color": ["interpolate", ["linear"], ["zoom"], 7, "#c9d9e8", 8.5, "#e6e9ed"] } },
    { id: "land", type: "fill", source: "land", maxzoom: 9,
      paint: { "fill-color": "#f3f1ea", "fill-outline-color": "#7d8fa3", "fill-opacity": ["interpolate", ["linear"], ["zoom"], 7, 1, 8.5, 0] } },
  ];
  if (baseTiles) {
    sources.base = { type: "raster", tiles: [new URL(baseTiles, base).href.replace(/%7B/g, "{").replace(/%7D/g, "}")], tileSize: 256 };
    layers.push({ id: "base", type: "raster", source: "base" });
  }
  sources.outline = { type: "geojson", data: nothing };
  sources.asked = { type: "geojson", data: nothing };
  layers.push({ id: "outline", type: "line", source: "outline", paint: { "line-color": "#0b4fc0", "line-width": 2 } });
  layers.push({ id: "asked", type: "circle", source: "asked",
    paint: { "circle-radius": 6, "circle-color": "#ffd400", "circle-stroke-color": "#000", "circle-stroke-width": 2 } });
  return { version: 8, sources, layers };
}

export const attribution = () => (baseTiles ? baseAttribution : "Land: Natural Earth");

export function makeMap(id, name, camera) {
  const map = new MapView({
    container: id,
    style: style(),
    attributionControl: false,
    dragRotate: false,
    touchPitch: false,
    maxPitch: 0,
    maxZoom: 18,
    fadeDuration: 0,
    renderWorldCopies: true,
    locale: { "Map.Title": name },
    transformRequest: (url) => ({ url, headers: url.startsWith(base) ? headers() : {} }),
    ...camera,
  });
  // Not by an address in the style: MapLibre's worker would fetch it, and the worker's own policy allows no request.
  map.once("load", async () => map.getSource("land").setData(await get("static/land.json")));
  map.keyboard.disableRotation();
  map.touchZoomRotate.disableRotation();
  map.getCanvas().setAttribute("aria-label", `${name}. Arrow keys move it, plus and minus zoom, Enter asks at the center.`);
  return map;
}

// The buttons belong to no map's box: the swipe would cut them off.
export function addButtons(map, buttons, scale) {
  buttons.append(new NavigationControl({ showCompass: false }).onAdd(map));
  scale.append(new ScaleControl().onAdd(map));
}

export function follow(one, other) {
  one.on("move", () => {
    if (one.following) return;
    other.following = true;
    other.jumpTo({ center: one.getCenter(), zoom: one.getZoom() });
    other.following = false;
  });
}

// What is drawn: a mosaic (`datetime`, `version`), one mask (`feature`), or nothing (null).
function tilesOf(layer, shown) {
  const path = shown.feature ? `tiles/${shown.feature.properties.mask_id}/${layer}/` : `mosaic/${layer}/`;
  const parameters = new URLSearchParams({ scale: TILE / 256 });
  if (layer === "mask") parameters.set("style", "overlay");
  if (!shown.feature && shown.datetime) parameters.set("datetime", shown.datetime);
  if (!shown.feature && shown.version) parameters.set("model_version", shown.version);
  return `${new URL(path, base).href}{z}/{x}/{y}.png?${parameters}`;
}

// Returns whether anything is drawn that was not before.
export function drawRasters(map, shown, isOn, opacity) {
  const boxes = shown && shown.feature ? boxesOf(shown.feature) : [undefined];
  const wanted = new globalThis.Map();
  for (const layer of LAYERS) {
    if (!shown || !isOn(layer)) continue;
    boxes.forEach((bounds, index) => wanted.set(`${layer}-${index}`, { layer, bounds, tiles: tilesOf(layer, shown) }));
  }
  for (const { id } of map.getStyle().layers) {
    if (!LAYERS.includes(id.split("-")[0])) continue;
    const same = wanted.get(id);
    if (same && map.getSource(id).serialize().tiles[0] === same.tiles) continue;
    map.removeLayer(id);
    map.removeSource(id);
  }
  let above = "outline";
  let added = false;
  for (const layer of [...LAYERS].reverse()) {
    for (let index = boxes.length - 1; index >= 0; index -= 1) {
      const id = `${layer}-${index}`;
      const found = wanted.get(id);
      if (!found) continue;
      if (!map.getSource(id)) {
        added = true;
        const minzoom = shown.feature ? 0 : MIN_ZOOM;
        map.addSource(id, { type: "raster", tiles: [found.tiles], tileSize: TILE, minzoom, maxzoom: 16, ...(found.bounds && { bounds: found.bounds }) });
        map.addLayer({ id, type: "raster", source: id, minzoom,
          paint: { "raster-opacity": opacity(layer), "raster-resampling": layer === "image" ? "linear" : "nearest" } }, above);
      }
      above = id;
    }
  }
  return added;
}

export function setOpacity(map, layer, value) {
  for (const { id } of map.getStyle().layers) if (id.split("-")[0] === layer) map.setPaintProperty(id, "raster-opacity", value);
}

function boxOf(positions) {
  const lon = positions.map((position) => position[0]);
  const lat = positions.map((position) => position[1]);
  return [Math.min(...lon), Math.min(...lat), Math.max(...lon), Math.max(...lat)];
}

const positionsOf = (part) => (typeof part[0] === "number" ? [part] : part.flatMap(positionsOf));

// West, south, east, north; east is larger than 180 where a footprint lies on both sides of the antimeridian.
export function boundsOf(feature) {
  const positions = positionsOf(feature.geometry.coordinates);
  const [west, , east] = boxOf(positions);
  return boxOf(east - west > 180 ? positions.map(([lon, lat]) => [lon < 0 ? lon + 360 : lon, lat]) : positions);
}

function boxesOf(feature) {
  const [west, south, east, north] = boundsOf(feature);
  return east > 180 ? [[west, south, 180, north], [-180, south, east - 360, north]] : [[west, south, east, north]];
}

export const centerOf = ([west, south, east, north]) => [((west + east) / 2 + 540) % 360 - 180, (south + north) / 2];

export function viewOf(map) {
  const bounds = map.getBounds();
  const wrap = (lon) => ((lon + 540) % 360 + 360) % 360 - 180;
  const clip = (lat) => Math.max(-90, Math.min(90, lat));
  const all = bounds.getEast() - bounds.getWest() >= 360;
  return [all ? -180 : wrap(bounds.getWest()), clip(bounds.getSouth()), all ? 180 : wrap(bounds.getEast()), clip(bounds.getNorth())].join(",");
}
