// Requests to this server, and what went wrong in words. Addresses are relative: the page may be mounted anywhere.
export const base = new URL(".", document.baseURI).href;
const NAME = `cloudseg api_key ${base}`;
let key = new URLSearchParams(location.search).get("api_key") || sessionStorage.getItem(NAME) || "";

let asked = false; // for a key; under Airflow a login takes its place

export const wantsKey = () => asked;

export const headers = () => (key ? { "X-API-Key": key } : {});

export function useKey(value) {
  key = value;
  sessionStorage.setItem(NAME, value);
}

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export function reason(status, description) {
  if (status === 401 && !asked) return "You are not logged in any more: reload the page.";
  if (status === 401) return key ? "The API key is not accepted: enter another one." : "An API key is needed: enter the one you were given.";
  if (status === 429) return "Too many requests: wait a minute, then move the map or reload the page.";
  if (status === 503) return `${description || "The service is busy"}: try again in a moment.`;
  if (status >= 500) return `${description || "The service failed"}. The log of cloudseg serve says more.`;
  return description || `The server answered ${status}.`;
}

export async function get(path, parameters = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value != null) url.searchParams.set(name, value);
  }
  let answer;
  try {
    answer = await fetch(url, { headers: headers() });
  } catch {
    throw new Refused(0, "The server does not answer: check that cloudseg serve is running, then reload the page.");
  }
  asked ||= answer.status === 401 && (answer.headers.get("WWW-Authenticate") || "").startsWith("ApiKey");
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, reason(answer.status, body.description));
  return body;
}

// A link that works without headers, so it carries the key.
export function address(path) {
  const url = new URL(path, base);
  if (key) url.searchParams.set("api_key", key);
  return url.href;
}
