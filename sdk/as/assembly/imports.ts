// The imports of docs/guest-abi.md. A string is passed as a pointer and a length.

@external("wasmatrix", "result_len") export declare function result_len(): i32;
@external("wasmatrix", "result_read") export declare function result_read(to: usize, from: u32, len: u32): i32;
@external("wasmatrix", "result_number") export declare function result_number(): i64;

@external("wasmatrix", "kv_get") export declare function kv_get(capability: usize, capability_len: u32, bucket: usize, bucket_len: u32, key: usize, key_len: u32): i32;
@external("wasmatrix", "kv_exists") export declare function kv_exists(capability: usize, capability_len: u32, bucket: usize, bucket_len: u32, key: usize, key_len: u32): i32;
@external("wasmatrix", "kv_set") export declare function kv_set(capability: usize, capability_len: u32, bucket: usize, bucket_len: u32, key: usize, key_len: u32, value: usize, value_len: u32, ttl_ms: i64, if_revision: i64): i32;
@external("wasmatrix", "kv_delete") export declare function kv_delete(capability: usize, capability_len: u32, bucket: usize, bucket_len: u32, key: usize, key_len: u32, if_revision: i64): i32;
@external("wasmatrix", "kv_increment") export declare function kv_increment(capability: usize, capability_len: u32, bucket: usize, bucket_len: u32, key: usize, key_len: u32, by: i64): i32;
@external("wasmatrix", "kv_list") export declare function kv_list(capability: usize, capability_len: u32, bucket: usize, bucket_len: u32, prefix: usize, prefix_len: u32, after: usize, after_len: u32, limit: i32): i32;

@external("wasmatrix", "http_open") export declare function http_open(capability: usize, capability_len: u32, method: usize, method_len: u32, url: usize, url_len: u32, header: usize, header_len: u32, body_len: i64, limit_ms: i64): i32;
@external("wasmatrix", "http_write") export declare function http_write(request: i32, data: usize, data_len: u32): i32;
@external("wasmatrix", "http_send") export declare function http_send(request: i32): i32;
@external("wasmatrix", "http_read") export declare function http_read(request: i32, to: usize, len: u32): i32;
@external("wasmatrix", "http_close") export declare function http_close(request: i32): i32;

@external("wasmatrix", "msg_publish") export declare function msg_publish(capability: usize, capability_len: u32, subject: usize, subject_len: u32, data: usize, data_len: u32): i32;
@external("wasmatrix", "msg_request") export declare function msg_request(capability: usize, capability_len: u32, subject: usize, subject_len: u32, data: usize, data_len: u32, timeout_ms: i64): i32;
@external("wasmatrix", "msg_reply") export declare function msg_reply(data: usize, data_len: u32): i32;
@external("wasmatrix", "msg_subscribe") export declare function msg_subscribe(capability: usize, capability_len: u32, subject: usize, subject_len: u32, flags: u32): i32;
@external("wasmatrix", "msg_unsubscribe") export declare function msg_unsubscribe(subscription: u32): i32;
@external("wasmatrix", "msg_receive") export declare function msg_receive(subscription: u32, timeout_ms: i64): i32;
@external("wasmatrix", "msg_dropped") export declare function msg_dropped(): i32;
