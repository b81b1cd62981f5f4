// counter counts seconds for ever: what it has counted is in a store, so that it goes on after a restart, also on
// another host.
#include <poll.h>
#include <stdio.h>
#include <wasmatrix.h>

int main(void) {
  wm_kv kv = {.capability = "kv"};
  for (;;) {
    int64_t count;
    if (wm_kv_increment(kv, "count", 1, &count) < 0) {
      char why[200];
      fprintf(stderr, "%s\n", wm_error(why, sizeof why));
      return 1;  // and the restart policy tries again
    }
    printf("count %lld\n", (long long)count);
    fflush(stdout);
    poll(NULL, 0, 1000);
  }
}
