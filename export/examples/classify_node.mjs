// Classify a PNG with ONNX Runtime Web in Node: `node classify_node.mjs pathmnist.onnx tile.png`, after `npm ci` in export/.
import { readFileSync } from "node:fs";
import ort from "onnxruntime-web";
import { PNG } from "pngjs";

const file = readFileSync(process.argv[3]);
const { data, width, height, depth } = PNG.sync.read(file);
// pngjs ignores what these chunks say; the server turns the picture and converts its colours to sRGB.
const foreign = ["iCCP", "cICP", "eXIf", "acTL", ...(file.includes("sRGB") ? [] : ["gAMA", "cHRM"])];
const transparent = data.some((value, index) => index % 4 === 3 && value < 255);
if (depth > 8 || transparent || foreign.some((chunk) => file.includes(chunk))) {
  console.error("This example reads one PNG: upright, in sRGB, 8 bits a channel, no transparency.");
  process.exit(1);
}
const codes = "ADI BACK DEB LYM MUC MUS NORM STR TUM".split(" ");
const session = await ort.InferenceSession.create(readFileSync(process.argv[2]));
const rgb = Uint8Array.from(data.filter((_, index) => index % 4 < 3));
const { probabilities } = await session.run({ image: new ort.Tensor("uint8", rgb, [1, height, width, 3]) });
const best = probabilities.data.indexOf(Math.max(...probabilities.data));
console.log(codes[best], probabilities.data[best]);
