// A guest that never rests, and prints a line for each few million steps: so it can be seen how much it got to compute.
#include <stdio.h>

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (unsigned long done = 1;; done++) {
    for (volatile unsigned i = 0; i < 2000000; i++) {
    }
    printf("%lu\n", done);
  }
}
