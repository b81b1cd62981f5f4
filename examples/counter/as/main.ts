// counter counts seconds for ever: what it has counted is in a store, so that it goes on after a restart, also on
// another host.
import { KV, eprint, exit, print, sleep } from "wasmatrix/assembly";

const kv = new KV("kv");
for (;;) {
  const count = kv.increment("count", 1);
  if (!count.ok) {
    eprint(count.error);
    exit(1); // and the restart policy tries again
  }
  print(`count ${count.value}`);
  sleep(1000);
}
