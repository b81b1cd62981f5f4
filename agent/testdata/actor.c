// actor does what its arguments say, one after the other: a guest for the tests of an agent.
// It keeps to what links without the compiler's runtime library: no printf, no nanosleep.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wasi/api.h>

static void put(int fd, const char *text, const char *end) {
  write(fd, text, strlen(text));
  write(fd, end, strlen(end));
}

static void sleep_ms(long ms) {
  __wasi_subscription_t sub = {0};
  __wasi_event_t event;
  __wasi_size_t n;
  sub.u.tag = __WASI_EVENTTYPE_CLOCK;
  sub.u.u.clock.id = __WASI_CLOCKID_MONOTONIC;
  sub.u.u.clock.timeout = (__wasi_timestamp_t)ms * 1000000;
  if (__wasi_poll_oneoff(&sub, &event, 1, &n) != 0) __builtin_trap();
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    const char *does = argv[i];
    const char *with = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(does, "exit")) {
      exit(atoi(with));
    } else if (!strcmp(does, "print")) {
      put(1, with, "\n"), i++;
    } else if (!strcmp(does, "complain")) { // without a newline
      put(2, with, ""), i++;
    } else if (!strcmp(does, "env")) {
      put(1, getenv(with), "\n"), i++;
    } else if (!strcmp(does, "sleep")) {
      sleep_ms(atol(with)), i++;
    } else if (!strcmp(does, "spin")) {
      for (volatile unsigned long n = 0;; n++) {
      }
    } else if (!strcmp(does, "count")) {
      for (volatile long n = 0, to = atol(with); n < to; n++) {
      }
      i++;
    } else if (!strcmp(does, "flood")) {
      for (;;) {
        put(1, "all work and no play makes jack a dull boy", "\n");
      }
    } else if (!strcmp(does, "eat")) {
      for (;;) {
        char *p = malloc(1 << 16);
        if (!p) {
          exit(9);
        }
        *(volatile char *)p = 1; // or the compiler sees that nobody wants it
      }
    } else if (!strcmp(does, "trap")) {
      __builtin_trap();
    } else {
      put(2, "actor can't ", does);
      exit(2);
    }
  }
  return 0;
}
