// counter prints a number every second until it is stopped: a guest of a few KB.
#include <unistd.h>
#include <wasi/api.h>

static void sleep_second(void) {
  __wasi_subscription_t sub = {0};
  __wasi_event_t event;
  __wasi_size_t n;
  sub.u.tag = __WASI_EVENTTYPE_CLOCK;
  sub.u.u.clock.id = __WASI_CLOCKID_MONOTONIC;
  sub.u.u.clock.timeout = 1000000000;
  __wasi_poll_oneoff(&sub, &event, 1, &n);
}

static void print(unsigned long n) {
  char line[24];
  int at = sizeof line;
  line[--at] = '\n';
  do {
    line[--at] = '0' + n % 10;
    n /= 10;
  } while (n);
  write(1, line + at, sizeof line - at);
}

int main(void) {
  for (unsigned long n = 1;; n++) {
    print(n);
    sleep_second();
  }
}
