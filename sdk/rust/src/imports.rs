//! The imports of docs/guest-abi.md. A string is passed as a pointer and a length.

use std::time::Duration;

#[rustfmt::skip]
#[link(wasm_import_module = "wasmatrix")]
extern "C" {
    pub fn result_len() -> i32;
    pub fn result_read(to: *mut u8, from: u32, len: u32) -> i32;
    pub fn result_number() -> i64;

    pub fn kv_get(capability: *const u8, capability_len: u32, bucket: *const u8, bucket_len: u32, key: *const u8, key_len: u32) -> i32;
    pub fn kv_exists(capability: *const u8, capability_len: u32, bucket: *const u8, bucket_len: u32, key: *const u8, key_len: u32) -> i32;
    pub fn kv_set(capability: *const u8, capability_len: u32, bucket: *const u8, bucket_len: u32, key: *const u8, key_len: u32, value: *const u8, value_len: u32, ttl_ms: i64, if_revision: i64) -> i32;
    pub fn kv_delete(capability: *const u8, capability_len: u32, bucket: *const u8, bucket_len: u32, key: *const u8, key_len: u32, if_revision: i64) -> i32;
    pub fn kv_increment(capability: *const u8, capability_len: u32, bucket: *const u8, bucket_len: u32, key: *const u8, key_len: u32, by: i64) -> i32;
    pub fn kv_list(capability: *const u8, capability_len: u32, bucket: *const u8, bucket_len: u32, prefix: *const u8, prefix_len: u32, after: *const u8, after_len: u32, limit: i32) -> i32;

    pub fn http_open(capability: *const u8, capability_len: u32, method: *const u8, method_len: u32, url: *const u8, url_len: u32, header: *const u8, header_len: u32, body_len: i64, limit_ms: i64) -> i32;
    pub fn http_write(request: i32, data: *const u8, data_len: u32) -> i32;
    pub fn http_send(request: i32) -> i32;
    pub fn http_read(request: i32, to: *mut u8, len: u32) -> i32;
    pub fn http_close(request: i32) -> i32;

    pub fn msg_publish(capability: *const u8, capability_len: u32, subject: *const u8, subject_len: u32, data: *const u8, data_len: u32) -> i32;
    pub fn msg_request(capability: *const u8, capability_len: u32, subject: *const u8, subject_len: u32, data: *const u8, data_len: u32, timeout_ms: i64) -> i32;
    pub fn msg_reply(data: *const u8, data_len: u32) -> i32;
    pub fn msg_subscribe(capability: *const u8, capability_len: u32, subject: *const u8, subject_len: u32, flags: u32) -> i32;
    pub fn msg_unsubscribe(subscription: u32) -> i32;
    pub fn msg_receive(subscription: u32, timeout_ms: i64) -> i32;
    pub fn msg_dropped() -> i32;
}

/// Calls an import. `&x` is passed as a pointer and a length, `=x` as it is.
macro_rules! call {
    (@ $name:ident [$($done:expr,)*]) => {
        // Sound: the host reads and writes only what these say, during the call.
        $crate::error::called(unsafe { $crate::imports::$name($($done),*) })
    };
    (@ $name:ident [$($done:expr,)*] & $arg:expr $(, $($rest:tt)*)?) => {
        $crate::imports::call!(@ $name [$($done,)* AsRef::<[u8]>::as_ref(&$arg).as_ptr(), AsRef::<[u8]>::as_ref(&$arg).len() as u32,] $($($rest)*)?)
    };
    (@ $name:ident [$($done:expr,)*] = $arg:expr $(, $($rest:tt)*)?) => {
        $crate::imports::call!(@ $name [$($done,)* $arg,] $($($rest)*)?)
    };
    ($name:ident $($args:tt)*) => { $crate::imports::call!(@ $name [] $($args)*) };
}
pub(crate) use call;

/// The result of the call before.
pub fn result() -> Vec<u8> {
    let len = unsafe { result_len() } as usize;
    let mut bytes = vec![0; len];
    let read = unsafe { result_read(bytes.as_mut_ptr(), 0, len as u32) };
    bytes.truncate(read.max(0) as usize);
    bytes
}

/// The number beside the result of the call before.
pub fn number() -> i64 {
    unsafe { result_number() }
}

/// Reads a list: each item is its length in 4 bytes, little-endian, and its bytes.
pub fn items(mut list: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while list.len() >= 4 {
        let (head, rest) = list.split_at(4);
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (item, rest) = rest.split_at(len);
        all.push(item);
        list = rest;
    }
    all
}

pub fn append_item(list: &mut Vec<u8>, item: &[u8]) {
    list.extend_from_slice(&(item.len() as u32).to_le_bytes());
    list.extend_from_slice(item);
}

/// Rounds up, so that something short is not for ever.
pub fn milliseconds(d: Duration) -> i64 {
    let ms = (d.as_nanos() + 999_999) / 1_000_000;
    i64::try_from(ms).unwrap_or(i64::MAX)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
