// Uses most of the SDK, and prints what comes of it. Its like in other languages prints the same.
#include <stdio.h>
#include <string.h>
#include <wasmatrix.h>

static const char *truth(int b) { return b ? "true" : "false"; }

int main(int argc, char **argv) {
  wm_kv kv = {.capability = "kv"}, other = {.capability = "kv", .bucket = "other"};
  static char text[4096];
  if (argc != 2) return 2;
  printf("absent %s\n", truth(wm_kv_get(kv, "b", text, sizeof text) == WM_NOT_FOUND));
  wm_kv_set_if(kv, "b", "one", 3, 60000, WM_ABSENT);
  int64_t revision = wm_revision();
  printf("set %lld %s\n", (long long)revision, truth(wm_kv_set_if(kv, "b", "two", 3, 0, WM_ABSENT) == WM_CONFLICT));
  wm_kv_set_if(kv, "b", "three", 5, 0, revision);
  int32_t len = wm_kv_get(kv, "b", text, sizeof text);
  printf("read %.*s %lld\n", (int)len, text, (long long)wm_revision());
  int64_t sum;
  wm_kv_increment(kv, "n", 41, &sum);
  printf("sum %lld %s\n", (long long)sum, truth(wm_kv_exists(kv, "n")));
  wm_kv_set(kv, "a", "", 0);
  int more;
  uint32_t at = 0;
  printf("keys");
  wm_kv_list(kv, "", "", 0, &more);
  while (wm_next(&at, text, sizeof text) >= 0) printf(" %s", text);
  int gone = wm_kv_delete(kv, "a");
  printf("\ndeleted %s %s\n", truth(gone), truth(wm_kv_delete(kv, "a")));
  wm_kv_get(other, "b", text, sizeof text);
  printf("denied %s\n", wm_error(text, sizeof text));

  wm_header header = {0};
  wm_header_add(&header, "X-Ask", "why?");
  char url[200];
  snprintf(url, sizeof url, "%s/echo", argv[1]);
  int32_t request = wm_http_open("http", "POST", url, &header, -1, 20000);
  memset(text, 'x', sizeof text);
  for (size_t left = 100000; left > 0;) {
    int32_t n = wm_http_write(request, text, left < sizeof text ? left : sizeof text);
    if (n <= 0) return 3;
    left -= (size_t)n;
  }
  int32_t status = wm_http_send(request), n;
  char name[100], value[100], asked[100] = "";
  for (at = 0; wm_next(&at, name, sizeof name) >= 0 && wm_next(&at, value, sizeof value) >= 0;) {
    if (strcmp(name, "X-Asked") == 0) strcpy(asked, value);
  }
  long size = 0;
  while ((n = wm_http_read(request, text, sizeof text)) > 0) size += n;
  wm_http_close(request);
  printf("posted %d %s %ld\n", status, asked, size);

  uint32_t sub;
  printf("nobody %s\n", truth(wm_request("messaging", "s.x", "", 0, 1000, text, sizeof text) == WM_UNAVAILABLE));
  wm_subscribe_each("messaging", "s.*", &sub);
  wm_message m = {.data = text, .size = sizeof text};
  printf("nothing %s\n", truth(wm_receive(sub, 1, &m) == WM_TIMEOUT));
  wm_publish("messaging", "s.x", "hello", 5);
  wm_receive(0, 1000, &m);
  printf("received %s %.*s %s %s\n", m.subject, (int)m.len, text, truth(m.expects_reply), truth(m.subscription == sub));
  int64_t dropped = wm_dropped();
  printf("dropped %lld true %s\n", (long long)dropped, truth(wm_unsubscribe(sub) == WM_OK));
  return 0;
}
