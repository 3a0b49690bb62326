// Runs the model in a thread of its own, so that the page responds while it computes.
//
// Receives {pixels, height, width}, where pixels are the RGBA values 0..255 of an image. Sends {ready}
// when the model is loaded, then {classes, milliseconds} for each image, or {error}.

import * as ort from "./runtime/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
// Several threads require a server that isolates the page (COOP and COEP headers).
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

const loaded = load();
loaded.then(
  () => postMessage({ ready: true }),
  (error) => postMessage({ error: `The model could not be loaded: ${error.message}` }),
);

onmessage = async ({ data }) => {
  try {
    const { model, session } = await loaded;
    const start = performance.now();
    const classes = await segment(model, session, data);
    const milliseconds = performance.now() - start;
    postMessage({ classes, milliseconds }, [classes.buffer]);
  } catch (error) {
    postMessage({ error: `The model failed on this image: ${error.message ?? error}` });
  }
};

async function load() {
  const model = await (await fetchFile("model.json")).json();
  const network = await (await fetchFile("model.onnx")).arrayBuffer();
  const session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"] });
  return { model, session };
}

async function fetchFile(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

// Returns the class of every pixel, an Int32Array of length height · width.
async function segment(model, session, { pixels, height, width }) {
  const [rows, columns] = paddedSize(model.sizes, height, width);
  const image = new Uint8Array(rows * columns * 3);
  for (let channel = 0; channel < 3; channel++) {
    const fill = model.sizes.fill[channel];
    for (let row = 0, to = channel; row < rows; row++) {
      for (let column = 0; column < columns; column++, to += 3) {
        const inside = row < height && column < width;
        image[to] = inside ? pixels[(row * width + column) * 4 + channel] : fill;
      }
    }
  }
  const input = new ort.Tensor("uint8", image, [1, rows, columns, 3]);
  const output = (await session.run({ image: input })).class_map;
  const classes = new Int32Array(height * width);
  for (let row = 0; row < height; row++) {
    const from = row * columns;
    classes.set(output.data.subarray(from, from + width), row * width);
  }
  return classes;
}

// Returns the size to which an image is padded, as in `deeplab-jax predict`: the fixed size of the
// file, or the inference size of the model if the image fits into it. For larger images, height and
// width are the next of 1, 2, 3, 4, 6, 8, 12, … steps.
function paddedSize({ step, plus, fixed, minimum }, height, width) {
  if (fixed) return fixed;
  const least = minimum ?? [0, 0];
  if (height <= least[0] && width <= least[1]) return least;
  const counts = [height, width].map((side) => coarse(Math.ceil(Math.max(side - plus, 1) / step)));
  const half = coarse(Math.ceil(Math.max(...counts) / 2));
  return counts.map((count, axis) => Math.max(Math.max(count, half) * step + plus, least[axis]));
}

// Returns the smallest of 1, 2, 3, 4, 6, 8, 12, 16, … that is at least `count`.
function coarse(count) {
  const power = 2 ** Math.ceil(Math.log2(count));
  const between = (3 * power) / 4;
  return power >= 4 && between >= count ? between : power;
}
