// What is known of a mask at a point, down to the labels of its model.
import { address, get } from "./client.js";

function element(tag, text = "", properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text) made.textContent = text;
  return made;
}

const link = (text, path, className = "") => element("a", text, { href: address(path), className });

function facts(feature, value, lineage) {
  const { datetime, cloud_cover: cover } = feature.properties;
  const outside = "no data: the scene has no pixel here";
  const { scene, mask, weights, run, snapshot } = lineage;
  return [
    ["Class", value.class || outside],
    ["Probability", value.probability === null ? "none" : `${value.probability.toFixed(3)} (cloud from ${Number(value.threshold.toFixed(3))} on)`],
    ["Time", datetime ? datetime.replace("T", " ").replace(/(\.\d+)?Z$/, " UTC") : "unknown"],
    ["Scene", `${cover.toFixed(1)} % cloud, ${scene.sensor === "unknown" || !scene.sensor ? "sensor unknown" : scene.sensor}`, scene.scene_id],
    ["Mask", mask.disputed ? "disputed: a correction waits" : "", mask.mask_id],
    ["Model", `version ${weights.version}, ${weights.architecture}`, weights.weights_id],
    ["Training", run ? `recipe ${run.recipe_name}` : "weights were imported", run?.run_id],
    ["Snapshot", snapshot ? "" : "not known", snapshot?.snapshot_id],
  ];
}

function labelsOf(lineage) {
  if (!lineage.labels.length) return element("p", "Labels: none are known for this model.");
  const details = element("details");
  details.append(element("summary", `Labels: ${lineage.labels.length} behind this model`));
  const list = element("ul");
  for (const label of lineage.labels.slice(0, 200)) {
    list.append(element("li", `${label.scene_name}: version ${label.version}, ${label.source}, ${label.split} (${label.label_id})`));
  }
  details.append(list);
  if (lineage.labels.length > 200) details.append(element("p", "The first 200; the lineage has all."));
  return details;
}

function linksOf(id) {
  const links = element("p", "", { className: "links" });
  links.append(
    link("Open in QGIS", `qgis/${id}.qgs`, "main-link"),
    link("Mask", `assets/${id}/mask`),
    link("Probability", `assets/${id}/probability`),
    link("Scene", `assets/${id}/image`),
    link("Clouds as GeoJSON", `features/${id}/clouds`),
    link("STAC item", `stac/collections/masks/items/${id}`),
    link("Lineage", `lineage/${id}`),
  );
  return links;
}

function addressesOf(id) {
  const details = element("details");
  details.append(element("summary", "Addresses for other programs"));
  const list = element("ul");
  for (const [name, text] of [
    ["GDAL raster", `/vsicurl/${address(`assets/${id}/mask`)}`],
    ["WMTS", address(`tiles/${id}/mask/WMTSCapabilities.xml`)],
    ["XYZ tiles", decodeURI(address(`tiles/${id}/mask/{z}/{x}/{y}.png`))],
  ]) {
    const line = element("li", `${name}: `);
    line.append(element("code", text));
    list.append(line);
  }
  details.append(list);
  return details;
}

// Returns the part of the panel about one mask, and one sentence for screen readers.
export async function describe(feature, [lon, lat], title) {
  const mask = feature.properties.mask_id;
  const [value, lineage] = await Promise.all([get(`point/${mask}`, { lon, lat }), get(`lineage/${mask}`)]);
  const list = element("dl");
  for (const [name, text, id] of facts(feature, value, lineage)) {
    const words = element("dd", text);
    if (id) words.append(text ? " " : "", element("code", id));
    list.append(element("dt", name), words);
  }
  const part = document.createDocumentFragment();
  part.append(element("h3", `${title}${feature.properties.name}`), list, labelsOf(lineage), linksOf(mask), addressesOf(mask));
  const sentence = value.class ? `${value.class}, probability ${value.probability.toFixed(3)}` : "no data here";
  return { part, sentence: `${title}${feature.properties.name}: ${sentence}.` };
}

export const nothing = (title, why) => {
  const part = document.createDocumentFragment();
  part.append(element("h3", title || "No mask here"), element("p", why));
  return { part, sentence: `${title}${why}` };
};
