use std::io::{self, Read, Write};
use std::time::Duration;

use crate::imports::{append_item, call, items, milliseconds, result, text};
use crate::Result;

/// Makes HTTP requests to other hosts.
#[derive(Debug, Clone)]
pub struct Web {
    capability: String,
}

/// What makes the requests that a capability allows, at most 16 at once.
pub fn http(capability: &str) -> Web {
    Web {
        capability: capability.to_string(),
    }
}

impl Web {
    /// Begins a request without a body.
    pub fn get(&self, url: &str) -> Request {
        self.request("GET", url)
    }

    /// Begins a request of any method.
    pub fn request(&self, method: &str, url: &str) -> Request {
        Request {
            capability: self.capability.clone(),
            method: method.to_string(),
            url: url.to_string(),
            header: Vec::new(),
            limit: 0,
        }
    }
}

/// A request that has not been made yet. Redirects are followed by the provider, which asks at each whether the grant allows
/// the host.
#[derive(Debug, Clone)]
pub struct Request {
    capability: String,
    method: String,
    url: String,
    header: Vec<u8>,
    limit: i64,
}

impl Request {
    /// Adds a line to the header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        append_item(&mut self.header, name.as_bytes());
        append_item(&mut self.header, value.as_bytes());
        self
    }

    /// Bounds the time of all of it, the answer's body included.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = milliseconds(limit).max(1);
        self
    }

    /// Makes the request without a body.
    pub fn send(self) -> Result<Response> {
        self.open(0)?.answer()
    }

    /// Makes the request with a body.
    pub fn send_body(self, body: impl AsRef<[u8]>) -> Result<Response> {
        let body = body.as_ref();
        let exchange = self.open(body.len() as i64)?;
        if !body.is_empty() {
            exchange.write(body)?;
        }
        exchange.answer()
    }

    /// Begins a body whose length is not known.
    pub fn stream(self) -> Result<Body> {
        Ok(Body(self.open(-1)?))
    }

    fn open(&self, length: i64) -> Result<Exchange> {
        call!(http_open & self.capability, &self.method, &self.url, &self.header, = length, = self.limit).map(Exchange)
    }
}

/// A request that is open, by its number.
#[derive(Debug)]
struct Exchange(i32);

impl Exchange {
    fn write(&self, data: &[u8]) -> Result<usize> {
        Ok(call!(http_write = self.0, &data)? as usize)
    }

    fn answer(self) -> Result<Response> {
        let status = call!(http_send = self.0)? as u16;
        let fields = result();
        let fields = items(&fields);
        let header = fields
            .chunks_exact(2)
            .map(|f| (text(f[0]), text(f[1])))
            .collect();
        Ok(Response {
            exchange: self,
            status,
            header,
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let _ = call!(http_close = self.0); // which can't fail
    }
}

/// The body of a request, which is being written.
#[derive(Debug)]
pub struct Body(Exchange);

impl Body {
    /// Ends the body and waits for the answer.
    pub fn send(self) -> Result<Response> {
        self.0.answer()
    }
}

impl Write for Body {
    /// Less than all is taken where the server wants no more; its answer says why.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(self.0.write(data)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An answer. Read its body from it.
#[derive(Debug)]
pub struct Response {
    exchange: Exchange,
    status: u16,
    header: Vec<(String, String)>,
}

impl Response {
    /// What was answered, such as 200.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first line of the header that has this name, in any case of its letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All lines of the header.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.header
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All of the body.
    pub fn bytes(mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        self.read_to_end(&mut all)?;
        Ok(all)
    }
}

impl Read for Response {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        Ok(call!(http_read = self.exchange.0, = to.as_mut_ptr(), = to.len() as u32)? as usize)
    }
}
