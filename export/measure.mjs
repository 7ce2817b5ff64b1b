// Logits and times of ONNX Runtime Web, in Node and in browsers alike. In Node:
// `node measure.mjs MODEL TILES COUNT SIDE BATCH`, where TILES holds COUNT tiles of SIDE x SIDE RGB bytes; prints JSON.

export async function measure(ort, model, pixels, count, side, batchSize) {
  const session = await ort.InferenceSession.create(model);
  const length = side * side * 3;
  const classify = async (start) => {
    const number = Math.min(batchSize, count - start);
    const part = pixels.slice(start * length, (start + number) * length);
    const { logits } = await session.run({ image: new ort.Tensor("uint8", part, [number, side, side, 3]) });
    return Array.from(logits.data);
  };
  await classify(0);
  const logits = [];
  const seconds = [];
  for (let start = 0; start < count; start += batchSize) {
    const begin = performance.now();
    logits.push(...(await classify(start)));
    seconds.push((performance.now() - begin) / 1000);
  }
  return { logits, seconds };
}

if (globalThis.process?.argv) {
  const { readFileSync } = await import("node:fs");
  const { default: ort } = await import("onnxruntime-web");
  const [model, tiles, ...numbers] = process.argv.slice(2);
  const answer = await measure(ort, readFileSync(model), new Uint8Array(readFileSync(tiles)), ...numbers.map(Number));
  console.log(JSON.stringify(answer));
}
