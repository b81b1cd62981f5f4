//! What a guest in Rust may ask of the wasmatrix that runs it: keys and values, HTTP, and messages.
//!
//! ```no_run
//! # fn main() -> wasmatrix::Result<()> {
//! let kv = wasmatrix::kv("kv");
//! let visits = kv.increment("visits", 1)?;
//! if let Some(greeting) = kv.get("greeting")? { /* … */ }
//!
//! let page = wasmatrix::http("http").get("https://example.com/").send()?;
//! println!("{}", page.status());
//!
//! for job in wasmatrix::messaging("messaging").subscribe("jobs.*")? {
//!     job?.reply(b"done")?;
//! }
//! # Ok(()) }
//! ```
//!
//! Each is reached by the id of a capability, and only as far as this instance is granted it:
//! `wasmatrix run --capability kv=kv:read,kv:write guest.wasm`. Grants may change while the guest runs.
//!
//! Guests are built for `wasm32-wasip1` (`wasm32-wasi` before Rust 1.78). A call holds the guest's one thread until it is
//! answered. The crate has no dependencies.
#![deny(missing_docs)]

mod error;
mod http;
mod imports;
mod kv;
mod messaging;

pub use error::{Error, Result, Status};
pub use http::{http, Body, Request, Response, Web};
pub use kv::{kv, Entry, Keys, Set, Store};
pub use messaging::{dropped, messaging, receive, Bus, Message, Subscription};
