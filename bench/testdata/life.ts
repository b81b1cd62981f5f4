// Plays the game of life on a torus, and prints how many live in the end. The argument is how many generations.
import { args, print } from "wasmatrix/assembly";

const SIDE = 256;

function next(now: StaticArray<u8>, then: StaticArray<u8>): void {
  for (let y = 0; y < SIDE; y++) {
    const above = ((y + SIDE - 1) % SIDE) * SIDE, here = y * SIDE, below = ((y + 1) % SIDE) * SIDE;
    for (let x = 0; x < SIDE; x++) {
      const left = (x + SIDE - 1) % SIDE, right = (x + 1) % SIDE;
      const near = now[above + left] + now[above + x] + now[above + right] + now[here + left] + now[here + right] +
        now[below + left] + now[below + x] + now[below + right];
      then[here + x] = near == 3 || (near == 2 && now[here + x]) ? 1 : 0;
    }
  }
}

let now = new StaticArray<u8>(SIDE * SIDE), then = new StaticArray<u8>(SIDE * SIDE);
let seed: u32 = 1;
for (let i = 0; i < now.length; i++) {
  seed = seed * 1664525 + 1013904223;
  now[i] = <u8>(seed >> 31);
}
const given = args();
for (let n: i64 = given.length > 0 ? I64.parseInt(given[0]) : 1; n > 0; n--) {
  next(now, then);
  const spare = now;
  now = then;
  then = spare;
}
let alive = 0;
for (let i = 0; i < now.length; i++) alive += now[i];
print(alive.toString());
