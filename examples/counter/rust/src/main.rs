//! counter counts seconds for ever: what it has counted is in a store, so that it goes on after a restart, also on
//! another host.

use std::{thread, time::Duration};

fn main() -> wasmatrix::Result<()> {
    let kv = wasmatrix::kv("kv");
    loop {
        println!("count {}", kv.increment("count", 1)?); // an error ends it, and the restart policy tries again
        thread::sleep(Duration::from_secs(1));
    }
}
