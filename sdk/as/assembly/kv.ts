import { kv_get, kv_exists, kv_set, kv_delete, kv_increment, kv_list } from "./imports";
import { at, called, items, number, result, utf8, Result } from "./result";

/** Write whatever is there. */
export const ANY_REVISION: i64 = -1;
/** Write only where there is no such key; else Status.Conflict. */
export const ABSENT: i64 = 0;

/** What a key holds. */
export class Entry {
  constructor(
    public bytes: ArrayBuffer,
    /** Raised with each write of the key; never 0. */
    public revision: i64,
  ) {}

  get text(): string {
    return String.UTF8.decode(this.bytes);
  }
}

/** A page of keys. */
export class Keys {
  constructor(
    public keys: string[],
    /** Whether there are more after the last of them. */
    public more: bool,
  ) {}
}

/** A bucket of keys and values: the instance's own, which it shares with the instances of its name, or another one. */
export class KV {
  private id: ArrayBuffer;
  private bucket: ArrayBuffer;

  constructor(capability: string, bucket: string = "") {
    this.id = utf8(capability);
    this.bucket = utf8(bucket);
  }

  /** What a key holds, or Status.NotFound. */
  get(key: string): Result<Entry> {
    const k = utf8(key);
    const n = kv_get(at(this.id), this.id.byteLength, at(this.bucket), this.bucket.byteLength, at(k), k.byteLength);
    return called<Entry>(n, new Entry(n < 0 ? new ArrayBuffer(0) : result(), n < 0 ? 0 : number()));
  }

  /** Whether there is such a key. */
  exists(key: string): Result<bool> {
    const k = utf8(key);
    const n = kv_exists(at(this.id), this.id.byteLength, at(this.bucket), this.bucket.byteLength, at(k), k.byteLength);
    return called<bool>(n, n > 0);
  }

  /** Writes text and returns the key's new revision. */
  set(key: string, value: string, ttl_ms: i64 = 0, revision: i64 = ANY_REVISION): Result<i64> {
    return this.setBytes(key, utf8(value), ttl_ms, revision);
  }

  /** Writes bytes that live so long, 0 for ever, if the key is at a revision, and returns its new one. */
  setBytes(key: string, value: ArrayBuffer, ttl_ms: i64 = 0, revision: i64 = ANY_REVISION): Result<i64> {
    const k = utf8(key);
    const n = kv_set(at(this.id), this.id.byteLength, at(this.bucket), this.bucket.byteLength, at(k), k.byteLength, at(value), value.byteLength, ttl_ms, revision);
    return called<i64>(n, number());
  }

  /** Removes a key, if it is at a revision, and says whether it was there. */
  delete(key: string, revision: i64 = ANY_REVISION): Result<bool> {
    const k = utf8(key);
    const n = kv_delete(at(this.id), this.id.byteLength, at(this.bucket), this.bucket.byteLength, at(k), k.byteLength, revision);
    return called<bool>(n, n > 0);
  }

  /** Adds to a number, kept as decimal text, in one step, and returns the sum. A key that is not there counts as 0. */
  increment(key: string, by: i64): Result<i64> {
    const k = utf8(key);
    const n = kv_increment(at(this.id), this.id.byteLength, at(this.bucket), this.bucket.byteLength, at(k), k.byteLength, by);
    return called<i64>(n, number());
  }

  /** At most limit keys (0 for 1000, which is the most) with a prefix that come after a key in the order of their bytes. */
  list(prefix: string = "", after: string = "", limit: i32 = 0): Result<Keys> {
    const p = utf8(prefix);
    const a = utf8(after);
    const n = kv_list(at(this.id), this.id.byteLength, at(this.bucket), this.bucket.byteLength, at(p), p.byteLength, at(a), a.byteLength, limit);
    const keys: string[] = [];
    if (n < 0) return called<Keys>(n, new Keys(keys, false));
    const more = number() != 0;
    const found = items(result());
    for (let i = 0; i < found.length; i++) keys.push(String.UTF8.decode(found[i]));
    return called<Keys>(n, new Keys(keys, more));
  }
}
