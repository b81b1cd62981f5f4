// Uses most of the SDK, and prints what comes of it. Its like in other languages prints the same.
import { ABSENT, HTTP, KV, Messaging, Request, Status, Subscription, args, dropped, print } from "wasmatrix/assembly";

const kv = new KV("kv");
print(`absent ${kv.get("b").status == Status.NotFound}`);
const revision = kv.set("b", "one", 60000, ABSENT).value;
print(`set ${revision} ${kv.set("b", "two", 0, ABSENT).status == Status.Conflict}`);
kv.set("b", "three", 0, revision);
const e = kv.get("b").value;
print(`read ${e.text} ${e.revision}`);
const sum = kv.increment("n", 41);
print(`sum ${sum.value} ${kv.exists("n").value}`);
kv.set("a", "");
print(`keys ${kv.list().value.keys.join(" ")}`);
const gone = kv.delete("a").value;
print(`deleted ${gone} ${kv.delete("a").value}`);
print(`denied ${new KV("kv", "other").get("b").error}`);

const body = new ArrayBuffer(100000);
memory.fill(changetype<usize>(body), 0x78, 100000);
const page = new HTTP("http").send(new Request("POST", args()[0] + "/echo").set("X-Ask", "why?"), body);
if (!page.ok) print(page.error);
print(`posted ${page.value.status} ${page.value.get("x-asked")} ${page.value.text().value.length}`);
page.value.close();

const bus = new Messaging("messaging");
print(`nobody ${bus.request("s.x", "", 1000).status == Status.Unavailable}`);
const sub = bus.subscribe("s.*", true).value;
print(`nothing ${sub.receive(1).status == Status.Timeout}`);
bus.publish("s.x", "hello");
const m = new Subscription(0).receive(1000).value; // of any
print(`received ${m.subject} ${m.text} ${m.expectsReply} ${m.subscription == sub.id}`);
const lost = dropped();
print(`dropped ${lost.value} ${lost.ok} ${sub.unsubscribe().ok}`);
