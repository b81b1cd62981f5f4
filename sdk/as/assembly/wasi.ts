// The little of WASI that a guest needs to print, to sleep and to end.

@external("wasi_snapshot_preview1", "fd_write") declare function fd_write(fd: i32, parts: usize, n: i32, written: usize): i32;
@external("wasi_snapshot_preview1", "args_sizes_get") declare function args_sizes_get(count: usize, size: usize): i32;
@external("wasi_snapshot_preview1", "args_get") declare function args_get(args: usize, bytes: usize): i32;
@external("wasi_snapshot_preview1", "poll_oneoff") declare function poll_oneoff(subscriptions: usize, events: usize, n: i32, count: usize): i32;
@external("wasi_snapshot_preview1", "proc_exit") declare function proc_exit(code: i32): void;

function write(fd: i32, text: string): void {
  const bytes = String.UTF8.encode(text + "\n");
  const part = memory.data(12); // address, length, and how much was written
  store<u32>(part, changetype<usize>(bytes));
  store<u32>(part, bytes.byteLength, 4);
  fd_write(fd, part, 1, part + 8);
}

/** Prints a line on stdout. */
export function print(line: string): void {
  write(1, line);
}

/** Prints a line on stderr. */
export function eprint(line: string): void {
  write(2, line);
}

/** The arguments, without the program's own name. */
export function args(): string[] {
  const sizes = memory.data(8);
  args_sizes_get(sizes, sizes + 4);
  const count = load<u32>(sizes);
  const pointers = new ArrayBuffer(4 * count);
  const bytes = new ArrayBuffer(load<u32>(sizes, 4));
  args_get(changetype<usize>(pointers), changetype<usize>(bytes));
  const all: string[] = [];
  for (let n: u32 = 1; n < count; n++) {
    all.push(String.UTF8.decodeUnsafe(load<u32>(changetype<usize>(pointers) + 4 * n), bytes.byteLength, true));
  }
  return all;
}

/** Ends the guest. */
export function exit(code: i32): void {
  proc_exit(code);
}

/** Sleeps. */
export function sleep(ms: i64): void {
  const subscription = memory.data(48); // wasi's subscription of a monotonic clock
  const event = memory.data(36); // and 4 bytes for how many happened
  memory.fill(subscription, 0, 48);
  store<u32>(subscription, 1, 16);
  store<u64>(subscription, ms * 1000000, 24);
  poll_oneoff(subscription, event, 1, event + 32);
}

/** What the compiler calls where a check fails: build with --use abort=~lib/wasmatrix/assembly/wasi/abort. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  eprint((message ? message : "abort") + " at " + (file ? file : "?") + ":" + line.toString() + ":" + column.toString());
  unreachable();
}
