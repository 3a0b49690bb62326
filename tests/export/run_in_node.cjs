// Runs an exported ONNX file by onnxruntime-web in Node.
// usage: node run_in_node.cjs MODEL IMAGE HEIGHT WIDTH CLASSES [REPETITIONS]
// IMAGE has the bytes of a uint8 [1, HEIGHT, WIDTH, 3]; CLASSES receives those of the int32 result.
// Prints the shape of the result and the median time of further runs, with one thread.

"use strict";

const fs = require("node:fs");
const ort = require("onnxruntime-web");

async function main([model, image, height, width, classes, repetitions = 1]) {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(model)), {
    executionProviders: ["wasm"],
  });
  const pixels = new Uint8Array(fs.readFileSync(image));
  const input = new ort.Tensor("uint8", pixels, [1, Number(height), Number(width), 3]);
  const { class_map: result } = await session.run({ image: input });
  fs.writeFileSync(classes, Buffer.from(result.data.buffer, 0, result.data.byteLength));
  const times = [];
  for (let count = 0; count < repetitions; count++) {
    const start = performance.now();
    await session.run({ image: input });
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  const milliseconds = times[Math.floor(times.length / 2)];
  console.log(JSON.stringify({ dims: result.dims, milliseconds }));
}

main(process.argv.slice(2));
