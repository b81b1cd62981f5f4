// work computes in many ways, prints what comes of it, and ends with what its argument says: "trap" by a trap deep in its calls,
// "exit" with an exit code.
import { args, exit, print } from "wasmatrix/assembly";

class Leaf {
  parts: Leaf[] = [];
  constructor(public name: string) {}
}

function grow(depth: i32, name: string): Leaf {
  const leaf = new Leaf(name);
  for (let n = 0; n < 3 && depth > 0; n++) leaf.parts.push(grow(depth - 1, name + "." + n.toString()));
  return leaf;
}

function length(leaf: Leaf): i32 {
  let sum = leaf.name.length;
  for (let n = 0; n < leaf.parts.length; n++) sum += length(leaf.parts[n]);
  return sum;
}

// @ts-ignore: decorator
@inline(false)
function descend(depth: i32, by: StaticArray<i32>): i32 {
  if (depth == 0) return 7 / by[0];
  return descend(depth - 1, by) + 1;
}

print(`tree: ${length(grow(7, "root"))}`);
const counts = new Map<string, i32>();
for (let n = 0; n < 10000; n++) {
  const key = `key ${(n * 7919) % 311}`;
  counts.set(key, (counts.has(key) ? counts.get(key) : 0) + n);
}
print(`counts: ${counts.size} ${counts.get("key 5")}`);
const numbers: f64[] = [];
for (let n = 0; n < 5000; n++) numbers.push(Math.sin(n));
numbers.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
print(`sines: ${numbers[0]} ${numbers[2500]}`);
print(`text: ${"the quick brown fox ".repeat(500).split(" ").reverse().join("-").length}`);
const words = args();
if (words.length > 0 && words[0] == "exit") exit(3);
if (words.length > 0 && words[0] == "trap") print(descend(20, new StaticArray<i32>(1)).toString());
