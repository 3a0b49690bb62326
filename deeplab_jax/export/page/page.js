// Controls, picture and legend. worker.js runs the model.
//
// After each image, the event `segmented` is dispatched on the document. Its detail is
// {classes, height, width, milliseconds}; classes is an Int32Array of length height · width.

"use strict";

const element = (id) => document.getElementById(id);
const picture = element("picture");
const overlay = element("classes");
const video = element("video");
const SIDES = [257, 385, 513, 769, 1025];

let model = null; // Names, colors and sizes, from model.json.
let worker = null;
let source = null; // The chosen image, an ImageBitmap.
let camera = null; // The stream of the camera, while it runs.
let starting = false; // True while the browser asks for permission and starts the camera.
let busy = false; // True while the worker computes.
let waiting = false; // True if the image or its size changed while the worker computed.

start();

async function start() {
  if (location.protocol === "file:") {
    fail("Browsers do not load models from files. Run `python -m http.server` in the directory of "
      + "this page and open http://localhost:8000.");
    return;
  }
  try {
    const response = await fetch("model.json");
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    model = await response.json();
  } catch (error) {
    fail(`model.json could not be loaded: ${error.message}`);
    return;
  }
  element("versions").textContent = `deeplab_jax ${model.version}, ${model.runtime}`;
  offerSides();
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => receive(data);
  worker.onerror = (event) => {
    event.preventDefault();
    fail(`The model could not be started: ${event.message ?? "worker.js could not be loaded"}`);
  };
}

function report(text) {
  element("status").textContent = text;
}

function fail(text) {
  element("error").textContent = text;
  element("error").hidden = false;
  report("");
}

// Offers the sizes to which an image can be downsampled. A model with a fixed size offers none.
function offerSides() {
  const { fixed, minimum } = model.sizes;
  if (fixed) {
    element("sides").hidden = true;
    return;
  }
  // Smaller images are padded to the minimum size, so they take the same time.
  const least = Math.max(...(minimum ?? [0]));
  const usual = least || 513;
  const sides = [...new Set([...SIDES.filter((side) => side >= least), usual])];
  sides.sort((a, b) => a - b);
  for (const side of sides) element("side").add(new Option(`${side} pixels`, side));
  element("side").add(new Option("original size", Infinity));
  element("side").value = usual;
}

// --- Images -------------------------------------------------------------------------------------

element("file").onchange = (event) => {
  openFile(event.target.files[0]);
  event.target.value = ""; // The same file can be chosen again.
};

document.ondragover = (event) => {
  event.preventDefault();
  element("stage").classList.add("over");
};
document.ondragleave = () => element("stage").classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  element("stage").classList.remove("over");
  openFile(event.dataTransfer.files[0]);
};
document.onpaste = (event) => openFile(event.clipboardData.files[0]);

async function openFile(file) {
  if (!file) return;
  let image;
  try {
    // The image is rotated upright. Its pixel values are those of the file, without color conversion.
    image = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    fail(`${file.name} is not an image that this browser can read. `
      + "Choose a PNG, JPEG, WebP, GIF or BMP file.");
    return;
  }
  stopCamera();
  source = image;
  update();
}

// --- Camera -------------------------------------------------------------------------------------

element("camera").onclick = () => (camera ? stopCamera() : startCamera());

async function startCamera() {
  if (!navigator.mediaDevices) {
    fail("The camera requires HTTPS or localhost; this page was loaded over plain HTTP.");
    return;
  }
  // A second click must not start a second stream, which nothing would stop.
  if (starting) return;
  starting = true;
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    fail(cameraError(error));
    return;
  } finally {
    starting = false;
  }
  camera.getVideoTracks()[0].onended = () => {
    stopCamera();
    fail("The camera was disconnected.");
  };
  video.srcObject = camera;
  await video.play();
  source = video;
  element("camera").textContent = "Stop the camera";
  update();
}

function cameraError(error) {
  if (error.name === "NotAllowedError") {
    return "The browser denied access to the camera. Allow it for this page in the browser's "
      + "settings, or choose an image.";
  }
  if (error.name === "NotFoundError") return "No camera was found. Choose an image instead.";
  return `The camera could not be started: ${error.message}`;
}

function stopCamera() {
  if (!camera) return;
  for (const track of camera.getTracks()) track.stop();
  camera = null;
  video.srcObject = null;
  source = null; // The last frame stays on the page.
  element("camera").textContent = "Start the camera";
}

// --- Segmentation -------------------------------------------------------------------------------

element("side").onchange = () => update();
element("opacity").oninput = () => showOpacity();

let shown = null; // ImageData of the image that the worker processes.

// Sends the source to the worker. If the worker is busy, the source is sent when it has finished.
function update() {
  if (!source || !worker) return;
  if (busy) {
    waiting = true;
    return;
  }
  shown = shrunk(source);
  busy = true;
  waiting = false;
  element("error").hidden = true;
  if (!camera) report("Segmenting…");
  const { data, height, width } = shown;
  worker.postMessage({ pixels: data, height, width });
}

// Returns the pixels of an image, downsampled to the chosen side or to the fixed size of the model.
function shrunk(image) {
  const height = image.videoHeight ?? image.height;
  const width = image.videoWidth ?? image.width;
  const side = Number(element("side").value);
  const [tall, wide] = model.sizes.fixed ?? [side, side];
  const scale = Math.min(1, tall / height, wide / width);
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.floor(width * scale)), Math.max(1, Math.floor(height * scale)),
  );
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function receive({ ready, classes, milliseconds, error }) {
  if (ready) {
    if (!busy) report("The model is ready.");
    return;
  }
  busy = false;
  if (error) {
    stopCamera();
    fail(error);
  } else {
    show(classes, milliseconds);
  }
  if (waiting || camera) requestAnimationFrame(update);
}

function show(classes, milliseconds) {
  const { height, width } = shown;
  const colors = new ImageData(width, height);
  const words = new Uint32Array(colors.data.buffer);
  const table = model.palette.map(colorWord);
  const counts = new Array(model.class_names.length).fill(0);
  for (let pixel = 0; pixel < classes.length; pixel++) {
    words[pixel] = table[classes[pixel]];
    counts[classes[pixel]]++;
  }
  draw(picture, shown);
  draw(overlay, colors);
  showOpacity();
  element("hint").hidden = true;
  element("stage").classList.add("filled");
  element("stage").style.setProperty("--ratio", width / height);
  const found = showLegend(counts, classes.length);
  picture.setAttribute("aria-label", `Image with the classes ${found.join(", ")}`);
  report(`${width} × ${height} pixels, ${milliseconds.toFixed(0)} ms`);
  const detail = { classes, height, width, milliseconds };
  document.dispatchEvent(new CustomEvent("segmented", { detail }));
}

// Returns a color as a 32-bit word of an ImageData. Black, the color of backgrounds, is transparent.
function colorWord([red, green, blue]) {
  const opacity = red || green || blue ? 255 : 0;
  return (opacity << 24) | (blue << 16) | (green << 8) | red;
}

function draw(canvas, pixels) {
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  canvas.hidden = false;
}

function showOpacity() {
  overlay.style.opacity = element("opacity").value / 100;
}

// Shows the classes of the image, the most frequent first, and returns their names.
function showLegend(counts, pixels) {
  const order = [...counts.keys()].filter((index) => counts[index]);
  order.sort((a, b) => counts[b] - counts[a]);
  const rows = order.map((index) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.append(swatch(model.palette[index]), model.class_names[index]);
    row.append(name);
    row.insertCell().textContent = ((100 * counts[index]) / pixels).toFixed(1);
    return row;
  });
  element("legend").tBodies[0].replaceChildren(...rows);
  element("legend").hidden = false;
  return order.map((index) => model.class_names[index]);
}

function swatch([red, green, blue]) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 14;
  const context = canvas.getContext("2d");
  context.fillStyle = `rgb(${red}, ${green}, ${blue})`;
  context.fillRect(0, 0, 14, 14);
  return canvas;
}
