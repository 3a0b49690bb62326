// Runs an exported ONNX file by onnxruntime-web in Node.
// usage: node run_in_node.cjs MODEL IMAGE HEIGHT WIDTH CLASSES
// IMAGE has the bytes of a uint8 [1, HEIGHT, WIDTH, 3]; CLASSES receives those of the int32 result.

"use strict";

const fs = require("node:fs");
const ort = require("onnxruntime-web");

async function main([model, image, height, width, classes]) {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(model)), {
    executionProviders: ["wasm"],
  });
  const pixels = new Uint8Array(fs.readFileSync(image));
  const input = new ort.Tensor("uint8", pixels, [1, Number(height), Number(width), 3]);
  const start = performance.now();
  const { class_map: result } = await session.run({ image: input });
  fs.writeFileSync(classes, Buffer.from(result.data.buffer, 0, result.data.byteLength));
  console.log(JSON.stringify({ dims: result.dims, milliseconds: performance.now() - start }));
}

main(process.argv.slice(2));
