// What a guest in AssemblyScript may ask of the wasmatrix that runs it: keys and values, HTTP, and messages.
//
//   import { KV, print } from "wasmatrix/assembly";
//
//   const kv = new KV("kv");
//   const visits = kv.increment("visits", 1);
//   if (visits.ok) print(`${visits.value} visits`);
//   else print(visits.error);
//
// AssemblyScript has no exceptions, so each call returns a Result: look at ok, or at status, before its value.
// A call holds the guest's one thread until it is answered. docs/guests.md tells how to build and run a guest.
export { Status, Result } from "./result";
export { KV, Entry, Keys, ANY_REVISION, ABSENT } from "./kv";
export { HTTP, Request, Response } from "./http";
export { Messaging, Subscription, Message, FOREVER, dropped } from "./messaging";
export { print, eprint, args, exit, sleep, abort } from "./wasi";
