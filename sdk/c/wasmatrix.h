// wasmatrix.h: what a guest in C may ask of the wasmatrix that runs it.
//
//   wm_kv kv = {.capability = "kv"};
//   char value[100];
//   int32_t n = wm_kv_get(kv, "greeting", value, sizeof value);
//   if (n < 0) puts(wm_error(value, sizeof value));
//
// A function returns a status below zero where it fails, else what its comment says, and wm_error then tells
// why. Strings end with a zero byte. The imports themselves, which take lengths, are named wasmatrix_*;
// docs/guest-abi.md explains them. Needs clang, and of its library only memcpy and strlen.
#ifndef WASMATRIX_H
#define WASMATRIX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  WM_OK = 0,
  WM_INVALID_REQUEST = -1,    // the arguments make no sense
  WM_UNKNOWN_GRANT = -2,      // this instance has no grant of that capability
  WM_PERMISSION_DENIED = -3,  // its grant does not allow this
  WM_UNAVAILABLE = -4,        // the provider does not serve now
  WM_TIMEOUT = -5,            // no outcome in time; a write may have been done
  WM_NOT_FOUND = -6,          // there is no such key
  WM_CONFLICT = -7,           // the key is not at that revision
  WM_EXHAUSTED = -8,          // too large, or too many
  WM_INTERNAL = -9,           // a fault on the other side
  WM_INTERRUPTED = -10,       // this instance is being ended
};

#define WM_ANY_REVISION (-1)  // whatever is there
#define WM_ABSENT 0           // only if nothing is there
#define WM_FOREVER (-1)       // to wait

#define WASMATRIX_IMPORT(name) __attribute__((import_module("wasmatrix"), import_name(#name))) extern

WASMATRIX_IMPORT(abi_version) int32_t wasmatrix_abi_version(void);
WASMATRIX_IMPORT(result_len) int32_t wasmatrix_result_len(void);
WASMATRIX_IMPORT(result_read) int32_t wasmatrix_result_read(void *to, uint32_t from, uint32_t len);
WASMATRIX_IMPORT(result_number) int64_t wasmatrix_result_number(void);

WASMATRIX_IMPORT(kv_get) int32_t wasmatrix_kv_get(const char *capability, uint32_t capability_len, const char *bucket, uint32_t bucket_len, const char *key, uint32_t key_len);
WASMATRIX_IMPORT(kv_exists) int32_t wasmatrix_kv_exists(const char *capability, uint32_t capability_len, const char *bucket, uint32_t bucket_len, const char *key, uint32_t key_len);
WASMATRIX_IMPORT(kv_set) int32_t wasmatrix_kv_set(const char *capability, uint32_t capability_len, const char *bucket, uint32_t bucket_len, const char *key, uint32_t key_len, const void *value, uint32_t value_len, int64_t ttl_ms, int64_t if_revision);
WASMATRIX_IMPORT(kv_delete) int32_t wasmatrix_kv_delete(const char *capability, uint32_t capability_len, const char *bucket, uint32_t bucket_len, const char *key, uint32_t key_len, int64_t if_revision);
WASMATRIX_IMPORT(kv_increment) int32_t wasmatrix_kv_increment(const char *capability, uint32_t capability_len, const char *bucket, uint32_t bucket_len, const char *key, uint32_t key_len, int64_t by);
WASMATRIX_IMPORT(kv_list) int32_t wasmatrix_kv_list(const char *capability, uint32_t capability_len, const char *bucket, uint32_t bucket_len, const char *prefix, uint32_t prefix_len, const char *after, uint32_t after_len, int32_t limit);

WASMATRIX_IMPORT(http_open) int32_t wasmatrix_http_open(const char *capability, uint32_t capability_len, const char *method, uint32_t method_len, const char *url, uint32_t url_len, const void *header, uint32_t header_len, int64_t body_len, int64_t limit_ms);
WASMATRIX_IMPORT(http_write) int32_t wasmatrix_http_write(int32_t request, const void *data, uint32_t data_len);
WASMATRIX_IMPORT(http_send) int32_t wasmatrix_http_send(int32_t request);
WASMATRIX_IMPORT(http_read) int32_t wasmatrix_http_read(int32_t request, void *to, uint32_t len);
WASMATRIX_IMPORT(http_close) int32_t wasmatrix_http_close(int32_t request);

WASMATRIX_IMPORT(msg_publish) int32_t wasmatrix_msg_publish(const char *capability, uint32_t capability_len, const char *subject, uint32_t subject_len, const void *data, uint32_t data_len);
WASMATRIX_IMPORT(msg_request) int32_t wasmatrix_msg_request(const char *capability, uint32_t capability_len, const char *subject, uint32_t subject_len, const void *data, uint32_t data_len, int64_t timeout_ms);
WASMATRIX_IMPORT(msg_reply) int32_t wasmatrix_msg_reply(const void *data, uint32_t data_len);
WASMATRIX_IMPORT(msg_subscribe) int32_t wasmatrix_msg_subscribe(const char *capability, uint32_t capability_len, const char *subject, uint32_t subject_len, uint32_t flags);
WASMATRIX_IMPORT(msg_unsubscribe) int32_t wasmatrix_msg_unsubscribe(uint32_t subscription);
WASMATRIX_IMPORT(msg_receive) int32_t wasmatrix_msg_receive(uint32_t subscription, int64_t timeout_ms);
WASMATRIX_IMPORT(msg_dropped) int32_t wasmatrix_msg_dropped(void);

// wm_text expands to a string and its length, as the imports take them.
static inline uint32_t wm_len(const char *s) { return s ? (uint32_t)__builtin_strlen(s) : 0; }
#define WM_TEXT(s) (s), wm_len(s)

// wm_error puts the message of the call that has failed last into to, cut to its size, and returns it.
static inline char *wm_error(char *to, size_t size) {
  if (size == 0) return to;
  int32_t n = wasmatrix_result_read(to, 0, (uint32_t)size - 1);
  to[n < 0 ? 0 : n] = 0;
  return to;
}

// Keys and values.

// wm_kv is a bucket of a store. bucket NULL is the instance's own, which it shares with its replicas.
typedef struct {
  const char *capability, *bucket;
} wm_kv;

#define WM_KV(kv) WM_TEXT((kv).capability), WM_TEXT((kv).bucket)

// wm_kv_get reads a value into to and returns its length, which may be more than size: the rest is cut.
static inline int32_t wm_kv_get(wm_kv kv, const char *key, void *to, size_t size) {
  int32_t n = wasmatrix_kv_get(WM_KV(kv), WM_TEXT(key));
  if (n > 0) {
    int32_t read = wasmatrix_result_read(to, 0, (uint32_t)size);
    if (read < 0) return read;
  }
  return n;
}

// wm_revision returns the revision of the key that the call before was about.
static inline int64_t wm_revision(void) { return wasmatrix_result_number(); }

// wm_kv_exists returns 1 or 0.
static inline int32_t wm_kv_exists(wm_kv kv, const char *key) { return wasmatrix_kv_exists(WM_KV(kv), WM_TEXT(key)); }

// wm_kv_set writes a value.
static inline int32_t wm_kv_set(wm_kv kv, const char *key, const void *value, size_t size) {
  return wasmatrix_kv_set(WM_KV(kv), WM_TEXT(key), value, (uint32_t)size, 0, WM_ANY_REVISION);
}

// wm_kv_set_if writes a value that lives so long, 0 for ever, if the key is at that revision, WM_ABSENT or WM_ANY_REVISION.
static inline int32_t wm_kv_set_if(wm_kv kv, const char *key, const void *value, size_t size, int64_t ttl_ms, int64_t revision) {
  return wasmatrix_kv_set(WM_KV(kv), WM_TEXT(key), value, (uint32_t)size, ttl_ms, revision);
}

// wm_kv_delete removes a key and returns whether it was there.
static inline int32_t wm_kv_delete(wm_kv kv, const char *key) {
  return wasmatrix_kv_delete(WM_KV(kv), WM_TEXT(key), WM_ANY_REVISION);
}

// wm_kv_increment adds to a number, in one step, and puts the sum into *sum.
static inline int32_t wm_kv_increment(wm_kv kv, const char *key, int64_t by, int64_t *sum) {
  int32_t status = wasmatrix_kv_increment(WM_KV(kv), WM_TEXT(key), by);
  if (status >= 0) *sum = wasmatrix_result_number();
  return status;
}

// wm_kv_list lists at most limit keys with a prefix that come after a key, and returns how many; wm_next reads them, one by
// one. *more is set to whether there are others.
static inline int32_t wm_kv_list(wm_kv kv, const char *prefix, const char *after, int32_t limit, int *more) {
  int32_t n = wasmatrix_kv_list(WM_KV(kv), WM_TEXT(prefix), WM_TEXT(after), limit);
  *more = n >= 0 && wasmatrix_result_number() != 0;
  return n;
}

// wm_next reads the next item of the list that is the result of the call before, cut to size, with a zero byte after it. *at
// is 0 for the first. It returns the item's length, or WM_NOT_FOUND after the last.
static inline int32_t wm_next(uint32_t *at, char *to, size_t size) {
  unsigned char head[4];
  if (wasmatrix_result_read(head, *at, 4) < 4) return WM_NOT_FOUND;
  uint32_t len = head[0] | head[1] << 8 | head[2] << 16 | (uint32_t)head[3] << 24;
  if (size > 0) {
    int32_t n = wasmatrix_result_read(to, *at + 4, len < size ? len : (uint32_t)size - 1);
    if (n < 0) return n;
    to[n] = 0;
  }
  *at += 4 + len;
  return (int32_t)len;
}

// HTTP.

// wm_header is the header of a request; all zero for an empty one.
typedef struct {
  uint32_t len;
  unsigned char bytes[4096];
} wm_header;

// wm_header_add adds a line.
static inline int32_t wm_header_add(wm_header *h, const char *name, const char *value) {
  const char *items[2] = {name, value};
  uint32_t size = wm_len(name) + wm_len(value) + 8;
  if (size > sizeof h->bytes - h->len) return WM_EXHAUSTED;
  for (int i = 0; i < 2; i++) {
    uint32_t len = wm_len(items[i]);
    for (int n = 0; n < 4; n++) h->bytes[h->len++] = (unsigned char)(len >> 8 * n);
    __builtin_memcpy(h->bytes + h->len, items[i], len);
    h->len += len;
  }
  return WM_OK;
}

// wm_http_get asks for a URL; header may be NULL. It returns the number of the request, and *status is what was answered.
// The body is read with wm_http_read, and the request is to be closed.
static inline int32_t wm_http_get(const char *capability, const char *url, const wm_header *header, int32_t *status) {
  int32_t request = wasmatrix_http_open(WM_TEXT(capability), "GET", 3, WM_TEXT(url), header ? header->bytes : NULL, header ? header->len : 0, 0, 0);
  if (request < 0) return request;
  *status = wasmatrix_http_send(request);
  if (*status >= 0) return request;
  wasmatrix_http_close(request);  // leaves the message of the failure
  return *status;
}

// wm_http_open begins a request with a body of so many bytes, -1 where that is not known; limit_ms 0 is the provider's
// own. Then wm_http_write it, wm_http_send, wm_http_read, wm_http_close. It returns the number of the request.
static inline int32_t wm_http_open(const char *capability, const char *method, const char *url, const wm_header *header, int64_t body_len, int64_t limit_ms) {
  return wasmatrix_http_open(WM_TEXT(capability), WM_TEXT(method), WM_TEXT(url), header ? header->bytes : NULL, header ? header->len : 0, body_len, limit_ms);
}

// wm_http_write sends a part of the body and returns how much was taken; less than size: the server wants no more.
static inline int32_t wm_http_write(int32_t request, const void *data, size_t size) { return wasmatrix_http_write(request, data, (uint32_t)size); }

// wm_http_send ends the request and returns the status that was answered. wm_next reads the header, name after value.
static inline int32_t wm_http_send(int32_t request) { return wasmatrix_http_send(request); }

// wm_http_read reads a part of the answer's body and returns its length, 0 at the end.
static inline int32_t wm_http_read(int32_t request, void *to, size_t size) { return wasmatrix_http_read(request, to, (uint32_t)size); }

// wm_http_close frees a request.
static inline int32_t wm_http_close(int32_t request) { return wasmatrix_http_close(request); }

// Messages.

// wm_message is a message that was received. Set data and size to the room for it.
typedef struct {
  void *data;
  size_t size;
  size_t len;  // of the message; more than size: the rest was cut
  char subject[256];
  uint32_t subscription;
  int expects_reply;
} wm_message;

// wm_publish sends a message to whoever subscribes to the subject.
static inline int32_t wm_publish(const char *capability, const char *subject, const void *data, size_t size) {
  return wasmatrix_msg_publish(WM_TEXT(capability), WM_TEXT(subject), data, (uint32_t)size);
}

// wm_request sends a message, waits for one answer, at most so long (0: 5 s), reads it into to, and returns its length, which
// may be more than room: the rest is cut.
static inline int32_t wm_request(const char *capability, const char *subject, const void *data, size_t size, int64_t timeout_ms, void *to, size_t room) {
  int32_t n = wasmatrix_msg_request(WM_TEXT(capability), WM_TEXT(subject), data, (uint32_t)size, timeout_ms);
  if (n > 0) {
    int32_t read = wasmatrix_result_read(to, 0, (uint32_t)room);
    if (read < 0) return read;
  }
  return n;
}

// wm_subscribe begins to receive what is sent to a subject, in which * is any one token and > all that follow. Replicas
// share the messages. *subscription is set to its number.
static inline int32_t wm_subscribe(const char *capability, const char *subject, uint32_t *subscription) {
  int32_t status = wasmatrix_msg_subscribe(WM_TEXT(capability), WM_TEXT(subject), 0);
  if (status >= 0) *subscription = (uint32_t)wasmatrix_result_number();
  return status;
}

// wm_subscribe_each is wm_subscribe where each replica has all messages.
static inline int32_t wm_subscribe_each(const char *capability, const char *subject, uint32_t *subscription) {
  int32_t status = wasmatrix_msg_subscribe(WM_TEXT(capability), WM_TEXT(subject), 1);
  if (status >= 0) *subscription = (uint32_t)wasmatrix_result_number();
  return status;
}

// wm_unsubscribe ends a subscription, and drops what came by it and was not received.
static inline int32_t wm_unsubscribe(uint32_t subscription) { return wasmatrix_msg_unsubscribe(subscription); }

// wm_receive waits for a message of one subscription, or with 0 of any; WM_TIMEOUT when none came in time.
static inline int32_t wm_receive(uint32_t subscription, int64_t timeout_ms, wm_message *m) {
  int32_t status = wasmatrix_msg_receive(subscription, timeout_ms);
  if (status < 0) return status;
  m->expects_reply = status;
  m->subscription = (uint32_t)wasmatrix_result_number();
  uint32_t at = 0;
  wm_next(&at, m->subject, sizeof m->subject);
  m->len = (size_t)wasmatrix_result_len() - at - 4;
  int32_t n = wasmatrix_result_read(m->data, at + 4, (uint32_t)m->size);
  return n < 0 ? n : WM_OK;
}

// wm_reply answers the message that was received last.
static inline int32_t wm_reply(const void *data, size_t size) { return wasmatrix_msg_reply(data, (uint32_t)size); }

// wm_dropped returns how many messages were dropped, since this instance did not receive the ones before.
static inline int64_t wm_dropped(void) {
  int32_t status = wasmatrix_msg_dropped();
  return status < 0 ? status : wasmatrix_result_number();
}

#ifdef __cplusplus
}
#endif

#endif
