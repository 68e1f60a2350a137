// Parallels and meridians with their degrees, drawn over the map.
const STEPS = [30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];
const SVG = "http://www.w3.org/2000/svg";
const LINE_EVERY_PX = 110;

const named = (value, step, letters) => {
  const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
  return `${Math.abs(value).toFixed(digits)}°${Math.abs(value) < step / 2 ? "" : letters[value < 0 ? 1 : 0]}`;
};

function add(svg, tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  svg.append(element);
}

export function drawGrid(map, svg, on) {
  svg.replaceChildren();
  if (!on) return;
  const { clientWidth: width, clientHeight: height } = map.getContainer();
  const bounds = map.getBounds();
  const [west, east] = [bounds.getWest(), bounds.getEast()];
  const [south, north] = [Math.max(-85, bounds.getSouth()), Math.min(85, bounds.getNorth())];
  const wanted = ((east - west) / width) * LINE_EVERY_PX;
  const step = [...STEPS].reverse().find((candidate) => candidate >= wanted) || STEPS[0];
  for (let index = Math.ceil(west / step); index * step <= east; index += 1) {
    const lon = index * step;
    const { x } = map.project([lon, (south + north) / 2]);
    add(svg, "line", { x1: x, x2: x, y1: 0, y2: height });
    if (x > 60 && x < width - 90) add(svg, "text", { x: x + 3, y: height - 32 }, named(((lon + 540) % 360 + 360) % 360 - 180, step, "EW"));
  }
  for (let index = Math.ceil(south / step); index * step <= north; index += 1) {
    const { y } = map.project([(west + east) / 2, index * step]);
    add(svg, "line", { x1: 0, x2: width, y1: y, y2: y });
    if (y > 60 && y < height - 50) add(svg, "text", { x: 4, y: y - 3 }, named(index * step, step, "NS"));
  }
}
