// The front page of the demo: a clip is dropped, chosen or recorded, and sent as a plain form.

const form = at("form"), chosen = at("clip"), drop = at("drop"), problem = at("error"), busy = at("busy"), predict = at("predict");
const preview = at("preview"), recorded = at("recorded"), stop = at("stop"), starts = [at("record-both"), at("record-sound")];
const MOST_SECONDS = 120;

function complain(text) {
  problem.textContent = text;
  problem.hidden = !text;
}
function take(file) {
  const holder = new DataTransfer();
  holder.items.add(file);
  chosen.files = holder.files;
  check();
}
function check() {
  const file = chosen.files[0], large = file && file.size > data.most_bytes;
  complain(large ? `The clip is larger than ${data.most_bytes / 1e6} MB, the limit of this demo.` : "");
  return !large;
}

chosen.addEventListener("change", check);
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
drop.addEventListener("dragleave", (event) => { if (!drop.contains(event.relatedTarget)) drop.classList.remove("over"); });
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const [file, more] = event.dataTransfer.files;
  if (more) complain("Drop one clip at a time.");
  else if (file) take(file);
});
// A file that misses its place must not replace this page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

let counting = null;
form.addEventListener("submit", (event) => {
  if (!check()) { event.preventDefault(); return; }
  const began = performance.now();
  predict.disabled = true;
  const say = () => { busy.textContent = `Reading the clip, ${Math.round((performance.now() - began) / 1000)} s`; };
  say();
  counting = setInterval(say, 1000);
});
window.addEventListener("pageshow", () => {
  clearInterval(counting);
  predict.disabled = false;
  busy.textContent = "";
});

// Recording, which begins with a click alone.

let recorder = null, clockwork = null;
async function record(withPictures) {
  complain("");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: withPictures });
  } catch (fault) {
    complain(`Recording is not possible: ${fault.name === "NotAllowedError" ? "it was not allowed" : fault.message}.`);
    return;
  }
  const parts = [], began = performance.now();
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    clearInterval(clockwork);
    for (const track of stream.getTracks()) track.stop();
    const kind = recorder.mimeType.split(";")[0], ending = kind.split("/")[1] || "webm";
    const file = new File(parts, `recording.${ending}`, { type: kind });
    preview.srcObject = null;
    preview.src = URL.createObjectURL(file);
    preview.muted = false;
    preview.controls = true;
    preview.hidden = false;
    for (const each of starts) each.hidden = false;
    stop.hidden = true;
    recorded.textContent = `Recorded ${((performance.now() - began) / 1000).toFixed(1)} s. Predict it, or record again.`;
    take(file);
  });
  preview.removeAttribute("src");
  preview.controls = false;
  preview.muted = true;
  preview.hidden = !withPictures;
  if (withPictures) { preview.srcObject = stream; preview.play().catch(() => {}); }
  for (const each of starts) each.hidden = true;
  stop.hidden = false;
  stop.focus();
  const say = () => {
    const seconds = (performance.now() - began) / 1000;
    recorded.textContent = `Recording, ${Math.round(seconds)} of at most ${MOST_SECONDS} s`;
    if (seconds >= MOST_SECONDS && recorder.state === "recording") recorder.stop();
  };
  say();
  clockwork = setInterval(say, 500);
  recorder.start(1000);
}
if (navigator.mediaDevices && window.MediaRecorder) {
  at("recording").hidden = false;
  starts[0].addEventListener("click", () => record(true));
  starts[1].addEventListener("click", () => record(false));
  stop.addEventListener("click", () => { if (recorder?.state === "recording") recorder.stop(); });
}
