import { msg_publish, msg_request, msg_reply, msg_subscribe, msg_unsubscribe, msg_receive, msg_dropped } from "./imports";
import { at, called, items, number, result, utf8, Result } from "./result";

/** To wait as long as the instance runs. */
export const FOREVER: i64 = -1;

/** Passes messages on, at most once each, between those who are there. */
export class Messaging {
  private id: ArrayBuffer;

  constructor(capability: string) {
    this.id = utf8(capability);
  }

  /** Sends text to whoever subscribes to the subject. */
  publish(subject: string, text: string): Result<bool> {
    return this.publishBytes(subject, utf8(text));
  }

  publishBytes(subject: string, data: ArrayBuffer): Result<bool> {
    const s = utf8(subject);
    const n = msg_publish(at(this.id), this.id.byteLength, at(s), s.byteLength, at(data), data.byteLength);
    return called<bool>(n, n >= 0);
  }

  /** Sends text and waits for one answer, for so long at the most. Status.Unavailable where nobody subscribes. */
  request(subject: string, text: string, timeout_ms: i64 = 5000): Result<string> {
    const data = utf8(text);
    const s = utf8(subject);
    const n = msg_request(at(this.id), this.id.byteLength, at(s), s.byteLength, at(data), data.byteLength, timeout_ms);
    return called<string>(n, n < 0 ? "" : String.UTF8.decode(result()));
  }

  /**
   * Begins to receive what is sent to a subject, in which * is any one token and > all that follow. The instances of one
   * name share the messages, unless each is to have all.
   */
  subscribe(subject: string, each: bool = false): Result<Subscription> {
    const s = utf8(subject);
    const n = msg_subscribe(at(this.id), this.id.byteLength, at(s), s.byteLength, each ? 1 : 0);
    return called<Subscription>(n, new Subscription(n < 0 ? 0 : <u32>number()));
  }
}

/** A message that was received. */
export class Message {
  constructor(
    public subject: string,
    public bytes: ArrayBuffer,
    /** Whether the sender waits for an answer. */
    public expectsReply: bool,
    /** The number of the subscription by which it came. */
    public subscription: u32,
  ) {}

  get text(): string {
    return String.UTF8.decode(this.bytes);
  }

  /** Answers the message. It must be the one that was received last. */
  reply(text: string): Result<bool> {
    const data = utf8(text);
    const n = msg_reply(at(data), data.byteLength);
    return called<bool>(n, n >= 0);
  }
}

/** What comes by one subject. */
export class Subscription {
  constructor(public id: u32) {}

  /** Waits for the next message; Status.Timeout when none came in time. */
  receive(timeout_ms: i64 = FOREVER): Result<Message> {
    const n = msg_receive(this.id, timeout_ms);
    if (n < 0) return called<Message>(n, new Message("", new ArrayBuffer(0), false, 0));
    const parts = items(result());
    return called<Message>(n, new Message(String.UTF8.decode(parts[0]), parts[1], n > 0, <u32>number()));
  }

  /** Ends it, and drops what came by it and was not received. */
  unsubscribe(): Result<bool> {
    const n = msg_unsubscribe(this.id);
    return called<bool>(n, n >= 0);
  }
}

/** How many messages were dropped, since this instance did not receive the ones before. */
export function dropped(): Result<i64> {
  const n = msg_dropped();
  return called<i64>(n, number());
}
