// A guest that asks for what its arguments say, one after the other, and prints what comes of it, a line each: "VERB WHAT =
// ANSWER", or "VERB WHAT ! STATUS MESSAGE".
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <wasmatrix.h>

static wm_kv kv = {.capability = "kv"};
static const char *http = "http";
static char text[4096];

// poll rather than nanosleep: that needs compiler-rt, which not every clang comes with.
static void sleep_ms(long ms) { poll(NULL, 0, ms); }

static int failed(const char *verb, const char *what, int32_t status) {
  if (status >= 0) return 0;
  printf("%s %s ! %d %s\n", verb, what, status, wm_error(text, sizeof text));
  return 1;
}

static void get(const char *key) {
  int32_t n = wm_kv_get(kv, key, text, sizeof text - 1);
  if (failed("get", key, n)) return;
  text[n < (int32_t)sizeof text ? n : (int32_t)sizeof text - 1] = 0;
  printf("get %s = %s\n", key, text);
}

static void set(const char *key, const char *value) {
  if (!failed("set", key, wm_kv_set(kv, key, value, strlen(value)))) printf("set %s = %s\n", key, value);
}

static void increment(const char *key) {
  int64_t sum;
  if (!failed("increment", key, wm_kv_increment(kv, key, 1, &sum))) printf("increment %s = %lld\n", key, (long long)sum);
}

static void list(const char *prefix) {
  int more;
  uint32_t at = 0;
  int32_t n = wm_kv_list(kv, prefix, "", 0, &more);
  if (failed("list", prefix, n)) return;
  printf("list %s = %d\n", prefix, n);
  while (wm_next(&at, text, sizeof text) >= 0) printf("listed %s\n", text);
}

// serve answers what is asked of a subject, until it may not any more.
static void serve(const char *subject) {
  uint32_t id;
  char data[256];
  if (failed("serve", subject, wm_subscribe("messaging", subject, &id))) return;
  printf("serve %s = %u\n", subject, id);
  for (;;) {
    wm_message m = {.data = data, .size = sizeof data - 1};
    int32_t status = wm_receive(id, 60000, &m);
    if (status == WM_TIMEOUT) continue;
    if (failed("serve", subject, status)) return;
    data[m.len < sizeof data ? m.len : sizeof data - 1] = 0;
    printf("served %s\n", data);
    fflush(stdout);
    if (m.expects_reply && !failed("reply", subject, wasmatrix_msg_reply(data, (uint32_t)strlen(data)))) continue;
  }
}

// ask sends so many questions, each until it is answered.
static void ask(const char *subject, int many) {
  for (int n = 0; n < many; n++) {
    char question[32], answer[32];
    int len = snprintf(question, sizeof question, "%d", n);
    for (;;) {
      int32_t got = wm_request("messaging", subject, question, len, 1000, answer, sizeof answer - 1);
      if (got >= 0) {
        answer[got] = 0;
        printf("ask %s = %s\n", question, answer);
        break;
      }
      failed("ask", question, got);
      if (got == WM_PERMISSION_DENIED) return;
      sleep_ms(50);
    }
    fflush(stdout);
  }
}

static void fetch(const char *url) {
  int32_t status, request = wm_http_get(http, url, NULL, &status);
  if (failed("fetch", url, request)) return;
  long size = 0;
  for (int32_t n; (n = wm_http_read(request, text, sizeof text)) != 0; size += n) {
    if (failed("fetch", url, n)) return;
  }
  wm_http_close(request);
  printf("fetch %s = %d, %ld bytes\n", url, status, size);
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int i = 1; i < argc; i++) {
    const char *verb = argv[i], *with = i + 1 < argc ? argv[i + 1] : "", *and = i + 2 < argc ? argv[i + 2] : "";
    if (!strcmp(verb, "use")) {
      kv.capability = with, i++;
    } else if (!strcmp(verb, "via")) {
      http = with, i++;
    } else if (!strcmp(verb, "bucket")) {
      kv.bucket = with, i++;
    } else if (!strcmp(verb, "get")) {
      get(with), i++;
    } else if (!strcmp(verb, "set")) {
      set(with, and), i += 2;
    } else if (!strcmp(verb, "increment")) {
      increment(with), i++;
    } else if (!strcmp(verb, "list")) {
      list(with), i++;
    } else if (!strcmp(verb, "count")) { // for ever
      for (;; sleep_ms(20)) increment(with);
    } else if (!strcmp(verb, "poll")) { // for ever
      for (;; sleep_ms(100)) get(with);
    } else if (!strcmp(verb, "refetch")) { // for ever
      for (;; sleep_ms(100)) fetch(with);
    } else if (!strcmp(verb, "publish")) {
      if (!failed("publish", with, wm_publish("messaging", with, and, strlen(and)))) printf("publish %s = %s\n", with, and);
      i += 2;
    } else if (!strcmp(verb, "serve")) {
      serve(with), i++;
    } else if (!strcmp(verb, "ask")) {
      ask(with, atoi(and)), i += 2;
    } else if (!strcmp(verb, "fetch")) {
      fetch(with), i++;
    } else if (!strcmp(verb, "forever")) {
      for (;;) sleep_ms(60000);
    } else {
      printf("no verb %s\n", verb);
      return 2;
    }
  }
  return 0;
}
