//! fetcher asks for URLs, and prints what each answers and how long that is. What its grant does not allow, it is told.

use std::{env, io};

fn main() {
    let web = wasmatrix::http("http");
    for url in env::args().skip(1) {
        match web.get(&url).send() {
            Err(e) if e.status() == wasmatrix::Status::PermissionDenied => {
                println!("denied: {}", e)
            }
            Err(e) => println!("failed: {}", e),
            Ok(mut page) => match io::copy(&mut page, &mut io::sink()) {
                Ok(size) => println!("{} {} {} bytes", url, page.status(), size),
                Err(e) => println!("broke off: {}", e),
            },
        }
    }
}
