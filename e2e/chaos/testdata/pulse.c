// A guest that shows that it lives: it draws a nonce and prints it with a count, every so many
// milliseconds, for ever. Two copies of one instance print two nonces.
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 4096);
  uint32_t nonce[2];
  if (getentropy(nonce, sizeof nonce) != 0) {
    return 3;
  }
  int every = argc > 1 ? atoi(argv[1]) : 500;
  for (unsigned long n = 1;; n++) {
    printf("pulse %08x%08x %lu\n", nonce[0], nonce[1], n);
    poll(NULL, 0, every);
  }
}
