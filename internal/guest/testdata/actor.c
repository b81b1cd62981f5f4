// A guest that does what its arguments say, one after the other:
//
//   say TEXT     prints a line            err TEXT    prints a line on stderr
//   lines N      prints N numbered lines  env NAME    prints a variable
//   sleep MS     sleeps                   forever     sleeps for ever
//   tick MS      prints a line each MS    exit CODE   ends
//   trap         executes unreachable     spin        burns a core
//   allocate     takes all memory it gets, over and over
//   flood        prints as fast as it can
//   recurse      calls itself until the stack ends
//   divide       divides by zero              stray       reads beyond its memory
//   args         prints its arguments         touch MB    writes to so much memory
//   count N      computes the same each time
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// poll rather than nanosleep: that needs compiler-rt, which not every clang comes with.
static void sleep_ms(long ms) { poll(NULL, 0, ms); }

static void spin(void) {
  for (volatile unsigned i = 0;; i++) {
  }
}

static void allocate(void) {
  for (size_t taken = 0;;) {
    char *p = malloc(1 << 20);
    if (p == NULL) {
      printf("no more memory after %zu MiB\n", taken >> 20);
      fflush(stdout);
      spin();
    }
    memset(p, 0xaa, 1 << 20);
    taken += 1 << 20;
  }
}

static void flood(void) {
  for (unsigned long i = 0;; i++) {
    printf("flood %lu: the quick brown fox jumps over the lazy dog, and over it again\n", i);
  }
}

#pragma clang diagnostic ignored "-Winfinite-recursion" // which is what it is for
static int recurse(volatile int *above) {
  volatile int here[64];
  here[0] = above == NULL ? 0 : above[0] + 1;
  return recurse(here) + here[0];
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 4096);
  for (int i = 1; i < argc; i++) {
    const char *verb = argv[i];
    const char *arg = i + 1 < argc ? argv[i + 1] : "";
    if (strcmp(verb, "say") == 0) {
      printf("%s\n", arg), i++;
    } else if (strcmp(verb, "err") == 0) {
      fprintf(stderr, "%s\n", arg), i++;
    } else if (strcmp(verb, "lines") == 0) {
      for (int n = 1; n <= atoi(arg); n++) {
        printf("line %d\n", n);
      }
      i++;
    } else if (strcmp(verb, "env") == 0) {
      const char *value = getenv(arg);
      printf("%s=%s\n", arg, value == NULL ? "(unset)" : value), i++;
    } else if (strcmp(verb, "sleep") == 0) {
      sleep_ms(atol(arg)), i++;
    } else if (strcmp(verb, "forever") == 0) {
      for (;;) {
        sleep_ms(3600 * 1000);
      }
    } else if (strcmp(verb, "tick") == 0) {
      for (int n = 1;; n++) {
        printf("tick %d\n", n);
        sleep_ms(atol(arg));
      }
    } else if (strcmp(verb, "exit") == 0) {
      return atoi(arg);
    } else if (strcmp(verb, "trap") == 0) {
      __builtin_trap();
    } else if (strcmp(verb, "divide") == 0) {
      volatile int zero = 0;
      volatile int seven = 7;
      return seven / zero;
    } else if (strcmp(verb, "stray") == 0) {
      return *(volatile int *)0xfffffff0;
    } else if (strcmp(verb, "args") == 0) {
      for (int n = 0; n < argc; n++) {
        printf("%d=%s\n", n, argv[n]);
      }
    } else if (strcmp(verb, "touch") == 0) {
      size_t size = (size_t)atol(arg) << 20;
      char *p = malloc(size);
      if (p == NULL) {
        return 9;
      }
      for (size_t at = 0; at < size; at += 4096) {
        ((volatile char *)p)[at] = 1;
      }
      i++;
    } else if (strcmp(verb, "count") == 0) {
      for (volatile long n = 0, to = atol(arg); n < to; n++) {
      }
      i++;
    } else if (strcmp(verb, "spin") == 0) {
      spin();
    } else if (strcmp(verb, "allocate") == 0) {
      allocate();
    } else if (strcmp(verb, "flood") == 0) {
      flood();
    } else if (strcmp(verb, "recurse") == 0) {
      return recurse(NULL);
    } else {
      fprintf(stderr, "unknown verb %s\n", verb);
      return 2;
    }
  }
  return 0;
}
