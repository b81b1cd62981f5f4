// actor does what its arguments say, one after the other: a guest for the tests of an agent.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    const char *does = argv[i];
    const char *with = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(does, "exit")) {
      exit(atoi(with));
    } else if (!strcmp(does, "print")) {
      puts(with), i++;
      fflush(stdout);
    } else if (!strcmp(does, "complain")) {
      fputs(with, stderr), i++; // without a newline
    } else if (!strcmp(does, "env")) {
      puts(getenv(with)), i++;
    } else if (!strcmp(does, "sleep")) {
      long ms = atol(with);
      struct timespec t = {ms / 1000, ms % 1000 * 1000000};
      nanosleep(&t, 0), i++;
    } else if (!strcmp(does, "spin")) {
      for (volatile unsigned long n = 0;; n++) {
      }
    } else if (!strcmp(does, "flood")) {
      for (;;) {
        puts("all work and no play makes jack a dull boy");
      }
    } else if (!strcmp(does, "eat")) {
      for (;;) {
        char *p = malloc(1 << 16);
        if (!p) {
          exit(9);
        }
        memset(p, 1, 1 << 16);
      }
    } else if (!strcmp(does, "trap")) {
      __builtin_trap();
    } else {
      fprintf(stderr, "actor can't %s\n", does);
      exit(2);
    }
  }
  return 0;
}
