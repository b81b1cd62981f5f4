//! Uses most of the SDK, and prints what comes of it. Its like in other languages prints the same.

use std::{env, io::Write, time::Duration};
use wasmatrix::Status;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kv = wasmatrix::kv("kv");
    println!("absent {}", kv.get("b")?.is_none());
    let revision = kv.write("b", "one").ttl(Duration::from_secs(60)).if_absent().send()?;
    let twice = kv.write("b", "two").if_absent().send().unwrap_err();
    println!("set {} {}", revision, twice.status() == Status::Conflict);
    kv.write("b", "three").if_revision(revision).send()?;
    let e = kv.read("b")?.unwrap();
    println!("read {} {}", String::from_utf8(e.value)?, e.revision);
    let sum = kv.increment("n", 41)?;
    println!("sum {} {}", sum, kv.exists("n")?);
    kv.set("a", "")?;
    let keys: wasmatrix::Result<Vec<_>> = kv.keys("").collect();
    println!("keys {}", keys?.join(" "));
    println!("deleted {} {}", kv.delete("a")?, kv.delete("a")?);
    println!("denied {}", kv.bucket("other").get("b").unwrap_err());

    let url = env::args().nth(1).unwrap() + "/echo";
    let mut body = wasmatrix::http("http").request("POST", &url).header("X-Ask", "why?").limit(Duration::from_secs(20)).stream()?;
    body.write_all(&[b'x'; 100_000])?;
    let page = body.send()?;
    println!("posted {} {} {}", page.status(), page.header("x-asked").unwrap_or_default().to_string(), page.bytes()?.len());

    let bus = wasmatrix::messaging("messaging");
    let nobody = bus.request("s.x", "", Duration::from_secs(1)).unwrap_err();
    println!("nobody {}", nobody.status() == Status::Unavailable);
    let sub = bus.subscribe_each("s.*")?;
    let nothing = sub.receive(Some(Duration::from_millis(1))).unwrap_err();
    println!("nothing {}", nothing.status() == Status::Timeout);
    bus.publish("s.x", "hello")?;
    let m = wasmatrix::receive(Some(Duration::from_secs(1)))?;
    println!("received {} {} {} {}", m.subject, String::from_utf8(m.data)?, m.expects_reply, m.subscription == sub.id());
    println!("dropped {} true true", wasmatrix::dropped()?);
    Ok(())
}
