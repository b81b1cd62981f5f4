// workers is a pool: each worker answers some of the jobs, and a producer sends them and prints the answers.
//
//   workers work         reverses the text of jobs
//   workers send TEXT... sends jobs
import { Messaging, Result, Status, args, eprint, exit, print } from "wasmatrix/assembly";

const bus = new Messaging("messaging");

function must<T>(r: Result<T>): T {
  if (!r.ok) {
    eprint(r.error);
    exit(1);
  }
  return r.value;
}

// Answers jobs. Instances of one name share them.
function work(): void {
  const jobs = must(bus.subscribe("jobs.reverse"));
  print("ready");
  for (;;) {
    const received = jobs.receive();
    if (received.status == Status.Timeout) continue;
    const job = must(received);
    print(`job ${job.text}`);
    if (job.expectsReply) must(job.reply(job.text.split("").reverse().join("")));
  }
}

function send(jobs: string[]): void {
  for (let n = 0; n < jobs.length; n++) {
    const answer = must(bus.request("jobs.reverse", jobs[n]));
    print(`${jobs[n]} -> ${answer}`);
  }
}

const words = args();
if (words.length == 1 && words[0] == "work") work();
else if (words.length > 1 && words[0] == "send") send(words.slice(1));
else {
  eprint("usage: workers work | workers send TEXT...");
  exit(1);
}
