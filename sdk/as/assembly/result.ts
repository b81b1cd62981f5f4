import { result_len, result_read, result_number } from "./imports";

/** How a call ended. The numbers are those of docs/guest-abi.md. */
export enum Status {
  OK = 0,
  InvalidRequest = -1, // the arguments make no sense
  UnknownGrant = -2, // this instance has no grant of that capability
  PermissionDenied = -3, // its grant does not allow this
  Unavailable = -4, // the provider does not serve now
  Timeout = -5, // no outcome in time; a write may have been done
  NotFound = -6, // there is no such key
  Conflict = -7, // the key is not at that revision
  Exhausted = -8, // too large, or too many
  Internal = -9, // a fault on the other side
}

/** What a call came to. */
export class Result<T> {
  /** Why it came to nothing; empty where it did not. */
  error: string = "";

  constructor(
    public status: Status,
    /** What was asked for, where ok. */
    public value: T,
  ) {
    if (status < 0) this.error = message();
  }

  get ok(): bool {
    return this.status >= 0;
  }
}

/** Makes a result of what an import returned. */
export function called<T>(returned: i32, value: T): Result<T> {
  return new Result<T>(returned < 0 ? returned : Status.OK, value);
}

/** The result of the call before. */
export function result(): ArrayBuffer {
  const bytes = new ArrayBuffer(result_len());
  result_read(changetype<usize>(bytes), 0, bytes.byteLength);
  return bytes;
}

/** The number beside the result of the call before. */
export function number(): i64 {
  return result_number();
}

function message(): string {
  return String.UTF8.decode(result());
}

/** Reads a list: each item is its length in 4 bytes, little-endian, and its bytes. */
export function items(list: ArrayBuffer): ArrayBuffer[] {
  const all: ArrayBuffer[] = [];
  let at = 0;
  while (at + 4 <= list.byteLength) {
    const len = load<u32>(changetype<usize>(list) + at);
    all.push(list.slice(at + 4, at + 4 + len));
    at += 4 + len;
  }
  return all;
}

/** Makes a list of strings. */
export function list(strings: string[]): ArrayBuffer {
  let size = 0;
  for (let n = 0; n < strings.length; n++) size += 4 + String.UTF8.byteLength(strings[n]);
  const bytes = new ArrayBuffer(size);
  let at = changetype<usize>(bytes);
  for (let n = 0; n < strings.length; n++) {
    const item = utf8(strings[n]);
    store<u32>(at, item.byteLength);
    memory.copy(at + 4, changetype<usize>(item), item.byteLength);
    at += 4 + item.byteLength;
  }
  return bytes;
}

export function utf8(s: string): ArrayBuffer {
  return String.UTF8.encode(s);
}

/** The address of bytes, as an import takes it. Keep them in a variable until it has returned. */
// @ts-ignore: decorator
@inline
export function at(bytes: ArrayBuffer): usize {
  return changetype<usize>(bytes);
}
