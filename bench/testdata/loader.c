// A guest that makes one kind of call for some seconds and prints what it took: "CALLS calls, P50 us, P99 us". Arguments: KIND,
// seconds, and what it is called with.
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wasmatrix.h>

#define MOST 2000000

static uint32_t took[MOST]; // nanoseconds
static char value[256];

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc < 4) return 2;
  const char *kind = argv[1], *key = argc > 4 ? argv[4] : "key";
  wm_kv kv = {.capability = argv[3]};
  uint64_t until = now() + (uint64_t)atoi(argv[2]) * 1000000000;
  memset(value, 'x', sizeof value);
  if (wm_kv_set(kv, key, value, sizeof value) < 0) {
    printf("set: %s\n", wm_error(value, sizeof value));
    return 1;
  }
  uint32_t calls = 0;
  while (calls < MOST) {
    uint64_t began = now();
    if (began >= until) break;
    int32_t status = strcmp(kind, "get") == 0 ? wm_kv_get(kv, key, value, sizeof value) : wm_kv_set(kv, key, value, sizeof value);
    if (status < 0) {
      printf("%s: %s\n", kind, wm_error(value, sizeof value));
      return 1;
    }
    took[calls++] = (uint32_t)(now() - began);
  }
  qsort(took, calls, sizeof *took, ascending);
  printf("%u calls, %u ns, %u ns\n", calls, took[calls / 2], took[calls - calls / 100 - 1]);
  return 0;
}
