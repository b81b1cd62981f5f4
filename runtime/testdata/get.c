// Reads a key as often as its argument says.
#include <stdlib.h>
#include <wasmatrix.h>

int main(int argc, char **argv) {
  wm_kv kv = {.capability = "kv"};
  char value[64];
  for (long n = argc > 1 ? atol(argv[1]) : 1; n > 0; n--) {
    if (wm_kv_get(kv, "greeting", value, sizeof value) != 5) return 1;
  }
  return 0;
}
