//! workers is a pool: each worker answers some of the jobs, and a producer sends them and prints the answers.
//!
//! ```text
//! workers work         reverses the text of jobs
//! workers send TEXT... sends jobs
//! ```

use std::{env, process, time::Duration};

const SUBJECT: &str = "jobs.reverse";

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let bus = wasmatrix::messaging("messaging");
    let done = match args.first().map(String::as_str) {
        Some("work") => work(&bus),
        Some("send") => send(&bus, &args[1..]),
        _ => {
            eprintln!("usage: workers work | workers send TEXT...");
            process::exit(1);
        }
    };
    if let Err(e) = done {
        eprintln!("{}", e);
        process::exit(1);
    }
}

/// Answers jobs. Instances of one name share them.
fn work(bus: &wasmatrix::Bus) -> wasmatrix::Result<()> {
    let jobs = bus.subscribe(SUBJECT)?;
    println!("ready");
    for job in jobs {
        let job = job?;
        let text = String::from_utf8_lossy(&job.data);
        println!("job {}", text);
        if job.expects_reply {
            job.reply(text.chars().rev().collect::<String>())?;
        }
    }
    Ok(())
}

fn send(bus: &wasmatrix::Bus, jobs: &[String]) -> wasmatrix::Result<()> {
    for job in jobs {
        let answer = bus.request(SUBJECT, job, Duration::from_secs(5))?;
        println!("{} -> {}", job, String::from_utf8_lossy(&answer));
    }
    Ok(())
}
