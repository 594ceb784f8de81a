// The clips play in step, and stop, and step; tables sort by a click on a head. Nothing else needs a script.

function play(clips) {
  const [button, back, frame, forward, at] = ["play", "back", "frame", "forward", "at"].map(
    (id) => document.getElementById(id),
  );
  const numFrames = Number(frame.max), numTrained = Number(clips.dataset.trained);
  const wait = 1000 / Number(clips.dataset.rate);
  let timer = null;
  const show = (number) => {
    const now = ((number - 1 + numFrames) % numFrames) + 1;
    frame.value = now;
    clips.style.setProperty("--at", now - 1);
    const isBeyond = now > numTrained;
    clips.classList.toggle("beyond", isBeyond);
    at.textContent = `frame ${now} of ${numFrames}` + (isBeyond ? `, beyond the ${numTrained} of training` : "");
  };
  const step = (by) => show(Number(frame.value) + by);
  const run = (isRunning) => {
    clearInterval(timer);
    timer = isRunning ? setInterval(() => step(1), wait) : null;
    button.textContent = isRunning ? "pause" : "play";
    button.setAttribute("aria-pressed", String(isRunning));
  };
  button.addEventListener("click", () => run(timer === null));
  back.addEventListener("click", () => { run(false); step(-1); });
  forward.addEventListener("click", () => { run(false); step(1); });
  frame.addEventListener("input", () => { run(false); show(Number(frame.value)); });
  show(1);
  run(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}

// What a field is sorted by: the number that it begins with, "10.5k" as 10500; a text; nothing (a dash) comes last.
function keyOf(field) {
  const text = field.textContent.trim().replaceAll(",", "").replace("\u2212", "-");
  const number = text.match(/^-?\d+(\.\d+)?(e[-+]?\d+)?k?/);
  if (number) return parseFloat(number[0]) * (number[0].endsWith("k") ? 1000 : 1);
  return text === "\u2013" || text === "" ? null : text;
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
}

function sortBy(head) {
  const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
  const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  const rows = [...body.rows].map((row) => [keyOf(row.cells[column]), row]);
  rows.sort((a, b) => compare(a[0], b[0], order === "ascending" ? 1 : -1));
  body.append(...rows.map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("table.sortable thead th > button");
  if (button) sortBy(button.parentElement);
});
const films = document.getElementById("films");
if (films) play(films);
