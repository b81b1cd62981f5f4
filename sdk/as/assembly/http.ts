import { http_open, http_write, http_send, http_read, http_close } from "./imports";
import { at, called, items, list, result, utf8, Result } from "./result";

/** Makes the HTTP requests that a capability allows, at most 16 at once. */
export class HTTP {
  constructor(private capability: string) {}

  /** Asks for a URL. Close the response. */
  get(url: string): Result<Response> {
    return new Request("GET", url).send(this.capability);
  }

  /** Makes a request. Close the response. */
  send(request: Request, body: ArrayBuffer = new ArrayBuffer(0)): Result<Response> {
    return request.send(this.capability, body);
  }
}

/** A request. Redirects are followed by the provider, which asks at each whether the grant allows the host. */
export class Request {
  private header: string[] = [];
  /** Bounds the time of all of it, the answer's body included; 0 for the provider's own. */
  limit_ms: i64 = 0;

  constructor(
    public method: string,
    public url: string,
  ) {}

  /** Adds a line to the header. */
  set(name: string, value: string): Request {
    this.header.push(name);
    this.header.push(value);
    return this;
  }

  send(capability: string, body: ArrayBuffer = new ArrayBuffer(0)): Result<Response> {
    const id = utf8(capability);
    const method = utf8(this.method);
    const url = utf8(this.url);
    const header = list(this.header);
    const request = http_open(at(id), id.byteLength, at(method), method.byteLength, at(url), url.byteLength, at(header), header.byteLength, body.byteLength, this.limit_ms);
    const response = new Response(request);
    if (request < 0) return called<Response>(request, response);
    let n: i32 = 0;
    if (body.byteLength > 0) n = http_write(request, at(body), body.byteLength);
    if (n >= 0) n = http_send(request);
    if (n < 0) http_close(request); // leaves the message of what failed
    else response.answered(n, items(result()));
    return called<Response>(n, response);
  }
}

/** An answer. Read its body, and close it. */
export class Response {
  /** What was answered, such as 200. */
  status: i32 = 0;
  /** Names and values, one after the other. */
  header: string[] = [];

  constructor(private request: i32) {}

  answered(status: i32, fields: ArrayBuffer[]): void {
    this.status = status;
    for (let n = 0; n < fields.length; n++) this.header.push(String.UTF8.decode(fields[n]));
  }

  /** The first line of the header that has this name, in any case of its letters; else "". */
  get(name: string): string {
    for (let n = 0; n + 1 < this.header.length; n += 2) {
      if (this.header[n].toLowerCase() == name.toLowerCase()) return this.header[n + 1];
    }
    return "";
  }

  /** Reads a part of the body into a buffer and returns its length, 0 at the end. */
  read(to: ArrayBuffer): Result<i32> {
    const n = http_read(this.request, at(to), to.byteLength);
    return called<i32>(n, n);
  }

  /** Reads all of the body that is left, as text. */
  text(): Result<string> {
    const part = new ArrayBuffer(16384);
    let all = new ArrayBuffer(0);
    let n = http_read(this.request, at(part), part.byteLength);
    while (n > 0) {
      const more = new ArrayBuffer(all.byteLength + n);
      memory.copy(at(more), at(all), all.byteLength);
      memory.copy(at(more) + all.byteLength, at(part), n);
      all = more;
      n = http_read(this.request, at(part), part.byteLength);
    }
    return called<string>(n, n < 0 ? "" : String.UTF8.decode(all));
  }

  /** Ends the request. */
  close(): void {
    http_close(this.request);
  }
}
